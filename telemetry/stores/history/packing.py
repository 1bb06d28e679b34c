"""Some rows of one stream become part of its blocks, and the summaries of their hours are made anew.

What that computes is done in portions, before anything is written: an hour of a busy sender takes a second in all, a
portion of it some ten milliseconds.

A block that is damaged is never written over: what would go into it goes into another one beside it. Summaries are
made anew only from all messages of which they were made before: where some of those expired or are damaged, the old
summary tells more.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Generic, TypeVar, cast

from telemetry.errors import DamageError
from telemetry.stores.history import HOUR, Change, Statement, Summary, Tier
from telemetry.stores.history.blocks import (
    Messages,
    Summaries,
    Timeline,
    checksum,
    encode_statements,
    encode_summaries,
)
from telemetry.stores.history.rows import blocks_between
from telemetry.stores.history.summaries import combine, merge_changes, merge_summaries, of_all
from telemetry.stores.history.writing import Stream

MOST_ROWS = 400
"""Rows that one piece takes at most."""

_MOST_HOURS = 3
_LARGEST_BLOCK = 2_000

_T = TypeVar("_T")


@dataclass(slots=True)
class _Blocks(Generic[_T]):
    """The blocks of a span of time: those that can be read, by their starts, and the bytes of all."""

    start: int
    opened: dict[int, _T] = field(default_factory=dict)
    data: dict[int, bytes] = field(default_factory=dict)

    @property
    def checksum(self) -> int:
        """Of all messages of the span; 0 when there are none."""
        return checksum(b"".join(self.data.values())) if self.data else 0

    def put(self, place: int, data: bytes, opened: _T) -> None:
        """Have another block at a place, or a new one."""
        self.data[place], self.opened[place] = data, opened

    @property
    def last(self) -> _T | None:
        """The last one that can be read."""
        return next(reversed(self.opened.values()), None)

    def place(self, *, beside: bool = False) -> int:
        """The start of the block to write: over the last one that can be read, or beside all."""
        if self.opened and not beside:
            return next(reversed(self.opened))
        return max([self.start - 1, *self.data]) + 1


class Piece:
    """As many rows of a stream as are packed at once."""

    def __init__(self, connection: sqlite3.Connection, stream: Stream, tell: Callable[[str], None]) -> None:
        self._connection, self._stream, self._tell = connection, stream, tell
        self._hours: dict[int, list[Statement]] = {}
        self._count = self._received = 0
        self._known: dict[tuple[Tier, int], _Blocks[Messages] | _Blocks[Summaries]] = {}
        self._writes: dict[tuple[Tier, int], bytes] = {}

    def take(self, statement: Statement) -> bool:
        """Take a message, whose fields have their short names; False when it is too much for one piece."""
        hour = statement.time // HOUR * HOUR
        if self._count == MOST_ROWS or (hour not in self._hours and self._is_enough()):
            return False
        self._hours.setdefault(hour, []).append(statement)
        self._count += 1
        self._received = max(self._received, statement.time + statement.delay)
        return True

    def _is_enough(self) -> bool:
        """Whether a further hour is better left to the next piece."""
        return len(self._hours) == _MOST_HOURS or self._count >= MOST_ROWS // 3

    def prepare(self, following: int | None) -> Iterator[None]:
        """Make the blocks, in portions; `following` is the time of the stream's next row, which is not packed yet."""
        # What was stated in an hour holds on in the next one.
        touched = sorted({hour + shift for hour in self._hours for shift in (0, HOUR)})
        whole = {hour: self._is_whole(hour) for hour in sorted({one - shift for one in touched for shift in (0, HOUR)})}
        for hour, statements in self._hours.items():
            yield
            self._add(hour, statements)
        for hour in touched:
            yield
            # Until that row is packed, readers make the summaries of its hour and the next one from messages.
            is_waiting = following is not None and hour - HOUR <= following < hour + HOUR
            yield from self._summarize(hour, is_whole=whole[hour], was_whole=whole[hour - HOUR], is_waiting=is_waiting)

    def write(self) -> None:
        """Write what was prepared."""
        self._connection.executemany(
            "INSERT INTO blocks (stream, tier, start, newest, data) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (stream, tier, start) DO UPDATE SET data = excluded.data,"
            " newest = max(newest, excluded.newest)",
            [
                (self._stream.id, tier, start, max(start + tier.span, self._received), data)
                for (tier, start), data in self._writes.items()
            ],
        )

    def _add(self, hour: int, statements: list[Statement]) -> None:
        blocks = self._messages_of(hour)
        is_full = blocks.last is not None and len(blocks.last.times) + len(statements) > _LARGEST_BLOCK
        held = [] if is_full or blocks.last is None else blocks.last.statements()
        data = encode_statements(sorted([*held, *statements], key=lambda one: one[:3]))
        place = blocks.place(beside=is_full)
        self._writes[Tier.MESSAGES, place] = data
        blocks.put(place, data, Messages(data))

    def _summarize(self, hour: int, *, is_whole: bool, was_whole: bool, is_waiting: bool) -> Iterator[None]:
        blocks = self._summaries_of(Tier.FIVE_MINUTES, hour)
        if (is_waiting or not is_whole) if blocks.last is None else not (is_whole and was_whole):
            return
        timelines: dict[str, Timeline] = {}
        for before in self._in_order(hour - HOUR):
            yield
            last = before.timelines(timelines)
            timelines |= {number: timeline[-1:] for number, timeline in last.items() if timeline}
        timelines = {number: timeline for number, timeline in timelines.items() if timeline[-1][1] is not None}
        for messages in self._in_order(hour):
            yield
            for number, timeline in messages.timelines(timelines).items():
                timelines[number] = timelines.get(number, []) + timeline
        summaries: dict[str, list[Summary]] = {}
        changes: dict[str, list[Change]] = {}
        for number, timeline in timelines.items():
            yield
            found = of_all({number: timeline}, hour, hour + HOUR, Tier.FIVE_MINUTES)
            summaries |= found[0]
            changes |= found[1]
        yield
        data = encode_summaries(summaries, changes, source=self._messages_of(hour).checksum)
        self._put(Tier.FIVE_MINUTES, blocks, data)
        yield
        self._merge_into_day(hour, summaries, changes)

    def _in_order(self, hour: int) -> list[Messages]:
        """The messages of an hour in blocks that follow each other: as they are, or in one where some overlap."""
        opened = sorted(self._messages_of(hour).opened.values(), key=lambda one: one.first)
        if all(one.last < following.first for one, following in pairwise(opened)):
            return opened
        statements = sorted((one for part in opened for one in part.statements()), key=lambda one: one[:3])
        return [Messages(encode_statements(statements))]

    def _merge_into_day(
        self, hour: int, summaries: Mapping[str, list[Summary]], changes: Mapping[str, list[Change]]
    ) -> None:
        blocks = self._day_of(hour)
        old, old_changes = (blocks.last.summaries, blocks.last.changes) if blocks.last else ({}, {})
        merged = {
            number: merge_summaries(old.get(number, []), combine(summaries.get(number, []), HOUR), hour, hour + HOUR)
            for number in {**old, **summaries}
        }
        merged_changes = {
            number: merge_changes(old_changes.get(number, []), changes.get(number, []), hour, hour + HOUR)
            for number in {**old_changes, **changes}
        }
        self._put(Tier.HOURS, blocks, encode_summaries(merged, merged_changes))

    def _put(self, tier: Tier, blocks: _Blocks[Summaries], data: bytes) -> None:
        place = blocks.place()
        self._writes[tier, place] = data
        blocks.put(place, data, Summaries(data))

    def _is_whole(self, hour: int) -> bool:
        """Whether the messages of an hour are all those that its summary tells of."""
        summary = self._summaries_of(Tier.FIVE_MINUTES, hour).last
        if summary is not None:
            return summary.source == self._messages_of(hour).checksum
        return bool(self._messages_of(hour).data) or not self._is_in_day(hour)

    def _is_in_day(self, hour: int) -> bool:
        day = self._day_of(hour).last
        return day is not None and (
            any(one.start == hour for rows in day.summaries.values() for one in rows)
            or any(hour <= one.time < hour + HOUR for rows in day.changes.values() for one in rows)
        )

    def _messages_of(self, hour: int) -> _Blocks[Messages]:
        return cast("_Blocks[Messages]", self._look_up(Tier.MESSAGES, hour))

    def _day_of(self, hour: int) -> _Blocks[Summaries]:
        return self._summaries_of(Tier.HOURS, hour // Tier.HOURS.span * Tier.HOURS.span)

    def _summaries_of(self, tier: Tier, start: int) -> _Blocks[Summaries]:
        return cast("_Blocks[Summaries]", self._look_up(tier, start))

    def _look_up(self, tier: Tier, start: int) -> _Blocks[Messages] | _Blocks[Summaries]:
        known = self._known.get((tier, start))
        if known is None:
            known = self._known[tier, start] = (
                self._open(tier, start, Messages) if tier is Tier.MESSAGES else self._open(tier, start, Summaries)
            )
        return known

    def _open(self, tier: Tier, start: int, opened: Callable[[bytes], _T]) -> _Blocks[_T]:
        blocks: _Blocks[_T] = _Blocks(start)
        for at, data in blocks_between(self._connection, self._stream.id, tier, start, start + tier.span):
            blocks.data[at] = data or b""
            try:
                blocks.opened[at] = opened(data or b"")
            except DamageError as error:
                moment = datetime.fromtimestamp(start / 1000, UTC).isoformat(" ", "minutes")
                self._tell(f"history of {self._stream.record}: {tier.title} from {moment}: {error}")
        return blocks
