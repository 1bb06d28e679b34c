// A miner's own fields over time.

import { make } from "../draw/dom.js";
import { Plots } from "../draw/plots.js";
import { word } from "../words.js";

const groups = () => [
  { title: word("power"), fields: ["effectivePower", "rawPower"] },
  { title: word("wins"), fields: ["expectBlock"] },
  { title: word("available"), fields: ["minerAvailable"], isFromZero: false },
  { title: word("pledgeAndVesting"), fields: ["pledgeBalance", "lockedFunds"] },
  { title: word("workerAndPost"), fields: ["workerBalance", "postBalance"] },
  { title: word("sectorHealth"), fields: ["errorSectors", "recoverySectors", "failSectors"] },
  { title: word("sealing"), fields: ["preCommit1", "preCommit2", "preCommitWait", "waitSeed", "committing", "commitWait", "finalizeSector"] },
  { title: word("chainSync"), fields: ["chainLag"] },
];

export class History {
  constructor({ mirror }) {
    this.plots = new Plots({ mirror, host: "", groups: groups(), recordName: "minerInfo" });
    mirror.onRecord = (record) => this.plots.take(record);
    this.element = make("div", {}, make("h1.unseen", { tabindex: "-1" }, `${mirror.minerId} ${word("history")}`), this.plots.element);
    this.mirror = mirror;
  }

  draw(now) {
    this.plots.draw(now);
  }

  end() {
    this.mirror.onRecord = () => {};
    this.plots.end();
  }
}
