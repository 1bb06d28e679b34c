// What is a problem, and how bad: one place, so that colour, order and filter never disagree.

import { fieldOf } from "./fields.js";

export const FINE = 0;
export const WARNING = 1;
export const BAD = 2;

/** What no field says: how much of a host's memory is in use, in percent. */
const MEMORY = { warning: 95, critical: 99 };

/** The states of an agent, the worst first. */
export const STATES = ["lost", "stale", "stopped", "online"];

const STATE_RANK = { lost: 6, stale: 5, stopped: 2, online: 0 };

/** How bad a reading of a field is: its thresholds stand in the declaration. */
export const level = (name, value) => levelBy(fieldOf(name)?.thresholds, value);

function levelBy(thresholds, value) {
  if (!thresholds || typeof value !== "number") return FINE;
  return value >= (thresholds.critical ?? Infinity) ? BAD : value >= thresholds.warning ? WARNING : FINE;
}

/** The class that shows a level; a sign besides the colour is the style sheet's. */
export const LEVEL_CLASS = ["", "warning", "bad"];

const SILENT = 150_000; // ms; agents say something every 60 s, and the aggregator calls who is silent for so long stale

/** How bad a record's age is: also where nobody is left to say that it is stale. */
export const ageLevel = (record, now) => (now - record.time > SILENT ? WARNING : FINE);

/** How many tasks of a host have run longer than their kind usually takes. */
export const overdueTasks = (fields) => (fields.currentQueue ?? []).filter((entry) => entry.overdue).length;

/** How bad the state of a host's tasks is: one without a worker does none; one that is disabled does none on purpose. */
export const taskLevel = ({ taskState }) => (taskState?.startsWith("unregistered") ? WARNING : FINE);

/** How much a host asks for attention: 0 is none, the order of rows goes by it. */
export function attention(record) {
  const { fields } = record;
  const state = STATE_RANK[fields.netState] ?? 0;
  if (state >= STATE_RANK.stale) return state;
  const readings = Math.max(...["cpuTemper", "gpuTemper", "diskUsedPercent"].map((name) => level(name, fields[name])));
  const worst = Math.max(readings, overdueTasks(fields) ? WARNING : FINE, taskLevel(fields));
  return worst ? worst + 2 : state;
}

/** Whether so much attention makes a host one to look at; one that was stopped on purpose is not. */
export const isProblem = (asked) => asked > STATE_RANK.stopped;

/** How much of a host's memory is in use, in percent. */
export const memoryShare = ({ useMemory, totalMemory }) => (totalMemory ? (100 * (useMemory ?? NaN)) / totalMemory : undefined);

/** How bad that is. */
export const memoryLevel = (fields) => levelBy(MEMORY, memoryShare(fields));
