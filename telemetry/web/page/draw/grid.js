// A table of many rows, of which only those in view are elements. Sorted by its headings, walked with the arrow keys.
//
// A column is {name, label, width (px), share (of spare width), priority (low ones are left out first), isNumber, isNarrow
// (shown on a phone, there without its label if isPlain), sort(item) -> number or string, and text(item, now) or make(cell) -> fill(item, now)}.

import { serverTime } from "../data/clock.js";
import { compareNames, word } from "../words.js";
import { make, setAttribute, setText } from "./dom.js";
import { askForFrame } from "./frames.js";

const ROW_HEIGHT = 30;
const SPARE_ROWS = 6;
const RESORT = 2_000; // ms; rows that change places more often cannot be read
const NARROW = matchMedia("(max-width: 700px)");
const GAP = 20;
const FIRST_LINE = 3; // cells on a phone; below them stand the others, so many twelfths wide
const SPANS = [12, 12, 6, 4, 3];
const PADDING = 16;

export class Grid {
  /** `order` compares two items where no heading was chosen; `narrowHeight` is a row's on a phone. */
  constructor({ label, columns, keyOf, link, order, empty, narrowHeight = 76, rowClass = () => "" }) {
    Object.assign(this, { columns, keyOf, link, order, narrowHeight, rowClass });
    this.sorting = null;
    this.items = [];
    this.rows = new Map();
    this.spare = [];
    this.sorted = [];
    this.placed = null; // the items that stand in `sorted`
    this.sortedAt = 0;
    this.timer = null;
    this.activeKey = null;
    this.head = make("div.grid-head", { role: "row" });
    this.body = make("div.grid-body", { role: "rowgroup" });
    this.empty = make("p.empty", { hidden: true }, empty);
    this.table = make("div.grid", { role: "grid", "aria-label": label }, make("div.grid-top", { role: "rowgroup" }, this.head), this.body);
    this.element = make("div.grid-frame", {}, this.table, this.empty);
    this.body.addEventListener("keydown", (event) => this.walk(event));
    this.body.addEventListener("focusin", (event) => (this.activeKey = event.target.closest(".row")?.shownKey ?? this.activeKey));
  }

  /** A choice of the order, for a phone, which shows no headings. */
  sortChoice() {
    const options = this.columns.filter((column) => column.sort).map((column) => make("option", { value: column.name }, column.label));
    const select = make("select", { "aria-label": word("sortBy"), onchange: () => this.sortBy(select.value || null) },
      make("option", { value: "" }, word("problemFirst")), options);
    return make("label.sort-choice", {}, make("span", {}, word("sortBy")), select);
  }

  /** Say what is to be shown; it is sorted with the next frame. `isOther`: other items, not the same with other values. */
  setItems(items, isOther = false) {
    this.items = items;
    if (isOther) this.sortedAt = 0;
  }

