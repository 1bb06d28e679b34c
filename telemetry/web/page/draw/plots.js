// Plots of fields over time: what the database has of a range, and then each change as it comes.

import { ApiError, get } from "../data/api.js";
import { fieldOf, fieldsOf, isPlottable, meaning } from "../data/fields.js";
import { formatClock, formatMoment, formatNumber } from "../format.js";
import { remember, remembered } from "../remembered.js";
import { isChinese, word } from "../words.js";
import { colours } from "./colours.js";
import { make, setText } from "./dom.js";
import { panel } from "./tiles.js";

// Each range: its length in seconds, and whether changes are drawn as they come.
const RANGES = { "15m": [900, true], "1h": [3600, true], "24h": [86_400, false], "7d": [604_800, false], "30d": [2_592_000, false] };
const LEAST_LIVE = 120; // s; of a host that is new, the live range shows what there is
const MOST_FIELDS = 8; // in one request
const REFRESH = 60_000; // ms, of ranges that do not move with each change
const POWERS_OF_TWO = Array.from({ length: 63 }, (_, power) => 2 ** power);
const HEIGHT = 150;
const COLOURS = ["--muted", "--grid", "--series-fill", ...Array.from({ length: 7 }, (_, at) => `--series-${at + 1}`)];

/** The plots of a record. `groups` are {title, fields, isFromZero, most}; `host` is "" for the miner's own record. */
export class Plots {
  constructor({ mirror, host, groups, recordName }) {
    Object.assign(this, { mirror, host, recordName });
    this.range = remembered("range") in RANGES ? remembered("range") : "15m";
    this.recent = [];
    this.note = make("span.panel-note", { role: "status" });
    this.figures = make("div.plots");
    this.plots = groups.filter(({ fields }) => fields.some((name) => fieldOf(name))).map((group) => this.add(group));
    this.element = panel("plot-panel", word("plots"), [this.rangeChoice(), this.note], this.figures, this.otherChoice(groups));
    this.take(mirror.records.get(host));
    this.resized = new ResizeObserver(() => this.plots.forEach((plot) => plot.resize()));
    this.resized.observe(this.figures);
    this.load();
  }

  add(group) {
    const plot = new Plot(group);
    this.figures.append(plot.element);
    return plot;
  }

  rangeChoice() {
    const choose = (event) => {
      this.range = event.target.value;
      remember("range", this.range);
      this.load();
    };
    const choices = Object.keys(RANGES).map((name) =>
      make("label", {}, make("input", { type: "radio", name: "range", value: name, checked: name === this.range, onchange: choose }), make("span", {}, word(`range${name}`))));
    return make("fieldset.segments", {}, make("legend.unseen", {}, word("range")), choices);
  }

  // Whatever field is a number can be plotted: a new one appears here by itself.
  otherChoice(groups) {
    const taken = new Set(groups.flatMap((group) => group.fields));
    const others = [...fieldsOf(this.recordName).values()].filter((field) => isPlottable(field) && !taken.has(field.name));
    const choose = () => {
      if (!select.value) return;
      this.plots.push(this.add({ title: select.value, fields: [select.value] }));
      select.selectedOptions[0].remove();
      select.value = "";
      this.load();
    };
    const select = make("select", { "aria-label": word("plotField"), onchange: choose }, make("option", { value: "" }, `+ ${word("plotField")}`),
      others.map((field) => make("option", { value: field.name, title: meaning(field) }, isChinese() ? `${field.zh} (${field.name})` : field.name)));
    return others.length ? make("div.plot-more", {}, select) : null;
  }

  get isLive() {
    return RANGES[this.range][1];
  }

  /** Take in the record as it is now. */
  take(record) {
    if (!record || record.host !== this.host || !record.time) return;
    // Its two senders sample at times of their own: what comes second may be the older one.
    const last = this.recent.at(-1)?.time ?? 0;
    const time = Math.max(record.time, last);
    if (time === last) this.recent.pop();
    this.recent.push({ time, fields: { ...record.fields } });
    const oldest = time - RANGES["1h"][0] * 1000;
    if (this.recent[0].time < oldest - 60_000) this.recent = this.recent.filter(({ time }) => time >= oldest);
  }

  // When (Unix ms) what there is begins.
  get first() {
    const begins = this.plots.flatMap((plot) => plot.past.map((points) => points[0]?.[0] ?? Infinity));
    return Math.min(...begins, this.recent[0]?.time ?? Infinity);
  }

  async load() {
    const range = this.range;
    clearTimeout(this.timer);
    const names = this.plots.flatMap((plot) => plot.fields);
    const asked = [];
    for (let at = 0; at < names.length; at += MOST_FIELDS) asked.push(names.slice(at, at + MOST_FIELDS));
    const path = `api/miners/${encodeURIComponent(this.mirror.minerId)}/history`;
    try {
      const answers = await Promise.all(asked.map((field) => get(path, { field, host: this.host || undefined, since: `-${range}` })));
      if (range !== this.range || this.isEnded) return;
      const series = new Map(answers.flatMap((answer) => answer.series).map((one) => [one.field, one.points]));
      for (const plot of this.plots) plot.past = plot.fields.map((name) => series.get(name) ?? []);
      setText(this.note, "");
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (range !== this.range || this.isEnded) return;
      for (const plot of this.plots) plot.past = plot.fields.map(() => []);
      setText(this.note, `${word("noHistory")}: ${error.message}`);
    }
    if (!this.isLive) this.timer = setTimeout(() => this.load(), REFRESH);
    this.isLoaded = true;
    this.drawnAt = 0;
  }

