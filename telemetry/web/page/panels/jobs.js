// Jobs by kind of task: how many run and wait, and how many of the hosts that could do one have none.

import { jobsOf, kindOf, kindsOf } from "../data/jobs.js";
import { make, setText } from "../draw/dom.js";
import { panel, table } from "../draw/tiles.js";
import { formatAge } from "../format.js";
import { word } from "../words.js";

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
    const rows = kindsOf(mirror, now).filter((kind) => kind.running || kind.waiting || kind.able);
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
