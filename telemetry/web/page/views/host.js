// One host: how it is, its plots, cards, disks and network, its jobs, its events, and every field.

import { fieldOf, meaning } from "../data/fields.js";
import { ageLevel, level, LEVEL_CLASS, memoryLevel, overdueTasks } from "../data/judge.js";
import { icon, make, setClass, setText } from "../draw/dom.js";
import { Plots } from "../draw/plots.js";
import { bar, panel, setDated, stateChip, tile } from "../draw/tiles.js";
import { formatAge, formatMoment, formatNumber } from "../format.js";
import { EventPanel } from "../panels/events.js";
import { FieldTable } from "../panels/field-table.js";
import { QueuePanel } from "../panels/queue.js";
import { minerRoute } from "../route.js";
import { word } from "../words.js";

const SECOND = 1000;

const groups = () => [
  { title: word("loads"), fields: ["cpuLoad", "gpuLoad"], most: 100 },
  { title: word("temperatures"), fields: ["cpuTemper", "gpuTemper"] },
  { title: word("memory"), fields: ["useMemory", "totalMemory"] },
  { title: word("diskTraffic"), fields: ["diskR", "diskW"] },
  { title: word("netTraffic"), fields: ["netRx", "netTx"] },
  { title: word("tasks"), fields: ["runningTasks", "pendingTasks"] },
  { title: word("diskUse"), fields: ["diskUsedPercent"], most: 100 },
];

const number = (name, value) => (value === undefined ? "–" : formatNumber(value, fieldOf(name)?.unit ?? "1", 1));

// A tile each: its word, the field it explains, and what it shows.
const TILES = [
  ["load", "cpuLoad", (f) => [number("cpuLoad", f.cpuLoad), number("cpuTemper", f.cpuTemper), level("cpuTemper", f.cpuTemper)]],
  ["gpu", "gpuLoad", (f) => [number("gpuLoad", f.gpuLoad), number("gpuTemper", f.gpuTemper), level("gpuTemper", f.gpuTemper)]],
  ["memory", "useMemory", (f) => [number("useMemory", f.useMemory), ratio(number("totalMemory", f.totalMemory)), memoryLevel(f)]],
  ["disk", "diskUsedPercent", (f) => [number("diskUsedPercent", f.diskUsedPercent), "", level("diskUsedPercent", f.diskUsedPercent)]],
  ["diskTraffic", "diskR", (f) => [number("diskR", f.diskR), `W ${number("diskW", f.diskW)}`, 0]],
  ["network", "netRx", (f) => [`↓ ${number("netRx", f.netRx)}`, `↑ ${number("netTx", f.netTx)}`, 0]],
  ["runs", "runningTasks", (f) => [number("runningTasks", f.runningTasks), word("countWaiting", { n: number("pendingTasks", f.pendingTasks) }), 0]],
  ["overdue", "currentQueue", (f) => [f.currentQueue ? String(overdueTasks(f)) : "–", "", overdueTasks(f) ? 1 : 0]],
];

const ratio = (text) => word("ofHosts", { n: text });

export class Host {
  constructor({ mirror, host }) {
    Object.assign(this, { mirror, host });
    this.state = stateChip();
    this.age = make("span.age");
    this.since = make("span.muted");
    this.tasks = make("span.muted", { title: meaning(fieldOf("taskState")) });
    this.notice = make("p.notice", { hidden: true }, icon("warning"), word("incomplete"));
    this.tiles = TILES.map(([name, field, read]) => ({ ...tile(word(name), meaning(fieldOf(field))), read }));
    this.plots = new Plots({ mirror, host, groups: groups(), recordName: "workerInfo" });
    mirror.onRecord = (record) => this.plots.take(record);
    this.cards = new Meters("gpus", "gpuInfo", word("noGpu"), card);
    this.mounts = new Meters("mounts", "useDisk", word("none"), mount);
    this.interfaces = new Meters("interfaces", "netIO", word("none"), port);
    this.queue = new QueuePanel({ mirror, host });
    this.events = new EventPanel({ mirror, host });
    this.fields = new FieldTable("workerInfo");
    const back = make("a.back", { href: minerRoute(mirror.minerId) }, icon("back"), mirror.minerId);
    this.summary = make("section.summary", { "aria-labelledby": "heading-host" },
      make("div.summary-head", {}, back, make("h1", { id: "heading-host", tabindex: "-1" }, host), this.state.element, this.age, this.since, this.tasks),
      this.notice, make("dl.tiles", {}, this.tiles.map((one) => one.element)));
    this.element = make("div.host", {}, this.summary, this.plots.element,
      make("div.columns.three", {}, this.cards.element, this.mounts.element, this.interfaces.element), this.queue.element, this.events.element, this.fields.element);
    this.drawnAt = -SECOND;
  }

