// All jobs of a miner.

import { make } from "../draw/dom.js";
import { QueuePanel } from "../panels/queue.js";
import { word } from "../words.js";

export class Queue {
  constructor({ mirror }) {
    this.mirror = mirror;
    this.panel = new QueuePanel({ mirror });
    this.element = make("div", {}, make("h1.unseen", { tabindex: "-1" }, `${mirror.minerId} ${word("queue")}`), this.panel.element);
  }

  draw(now) {
    this.panel.draw(this.mirror, now);
  }

  end() {}
}
