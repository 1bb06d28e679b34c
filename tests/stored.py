"""What a store holds, in plain words: batches one after another, rows built of what they say."""

from collections.abc import Mapping
from dataclasses import replace

from telemetry.fields import Owner, Value
from telemetry.render.sql import to_sql
from telemetry.stores import Batch, Held, RecordRow, Stored
from telemetry.stores.state import State, layout
from telemetry.topics import RecordKey
from telemetry.wire import Position


def committed(stored: Stored, batch: Batch) -> Stored:
    """What a store holds after one more batch."""
    records = {**stored.records, **batch.records}
    agents = {**stored.agents, **batch.agents}
    for key, moved in batch.moved.items():
        agent = agents[key]
        assert agent is not None, "only what is stored can move"
        assert key not in batch.agents
        agents[key] = replace(agent, log=replace(agent.log, position=moved.position), heard=moved.heard)
    return Stored(
        records={key: one for key, one in records.items() if one is not None},
        agents={key: one for key, one in agents.items() if one is not None},
        behind=(*stored.behind, *batch.history) if batch.is_behind else (),
    )


def row_of(
    key: RecordKey,
    values: Mapping[str, Value | None],
    *,
    seqs: Mapping[str, int] | None = None,
    epochs: Mapping[Owner, int] | None = None,
    whole: Mapping[Owner, Position] | None = None,
    unknown: Mapping[str, Held] | None = None,
    time: int = 7,
) -> RecordRow:
    """A record as the row that a mirror would give to a store."""
    state = State.of_new(key.record)
    for part in state.parts:
        part.epoch, part.whole = (epochs or {}).get(part.owner, 0), (whole or {}).get(part.owner)
    state.unknown = dict(unknown or {})
    for name, seq in (seqs or {}).items():
        state.seqs[layout(key.record).at[name]] = seq
    held = {**key.fields, **{name: to_sql(value) for name, value in values.items()}}
    return (*(held.get(name) for name in key.record.by_name), time, state.encoded(layout(key.record)))
