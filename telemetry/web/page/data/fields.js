// The declaration of the fields, as the server tells it: names, units, meanings. A new field needs nothing here.

import { formatValue } from "../format.js";
import { isChinese } from "../words.js";

const records = { minerInfo: new Map(), workerInfo: new Map() };

/** Take in the answer of `/api/fields`. */
export function setFields(told) {
  for (const [record, fields] of Object.entries(told)) records[record] = new Map(fields.map((field) => [field.name, field]));
}

/** The declared fields of a record by name, in the order in which they are shown. */
export const fieldsOf = (record) => records[record];

/** One field, of whichever record has it. */
export const fieldOf = (name) => records.workerInfo.get(name) ?? records.minerInfo.get(name);

/** What a field or a member means, in the chosen language. */
export const meaning = (declared) => (isChinese() ? declared?.zh : declared?.en) ?? "";

/** Whether a field is a number that can be plotted. */
export const isPlottable = (field) => ["integer", "number"].includes(field.type) && field.unit !== "ms" && field.owner !== "key";

/** A field's value as text. */
export const shown = (name, value) => formatValue(fieldOf(name), value);
