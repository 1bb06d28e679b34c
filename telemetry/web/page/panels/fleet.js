// The hosts of a miner, a row each, those with problems first.

import { fieldOf, meaning } from "../data/fields.js";
import { ageLevel, attention, FINE, isProblem, level, memoryLevel, memoryShare, overdueTasks, STATES, taskLevel, WARNING } from "../data/judge.js";
import { make, setText } from "../draw/dom.js";
import { askForFrame } from "../draw/frames.js";
import { Grid } from "../draw/grid.js";
import { bar, panel, readingCell, stateCell } from "../draw/tiles.js";
import { formatAge, formatNumber } from "../format.js";
import { hostRoute } from "../route.js";
import { compareNames, word } from "../words.js";
import { FleetMap } from "./fleet-map.js";

const number = (value, unit, digits) => (value === undefined ? "–" : formatNumber(value, unit, digits));

// A column that shows a number of one field.
function reading(name, label, width, more) {
  return {
    name, label, width, isNumber: true, title: meaning(fieldOf(name)),
    sort: ({ fields }) => fields[name],
    text: ({ fields }) => number(fields[name], fieldOf(name)?.unit === "%" ? "%" : "1", 0),
    ...more,
  };
}

const leveled = (text, judge) => readingCell(({ fields }) => text(fields), ({ fields }) => judge(fields));

function barred(name, label, share, text, judge, more) {
  return {
    name, label, width: 92, share: 2, sort: ({ fields }) => share(fields), title: meaning(fieldOf(name)),
    make(cell) {
      const shown = bar();
      cell.append(shown.element);
      return ({ fields }) => shown.set((share(fields) ?? 0) / 100, text(fields), judge(fields));
    },
    ...more,
  };
}

function temperature(name, label, more) {
  return {
    ...reading(name, label, 58, more),
    make: leveled((fields) => number(fields[name], "1", 0), (fields) => level(name, fields[name])),
  };
}

const pair = (one, other) => `${number(one, "B/s")} · ${number(other, "B/s")}`.replaceAll("B/s", "");

function columns() {
  return [
    { name: "host", label: word("host"), width: 130, share: 2, isNarrow: true, sort: ({ host }) => host, text: ({ host }) => host },
    {
      name: "state", label: word("state"), width: 82, isNarrow: true, isPlain: true, sort: attention,
      make: stateCell(({ fields }) => fields.netState),
    },
    { name: "age", label: word("age"), width: 74, isNumber: true, isNarrow: true, isPlain: true, sort: ({ time }) => -time,
      make: readingCell(({ time }, now) => formatAge(now - time), ageLevel) },
    barred("cpuLoad", word("load"), (f) => f.cpuLoad, (f) => number(f.cpuLoad, "%", 0), () => FINE, { isNarrow: true }),
    temperature("cpuTemper", word("cpuTemperature"), { priority: 6 }),
    barred("gpuLoad", word("gpu"), (f) => f.gpuLoad, (f) => number(f.gpuLoad, "%", 0), () => FINE, { isNarrow: true }),
    temperature("gpuTemper", word("gpuTemperature"), { priority: 6 }),
    { name: "gpuInfo", label: word("cards"), width: 44, isNumber: true, priority: 2, title: meaning(fieldOf("gpuInfo")),
      sort: ({ fields }) => fields.gpuInfo?.length, text: ({ fields }) => number(fields.gpuInfo?.length, "1") },
    barred("useMemory", word("memory"), memoryShare, (f) => number(memoryShare(f), "%", 0), memoryLevel, { priority: 5 }),
    barred("diskUsedPercent", word("disk"), (f) => f.diskUsedPercent, (f) => number(f.diskUsedPercent, "%", 0), (f) => level("diskUsedPercent", f.diskUsedPercent), { isNarrow: true }),
    { name: "diskR", label: word("diskIO"), width: 128, isNumber: true, priority: 1, title: word("diskTraffic"),
      sort: ({ fields }) => (fields.diskR ?? NaN) + (fields.diskW ?? NaN), text: ({ fields }) => pair(fields.diskR, fields.diskW) },
    { name: "netRx", label: word("network"), width: 128, isNumber: true, priority: 1, title: word("netTraffic"),
      sort: ({ fields }) => (fields.netRx ?? NaN) + (fields.netTx ?? NaN), text: ({ fields }) => pair(fields.netRx, fields.netTx) },
    reading("runningTasks", word("runs"), 60, { isNarrow: true }),
    reading("pendingTasks", word("waits"), 60),
    { name: "overdue", label: word("overdue"), width: 62, isNumber: true, priority: 7, sort: ({ fields }) => overdueTasks(fields),
      make: leveled((fields) => (fields.currentQueue === undefined ? "–" : String(overdueTasks(fields))), (fields) => (overdueTasks(fields) ? WARNING : FINE)) },
    { name: "taskState", label: word("tasks"), width: 150, share: 3, priority: 3, title: meaning(fieldOf("taskState")),
      sort: ({ fields }) => fields.taskState,
      make: leveled((fields) => fields.taskState ?? "–", taskLevel) },
  ];
}

