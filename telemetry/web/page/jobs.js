// Jobs by kind of task: how many run and wait, and which hosts that could do one have none.

import { make, setText } from "./dom.js";
import { formatAge } from "./format.js";
import { panel, table } from "./tiles.js";
import { compareNames, word } from "./words.js";

const OTHER = "UNK"; // telemetry/sources/lotus/tasks.py

/** A job: `host` is null where the scheduler gave it to none yet; `elapsed` in ms, where its start is known. */
export function jobsOf(mirror) {
  const jobs = [];
  const add = (host, entry, state) => jobs.push({ host, state: entry.state ?? state, ...entry });
  for (const { host, fields } of mirror.hosts) {
    for (const entry of fields.currentQueue ?? []) add(host, entry);
    for (const entry of fields.pendingQueue ?? []) add(host, entry);
  }
  for (const entry of mirror.miner?.fields.unassignedQueue ?? []) add(null, entry, "unassigned");
  return jobs;
}

/** What a kind of job is told apart by: its short name, or its whole one where it has no short one. */
export const kindOf = (job) => (job.taskShort === OTHER ? job.task || OTHER : job.taskShort);

const isRunning = (job) => job.state === "running" || job.state === "ret-wait";

/** Kinds of jobs with their counts, those that a host accepts first in the order in which they were met. */
function kinds(mirror, now) {
  const found = new Map();
  const kind = (task) => {
    if (!found.has(task)) found.set(task, { task, running: 0, waiting: 0, overdue: 0, times: [], able: 0, busy: new Set() });
    return found.get(task);
  };
  const online = mirror.hosts.filter((record) => record.fields.netState === "online");
  for (const { fields } of online) for (const task of fields.taskType ?? []) kind(task).able += 1;
  for (const job of jobsOf(mirror)) {
    const one = kind(job.task);
    if (!isRunning(job)) {
      one.waiting += 1;
      continue;
    }
    one.running += 1;
    one.overdue += job.overdue ? 1 : 0;
    one.busy.add(job.host);
    if (job.start !== undefined) one.times.push(now - job.start);
  }
  return [...found.values()].sort((one, other) => order(one) - order(other) || compareNames(one.task, other.task));
}

// The way of a sector; what is not on it comes after.
const WAY = ["addpiece", "precommit/1", "precommit/2", "commit/1", "commit/2", "finalize", "replicaupdate", "provereplicaupdate/1",
  "provereplicaupdate/2", "finalize/replicaupdate", "download/sector", "fetch", "unseal", "regensectorkey", "datacid"].map((name) => `seal/v0/${name}`);

const order = ({ task }) => (WAY.indexOf(task) + 1 || WAY.length + 1);

const shortened = (task) => task.replace(/^\w+\/v\d+\//, "");

/** The panel of a miner's jobs by kind. */
export class Jobs {
  constructor() {
    this.names = new Map(); // short ones, as jobs told them
    this.note = make("span.panel-note");
    const headings = ["task", "kind", "runs", "waits", "overdue", "idleHosts", "longest", "meanTime"].map((name) => word(name));
    this.table = table(headings, { numbers: [2, 3, 4, 5, 6, 7], label: word("jobs"), empty: word("noJobs") });
    this.element = panel("jobs", word("jobs"), this.note, this.table.element);
  }

  draw(mirror, now) {
    for (const job of jobsOf(mirror)) if (kindOf(job) !== job.task) this.names.set(job.task, kindOf(job));
    const rows = kinds(mirror, now).filter((kind) => kind.running || kind.waiting || kind.able);
    this.table.set(rows.map((kind) => this.row(kind)));
    const returned = mirror.miner?.fields.returnedTasks;
    setText(this.note, returned ? word("returned", { n: returned }) : "");
  }

  row({ task, running, waiting, overdue, times, able, busy }) {
    const mean = times.reduce((sum, time) => sum + time, 0) / times.length;
    const idle = able - busy.size;
    return [this.names.get(task) ?? "–", shortened(task), String(running), String(waiting), overdue ? `⚠ ${overdue}` : "0", able ? `${Math.max(0, idle)} ${word("ofHosts", { n: able })}` : "–",
      times.length ? formatAge(Math.max(...times)) : "–", times.length ? formatAge(mean) : "–"];
  }
}
