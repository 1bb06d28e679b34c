// The sectors by sealing state, gathered into the stages of the way to Proving. A state that no stage names is shown as other.

import { fieldOf, meaning } from "../data/fields.js";
import { make, setClass, setShare, setText } from "../draw/dom.js";
import { panel } from "../draw/tiles.js";
import { formatNumber } from "../format.js";
import { compareNames, word } from "../words.js";

// The names are those of Lotus (storage/pipeline/sector_state.go), in the order of the way.
const STAGES = [
  ["stagePieces", ["Empty", "WaitDeals", "AddPiece", "Packing", "GetTicket", "ReceiveSector"]],
  ["stagePC1", ["PreCommit1"]],
  ["stagePC2", ["PreCommit2"]],
  ["stagePCWait", ["SubmitPreCommitBatch", "PreCommitting", "PreCommitBatchWait", "PreCommitWait"]],
  ["stageSeed", ["WaitSeed"]],
  ["stageCommit", ["Committing"]],
  ["stageCommitWait", ["SubmitCommitAggregate", "SubmitCommit", "CommitAggregateWait", "CommitWait"]],
  ["stageFinalize", ["CommitFinalize", "FinalizeSector"]],
  ["stageSnap", ["SnapDealsWaitDeals", "SnapDealsAddPiece", "SnapDealsPacking", "UpdateReplica", "ProveReplicaUpdate", "SubmitReplicaUpdate",
    "WaitMutable", "ReplicaUpdateWait", "FinalizeReplicaUpdate", "UpdateActivating", "ReleaseSectorKey"]],
  ["stageFailed", ["FailedUnrecoverable", "DealsExpired", "RecoverDealIDs", "SnapDealsDealsExpired", "SnapDealsRecoverDealIDs", ""]],
  ["stageOther", ["Terminating", "TerminateWait", "TerminateFinality", "Removing", "Removed", "AbortUpgrade", "Faulty", "FaultReported", "FaultedFinal"]],
  ["stageDone", ["Proving", "Available"]],
];

const STAGE_OF = new Map(STAGES.flatMap(([stage, states]) => states.map((state) => [state, stage])));

const stageOf = (state) => STAGE_OF.get(state) ?? (state.endsWith("Failed") ? "stageFailed" : "stageOther");

/** The panel of a miner's sealing states. */
export class Pipeline {
  constructor() {
    this.total = make("span.panel-note");
    this.stages = new Map(STAGES.map(([name]) => [name, new Stage(name)]));
    this.element = panel("pipeline", word("pipeline"), this.total, make("ol.stages", {}, [...this.stages.values()].map((stage) => stage.element)));
    this.element.querySelector("h2").title = meaning(fieldOf("sectorStates"));
  }

  draw(fields) {
    const states = Object.entries(fields?.sectorStates ?? {});
    const gathered = new Map(STAGES.map(([name]) => [name, []]));
    for (const [state, count] of states) gathered.get(stageOf(state)).push([state, count]);
    const counts = [...gathered].map(([name, held]) => [name, sum(held)]);
    // Proving sectors are most of all: the bars compare those on their way.
    const most = Math.max(1, ...counts.filter(([name]) => name !== "stageDone").map(([, count]) => count));
    for (const [name, count] of counts) this.stages.get(name).draw(gathered.get(name), count, count / most);
    setText(this.total, word("sectors", { n: formatNumber(sum(states), "1") }));
  }
}

const sum = (pairs) => pairs.reduce((total, [, count]) => total + count, 0);

class Stage {
  constructor(name) {
    this.name = name;
    this.count = make("span.stage-count");
    this.fill = make("span.bar-fill");
    this.states = make("ul.stage-states");
    this.element = make("li.stage", {}, make("span.stage-name", {}, word(name)), this.count,
      make("span.bar", { "aria-hidden": "true" }, this.fill), this.states);
  }

  draw(states, count, share) {
    setText(this.count, formatNumber(count, "1"));
    setShare(this.fill, share);
    setClass(this.element, `stage ${this.name} ${count ? "" : "is-empty"}`);
    const text = JSON.stringify(states);
    if (text === this.shown) return;
    this.shown = text;
    const order = STAGES.find(([name]) => name === this.name)[1];
    states.sort(([one], [other]) => order.indexOf(one) - order.indexOf(other) || compareNames(one, other));
    const lines = states.map(([state, number]) => make("li", {}, make("span.stage-state", { title: state }, state || "?"), make("span", {}, formatNumber(number, "1"))));
    this.states.replaceChildren(...lines);
  }
}
