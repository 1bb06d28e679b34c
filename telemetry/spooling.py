"""What a spool is: an agent's messages from before they are published until they are acknowledged.

`MemorySpool` is one for those who have no disk, or whose disk is full; it is bounded as every spool.
"""

import bisect
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

MOST_ROWS, MOST_BYTES = 50, 32_768
"""Of a batch; its first row may be larger."""


class Row(NamedTuple):
    """A message: its place in a log, its topic, and its text without the log's name (see `wire.with_epoch`)."""

    epoch: int
    seq: int
    topic: str
    kept: bytes

    @property
    def size(self) -> int:
        """Bytes that it takes up, roughly."""
        return len(self.kept) + len(self.topic) + 32


class Spool(Protocol):
    """Rows in the order of their numbers, which grow over all logs of an agent; `epoch` is the present log."""

    @property
    def epoch(self) -> int:
        """The present log."""

    @property
    def next(self) -> int:
        """The number of the next message."""

    @property
    def lost(self) -> int:
        """How many messages had to go before they were acknowledged."""

    def begin(self, epoch: int) -> None:
        """Go on in a new log."""

    def append(self, rows: Sequence[Row]) -> bool:
        """Keep rows, all or none. False where they are not kept: then the log cannot go on, and a new one must begin.

        The oldest rows go where there is no room.
        """

    def delete(self, epoch: int, through: int) -> None:
        """Let the rows of a log go, up to a number."""

    def epochs(self) -> Sequence[int]:
        """The logs of which there are rows."""

    def oldest(self, epoch: int) -> int | None:
        """The lowest number of a log's rows; None when there are none."""

    def read(self, after: int, below: int) -> list[Row]:
        """The first rows in a range of numbers, of one log, as many as make a batch."""


class MemorySpool:
    """A spool that ends with its process."""

    def __init__(self, epoch: int, *, after: int = 1, most_bytes: int = 64 << 20) -> None:
        self.epoch, self.next, self.lost = epoch, after, 0
        self._most = most_bytes
        self.size = 0
        self.rows: list[Row] = []

    def begin(self, epoch: int) -> None:
        """Go on in a new log."""
        self.epoch = epoch

    def append(self, rows: Sequence[Row]) -> bool:
        """Keep rows; always true."""
        self.rows += rows
        self.size += sum(row.size for row in rows)
        self.next = rows[-1].seq + 1
        self._make_room()
        return True

    def delete(self, epoch: int, through: int) -> None:
        """Let the rows of a log go, up to a number."""
        self._keep([row for row in self.rows if row.epoch != epoch or row.seq > through])

    def epochs(self) -> Sequence[int]:
        """The logs of which there are rows."""
        return list(dict.fromkeys(row.epoch for row in self.rows))

    def oldest(self, epoch: int) -> int | None:
        """The lowest number of a log's rows."""
        return next((row.seq for row in self.rows if row.epoch == epoch), None)

    def read(self, after: int, below: int) -> list[Row]:
        """The first rows in a range of numbers, of one log, as many as make a batch."""
        start = bisect.bisect_right(self.rows, after, key=lambda row: row.seq)
        return batch_of([row for row in self.rows[start : start + MOST_ROWS] if row.seq < below])

    def _make_room(self) -> None:
        dropped = 0
        while self.size > self._most and dropped < len(self.rows) - 1:
            self.size -= self.rows[dropped].size
            dropped += 1
        if dropped:
            self.lost += dropped
            del self.rows[:dropped]

    def _keep(self, rows: list[Row]) -> None:
        self.rows = rows
        self.size = sum(row.size for row in rows)


def batch_of(rows: Iterable[Row]) -> list[Row]:
    """As many of the first rows as are of one log and not too large together."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        size += row.size
        if batch and (size > MOST_BYTES or row.epoch != batch[0].epoch or len(batch) == MOST_ROWS):
            break
        batch.append(row)
    return batch
