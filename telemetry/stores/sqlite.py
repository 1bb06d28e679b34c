"""The store in SQLite: WAL, one writer, one transaction a batch. The only file that imports sqlite_utils."""

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import orjson
import sqlite_utils

from telemetry.config import Retention
from telemetry.errors import DamageError, StoreBusyError, StoreError, UsageError
from telemetry.fields import Record
from telemetry.records import RECORDS
from telemetry.render.sql import columns
from telemetry.stores import Batch, Stored
from telemetry.stores.history.horizon import SCHEMA as CLOCK
from telemetry.stores.history.rows import SAVE, is_damage, telling_damage
from telemetry.stores.history.upkeep import FOREVER, Upkeep
from telemetry.stores.history.writing import SCHEMA, HistoryWriter, delete_record
from telemetry.stores.migration import keep_copy, set_aside, take_over
from telemetry.stores.mirror_rows import AGENT_COLUMNS, POSITION_COLUMNS, AgentTables, RecordTable, insertion
from telemetry.stores.reading import Reader
from telemetry.stores.rows import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    hold,
    size_of,
)
from telemetry.stores.state import layout
from telemetry.topics import RecordKey

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE = 5_000
"""Milliseconds for which a commit waits for another writer."""

MOST_REJECTED = 10_000
"""Rows kept in the table `rejected`; the oldest go first."""

_CACHE_KIB = 8 * 1024
_CHECKPOINT_PAGES = 2_000
"""Pages (8 MiB) of the WAL until they are moved to the database: with more, a commit would wait for them too long."""

_CAUGHT_UP = "UPDATE mirrored SET history = :newest WHERE history <> :newest"
"""`mirrored` has one row: up to which row of the history the records have it."""

_EVENT_COLUMNS = {"time": int, "minerId": str, "agent": str, "event": str, "detail": str}
_REJECTED_COLUMNS = {"time": int, "topic": str, "reason": str, "payload": bytes}
_HEALTH_COLUMNS = {"kind": str, "name": str, "time": int, "version": str, "metrics": str, "received": int}
_VIOLATION_COLUMNS = {"topic": str, "agent": str, "number": int, "time": int}

MOST_VIOLATIONS = 1000
"""Topics kept in the table `violations`; those that were heard of last."""

_VIOLATE = (
    "INSERT INTO violations VALUES (?, ?, ?, ?) ON CONFLICT (topic)"
    " DO UPDATE SET agent = excluded.agent, number = number + excluded.number, time = excluded.time"
)
_PRUNE = (
    "DELETE FROM violations WHERE topic NOT IN"
    f" (SELECT topic FROM violations ORDER BY time DESC LIMIT {MOST_VIOLATIONS})"
)
_TELL = f"INSERT OR REPLACE INTO health VALUES ({', '.join('?' * len(_HEALTH_COLUMNS))})"