  /** Draw, once a second at most. */
  draw(now) {
    if (!this.isLoaded || !now || performance.now() - (this.drawnAt ?? 0) < 950) return;
    this.drawnAt = performance.now();
    const span = RANGES[this.range][0];
    const until = now / 1000;
    const since = this.range === "15m" ? Math.max(until - span, Math.min(this.first / 1000, until - LEAST_LIVE)) : until - span;
    for (const plot of this.plots) if (plot.isInView()) plot.draw(this.isLive ? this.recent : [], since, until);
  }

  end() {
    this.isEnded = true;
    clearTimeout(this.timer);
    this.resized.disconnect();
    for (const plot of this.plots) plot.end();
  }
}

class Plot {
  constructor({ title, fields, isFromZero = true, most }) {
    this.fields = fields.filter((name) => fieldOf(name));
    Object.assign(this, { isFromZero, most });
    this.unit = fieldOf(this.fields[0]).unit;
    this.past = this.fields.map(() => []);
    this.values = this.fields.map(() => make("span.legend-value"));
    const entries = this.fields.map((name, at) =>
      make(`span.legend.series-${at + 1}`, { title: meaning(fieldOf(name)) }, make("span.swatch", { "aria-hidden": "true" }), isChinese() ? fieldOf(name).zh : name, this.values[at]));
    this.nothing = make("p.plot-empty", { hidden: true }, word("noData"));
    this.at = make("span.plot-at");
    this.canvas = make("div.plot-canvas", { role: "img", "aria-label": title });
    this.element = make("figure.plot", {}, make("figcaption", {}, make("span.plot-title", {}, title), this.at, make("span.legends", {}, entries)), this.canvas, this.nothing);
  }

  isInView() {
    const { top, bottom } = this.element.getBoundingClientRect();
    return bottom > -HEIGHT && top < innerHeight + HEIGHT;
  }

  draw(recent, since, until) {
    const data = this.data(recent, since);
    this.nothing.hidden = data[0].length > 0;
    this.range = [since, until];
    if (!this.plot) this.plot = new uPlot(this.options(), data, this.canvas);
    else this.plot.setData(data);
    this.write();
  }

  // Fields of one record have their times in common; where one has none, its last value holds.
  data(recent, since) {
    const first = recent[0]?.time ?? Infinity;
    const tables = this.past.map((points) => {
      const before = points.filter(([time]) => time >= since * 1000 && time < first);
      return [before.map(([time]) => time / 1000), before.map(([, value]) => value)];
    });
    const [times, ...values] = tables.some(([xs]) => xs.length) ? uPlot.join(tables) : [[], ...this.fields.map(() => [])];
    for (const { time, fields } of recent) {
      if (time < since * 1000) continue;
      times.push(time / 1000);
      this.fields.forEach((name, at) => values[at].push(fields[name] ?? null));
    }
    return [times, ...values];
  }

  options() {
    const found = colours(this.canvas, COLOURS);
    const colour = (name) => found[name];
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false }, font: `11px ${getComputedStyle(document.body).fontFamily}` };
    const isBytes = this.unit.startsWith("B");
    const write = (_, ticks) => ticks.map((tick) => formatNumber(tick, this.unit === "FIL" || this.unit === "%" || this.unit === "wins/d" || this.unit === "°C" ? "1" : this.unit, 4));
    return {
      ...this.size(),
      legend: { show: false },
      cursor: { y: false, sync: { key: "plots" }, points: { size: 6 }, drag: { setScale: false, x: false } },
      scales: { x: { time: true, range: () => this.range }, y: { range: (_, low, high) => this.bounds(low, high) } },
      axes: [
        { ...axis, size: 24, space: 70, values: (_, ticks, __, ___, step) => ticks.map((tick) => (step >= 86_400 ? formatMoment(tick * 1000).slice(5, 10) : formatClock(tick * 1000).slice(0, step < 60 ? 8 : 5))) },
        { ...axis, size: isBytes ? 72 : 50, space: 28, values: write, ...(isBytes ? { incrs: POWERS_OF_TWO } : {}) },
      ],
      series: [{}, ...this.fields.map((_, at) => ({
        stroke: colour(`--series-${at + 1}`), width: 1.5, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }),
        ...(at === 0 && this.fields.length === 1 ? { fill: colour("--series-fill") } : {}),
      }))],
      hooks: { setCursor: [() => this.write()] },
    };
  }

  bounds(low, high) {
    if (this.most !== undefined) return [0, this.most];
    if (low === null || low === undefined) return [0, 1];
    if (this.isFromZero) return [0, high > 0 ? high * 1.12 : 1];
    const margin = (high - low) * 0.12 || Math.abs(high) * 0.02 || 1;
    return [low - margin, high + margin];
  }

  // Beside each name stands its value where the pointer is, or its last one.
  write() {
    if (!this.plot) return;
    const [times, ...values] = this.plot.data;
    const at = this.plot.cursor.idx;
    setText(this.at, at === null || at === undefined ? "" : formatMoment(times[at] * 1000));
    values.forEach((held, place) => {
      const value = at === null || at === undefined ? held.findLast((one) => typeof one === "number") : held[at];
      setText(this.values[place], formatNumber(value ?? undefined, this.unit, 2));
    });
  }

  size() {
    return { width: Math.max(200, Math.floor(this.canvas.clientWidth)), height: HEIGHT };
  }

  resize() {
    if (this.plot && this.plot.width !== this.size().width) this.plot.setSize(this.size());
  }

  end() {
    this.plot?.destroy();
  }
}
