"""The store in SQLite: WAL, one writer, one transaction a batch. The only file that imports sqlite_utils."""

import contextlib
import fcntl
import logging
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import orjson
import sqlite_utils

from telemetry.errors import StoreBusyError, StoreError, TelemetryError, UsageError
from telemetry.fields import Owner, Record
from telemetry.records import RECORDS
from telemetry.render.sql import columns
from telemetry.stores import Batch, HistoryRow, Stored
from telemetry.stores.history.upkeep import FOREVER, Retention, Upkeep
from telemetry.stores.history.writing import SCHEMA, HistoryWriter, delete_record
from telemetry.stores.rows import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    agent_row,
    lock_file,
    read_agent,
    read_record,
    record_row,
)
from telemetry.topics import AgentKey, RecordKey
from telemetry.wire import Position

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger(__name__)

_UNPACKED_VERSION = 1
_ROWS_AT_ONCE = 1000

MOST_REJECTED = 10_000
"""Rows kept in the table `rejected`; the oldest go first."""

_AGENT_COLUMNS = {
    "minerId": str, "agent": str, "epoch": int, "position": int, "beyond": str, "fulls": str, "floor": int, "lost": int,
    "former": str, "state": str, "since": int, "heard": int, "session": str, "version": str, "late": int,
}  # fmt: skip
_EVENT_COLUMNS = {"time": int, "minerId": str, "agent": str, "event": str, "detail": str}
_REJECTED_COLUMNS = {"time": int, "topic": str, "reason": str, "payload": bytes}


class SqliteStore:
    """A store in one file. Opening it creates or extends its tables; a second aggregator is refused."""

    def __init__(self, path: Path, retention: Retention = FOREVER) -> None:
        self._path = path
        self._lock = _lock(path)
        with self._opening():
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            self._connection.row_factory = sqlite3.Row
            self._prepare()
            self._history = HistoryWriter(self._connection)
        self._upkeep = Upkeep(self._connection, self._history, self._transaction, retention)
        self._upkeep_trouble = ""
        self._upserts = {record.name: _upsert(record.name, columns(record)) for record in RECORDS}

    def load(self) -> Stored:
        """The mirror and the logs as the last commit left them."""
        with self._opening():
            records = dict(read_record(record, row) for record in RECORDS for row in self._rows(record.name))
            agents = {AgentKey(row["minerId"], row["agent"]): read_agent(row) for row in self._rows("agents")}
        return Stored(records=records, agents=agents)

    def commit(self, batch: Batch) -> None:
        """Write a batch as one transaction."""
        if batch.is_empty:
            return
        with self._transaction():
            for record in RECORDS:
                self._write_records(record, batch)
            self._write_agents(batch)
            self._write_rows(batch)

    def maintain(self, time: int) -> bool:
        """Do some milliseconds of the history's upkeep; what cannot be done now is tried again in a minute."""
        try:
            more = self._upkeep.step(time)
        except (TelemetryError, sqlite3.Error) as error:
            if str(error) != self._upkeep_trouble:
                self._upkeep_trouble = str(error)
                _log.error("history: %s; it is not packed until that is mended", error)  # one line
            return False
        self._upkeep_trouble = ""
        return more

    def close(self) -> None:
        """End; everything committed stays."""
        self._connection.close()
        self._lock.close()

    @contextmanager
    def _opening(self) -> "Iterator[None]":
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(
                f"database {self._path}: {error}; put back a copy, or move it away, or give another --database"
            ) from None

    @contextmanager
    def _transaction(self) -> "Iterator[None]":
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._roll_back()
            raise StoreBusyError(f"database {self._path}: {error}") from None
        except sqlite3.Error as error:
            self._roll_back()
            raise StoreError(f"database {self._path}: {error}") from None

    def _roll_back(self) -> None:
        self._history.rolled_back()
        # Some errors end the transaction themselves; one that cannot be rolled back now is at the next open.
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _prepare(self) -> None:
        self._require_ours()
        self._connection.execute("PRAGMA journal_mode = WAL")
        # Batches make it free, and what was acknowledged survives a loss of power.
        self._connection.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            database = sqlite_utils.Database(self._connection)
            for record in RECORDS:
                _extend(database, record)
            _make(database, "agents", _AGENT_COLUMNS, ("minerId", "agent"))
            for name, kinds in (("events", _EVENT_COLUMNS), ("rejected", _REJECTED_COLUMNS)):
                _make(database, name, {"id": int} | kinds, "id")
            self._prepare_history()
            self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _prepare_history(self) -> None:
        is_old = self._pragma("user_version") == _UNPACKED_VERSION
        if is_old:
            self._connection.execute("ALTER TABLE history RENAME TO unpacked_history")
        for statement in SCHEMA.split(";"):
            self._connection.execute(statement)
        if is_old:
            writer = HistoryWriter(self._connection)
            rows = self._connection.execute("SELECT * FROM unpacked_history ORDER BY id")
            while some := rows.fetchmany(_ROWS_AT_ONCE):
                writer.append([_unpacked_row(row) for row in some])
            self._connection.execute("DROP TABLE unpacked_history")

    def _require_ours(self) -> None:
        application = self._pragma("application_id")
        if application != APPLICATION_ID and self._rows("sqlite_master"):
            raise StoreError(f"database {self._path}: not one of telemetry's; give another --database")
        version = self._pragma("user_version")
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"database {self._path}: written by a newer telemetry (version {version}, this one knows "
                f"{SCHEMA_VERSION}); install that version, or give another --database"
            )

    def _pragma(self, name: str) -> int:
        value: int = self._connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def _rows(self, table: str) -> list[sqlite3.Row]:
        return self._connection.execute(f"SELECT * FROM {table}").fetchall()

    def _write_records(self, record: Record, batch: Batch) -> None:
        mine = {key: stored for key, stored in batch.records.items() if key.record is record}
        rows = [record_row(key, stored) for key, stored in mine.items() if stored is not None]
        self._connection.executemany(self._upserts[record.name], rows)
        where = " AND ".join(f"{name} = ?" for name in record.keys)
        forgotten = [tuple(key.fields.values()) for key, stored in mine.items() if stored is None]
        self._connection.executemany(f"DELETE FROM {record.name} WHERE {where}", forgotten)

    def _write_agents(self, batch: Batch) -> None:
        rows = [(*key, *agent_row(stored).values()) for key, stored in batch.agents.items() if stored is not None]
        self._connection.executemany(_upsert("agents", _AGENT_COLUMNS), rows)
        forgotten = [key for key, stored in batch.agents.items() if stored is None]
        self._connection.executemany("DELETE FROM agents WHERE minerId = ? AND agent = ?", forgotten)

    def _write_rows(self, batch: Batch) -> None:
        self._history.append(batch.history)
        events = [(row.time, *row.agent, row.event, row.detail) for row in batch.events]
        self._connection.executemany(_insert("events", _EVENT_COLUMNS), events)
        if batch.rejected:
            self._connection.executemany(_insert("rejected", _REJECTED_COLUMNS), batch.rejected)
            self._connection.execute(
                "DELETE FROM rejected WHERE id <= (SELECT max(id) FROM rejected) - ?", (MOST_REJECTED,)
            )


