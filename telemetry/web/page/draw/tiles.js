// Small parts of which panels are made: a tile with one reading, a chip with a state, a bar, a panel with its heading.

import { LEVEL_CLASS } from "../data/judge.js";
import { word } from "../words.js";
import { icon, make, setAttribute, setClass, setShare, setText } from "./dom.js";

/** A panel: a section with a heading, beside which `more` stands. */
export function panel(name, title, more = [], ...content) {
  const id = `heading-${name}`;
  return make(`section.panel.${name}`, { "aria-labelledby": id }, make("div.panel-head", {}, make("h2", { id }, title), more), content);
}

/** A tile: `set(value, note, level)` writes into it. `meaning` is shown to whoever points at it. */
export function tile(label, meaning) {
  const value = make("dd.tile-value");
  const note = make("dd.tile-note");
  const element = make("div.tile", { title: meaning }, make("dt.tile-label", {}, label), value, note);
  const set = (text, more = "", level = 0) => {
    setText(value, text);
    setText(note, more);
    setClass(element, `tile ${LEVEL_CLASS[level]}`);
  };
  return { element, set };
}

/** The state of an agent: a sign, a colour and a word; `set(state)` writes it. */
export function stateChip() {
  const sign = make("span.sign");
  const text = make("span");
  const element = make("span.state", {}, sign, text);
  let shown;
  let isSet = false;
  const set = (state) => {
    if (isSet && state === shown) return;
    isSet = true;
    shown = state;
    const known = ["online", "stale", "stopped", "lost"].includes(state) ? state : "unknown";
    setClass(element, `state ${known}`);
    sign.replaceChildren(...(known === "unknown" ? [] : [icon(known)]));
    setText(text, word(state ?? "noAgent"));
  };
  return { element, set };
}

/** For a column: a text with a level, each from the item and the time. */
export const readingCell = (text, judge) => (cell) => {
  const reading = cell.appendChild(make("span.reading"));
  return (item, now) => {
    setText(reading, text(item, now));
    setAttribute(reading, "data-level", String(judge(item, now)));
  };
};

/** For a column: the state of an agent. */
export const stateCell = (state) => (cell) => {
  const chip = stateChip();
  cell.append(chip.element);
  return (item) => chip.set(state(item));
};

/** A bar with its reading beside it: `set(share 0..1, text, level)`. */
export function bar() {
  const fill = make("span.bar-fill");
  const text = make("span.bar-text");
  const element = make("span.bar-frame", {}, make("span.bar", { "aria-hidden": "true" }, fill), text);
  const set = (share, shown, level = 0) => {
    setShare(fill, share);
    setText(text, shown);
    setClass(element, `bar-frame ${LEVEL_CLASS[level]}`);
  };
  return { element, set };
}

/** A plain table: `set(rows)` takes lists of texts or elements. Columns named in `numbers` (by place) are numbers. */
export function table(headings, { numbers = [], label, empty = word("none") } = {}) {
  const isNumber = (place) => numbers.includes(place);
  const body = make("tbody");
  const head = headings.map((heading, place) => make(isNumber(place) ? "th.number" : "th", { scope: "col" }, heading));
  const element = make("div.table-frame", { tabindex: "0", role: "group", "aria-label": label }, make("table", { "aria-label": label }, make("thead", {}, make("tr", {}, head)), body));
  const set = (rows) => {
    const text = JSON.stringify(rows);
    if (element.shownRows === text) return;
    element.shownRows = text;
    const cells = (row) => row.map((cell, place) => make(isNumber(place) ? "td.number" : "td", {}, ...[cell].flat()));
    body.replaceChildren(...rows.map((row) => make("tr", {}, cells(row))));
    if (!rows.length) body.append(make("tr", {}, make("td.empty", { colspan: headings.length }, empty)));
  };
  return { element, body, set };
}

/** Mark an element as one whose values are not of now. */
export const setDated = (element, isDated) => setAttribute(element, "data-dated", isDated ? "" : null);
