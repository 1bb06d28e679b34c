"""Copies of a database: one made while an aggregator writes, and one put in its place while none does."""

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from telemetry.errors import StoreError
from telemetry.stores.reading import open_database
from telemetry.stores.rows import hold, lock_file

_PAGES_A_STEP = 256
_LONGEST_REST = 0.05
_BYTES_A_SYNC = 16 << 20

MAGIC = b"SQLite format 3\x00"
"""How a file of SQLite begins."""


def copy_database(database: Path, target: Path, advance: Callable[[int, int], None]) -> None:
    """Copy a database as it is now into an empty file, and check the copy; StoreError where either fails.

    The source is read as of one moment: otherwise SQLite would begin anew with each commit of another process. Its
    writer waits for nothing; so that the disk has time for it, half of the time is rest.
    """
    with open_database(database) as source:
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        try:
            with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy, target.open("rb+") as file:
                # What is left of a copy that ended half-way is thrown away: nothing has to be undone.
                copy.execute("PRAGMA journal_mode = OFF")
                copy.execute("PRAGMA synchronous = OFF")
                source.backup(copy, pages=_PAGES_A_STEP, progress=_Pace(file.fileno(), advance))
                # One file, which can be read where nothing can be written; an aggregator makes it WAL again.
                copy.execute("PRAGMA journal_mode = DELETE")
                _require_whole(copy, database)
        except sqlite3.OperationalError as error:
            raise StoreError(f"copy of {database}: {error}; nothing was changed") from None


def copy_beside(database: Path, target: Path) -> None:
    """The same to a file beside it, in the place of what is there; StoreError where that fails."""
    partial = target.with_name(f".{target.name}.part")
    try:
        partial.unlink(missing_ok=True)
        partial.touch(0o600)
        copy_database(database, partial, lambda _done, _all: None)
        partial.chmod(stat.S_IMODE(database.stat().st_mode))
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise StoreError(f"copy of {database}: {error.strerror}; nothing was changed") from None
    finally:
        partial.unlink(missing_ok=True)


class _Pace:
    """Between two steps: rest as long as the last one took, and let no large heap of unwritten pages grow."""

    def __init__(self, file: int, advance: Callable[[int, int], None]) -> None:
        self._file, self._advance = file, advance
        self._unsynced = 0
        self._began = time.monotonic()

    def __call__(self, _status: int, remaining: int, total: int) -> None:
        self._advance(total - remaining, total)
        self._unsynced += _PAGES_A_STEP * 4096
        if self._unsynced >= _BYTES_A_SYNC:
            os.fdatasync(self._file)
            self._unsynced = 0
        time.sleep(min(time.monotonic() - self._began, _LONGEST_REST))
        self._began = time.monotonic()


def _require_whole(copy: sqlite3.Connection, database: Path) -> None:
    found = [row[0] for row in copy.execute("PRAGMA quick_check(1)")]
    if found != ["ok"]:
        raise StoreError(f"database {database}: damaged: {' '.join(found[0].split())}; nothing was changed")


@contextlib.contextmanager
def unserved(database: Path) -> Iterator[None]:
    """Keep aggregators from a database meanwhile; StoreError where one has it."""
    try:
        lock = hold(database)
    except OSError as error:
        raise StoreError(f"database {database}: cannot write beside it: {error.strerror}") from None
    _give_to_owner_of_directory(lock_file(database))
    if lock is None:
        raise StoreError(f"database {database}: an aggregator is using it; end that one first")
    with lock:
        yield


def restore(backup: Path, temporary: Path, database: Path, advance: Callable[[int, int], None]) -> Path | None:
    """Copy a backup into a temporary file that will take a database's place, and move that away; where it is now."""
    copy_database(backup, temporary, advance)
    _give_to_owner_of_directory(temporary)
    return _set_aside(database) if database.exists() else None


def _give_to_owner_of_directory(path: Path) -> None:
    """What root makes must be writable for whoever the aggregator runs as."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _set_aside(database: Path) -> Path:
    """Move a database away, with what SQLite keeps beside it; where it is now."""
    aside = database.with_name(f"{database.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
    for ending in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{database}{ending}").rename(f"{aside}{ending}")
    return aside
