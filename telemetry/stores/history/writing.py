"""Appending messages: one row each, in the order in which they came, and nothing else on the hot path.

No index is kept on the rows: at 10,000 hosts each message would alter another page of it (1.3 kB written a message
instead of 70 B). Instead each row names the `previous` one of its stream, and `streams.last` from time to time where
such a chain begins; rows after the highest `last` are few and found by looking at all of them.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from telemetry.fields import Owner
from telemetry.stores import HistoryRow
from telemetry.stores.history.rows import names_of, read_row, rows_after
from telemetry.stores.history.salvage import salvage
from telemetry.topics import RecordKey
from telemetry.wire import Position

MOST_UNMARKED = 20_000
"""Rows after which `streams.last` is written."""

_MARKED_AT_ONCE = 1_000

MOST_NAMES = 10_000
"""Fields that have a short name; those beyond are written out, so that no sender can make us grow."""

MOST_STATED = 100_000
"""Names in the sets of fields of which it is known how a message states them. Those of a fleet repeat; who makes up
others all the time makes us no larger than that."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS names (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT, minerId TEXT NOT NULL, hostName TEXT, owner TEXT NOT NULL,
    last INTEGER NOT NULL DEFAULT 0, packed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS streams_record ON streams (minerId, hostName);
CREATE TABLE IF NOT EXISTS history (
    id INTEGER PRIMARY KEY, previous INTEGER NOT NULL, stream INTEGER NOT NULL, epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL, time INTEGER NOT NULL, delay INTEGER NOT NULL, full INTEGER NOT NULL, statement TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS blocks (
    id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, tier INTEGER NOT NULL, start INTEGER NOT NULL,
    newest INTEGER NOT NULL, data BLOB NOT NULL, UNIQUE (stream, tier, start)
);
CREATE INDEX IF NOT EXISTS blocks_newest ON blocks (tier, newest);
"""
"""`streams`: what one sender states of one record. `packed`: its rows up to this one are in blocks already.
`statement`: a JSON list of a field's number (its name, where it has none), its value (null: gone), and so on.
`start`: a multiple of the tier's span; of further blocks beside the first one some milliseconds more. `newest`: when
what is in it ended, or was received, whichever is later: the retention counts from then.
"""

_CELLS = 9
_ROW = f"({', '.join('?' * _CELLS)})"
_INSERT = f"INSERT INTO history (id, previous, stream, epoch, seq, time, delay, full, statement) VALUES {_ROW}"

_TOGETHER = 50
"""Rows that one statement inserts: each statement costs as much again as such a row, and gives up Python's lock."""

_INSERT_TOGETHER = _INSERT + f", {_ROW}" * (_TOGETHER - 1)


def delete_record(connection: sqlite3.Connection, key: RecordKey) -> bool:
    """Delete the history of a record, also while its writer writes; whether there was any."""
    streams = "SELECT id FROM streams WHERE minerId = ? AND hostName IS ?"
    # The writer knows the streams: it lets them go itself, when it sees that they are empty.
    found = connection.execute(
        "UPDATE streams SET packed = max(packed, last, (SELECT coalesce(max(id), 0) FROM history))"
        " WHERE minerId = ? AND hostName IS ?",
        key,
    ).rowcount
    connection.execute(f"DELETE FROM history WHERE stream IN ({streams})", key)
    connection.execute(f"DELETE FROM blocks WHERE stream IN ({streams})", key)
    return found > 0


@dataclass(slots=True)
class Stream:
    """A stream as its writer knows it: its number, its last row, and up to which they are in blocks."""

    id: int
    record: RecordKey
    last: int
    packed: int


class HistoryWriter:
    """Appends messages. Whoever calls it holds the transaction, and calls `rolled_back` when that failed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.learned = 0
        self._learn()

    def _learn(self) -> None:
        """Learn what the database holds."""
        self._is_sure = False
        self._streams: dict[tuple[RecordKey, Owner], Stream] = {}
        by_id: dict[int, Stream] = {}
        for miner, host, owner, number, last, packed in self._connection.execute(
            "SELECT minerId, hostName, owner, id, last, packed FROM streams"
        ):
            record = RecordKey(miner, host)
            by_id[number] = self._streams[record, Owner(owner)] = Stream(number, record, last, packed)
        self._marked = marked = max((stream.last for stream in by_id.values()), default=0)
        # A row's number is never given twice: what is packed is told by it.
        self._next = max([marked, *(stream.packed for stream in by_id.values())]) + 1
        for row in salvage(self._connection, "history", [], marked + 1):
            self._next = max(self._next, row["id"] + 1)
            if row["stream"] in by_id:
                by_id[row["stream"]].last = row["id"]
        self._numbers = {name: number for number, name in self._connection.execute("SELECT number, name FROM names")}
        self._statements: dict[tuple[str, ...], list[Any]] = {}
        self._stated = 0
        self._is_sure = True
        self.learned += 1

    def rolled_back(self) -> None:
        """Nothing of the last transaction was written."""
        self._is_sure = False

    def be_sure(self) -> None:
        """After a transaction that failed: learn anew what the database holds."""
        if not self._is_sure:
            self._learn()

    @property
    def numbers(self) -> dict[str, int]:
        """The short names of fields."""
        return self._numbers

    @property
    def next(self) -> int:
        """The number of the next row."""
        return self._next

    @property
    def streams(self) -> Iterable[Stream]:
        """All streams."""
        return self._streams.values()

    def after(self, number: int) -> list[HistoryRow]:
        """The messages of the rows after one, in the order in which they came."""
        senders = {stream.id: sender for sender, stream in self._streams.items()}
        names = names_of(self._connection)
        found = []
        for row in rows_after(self._connection, number):
            if (sender := senders.get(row[1])) is not None:
                time, epoch, seq, delay, full, values, gone = read_row(row, names)
                found.append(HistoryRow(*sender, Position(epoch, seq), time, time + delay, full, values, gone))
        return found

    def append(self, messages: Sequence[HistoryRow]) -> None:
        """Write a batch's messages."""
        self.be_sure()
        cells: list[Any] = []
        streams, statements, number = self._streams, self._statements, self._next
        for record, owner, (epoch, seq), time, received, full, values, gone in messages:
            stream = streams.get((record, owner)) or self._new_stream(record, owner, packed=number - 1)
            names = tuple(values)
            statement = (statements.get(names) or self._new_statement(names)).copy()
            statement[1::2] = values.values()
            if gone:
                for name in dict.fromkeys(gone):
                    if name not in values:
                        statement += (self._number(name), None)
            text = orjson.dumps(statement).decode()
            cells += (number, stream.last, stream.id, epoch, seq, time, received - time, full, text)
            stream.last = number
            number += 1
        self._insert(cells)
        self._next = number
        if number - self._marked > MOST_UNMARKED:
            self.mark()

    def _insert(self, cells: list[Any]) -> None:
        """Write rows, whose cells stand one after the other."""
        at, step = 0, _TOGETHER * _CELLS
        while at + step <= len(cells):
            self._connection.execute(_INSERT_TOGETHER, cells[at : at + step])
            at += step
        for start in range(at, len(cells), _CELLS):
            self._connection.execute(_INSERT, cells[start : start + _CELLS])

    def mark(self) -> None:
        """Write down the last row of some streams, so that readers have few rows to look through."""
        # The longest silent ones: then those whose last row is not written down are among the rows after it.
        waiting = sorted((stream.last, stream.id) for stream in self.streams if stream.last > self._marked)
        some = waiting[:_MARKED_AT_ONCE]
        self._connection.executemany("UPDATE streams SET last = ? WHERE id = ?", some)
        self._marked = some[-1][0] if some else self._next - 1

    def forget(self, ids: Iterable[int]) -> None:
        """Let go of streams that are deleted."""
        gone = set(ids)
        self._streams = {key: stream for key, stream in self._streams.items() if stream.id not in gone}

    def _new_stream(self, record: RecordKey, owner: Owner, *, packed: int) -> Stream:
        cursor = self._connection.execute(
            "INSERT INTO streams (minerId, hostName, owner, packed) VALUES (?, ?, ?, ?)",
            (*record, owner.value, packed),
        )
        assert cursor.lastrowid is not None
        stream = self._streams[record, owner] = Stream(cursor.lastrowid, record, 0, packed)
        return stream

    def _new_statement(self, names: tuple[str, ...]) -> list[Any]:
        """What is stored of a message that states these fields, but for their values."""
        self._stated += len(names)
        if self._stated > MOST_STATED:
            self._statements.clear()
            self._stated = len(names)
        statement = self._statements[names] = [entry for name in names for entry in (self._number(name), None)]
        return statement

    def _number(self, name: str) -> int | str:
        number = self._numbers.get(name)
        if number is None:
            if len(self._numbers) >= MOST_NAMES:
                return name
            number = self._numbers[name] = len(self._numbers) + 1
            self._connection.execute("INSERT INTO names (number, name) VALUES (?, ?)", (number, name))
        return number
