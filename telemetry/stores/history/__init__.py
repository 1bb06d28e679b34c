"""What happened: every change message, kept three times over with less and less detail.

A message is first a row of the table `history`, appended as it came (`writing`). An hour later the rows of each
stream (what one sender states of one record) become one compressed block an hour (`blocks`), and from it the summaries
of five minutes and of an hour (`summaries`) are made: `upkeep` does that in small steps between the batches. `reading`
reads all of it as one.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from telemetry.fields import Value

HOUR = 3_600_000
"""Milliseconds, as all times here."""


class Tier(IntEnum):
    """A level of detail: its summaries' step in milliseconds; 0 is every message."""

    MESSAGES = 0
    FIVE_MINUTES = 300_000
    HOURS = HOUR

    @property
    def span(self) -> int:
        """Milliseconds that one block of this tier covers, from a multiple of it on."""
        return 24 * HOUR if self is Tier.HOURS else HOUR

    @property
    def title(self) -> str:
        """What a person calls it."""
        return ("messages", "summaries of five minutes", "summaries of an hour")[list(Tier).index(self)]


class Statement(NamedTuple):
    """One change message of a stream: at `time` (Unix ms, by the sender's clock), received `delay` ms later.

    A `full` one states all that its sender knows of the record: what it leaves out is gone. Statements of one stream
    are ordered by time and, at the same millisecond, by their place in the sender's logs.
    """

    time: int
    epoch: int
    seq: int
    delay: int
    full: bool
    values: Mapping[str, Value]
    gone: tuple[str, ...] = ()


class Summary(NamedTuple):
    """A number over a step of time that begins at `start` (Unix ms).

    `mean` is weighted by how long each value held, `last` is what held at the end, `counted` says how often the
    number was stated, `held` for how many milliseconds it was known.
    """

    start: int
    min: float
    mean: float
    max: float
    last: float
    counted: int
    held: int


class Change(NamedTuple):
    """What a field that is no number became, at `time` (Unix ms); None: it is gone."""

    time: int
    value: Value | None
