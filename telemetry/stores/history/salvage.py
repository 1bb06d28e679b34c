"""Reading a table past damaged pages: all rows but those that stand on them."""

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import NamedTuple

from telemetry.errors import DamageError
from telemetry.stores.history.rows import telling_damage

LAST_ROW = 2**63 - 1
"""The highest number that a row can have."""


class Lost(NamedTuple):
    """Numbers of rows of a table among which some cannot be read."""

    first: int
    last: int


def salvage(
    connection: sqlite3.Connection, table: str, lost: list[Lost], first: int = 0
) -> Generator[sqlite3.Row, None, None]:
    """All rows of a table that can be read, each as `number` and its columns; where others are is added to `lost`."""
    at = first
    while True:
        try:
            with telling_damage():
                for row in _rows(connection, table, at, LAST_ROW):
                    yield row
                    at = row[0] + 1
        except DamageError:
            after = _readable_after(connection, table, at)
            if after == LAST_ROW:
                lost.append(Lost(at, LAST_ROW))
                return
            yield from _between(connection, table, at, after - 1, lost)
            at = after
        else:
            return


def _readable_after(connection: sqlite3.Connection, table: str, at: int) -> int:
    """A number from which on a row can be read, or there is none; not much further than need be."""
    step = 1
    while at + step < LAST_ROW:
        with suppress(DamageError), telling_damage():
            next(_rows(connection, table, at + step, LAST_ROW), None)
            return at + step
        step *= 2
    return LAST_ROW


def _between(
    connection: sqlite3.Connection, table: str, first: int, last: int, lost: list[Lost]
) -> Iterator[sqlite3.Row]:
    """The rows of a range in which some cannot be read."""
    ranges = [(first, last)]
    while ranges:
        first, last = ranges.pop()
        try:
            with telling_damage():
                for row in _rows(connection, table, first, last):
                    yield row
                    first = row[0] + 1
        except DamageError:
            if first < last:
                middle = (first + last) // 2
                ranges += [(middle + 1, last), (first, middle)]
            elif lost and lost[-1].last == first - 1:
                lost[-1] = Lost(lost[-1].first, last)
            else:
                lost.append(Lost(first, last))


def _rows(connection: sqlite3.Connection, table: str, first: int, last: int) -> Iterator[sqlite3.Row]:
    yield from connection.execute(
        f"SELECT rowid AS number, * FROM [{table}] WHERE rowid BETWEEN ? AND ? ORDER BY rowid", (first, last)
    )
