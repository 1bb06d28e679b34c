"""An agent's spool on disk: a log in files. What it has taken survives kill -9 and a loss of power.

A file goes when all its rows are deleted; the last one stays, for the numbers that were given. Where the disk is full
the spool works in memory, says so, and goes back as soon as it can. A damaged file is mended, and its log has ended.
"""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from telemetry.agent.segments import Segment, State, names_in, sync_directory
from telemetry.agent.state import EpochFile
from telemetry.errors import StoreError
from telemetry.spooling import MemorySpool, Row, batch_of
from telemetry.topics import AgentKey

_log = logging.getLogger(__name__)

_SEGMENT_BYTES = 128 << 10
_LEAST_SEGMENTS = 64
"""The oldest rows go by whole files: so many share the bytes and seconds at least."""

_IN_MEMORY_BYTES = 8 << 20
_RETRY = 10.0
_LONGEST_STANDSTILL = 30 * 86_400.0
_TELL = 3600.0


class SpoolFile:
    """A spool in a directory of its own, held by one process. `now` gives the monotonic clock in seconds.

    Ages are counted by that clock, and by the wall's only while no agent ran: a clock that is set forward by a week
    must not make the spool throw all away.
    """

    def __init__(
        self,
        directory: Path,
        key: AgentKey,
        *,
        time_ms: int,
        most_bytes: int = 64 << 20,
        most_seconds: float = 7 * 86_400.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = directory / f"{key.client_id}.spool"
        self._aside = self._path.with_suffix(".broken")
        self._epochs = EpochFile(directory, key)
        self._most_bytes, self._most_seconds, self._now = most_bytes, most_seconds, now
        self._began, self._began_wall = now(), time.time()
        self._age_before: float | None = None
        self._lock: int | None = None
        self._segments: list[Segment] = []
        self._is_known = False
        self._retry = 0.0
        self._untold, self._tell = 0, now()
        self._memory: MemorySpool | None = None
        self.epoch, self.next, self.lost = 0, 1, 0
        self._start(time_ms)

    # --- Spool ---

    def begin(self, epoch: int) -> None:
        """Go on in a new log."""
        self.epoch = self._epochs.keep(epoch, is_told=self._memory is not None)
        if self._memory is not None:
            self._memory.begin(epoch)

    def append(self, rows: Sequence[Row]) -> bool:
        """Keep rows, all or none; False where the disk has no room for them, or a file was found damaged."""
        if self._memory is not None:
            self._memory.append(rows)
            self.next = self._memory.next
            self._leave_memory()
            return True
        try:
            if self._is_known:
                self._keep(rows)
                return True
            self._open()
        except OSError as error:
            self._go_to_memory(error)
        return False

    def delete(self, epoch: int, through: int) -> None:
        """Let the rows of a log go, up to a number."""
        if self._memory is not None:
            self._memory.delete(epoch, through)
        held = [one for one in self._segments if one.epoch == epoch and one.first <= through and not one.is_empty]
        for segment in held:
            segment.first = min(through + 1, segment.next)
        if held:
            self._clean_up()
            self._note()

    def epochs(self) -> Sequence[int]:
        """The logs of which there are rows."""
        memory = self._memory.epochs() if self._memory is not None else ()
        return list(dict.fromkeys([*(segment.epoch for segment in self._segments if not segment.is_empty), *memory]))

    def oldest(self, epoch: int) -> int | None:
        """The lowest number of a log's rows."""
        for segment in self._segments:
            if segment.epoch == epoch and not segment.is_empty:
                return segment.first
        return self._memory.oldest(epoch) if self._memory is not None else None

    def read(self, after: int, below: int) -> list[Row]:
        """The first rows in a range of numbers, of one log, as many as make a batch."""
        rows = batch_of(self._rows(after, below))
        if not rows and self._memory is not None:
            return self._memory.read(after, below)
        return rows

    def close(self) -> None:
        """End; what is in memory alone is tried to be kept."""
        self._retry = 0.0
        self._leave_memory()
        if self._lock is not None:
            os.close(self._lock)

    # --- how it is ---

    @property
    def messages(self) -> int:
        """How many messages it holds."""
        memory = len(self._memory.rows) if self._memory is not None else 0
        return memory + sum(segment.next - segment.first for segment in self._segments)

    @property
    def bytes(self) -> int:
        """How many bytes its files take up, and what it holds in memory."""
        return sum(segment.size for segment in self._segments) + (self._memory.size if self._memory is not None else 0)

    # --- opening ---

    def _start(self, time_ms: int) -> None:
        last = self._epochs.last()
        try:
            self.epoch = self._open()
        except BlockingIOError:
            raise StoreError(f"{self._path}: another agent of this name uses it; give another --name") from None
        except OSError as error:
            # Which numbers it holds cannot be seen: no log counts as fast as a clock of milliseconds.
            self.next = max(time_ms, last + 1)
            self._go_to_memory(error)
        if self.epoch < max(last, 1):
            self.begin(max([time_ms, last + 1, *(segment.epoch + 1 for segment in self._segments)]))

    def _open(self) -> int:
        """Look at what is there, and mend it; the log that may be gone on with, or 0."""
        self._hold()
        segments: list[Segment] = []
        state, is_whole = State(0, 0, 0.0, self._began_wall, ()), True
        for number, log in names_in(self._path):
            segments.append(Segment(self._path, log, number, state))
            if not segments[-1].load():
                segments[-1].mend(self._aside)
                self._tell_broken()
                is_whole = False
            state = segments[-1].state
        for epoch, first in (*state.oldest, *self._oldest()):
            for segment in segments:
                if segment.epoch == epoch:
                    segment.first = min(max(segment.first, first), segment.next)
        if self._age_before is None:
            self._age_before = state.age + min(max(0.0, self._began_wall - state.wall), _LONGEST_STANDSTILL)
        self._segments, self._is_known = segments, True
        self.next = max([self.next, *(segment.next for segment in segments)])
        self.lost = max(self.lost, state.lost)
        return state.epoch if is_whole else 0

    def _hold(self) -> None:
        """Keep others out, as long as this process lives."""
        if self._path.is_file():
            self._path.replace(self._aside)
            self._tell_broken()
        self._path.mkdir(parents=True, exist_ok=True)
        sync_directory(self._path.parent)
        if self._lock is None:
            self._lock = os.open(self._path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _tell_broken(self) -> None:
        _log.error("spool %s: broken; set aside as %s, a new log begins", self._path, self._aside.name)

    # --- the files ---

    def _keep(self, rows: Sequence[Row]) -> None:
        state = self._state(rows[0].epoch)
        if self._segments and self._fits(self._segments[-1], rows):
            self._segments[-1].append(state, rows)
        else:
            segment = Segment(self._path, rows[0].epoch, rows[0].seq, state)
            segment.append(state, rows)
            self._segments.append(segment)
        self.next = max(self.next, rows[-1].seq + 1)
        if self._clean_up():
            self._note()

    def _fits(self, last: Segment, rows: Sequence[Row]) -> bool:
        is_next = (last.state.epoch, last.next) == (rows[0].epoch, rows[0].seq)
        room = min(_SEGMENT_BYTES, self._most_bytes // _LEAST_SEGMENTS) - last.size
        is_young = self._age() - last.born <= self._most_seconds / _LEAST_SEGMENTS
        return is_next and sum(row.size for row in rows) <= room and is_young

    def _clean_up(self) -> int:
        """Remove files that are empty, then the oldest where there are too many bytes, or they are too old.

        The last one stays. How many rows had to go.
        """
        dropped, size, eldest = 0, sum(segment.size for segment in self._segments), self._age() - self._most_seconds
        for segment in sorted(self._segments[:-1], key=lambda one: not one.is_empty):
            if segment.is_empty or size > self._most_bytes or segment.age < eldest:
                dropped, size = dropped + segment.next - segment.first, size - segment.size
                self._segments.remove(segment)
                with contextlib.suppress(OSError):
                    segment.path.unlink()
        self.lost += dropped
        self._tell_of_dropped(dropped)
        return dropped

    def _tell_of_dropped(self, dropped: int) -> None:
        """Say it at once, and then from time to time: where there is no room, every message costs one."""
        self._untold += dropped
        if self._untold and self._now() >= self._tell:
            _log.warning("spool %s: %d messages dropped, the oldest: too many or too old", self._path, self._untold)
            self._untold, self._tell = 0, self._now() + _TELL

    def _note(self) -> None:
        """Have the last file tell what is left. What is forgotten is sent again, and known as a duplicate."""
        with contextlib.suppress(OSError):
            self._segments[-1].append(self._state(self._segments[-1].state.epoch))

    def _state(self, epoch: int) -> State:
        return State(epoch, self.lost, self._age(), time.time(), self._oldest())

    def _oldest(self) -> Sequence[tuple[int, int]]:
        return list({segment.epoch: segment.first for segment in reversed(self._segments)}.items())

    def _rows(self, after: int, below: int) -> Iterator[Row]:
        try:
            for segment in self._segments:
                if segment.next > after + 1 and segment.first < below:
                    yield from (row for row in segment.read() if after < row.seq < below)
        except OSError:
            # The next append looks at what is left.
            self._is_known = False

    def _age(self) -> float:
        return (self._age_before or 0.0) + self._now() - self._began

    # --- memory ---

    def _go_to_memory(self, error: OSError) -> None:
        _log.error("spool %s: %s; working in memory until it can be written", self._path, error.strerror)
        self._memory = MemorySpool(self.epoch, after=self.next, most_bytes=_IN_MEMORY_BYTES)
        self._retry = self._now() + _RETRY

    def _leave_memory(self) -> None:
        """Go back to the files, from time to time, if it can be.

        A log goes there in a new file, all or none: with a part of it, a later process would give its numbers twice.
        """
        if self._memory is None or self._now() < self._retry:
            return
        self._retry = self._now() + _RETRY
        try:
            if not self._is_known:
                self._open()
            self.lost, self._memory.lost = self.lost + self._memory.lost, 0
            for epoch in self._memory.epochs():
                rows = [row for row in self._memory.rows if row.epoch == epoch]
                self._keep(rows)
                self._memory.delete(epoch, rows[-1].seq)
        except OSError as error:
            _log.debug("spool %s: %s", self._path, error)
            self._is_known = False
            return
        self._memory = None
        _log.warning("spool %s: can be written again", self._path)
