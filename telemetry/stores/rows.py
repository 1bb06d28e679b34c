"""Records and agents as rows of SQLite and back: what the writer and the readers agree on."""

import fcntl
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import orjson

from telemetry.fields import Record, Scalar, fits
from telemetry.render.sql import STATE_COLUMN, TIME_COLUMN, SqlValue, from_sql, to_sql
from telemetry.stores import RecordRow, StoredAgent, StoredLog
from telemetry.stores.state import Layouts, State, decode_state, layout
from telemetry.topics import RecordKey

APPLICATION_ID = 0x746C6D79
"""SQLite's application_id of our databases: `tlmy`."""

SCHEMA_VERSION = 2
"""SQLite's user_version; a database of a higher one is not touched."""

AGENTS = {
    1: "SELECT * FROM agents ORDER BY minerId, agent",
    2: "SELECT agents.*, position, heard FROM agents LEFT JOIN positions USING (id) ORDER BY minerId, agent",
}
"""How the agents are read, by the version of the database."""

_LARGEST_INTEGER = 2**63 - 1


def lock_file(database: Path) -> Path:
    """The file that the aggregator keeps locked for as long as it has the database open."""
    return database.with_name(f"{database.name}.lock")


def size_of(database: Path) -> int:
    """Bytes that a database takes up on disk, with its write-ahead log."""
    paths = (database, database.with_name(f"{database.name}-wal"))
    return sum(path.stat().st_size for path in paths if path.exists())


def hold(database: Path) -> IO[str] | None:
    """That file, locked for as long as it is open; None where somebody else has it locked."""
    lock = lock_file(database).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def read_layouts(connection: sqlite3.Connection) -> Layouts:
    """The orders of fields that the database's records were written in; those of version 1 name each field."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'layouts'").fetchone():
        return {}
    return {number: tuple(names.split()) for number, names in connection.execute("SELECT number, names FROM layouts")}


def read_record(record: Record, row: sqlite3.Row, layouts: Layouts) -> tuple[RecordKey, RecordRow]:
    """A row of a record's table, whenever it was written, as its row of today."""
    there = set(row.keys())
    state = decode_state(record, row[STATE_COLUMN], layouts)
    values: list[SqlValue] = []
    for name, field in record.by_name.items():
        held = row[name] if name in there else None
        value = from_sql(field, held)
        values.append(bool(value) if field.type is Scalar.BOOLEAN and value is not None else held)
    _declare(record, state, values)
    key = RecordKey(*(row[name] for name in record.keys))
    return key, (*values, row[TIME_COLUMN], state.encoded(layout(record)))


def _declare(record: Record, state: State, values: list[SqlValue]) -> None:
    """Move what was unknown when it was written, and is declared now, to its column."""
    for name in state.unknown.keys() & record.by_name.keys():
        held = state.unknown.pop(name)
        part = state.part(held.owner)
        if held.value is not None and part is not None and fits(record.by_name[name].type, held.value):
            at = layout(record).at[name]
            values[at] = to_sql(held.value)
            state.seqs[at] = held.position.seq if held.position.epoch == part.epoch else 0


def agent_row(stored: StoredAgent) -> dict[str, SqlValue]:
    """An agent as the columns of its row, without its key and what moves with each message."""
    log = stored.log
    return {
        "epoch": log.epoch,
        "beyond": orjson.dumps(log.beyond).decode(),
        "fulls": orjson.dumps(log.fulls).decode(),
        "floor": log.floor,
        "lost": min(log.lost, _LARGEST_INTEGER),
        "former": orjson.dumps([asdict(former) for former in stored.former]).decode(),
        "state": stored.state,
        "since": stored.since,
        "session": stored.session,
        "version": stored.version,
        "late": stored.late,
    }


def read_agent(row: sqlite3.Row | Mapping[str, Any]) -> StoredAgent:
    """A row of `AGENTS` as the agent."""
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
