"""What measurements look up in the aggregator's database. All that they know of its tables stands here."""

import contextlib
import gc
import itertools
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from telemetry.stores import Batch, HistoryRow
from telemetry.stores.sqlite import SqliteStore
from telemetry.topics import AgentKey

_BATCH = 1000
"""Messages a transaction: the broker's window, and so the most that an aggregator commits at once."""


class Found(NamedTuple):
    """Changes in the history, without full reports: how many there are, and how many different ones."""

    rows: int
    different: int


class Committed:
    """The positions up to which the logs of agents are committed, looked up again and again."""

    def __init__(self, path: Path) -> None:
        self._connection = _opened(path)

    def close(self) -> None:
        """End."""
        self._connection.close()

    @property
    def version(self) -> int:
        """Another number after each commit."""
        return _one(self._connection, "PRAGMA data_version")

    @property
    def messages(self) -> int:
        """The messages of all logs."""
        return _one(self._connection, "SELECT coalesce(sum(position), 0) FROM positions")

    def positions(self, agents: Sequence[AgentKey]) -> Mapping[AgentKey, int]:
        """Those of some agents."""
        query = "SELECT position FROM agents JOIN positions USING (id) WHERE minerId = ? AND agent = ?"
        found = {key: self._connection.execute(query, key).fetchone() for key in agents}
        return {key: row[0] for key, row in found.items() if row and row[0] is not None}


def changes_in_history(path: Path) -> Found:
    """How many changes the history holds."""
    different = "SELECT count(*) FROM (SELECT DISTINCT stream, epoch, seq FROM history WHERE full = 0)"
    with contextlib.closing(_opened(path)) as connection:
        rows = _one(connection, "SELECT count(*) FROM history WHERE full = 0")
        return Found(rows=rows, different=_one(connection, different))


def lost_messages(path: Path) -> int:
    """What the aggregator itself counts as lost."""
    with contextlib.closing(_opened(path)) as connection:
        return _one(connection, "SELECT coalesce(sum(lost), 0) FROM agents")


def late_messages(path: Path) -> int:
    """How many messages came in a batch, sent again."""
    with contextlib.closing(_opened(path)) as connection:
        return _one(connection, "SELECT coalesce(sum(late), 0) FROM agents")


def store_history(path: Path, rows: Iterable[HistoryRow]) -> None:
    """Write rows as an aggregator would, and end with all of them in the one file."""
    with contextlib.closing(SqliteStore(path)) as store:
        left = iter(rows)
        while batch := list(itertools.islice(left, _BATCH)):
            store.commit(Batch(history=batch))
    _gather(path)


def pack(path: Path, time_ms: int) -> None:
    """Do the upkeep of a moment at which all rows are old, and let go of the pages that it frees."""
    with contextlib.closing(SqliteStore(path)) as store:
        while store.maintain(time_ms):
            pass
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")
    _gather(path)


class Step(NamedTuple):
    """What a step of the upkeep took, in seconds: all in all, and of the processor."""

    wall: float
    cpu: float


def upkeep_steps(path: Path, time_ms: int) -> list[Step]:
    """Do the upkeep of a moment at which all rows are old; between two steps an aggregator commits."""
    steps = []
    # As in an aggregator, Python's collector has nothing to look at but what the upkeep makes.
    gc.collect()
    gc.freeze()
    with contextlib.closing(SqliteStore(path)) as store:
        is_more = True
        while is_more:
            wall, cpu = time.monotonic(), time.thread_time()
            is_more = store.maintain(time_ms)
            steps.append(Step(time.monotonic() - wall, time.thread_time() - cpu))
    gc.unfreeze()
    return steps


def tier_bytes(path: Path, tier: int) -> int:
    """What the blocks of one tier take up, pages and indexes included, in a file that holds that tier alone."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM blocks WHERE tier <> ?", (tier,))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")
    _gather(path)
    return path.stat().st_size


def _gather(path: Path) -> None:
    """Have the file itself hold all."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def own_ceiling(path: Path, copy: Path, most: int) -> float:
    """Messages a second that SQLite itself takes: the same rows in as large batches, without making them.

    Of each batch: its rows of the history, and once for each host of it the row of the mirror and the position.
    """
    with contextlib.closing(_opened(path)) as connection:
        tables = [
            sql
            for (sql,) in connection.execute(
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
            )
        ]
        history = _rows(connection, f"SELECT * FROM history WHERE full = 0 ORDER BY id LIMIT {most}")
        names = [column[0] for column in connection.execute("SELECT * FROM history LIMIT 0").description]
        stream = names.index("stream")
        hosts_of = dict(_rows(connection, "SELECT id, hostName FROM streams"))
        mirror = {row[1]: row for row in _rows(connection, "SELECT * FROM workerInfo")}
        query = "SELECT agent, positions.* FROM positions JOIN agents USING (id)"
        positions = {agent: row for agent, *row in _rows(connection, query)}
    batches = [
        (rows, [mirror[name] for name in hosts], [positions[name] for name in hosts])
        for rows in (history[start : start + _BATCH] for start in range(0, len(history), _BATCH))
        for hosts in [list(dict.fromkeys(hosts_of[row[stream]] for row in rows))]
    ]
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        for sql in tables:
            connection.execute(sql)
        began = time.perf_counter()
        for rows, records, logs in batches:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_insert("workerInfo", records), records)
            connection.executemany(_insert("positions", logs), logs)
            connection.executemany(_insert("history", rows), rows)
            connection.execute("COMMIT")
        return len(history) / (time.perf_counter() - began)


def _insert(table: str, rows: Sequence[Sequence[Any]]) -> str:
    return f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(rows[0]))})"


def _rows(connection: sqlite3.Connection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query).fetchall()


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10.0)


def _one(connection: sqlite3.Connection, query: str) -> int:
    value: int = connection.execute(query).fetchone()[0]
    return value
