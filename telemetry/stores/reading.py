"""Reading a database without writing to it, while an aggregator writes or none runs. Imports only sqlite3."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson

from telemetry.errors import StoreError, UsageError
from telemetry.fields import Record
from telemetry.records import RECORDS
from telemetry.stores import HealthRow, RecordRow, StoredAgent
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

AGENT_STATES = ("online", "stale", "stopped", "lost")
"""The events that say how an agent is from then on."""

_TURNS = ", ".join(f"'{event}'" for event in (*AGENT_STATES, "forgotten"))


class Event(NamedTuple):
    """Something that happened to an agent at a time (Unix ms).

    Where it is a new state: which one it had `before`, and for how many milliseconds that `lasted`, if known.
    """

    time: int
    agent: AgentKey
    event: str
    detail: str
    before: str | None = None
    lasted: int | None = None

    @property
    def flat(self) -> dict[str, Any]:
        """The event as JSON."""
        told = self.agent.record.fields | {"_time": self.time, "event": self.event}
        more = {"detail": self.detail or None, "before": self.before, "lasted": self.lasted}
        return told | {name: value for name, value in more.items() if value is not None}


class Violations(NamedTuple):
    """How often somebody stated at a topic what is not its to state, who did last, and when (Unix ms)."""

    topic: str
    agent: str
    number: int
    time: int


class Reader:
    """A database opened for reading."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def record(self, key: RecordKey) -> RecordRow | None:
        """One record; None when there is none."""
        record = key.record
        where = " AND ".join(f"{name} = ?" for name in record.keys)
        rows = self._rows(f"SELECT * FROM {record.name} WHERE {where}", tuple(key.fields.values()))
        layouts = read_layouts(self._connection)
        return next((read_record(record, row, layouts)[1] for row in rows), None)

    def columns(self, record: Record, names: tuple[str, ...]) -> list[sqlite3.Row]:
        """Some columns of all records of a kind, by key."""
        picked = ", ".join(f"[{name}]" for name in names)
        return self._rows(f"SELECT {picked} FROM {record.name} ORDER BY {', '.join(record.keys)}")

    def agents(self, miner: str | None = None) -> dict[AgentKey, StoredAgent]:
        """All agents, or a miner's."""
        version = self._rows("PRAGMA user_version")[0][0]
        query = f"SELECT * FROM ({AGENTS[version]}) WHERE :miner IS NULL OR minerId = :miner"
        rows = self._rows(query, {"miner": miner})
        return {AgentKey(row["minerId"], row["agent"]): read_agent(row) for row in rows}

    def lost_and_late(self) -> tuple[int, int]:
        """How many messages of all agents will never come, and how many came late."""
        [(lost, late)] = self._rows("SELECT total(lost), total(late) FROM agents")
        former = self._rows("SELECT former FROM agents WHERE former != '[]'")
        return int(lost) + sum(log["lost"] for (logs,) in former for log in orjson.loads(logs)), int(late)

    def hosts(self, miner: str) -> list[str]:
        """The names of a miner's hosts."""
        return [row["hostName"] for row in self._rows("SELECT hostName FROM workerInfo WHERE minerId = ?", (miner,))]

    def count(self) -> int:
        """How many records there are."""
        return sum(self._rows(f"SELECT count(*) FROM {record.name}")[0][0] for record in RECORDS)

    def health(self) -> list[HealthRow]:
        """How each part was when it last told: aggregators, brokers and agents."""
        if not self._has("health"):
            return []
        return [
            HealthRow(*row)._replace(metrics=orjson.loads(row["metrics"])) for row in self._rows("SELECT * FROM health")
        ]

    def violations(self) -> list[Violations]:
        """Where agents state what is not theirs, the most frequent first."""
        if not self._has("violations"):
            return []
        return [Violations(*row) for row in self._rows("SELECT * FROM violations ORDER BY number DESC, topic")]

    def since(self) -> int | None:
        """When what happened first was (Unix ms); None where nothing did."""
        return next((row["time"] for row in self._rows("SELECT time FROM events ORDER BY id LIMIT 1")), None)

    def rejected(self) -> int:
        """How many rows the table `rejected` holds."""
        count: int = self._rows("SELECT count(*) FROM rejected")[0][0]
        return count

    def rejected_by_topic(self) -> dict[str, int]:
        """How many of those rows there are of each topic."""
        return dict(map(tuple, self._rows("SELECT topic, count(*) FROM rejected GROUP BY topic")))

    def defects(self) -> int:
        """How often a full report differed from the mirror."""
        count: int = self._rows("SELECT count(*) FROM events WHERE event = 'defect'")[0][0]
        return count

    def events(
        self, since: int, until: int, miner: str | None = None, agent: str | None = None, most: int = -1
    ) -> list[Event]:
        """What happened to agents in a range of time, the newest last; no more than the newest `most`."""
        mine = "(:miner IS NULL OR minerId = :miner) AND (:agent IS NULL OR agent = :agent)"
        named = {"miner": miner, "agent": agent, "since": since, "until": until, "most": most}
        rows = self._rows(
            f"SELECT id, time, minerId, agent, event, detail FROM events"
            f" WHERE time >= :since AND time < :until AND {mine} ORDER BY id DESC LIMIT :most", named,
        )[::-1]  # fmt: skip
        # Of a group SQLite gives the row that has the maximum.
        held = self._rows(
            f"SELECT minerId, agent, event, time, max(id) FROM events"
            f" WHERE id < :first AND event IN ({_TURNS}) AND {mine} GROUP BY minerId, agent",
            named | {"first": rows[0]["id"] if rows else 0},
        )
        states = {AgentKey(row["minerId"], row["agent"]): (row["event"], row["time"]) for row in held}
        found = []
        for _, time, miner_id, name, event, detail in rows:
            one = Event(time, AgentKey(miner_id, name), event, detail)
            state, began = states.get(one.agent, ("forgotten", 0))
            if event in AGENT_STATES:
                states[one.agent] = event, time
                if state != "forgotten":
                    one = one._replace(before=state, lasted=time - began)
            elif event == "forgotten":
                states.pop(one.agent, None)
            found.append(one)
        return found

    def state_at(self, agent: AgentKey, time: int) -> tuple[str, int] | None:
        """How an agent was at a time, and since when; None when that is not known."""
        rows = self._rows(
            f"SELECT event, time FROM events WHERE minerId = ? AND agent = ? AND time <= ? AND event IN ({_TURNS})"
            " ORDER BY id DESC LIMIT 1", (*agent, time),
        )  # fmt: skip
        return next(((event, since) for event, since in rows if event != "forgotten"), None)

    def records(self) -> dict[RecordKey, RecordRow]:
        """All records."""
        layouts = read_layouts(self._connection)
        return dict(
            read_record(record, row, layouts)
            for record in RECORDS
            for row in self._rows(f"SELECT * FROM {record.name}")
        )

    def _has(self, table: str) -> bool:
        """Whether there is a table: an aggregator of before may have made the database."""
        return bool(self._rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)))

    def _rows(self, query: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> list[sqlite3.Row]:
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
    if not os.access(path, os.R_OK):
        raise StoreError(f"database {path}: this user may not read it; be a member of its group, or root")
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
