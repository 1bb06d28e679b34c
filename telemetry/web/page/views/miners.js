// All miners that the viewer may see, a row each.

import { fieldOf, meaning } from "../data/fields.js";
import { BAD, FINE, level, WARNING } from "../data/judge.js";
import { make } from "../draw/dom.js";
import { Grid } from "../draw/grid.js";
import { panel, readingCell } from "../draw/tiles.js";
import { formatAge, formatNumber } from "../format.js";
import { minerRoute } from "../route.js";
import { compareNames, word } from "../words.js";

const number = (name, label, width, judge = () => FINE, more = {}) => ({
  name, label, width, isNumber: true, isNarrow: true, title: meaning(fieldOf(name)), sort: ({ record }) => record?.[name],
  make: readingCell(({ record }) => formatNumber(record?.[name], fieldOf(name)?.unit ?? "1", 3), ({ record }) => judge(record?.[name])),
  ...more,
});

const count = (state, level, more) => ({
  name: state, label: word(state), width: 70, isNumber: true, isNarrow: true, sort: ({ states }) => states[state],
  make: readingCell(({ states }) => formatNumber(states[state], "1"), ({ states }) => (states[state] ? level : FINE)),
  ...more,
});

function columns() {
  return [
    { name: "minerId", label: word("miner"), width: 120, share: 2, isNarrow: true, sort: ({ minerId }) => minerId, text: ({ minerId }) => minerId },
    count("online", FINE),
    count("stale", WARNING),
    count("lost", BAD),
    number("effectivePower", word("qaPower"), 110),
    number("expectBlock", word("winsPerDay"), 110, (value) => (value === 0 ? BAD : FINE)),
    number("minerAvailable", word("available"), 120, undefined, { priority: 3 }),
    number("errorSectors", word("faults"), 80, (value) => level("errorSectors", value)),
    { name: "lotusState", label: "Lotus", width: 110, priority: 4, sort: ({ record }) => record?.lotusState, text: ({ record }) => record?.lotusState ?? "–" },
    { name: "time", label: word("age"), width: 70, isNumber: true, isNarrow: true, sort: ({ time }) => -time, text: ({ time }, now) => formatAge(now - time) },
  ];
}

const trouble = ({ states, record }) => states.lost * 4 + states.stale * 2 + (record?.errorSectors > 0 ? 1 : 0);

export class Miners {
  constructor({ miners }) {
    this.miners = miners;
    this.grid = new Grid({
      label: word("miners"), columns: columns(), keyOf: ({ minerId }) => minerId, empty: word("noMiners"), link: ({ minerId }) => minerRoute(minerId), narrowHeight: 104,
      order: (one, other) => trouble(other) - trouble(one) || compareNames(one.minerId, other.minerId),
    });
    this.element = make("div", {}, make("h1.unseen", { tabindex: "-1" }, word("miners")), panel("miners", word("miners"), [], this.grid.element));
  }

  draw(now) {
    if (this.seen !== this.miners.list) this.grid.setItems((this.seen = this.miners.list));
    this.grid.draw(now);
  }

  end() {}
}
