// Who went away and who came back, and what was found missing: the newest first.

import { get } from "../data/api.js";
import { STATES } from "../data/judge.js";
import { make, setText } from "../draw/dom.js";
import { Grid } from "../draw/grid.js";
import { PolledGrid } from "../draw/polled.js";
import { panel, stateChip } from "../draw/tiles.js";
import { formatAge, formatMoment } from "../format.js";
import { hostRoute } from "../route.js";
import { word } from "../words.js";

const MOST = 1000;
const RANGES = ["1h", "24h", "7d", "30d"];

const happened = ({ detail, before, lasted }) => (before && lasted !== undefined ? word("before", { state: word(before), age: formatAge(lasted) }) : detail ?? "");

function columns() {
  return [
    { name: "who", label: word("who"), width: 150, share: 2, isNarrow: true, sort: (event) => event.hostName ?? "", text: (event) => event.hostName ?? word("minerAgent") },
    {
      name: "event", label: word("event"), width: 100, isNarrow: true, isPlain: true, sort: (event) => event.event,
      make(cell) {
        const chip = stateChip();
        const text = make("span.event-kind");
        cell.append(chip.element, text);
        return ({ event }) => {
          const isState = STATES.includes(event);
          chip.element.hidden = !isState;
          if (isState) chip.set(event);
          setText(text, isState ? "" : word(event));
        };
      },
    },
    { name: "time", label: word("time"), width: 120, isNarrow: true, isPlain: true, isNumber: true, sort: (event) => event._time, text: (event) => formatMoment(event._time).slice(5) },
    { name: "age", label: word("age"), width: 90, isNumber: true, priority: 3, text: (event, now) => formatAge(now - event._time) },
    { name: "detail", label: word("detail"), width: 260, share: 6, isNarrow: true, isPlain: true, text: happened },
  ];
}

/** The events of a miner, or of one of its hosts. */
export class EventPanel extends PolledGrid {
  constructor({ mirror, host }) {
    super();
    Object.assign(this, { mirror, host });
    this.range = "24h";
    this.grid = new Grid({
      label: word("events"), columns: columns(), keyOf: (event) => event.key, order: (one, other) => one.place - other.place, empty: word("noEvents"),
      link: (event) => (event.hostName && !host ? hostRoute(mirror.minerId, event.hostName) : null), rowClass: ({ event }) => event, narrowHeight: 62,
    });
    const choose = (event) => {
      this.range = event.target.value;
      this.load();
    };
    const choice = make("select", { "aria-label": word("range"), onchange: choose },
      RANGES.map((name) => make("option", { value: name, selected: name === this.range }, word(`range${name}`))));
    this.element = panel("events", word("events"), [choice, this.note], this.grid.element);
    this.load();
  }

  ask() {
    return get("api/events", { miner: this.mirror.minerId, host: this.host, since: `-${this.range}`, limit: MOST });
  }

  show({ events }) {
    events.forEach((event, place) => Object.assign(event, { place, key: `${event._time}/${event.hostName}/${event.event}/${event.detail}` }));
    const byKey = new Map(events.map((event) => [event.key, event]));
    this.grid.setItems([...byKey.values()], true);
  }
}
