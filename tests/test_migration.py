"""A database of an older version: copied before it is changed, changed as a whole or not at all, never made older."""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from telemetry.errors import StoreError
from telemetry.stores.rows import SCHEMA_VERSION
from telemetry.stores.sqlite import SqliteStore
from tests.chaos.disks import Disk
from tests.conftest import StartPart

FIRST = (Path(__file__).parent / "database_1.sql").read_text()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A filesystem of 3 MB."""
    found = Disk(tmp_path / "disk")
    if not found.is_mounted:
        pytest.skip("only root can mount a filesystem to fill it")
    yield found
    found.unmount()


def _make_first(path: Path, *, messages: int = 0) -> Path:
    """Write a database as version 1 did, with messages of 1 kB that no packing makes smaller."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(FIRST)
        connection.executemany(
            "INSERT INTO history (minerId, hostName, owner, epoch, seq, time, received, full, fields, gone)"
            " VALUES ('f01234', 'seal01', 'hardware', 7, ?, 1, 1, 0, ?, '[]')",
            [(seq, json.dumps({"note": os.urandom(500).hex()})) for seq in range(100, 100 + messages)],
        )
    return path


def _query(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def _refused(path: Path) -> str:
    with pytest.raises(StoreError) as refused:
        SqliteStore(path)
    return str(refused.value)


def _copies(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.glob(f"*{path.name}.version-*"))


def test_a_database_is_copied_before_it_is_made_one_of_today(tmp_path: Path) -> None:
    path = _make_first(tmp_path / "telemetry.db")
    path.chmod(0o640)
    before = _query(path, "SELECT * FROM history")
    SqliteStore(path).close()
    copy = path.with_name("telemetry.db.version-1")
    assert _query(copy, "PRAGMA user_version") == [(1,)]
    assert _query(copy, "SELECT * FROM history") == before
    assert copy.stat().st_mode & 0o777 == 0o640
    # Put back it is what it was, and is made one of today again.
    shutil.copy(copy, path)
    with closing(SqliteStore(path)) as store:
        assert store.load().agents


def test_of_the_copies_one_is_kept_and_one_of_today_is_not_copied(tmp_path: Path) -> None:
    path = _make_first(tmp_path / "telemetry.db")
    path.with_name("telemetry.db.version-0").write_bytes(b"of an earlier migration")
    SqliteStore(path).close()
    assert _copies(path) == ["telemetry.db.version-1"]
    path.with_name("telemetry.db.version-1").unlink()
    SqliteStore(path).close()
    assert _copies(path) == []


@pytest.mark.parametrize(
    ("messages", "reason"),
    [(1700, "for without a copy it stays of version 1: make room for"), (900, "nothing of it was changed; make room")],
    ids=["the copy", "the migration"],
)
def test_a_disk_that_has_no_room_leaves_the_database_as_it_was(disk: Disk, messages: int, reason: str) -> None:
    path = _make_first(disk.directory / "telemetry.db", messages=messages)
    before = _query(path, "SELECT count(*), max(seq) FROM history")
    told = _refused(path)
    assert str(path) in told
    assert "database or disk is full" in told
    assert reason in told
    assert "\n" not in told
    assert _query(path, "PRAGMA user_version") == [(1,)]
    assert _query(path, "SELECT count(*), max(seq) FROM history") == before
    assert not list(disk.directory.glob("*.part"))
    subprocess.run(["mount", "-o", "remount,size=30m", disk.directory], check=True)
    with closing(SqliteStore(path)) as store:
        assert store.load().agents
    assert _query(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_an_aggregator_does_not_begin_on_a_database_of_a_newer_version(data: Path, start: StartPart) -> None:
    SqliteStore(data / "telemetry.db").close()
    with closing(sqlite3.connect(data / "telemetry.db")) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    aggregator = start("aggregator", "--data", str(data), "--broker", "mqtt://127.0.0.1:1")
    assert aggregator.process is not None
    assert aggregator.process.wait(20) == 1
    [line] = aggregator.text.splitlines()
    assert "written by a newer telemetry (version 3, this one knows 2); install that version" in line
    assert _query(data / "telemetry.db", "PRAGMA user_version") == [(SCHEMA_VERSION + 1,)]
