"""Damaged pages, full disks, read-only mounts and clocks that jump: a clear line, and nothing lost silently."""

import contextlib
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from telemetry.cli import main
from telemetry.config import Retention
from telemetry.errors import DamageError, StoreBusyError, StoreError
from telemetry.fields import Owner
from telemetry.stores import Batch, HistoryRow
from telemetry.stores.history import HOUR, Tier
from telemetry.stores.history.reading import History, open_history
from telemetry.stores.sqlite import SqliteStore, delete_history
from telemetry.topics import RecordKey
from telemetry.wire import Position
from tests.history_oracle import PlainList
from tests.stored import row_of

START = 1_795_000_000_000 // (24 * HOUR) * (24 * HOUR)
DAY = 24 * HOUR
MINUTE = 60_000
HOSTS = [RecordKey("f01234", f"seal{number:02}") for number in range(1, 5)]
RETENTION = Retention(messages=14 * 86400, five_minutes=90 * 86400, hours=730 * 86400, bytes=1 << 62)


_ROW = b"[1,19,2,217000]"
"""How the first host's message of minute 217 stands in its row."""


def _rows(first: int, last: int, *, shift: int = 0) -> list[HistoryRow]:
    """What each host sends once a minute; `shift` is by how much the aggregator's clock is wrong."""
    return [
        HistoryRow(
            key, Owner.HARDWARE, Position(7, minute + 1), START + minute * MINUTE, START + minute * MINUTE + shift,
            minute % 15 == 0, {"cpuUsage": (minute * 7 + at) % 100, "diskR": minute * 1000 + at}, (),
        )
        for minute in range(first, last)
        for at, key in enumerate(HOSTS)
    ]  # fmt: skip


def _keep_up(store: SqliteStore, now: int) -> None:
    while store.maintain(now):
        pass


def _commit(store: SqliteStore, plain: PlainList, rows: list[HistoryRow]) -> None:
    store.commit(Batch(history=rows))
    plain.rows += rows


def _found(history: History, key: RecordKey) -> list[tuple[Any, ...]]:
    return [(one.time, one.epoch, one.seq, one.values) for _, one in history.statements(key)]


def _expected(plain: PlainList, key: RecordKey) -> list[tuple[Any, ...]]:
    return [(row.time, *row.position, row.values) for row in plain.of(key)]


def _require_all(path: Path, plain: PlainList) -> None:
    with open_history(path) as history:
        assert {key: _found(history, key) for key in HOSTS} == {key: _expected(plain, key) for key in HOSTS}
        assert not history.damaged


