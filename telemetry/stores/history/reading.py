"""The history, read: rows and blocks, messages and summaries as one. Works while an aggregator writes."""

import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from telemetry.errors import DamageError
from telemetry.fields import Owner, Value
from telemetry.stores.history import HOUR, Change, Statement, Summary, Tier
from telemetry.stores.history.blocks import Messages, Summaries, Timeline
from telemetry.stores.history.rows import (
    blocks_between,
    names_of,
    read_row,
    rows_between,
    rows_of,
    telling_damage,
    walk,
)
from telemetry.stores.history.summaries import LONGEST_HELD, combine, summarize
from telemetry.stores.reading import open_database
from telemetry.topics import RecordKey


@contextmanager
def open_history(path: Path) -> Iterator["History"]:
    """Open a database's history as it is now, whatever is written meanwhile; errors come as one line."""
    with open_database(path) as connection:
        connection.execute("BEGIN")
        yield History(connection)


_T = TypeVar("_T")

FOR_EVER = 2**62
"""Later than any time."""


class Stated(NamedTuple):
    """A value as it was: who stated it, and when (Unix ms)."""

    value: Value
    owner: Owner
    time: int


class Damage(NamedTuple):
    """What could not be read: of a record, from `since` to before `until` at the most (Unix ms)."""

    record: RecordKey
    tier: Tier
    since: int
    until: int
    reason: str


class _Stream(NamedTuple):
    id: int
    record: RecordKey
    owner: Owner
    last: int
    packed: int


