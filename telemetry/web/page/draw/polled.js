// A grid whose rows are asked for again and again, for as long as it is shown.

import { make, setText } from "./dom.js";
import { askForFrame } from "./frames.js";

const REFRESH = 10_000; // ms

/** Who extends it has a `grid`, an `ask` that gives a promise of the answer, and a `show` that takes the answer. */
export class PolledGrid {
  note = make("span.panel-note", { role: "status" });

  async load() {
    clearTimeout(this.timer);
    try {
      const answer = await this.ask();
      if (this.isEnded) return;
      this.show(answer);
      setText(this.note, "");
    } catch (error) {
      if (this.isEnded) return;
      setText(this.note, error.message);
    }
    this.timer = setTimeout(() => this.load(), REFRESH);
    askForFrame();
  }

  draw(now) {
    this.grid.draw(now);
  }

  end() {
    this.isEnded = true;
    clearTimeout(this.timer);
  }
}