def _query(path: Path, query: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(query, values).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "telemetry.db"


@pytest.fixture
def plain(path: Path) -> PlainList:
    """Four hours of four hosts, of which three are packed."""
    plain = PlainList()
    with closing(SqliteStore(path)) as store:
        _commit(store, plain, _rows(0, 240))
        _keep_up(store, START + 4 * HOUR + 5 * MINUTE)
    _query(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert _query(path, "SELECT count(*) FROM history") == [(240,)]
    return plain


def _damage_page(path: Path, content: bytes) -> None:
    """Overwrite the page on which something stands."""
    _query(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    page = data.index(content) // 4096 * 4096
    data[page : page + 4096] = b"\xa5" * 4096
    path.write_bytes(data)


def _damage_block(path: Path, key: RecordKey, tier: Tier, start: int) -> bytes:
    """Flip a bit in a block; the block as it is then."""
    where = "tier = ? AND start = ? AND stream = (SELECT id FROM streams WHERE hostName = ?)"
    ((data,),) = _query(path, f"SELECT data FROM blocks WHERE {where}", tier, start, key.hostName)
    damaged = data[:20] + bytes([data[20] ^ 1]) + data[21:]
    _query(path, f"UPDATE blocks SET data = ? WHERE {where}", damaged, tier, start, key.hostName)
    return bytes(damaged)


def _check(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    capsys.readouterr()
    status = main(["check", "--db", "--database", str(path), *options])
    return status, capsys.readouterr().out


# --- blocks ---


def test_a_damaged_block_is_told_kept_and_in_nobodys_way(
    path: Path, plain: PlainList, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = _damage_block(path, HOSTS[1], Tier.MESSAGES, START + HOUR)
    with open_history(path) as history:
        before = history.summaries(HOSTS[1], "cpuUsage", START, START + 3 * HOUR, HOUR)
    late = HistoryRow(HOSTS[1], Owner.HARDWARE, Position(7, 9999), START + HOUR + 30_000, START + 5 * HOUR, False,
                      {"cpuUsage": 5}, ())  # fmt: skip
    with closing(SqliteStore(path)) as store:
        _commit(store, plain, [late, *_rows(240, 360)])
        for again in range(3):
            _keep_up(store, START + 7 * HOUR + again * 2 * MINUTE)
    lost = [row for row in plain.of(HOSTS[1]) if START + HOUR <= row.time < START + 2 * HOUR and row is not late]
    plain.rows = [row for row in plain.rows if row not in lost]
    with open_history(path) as history:
        assert {key: _found(history, key) for key in HOSTS} == {key: _expected(plain, key) for key in HOSTS}
        ((record, tier, since, until, reason),) = history.damaged
        assert (record, tier, since, until) == (HOSTS[1], Tier.MESSAGES, START + HOUR, START + 2 * HOUR)
        assert "checksum" in reason
        # Made of all that was there once, they tell more than what is left does.
        assert history.summaries(HOSTS[1], "cpuUsage", START, START + 3 * HOUR, HOUR) == before
    assert (damaged,) in _query(path, "SELECT data FROM blocks")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "f01234/seal02" in line
    assert "2026-11-18 01:00" in line
    assert _query(path, "SELECT count(*) FROM history") == [(0,)]


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("command", ["history f01234/seal01 diskR", "export f01234/seal01 --format jsonl"])
def test_commands_tell_what_they_leave_out(path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    _damage_block(path, HOSTS[0], Tier.MESSAGES, START)
    words = [*command.split(), "--database", str(path), "--since", "2020-01-01"]
    assert main(words) == 0
    told = capsys.readouterr().err
    assert f"telemetry: database {path}: f01234/seal01: every message from " in told
    assert "damaged and left out" in told
    assert "check --db" in told


@pytest.mark.parametrize("tier", [Tier.FIVE_MINUTES, Tier.HOURS])
def test_damaged_summaries_are_kept_and_new_ones_stand_beside_them(path: Path, plain: PlainList, tier: Tier) -> None:
    start = START + (2 * HOUR if tier is Tier.FIVE_MINUTES else 0)
    damaged = _damage_block(path, HOSTS[1], tier, start)
    late = HistoryRow(HOSTS[1], Owner.HARDWARE, Position(7, 9999), START + 2 * HOUR + 30_000, START + 5 * HOUR, False,
                      {"cpuUsage": 5}, ())  # fmt: skip
    with closing(SqliteStore(path)) as store:
        _commit(store, plain, [late, *_rows(240, 360)])
        _keep_up(store, START + 7 * HOUR)
    with open_history(path) as history:
        assert {key: _found(history, key) for key in HOSTS} == {key: _expected(plain, key) for key in HOSTS}
        hour = START + 2 * HOUR
        (found,) = history.summaries(HOSTS[1], "cpuUsage", hour, hour + HOUR, HOUR)
        expected = plain.summary(HOSTS[1], "cpuUsage", Owner.HARDWARE, hour, hour + HOUR)
        assert expected is not None
        assert (found.counted, found.min, found.last) == (61, expected["min"], expected["last"])
    assert (damaged,) in _query(path, "SELECT data FROM blocks")


def test_a_damaged_page_of_blocks_holds_up_no_other_record(
    path: Path, plain: PlainList, caplog: pytest.LogCaptureFixture
) -> None:
    ((data,),) = _query(path, "SELECT data FROM blocks WHERE stream = 2 AND tier = 0 AND start = ?", START + HOUR)
    _damage_page(path, data[:40])
    with closing(SqliteStore(path)) as store:
        _commit(store, plain, _rows(240, 360))
        for again in range(3):
            _keep_up(store, START + 7 * HOUR + again * 2 * MINUTE)
        _commit(store, plain, _rows(360, 370))
    assert 1 <= len(caplog.records) <= 10
    with open_history(path) as history:
        for key in HOSTS:
            found, expected = _found(history, key), _expected(plain, key)
            assert [one for one in expected if one in found] == found
            # What came after the damage is there, of all records.
            assert found[-130:] == expected[-130:]
        assert history.damaged


# --- rows ---


def test_a_damaged_page_of_rows_costs_its_rows_only(
    path: Path, plain: PlainList, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    _damage_page(path, _ROW)
    with closing(SqliteStore(path)) as store:
        _commit(store, plain, _rows(240, 480))
        for again in range(3):
            _keep_up(store, START + 9 * HOUR + again * 2 * MINUTE)
        _commit(store, plain, _rows(480, 490))
    assert 1 <= len(caplog.records) <= 10
    with open_history(path) as history:
        for key in HOSTS:
            found, expected = _found(history, key), _expected(plain, key)
            assert [one for one in expected if one in found] == found
            assert len(expected) - 40 < len(found) < len(expected)
        assert history.damaged
    status, told = _check(path, capsys)
    assert status == 1
    assert all(f"{key} some messages from 2026-11-18 03:" in told for key in HOSTS)


def test_a_row_that_is_no_message_is_told_and_left_out(
    path: Path, plain: PlainList, caplog: pytest.LogCaptureFixture
) -> None:
    _query(path, "UPDATE history SET statement = '[1,' WHERE stream = 2 AND seq = 190")
    with closing(SqliteStore(path)) as store:
        _commit(store, plain, _rows(240, 360))
        _keep_up(store, START + 7 * HOUR)
    assert "f01234/seal02" in caplog.text
    plain.rows = [row for row in plain.rows if (row.record, row.position.seq) != (HOSTS[1], 190)]
    with open_history(path) as history:
        assert {key: _found(history, key) for key in HOSTS} == {key: _expected(plain, key) for key in HOSTS}
        assert {one.record for one in history.damaged} == {HOSTS[1]}
    assert _query(path, "SELECT DISTINCT stream FROM history") == [(2,)]


def test_a_damaged_mirror_acknowledges_nothing(path: Path, plain: PlainList) -> None:
    stored = row_of(HOSTS[0], {"taskState": "precious " * 9}, seqs={"taskState": 1})
    with closing(SqliteStore(path)) as store:
        store.commit(Batch(records={HOSTS[0]: stored}))
    _damage_page(path, b"precious")
    with closing(SqliteStore(path)) as store, pytest.raises(StoreError) as refused:
        store.load()
    assert "check --db" in str(refused.value)
    with closing(SqliteStore(path)) as store, pytest.raises(DamageError) as refused:
        store.commit(Batch(history=_rows(240, 241), records={HOSTS[0]: stored}))
    assert "\n" not in str(refused.value)
    _require_all(path, plain)


# --- telemetry check --db ---


def test_a_whole_database_is_fine_while_an_aggregator_has_it_open(
    path: Path, plain: PlainList, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _check(path, capsys)[0] == 0
    with closing(SqliteStore(path)) as store:
        _commit(store, plain, _rows(240, 250))
        status, told = _check(path, capsys)
        assert status == 0
        assert "280 rows" in told
        _keep_up(store, START + 7 * HOUR)
        assert _check(path, capsys)[0] == 0


def test_a_record_that_was_forgotten_is_no_damage(
    path: Path, plain: PlainList, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(SqliteStore(path)) as store:
        assert delete_history(path, [HOSTS[3]]) == 1
        _commit(store, plain, _rows(240, 250))
    plain.rows = [row for row in plain.rows if row.record != HOSTS[3] or row.position.seq > 240]
    status, told = _check(path, capsys)
    assert (status, "cannot be read" in told) == (0, False)
    _require_all(path, plain)


@pytest.mark.usefixtures("plain")
def test_the_check_writes_nothing_and_finds_each_damaged_block(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _damage_block(path, HOSTS[1], Tier.MESSAGES, START)
    _damage_block(path, HOSTS[1], Tier.MESSAGES, START + HOUR)
    _damage_block(path, HOSTS[2], Tier.HOURS, START)
    before = path.read_bytes()
    status, told = _check(path, capsys, "--json")
    failed = {(one["subject"], one["text"]) for one in orjson.loads(told) if one["status"] == "fail"}
    assert status == 1
    assert {
        ("f01234/seal02", "messages from 2026-11-18 00:00Z to 2026-11-18 02:00Z cannot be read"),
        ("f01234/seal03", "summaries of an hour from 2026-11-18 00:00Z to 2026-11-19 00:00Z cannot be read"),
    } <= failed
    assert path.read_bytes() == before


@pytest.mark.usefixtures("plain")
def test_all_that_can_be_read_is_saved(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = row_of(HOSTS[0], {"diskR": 5}, seqs={"diskR": 1})
    with closing(SqliteStore(path)) as store:
        store.commit(Batch(records={HOSTS[0]: stored}))
    _damage_page(path, _ROW)
    with open_history(path) as history:
        readable = {key: _found(history, key) for key in HOSTS}
    saved = tmp_path / "saved.db"
    assert _check(path, capsys, "--save", str(saved))[0] == 1
    assert _check(saved, capsys)[0] == 0
    with closing(SqliteStore(saved)) as store:
        assert store.load().records == {HOSTS[0]: stored}
        more = _rows(240, 480)
        store.commit(Batch(history=more))
        _keep_up(store, START + 10 * HOUR)
    with open_history(saved) as history:
        for key in HOSTS:
            later = [(row.time, *row.position, row.values) for row in more if row.record == key]
            assert _found(history, key) == readable[key] + later
        assert not history.damaged
    assert _query(saved, "SELECT count(*) FROM history") == [(0,)]
    assert main(["check", "--db", "--database", str(path), "--save", str(saved)]) == 2


@pytest.mark.usefixtures("plain")
def test_what_cannot_be_saved_as_a_whole_is_not_there_at_all(path: Path, tmp_path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        store.commit(Batch(history=_rows(240, 6000)))
    assert path.stat().st_size > 1 << 20
    words = ("check", "--db", "--database", path, "--save", tmp_path / "saved.db")
    limited = ("prlimit", "--fsize=524288", sys.executable, "-m", "telemetry", *map(str, words))
    told = subprocess.run(limited, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 1
    assert told.stderr.endswith("; nothing was saved\n")
    assert told.stderr.count("\n") == 1
    assert not list(tmp_path.glob("saved*"))


# --- disks ---


def _is_root() -> bool:
    return os.geteuid() == 0 and shutil.which("mount") is not None


@contextmanager
def _mounted(directory: Path, size: str) -> Iterator[Path]:
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    if not _is_root() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a tmpfs of one's own needs root, and the right to mount")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


@contextmanager
def _filled(directory: Path) -> Iterator[None]:
    filler = directory / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    yield
    filler.unlink()


@contextmanager
def _limited(directory: Path) -> Iterator[None]:
    """No file grows beyond what the write-ahead log is."""
    largest = max(file.stat().st_size for file in directory.glob("telemetry.db-wal"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


Full = Callable[[Path], AbstractContextManager[None]]


@pytest.fixture(params=["tmpfs", "RLIMIT_FSIZE"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Full]]:
    """A directory, and how to have it full."""
    if request.param == "tmpfs":
        with _mounted(tmp_path / "disk", "3m") as directory:
            yield directory, _filled
    else:
        yield tmp_path, _limited


def test_a_full_disk_in_the_middle_of_a_commit_and_of_upkeep_loses_nothing(
    disk: tuple[Path, Full], caplog: pytest.LogCaptureFixture
) -> None:
    directory, full = disk
    path, plain = directory / "telemetry.db", PlainList()
    with closing(SqliteStore(path)) as store:
        _commit(store, plain, _rows(0, 240))
        with full(directory):
            refused = 0
            for minute in range(240, 1200, 60):
                try:
                    _commit(store, plain, _rows(minute, minute + 60))
                except StoreBusyError:
                    refused += 1
                for again in range(4):
                    _keep_up(store, START + 24 * HOUR + minute * MINUTE + again * 2 * MINUTE)
            assert refused
            assert "it is packed when that is mended" in caplog.text
            assert len(caplog.records) <= 4, caplog.text
            _require_all(path, plain)
        _commit(store, plain, _rows(1200, 1260))
        _keep_up(store, START + 3 * DAY)
        assert _query(path, "SELECT count(*) FROM history") == [(0,)]
        _require_all(path, plain)


def test_a_commit_that_fails_in_the_middle_of_upkeep_packs_nothing_twice(path: Path) -> None:
    plain = PlainList()
    with closing(SqliteStore(path)) as store:
        _commit(store, plain, _rows(0, 240))
        for step in range(12):
            store.maintain(START + 6 * HOUR)
            with pytest.raises(OverflowError):
                store.commit(Batch(history=[_rows(240, 241)[0]._replace(time=2**70 + step)]))
        for again in range(3):
            _keep_up(store, START + 6 * HOUR + again * 2 * MINUTE)
    _require_all(path, plain)


@pytest.mark.usefixtures("plain")
def test_upkeep_waits_for_no_lock(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(SqliteStore(path)) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        waited: list[str] = []
        store._connection.set_trace_callback(waited.append)
        other.execute("BEGIN IMMEDIATE")
        assert not store.maintain(START + 7 * HOUR)
        other.execute("ROLLBACK")
        assert waited.index("PRAGMA busy_timeout = 0") < waited.index("BEGIN IMMEDIATE")
        assert "locked" in caplog.text
        _keep_up(store, START + 7 * HOUR + 2 * MINUTE)
        store.commit(Batch(history=_rows(240, 241)))
    assert _query(path, "SELECT count(*) FROM history") == [(4,)]


def test_on_a_read_only_mount_all_can_be_read_and_the_aggregator_says_so(
    tmp_path: Path, path: Path, plain: PlainList, capsys: pytest.CaptureFixture[str]
) -> None:
    with _mounted(tmp_path / "disk", "20m") as directory:
        copy = directory / path.name
        shutil.copy(path, copy)
        subprocess.run(["mount", "-o", "remount,ro", directory], check=True)
        with pytest.raises(StoreError) as refused:
            SqliteStore(copy)
        assert "Read-only file system" in str(refused.value)
        assert _check(copy, capsys)[0] == 0
        _require_all(copy, plain)
        subprocess.run(["mount", "-o", "remount,rw", directory], check=True)
        with closing(SqliteStore(copy)) as store:
            _commit(store, plain, _rows(240, 250))
        _require_all(copy, plain)


def test_what_a_write_ahead_log_holds_on_a_read_only_mount_is_not_passed_over(
    tmp_path: Path, path: Path, plain: PlainList, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(SqliteStore(path)) as store, _mounted(tmp_path / "disk", "20m") as directory:
        _commit(store, plain, _rows(240, 250))
        for suffix in ("", "-wal", "-shm"):
            shutil.copy(f"{path}{suffix}", directory)
        copy = directory / path.name
        subprocess.run(["mount", "-o", "remount,ro", directory], check=True)
        assert _check(copy, capsys)[0] == 0
        _require_all(copy, plain)
        subprocess.run(["mount", "-o", "remount,rw", directory], check=True)
        (directory / "telemetry.db-shm").unlink()
        subprocess.run(["mount", "-o", "remount,ro", directory], check=True)
        assert main(["check", "--db", "--database", str(copy)]) == 1
        assert "copy both" in capsys.readouterr().err


# --- clocks ---


def _run(store: SqliteStore, since: int, hours: int) -> None:
    """Let upkeep go on as an aggregator does, with a look at the clock every ten minutes."""
    for minute in range(0, hours * 60, 10):
        _keep_up(store, since + minute * MINUTE)


def test_a_clock_that_jumps_a_year_and_is_set_back_deletes_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, year = PlainList(), 365 * DAY
    with closing(SqliteStore(path, RETENTION)) as store:
        _commit(store, plain, _rows(0, 240))
        _run(store, START, 6)
        _commit(store, plain, _rows(360, 420, shift=year))
        _run(store, START + 6 * HOUR + year, 18)
        assert [record.getMessage()[:30] for record in caplog.records] == ["the clock is 365 days later th"]
        _commit(store, plain, _rows(1440, 1500))
        _run(store, START + 24 * HOUR, 6)
        assert len(caplog.records) == 2
        assert _query(path, "SELECT count(*) FROM history") == [(0,)]
    _require_all(path, plain)


def test_what_a_wrong_clock_stamped_is_packed_with_the_rest(path: Path) -> None:
    plain = PlainList()
    with closing(SqliteStore(path, RETENTION)) as store:
        for first, shift in ((0, 365 * DAY), (20, 0), (40, -365 * DAY)):
            _commit(store, plain, _rows(first, first + 20, shift=shift))
        # A host whose clock goes wrong with the aggregator's.
        ahead = _rows(80, 81, shift=365 * DAY)
        _commit(store, plain, [row._replace(time=row.received) for row in ahead])
        _run(store, START + 2 * HOUR, 1)
        assert _query(path, "SELECT count(*) FROM history") == [(0,)]
    _require_all(path, plain)


def test_a_clock_that_goes_on_for_two_days_is_believed(path: Path) -> None:
    plain = PlainList()
    with closing(SqliteStore(path, RETENTION)) as store:
        _commit(store, plain, _rows(0, 60))
        _run(store, START, 4)
    _require_all(path, plain)
    with closing(SqliteStore(path, RETENTION)) as store:
        _run(store, START + 20 * DAY, 20)
        _require_all(path, plain)
    with closing(SqliteStore(path, RETENTION)) as store:
        _run(store, START + 21 * DAY, 30)
    with open_history(path) as history:
        assert [_found(history, key) for key in HOSTS] == [[]] * 4
        # Summaries are kept for longer.
        (summary,) = history.summaries(HOSTS[0], "cpuUsage", START, START + HOUR, HOUR)
        assert summary.counted == 60


def test_a_host_whose_clock_is_a_year_behind_has_a_history_all_the_same(path: Path) -> None:
    plain = PlainList()
    rows = [row._replace(received=row.received + 365 * DAY) for row in _rows(0, 60)]
    with closing(SqliteStore(path, RETENTION)) as store:
        _commit(store, plain, rows)
        _run(store, START + 365 * DAY, 72)
        assert _query(path, "SELECT count(*) FROM history") == [(0,)]
    _require_all(path, plain)


def test_a_host_whose_clock_is_a_year_ahead_is_packed_as_any_other(path: Path) -> None:
    plain = PlainList()
    rows = [row._replace(received=row.received - 365 * DAY) for row in _rows(0, 60)]
    with closing(SqliteStore(path, RETENTION)) as store:
        _commit(store, plain, rows)
        _run(store, START - 365 * DAY, 4)
        assert _query(path, "SELECT count(*) FROM history") == [(0,)]
    _require_all(path, plain)


# --- the cap, and what an older version kept ---


def test_the_oldest_goes_before_its_time_where_there_is_more_than_may_be(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    retention = Retention(messages=1e9, five_minutes=1e9, hours=1e9, bytes=700_000)
    plain, noise = PlainList(), random.Random(1)
    with closing(SqliteStore(path, retention)) as store:
        for minute in range(0, 6000, 60):
            rows = _rows(minute, minute + 60)
            _commit(store, plain, [row._replace(values={**row.values, "noise": noise.random()}) for row in rows])
            _keep_up(store, START + (minute + 60) * MINUTE)
        pages, free = (
            store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count")
        )
        # What was packed after it was looked at comes on top.
        assert (pages - free) * 4096 < retention.bytes + 100_000
    assert caplog.text.count("history.bytes") == 1
    with open_history(path) as history:
        for key in HOSTS:
            found = _found(history, key)
            assert 300 < len(found) < 6000
            assert found == _expected(plain, key)[-len(found) :]
            hours = history.summaries(key, "cpuUsage", START, START + 6000 * MINUTE, HOUR)
            assert [one.counted for one in hours] == [60] * 100


def test_rows_go_last_and_the_cap_holds(path: Path) -> None:
    retention = Retention(messages=1e9, five_minutes=1e9, hours=1e9, bytes=400_000)
    plain = PlainList()
    with closing(SqliteStore(path, retention)) as store:
        for minute in range(0, 2000, 100):
            _commit(store, plain, _rows(minute, minute + 100))
            _keep_up(store, START + minute // 100 * 2 * MINUTE)
    with open_history(path) as history:
        for key in HOSTS:
            found = _found(history, key)
            assert 100 <= len(found) < 2000
            assert found == _expected(plain, key)[-len(found) :]


def test_what_version_1_kept_is_there_afterwards(path: Path) -> None:
    plain = PlainList()
    plain.rows = [
        *_rows(0, 700),
        HistoryRow(
            RecordKey("f01234"), Owner.MINER, Position(1, 1), START, START + 5, True, {"a": [1, {"b": None}]}, ("gone",)
        ),
    ]
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE history")
        for table in ("blocks", "streams", "names", "clock"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute(
            "CREATE TABLE history (id INTEGER PRIMARY KEY, minerId TEXT, hostName TEXT, owner TEXT, epoch INTEGER,"
            " seq INTEGER, time INTEGER, received INTEGER, full INTEGER, fields TEXT, gone TEXT)"
        )
        connection.executemany(
            "INSERT INTO history (minerId, hostName, owner, epoch, seq, time, received, full, fields, gone)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (*row.record, row.owner.value, *row.position, row.time, row.received, row.full,
                 orjson.dumps(row.values).decode(), orjson.dumps(row.gone).decode())
                for row in plain.rows
            ],
        )  # fmt: skip
        connection.execute("PRAGMA user_version = 1")
    with closing(SqliteStore(path)) as store:
        _require_all(path, plain)
        _commit(store, plain, _rows(700, 710))
        _keep_up(store, START + 20 * HOUR)
    _require_all(path, plain)
    with open_history(path) as history:
        ((owner, one),) = history.statements(RecordKey("f01234"))
        assert (owner, one.values, one.gone, one.full, one.delay) == (
            Owner.MINER,
            {"a": [1, {"b": None}]},
            ("gone",),
            True,
            5,
        )
    assert _query(path, "SELECT count(*) FROM history") == [(0,)]