/** The panel of a miner's hosts. */
export class FleetPanel {
  constructor(minerId) {
    this.chosen = "all";
    this.seen = -1;
    this.grid = new Grid({
      label: word("fleet"), columns: columns(),
      order: (one, other) => this.attention.get(other) - this.attention.get(one) || compareNames(one.host, other.host), keyOf: ({ host }) => host, empty: word("noHosts"),
      link: ({ host }) => hostRoute(minerId, host), rowClass: ({ fields }) => fields.netState ?? "unknown", narrowHeight: 74,
    });
    this.chips = new Map(["all", "problems", ...STATES].map((name) => [name, this.chip(name)]));
    this.filter = make("input", { type: "search", placeholder: word("filterHosts"), "aria-label": word("filterHosts"), "data-filter": true,
      oninput: () => this.refilter() });
    this.count = make("span.panel-note", { role: "status" });
    const bar = make("div.toolbar", {}, make("div.chips", { role: "group", "aria-label": word("state") }, [...this.chips.values()].map((one) => one.element)),
      this.filter, this.grid.sortChoice(), this.count);
    this.map = new FleetMap((host) => (location.hash = hostRoute(minerId, host)));
    this.element = panel("fleet", word("fleet"), [], this.map.element, bar, this.grid.element);
  }

  chip(name) {
    const count = make("span.count");
    const press = () => {
      this.chosen = name;
      this.refilter();
    };
    const element = make(`button.chip.${name}`, { type: "button", onclick: press, "aria-pressed": String(name === "all") }, word(name), count);
    return { element, count };
  }

  refilter() {
    for (const [name, { element }] of this.chips) element.setAttribute("aria-pressed", String(name === this.chosen));
    this.isOther = true;
    this.seen = -1;
    askForFrame();
  }

  draw(mirror, now) {
    if (mirror.version !== this.seen) {
      this.seen = mirror.version;
      this.refresh(mirror.hosts);
    }
    this.map.draw(this.hosts, this.attention);
    this.grid.draw(now);
  }

  refresh(hosts) {
    this.hosts = hosts;
    this.attention = new Map(hosts.map((record) => [record, attention(record)]));
    const fits = { all: () => true, problems: (record) => isProblem(this.attention.get(record)), ...Object.fromEntries(STATES.map((state) => [state, ({ fields }) => fields.netState === state])) };
    for (const [name, { element, count }] of this.chips) {
      const number = hosts.filter(fits[name]).length;
      setText(count, formatNumber(number, "1"));
      element.dataset.none = number === 0;
    }
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = ({ host, fields }) => `${host} ${fields.taskState ?? ""} ${fields.netState ?? ""}`.toLowerCase();
    const shown = hosts.filter((record) => fits[this.chosen](record) && words.every((one) => text(record).includes(one)));
    setText(this.count, shown.length === hosts.length ? "" : word("shownOf", { n: shown.length, m: hosts.length }));
    setText(this.grid.empty, word(hosts.length ? "nothingFits" : "noHosts"));
    this.grid.setItems(shown, this.isOther);
    this.isOther = false;
  }
}
