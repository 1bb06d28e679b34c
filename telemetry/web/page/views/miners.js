// All miners that the viewer may see, a row each.

import { make, setText } from "../dom.js";
import { fieldOf, meaning } from "../fields.js";
import { formatAge, formatNumber } from "../format.js";
import { Grid } from "../grid.js";
import { minerRoute } from "../route.js";
import { panel } from "../tiles.js";
import { compareNames, word } from "../words.js";

const number = (name, label, width, level = () => 0, more = {}) => ({
  name, label, width, isNumber: true, isNarrow: true, title: meaning(fieldOf(name)), sort: ({ record }) => record?.[name],
  make(cell) {
    const text = cell.appendChild(make("span.reading"));
    return ({ record }) => {
      const value = record?.[name];
      setText(text, value === undefined ? "–" : formatNumber(value, fieldOf(name)?.unit ?? "1", 3));
      text.dataset.level = level(value);
    };
  },
  ...more,
});

const count = (state, level, more) => ({
  name: state, label: word(state), width: 70, isNumber: true, isNarrow: true, sort: ({ states }) => states[state],
  make(cell) {
    const text = cell.appendChild(make("span.reading"));
    return ({ states }) => {
      setText(text, formatNumber(states[state], "1"));
      text.dataset.level = states[state] ? level : 0;
    };
  },
  ...more,
});

function columns() {
  return [
    { name: "minerId", label: word("miner"), width: 120, share: 2, isNarrow: true, sort: ({ minerId }) => minerId, text: ({ minerId }) => minerId },
    count("online", 0),
    count("stale", 1),
    count("lost", 2),
    number("effectivePower", word("qaPower"), 110),
    number("expectBlock", word("winsPerDay"), 110, (value) => (value === 0 ? 2 : 0)),
    number("minerAvailable", word("available"), 120, undefined, { priority: 3 }),
    number("errorSectors", word("faults"), 80, (value) => (value > 0 ? 2 : 0)),
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
