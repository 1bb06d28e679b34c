"""What an agent states of a record, and the numbers of the messages in which it does. No I/O, no clock."""

from collections.abc import Iterable, Mapping

from telemetry.fields import Deadband, Field, Value
from telemetry.flagged import FlaggedValues
from telemetry.topics import RecordKey
from telemetry.wire import Change, Position


class Numbering:
    """Numbers the messages of an agent: one sequence over all its topics."""

    def __init__(self, epoch: int, after: int = 1) -> None:
        self.epoch, self.next = epoch, after
        self._last: dict[str, int] = {}

    def change(
        self,
        topic: str,
        *,
        time: int,
        values: Mapping[str, Value],
        gone: tuple[str, ...] = (),
        full: bool = False,
        first: bool = False,
    ) -> Change:
        """The next message of the log, for `topic`. Without values and gone names it is a heartbeat."""
        prev = None if full else self._last.get(topic, 0)
        seq = self.take(topic)
        return Change(
            epoch=self.epoch, seq=seq, time=time, prev=prev, full=full, first=first, values=dict(values), gone=gone
        )

    def take(self, topic: str) -> int:
        """The next number, for a message of `topic`."""
        seq, self.next = self.next, self.next + 1
        self._last[topic] = seq
        return seq

    def outranked_by(self, position: Position) -> bool:
        """Whether an aggregator knows a log of this agent that is ahead of this one: then a new one has to begin."""
        return position.epoch > self.epoch or (position.epoch == self.epoch and position.seq >= self.next)


class Report:
    """The part of a record that an agent states: its values, flagged where they have to be sent.

    `is_known` once it was sampled: before that nothing is published of it. `has_ended` when there is no such record
    any more: one last report says so. Times are seconds of the monotonic clock, but `time`, Unix milliseconds.
    """

    def __init__(
        self, record: RecordKey, topic: str, fields: Mapping[str, Field], deadbands: Mapping[str, Deadband]
    ) -> None:
        self.record, self.topic = record, topic
        self.values = FlaggedValues(fields, deadbands)
        self.time = 0
        self.is_known = self.has_ended = self.was_full = False
        self.pushed = self.full_due = float("-inf")

    def update(self, values: Mapping[str, Value], names: Iterable[str], time: int) -> None:
        """Take in what was read of the fields `names`; what has no value cannot be read."""
        self.values.update(values)
        self.values.lose(name for name in names if name not in values)
        self.time, self.is_known, self.has_ended = time, True, False

    def end(self, names: Iterable[str], time: int) -> None:
        """Take in that there is no such record any more."""
        self.update({}, names, time)
        self.has_ended, self.full_due = True, float("-inf")
