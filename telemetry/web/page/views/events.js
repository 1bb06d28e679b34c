// What happened to a miner's agents.

import { make } from "../draw/dom.js";
import { EventPanel } from "../panels/events.js";
import { word } from "../words.js";

export class Events {
  constructor({ mirror }) {
    this.panel = new EventPanel({ mirror });
    this.element = make("div", {}, make("h1.unseen", { tabindex: "-1" }, `${mirror.minerId} ${word("events")}`), this.panel.element);
  }

  draw(now) {
    this.panel.draw(now);
  }

  end() {
    this.panel.end();
  }
}
