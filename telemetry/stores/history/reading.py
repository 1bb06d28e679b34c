"""The history, read: rows and blocks, messages and summaries as one. Works while an aggregator writes."""

import heapq
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from telemetry.errors import DamageError
from telemetry.fields import Owner, Value
from telemetry.stores.history import HOUR, Change, Statement, Summary, Tier
from telemetry.stores.history.blocks import Messages, Summaries, Timeline
from telemetry.stores.history.rows import (
    ROW,
    blocks_between,
    names_of,
    read_row,
    rows_of,
    telling_damage,
    walk,
)
from telemetry.stores.history.salvage import salvage
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
    """What could not be read: of a record (None: of any), from `since` to before `until` at the most (Unix ms)."""

    record: RecordKey | None
    tier: Tier
    since: int
    until: int
    reason: str


_Statement = tuple[int, int, int, Any]
"""When (time, epoch, seq) a field was stated, and what it was; None: it was gone."""

_NEVER: _Statement = (-1, 0, 0, None)


class _Stream(NamedTuple):
    id: int
    record: RecordKey
    owner: Owner
    last: int
    packed: int


class History:
    """What happened, from a connection for reading, in a transaction: it is asked as of one moment.

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
        self._rows: dict[int, list[Statement]] = {}

    def records(self) -> list[RecordKey]:
        """The records of which there is any history."""
        rows = self._connection.execute("SELECT DISTINCT minerId, hostName FROM streams ORDER BY minerId, hostName")
        return [RecordKey(*row) for row in rows]

    def fields(self) -> list[str]:
        """The names of all fields that were ever stated."""
        return list(self._numbers)

    def statements(self, key: RecordKey, since: int = 0, until: int = FOR_EVER) -> Iterator[tuple[Owner, Statement]]:
        """The messages on a record, in order of time; of the same millisecond, in the order of the sender's log."""
        streams = [_owned(stream.owner, self._statements(stream, since, until)) for stream in self._streams(key)]
        return heapq.merge(*streams, key=lambda one: _order(one[1]))

    def positions(self, key: RecordKey, since: int, until: int) -> set[tuple[Owner, int, int]]:
        """Whose messages on a record there are, and at which positions; some beyond the range are among them."""
        found: set[tuple[Owner, int, int]] = set()
        for stream in self._streams(key):
            found.update((stream.owner, one.epoch, one.seq) for one in self._unpacked(stream))
            for block in self._blocks(stream, Tier.MESSAGES, since, until, Messages):
                found.update((stream.owner, *position) for position in zip(block.epochs, block.seqs, strict=True))
        return found

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
        return self.changes_of(key, (field,), since, until)[field]

    def changes_of(self, key: RecordKey, fields: Sequence[str], since: int, until: int) -> dict[str, list[Change]]:
        """The changes of several fields: each block is opened once."""
        found: dict[str, list[Change]] = {field: [] for field in fields}
        for stream in self._streams(key):
            before = self._held(stream, fields, since - 1)
            messages = self._messages_since(stream)
            summarized = self._summarized_changes(stream, fields, since, min(until, messages))
            timelines = self._timelines(stream, fields, max(since, messages), until)
            for field in fields:
                stated = [Change(since, before.get(field)), *summarized[field]]
                stated += [Change(*one) for one in timelines[field]]
                # A full message that leaves out what was not known says nothing.
                found[field] += [
                    one
                    for last, one in pairwise([Change(since, None), *stated])
                    if (one.value, last.value) != (None, None)
                ]
        return {field: sorted(changes, key=lambda one: one.time) for field, changes in found.items()}

    def summaries(self, key: RecordKey, field: str, since: int, until: int, step: int) -> list[Summary]:
        """What a number did in each step, which begin at multiples of `step` (ms); those where it is unknown are out.

        From the summaries of an hour or five minutes where the step is a multiple of theirs, else from the messages.
        """
        return self.summaries_of(key, (field,), since, until, step)[field]

    def summaries_of(
        self, key: RecordKey, fields: Sequence[str], since: int, until: int, step: int
    ) -> dict[str, list[Summary]]:
        """The summaries of several numbers: each block is opened once."""
        start, end = since // step * step, -(-until // step) * step
        tier = next((tier for tier in reversed(Tier) if tier and step % tier == 0), Tier.MESSAGES)
        found: dict[str, list[Summary]] = {field: [] for field in fields}
        for stream in self._streams(key):
            if tier is Tier.MESSAGES:
                timelines = self._timelines(stream, fields, start - LONGEST_HELD, end)
                rows = {field: summarize(timelines[field], start, end, step) for field in fields}
            else:
                rows = self._summaries(stream, fields, start, end, tier)
            for field in fields:
                found[field] += rows[field]
        return {field: combine(sorted(summaries), step) for field, summaries in found.items()}

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
        found = [_Stream(number, key, Owner(owner), last, packed) for number, owner, last, packed in rows]
        return [stream._replace(last=self._newest.get(stream.id, stream.last)) for stream in found]

    @cached_property
    def _newest(self) -> dict[int, int]:
        """The last rows of the streams that have one after all that are marked."""
        marked = self._connection.execute("SELECT max(last) FROM streams").fetchone()[0] or 0
        query = "SELECT stream, id FROM history WHERE id > ? ORDER BY id"
        try:
            with telling_damage():
                return dict(map(tuple, self._connection.execute(query, (marked,))))
        except DamageError as error:
            self.damaged.add(Damage(None, Tier.MESSAGES, 0, FOR_EVER, str(error)))
        return {row["stream"]: row["id"] for row in salvage(self._connection, "history", [], marked + 1)}

    def _unpacked(self, stream: _Stream) -> list[Statement]:
        """The messages that are in no block yet."""
        # Asked for several times by one question, and of the same record by the next.
        if stream.id not in self._rows:
            if len(self._rows) > len(Owner):
                self._rows.clear()
            self._rows[stream.id] = self._read_unpacked(stream)
        return self._rows[stream.id]

    def _read_unpacked(self, stream: _Stream) -> list[Statement]:
        try:
            with telling_damage():
                ids = [number for number, _ in walk(self._connection, stream.last, stream.packed, FOR_EVER)]
                return list(self._read(stream, rows_of(self._connection, stream.id, ids)))
        except DamageError as error:
            self.damaged.add(Damage(stream.record, Tier.MESSAGES, 0, FOR_EVER, str(error)))
            return self._salvaged(stream)

    def _salvaged(self, stream: _Stream) -> list[Statement]:
        """The messages before and after damaged pages."""
        rows = salvage(self._connection, "history", [], stream.packed + 1)
        return list(self._read(stream, ([row[name] for name in ROW] for row in rows if row["stream"] == stream.id)))

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

    def _statements(self, stream: _Stream, since: int, until: int) -> Iterator[Statement]:
        """The messages of a range in order; no more than an hour's of those that are packed are held at a time."""
        rows = sorted((one for one in self._unpacked(stream) if since <= one.time < until), key=_order)
        done = 0
        for start in self._starts(stream, since - HOUR, until):
            through = bisect_left(rows, start + HOUR, done, key=lambda one: one.time)
            packed = (one for block in self._hour(stream, start) for one in block.statements(self._names))
            within = sorted((one for one in packed if since <= one.time < until), key=_order)
            yield from heapq.merge(rows[done:through], within, key=_order)
            done = through
        yield from rows[done:]

    def _starts(self, stream: _Stream, after: int, before: int) -> list[int]:
        """The hours after one and before a time of which there are messages in blocks, in order."""
        rows = self._connection.execute(
            "SELECT DISTINCT start / ? * ? FROM blocks WHERE stream = ? AND tier = ? AND start > ? AND start < ?"
            " ORDER BY start", (HOUR, HOUR, stream.id, Tier.MESSAGES, after, before),
        )  # fmt: skip
        return [start for (start,) in rows]

    def _hour(self, stream: _Stream, start: int) -> Iterator[Messages]:
        """The messages of an hour that are packed."""
        return self._blocks(stream, Tier.MESSAGES, start + HOUR - 1, start + HOUR, Messages)

    def _timelines(self, stream: _Stream, fields: Sequence[str], since: int, until: int) -> dict[str, Timeline]:
        found = self._unpacked_fields(stream, fields)
        for block in self._blocks(stream, Tier.MESSAGES, since, until, Messages):
            for field in fields:
                found[field] += block.field(self._numbers.get(field, field))
        return {
            field: [(time, value) for time, _, _, value in sorted(stated, key=_place) if since <= time < until]
            for field, stated in found.items()
        }

    def _unpacked_fields(self, stream: _Stream, fields: Sequence[str]) -> dict[str, list[_Statement]]:
        return {
            field: [
                (*_order(one), one.values.get(field))
                for one in self._unpacked(stream)
                if one.full or field in one.values or field in one.gone
            ]
            for field in fields
        }

    def _held(self, stream: _Stream, fields: Sequence[str], time: int) -> dict[str, Value]:
        """What fields were at a time: from no more blocks than it takes."""
        last: dict[str, _Statement] = {}

        def take(field: str, stated: Iterable[_Statement]) -> None:
            until = [one for one in stated if one[0] <= time]
            if until or field in last:
                last[field] = max(*until, last.get(field, _NEVER), _NEVER, key=_place)

        for field, stated in self._unpacked_fields(stream, fields).items():
            take(field, stated)
        for start in reversed(self._starts(stream, -HOUR, time + 1)):
            wanted = [field for field in fields if last.get(field, _NEVER)[0] < start + HOUR]
            if not wanted:
                break
            for block in self._hour(stream, start):
                for field in wanted:
                    take(field, block.field(self._numbers.get(field, field)))
        if len(last) < len(fields):
            # What was stated before messages are kept.
            before = self._summarized_at(stream, time)
            held = {field: before[field].value for field in fields if field in before and field not in last}
        else:
            held = {}
        return held | {field: value for field, (_, _, _, value) in last.items() if value is not None}

    def _since_full(self, stream: _Stream, time: int) -> list[Statement]:
        """The messages up to and at a time, from the last full one on."""
        found = [statement for statement in self._unpacked(stream) if statement.time <= time]
        for start in reversed(self._starts(stream, -HOUR, time + 1)):
            if any(statement.full and statement.time >= start + HOUR for statement in found):
                break
            for block in self._hour(stream, start):
                found += [one for one in block.statements(self._names) if one.time <= time]
        found.sort(key=_order)
        fulls = [at for at, statement in enumerate(found) if statement.full]
        return found[fulls[-1] :] if fulls else found

    # --- summaries ---

    def _summaries(
        self, stream: _Stream, fields: Sequence[str], start: int, end: int, tier: Tier
    ) -> dict[str, list[Summary]]:
        """Of hours that are packed from their blocks, of the others from the messages."""
        hours = {one.time // HOUR * HOUR for one in self._unpacked(stream)}
        made = sorted(hour for hour in hours | {hour + HOUR for hour in hours} if start - HOUR < hour < end)
        found: dict[str, list[Summary]] = {field: [] for field in fields}
        for block in self._blocks(stream, tier, start, end, Summaries):
            for field in fields:
                rows = block.summaries.get(self._numbers.get(field, field), [])
                found[field] += [one for one in rows if one.start // HOUR * HOUR not in made]
        if made:
            timelines = self._timelines(stream, fields, made[0] - LONGEST_HELD, made[-1] + HOUR)
            for field in fields:
                for hour in made:
                    steps = summarize(timelines[field], hour, hour + HOUR, Tier.FIVE_MINUTES)
                    found[field] += combine(steps, tier)
        return {field: [one for one in rows if start <= one.start < end] for field, rows in found.items()}

    def _summarized_changes(
        self, stream: _Stream, fields: Sequence[str], since: int, until: int
    ) -> dict[str, list[Change]]:
        finest = self._first_block(stream, Tier.FIVE_MINUTES)
        found: dict[str, list[Change]] = {field: [] for field in fields}
        for tier, first, end in (
            (Tier.HOURS, since, min(until, finest)),
            (Tier.FIVE_MINUTES, max(since, finest), until),
        ):
            for block in self._blocks(stream, tier, first, end, Summaries):
                for field in fields:
                    number = self._numbers.get(field, field)
                    became = [Change(one.start + tier - 1, one.last) for one in block.summaries.get(number, [])]
                    became += block.changes.get(number, [])
                    found[field] += [one for one in became if first <= one.time < end]
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


def _place(stated: _Statement) -> tuple[int, int, int]:
    return stated[:3]


def _owned(owner: Owner, statements: Iterable[Statement]) -> Iterator[tuple[Owner, Statement]]:
    for statement in statements:
        yield owner, statement
