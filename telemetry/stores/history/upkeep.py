"""What turns rows into blocks and blocks into summaries, and lets the oldest go: in steps of some milliseconds.

Each step is one transaction, and what is left to do is seen in the database: it may be interrupted at any point. What
is damaged is told once, left as it is, and holds up nothing else.
"""

import logging
import sqlite3
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain

from telemetry.config import Retention
from telemetry.errors import DamageError, TelemetryError
from telemetry.stores.history import HOUR, Statement, Tier
from telemetry.stores.history.horizon import Horizon
from telemetry.stores.history.packing import MOST_ROWS, Piece
from telemetry.stores.history.rows import SAVE, read_rows, telling_damage, walk
from telemetry.stores.history.writing import HistoryWriter, Stream

_log = logging.getLogger(__name__)

PACKED_AFTER = HOUR
"""Milliseconds for which messages stay rows: an hour's are packed when it ended so long ago."""

_STRAGGLERS = 60_000
_PAUSE = 60_000
_SECONDS_A_STEP = 0.01
_LINKS_A_PIECE = 2_000
_ROWS_A_STEP = 5_000
_BLOCKS_A_STEP = 50
_STREAMS_A_STEP = 1_000
_EVENTS_A_STEP = 1_000
_MOST_TOLD = 10
_LAST = 2**62

Transaction = Callable[[], AbstractContextManager[None]]


FOREVER = Retention(messages=1e9, five_minutes=1e9, hours=1e9, bytes=1 << 62)


def _seconds(retention: Retention, tier: Tier) -> float:
    """For how long what a tier holds is kept."""
    kept = {Tier.MESSAGES: retention.messages, Tier.FIVE_MINUTES: retention.five_minutes, Tier.HOURS: retention.hours}
    return kept[tier]


@dataclass(frozen=True, slots=True)
class _Age:
    """What is old enough to be packed, by a clock that may have been set meanwhile."""

    cutoff: int
    now: int

    def is_old(self, received: int) -> bool:
        """Whether it was received before the cutoff; what comes from the future was stamped by a wrong clock."""
        return received < self.cutoff or received > self.now + _STRAGGLERS

    def is_recent(self, statement: Statement) -> bool:
        return statement.time >= self.cutoff and not self.is_old(statement.time + statement.delay)


class _BrokenError(Exception):
    """A stream that cannot be packed."""

    def __init__(self, stream: Stream, reason: str) -> None:
        super().__init__(reason)
        self.stream = stream


