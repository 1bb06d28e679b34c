// Every field of a miner's own record.

import { make } from "../draw/dom.js";
import { FieldTable } from "../panels/field-table.js";
import { word } from "../words.js";

export class Fields {
  constructor({ mirror }) {
    this.mirror = mirror;
    this.table = new FieldTable("minerInfo");
    this.element = make("div", {}, make("h1.unseen", { tabindex: "-1" }, `${mirror.minerId} ${word("allFields")}`), this.table.element);
  }

  draw() {
    this.table.draw(this.mirror.miner);
  }

  end() {}
}