class History:
    """What happened, from a connection for reading.

    Times are Unix milliseconds by the clocks of the hosts; a range is from `since` to before `until`. Nothing known of
    a record gives nothing, not an error. What is damaged is left out of what is read, and stands in `damaged`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.damaged: set[Damage] = set()
        names = names_of(connection)
        # As they stand in rows, and in blocks.
        self._names: dict[int | str, str] = dict(names) | {str(number): name for number, name in names.items()}
        self._numbers = {name: str(number) for number, name in names.items()}

    def records(self) -> list[RecordKey]:
        """The records of which there is any history."""
        rows = self._connection.execute("SELECT DISTINCT minerId, hostName FROM streams ORDER BY minerId, hostName")
        return [RecordKey(*row) for row in rows]

    def statements(self, key: RecordKey, since: int = 0, until: int = FOR_EVER) -> Iterator[tuple[Owner, Statement]]:
        """The messages on a record, in order of time; of the same millisecond, in the order of the sender's log."""
        streams = [_owned(stream.owner, self._statements(stream, since, until)) for stream in self._streams(key)]
        return heapq.merge(*streams, key=lambda one: _order(one[1]))

    def at(self, key: RecordKey, time: int) -> dict[str, Stated]:
        """The record as it was at a time: what was stated last of each field, and not gone since.

        Exact where messages are kept; before that as the summaries tell it.
        """
        found: dict[str, Stated] = {}
        for stream in self._streams(key):
            statements = self._since_full(stream, time)
            if not statements or not statements[0].full:
                # What was stated before messages are kept.
                found |= self._summarized_at(stream, statements[0].time - 1 if statements else time)
            for statement in statements:
                if statement.full:
                    found = {name: one for name, one in found.items() if one.owner is not stream.owner}
                for name in statement.gone:
                    if name in found and found[name].owner is stream.owner:
                        del found[name]
                for name, value in statement.values.items():
                    found[name] = Stated(value, stream.owner, statement.time)
        return found

    def changes(self, key: RecordKey, field: str, since: int, until: int) -> list[Change]:
        """Each statement of a field, and each time it was gone; first what it was before `since`, if known.

        Where messages are not kept any more: what it became in each step of the finest summaries that are.
        """
        held = self.at(key, since - 1).get(field)
        found: list[Change] = []
        for stream in self._streams(key):
            before = held.value if held is not None and held.owner is stream.owner else None
            messages = self._messages_since(stream)
            stated = [Change(since, before)]
            stated += self._summarized_changes(stream, field, since, min(until, messages))
            stated += [Change(*one) for one in self._timeline(stream, field, max(since, messages), until)]
            # A full message that leaves out what was not known says nothing.
            found += [
                one for last, one in pairwise([Change(since, None), *stated]) if (one.value, last.value) != (None, None)
            ]
        return sorted(found, key=lambda one: one.time)

    def summaries(self, key: RecordKey, field: str, since: int, until: int, step: int) -> list[Summary]:
        """What a number did in each step, which begin at multiples of `step` (ms); those where it is unknown are out.

        From the summaries of an hour or five minutes where the step is a multiple of theirs, else from the messages.
        """
        start, end = since // step * step, -(-until // step) * step
        tier = next((tier for tier in reversed(Tier) if tier and step % tier == 0), Tier.MESSAGES)
        found: list[Summary] = []
        for stream in self._streams(key):
            if tier is Tier.MESSAGES:
                timeline = self._timeline(stream, field, start - LONGEST_HELD, end)
                found += summarize(timeline, start, end, step)
            else:
                found += self._summaries(stream, field, start, end, tier)
        return combine(sorted(found), step)

    def kept_since(self, key: RecordKey) -> dict[Tier, int]:
        """From when on each tier holds anything of a record; tiers that hold nothing are left out."""
        kept: dict[Tier, int] = {}
        for stream in self._streams(key):
            for tier in Tier:
                first = self._messages_since(stream) if tier is Tier.MESSAGES else self._first_block(stream, tier)
                if first < FOR_EVER:
                    kept[tier] = min(first, kept.get(tier, FOR_EVER))
        return kept

    # --- streams ---

    def _streams(self, key: RecordKey) -> list[_Stream]:
        rows = self._connection.execute(
            "SELECT id, owner, last, packed FROM streams WHERE minerId = ? AND hostName IS ? ORDER BY id", key
        ).fetchall()
        if not rows:
            return []
        marked = self._connection.execute("SELECT max(last) FROM streams").fetchone()[0]
        newest: dict[int, int] = {}
        try:
            with telling_damage():
                for number, row in self._connection.execute(
                    "SELECT stream, id FROM history WHERE id > ? ORDER BY id DESC", (marked,)
                ):
                    newest.setdefault(number, row)
        except DamageError as error:
            self.damaged.add(Damage(key, Tier.MESSAGES, 0, FOR_EVER, str(error)))
        return [
            _Stream(number, key, Owner(owner), newest.get(number, last), packed) for number, owner, last, packed in rows
        ]

    def _unpacked(self, stream: _Stream) -> list[Statement]:
        """The messages that are in no block yet."""
        found: list[Statement] = []
        try:
            with telling_damage():
                ids = [number for number, _ in walk(self._connection, stream.last, stream.packed, FOR_EVER)]
                found += self._read(stream, rows_of(self._connection, stream.id, ids))
        except DamageError as error:
            self.damaged.add(Damage(stream.record, Tier.MESSAGES, 0, FOR_EVER, str(error)))
            return self._salvaged(stream)
        return found

    def _salvaged(self, stream: _Stream) -> list[Statement]:
        """The messages before and after damaged pages."""
        found: dict[tuple[int, int], Statement] = {}
        for order in ("ASC", "DESC"):
            rows = rows_between(self._connection, stream.id, stream.packed + 1, stream.last, order)
            with suppress(DamageError), telling_damage():
                found |= {statement[1:3]: statement for statement in self._read(stream, rows)}
        return list(found.values())

    def _read(self, stream: _Stream, rows: Iterable[Sequence[Any]]) -> Iterator[Statement]:
        for row in rows:
            try:
                yield read_row(row, self._names)
            except DamageError as error:
                self.damaged.add(Damage(stream.record, Tier.MESSAGES, 0, FOR_EVER, str(error)))

    def _blocks(
        self, stream: _Stream, tier: Tier, since: int, until: int, opened: Callable[[bytes], _T]
    ) -> Iterator[_T]:
        """The blocks that may hold something of a range, in order."""
        for start, data in blocks_between(self._connection, stream.id, tier, since - tier.span + 1, until):
            try:
                yield opened(data or b"")
            except DamageError as error:
                first = start // tier.span * tier.span
                self.damaged.add(Damage(stream.record, tier, first, first + tier.span, str(error)))

    def _first_block(self, stream: _Stream, tier: Tier) -> int:
        found: int | None = self._connection.execute(
            "SELECT min(start) FROM blocks WHERE stream = ? AND tier = ?", (stream.id, tier)
        ).fetchone()[0]
        return FOR_EVER if found is None else found

    def _messages_since(self, stream: _Stream) -> int:
        first = self._first_block(stream, Tier.MESSAGES)
        return min([first, *(statement.time for statement in self._unpacked(stream))])

    # --- messages ---

    def _statements(self, stream: _Stream, since: int, until: int) -> list[Statement]:
        found = self._unpacked(stream)
        for block in self._blocks(stream, Tier.MESSAGES, since, until, Messages):
            found += block.statements(self._names)
        return sorted((one for one in found if since <= one.time < until), key=_order)

    def _timeline(self, stream: _Stream, field: str, since: int, until: int) -> Timeline:
        found = [
            (*_order(one), one.values.get(field))
            for one in self._unpacked(stream)
            if one.full or field in one.values or field in one.gone
        ]
        number = self._numbers.get(field, field)
        for block in self._blocks(stream, Tier.MESSAGES, since, until, Messages):
            found += block.field(number)
        found.sort(key=lambda one: one[:3])
        return [(time, value) for time, _, _, value in found if since <= time < until]

    def _since_full(self, stream: _Stream, time: int) -> list[Statement]:
        """The messages up to and at a time, from the last full one on."""
        found = [statement for statement in self._unpacked(stream) if statement.time <= time]
        starts = self._connection.execute(
            "SELECT start FROM blocks WHERE stream = ? AND tier = ? AND start <= ? ORDER BY start DESC",
            (stream.id, Tier.MESSAGES, time),
        ).fetchall()
        for (start,) in starts:
            if any(statement.full and statement.time >= start + HOUR for statement in found):
                break
            for block in self._blocks(stream, Tier.MESSAGES, start + HOUR - 1, start + 1, Messages):
                found += [one for one in block.statements(self._names) if one.time <= time]
        found.sort(key=_order)
        fulls = [at for at, statement in enumerate(found) if statement.full]
        return found[fulls[-1] :] if fulls else found

    # --- summaries ---

    def _summaries(self, stream: _Stream, field: str, start: int, end: int, tier: Tier) -> list[Summary]:
        """Of hours that are packed from their blocks, of the others from the messages."""
        hours = {one.time // HOUR * HOUR for one in self._unpacked(stream)}
        made = sorted(hour for hour in hours | {hour + HOUR for hour in hours} if start - HOUR < hour < end)
        number = self._numbers.get(field, field)
        found = [
            summary
            for block in self._blocks(stream, tier, start, end, Summaries)
            for summary in block.summaries.get(number, [])
            if start <= summary.start < end and summary.start // HOUR * HOUR not in made
        ]
        if made:
            timeline = self._timeline(stream, field, made[0] - LONGEST_HELD, made[-1] + HOUR)
            for hour in made:
                found += combine(summarize(timeline, hour, hour + HOUR, Tier.FIVE_MINUTES), tier)
        return [one for one in found if start <= one.start < end]

    def _summarized_changes(self, stream: _Stream, field: str, since: int, until: int) -> list[Change]:
        finest = self._first_block(stream, Tier.FIVE_MINUTES)
        number = self._numbers.get(field, field)
        found = []
        for tier, first, end in (
            (Tier.HOURS, since, min(until, finest)),
            (Tier.FIVE_MINUTES, max(since, finest), until),
        ):
            for block in self._blocks(stream, tier, first, end, Summaries):
                found += [Change(one.start + tier - 1, one.last) for one in block.summaries.get(number, [])]
                found += block.changes.get(number, [])
            found = [one for one in found if since <= one.time < end]
        return found

    def _summarized_at(self, stream: _Stream, time: int) -> dict[str, Stated]:
        """What the finest summaries tell of a time of which no messages are kept."""
        for tier in (Tier.FIVE_MINUTES, Tier.HOURS):
            starts = self._connection.execute(
                "SELECT start FROM blocks WHERE stream = ? AND tier = ? AND start <= ? ORDER BY start DESC LIMIT 2",
                (stream.id, tier, time),
            ).fetchall()
            if not starts:
                continue
            found: dict[str, Change] = {}
            # A step is told when it has ended: at the beginning of a block, by the one before it.
            for block in self._blocks(stream, tier, starts[-1][0] + tier.span - 1, starts[0][0] + 1, Summaries):
                for number, rows in block.summaries.items():
                    for one in rows:
                        if one.start + tier <= time + 1:
                            found[number] = Change(one.start + tier - 1, one.last)
                for number, changes in block.changes.items():
                    for change in changes:
                        if change.time <= time:
                            found[number] = change
            return {
                self._names.get(number, number): Stated(one.value, stream.owner, one.time)
                for number, one in found.items()
                if one.value is not None
            }
        return {}


def _order(statement: Statement) -> tuple[int, int, int]:
    return statement.time, statement.epoch, statement.seq


def _owned(owner: Owner, statements: Iterable[Statement]) -> Iterator[tuple[Owner, Statement]]:
    for statement in statements:
        yield owner, statement
