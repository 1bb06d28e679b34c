// How far what is shown can be trusted: gaps that were repaired, what was lost, who is silent.

import { get } from "../data/api.js";
import { fieldsOf } from "../data/fields.js";
import { BAD, FINE, WARNING } from "../data/judge.js";
import { make } from "../draw/dom.js";
import { Grid } from "../draw/grid.js";
import { PolledGrid } from "../draw/polled.js";
import { panel, readingCell, stateCell, tile } from "../draw/tiles.js";
import { formatAge, formatNumber } from "../format.js";
import { hostRoute } from "../route.js";
import { compareNames, word } from "../words.js";

const MINER_AGENT = "_miner";

const COUNT_LEVEL = { lost: BAD, rejected: WARNING };

const count = (name, label, width, more) => ({
  name, label, width, isNumber: true, isNarrow: true, sort: (agent) => agent[name],
  make: readingCell((agent) => (agent[name] === undefined ? "–" : formatNumber(agent[name], "1")), (agent) => (agent[name] > 0 ? COUNT_LEVEL[name] ?? FINE : FINE)),
  ...more,
});

const age = (name, label, width, more) => ({
  name, label, width, isNumber: true, sort: (agent) => -agent[name], text: (agent, now) => (agent[name] === undefined ? "–" : formatAge(now - agent[name])), ...more,
});

function columns(mirror) {
  return [
    { name: "agent", label: word("agent"), width: 140, share: 2, isNarrow: true, sort: ({ agent }) => agent, text: ({ agent }) => (agent === MINER_AGENT ? word("minerAgent") : agent) },
    {
      name: "state", label: word("state"), width: 90, isNarrow: true, isPlain: true, sort: (agent) => agent.state,
      make: stateCell(({ state }) => state),
    },
    age("heard", word("heard"), 84, { isNarrow: true, isPlain: true }),
    {
      name: "isWhole", label: word("complete"), width: 84, isNarrow: true, sort: (agent) => Number(agent.isWhole),
      make: readingCell(({ isWhole }) => word(isWhole ? "yes" : "no"), ({ isWhole }) => (isWhole ? FINE : WARNING)),
    },
    count("late", word("gapsRepaired"), 96),
    count("lost", word("lostMessages"), 80),
    count("rejected", word("rejected"), 80, { priority: 5 }),
    { ...count("position", word("position"), 96, { priority: 3 }), isNarrow: false },
    {
      name: "unread", label: word("unread"), title: word("unreadNote"), width: 150, share: 3, priority: 4, sort: (agent) => unread(mirror, agent).length,
      text: (agent) => unread(mirror, agent).join(" ") || word("none"),
    },
    { name: "version", label: word("version"), width: 90, priority: 2, sort: ({ version }) => version, text: ({ version }) => version || "–" },
  ];
}

// A source that fails leaves its fields out. What a miner's agent says of its hosts is not asked for here: a host may do no tasks.
function unread(mirror, { agent }) {
  const isMiner = agent === MINER_AGENT;
  const record = isMiner ? mirror.miner : mirror.records.get(agent);
  const declared = [...fieldsOf(isMiner ? "minerInfo" : "workerInfo").values()].filter(({ owner }) => owner === (isMiner ? "miner" : "hardware"));
  return record ? declared.map(({ name }) => name).filter((name) => record.fields[name] === undefined) : [];
}

const byTrouble = (one, other) => (other.lost ?? 0) - (one.lost ?? 0) || (one.isWhole === false ? 0 : 1) - (other.isWhole === false ? 0 : 1)
  || Number(one.state === "online") - Number(other.state === "online") || compareNames(one.agent, other.agent);

export class Quality extends PolledGrid {
  constructor({ mirror }) {
    super();
    this.mirror = mirror;
    this.tiles = { late: tile(word("gapsRepaired")), lost: tile(word("lostMessages")), rejected: tile(word("rejected")), silent: tile(word("staleSources")) };
    this.grid = new Grid({
      label: word("quality"), columns: columns(mirror), keyOf: ({ agent }) => agent, order: byTrouble, empty: word("none"),
      link: ({ agent }) => (agent === MINER_AGENT ? null : hostRoute(mirror.minerId, agent)), rowClass: ({ state }) => state, narrowHeight: 74,
    });
    this.element = make("div", {}, make("h1.unseen", { tabindex: "-1" }, `${mirror.minerId} ${word("quality")}`),
      panel("quality", word("quality"), this.note, make("dl.tiles", {}, Object.values(this.tiles).map((one) => one.element)),
        make("p.muted", {}, word("qualityNote")), this.grid.element));
    this.load();
  }

  ask() {
    return get(`api/miners/${encodeURIComponent(this.mirror.minerId)}/quality`);
  }

  show({ agents }) {
    this.grid.setItems(agents);
    const sum = (name) => agents.reduce((total, agent) => total + (agent[name] ?? 0), 0);
    const silent = agents.filter(({ state }) => state === "stale" || state === "lost").length;
    this.tiles.late.set(formatNumber(sum("late"), "1"));
    this.tiles.lost.set(formatNumber(sum("lost"), "1"), "", sum("lost") ? BAD : FINE);
    this.tiles.rejected.set(formatNumber(sum("rejected"), "1"), "", sum("rejected") ? WARNING : FINE);
    this.tiles.silent.set(formatNumber(silent, "1"), "", silent ? WARNING : FINE);
  }
}
