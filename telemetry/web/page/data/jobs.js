// The jobs of a miner's hosts: one by one, and by kind.

import { compareNames } from "../words.js";

const OTHER = "UNK"; // telemetry/sources/lotus/tasks.py

/** A job: `host` is null where the scheduler gave it to none yet; `start` in Unix ms, where it is known. */
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

/** The kinds of jobs that there are or that a host accepts, in the order of a sector's way. `now`: the server's time. */
export function kindsOf(mirror, now) {
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
