"""The tables of the history, read: what its upkeep and its readers both do."""

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from telemetry.stores.history import Statement, Tier

_CHAIN = """
WITH RECURSIVE chain (id, previous) AS (
    SELECT id, previous FROM history WHERE id = :last AND id > :packed
    UNION ALL
    SELECT history.id, history.previous FROM chain JOIN history ON history.id = chain.previous
    WHERE chain.previous > :packed
)
SELECT history.id, time, epoch, seq, delay, full, statement
FROM chain JOIN history USING (id) WHERE history.stream = :stream
ORDER BY history.id
"""


def names_of(connection: sqlite3.Connection) -> dict[str, str]:
    """The fields' names by the short ones that stand in blocks."""
    return {str(number): name for number, name in connection.execute("SELECT number, name FROM names")}


def unpacked(
    connection: sqlite3.Connection, stream: int, last: int, packed: int, names: Mapping[str, str]
) -> Iterator[tuple[int, Statement]]:
    """The rows of a stream that are in no block yet, the oldest first, each with its number."""
    found = connection.execute(_CHAIN, {"stream": stream, "last": last, "packed": packed})
    for number, time, epoch, seq, delay, full, text in found:
        yield number, Statement(time, epoch, seq, delay, bool(full), *read_statement(text, names))


def read_statement(text: str, names: Mapping[str, str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The values of a row, and the names of the fields that are gone."""
    stated = orjson.loads(text)
    values = {}
    gone = []
    for number, value in zip(stated[::2], stated[1::2], strict=True):
        name = names.get(str(number), number)
        if value is None:
            gone.append(name)
        else:
            values[name] = value
    return values, tuple(gone)


def block(connection: sqlite3.Connection, stream: int, tier: Tier, start: int) -> bytes | None:
    """One block; None when there is none."""
    row = connection.execute(
        "SELECT data FROM blocks WHERE stream = ? AND tier = ? AND start = ?", (stream, tier, start)
    ).fetchone()
    return None if row is None else row[0]