  draw(now) {
    this.queue.draw(this.mirror, now);
    this.events.draw(now);
    this.plots.draw(now);
    const record = this.mirror.records.get(this.host);
    if (!record || (this.seen === this.mirror.version && performance.now() - this.drawnAt < SECOND - 50)) return;
    this.drawnAt = performance.now();
    this.seen = this.mirror.version;
    const { fields } = record;
    this.state.set(fields.netState);
    setText(this.age, word("ago", { age: formatAge(now - record.time) }));
    setClass(this.age, `age ${LEVEL_CLASS[ageLevel(record, now)]}`);
    setText(this.since, fields.netSince ? word("since", { time: formatMoment(fields.netSince) }) : "");
    setText(this.tasks, fields.taskState ?? "");
    this.notice.hidden = record.isWhole;
    setDated(this.summary, fields.netState !== "online");
    for (const one of this.tiles) one.set(...one.read(fields));
    this.cards.draw(fields);
    this.mounts.draw(fields);
    this.interfaces.draw(fields);
    this.fields.draw(record);
  }

  end() {
    this.mirror.onRecord = () => {};
    this.plots.end();
    this.events.end();
  }
}

/** A panel with a line and bars for each element of a list: a card, a mount, an interface. */
class Meters {
  constructor(name, field, nothing, describe) {
    Object.assign(this, { field, nothing, describe });
    this.list = make("ul.meters");
    this.element = panel(name, word(name), [], this.list);
    this.element.querySelector("h2").title = meaning(fieldOf(field));
  }

  draw(fields) {
    const entries = fields[this.field] ?? [];
    const text = JSON.stringify(entries);
    if (text === this.shown) return;
    this.shown = text;
    const lines = entries.map((entry) => {
      const { title, note, bars } = this.describe(entry);
      return make("li.meter", {}, make("span.meter-title", {}, title), make("span.meter-note", {}, note), bars.map(([share, label, judged]) => {
        const one = bar();
        one.set(share, label, judged);
        return one.element;
      }));
    });
    this.list.replaceChildren(...(lines.length ? lines : [make("li.empty", {}, this.nothing)]));
  }
}

const of = (used, total) => (total ? used / total : 0);

function card({ index, name, temper, load, useMemory, totalMemory, power }) {
  const note = [temper === undefined ? null : `${temper} °C`, power === undefined ? null : formatNumber(power, "W", 0)].filter(Boolean).join(" · ");
  const bars = [];
  if (load !== undefined) bars.push([load / 100, `${load} %`, level("gpuTemper", temper)]);
  if (useMemory !== undefined) bars.push([of(useMemory, totalMemory), `${formatNumber(useMemory, "B")} / ${formatNumber(totalMemory, "B")}`, 0]);
  return { title: `${index}  ${name ?? word("unknown")}`, note, bars };
}

function mount({ mount: place, device, filesystem, total, used }) {
  const share = of(used, total);
  return { title: place, note: `${device} · ${filesystem}`, bars: [[share, `${formatNumber(used, "B")} / ${formatNumber(total, "B")}`, level("diskUsedPercent", 100 * share)]] };
}

function port({ interface: name, rx, tx }) {
  return { title: name, note: `↓ ${formatNumber(rx, "B/s")} · ↑ ${formatNumber(tx, "B/s")}`, bars: [] };
}
