"""What turns rows into blocks and blocks into summaries, and lets the oldest go: in steps of some milliseconds.

Each step is one transaction, and what is left to do is seen in the database: it may be interrupted at any point.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from telemetry.stores.history import HOUR, Change, Statement, Summary, Tier
from telemetry.stores.history.blocks import decode_statements, decode_summaries, encode_statements, encode_summaries
from telemetry.stores.history.rows import block, unpacked
from telemetry.stores.history.summaries import combine, merge_changes, merge_summaries, of_all
from telemetry.stores.history.writing import HistoryWriter

_log = logging.getLogger(__name__)

PACKED_AFTER = HOUR
"""Milliseconds for which messages stay rows: an hour's are packed when it ended so long ago."""

_STRAGGLERS = 60_000
_SECONDS_A_STEP = 0.01
_ROWS_A_STEP = 10_000
_BLOCKS_A_STEP = 50
_EVENTS_A_STEP = 1_000
_PAUSE = 60_000

Transaction = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long what is kept, in seconds, by tier (events: as the summaries of an hour), and how many bytes at most."""

    messages: float
    five_minutes: float
    hours: float
    bytes: int

    def horizon(self, tier: Tier, now: int) -> int:
        """What a tier holds of before this time may go, Unix ms."""
        kept = {Tier.MESSAGES: self.messages, Tier.FIVE_MINUTES: self.five_minutes, Tier.HOURS: self.hours}
        return now - int(kept[tier] * 1000)


FOREVER = Retention(messages=1e9, five_minutes=1e9, hours=1e9, bytes=1 << 62)


class Upkeep:
    """The upkeep of one database, by its writer."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        writer: HistoryWriter,
        transaction: Transaction,
        retention: Retention,
        *,
        packed_after: int = PACKED_AFTER,
    ) -> None:
        self._connection, self._writer, self._transaction = connection, writer, transaction
        self._retention, self._packed_after = retention, packed_after
        self._steps: Iterator[None] | None = None
        self._due = 0
        self._is_told = False

    def step(self, now: int) -> bool:
        """Do one step of what is to be done at `now` (Unix ms); False when nothing is, for the next minute."""
        if self._steps is None:
            if self._due - _PAUSE <= now < self._due:
                return False
            self._steps = self._round(now)
        try:
            next(self._steps)
        except StopIteration:
            self._steps, self._due = None, now + _PAUSE
            return False
        except BaseException:
            # What was found may be wrong after an error: begin anew.
            self._steps = None
            raise
        return True

    def _round(self, now: int) -> Iterator[None]:
        yield from self._pack(now)
        yield from self._delete_packed()
        for tier in Tier:
            yield from self._expire(tier, self._retention.horizon(tier, now))
        yield from self._expire_events(self._retention.horizon(Tier.HOURS, now))
        yield from self._fit()
        yield from self._forget_empty()

    # --- rows to blocks ---

    def _pack(self, now: int) -> Iterator[None]:
        """Pack what was received before an hour began, and what came in its first minute of the time before."""
        cutoff = (now - self._packed_after) // HOUR * HOUR
        through = self._last_received(cutoff)
        if through is None:
            return
        with self._transaction():
            self._writer.mark()
            self._connection.execute(
                "UPDATE streams SET packed = :through WHERE last <= packed AND packed < :through", {"through": through}
            )
        waiting = self._connection.execute("SELECT id FROM streams WHERE packed < ? ORDER BY id DESC", (through,))
        streams = [stream for (stream,) in waiting]
        names = {str(number): name for name, number in self._writer.numbers.items()}
        while streams:
            yield
            end = time.monotonic() + _SECONDS_A_STEP
            with self._transaction():
                while streams and time.monotonic() < end:
                    self._pack_stream(streams.pop(), through, cutoff, names)

    def _last_received(self, cutoff: int) -> int | None:
        """The last row received up to a minute after a time; None when none is older than the time."""
        first = self._connection.execute("SELECT id, time + delay FROM history ORDER BY id LIMIT 1").fetchone()
        if first is None or first[1] >= cutoff:
            return None
        low, high = first[0], self._writer.next - 1
        while low < high:
            # Rows come in the order of their receipt, but for a clock that is set.
            middle = (low + high + 1) // 2
            row = self._connection.execute(
                "SELECT id, time + delay FROM history WHERE id >= ? ORDER BY id LIMIT 1", (middle,)
            ).fetchone()
            if row is not None and row[1] < cutoff + _STRAGGLERS:
                low = max(middle, row[0])
            else:
                high = middle - 1
        return int(low)

    def _pack_stream(self, stream: int, through: int, cutoff: int, names: Mapping[str, str]) -> None:
        found = self._connection.execute("SELECT last, packed FROM streams WHERE id = ?", (stream,)).fetchone()
        if found is None:
            return
        hours: dict[int, list[Statement]] = {}
        for number, statement in unpacked(self._connection, stream, found[0], found[1], names):
            if number > through:
                break
            if statement.time >= cutoff and statement.time + statement.delay >= cutoff:
                through = number - 1
                break
            hours.setdefault(statement.time // HOUR * HOUR, []).append(statement)
        for hour, statements in hours.items():
            self._write_messages(stream, hour, statements, names)
        for hour in sorted({*hours, *(hour + HOUR for hour in hours)}):
            self._summarize(stream, hour, names)
        self._connection.execute("UPDATE streams SET packed = ? WHERE id = ?", (through, stream))

    def _write_messages(self, stream: int, hour: int, statements: list[Statement], names: Mapping[str, str]) -> None:
        held = self._messages(stream, hour, names)
        data = encode_statements(sorted([*held, *statements], key=lambda one: one[:3]), self._writer.numbers)
        self._write(stream, Tier.MESSAGES, hour, data)

    def _messages(self, stream: int, hour: int, names: Mapping[str, str]) -> list[Statement]:
        data = block(self._connection, stream, Tier.MESSAGES, hour)
        return [] if data is None else decode_statements(data, names)

    def _summarize(self, stream: int, hour: int, names: Mapping[str, str]) -> None:
        """Make the summaries of an hour from its messages and those of the hour before, which held on."""
        statements = self._messages(stream, hour - HOUR, names) + self._messages(stream, hour, names)
        numbers = self._writer.numbers
        found, changed = of_all(statements, hour, hour + HOUR, Tier.FIVE_MINUTES)
        summaries = {str(numbers.get(name, name)): rows for name, rows in found.items()}
        changes = {str(numbers.get(name, name)): rows for name, rows in changed.items()}
        self._write(stream, Tier.FIVE_MINUTES, hour, encode_summaries(summaries, changes))
        self._merge_into_day(stream, hour, summaries, changes)

    def _merge_into_day(
        self, stream: int, hour: int, summaries: Mapping[str, list[Summary]], changes: Mapping[str, list[Change]]
    ) -> None:
        day = hour // Tier.HOURS.span * Tier.HOURS.span
        data = block(self._connection, stream, Tier.HOURS, day)
        old_summaries, old_changes = ({}, {}) if data is None else decode_summaries(data)
        merged = {
            number: merge_summaries(
                old_summaries.get(number, []), combine(summaries.get(number, []), HOUR), hour, hour + HOUR
            )
            for number in {**old_summaries, **summaries}
        }
        merged_changes = {
            number: merge_changes(old_changes.get(number, []), changes.get(number, []), hour, hour + HOUR)
            for number in {**old_changes, **changes}
        }
        self._write(stream, Tier.HOURS, day, encode_summaries(merged, merged_changes))

    def _write(self, stream: int, tier: Tier, start: int, data: bytes) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO blocks (stream, tier, start, data) VALUES (?, ?, ?, ?)", (stream, tier, start, data)
        )

    # --- what goes ---

    def _delete_packed(self) -> Iterator[None]:
        """Delete the rows that are in blocks, from the oldest on."""
        through = self._connection.execute("SELECT min(packed) FROM streams").fetchone()[0] or 0
        query = "SELECT max(id) FROM (SELECT id FROM history WHERE id <= ? ORDER BY id LIMIT ?)"
        while (some := self._connection.execute(query, (through, _ROWS_A_STEP)).fetchone()[0]) is not None:
            yield
            with self._transaction():
                self._connection.execute("DELETE FROM history WHERE id <= ?", (some,))

    def _expire(self, tier: Tier, horizon: int) -> Iterator[None]:
        while self._oldest(tier, horizon - tier.span):
            yield
            self._delete_oldest(tier, horizon - tier.span)

    def _oldest(self, tier: Tier, horizon: int, most: int = 1) -> list[tuple[int]]:
        return self._connection.execute(
            "SELECT id FROM blocks WHERE tier = ? AND start < ? ORDER BY start LIMIT ?", (tier, horizon, most)
        ).fetchall()

    def _delete_oldest(self, tier: Tier, horizon: int) -> None:
        with self._transaction():
            self._connection.executemany("DELETE FROM blocks WHERE id = ?", self._oldest(tier, horizon, _BLOCKS_A_STEP))

    def _expire_events(self, horizon: int) -> Iterator[None]:
        while (oldest := self._connection.execute("SELECT id, time FROM events ORDER BY id LIMIT 1").fetchone()) and (
            oldest[1] < horizon
        ):
            yield
            with self._transaction():
                self._connection.execute(
                    "DELETE FROM events WHERE id < ? AND time < ?", (oldest[0] + _EVENTS_A_STEP, horizon)
                )

    def _fit(self) -> Iterator[None]:
        """Let the oldest blocks go while the database holds more bytes than it may: messages first."""
        for tier in Tier:
            while self._bytes_held() > self._retention.bytes and self._oldest(tier, 2**62):
                if not self._is_told:
                    _log.warning("database: holds more than history.bytes; the oldest history goes before its time")
                    self._is_told = True
                yield
                self._delete_oldest(tier, 2**62)

    def _bytes_held(self) -> int:
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        held: int = (pages - free) * size
        return held

    def _forget_empty(self) -> Iterator[None]:
        """Delete streams of which nothing is left."""
        yield
        with self._transaction():
            self._writer.mark()
            empty = self._connection.execute(
                "DELETE FROM streams WHERE last <= packed"
                " AND NOT EXISTS (SELECT 1 FROM blocks WHERE stream = streams.id) RETURNING id"
            ).fetchall()
        self._writer.forget(number for (number,) in empty)
