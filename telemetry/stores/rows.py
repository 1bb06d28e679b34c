"""Records and agents as rows of SQLite and back: what the writer and the readers agree on."""

import sqlite3
from dataclasses import asdict
from pathlib import Path

import orjson

from telemetry.fields import Field, Owner, Record, Value, fits
from telemetry.render.sql import STATE_COLUMN, TIME_COLUMN, SqlValue, columns, from_sql, to_sql
from telemetry.stores import Held, StoredAgent, StoredLog, StoredRecord
from telemetry.topics import RecordKey
from telemetry.wire import Position

APPLICATION_ID = 0x746C6D79
"""SQLite's application_id of our databases: `tlmy`."""

SCHEMA_VERSION = 2
"""SQLite's user_version; a database of a higher one is not touched."""

_LARGEST_INTEGER = 2**63 - 1


def lock_file(database: Path) -> Path:
    """The file that the aggregator keeps locked for as long as it has the database open."""
    return database.with_name(f"{database.name}.lock")


def record_row(key: RecordKey, stored: StoredRecord) -> tuple[SqlValue, ...]:
    """A record as the row of its table, in the order of its columns."""
    record = key.record
    row: dict[str, SqlValue] = dict(key.fields)
    for name in record.by_name:
        if name in stored.fields:
            row[name] = to_sql(stored.fields[name].value)
    row |= {TIME_COLUMN: stored.time, STATE_COLUMN: _state(record, stored)}
    return tuple(row.get(column) for column in columns(record))


def read_record(record: Record, row: sqlite3.Row) -> tuple[RecordKey, StoredRecord]:
    """A row of a record's table as the record."""
    state = orjson.loads(row[STATE_COLUMN])
    unknown = state["unknown"]
    fields = {}
    for name, (owner, epoch, seq) in state["held"].items():
        declared = record.by_name.get(name)
        if declared is None or _is_newly_declared(declared, unknown.get(name)):
            value = unknown.get(name)
        else:
            value = from_sql(declared, row[name])
        fields[name] = Held(value, Owner(owner), Position(epoch, seq))
    whole = {Owner(owner): Position(*position) for owner, position in state["whole"].items()}
    key = RecordKey(*(row[name] for name in record.keys))
    return key, StoredRecord(fields=fields, whole=whole, time=row[TIME_COLUMN])


def _is_newly_declared(declared: Field, unknown: Value | None) -> bool:
    """Whether a field was unknown when the row was written and is declared now: its column is still empty."""
    return unknown is not None and fits(declared.type, unknown)


def agent_row(stored: StoredAgent) -> dict[str, SqlValue]:
    """An agent as the columns of its row, its key left out."""
    log = stored.log
    return {
        "epoch": log.epoch,
        "position": log.position,
        "beyond": orjson.dumps(log.beyond).decode(),
        "fulls": orjson.dumps(log.fulls).decode(),
        "floor": log.floor,
        "lost": min(log.lost, _LARGEST_INTEGER),
        "former": orjson.dumps([asdict(former) for former in stored.former]).decode(),
        "state": stored.state,
        "since": stored.since,
        "heard": stored.heard,
        "session": stored.session,
        "version": stored.version,
        "late": stored.late,
    }


def read_agent(row: sqlite3.Row) -> StoredAgent:
    """A row of the table `agents` as the agent."""
    plain = ("state", "since", "heard", "session", "version")
    log = StoredLog(
        epoch=row["epoch"],
        position=row["position"],
        beyond=_ranges(orjson.loads(row["beyond"])),
        fulls=orjson.loads(row["fulls"]),
        floor=row["floor"],
        lost=row["lost"],
    )
    stored = orjson.loads(row["former"] or "[]")
    former = [StoredLog(**one | {"beyond": _ranges(one["beyond"])}) for one in stored]
    return StoredAgent(log=log, former=former, late=row["late"] or 0, **{name: row[name] for name in plain})


def _ranges(pairs: list[list[int]]) -> list[tuple[int, int]]:
    return [(first, last) for first, last in pairs]


def _state(record: Record, stored: StoredRecord) -> str:
    unknown: dict[str, Value | None] = {
        name: held.value for name, held in stored.fields.items() if name not in record.by_name
    }
    held = {name: (one.owner.value, *one.position) for name, one in stored.fields.items()}
    whole = {owner.value: list(position) for owner, position in stored.whole.items()}
    return orjson.dumps({"held": held, "whole": whole, "unknown": unknown}).decode()
