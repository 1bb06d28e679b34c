"""Messages added to a history from elsewhere, each once, while no aggregator writes."""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from telemetry.errors import StoreError
from telemetry.stores import HistoryRow
from telemetry.stores.backup import unserved
from telemetry.stores.history.reading import History
from telemetry.stores.history.upkeep import FOREVER, Upkeep
from telemetry.stores.history.writing import HistoryWriter
from telemetry.stores.sqlite import SqliteStore, transaction

if TYPE_CHECKING:
    from telemetry.topics import RecordKey

_ROWS_A_BATCH = 20_000
_MOST_UNPACKED = 100_000


class Added(NamedTuple):
    """How many messages were added, and how many were there already."""

    added: int
    known: int


def add_messages(path: Path, messages: Iterable[HistoryRow]) -> Added:
    """Add messages to the history of a database, which is made where there is none.

    What was added before an error stays, and is known when it comes again.
    """
    SqliteStore(path).close()
    added = known = 0
    try:
        with unserved(path), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            writer = HistoryWriter(connection)
            # Lets nothing go: that is the aggregator's, which knows for how long what is kept.
            upkeep = Upkeep(connection, writer, lambda: transaction(connection), FOREVER)
            unpacked = writer.next
            remaining = iter(messages)
            while batch := list(islice(remaining, _ROWS_A_BATCH)):
                new = _new(History(connection), batch)
                with transaction(connection):
                    writer.append(new)
                added, known = added + len(new), known + len(batch) - len(new)
                # Of what is packed only the hours are looked through that a batch is of, of rows all.
                if writer.next - unpacked >= _MOST_UNPACKED:
                    upkeep.pack_since(unpacked)
                    unpacked = writer.next
            upkeep.pack_since(unpacked)
    except sqlite3.Error as error:
        raise StoreError(f"database {path}: {error}") from None
    return Added(added, known)


def _new(history: History, batch: Sequence[HistoryRow]) -> list[HistoryRow]:
    """The messages that are not there yet, each once."""
    times: dict[RecordKey, list[int]] = {}
    for row in batch:
        times.setdefault(row.record, []).append(row.time)
    known = {key: history.positions(key, min(stated), max(stated) + 1) for key, stated in times.items()}
    found = []
    for row in batch:
        place = (row.owner, *row.position)
        if place not in known[row.record]:
            known[row.record].add(place)
            found.append(row)
    return found
