// A live copy of one miner's records, from a snapshot and the changes after it.

/** The name under which the miner's own record stands: no host has it. */
const MINER = "";

/** A record: `host` ("" is the miner's own), its fields, when they were sampled (Unix ms), whether no change is missing. */
class MirroredRecord {
  constructor(host) {
    this.host = host;
    this.fields = {};
    this.time = 0;
    this.isWhole = true;
  }

  take(flat) {
    for (const name in flat) if (!name.startsWith("_")) this.fields[name] = flat[name];
    for (const name of flat._gone ?? []) delete this.fields[name];
    if (flat._time !== undefined) this.time = flat._time;
    if (flat._whole !== undefined) this.isWhole = flat._whole;
  }
}

/** The records of one miner. `version` moves with each change; `onRecord` is told of each record that was written. */
export class Mirror {
  constructor(minerId) {
    this.minerId = minerId;
    this.records = new Map();
    this.version = 0;
    this.hasSnapshot = false;
    this.onRecord = () => {};
    this.arriving = null;
  }

  /** The miner's own record; undefined when there is none. */
  get miner() {
    return this.records.get(MINER);
  }

  /** The records of its hosts. */
  get hosts() {
    return [...this.records.values()].filter((record) => record.host !== MINER);
  }

  /** Take in a part of a snapshot: the first begins it anew, with the last it replaces what there is. */
  takeSnapshot({ part, parts, records: flats }) {
    if (part === 0) this.arriving = new Map();
    const arriving = this.arriving;
    for (const flat of flats) write(arriving, flat);
    // The first parts of all are shown as they come: there is nothing that they could contradict.
    if (part === parts - 1 || !this.hasSnapshot) this.records = arriving;
    if (part === parts - 1) this.hasSnapshot = true;
    this.version += 1;
    if (this.records === arriving) for (const record of arriving.values()) this.onRecord(record);
  }

  /** Take in changes. */
  takeChanges(flats) {
    for (const flat of flats) {
      const record = write(this.records, flat);
      if (record) this.onRecord(record);
    }
    this.version += 1;
  }
}

function write(records, flat) {
  const host = flat.hostName ?? MINER;
  if (flat._forgotten) {
    records.delete(host);
    return undefined;
  }
  let record = records.get(host);
  if (record === undefined) records.set(host, (record = new MirroredRecord(host)));
  record.take(flat);
  return record;
}
