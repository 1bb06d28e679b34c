// The head of a miner's page: its power, balances, faults, chain and deadline.

import { fieldOf, meaning, shown } from "../data/fields.js";
import { ageLevel, BAD, FINE, level, LEVEL_CLASS, WARNING } from "../data/judge.js";
import { icon, make, setClass, setShare, setText } from "../draw/dom.js";
import { stateChip, setDated, tile } from "../draw/tiles.js";
import { formatAge, formatNumber } from "../format.js";
import { word } from "../words.js";

const EPOCH = 30_000; // ms, on Filecoin's main net

// A tile each: its word, the field it shows, and what else it says.
const TILES = [
  ["qaPower", "effectivePower", (f) => ratio(f)],
  ["rawPower", "rawPower", () => ["", FINE]],
  ["winsPerDay", "expectBlock", (f) => eligibility(f)],
  ["available", "minerAvailable", () => ["", FINE]],
  ["locked", "lockedFunds", () => ["", FINE]],
  ["pledge", "pledgeBalance", (f) => [f.preCommitDeposits === undefined ? "" : word("deposits", { value: fil(f.preCommitDeposits) }), FINE]],
  ["worker", "workerBalance", () => ["", FINE]],
  ["post", "postBalance", () => ["", FINE]],
  ["balance", "minerBalance", (f) => (f.feeDebt > 0 ? [word("debt", { value: fil(f.feeDebt) }), BAD] : ["", FINE])],
  ["faults", "errorSectors", (f) => [ofLive(f), level("errorSectors", f.errorSectors)]],
  ["recoveries", "recoverySectors", (f) => [f.unprovenSectors === undefined ? "" : word("unproven", { n: f.unprovenSectors }), f.recoverySectors > 0 ? WARNING : FINE]],
  ["failed", "failSectors", (f) => ["", level("failSectors", f.failSectors)]],
];

const fil = (value) => formatNumber(value, "FIL", 3);

const short = (name, value) => (typeof value === "number" ? formatNumber(value, fieldOf(name)?.unit ?? "1", 3) : "–");

const ofLive = (fields) => (fields.liveSectors === undefined ? "" : word("ofSectors", { n: shown("liveSectors", fields.liveSectors) }));

function ratio({ effectivePower, rawPower }) {
  return [rawPower > 0 && effectivePower !== undefined ? word("times", { n: formatNumber(effectivePower / rawPower, "1", 2) }) : "", FINE];
}

// expectBlock is 0 exactly where the miner is not eligible.
function eligibility({ expectBlock }) {
  if (expectBlock === undefined) return ["", FINE];
  return expectBlock > 0 ? [word("eligible"), FINE] : [word("notEligible"), BAD];
}

/** The head of a miner's page. */
export class Summary {
  constructor(minerId) {
    this.state = stateChip();
    this.age = make("span.age");
    this.lotus = make("span.fact");
    this.chain = make("span.fact");
    this.deadline = make("span.fact");
    this.window = make("span.bar-fill");
    this.missing = make("p.notice", { hidden: true }, icon("warning"), word("noMinerAgent"));
    this.tiles = TILES.map(([name, field, note]) => ({ ...tile(word(name), meaning(fieldOf(field))), field, note }));
    this.values = make("div", {},
      make("dl.tiles", {}, this.tiles.map((one) => one.element)),
      make("div.facts", {}, this.lotus, this.chain, this.deadline, make("span.bar.window", { "aria-hidden": "true" }, this.window)));
    this.element = make("section.summary", { "aria-labelledby": "heading-miner" },
      make("div.summary-head", {}, make("h1", { id: "heading-miner", tabindex: "-1" }, minerId), this.state.element, this.age),
      this.missing, this.values);
  }

  /** Write what is known; `record` is undefined where the miner's own agent said nothing. */
  draw(record, now) {
    this.missing.hidden = record !== undefined;
    this.values.hidden = record === undefined;
    if (record === undefined) return;
    const { fields } = record;
    this.state.set(fields.netState);
    setText(this.age, word("ago", { age: formatAge(now - record.time) }));
    setClass(this.age, `age ${LEVEL_CLASS[ageLevel(record, now)]}`);
    setDated(this.element, fields.netState !== "online");
    for (const one of this.tiles) one.set(short(one.field, fields[one.field]), ...one.note(fields));
    this.drawFacts(fields);
  }

  drawFacts(fields) {
    const { lotusState, chainBehind, chainLag, chainHeight, deadlineIndex, deadlineOpen, deadlineClose } = fields;
    fact(this.lotus, `Lotus ${lotusState ?? word("unknown")}`, lotusState === "ok" ? FINE : BAD);
    const behind = level("chainBehind", chainBehind);
    const sync = chainBehind === undefined ? word("unknown") : behind === FINE ? word("inSync") : word("behind", { n: chainBehind });
    const lag = chainLag === undefined ? "" : ` · ${word("headAge", { age: formatAge(chainLag * 1000) })}`;
    const height = chainHeight === undefined ? "" : ` ${shown("chainHeight", chainHeight)}`;
    fact(this.chain, `${word("chain")}${height} ${sync}${lag}`, chainBehind === undefined ? BAD : behind);
    if (deadlineIndex === undefined) {
      fact(this.deadline, `${word("deadline")} ${word("unknown")}`, FINE);
      setShare(this.window, 0);
      return;
    }
    const { deadlinePartitions: partitions, deadlineProven: proven, deadlineFaults: faults } = fields;
    const parts = [`${word("deadline")} ${deadlineIndex} / 48`];
    if (deadlineClose !== undefined && chainHeight !== undefined) {
      parts.push(word("closesIn", { age: formatAge((deadlineClose - chainHeight) * EPOCH) }));
      setShare(this.window, (chainHeight - deadlineOpen) / (deadlineClose - deadlineOpen));
    }
    if (partitions !== undefined) parts.push(partitions ? word("proven", { n: proven ?? "–", m: partitions }) : word("noPartitions"));
    if (faults > 0) parts.push(word("deadlineFaults", { n: faults }));
    fact(this.deadline, parts.join(" · "), level("deadlineFaults", faults));
  }
}

function fact(element, text, level) {
  setText(element, text);
  setClass(element, `fact ${LEVEL_CLASS[level]}`);
}