class SqliteStore:
    """A store in one file. Opening it creates or extends its tables; a second aggregator is refused."""

    def __init__(self, path: Path, retention: Retention = FOREVER) -> None:
        self._path = path
        self._lock = _lock(path)
        with contextlib.ExitStack() as on_failure, self._opening():
            on_failure.callback(self._lock.close)
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE / 1000)
            on_failure.callback(self._connection.close)
            self._connection.row_factory = sqlite3.Row
            self._prepare()
            self._history = HistoryWriter(self._connection)
            on_failure.pop_all()
        self._upkeep = Upkeep(self._connection, self._history, self._at_once, retention)
        self._records = {record: RecordTable(self._connection, record) for record in RECORDS}
        self._agents = AgentTables(self._connection)
        self._looked_at: int | None = None

    def load(self) -> Stored:
        """The mirror and the logs as the last commit left them."""
        with self._opening():
            reader = Reader(self._connection)
            records, agents = reader.records(), reader.agents()
            mirrored = self._connection.execute("SELECT history FROM mirrored").fetchone()[0]
            behind = tuple(self._history.after(mirrored))
        return Stored(records=records, agents=agents, behind=behind)

    def commit(self, batch: Batch) -> None:
        """Write a batch as one transaction."""
        if batch.is_empty:
            return
        try:
            with transaction(self._connection):
                self._look()
                for record, table in self._records.items():
                    table.write({key: row for key, row in batch.records.items() if key.record is record})
                self._agents.write(batch.agents, batch.moved)
                self._write_rows(batch)
                self._write_health(batch)
                if not batch.is_behind:
                    self._connection.execute(_CAUGHT_UP, {"newest": self._history.next - 1})
        except BaseException as error:
            self._history.rolled_back()
            self._looked_at = None
            if isinstance(error, sqlite3.Error):
                raise self._refusal(error) from None
            raise

    def maintain(self, time: int) -> bool:
        """Do some milliseconds of the history's upkeep; what cannot be done now is tried again in a minute."""
        return self._upkeep.step(time)

    def size(self) -> int:
        """Bytes that the database takes up on disk."""
        return size_of(self._path)

    def close(self) -> None:
        """End; everything committed stays."""
        self._connection.close()
        self._lock.close()

    def _refusal(self, error: sqlite3.Error) -> StoreError:
        if is_damage(error):
            return DamageError(f"database {self._path}: {error}; {SAVE}")
        if isinstance(error, sqlite3.OperationalError):
            return StoreBusyError(f"database {self._path}: {error}")
        return StoreError(f"database {self._path}: {error}")

    @contextmanager
    def _opening(self) -> "Iterator[None]":
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(f"database {self._path}: {error}; {_remedy(error)}") from None

    @contextmanager
    def _at_once(self) -> "Iterator[None]":
        """A transaction of the upkeep, which waits for nobody."""
        self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            with telling_damage(), transaction(self._connection):
                yield
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {_PATIENCE}")

    def _look(self) -> None:
        """Know the rows that are there: whoever else wrote, as VACUUM does, may have given them other numbers."""
        version = self._pragma("data_version")
        if version != self._looked_at:
            for table in self._records.values():
                table.look()
            self._agents.look()
            self._looked_at = version

    def _prepare(self) -> None:
        self._require_ours()
        version = self._pragma("user_version")
        is_old = 0 < version < SCHEMA_VERSION
        if is_old:
            keep_copy(self._path, version)
        self._connection.execute("PRAGMA journal_mode = WAL")
        # Batches make it free, and what was acknowledged survives a loss of power.
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        with transaction(self._connection):
            if is_old:
                set_aside(self._connection)
            database = sqlite_utils.Database(self._connection)
            for record in RECORDS:
                _extend(database, record)
                self._keep_layout(record)
            _make(database, "agents", AGENT_COLUMNS, "id")
            _make(database, "positions", POSITION_COLUMNS, "id")
            self._connection.execute("CREATE UNIQUE INDEX IF NOT EXISTS agents_by_key ON agents (minerId, agent)")
            for name, kinds in (("events", _EVENT_COLUMNS), ("rejected", _REJECTED_COLUMNS)):
                _make(database, name, {"id": int} | kinds, "id")
            _make(database, "health", _HEALTH_COLUMNS, ("kind", "name"))
            _make(database, "violations", _VIOLATION_COLUMNS, "topic")
            for statement in (*SCHEMA.split(";"), CLOCK):
                self._connection.execute(statement)
            if is_old:
                take_over(self._connection)
            if not database.table("mirrored").exists():
                self._connection.execute("CREATE TABLE mirrored (history INTEGER)")
                self._connection.execute("INSERT INTO mirrored SELECT coalesce(max(id), 0) FROM history")
            self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _keep_layout(self, record: Record) -> None:
        """Note what the numbers of a `_state` that is written now stand for."""
        today = layout(record)
        self._connection.execute("CREATE TABLE IF NOT EXISTS layouts (number INTEGER PRIMARY KEY, names TEXT)")
        self._connection.execute("INSERT OR IGNORE INTO layouts VALUES (?, ?)", (today.number, " ".join(today.names)))

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

    def _write_rows(self, batch: Batch) -> None:
        self._history.append(batch.history)
        events = [(row.time, *row.agent, row.event, row.detail) for row in batch.events]
        self._connection.executemany(insertion("events", _EVENT_COLUMNS), events)
        if batch.rejected:
            self._connection.executemany(insertion("rejected", _REJECTED_COLUMNS), batch.rejected)
            self._connection.execute(
                "DELETE FROM rejected WHERE id <= (SELECT max(id) FROM rejected) - ?", (MOST_REJECTED,)
            )

    def _write_health(self, batch: Batch) -> None:
        gone = [str(key) for key, agent in batch.agents.items() if agent is None]
        for name in gone:
            self._connection.execute("DELETE FROM health WHERE kind = 'agent' AND name = ?", (name,))
            self._connection.execute("DELETE FROM violations WHERE agent = ?", (name,))
        told = [
            (*one, row.time, row.version, orjson.dumps(row.metrics).decode(), row.received)
            for one, row in batch.health.items()
        ]
        self._connection.executemany(_TELL, told)
        if batch.violations:
            rows = [(topic, str(one.agent), one.number, one.time) for topic, one in batch.violations.items()]
            self._connection.executemany(_VIOLATE, rows)
            self._connection.execute(_PRUNE)


def _remedy(error: sqlite3.Error | ValueError) -> str:
    """What to do about a database that cannot be opened."""
    if isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return "nothing of it was changed; make room"
    saved = f"{SAVE}; " if isinstance(error, sqlite3.Error) and is_damage(error) else ""
    return f"{saved}put back a copy, or move it away, or give another --database"


@contextmanager
def transaction(connection: sqlite3.Connection) -> "Iterator[None]":
    """What is executed within stands or falls together."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors end the transaction themselves; one that cannot be rolled back now is at the next open.
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        raise


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
        lock = hold(path)
    except OSError as error:
        raise StoreError(
            f"database {path}: cannot write beside it: {error.strerror}; give another --data or --database"
        ) from None
    if lock is None:
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
