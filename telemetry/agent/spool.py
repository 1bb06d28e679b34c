"""An agent's spool on disk: a small SQLite log. What it has taken survives kill -9 and a loss of power.

Where the disk is full it works in memory, says so, and goes back as soon as it can. A file that is broken is set aside.
The only file of the agent that imports sqlite3.
"""

import contextlib
import logging
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from telemetry.agent.state import EpochFile
from telemetry.errors import StoreError
from telemetry.spooling import MOST_ROWS, MemorySpool, Row, batch_of
from telemetry.topics import AgentKey

_log = logging.getLogger(__name__)

MOST_BYTES = 64 << 20
MOST_SECONDS = 7 * 86_400.0

_IN_MEMORY_BYTES = 8 << 20
_RETRY = 10.0
_LONGEST_STANDSTILL = 30 * 86_400.0
_TELL = 3600.0
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT}

# SQLite finds a broken page, but not a broken value in a whole one: `sum` does.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER, next INTEGER, lost INTEGER, age REAL, wall REAL, sum INTEGER
);
CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY, epoch INTEGER, age REAL, size INTEGER, sum INTEGER, topic TEXT, kept BLOB
);
"""


class SpoolFile:
    """A spool in a file of its own, held by one process. `now` gives the monotonic clock in seconds.

    Ages are counted by that clock, and by the wall's only while no agent ran: a clock that is set forward by a week
    must not make the spool throw all away.
    """

    def __init__(
        self,
        directory: Path,
        key: AgentKey,
        *,
        time_ms: int,
        most_bytes: int = MOST_BYTES,
        most_seconds: float = MOST_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = directory / f"{key.client_id}.spool"
        self._epochs = EpochFile(directory, key)
        self._most_bytes, self._most_seconds, self._now = most_bytes, most_seconds, now
        self._opened = now()
        self._age_at_opening = 0.0
        self._oldest: dict[int, int] = {}
        self._size = 0
        self._oldest_age = 0.0
        self._retry = 0.0
        self._untold, self._tell = 0, now()
        self._found: sqlite3.Error | None = None
        self._connection: sqlite3.Connection | None = None
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
        """Keep rows, all or none; False where the disk has no room for them."""
        if self._memory is not None:
            self._memory.append(rows)
            self.next = self._memory.next
            self._leave_memory()
            return True
        try:
            if self._found is not None:
                raise self._found
            self._keep(rows)
        except sqlite3.Error as error:
            self._fail(error)
            return False
        return True

    def delete(self, epoch: int, through: int) -> None:
        """Let the rows of a log go, up to a number."""
        if self._memory is not None:
            self._memory.delete(epoch, through)
        if epoch not in self._oldest:
            return
        try:
            with self._transaction() as connection:
                size = connection.execute(
                    "SELECT coalesce(sum(size), 0) FROM messages WHERE epoch = ? AND seq <= ?", (epoch, through)
                ).fetchone()[0]
                connection.execute("DELETE FROM messages WHERE epoch = ? AND seq <= ?", (epoch, through))
                oldest, age = self._oldest_left(connection, {**self._oldest, epoch: through + 1})
        except sqlite3.Error as error:
            # They stay until it can be done, and are sent again: what is a duplicate is known as one.
            self._notice(error)
            return
        self._oldest, self._oldest_age, self._size = oldest, age, self._size - size

    def epochs(self) -> Sequence[int]:
        """The logs of which there are rows."""
        memory = self._memory.epochs() if self._memory is not None else ()
        return [*self._oldest, *(epoch for epoch in memory if epoch not in self._oldest)]

    def oldest(self, epoch: int) -> int | None:
        """The lowest number of a log's rows."""
        if epoch in self._oldest:
            return self._oldest[epoch]
        return self._memory.oldest(epoch) if self._memory is not None else None

    def read(self, after: int, below: int) -> list[Row]:
        """The first rows in a range of numbers, of one log, as many as make a batch."""
        rows = self._read_file(after, below)
        if not rows and self._memory is not None:
            return self._memory.read(after, below)
        return rows

    def close(self) -> None:
        """End; what is in memory alone is tried to be kept."""
        if self._memory is not None:
            self._retry = 0.0
            self._leave_memory()
        if self._connection is not None:
            self._connection.close()

    # --- the file ---

    def _start(self, time_ms: int) -> None:
        last = self._epochs.last()
        try:
            self._open()
        except sqlite3.Error as error:
            if _is_broken(error):
                self._set_aside()
                self._open_or_memory()
            elif error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise StoreError(f"{self._path}: another agent of this name uses it; give another --name") from None
            else:
                # Which numbers it holds cannot be seen: no log counts as fast as a clock of milliseconds.
                self.next = max(time_ms, last + 1)
                self._go_to_memory(error)
        if self.epoch < max(last, 1):
            self.begin(max(time_ms, last + 1))

    def _open_or_memory(self) -> None:
        try:
            self._open()
        except sqlite3.Error as error:
            self._go_to_memory(error)

    def _open(self) -> None:
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.is_dir():
                raise _error(sqlite3.SQLITE_CORRUPT)
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=0.2, check_same_thread=False)
        try:
            # Held alone, it needs no shared memory beside it.
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -256")
            connection.execute("PRAGMA wal_autocheckpoint = 64")
            if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise _error(sqlite3.SQLITE_CORRUPT)
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            self._take_in(connection)
        except sqlite3.Error as error:
            connection.close()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
                # Its tables are not ours.
                raise _error(sqlite3.SQLITE_CORRUPT) from error
            raise
        self._connection = connection

    def _take_in(self, connection: sqlite3.Connection) -> None:
        """Learn what is in the file."""
        row = connection.execute("SELECT epoch, next, lost, age, wall, sum FROM log").fetchone()
        firsts = dict(connection.execute("SELECT epoch, min(seq) FROM messages GROUP BY epoch ORDER BY min(seq)"))
        size, last = connection.execute("SELECT coalesce(sum(size), 0), coalesce(max(seq), 0) FROM messages").fetchone()
        if (row is not None and row[-1] != _sum(*row[:-1])) or last >= (1 if row is None else row[1]):
            raise _error(sqlite3.SQLITE_CORRUPT)
        self._opened = self._now()
        if row is not None:
            self.epoch, self.next, self.lost, age, wall, _ = row
            self._age_at_opening = age + min(max(0.0, time.time() - wall), _LONGEST_STANDSTILL)
        self._oldest, self._oldest_age = self._oldest_left(connection, firsts)
        self._size = size

    def _set_aside(self) -> None:
        """Give the broken file another name. What was in it is lost; a new log begins."""
        aside = self._path.with_suffix(".broken")
        for suffix in ("", "-wal", "-shm"):
            path = self._path.with_name(self._path.name + suffix)
            with contextlib.suppress(OSError):
                path.replace(aside.with_name(aside.name + suffix))
        _log.error("spool %s: broken; set aside as %s, a new log begins", self._path, aside.name)
        self._oldest, self._size = {}, 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._connection is None:
            raise _error(sqlite3.SQLITE_CANTOPEN)
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise

    def _keep(self, rows: Sequence[Row]) -> None:
        age, size = self._age(), self._size + sum(row.size for row in rows)
        oldest, oldest_age = dict(self._oldest), self._oldest_age if self._oldest else age
        for row in rows:
            oldest.setdefault(row.epoch, row.seq)
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO messages (seq, epoch, age, size, sum, topic, kept) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(row.seq, row.epoch, age, row.size, _sum(*row), row.topic, row.kept) for row in rows],
            )
            dropped, dropped_size = self._drop(connection, size, age, rows[-1].seq - 1)
            if dropped:
                oldest, oldest_age = self._oldest_left(connection, oldest)
            log = (rows[-1].epoch, rows[-1].seq + 1, self.lost + dropped, age, time.time())
            connection.execute(
                "INSERT OR REPLACE INTO log (id, epoch, next, lost, age, wall, sum) VALUES (1, ?, ?, ?, ?, ?, ?)",
                (*log, _sum(*log)),
            )
        self.epoch, self.next, self.lost, *_ = log
        self._oldest, self._oldest_age, self._size = oldest, oldest_age, size - dropped_size
        self._tell_of_dropped(dropped)

    def _drop(self, connection: sqlite3.Connection, size: int, age: float, most: int) -> tuple[int, int]:
        """Make room: the oldest rows go where there are too many bytes, or they are too old. How many, and their size.

        Those above the number `most` stay.
        """
        through = connection.execute(
            "SELECT coalesce(max(seq), 0) FROM messages WHERE age < ?", (age - self._most_seconds,)
        ).fetchone()[0] if self._may_be_old(age) else 0  # fmt: skip
        if size > self._most_bytes:
            excess = size - self._most_bytes
            for seq, length in connection.execute("SELECT seq, size FROM messages ORDER BY seq"):
                if excess <= 0:
                    break
                excess, through = excess - length, max(through, seq)
        through = min(through, most)
        if not through:
            return 0, 0
        dropped, dropped_size = connection.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM messages WHERE seq <= ?", (through,)
        ).fetchone()
        connection.execute("DELETE FROM messages WHERE seq <= ?", (through,))
        return dropped, dropped_size

    def _tell_of_dropped(self, dropped: int) -> None:
        """Say it at once, and then from time to time: where there is no room, every message costs one."""
        self._untold += dropped
        if self._untold and self._now() >= self._tell:
            _log.warning("spool %s: %d messages dropped, the oldest: too many or too old", self._path, self._untold)
            self._untold, self._tell = 0, self._now() + _TELL

    def _may_be_old(self, age: float) -> bool:
        return age - self._oldest_age > self._most_seconds

    def _oldest_left(self, connection: sqlite3.Connection, known: Mapping[int, int]) -> tuple[dict[int, int], float]:
        """The lowest number of each log of which there are rows, from what is known upward; the age of the oldest."""
        oldest = {}
        for epoch, least in known.items():
            row = connection.execute(
                "SELECT seq FROM messages WHERE seq >= ? AND epoch = ? ORDER BY seq LIMIT 1", (least, epoch)
            ).fetchone()
            if row is not None:
                oldest[epoch] = row[0]
        row = connection.execute("SELECT age FROM messages ORDER BY seq LIMIT 1").fetchone()
        age = self._age() if row is None else row[0]
        if not isinstance(age, float):
            raise _error(sqlite3.SQLITE_CORRUPT)
        return oldest, age

    def _read_file(self, after: int, below: int) -> list[Row]:
        if self._connection is None or not self._oldest:
            return []
        try:
            found = self._connection.execute(
                "SELECT sum, epoch, seq, topic, kept FROM messages WHERE seq > ? AND seq < ? ORDER BY seq LIMIT ?",
                (after, below, MOST_ROWS),
            )
            return batch_of([_checked(*row) for row in found])
        except sqlite3.Error as error:
            self._notice(error)
            if not _is_broken(error):
                _log.error("spool %s: %s", self._path, error)  # one line
            return []

    def _notice(self, error: sqlite3.Error) -> None:
        """Take in an error that costs nothing yet. A broken file is left at the next message, by a new log."""
        if _is_broken(error) and self._memory is None:
            self._found = error
        _log.debug("spool %s: %s", self._path, error)

    def _age(self) -> float:
        return self._age_at_opening + self._now() - self._opened

    # --- memory ---

    def _fail(self, error: sqlite3.Error) -> None:
        self._found = None
        if _is_broken(error):
            self._leave_broken()
            self._open_or_memory()
        else:
            self._go_to_memory(error)

    def _leave_broken(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._set_aside()

    def _go_to_memory(self, error: sqlite3.Error) -> None:
        _log.error("spool %s: %s; working in memory until it can be written", self._path, error)
        self._memory = MemorySpool(self.epoch, after=self.next, most_bytes=_IN_MEMORY_BYTES)
        self._retry = self._now() + _RETRY

    def _leave_memory(self) -> None:
        """Go back to the file, from time to time, if it can be."""
        if self._memory is None or self._now() < self._retry:
            return
        self._retry = self._now() + _RETRY
        try:
            if self._connection is None:
                epoch, after = self.epoch, self.next
                self._open()
                self.epoch, self.next = epoch, after
            self.lost, self._memory.lost = self.lost + self._memory.lost, 0
            if self._memory.rows:
                self._keep(self._memory.rows)
        except sqlite3.Error as error:
            _log.debug("spool %s: %s", self._path, error)
            if _is_broken(error):
                self._leave_broken()
            return
        self._memory = None
        _log.warning("spool %s: can be written again", self._path)


def _sum(*values: object) -> int:
    return zlib.crc32(repr(values).encode())


def _checked(kept_sum: int, *row: *tuple[int, int, str, bytes]) -> Row:
    if kept_sum != _sum(*row):
        raise _error(sqlite3.SQLITE_CORRUPT)
    return Row(*row)


def _is_broken(error: sqlite3.Error) -> bool:
    """What the module raises itself, such as of a text that is none, has no code."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _BROKEN


def _error(code: int) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("malformed" if code == sqlite3.SQLITE_CORRUPT else "not open")
    error.sqlite_errorcode = code
    return error
