"""The files of a spool: lines that are only added. A line is a checksum, and as JSON the spool's state and rows.

A line that is not whole, and what follows it, counts for nothing.
"""

import contextlib
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

from telemetry.spooling import Row

_NAME = re.compile(r"(\d+)-(\d+)\.log")


class State(NamedTuple):
    """What a spool has to know again. `age` and `wall` are one moment, by the spool's clock and by the wall's.

    `epoch`: the log that may be gone on with; 0 where none may, since it is not known which numbers were given.
    `oldest`: logs, and the lowest number of each that is not deleted.
    """

    epoch: int
    lost: int
    age: float
    wall: float
    oldest: Sequence[tuple[int, int]]


def encode_line(state: State, rows: Sequence[Row] = ()) -> bytes:
    """A line; its rows are of the log `state.epoch`."""
    text = orjson.dumps([*state, [(row.seq, row.topic, row.kept.decode()) for row in rows]])
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _decode_lines(data: bytes) -> Iterator[tuple[State, list[Row], int]]:
    """The states, rows and lengths of the lines, up to the first that is not whole."""
    for line in data.splitlines(keepends=True):
        text = line[9:-1]
        if line != b"%08x %b\n" % (zlib.crc32(text), text):
            return
        *state, rows = orjson.loads(text)
        yield State(*state), [Row(state[0], seq, topic, kept.encode()) for seq, topic, kept in rows], len(line)


class Segment:
    """A file of rows of one log. Those that are left are numbered from `first` to below `next`."""

    def __init__(self, directory: Path, epoch: int, first: int, state: State) -> None:
        self.path = directory / f"{epoch}-{first}.log"
        self.epoch, self.first, self.next, self.size = epoch, first, first, 0
        self.born = self.age = 0.0
        self.state = state

    @property
    def is_empty(self) -> bool:
        """Whether all rows are deleted."""
        return self.first >= self.next

    def load(self) -> bool:
        """Learn what is in the file; False where not all of it is whole."""
        data = self.path.read_bytes()
        for state, rows, size in _decode_lines(data):
            if rows and (rows[0].epoch, rows[0].seq) != (self.epoch, self.next):
                break
            self._take(state, rows, size)
        return 0 < self.size == len(data)

    def read(self) -> Iterator[Row]:
        """The rows that are left; raises OSError at one that cannot be read."""
        left = self.size
        for _, rows, size in _decode_lines(self.path.read_bytes()[: self.size]):
            yield from (row for row in rows if row.seq >= self.first)
            left -= size
        if left:
            raise OSError(f"{self.path}: damaged")

    def append(self, state: State, rows: Sequence[Row] = ()) -> None:
        """Add rows, which are on disk then, or the state alone; where that fails the file stays as it was."""
        line = encode_line(state, rows)
        if self.size == 0:
            self._replace(line)
        else:
            self._extend(line, is_synced=bool(rows))
        self._take(state, rows, len(line))

    def mend(self, aside: Path) -> None:
        """Keep what stood before the damage, and that no log may be gone on with; the damaged file stands aside."""
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
            os.link(self.path, aside)
        state = self.state._replace(epoch=0)
        line = encode_line(state)
        self._replace(self.path.read_bytes()[: self.size] + line)
        self._take(state, (), len(line))

    def _take(self, state: State, rows: Sequence[Row], size: int) -> None:
        if rows:
            self.born = self.born if self.size else state.age
            self.next, self.age = rows[-1].seq + 1, state.age
        self.state, self.size = state, self.size + size

    def _extend(self, line: bytes, *, is_synced: bool) -> None:
        try:
            with self.path.open("r+b") as file:
                file.seek(self.size)
                file.write(line)
                file.flush()
                if is_synced:
                    os.fdatasync(file.fileno())
        except OSError:
            os.truncate(self.path, self.size)
            raise

    def _replace(self, data: bytes) -> None:
        """Have the file hold this, at once and for good, or be as it was."""
        partial = self.path.with_name("partial")
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        sync_directory(self.path.parent)


def names_in(directory: Path) -> list[tuple[int, int]]:
    """The first numbers and the logs of a directory's files, in the order of their rows."""
    names = filter(None, (_NAME.fullmatch(path.name) for path in directory.iterdir()))
    return sorted((int(name[2]), int(name[1])) for name in names)


def sync_directory(path: Path) -> None:
    """Have the names of files survive a loss of power, where the filesystem can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