class Upkeep:
    """The upkeep of one database, by its writer; `transaction` begins one of its own."""

    def __init__(
        self, connection: sqlite3.Connection, writer: HistoryWriter, transaction: Transaction, retention: Retention
    ) -> None:
        self._connection, self._writer, self._transaction = connection, writer, transaction
        self._retention = retention
        self._horizon = Horizon(connection, int(1000 * min(_seconds(retention, tier) for tier in Tier)))
        self._steps: Iterator[None] | None = None
        self._due = self._learned = 0
        self._trouble = ""
        self._told: set[str] = set()
        self._is_full_told = False
        self._broken: set[int] = set()
        self._stuck: set[int] = set()
        self._blocks_a_step = _BLOCKS_A_STEP

    def step(self, now: int) -> bool:
        """Do one step of what is to be done at `now` (Unix ms); False when nothing is, for the next minute."""
        if self._steps is None and self._due - _PAUSE <= now < self._due:
            return False
        try:
            self._writer.be_sure()
            if self._steps is None or self._learned != self._writer.learned:
                self._steps, self._learned = self._round(now), self._writer.learned
            next(self._steps)
        except StopIteration:
            self._trouble = ""
        except (TelemetryError, sqlite3.Error) as error:
            # A full disk, or a lock: what was found may be wrong afterwards, so it begins anew.
            if str(error) != self._trouble:
                self._trouble = str(error)
                _log.error("history: %s; it is packed when that is mended", error)
        else:
            return True
        self._steps, self._due = None, now + _PAUSE
        return False

    def _round(self, now: int) -> Iterator[None]:
        with self._transaction():
            time = self._horizon.look(now)
        expiring = (self._expire(tier, time - int(1000 * _seconds(self._retention, tier))) for tier in Tier)
        events = self._expire_events(time - int(1000 * self._retention.hours))
        # What makes room comes first: packing needs some.
        before = (self._delete_packed(), *expiring, events, self._fit())
        for phase in (*before, self._pack(now), self._delete_packed(), self._forget_empty()):
            try:
                with telling_damage():
                    yield from phase
            except DamageError as error:
                self._tell(f"history: {error}")

    def _tell(self, text: str) -> None:
        """Say once what is damaged."""
        if text not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(text)
            more = "; more is not told" if len(self._told) == _MOST_TOLD else ""
            _log.error("%s; it stays as it is: %s%s", text, SAVE, more)

    # --- rows to blocks ---

    def pack_since(self, first: int) -> None:
        """Pack at once, however new they are, all rows of the streams that have one from a number on."""
        self._writer.be_sure()
        age = _Age(_LAST, _LAST)
        waiting = [stream for stream in self._writer.streams if stream.last >= first]
        pieces = (self._pack_stream(stream, stream.last, age) for stream in waiting)
        try:
            for _ in self._in_steps(chain.from_iterable(pieces)):
                pass
        except _BrokenError as error:
            raise DamageError(f"history of {error.stream.record}: {error}; {SAVE}") from None

    def _pack(self, now: int) -> Iterator[None]:
        """Pack what was received before an hour began, and what came in its first minute of the time before."""
        age = _Age((now - PACKED_AFTER) // HOUR * HOUR, now)
        through = self._last_received(age)
        while through is not None:
            waiting = [
                stream
                for stream in self._writer.streams
                if stream.packed < min(stream.last, through) and stream.id not in self._broken
            ]
            try:
                yield from self._in_steps(
                    chain.from_iterable(self._pack_stream(stream, through, age) for stream in waiting)
                )
            except _BrokenError as error:
                # What else was done in its step was rolled back with it.
                self._broken.add(error.stream.id)
                self._tell(f"history of {error.stream.record}: {error}: its messages stay rows")
            else:
                return

    def _in_steps(self, pieces: Iterator[tuple[Stream, int]]) -> Iterator[None]:
        """Do pieces of work, as many in a transaction as there is time for; each tells what it has packed."""
        is_more = True
        while is_more:
            yield
            end = time.monotonic() + _SECONDS_A_STEP
            packed: list[tuple[Stream, int]] = []
            with self._transaction():
                for piece in pieces:
                    packed.append(piece)
                    if time.monotonic() >= end:
                        break
                else:
                    is_more = False
                self._connection.executemany(
                    "UPDATE streams SET packed = max(packed, ?) WHERE id = ?",
                    [(number, stream.id) for stream, number in packed if number],
                )
            for stream, number in packed:
                stream.packed = max(stream.packed, number)

    def _last_received(self, age: _Age) -> int | None:
        """The last row that is old enough; None when the first one is not."""
        first = self._connection.execute("SELECT id, time + delay FROM history ORDER BY id LIMIT 1").fetchone()
        if first is None or not age.is_old(first[1]):
            return None
        low, high = first[0], self._writer.next - 1
        while low < high:
            # Rows come in the order of their receipt, but for a clock that is set.
            middle = (low + high + 1) // 2
            row = self._connection.execute(
                "SELECT id, time + delay FROM history WHERE id >= ? ORDER BY id LIMIT 1", (middle,)
            ).fetchone()
            if row is not None and age.is_old(row[1] - _STRAGGLERS):
                low = max(middle, row[0])
            else:
                high = middle - 1
        return int(low)

    def _pack_stream(self, stream: Stream, through: int, age: _Age) -> Iterator[tuple[Stream, int]]:
        """Pack a stream's rows, some at a time; up to which they are packed."""
        try:
            with telling_damage():
                yield from self._pack_rows(stream, through, age)
        except (DamageError, ValueError, TypeError, ArithmeticError) as error:
            raise _BrokenError(stream, str(error)) from None

    def _pack_rows(self, stream: Stream, through: int, age: _Age) -> Iterator[tuple[Stream, int]]:
        ids: list[int] = []
        at = stream.last
        while at > stream.packed and (links := walk(self._connection, at, stream.packed, _LINKS_A_PIECE)):
            ids += (number for number, _ in links)
            at = links[-1][1]
            if len(links) == _LINKS_A_PIECE:
                yield stream, 0
        ids.reverse()
        names: dict[int | str, str] = {number: str(number) for number in self._writer.numbers.values()}
        is_last = False
        while not is_last:
            some = ids[: MOST_ROWS + 1]
            piece = Piece(self._connection, stream, self._tell)
            packed, following, is_last = through, None, len(ids) == len(some)
            for number, statement in read_rows(self._connection, stream.id, some, names):
                ends = number > through or age.is_recent(statement)
                if ends or not piece.take(statement):
                    packed, following, is_last = min(through, number - 1), statement.time, ends
                    break
            else:
                packed = through if is_last else some[-1]
            for _ in piece.prepare(following):
                yield stream, 0
            if some and not self._is_deleted(stream, some[0]):
                piece.write()
            yield stream, packed
            ids = ids[bisect_right(ids, packed) :]

    def _is_deleted(self, stream: Stream, number: int) -> bool:
        """Whether somebody else has deleted a stream's history since a row of it was read."""
        # `packed` is then beyond that row; beyond what the stream's is here it stays after any deletion of before.
        row = self._connection.execute("SELECT packed FROM streams WHERE id = ?", (stream.id,)).fetchone()
        return row is None or bool(row[0] >= number)

    # --- what goes ---

    def _delete_packed(self) -> Iterator[None]:
        """Delete the rows that are in blocks, from the oldest on."""
        waiting = (one.packed for one in self._writer.streams if one.packed < one.last and one.id not in self._broken)
        through = min(waiting, default=self._writer.next - 1)
        kept = ", ".join(map(str, sorted(self._broken)))
        at = 0
        while (at := self._first_row(at)) <= through:
            yield
            last = min(at + _ROWS_A_STEP - 1, through)
            try:
                with self._transaction():
                    self._connection.execute(
                        f"DELETE FROM history WHERE id BETWEEN ? AND ? AND stream NOT IN ({kept})", (at, last)
                    )
            except DamageError as error:
                self._tell(f"rows {at} to {last} of the table history, which are packed: {error}")
            at = last + 1

    def _first_row(self, at: int) -> int:
        row = self._connection.execute("SELECT id FROM history WHERE id >= ? ORDER BY id LIMIT 1", (at,)).fetchone()
        return _LAST if row is None else row[0]

    def _expire(self, tier: Tier, horizon: int) -> Iterator[None]:
        while oldest := self._oldest(tier, horizon):
            yield
            self._delete_blocks(oldest)

    def _oldest(self, tier: Tier, horizon: int) -> list[tuple[int]]:
        stuck = ", ".join(map(str, sorted(self._stuck)))
        return self._connection.execute(
            f"SELECT id FROM blocks WHERE tier = ? AND newest < ? AND id NOT IN ({stuck}) ORDER BY newest LIMIT ?",
            (tier, horizon, self._blocks_a_step),
        ).fetchall()

    def _delete_blocks(self, ids: list[tuple[int]]) -> None:
        try:
            with self._transaction():
                self._connection.executemany("DELETE FROM blocks WHERE id = ?", ids)
        except DamageError as error:
            if len(ids) == 1:
                self._stuck.add(ids[0][0])
                self._tell(f"block {ids[0][0]} of the history, which is to be deleted: {error}")
            # From now on one by one: only the damaged one stays.
            self._blocks_a_step = 1

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
        """Let the oldest go while the database holds more bytes than it may: messages first, rows last."""
        for tier in Tier:
            while self._is_too_large() and (oldest := self._oldest(tier, _LAST)):
                yield
                self._delete_blocks(oldest)
        while self._is_too_large() and (first := self._first_row(0)) < _LAST:
            yield
            last = min(first + _ROWS_A_STEP, self._writer.next) - 1
            with self._transaction():
                self._connection.execute("DELETE FROM history WHERE id <= ?", (last,))
                self._connection.execute("UPDATE streams SET packed = max(packed, ?)", (last,))
            for stream in self._writer.streams:
                stream.packed = max(stream.packed, last)

    def _is_too_large(self) -> bool:
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        is_it = bool((pages - free) * size > self._retention.bytes)
        if is_it and not self._is_full_told:
            self._is_full_told = True
            _log.warning("database: holds more than history.bytes; the oldest history goes before its time")
        return is_it

    def _forget_empty(self) -> Iterator[None]:
        """Delete streams of which nothing is left."""
        streams = list(self._writer.streams)
        for at in range(0, len(streams), _STREAMS_A_STEP):
            yield
            empty = [
                (one.id,)
                for one in streams[at : at + _STREAMS_A_STEP]
                if one.last <= one.packed
                and not self._connection.execute("SELECT 1 FROM blocks WHERE stream = ?", (one.id,)).fetchone()
            ]
            if empty:
                with self._transaction():
                    self._connection.executemany("DELETE FROM streams WHERE id = ?", empty)
                self._writer.forget(number for (number,) in empty)