def delete_history(path: Path, keys: Iterable[RecordKey]) -> int:
    """Delete what happened to records that are gone, also while an aggregator writes; of how many there was any."""
    if not path.exists():
        raise UsageError(f"no database at {path}: give --data DIR or --database FILE")
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=30.0)) as connection, connection:
            return sum(delete_record(connection, key) for key in keys)
    except sqlite3.Error as error:
        raise StoreError(f"database {path}: {error}; nothing was deleted") from None


def _lock(path: Path) -> IO[str]:
    """Hold the database's lock file for as long as the store is open."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_file(path).open("w")
    except OSError as error:
        raise StoreError(
            f"database {path}: cannot write beside it: {error.strerror}; give another --data or --database"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise StoreError(f"database {path}: another aggregator is using it; end that one first") from None
    return lock


def _extend(database: sqlite_utils.Database, record: Record) -> None:
    """Create a record's table, or add the columns that its declaration has gained."""
    table = database.table(record.name)
    declared = columns(record)
    if not table.exists():
        made = ", ".join(f"[{name}] {kind}" for name, kind in declared.items())
        database.execute(f"CREATE TABLE [{record.name}] ({made}, PRIMARY KEY ({', '.join(record.keys)}))")
    for name in declared.keys() - table.columns_dict.keys():
        table.add_column(name, declared[name])


def _make(database: sqlite_utils.Database, name: str, kinds: Mapping[str, type], key: str | tuple[str, ...]) -> None:
    """Create a table, or add the columns that it has gained."""
    table = database.table(name)
    table.create(dict(kinds), pk=key, if_not_exists=True)
    for column in kinds.keys() - table.columns_dict.keys():
        table.add_column(column, kinds[column])


def _upsert(table: str, names: Iterable[str]) -> str:
    return _insert(table, names).replace("INSERT", "INSERT OR REPLACE", 1)


def _insert(table: str, names: Iterable[str]) -> str:
    quoted = [f"[{name}]" for name in names]
    return f"INSERT INTO {table} ({', '.join(quoted)}) VALUES ({', '.join('?' * len(quoted))})"


def _unpacked_row(row: sqlite3.Row) -> HistoryRow:
    """A message as version 1 kept it."""
    return HistoryRow(
        RecordKey(row["minerId"], row["hostName"]), Owner(row["owner"]), Position(row["epoch"], row["seq"]),
        row["time"], row["received"], bool(row["full"]), orjson.loads(row["fields"]), tuple(orjson.loads(row["gone"])),
    )  # fmt: skip
