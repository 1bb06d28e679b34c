// Every job of a miner's hosts, and those that no host has yet: the overdue ones first, then the longest.

import { fieldOf, meaning } from "../data/fields.js";
import { jobsOf, kindOf } from "../data/jobs.js";
import { FINE, WARNING } from "../data/judge.js";
import { make, setText } from "../draw/dom.js";
import { askForFrame } from "../draw/frames.js";
import { Grid } from "../draw/grid.js";
import { panel, readingCell } from "../draw/tiles.js";
import { formatAge, formatMoment, formatNumber } from "../format.js";
import { hostRoute } from "../route.js";
import { word } from "../words.js";

const STATES = ["running", "prepared", "assigned", "ret-wait", "unassigned"];

const keyOf = (job) => `${job.host}/${job.callId ?? job.worker}/${job.sector}/${job.task}/${job.place}`;

const started = (job) => job.start ?? Infinity;

const byUrgency = (one, other) => Boolean(other.overdue) - Boolean(one.overdue) || STATES.indexOf(one.state) - STATES.indexOf(other.state) || started(one) - started(other);

function columns() {
  const members = new Map((fieldOf("currentQueue")?.members ?? []).map((member) => [member.name, member]));
  const column = (name, label, width, text, more) => ({ name, label, width, title: meaning(members.get(name)), text, isNarrow: true, ...more });
  return [
    column("host", word("host"), 130, (job) => job.host ?? word("unassigned"), { share: 2, sort: (job) => job.host ?? "" }),
    column("taskShort", word("task"), 64, (job) => kindOf(job), { isPlain: true, sort: (job) => kindOf(job) }),
    column("state", word("jobState"), 90, (job) => word(job.state), { isPlain: true, sort: (job) => STATES.indexOf(job.state) }),
    column("sector", word("sector"), 80, (job) => String(job.sector), { isNumber: true, sort: (job) => job.sector }),
    column("start", word("elapsed"), 100, (job, now) => (job.start === undefined ? "–" : formatAge(now - job.start)), { isNumber: true, sort: (job) => -started(job) }),
    {
      ...column("overdue", word("overdue"), 80),
      sort: (job) => Number(Boolean(job.overdue)),
      isNumber: true,
      make: readingCell((job) => (job.overdue ? word("yes") : "–"), (job) => (job.overdue ? WARNING : FINE)),
    },
    column("began", word("began"), 150, (job) => (job.start === undefined ? "–" : formatMoment(job.start)), { isNarrow: false, priority: 3, title: meaning(members.get("start")) }),
    column("task", word("kind"), 190, (job) => job.task, { isNarrow: false, priority: 2, share: 2 }),
    column("callId", word("job"), 76, (job) => (job.callId ?? "–").slice(0, 8), { isNarrow: false, priority: 1 }),
  ];
}

/** The jobs of all hosts, or of one. */
export class QueuePanel {
  constructor({ mirror, host }) {
    this.host = host;
    this.grid = new Grid({
      label: word("queue"), columns: columns().filter(({ name }) => !host || name !== "host"), keyOf, order: byUrgency,
      empty: word(host ? "noQueue" : "noJobs"), link: (job) => (job.host === null || host ? null : hostRoute(mirror.minerId, job.host)),
      rowClass: (job) => (job.overdue ? "overdue" : job.state), narrowHeight: 74,
    });
    this.counts = make("span.panel-note");
    this.filter = make("input", { type: "search", placeholder: word("filterJobs"), "aria-label": word("filterJobs"), "data-filter": true, oninput: () => this.refilter() });
    this.element = panel("queue", word("queue"), this.counts, host ? [] : make("div.toolbar", {}, this.filter, this.grid.sortChoice()), this.grid.element);
  }

  refilter() {
    this.seen = -1;
    this.isOther = true;
    askForFrame();
  }

  draw(mirror, now) {
    if (mirror.version !== this.seen) {
      this.seen = mirror.version;
      this.refresh(jobsOf(mirror).filter((job) => !this.host || job.host === this.host));
    }
    this.grid.draw(now);
  }

  refresh(jobs) {
    jobs.forEach((job, place) => (job.place = job.callId ? "" : place));
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (job) => `${job.host ?? ""} ${job.task} ${job.taskShort} ${job.sector} ${job.state}`.toLowerCase();
    const shown = words.length ? jobs.filter((job) => words.every((one) => text(job).includes(one))) : jobs;
    const runs = ({ state }) => state === "running" || state === "ret-wait";
    const count = (name, fits) => word(name, { n: formatNumber(shown.filter(fits).length, "1") });
    setText(this.counts, [count("countRunning", runs), count("countWaiting", (job) => !runs(job)), count("countOverdue", (job) => job.overdue)].join(" · "));
    this.grid.setItems(shown, this.isOther);
    this.isOther = false;
  }
}
