"""Reading a database without writing to it, while an aggregator writes or none runs. Imports only sqlite3."""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from telemetry.errors import StoreError, UsageError
from telemetry.fields import Record
from telemetry.records import RECORDS
from telemetry.stores import RecordRow, StoredAgent
from telemetry.stores.rows import (
    AGENTS,
    APPLICATION_ID,
    SCHEMA_VERSION,
    lock_file,
    read_agent,
    read_layouts,
    read_record,
)
from telemetry.topics import AgentKey, RecordKey


class Reader:
    """A database opened for reading."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def record(self, key: RecordKey) -> RecordRow | None:
        """One record; None when there is none."""
        record = key.record
        where = " AND ".join(f"{name} = ?" for name in record.keys)
        rows = self._rows(f"SELECT * FROM {record.name} WHERE {where}", *key.fields.values())
        layouts = read_layouts(self._connection)
        return next((read_record(record, row, layouts)[1] for row in rows), None)

    def columns(self, record: Record, names: tuple[str, ...]) -> list[sqlite3.Row]:
        """Some columns of all records of a kind, by key."""
        picked = ", ".join(f"[{name}]" for name in names)
        return self._rows(f"SELECT {picked} FROM {record.name} ORDER BY {', '.join(record.keys)}")

    def agents(self) -> dict[AgentKey, StoredAgent]:
        """All agents."""
        version = self._rows("PRAGMA user_version")[0][0]
        rows = self._rows(AGENTS[version])
        return {AgentKey(row["minerId"], row["agent"]): read_agent(row) for row in rows}

    def hosts(self, miner: str) -> list[str]:
        """The names of a miner's hosts."""
        return [row["hostName"] for row in self._rows("SELECT hostName FROM workerInfo WHERE minerId = ?", miner)]

    def rejected(self) -> int:
        """How many rows the table `rejected` holds."""
        count: int = self._rows("SELECT count(*) FROM rejected")[0][0]
        return count

    def defects(self) -> int:
        """How often a full report differed from the mirror."""
        count: int = self._rows("SELECT count(*) FROM events WHERE event = 'defect'")[0][0]
        return count

    def records(self) -> dict[RecordKey, RecordRow]:
        """All records."""
        layouts = read_layouts(self._connection)
        return dict(
            read_record(record, row, layouts)
            for record in RECORDS
            for row in self._rows(f"SELECT * FROM {record.name}")
        )

    def _rows(self, query: str, *parameters: Any) -> list[sqlite3.Row]:  # noqa: ANN401  # what SQLite takes
        return self._connection.execute(query, parameters).fetchall()


def is_served(path: Path) -> bool:
    """Whether an aggregator has the database open now, on this machine."""
    try:
        with lock_file(path).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def open_reader(path: Path) -> Iterator[Reader]:
    """Open a database for reading; errors come as one line."""
    with open_database(path) as connection:
        yield Reader(connection)


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for reading; errors come as one line."""
    if not path.exists():
        raise UsageError(f"no database at {path}: give --data DIR or --database FILE, or start `telemetry up`")
    try:
        connection = _connect(path)
        try:
            connection.row_factory = sqlite3.Row
            _require_readable(connection, path)
            yield connection
        finally:
            connection.close()
    except (sqlite3.Error, ValueError) as error:
        raise StoreError(f"database {path}: {error}; put back a copy, or give another --database") from None


def _connect(path: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=5.0)
    try:
        connection.execute("PRAGMA schema_version")
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
            raise
        # Where nothing can be written, SQLite cannot share a WAL with others; there are no others.
        wal = path.with_name(f"{path.name}-wal")
        if wal.exists() and wal.stat().st_size:
            raise StoreError(
                f"database {path}: the disk is read-only, and {wal.name} holds what was written last: "
                "copy both to where you can write, and give that --database"
            ) from None
        return sqlite3.connect(f"{uri}&immutable=1", uri=True)
    return connection


def _require_readable(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreError(f"database {path}: not one of telemetry's")
    if connection.execute("PRAGMA user_version").fetchone()[0] > SCHEMA_VERSION:
        raise StoreError(f"database {path}: written by a newer telemetry; install that version")
