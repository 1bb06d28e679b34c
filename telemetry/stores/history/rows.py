"""The tables of the history, read: what its upkeep, its readers and its examination all do."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

from telemetry.errors import DamageError
from telemetry.stores.history import Statement, Tier

_CHAIN = """
WITH RECURSIVE chain (id, previous) AS (
    SELECT id, previous FROM history WHERE id = :last AND id > :packed
    UNION ALL
    SELECT history.id, history.previous FROM chain JOIN history ON history.id = chain.previous
    WHERE chain.previous > :packed
    LIMIT :most
)
SELECT id, previous FROM chain
"""

ROW = ("id", "stream", "time", "epoch", "seq", "delay", "full", "statement")
"""The columns of a row that `read_row` takes."""

_ROWS = f"SELECT {', '.join(ROW)} FROM history"


Names = Mapping[int | str, str]
"""Fields' names by their short ones."""


def names_of(connection: sqlite3.Connection) -> dict[int | str, str]:
    """The fields' names by the numbers that stand for them in rows."""
    return dict(connection.execute("SELECT number, name FROM names").fetchall())


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error tells of a damaged file, and not of a disk or a lock that may be better soon."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


SAVE = "`telemetry check --db` says what can be saved"
"""What to do about damage."""


@contextmanager
def telling_damage() -> Iterator[None]:
    """Raise DamageError for what SQLite says of a damaged file."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise DamageError(str(error)) from None
        raise


def walk(connection: sqlite3.Connection, last: int, packed: int, most: int) -> list[tuple[int, int]]:
    """The numbers of a stream's rows that are in no block yet, from the last one back, each with its `previous`."""
    return [tuple(row) for row in connection.execute(_CHAIN, {"last": last, "packed": packed, "most": most})]


def read_rows(
    connection: sqlite3.Connection, stream: int, ids: Sequence[int], names: Names
) -> list[tuple[int, Statement]]:
    """Some rows of a stream in order, each with its number; those that are deleted meanwhile are left out."""
    return [(row[0], read_row(row, names)) for row in rows_of(connection, stream, ids)]


def rows_of(connection: sqlite3.Connection, stream: int, ids: Sequence[int]) -> Iterator[Sequence[Any]]:
    """Some rows of a stream in order, for `read_row`."""
    query = f"{_ROWS} WHERE id IN (SELECT value FROM json_each(?)) AND stream = ? ORDER BY id"
    yield from connection.execute(query, (orjson.dumps(ids).decode(), stream))


def rows_after(connection: sqlite3.Connection, number: int) -> Iterator[Sequence[Any]]:
    """The rows of all streams after one, in order, for `read_row`."""
    yield from connection.execute(f"{_ROWS} WHERE id > ? ORDER BY id", (number,))


def read_row(row: Sequence[Any], names: Names) -> Statement:
    """A row as the message that it is; DamageError where it is none."""
    number, _, time, epoch, seq, delay, full, text = row
    try:
        stated = orjson.loads(text)
        values = dict(zip([names.get(short, short) for short in stated[::2]], stated[1::2], strict=True))
        gone = tuple(name for name, value in values.items() if value is None) if None in stated else ()
        for name in gone:
            del values[name]
        is_whole = type(time) is type(epoch) is type(seq) is type(delay) is type(full) is int
    except (ValueError, TypeError):
        is_whole = False
    if not is_whole:
        raise DamageError(f"row {number} of the table history is no message")
    return Statement(time, epoch, seq, delay, bool(full), values, gone)


def blocks_between(
    connection: sqlite3.Connection, stream: int, tier: Tier, since: int, until: int
) -> Iterator[tuple[int, bytes | None]]:
    """The blocks that begin in a range, in order; None for one that cannot be read."""
    starts = connection.execute(
        "SELECT start FROM blocks WHERE stream = ? AND tier = ? AND start >= ? AND start < ? ORDER BY start",
        (stream, tier, since, until),
    ).fetchall()
    for (start,) in starts:
        try:
            with telling_damage():
                row = connection.execute(
                    "SELECT data FROM blocks WHERE stream = ? AND tier = ? AND start = ?", (stream, tier, start)
                ).fetchone()
        except DamageError:
            row = (None,)
        if row is not None:
            yield start, row[0]
