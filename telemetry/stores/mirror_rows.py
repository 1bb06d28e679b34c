"""How the mirror and the agents are written: what is there by its rowid, in the order of the file.

Nine of ten rows that a batch writes are there already, at random places of the table. What that costs are the pages
that are touched; found by the key instead, and out of order, it would cost a third more.
"""

import sqlite3
from collections.abc import Iterable, Mapping

from telemetry.fields import Record
from telemetry.render.sql import SqlValue, columns
from telemetry.stores import Moved, RecordRow, StoredAgent
from telemetry.stores.rows import agent_row
from telemetry.topics import AgentKey, RecordKey

AGENT_COLUMNS = {
    "id": int, "minerId": str, "agent": str, "epoch": int, "beyond": str, "fulls": str, "floor": int, "lost": int,
    "former": str, "state": str, "since": int, "session": str, "version": str, "late": int,
}  # fmt: skip
POSITION_COLUMNS = {"id": int, "position": int, "heard": int}
"""What moves with each message stands apart from the rest of the agent: 150 of these rows fill a page."""


class RecordTable:
    """The table of one kind of record, for one transaction after another."""

    def __init__(self, connection: sqlite3.Connection, record: Record) -> None:
        self._connection, self._record = connection, record
        self._ids: dict[RecordKey, int] = {}
        names = list(columns(record))
        values = [f"[{name}] = ?{number}" for number, name in enumerate(names, start=2) if name not in record.keys]
        self._update = f"UPDATE {record.name} SET {', '.join(values)} WHERE rowid = ?1"
        self._insert = insertion(record.name, names)
        self._delete = f"DELETE FROM {record.name} WHERE rowid = ?"

    def look(self) -> None:
        """Learn anew which rows there are."""
        rows = self._connection.execute(f"SELECT rowid, {', '.join(self._record.keys)} FROM {self._record.name}")
        self._ids = {RecordKey(*key): rowid for rowid, *key in rows}

    def write(self, rows: Mapping[RecordKey, RecordRow | None]) -> None:
        """Write records, or with None forget them."""
        changed: list[tuple[int, RecordRow]] = []
        for key, row in rows.items():
            rowid = self._ids.get(key)
            if row is None:
                if rowid is not None:
                    self._connection.execute(self._delete, (rowid,))
                    del self._ids[key]
            elif rowid is None:
                self._ids[key] = _inserted(self._connection, self._insert, row)
            else:
                changed.append((rowid, row))
        changed.sort()
        self._connection.executemany(self._update, ((rowid, *row) for rowid, row in changed))


class AgentTables:
    """The tables `agents` and `positions`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ids: dict[AgentKey, int] = {}
        names = [name for name in AGENT_COLUMNS if name != "id"]
        values = [f"[{name}] = ?{number}" for number, name in enumerate(names, start=2)]
        self._update = f"UPDATE agents SET {', '.join(values)} WHERE id = ?1"
        self._insert = insertion("agents", names)
        self._move = f"INSERT OR REPLACE INTO positions ({', '.join(POSITION_COLUMNS)}) VALUES (?, ?, ?)"

    def look(self) -> None:
        """Learn anew which rows there are."""
        rows = self._connection.execute("SELECT id, minerId, agent FROM agents")
        self._ids = {AgentKey(miner, agent): number for number, miner, agent in rows}

    def write(self, agents: Mapping[AgentKey, StoredAgent | None], moved: Mapping[AgentKey, Moved]) -> None:
        """Write agents, or with None forget them; of those that only moved just that."""
        positions: list[tuple[int, int | None, int]] = []
        for key, stored in agents.items():
            number = self._ids.get(key)
            if stored is None:
                self._forget(key)
                continue
            row = (*key, *agent_row(stored).values())
            if number is None:
                number = self._ids[key] = _inserted(self._connection, self._insert, row)
            else:
                self._connection.execute(self._update, (number, *row))
            positions.append((number, stored.log.position, stored.heard))
        positions += [(self._ids[key], *one) for key, one in moved.items()]
        positions.sort()
        self._connection.executemany(self._move, positions)

    def _forget(self, key: AgentKey) -> None:
        number = self._ids.pop(key, None)
        if number is not None:
            for table in ("agents", "positions"):
                self._connection.execute(f"DELETE FROM {table} WHERE id = ?", (number,))


def insertion(table: str, names: Iterable[str]) -> str:
    """The statement that inserts a row."""
    quoted = [f"[{name}]" for name in names]
    return f"INSERT INTO {table} ({', '.join(quoted)}) VALUES ({', '.join('?' * len(quoted))})"


def _inserted(connection: sqlite3.Connection, statement: str, row: tuple[SqlValue, ...]) -> int:
    rowid = connection.execute(statement, row).lastrowid
    assert rowid is not None
    return rowid
