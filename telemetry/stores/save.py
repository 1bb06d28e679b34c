"""A copy of all that can be read of a damaged database, as a new one that an aggregator can go on with."""

import sqlite3
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path

from telemetry.errors import StoreError, UsageError
from telemetry.records import RECORDS
from telemetry.stores.examine import is_block
from telemetry.stores.history.salvage import salvage
from telemetry.stores.rows import SCHEMA_VERSION
from telemetry.stores.sqlite import SqliteStore

_TABLES = (
    *(record.name for record in RECORDS), "layouts", "agents", "positions", "events", "rejected", "names",
    "streams", "clock",
)  # fmt: skip

Rows = Generator[sqlite3.Row | dict[str, object], None, None]

_ENDINGS = ("", "-wal", "-shm", "-journal", ".lock")
"""What the name of a database goes on with in those of its files."""


def save(damaged: sqlite3.Connection, path: Path) -> int:
    """Copy what can be read to a new file; how many rows and blocks."""
    if path.exists():
        raise UsageError(f"{path} exists already; give the name of a new file")
    if damaged.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION:
        raise UsageError("the database is of an older telemetry; `sqlite3 FILE .recover` copies what can be read")
    try:
        SqliteStore(path).close()
        with closing(sqlite3.connect(path)) as saved, saved:
            copied = sum(_copy(saved, table, salvage(damaged, table, [])) for table in _TABLES)
            copied += _copy(saved, "history", _chained(saved, salvage(damaged, "history", [])))
            mirrored = max((row["history"] for row in salvage(damaged, "mirrored", [])), default=None)
            saved.execute("UPDATE mirrored SET history = coalesce(?, (SELECT max(id) FROM history), 0)", (mirrored,))
            blocks = (row for row in salvage(damaged, "blocks", []) if is_block(row))
            return copied + _copy(saved, "blocks", blocks)
    except BaseException as error:
        for ending in _ENDINGS:
            Path(f"{path}{ending}").unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error):
            raise StoreError(f"{path}: {error}; nothing was saved") from None
        raise


def _copy(saved: sqlite3.Connection, table: str, rows: Rows) -> int:
    known = {row[1] for row in saved.execute(f"PRAGMA table_info([{table}])")}
    count = 0
    # Closed when it cannot be written too: what reads ends before the database that it reads.
    with closing(rows):
        for row in rows:
            names = [name for name in row.keys() if name in known]  # noqa: SIM118  # a Row iterates over its values
            marks = ", ".join("?" * len(names))
            quoted = ", ".join(f"[{name}]" for name in names)
            count += saved.execute(
                f"INSERT OR IGNORE INTO [{table}] ({quoted}) VALUES ({marks})", [row[name] for name in names]
            ).rowcount
    return count


def _chained(saved: sqlite3.Connection, rows: Iterable[sqlite3.Row]) -> Generator[dict[str, object], None, None]:
    """The rows of the history, each of which names the previous one of its stream that is left."""
    last: dict[int, int] = {}
    for row in rows:
        yield dict(row) | {"previous": last.get(row["stream"], 0)}
        last[row["stream"]] = row["id"]
    saved.executemany("UPDATE streams SET last = ? WHERE id = ?", [(row, stream) for stream, row in last.items()])