  /** Draw what is in view. */
  draw(now) {
    this.lay();
    this.sort();
    const height = this.rowHeight;
    const top = this.body.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / height) - SPARE_ROWS);
    const last = Math.min(this.sorted.length, Math.ceil((innerHeight - top) / height) + SPARE_ROWS);
    setAttribute(this.table, "aria-rowcount", String(this.sorted.length + 1));
    this.empty.hidden = this.sorted.length > 0;
    if (this.shownHeight !== height * this.sorted.length) {
      this.body.style.height = `${(this.shownHeight = height * this.sorted.length)}px`;
    }
    const wanted = new Map();
    for (let index = first; index < last; index += 1) wanted.set(this.keyOf(this.sorted[index]), index);
    this.keepFocused(wanted);
    this.release(wanted);
    const tabStop = wanted.has(this.activeKey) ? this.activeKey : wanted.keys().next().value;
    for (const [key, index] of wanted) this.drawRow(key, index, height, now, key === tabStop);
  }

  // The row with the focus stays an element wherever it is: the focus would be lost with it.
  keepFocused(wanted) {
    const focused = document.activeElement?.closest?.(".row");
    if (!focused || !this.body.contains(focused) || wanted.has(focused.shownKey)) return;
    const index = this.sorted.findIndex((item) => this.keyOf(item) === focused.shownKey);
    if (index >= 0) wanted.set(focused.shownKey, index);
  }

  release(wanted) {
    for (const [key, row] of this.rows) {
      if (wanted.has(key)) continue;
      this.rows.delete(key);
      row.hidden = true;
      this.spare.push(row);
    }
  }

  drawRow(key, index, height, now, isTabStop) {
    let row = this.rows.get(key);
    if (row === undefined) {
      row = this.spare.pop() ?? this.makeRow();
      row.hidden = false;
      row.shownKey = key;
      this.rows.set(key, row);
    }
    const item = this.sorted[index];
    if (row.shownTop !== index * height) {
      row.style.transform = `translateY(${(row.shownTop = index * height)}px)`;
      row.setAttribute("aria-rowindex", index + 2);
    }
    setAttribute(row, "data-level", this.rowClass(item) || null);
    for (const fill of row.fills) fill(item, now);
    setAttribute(row.anchor, "href", this.link?.(item) ?? null);
    setAttribute(row.anchor, "tabindex", isTabStop ? "0" : "-1");
  }

  makeRow() {
    const row = make("div.row", { role: "row" });
    row.fills = this.shown.map((column, index) => {
      const cell = make(`div.cell${column.isNumber ? ".number" : ""}`, { role: "gridcell", "data-column": column.name });
      if (this.isNarrow && index && !column.isPlain) cell.append(make("span.cell-label", {}, column.label));
      const content = index ? cell : (row.anchor = make("a.row-link"));
      if (!index) cell.append(content);
      row.append(cell);
      if (column.make) return column.make(content);
      const text = content.appendChild(make("span"));
      return (item, now) => setText(text, column.text(item, now));
    });
    this.body.append(row);
    return row;
  }

  sort() {
    if (this.placed === this.items) return;
    if (this.sortedAt && performance.now() - this.sortedAt < RESORT && this.keepPlaces()) {
      this.timer ??= setTimeout(() => this.resort(), RESORT);
      return;
    }
    this.sortedAt = performance.now();
    this.placed = this.items;
    this.sorted = [...this.items].sort(this.comparison());
  }

  // The same rows in the places that they have, with their new values; whether they are the same.
  keepPlaces() {
    if (this.sorted.length !== this.items.length) return false;
    const byKey = new Map(this.items.map((item) => [this.keyOf(item), item]));
    const same = this.sorted.map((item) => byKey.get(this.keyOf(item)));
    if (same.includes(undefined)) return false;
    this.sorted = same;
    this.placed = this.items;
    return true;
  }

  resort() {
    this.timer = null;
    this.placed = null;
    askForFrame();
  }

  comparison() {
    if (this.sorting === null) return this.order;
    const { column, isDescending } = this.sorting;
    const value = this.columns.find((one) => one.name === column).sort;
    return (one, other) => compare(value(one), value(other), isDescending) || this.order(one, other);
  }

  /** Sort by a column: numbers the largest first, then the other way round, then as by default. */
  sortBy(name) {
    const column = this.columns.find((one) => one.name === name);
    const first = Boolean(column?.isNumber);
    if (name === null) this.sorting = null;
    else if (this.sorting?.column !== name) this.sorting = { column: name, isDescending: first };
    else if (this.sorting.isDescending === first) this.sorting = { column: name, isDescending: !first };
    else this.sorting = null;
    this.sortedAt = 0;
    this.placed = null;
    this.markSorting();
    askForFrame();
  }

  markSorting() {
    for (const heading of this.head.children) {
      const isSorted = heading.dataset.column === this.sorting?.column;
      setAttribute(heading, "aria-sort", isSorted ? (this.sorting.isDescending ? "descending" : "ascending") : null);
    }
  }

  // Columns for which there is no room are left out, the least important first.
  lay() {
    const width = this.table.clientWidth;
    if (width === this.laidWidth) return;
    this.laidWidth = width;
    const isNarrow = NARROW.matches;
    const shown = isNarrow ? this.columns.filter((column) => column.isNarrow) : fitting(this.columns, width - 2 * PADDING);
    if (this.shown && isNarrow === this.isNarrow && shown.length === this.shown.length && shown.every((one, at) => one === this.shown[at])) return;
    this.shown = shown;
    this.isNarrow = isNarrow;
    this.rowHeight = isNarrow ? this.narrowHeight : ROW_HEIGHT;
    this.table.classList.toggle("narrow", isNarrow);
    this.table.style.setProperty("--columns", shown.map((column) => `minmax(${column.width}px, ${column.share ?? (column.isNumber ? 0.6 : 1)}fr)`).join(" "));
    this.table.style.setProperty("--span", SPANS[shown.length - FIRST_LINE] ?? 4);
    this.table.style.setProperty("--row", `${this.rowHeight}px`);
    this.head.replaceChildren(...shown.map((column) => this.makeHeading(column)));
    this.markSorting();
    this.body.replaceChildren();
    this.rows.clear();
    this.spare = [];
    this.shownHeight = null;
  }

  makeHeading(column) {
    const content = column.sort
      ? make("button", { type: "button", title: column.title, onclick: () => this.sortBy(column.name) }, column.label)
      : make("span", { title: column.title }, column.label);
    return make(`div.heading${column.isNumber ? ".number" : ""}`, { role: "columnheader", "data-column": column.name }, content);
  }

  walk(event) {
    const at = this.sorted.findIndex((item) => this.keyOf(item) === this.activeKey);
    const page = Math.max(1, Math.floor(innerHeight / this.rowHeight) - 4);
    const steps = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: this.sorted.length - 1 };
    if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.goTo(Math.min(this.sorted.length - 1, Math.max(0, steps[event.key])));
  }

  /** Bring a row into view and give it the focus. */
  goTo(index) {
    if (!this.sorted.length) return;
    this.activeKey = this.keyOf(this.sorted[index]);
    const top = this.body.getBoundingClientRect().top + index * this.rowHeight;
    const above = this.head.getBoundingClientRect().bottom;
    if (top < above) scrollBy(0, top - above);
    else if (top + this.rowHeight > innerHeight) scrollBy(0, top + this.rowHeight - innerHeight + 8);
    this.draw(serverTime());
    this.rows.get(this.activeKey)?.anchor.focus({ preventScroll: true });
  }
}

function fitting(columns, width) {
  const shown = [...columns];
  const needed = () => shown.reduce((sum, column) => sum + column.width + GAP, -GAP);
  while (shown.length > 2 && needed() > width) {
    const least = shown.reduce((low, column) => ((column.priority ?? 9) < (low.priority ?? 9) ? column : low));
    shown.splice(shown.indexOf(least), 1);
  }
  return shown;
}

// What is not known comes last, in either direction.
function compare(one, other, isDescending) {
  const [isMissing, isOtherMissing] = [one === undefined || Number.isNaN(one), other === undefined || Number.isNaN(other)];
  if (isMissing || isOtherMissing) return isMissing - isOtherMissing;
  const order = typeof one === "string" ? compareNames(one, other) : one - other;
  return isDescending ? -order : order;
}
