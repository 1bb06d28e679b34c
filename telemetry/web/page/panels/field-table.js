// Every field of a record with its value and what it means. A new field needs nothing here.

import { fieldsOf, meaning } from "../data/fields.js";
import { make, setText } from "../draw/dom.js";
import { panel, table } from "../draw/tiles.js";
import { formatValue } from "../format.js";
import { word } from "../words.js";

/** The panel of all fields of a record; `recordName` is minerInfo or workerInfo. */
export class FieldTable {
  constructor(recordName) {
    this.rows = new Map();
    const body = make("tbody");
    for (const field of fieldsOf(recordName).values()) body.append(this.row(field));
    const headings = ["field", "value", "meaning", "owner"].map((name) => make("th", { scope: "col" }, word(name)));
    this.element = panel("fields", word("allFields"), [],
      make("div.table-frame", { tabindex: "0", role: "group", "aria-label": word("allFields") }, make("table.field-table", { "aria-label": word("allFields") }, make("thead", {}, make("tr", {}, headings)), body)));
  }

  row(field) {
    const value = make("td.field-value");
    this.rows.set(field.name, { value, field });
    return make("tr", {}, make("th", { scope: "row" }, make("code", {}, field.name)), value, make("td.field-meaning", {}, meaning(field)), make("td.field-owner", {}, field.owner));
  }

  draw(record) {
    for (const { value, field } of this.rows.values()) write(value, field, record?.fields[field.name]);
  }
}

function write(cell, field, value) {
  if (value === undefined || typeof value !== "object") {
    if (cell.shownComposite) cell.replaceChildren();
    cell.shownComposite = cell.shownText = undefined;
    setText(cell, formatValue(field, value));
    return;
  }
  const text = JSON.stringify(value);
  if (cell.shownComposite === text) return;
  cell.shownComposite = text;
  cell.replaceChildren(composite(field, value));
}

function composite(field, value) {
  if (!Array.isArray(value)) return pairs(Object.entries(value).map(([name, one]) => [name || '""', formatValue({ unit: field.unit }, one)]));
  if (!value.length) return make("span.muted", {}, word("none"));
  if (!field.members) return make("span.tags", {}, value.map((one) => make("span.tag", {}, formatValue(undefined, one))));
  return objects(field, value);
}

const pairs = (entries) => make("span.tags", {}, entries.map(([name, text]) => make("span.tag", {}, `${name} `, make("b", {}, text))));

// Members that a newer version added stand behind the declared ones.
function objects(field, entries) {
  const declared = new Map(field.members.map((member) => [member.name, member]));
  const names = [...new Set([...declared.keys(), ...entries.flatMap((entry) => Object.keys(entry))])].filter((name) => entries.some((entry) => name in entry));
  const isNumber = (name) => ["integer", "number"].includes(declared.get(name)?.type) && declared.get(name)?.unit !== "ms";
  const shown = table(names, { label: field.name, numbers: names.flatMap((name, place) => (isNumber(name) ? [place] : [])) });
  shown.set(entries.slice(0, MOST_ENTRIES).map((entry) => names.map((name) => formatValue(declared.get(name), entry[name]))));
  const rest = entries.length - MOST_ENTRIES;
  return rest > 0 ? make("div", {}, shown.element, make("p.muted", {}, `+ ${rest}`)) : shown.element;
}

const MOST_ENTRIES = 100;
