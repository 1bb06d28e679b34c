// A miner at a glance: its head, the sealing pipeline, jobs by kind, and its hosts.

import { make } from "../draw/dom.js";
import { FleetPanel } from "../panels/fleet.js";
import { Jobs } from "../panels/jobs.js";
import { Pipeline } from "../panels/pipeline.js";
import { Summary } from "../panels/summary.js";

const SECOND = 1000;

export class Overview {
  constructor({ mirror }) {
    this.mirror = mirror;
    this.summary = new Summary(mirror.minerId);
    this.pipeline = new Pipeline();
    this.jobs = new Jobs();
    this.fleet = new FleetPanel(mirror.minerId);
    this.sealing = make("div.columns", {}, this.pipeline.element, this.jobs.element);
    this.element = make("div", {}, this.summary.element, this.sealing, this.fleet.element);
    this.drawnAt = -SECOND;
  }

  draw(now) {
    this.fleet.draw(this.mirror, now);
    // What counts over all hosts is drawn once a second, the rows as often as there is news.
    if (performance.now() - this.drawnAt < SECOND - 50) return;
    this.drawnAt = performance.now();
    const { miner } = this.mirror;
    this.summary.draw(miner, now);
    this.pipeline.draw(miner?.fields);
    this.jobs.draw(this.mirror, now);
    this.sealing.hidden = miner === undefined;
  }

  end() {}
}
