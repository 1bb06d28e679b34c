"""What an agent's spool keeps: over kill -9, full disks, broken files and wrong clocks, on disk as in memory."""

import contextlib
import itertools
import json
import logging
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.agent.spool import SpoolFile
from telemetry.agent.state import EpochFile
from telemetry.errors import StoreError
from telemetry.fields import Owner
from telemetry.spooling import MOST_BYTES, MOST_ROWS, MemorySpool, Row, Spool
from telemetry.topics import AgentKey, Topics
from tests.conftest import StartPart
from tests.parts import FAST, Broker, Listener, Process, wait_for

KEY = AgentKey("f01234", "gpu01")
TOPIC = Topics().change(KEY.record, Owner.HARDWARE)
BEGAN = 1_700_000_000_000
END = 1 << 60


class Clock:
    """A monotonic clock that stands until it is set."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def _open(directory: Path, *, time_ms: int = BEGAN, **options: Any) -> SpoolFile:
    return SpoolFile(directory, KEY, time_ms=time_ms, **options)


def _rows(spool: Spool, count: int, size: int = 0) -> list[Row]:
    """The next rows of a spool."""
    texts = [f'"_seq":{seq},"text":"{"x" * size}"}}'.encode() for seq in range(spool.next, spool.next + count)]
    return [Row(spool.epoch, seq, TOPIC, text) for seq, text in enumerate(texts, spool.next)]


def _append(spool: Spool, count: int, size: int = 0) -> list[Row]:
    rows = _rows(spool, count, size)
    assert spool.append(rows)
    assert spool.next == rows[-1].seq + 1
    return rows


def _append_or_begin(spool: Spool, count: int) -> list[Row]:
    """Append as a publisher does."""
    rows = _rows(spool, count)
    if not spool.append(rows):
        _begin(spool)
        rows = _append(spool, count)
    return rows


def _begin(spool: Spool) -> int:
    spool.begin(spool.epoch + 7)
    return spool.epoch


def _batches(spool: Spool) -> Iterator[list[Row]]:
    after = 0
    while batch := spool.read(after, END):
        assert batch[0].seq > after
        yield batch
        after = batch[-1].seq


def _all(spool: Spool) -> list[Row]:
    return [row for batch in _batches(spool) for row in batch]


def _told(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


def _file(directory: Path) -> Path:
    return directory / f"{KEY.client_id}.spool"


def _files(directory: Path) -> list[Path]:
    """What a spool's rows are in, in their order."""
    return sorted(_file(directory).glob("*.log"), key=_first)


def _first(path: Path) -> int:
    return int(path.stem.split("-")[1])


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in _files(directory))


def _broken(directory: Path) -> Path:
    return _file(directory).with_suffix(".broken")


# --- the contract ---


def _without_a_disk(directory: Path, most_bytes: int) -> SpoolFile:
    (directory / "a file").touch()
    return _open(directory / "a file" / "agent", most_bytes=most_bytes)


SPOOLS: dict[str, Callable[[Path, int], Spool]] = {
    "file": lambda directory, most: _open(directory, most_bytes=most),
    "file without a disk": _without_a_disk,
    "memory": lambda _, most: MemorySpool(BEGAN, most_bytes=most),
}
"""How each spool is opened in a directory, with a bound of bytes."""


@pytest.fixture(params=SPOOLS)
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Spool:
    return SPOOLS[request.param](tmp_path, 64 << 20)


def test_a_new_spool_is_empty_and_has_a_log(spool: Spool) -> None:
    assert spool.epoch >= BEGAN
    assert spool.next >= 1
    assert (spool.lost, list(spool.epochs()), spool.oldest(spool.epoch), spool.read(0, END)) == (0, [], None, [])


def test_logs_follow_each_other_and_numbers_go_on_over_all(spool: Spool) -> None:
    rows, logs = [], []
    for _ in range(3):
        logs.append(_begin(spool))
        rows += _append(spool, 4)
    assert list(spool.epochs()) == logs
    assert [spool.oldest(log) for log in logs] == [rows[0].seq, rows[4].seq, rows[8].seq]
    assert [row.seq for row in rows] == list(range(rows[0].seq, rows[0].seq + 12))
    assert list(_batches(spool)) == [rows[:4], rows[4:8], rows[8:]]


def test_what_is_deleted_is_of_one_log_up_to_a_number(spool: Spool) -> None:
    first, rows = spool.epoch, _append(spool, 4)
    second = _begin(spool)
    rows += _append(spool, 4)
    spool.delete(second, rows[5].seq)
    assert _all(spool) == [*rows[:4], *rows[6:]]
    spool.delete(first, rows[1].seq)
    assert (spool.oldest(first), spool.oldest(second)) == (rows[2].seq, rows[6].seq)
    spool.delete(first, END)
    assert (list(spool.epochs()), spool.oldest(first), _all(spool)) == ([second], None, rows[6:])
    spool.delete(first, END)
    spool.delete(second + 1, END)
    assert _all(spool) == rows[6:]
    assert spool.lost == 0


def test_a_batch_lies_between_two_numbers(spool: Spool) -> None:
    rows = _append(spool, 9)
    assert spool.read(rows[2].seq, rows[6].seq) == rows[3:6]
    assert spool.read(rows[2].seq, rows[3].seq) == []
    assert spool.read(rows[8].seq, END) == []


def test_a_batch_has_so_many_rows_at_most(spool: Spool) -> None:
    rows = _append(spool, 2 * MOST_ROWS + 1)
    assert list(_batches(spool)) == [rows[:MOST_ROWS], rows[MOST_ROWS : 2 * MOST_ROWS], rows[2 * MOST_ROWS :]]


def test_a_batch_has_so_many_bytes_at_most_but_one_row_always(spool: Spool) -> None:
    rows = _append(spool, 5, MOST_BYTES // 2 - 200) + _append(spool, 1, 3 * MOST_BYTES) + _append(spool, 1)
    assert list(_batches(spool)) == [rows[:2], rows[2:4], rows[4:5], rows[5:6], rows[6:]]


def _reference_batch(rows: Sequence[Row]) -> list[Row]:
    sizes = itertools.accumulate(row.size for row in rows)
    fits = [
        size <= MOST_BYTES and row.epoch == rows[0].epoch for row, size in zip(rows[:MOST_ROWS], sizes, strict=False)
    ]
    return [
        *rows[:1],
        *(row for row, _ in itertools.takewhile(lambda pair: pair[1], list(zip(rows, fits, strict=False))[1:])),
    ]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 60), st.sampled_from([0, 300, 9_000, 40_000])),
        st.tuples(st.just("begin"), st.just(0), st.just(0)),
        st.tuples(st.just("delete"), st.integers(0, 3), st.integers(-1, 60)),
        st.tuples(st.just("read"), st.integers(-1, 120), st.integers(0, 120)),
        st.tuples(st.just("reopen"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


@pytest.mark.parametrize("name", ["file", "memory"])
@settings(max_examples=40, deadline=None)
@given(operations=OPERATIONS, most=st.sampled_from([2_000, 100_000, 64 << 20]))
def test_a_spool_does_what_a_list_would(name: str, operations: list[tuple[str, int, int]], most: int) -> None:
    with TemporaryDirectory() as temporary, contextlib.ExitStack() as files:
        spool = SPOOLS[name](Path(temporary), most)
        rows: list[Row] = []
        added: list[Row] = []
        logs, following, lost = [spool.epoch], spool.next, 0
        for operation, a, b in operations:
            match operation:
                case "append":
                    added = _append(spool, a, b)
                    rows += added
                    following += a
                case "begin":
                    logs.append(_begin(spool))
                case "delete":
                    log = logs[-1 - a % len(logs)]
                    through = next((row.seq for row in rows if row.epoch == log), following) + b
                    spool.delete(log, through)
                    rows = [row for row in rows if row.epoch != log or row.seq > through]
                case "read":
                    first = rows[0].seq if rows else following
                    ranged = [row for row in rows if first + a < row.seq < first + a + b]
                    assert spool.read(first + a, first + a + b) == _reference_batch(ranged)
                case "reopen" if isinstance(spool, SpoolFile):
                    spool.close()
                    spool = _open(Path(temporary), time_ms=1, most_bytes=most)
                    # A log in which nothing was kept yet is not gone on with.
                    assert spool.epoch >= logs[-1]
                    logs.append(spool.epoch)
            # The oldest go where they have to, not where they need not, and not those that came last.
            assert spool.lost == lost or sum(row.size + 200 for row in rows) > most
            rows, lost = rows[spool.lost - lost :], spool.lost
            size = _bytes(Path(temporary)) if isinstance(spool, SpoolFile) else sum(row.size for row in rows)
            assert size <= most + 600 or set(rows) <= set(added)
            assert operation != "append" or rows[-1] == added[-1]
            assert list(spool.epochs()) == list(dict.fromkeys(row.epoch for row in rows))
            for log in logs:
                assert spool.oldest(log) == next((row.seq for row in rows if row.epoch == log), None)
            assert (spool.next, spool.lost, spool.epoch) == (following, lost, logs[-1])
        assert _all(spool) == rows
        if isinstance(spool, SpoolFile):
            files.callback(spool.close)


# --- kill -9 ---

_APPENDING = """
import sys
from pathlib import Path
from telemetry.agent.spool import SpoolFile
from telemetry.spooling import Row
from telemetry.topics import AgentKey

spool = SpoolFile(Path(sys.argv[1]), AgentKey("f01234", "gpu01"), time_ms=int(sys.argv[2]))
print(spool.epoch, flush=True)
while True:
    rows = [Row(spool.epoch, seq, "topic", b"%d}" % seq) for seq in range(spool.next, spool.next + 3)]
    assert spool.append(rows)
    print(rows[-1].seq, flush=True)
"""


def _child(script: str, *arguments: object, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )


def test_what_was_appended_is_there_after_kill_9_however_often(tmp_path: Path) -> None:
    chance = random.Random()
    epochs, printed = set(), 0
    for begun in range(5):
        with _child(_APPENDING, tmp_path, BEGAN - begun) as child:
            assert child.stdout is not None
            epochs.add(int(child.stdout.readline()))
            for _ in range(chance.randint(1, 150)):
                printed = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            printed = max([printed, *(int(line) for line in child.stdout.read().split())])
            assert child.wait(10) == -signal.SIGKILL
        with closing(_open(tmp_path)) as spool:
            rows = _all(spool)
            # Three at once, or none; what was kept may not have been printed any more.
            assert [row.seq for row in rows] in [list(range(1, last + 1)) for last in (printed, printed + 3)]
            assert all(row.kept == b"%d}" % row.seq for row in rows)
            assert (spool.next, spool.oldest(spool.epoch)) == (rows[-1].seq + 1, 1)
            printed = rows[-1].seq
    assert epochs == {BEGAN}


def test_numbers_go_on_after_all_was_deleted(tmp_path: Path) -> None:
    with closing(_open(tmp_path)) as spool:
        last = _append(spool, 20)[-1].seq
        spool.delete(spool.epoch, last)
        assert not spool.epochs()
    with closing(_open(tmp_path)) as spool:
        assert (spool.next, spool.epoch, _all(spool)) == (last + 1, BEGAN, [])
        assert _all(spool) == []
        assert _append(spool, 1)[0].seq == last + 1


def test_what_is_acknowledged_at_once_makes_neither_many_files_nor_large_ones(tmp_path: Path) -> None:
    seen: set[Path] = set()
    with closing(_open(tmp_path)) as spool:
        for _ in range(2_000):
            spool.delete(spool.epoch, _append(spool, 1, 300)[-1].seq)
            (path,) = _files(tmp_path)
            seen.add(path)
            assert _size(path) < 200_000
    assert 2 <= len(seen) <= 12
    with closing(_open(tmp_path)) as spool:
        assert (list(spool.epochs()), spool.next, spool.epoch) == ([], 2_001, BEGAN)


def test_deletions_are_known_after_kill_9_in_all_logs(tmp_path: Path) -> None:
    rows = _filled(tmp_path)
    with closing(_open(tmp_path)) as spool:
        spool.delete(rows[0].epoch, 100)
        spool.delete(rows[-1].epoch, 500)
        left = [*rows[100:420], *rows[500:]]
        assert _all(spool) == left
        shutil.copytree(_file(tmp_path), _file(tmp_path / "killed"))
        with closing(_open(tmp_path / "killed")) as killed:
            assert _all(killed) == left


_HOLDING = """
import sys
from pathlib import Path
from telemetry.agent.spool import SpoolFile
from telemetry.topics import AgentKey

spool = SpoolFile(Path(sys.argv[1]), AgentKey("f01234", "gpu01"), time_ms=1)
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_in_one_line(tmp_path: Path) -> None:
    with _child(_HOLDING, tmp_path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        with pytest.raises(StoreError) as refused:
            _open(tmp_path)
        child.kill()
        child.wait(10)
    assert "\n" not in str(refused.value)
    assert str(_file(tmp_path)) in str(refused.value)
    assert "--name" in str(refused.value)
    with closing(_open(tmp_path)) as spool:
        _append(spool, 1)


# --- epochs ---


@pytest.mark.parametrize("time_ms", [1, BEGAN, BEGAN + 86_400_000])
def test_a_process_that_begins_again_goes_on_in_the_same_log(tmp_path: Path, time_ms: int) -> None:
    with closing(_open(tmp_path)) as spool:
        rows = _append(spool, 3)
    with closing(_open(tmp_path, time_ms=time_ms)) as spool:
        assert (spool.epoch, spool.next) == (BEGAN, 4)
        assert _all(spool) == rows


@pytest.mark.parametrize("time_ms", [1, BEGAN + 86_400_000])
def test_a_log_that_went_on_elsewhere_is_followed_by_a_higher_one(tmp_path: Path, time_ms: int) -> None:
    with closing(_open(tmp_path)) as spool:
        rows = _append(spool, 3)
    EpochFile(tmp_path, KEY).keep(BEGAN + 5_000)
    with closing(_open(tmp_path, time_ms=time_ms)) as spool:
        assert spool.epoch == max(time_ms, BEGAN + 5_001) == EpochFile(tmp_path, KEY).last()
        rows += _append(spool, 1)
        assert _all(spool) == rows
        assert [row.seq for row in rows] == [1, 2, 3, 4]


def test_a_spool_that_is_gone_is_followed_by_a_higher_log_where_the_clock_went_back(tmp_path: Path) -> None:
    _open(tmp_path).close()
    shutil.rmtree(_file(tmp_path))
    with closing(_open(tmp_path, time_ms=BEGAN - 1_000_000)) as spool:
        assert spool.epoch == BEGAN + 1


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"text", id="text"),
        pytest.param(b"\xff\xfe" * 40, id="bytes"),
        pytest.param(b"-5\n", id="below zero"),
        pytest.param(b"7258118400001", id="after 2200"),
        pytest.param(b"9" * 24, id="24 digits"),
        pytest.param(b"9" * 5_000, id="5000 digits"),
    ],
)
def test_a_broken_file_of_the_epoch_costs_nothing_and_is_mended(tmp_path: Path, damage: bytes) -> None:
    with closing(_open(tmp_path)) as spool:
        _append(spool, 3)
    (tmp_path / f"{KEY.client_id}.epoch").write_bytes(damage)
    with closing(_open(tmp_path)) as spool:
        assert (spool.epoch, spool.next) == (BEGAN, 4)
        assert EpochFile(tmp_path, KEY).last() == 0
        begun = _begin(spool)
        _append(spool, 1)
    assert EpochFile(tmp_path, KEY).last() == begun


# --- bounds ---


def test_the_oldest_go_where_there_are_too_many_bytes_and_that_is_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    with closing(_open(tmp_path, most_bytes=10_000, now=clock)) as spool:
        rows = [row for _ in range(100) for row in _append(spool, 1, 300)]
        kept = _all(spool)
        assert kept == rows[-len(kept) :]
        assert 8_000 < _bytes(tmp_path) < 10_200
        assert spool.lost == 100 - len(kept)
        assert spool.oldest(spool.epoch) == kept[0].seq
        # At once, but no line for every message of a week.
        assert len(_told(caplog, "messages dropped")) == 1
        clock.seconds += 3_601
        _append(spool, 1, 300)
        assert sum(int(line.split(": ")[1].split()[0]) for line in _told(caplog, "messages dropped")) == spool.lost
        lost = spool.lost
    with closing(_open(tmp_path)) as spool:
        assert spool.lost == lost


def test_the_oldest_go_where_they_are_too_old_by_the_clock_of_the_process(tmp_path: Path) -> None:
    clock = Clock()
    with closing(_open(tmp_path, most_seconds=100.0, now=clock)) as spool:
        early = _append(spool, 2)
        clock.seconds += 60
        rows = _append(spool, 2)
        clock.seconds += 39
        rows += _append(spool, 1)
        assert _all(spool) == early + rows
        clock.seconds += 2
        rows += _append(spool, 1)
        assert (_all(spool), spool.lost) == (rows, 2)
    # Another process has another clock; what was counted is kept.
    with closing(_open(tmp_path, most_seconds=100.0, now=(later := Clock()))) as spool:
        later.seconds += 58
        rows += _append(spool, 1)
        assert (_all(spool), spool.lost) == (rows, 2)
        later.seconds += 2
        rows += _append(spool, 1)
        assert (_all(spool), spool.lost) == (rows[2:], 4)


def _preload(directory: Path, source: str) -> dict[str, str]:
    """The environment in which a process calls functions of ours instead of the C library's."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc, clang) to build what stands in for the C library")
    file, library = directory / "preload.c", directory / "preload.so"
    file.write_text(source)
    subprocess.run([compiler, "-std=gnu11", "-shared", "-fPIC", "-o", library, file], check=True)
    return {"LD_PRELOAD": str(library)}


def test_what_is_looked_at_again_while_the_process_runs_is_no_older(tmp_path: Path) -> None:
    clock = Clock()
    with closing(_open(tmp_path, most_seconds=100.0, now=clock)) as spool:
        rows = _append(spool, 1)
        clock.seconds += 60
        rows += _append(spool, 1)
        _append(spool, 1)
        path = _files(tmp_path)[-1]
        _overwrite(path, _size(path) - 1, b"x")
        assert _all(spool) == rows
        assert not spool.append(_rows(spool, 1))
        _begin(spool)
        rows += _append(spool, 1)
        assert (_all(spool), spool.lost) == (rows, 0)


_SHIFTED_CLOCK = """
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    const char *path = getenv("WALL_CLOCK_SHIFT");
    FILE *file = clock == CLOCK_REALTIME && path ? fopen(path, "r") : NULL;
    long seconds = 0;
    if (file) {
        if (fscanf(file, "%ld", &seconds) == 1) time->tv_sec += seconds;
        fclose(file);
    }
    return result;
}
"""

_AGEING = """
import os, sys, time
from pathlib import Path
from telemetry.agent.spool import SpoolFile
from telemetry.spooling import Row
from telemetry.topics import AgentKey

def set_clock(days):
    before = time.time()
    Path(os.environ["WALL_CLOCK_SHIFT"]).write_text(str(86400 * days))
    return time.time() - before

def opened():
    return SpoolFile(Path(sys.argv[1]), AgentKey("f01234", "gpu01"), time_ms=5, most_seconds=7 * 86400.0)

def append(spool):
    assert spool.append([Row(spool.epoch, spool.next, "topic", b"}")])
    print([row.seq for row in spool.read(0, 99)])

set_clock(0)
spool = opened()
append(spool)
assert set_clock(30) > 86400  # forward while it runs
append(spool)
spool.close()
spool = opened()
append(spool)
assert set_clock(-30) < -86400  # back while it runs
append(spool)
spool.close()
set_clock(-60)  # back while none runs
spool = opened()
append(spool)
spool.close()
set_clock(-50)  # ten days in which none ran
spool = opened()
append(spool)
"""


def test_a_wall_clock_that_is_set_makes_nothing_old_but_days_without_a_process_do(tmp_path: Path) -> None:
    environment = _preload(tmp_path, _SHIFTED_CLOCK) | {"WALL_CLOCK_SHIFT": str(tmp_path / "shift")}
    with _child(_AGEING, tmp_path, environment=environment) as child:
        printed, _ = child.communicate(timeout=30)
    assert child.returncode == 0
    assert [json.loads(line) for line in printed.splitlines()] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 3, 4],
        [1, 2, 3, 4, 5],
        [6],
    ]


_TOLD_SYNC = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>

static int told(int result) { return write(1, "on disk\\n", 8) == 8 ? result : -1; }
int fsync(int file) { return told(syscall(SYS_fsync, file)); }
int fdatasync(int file) { return told(syscall(SYS_fdatasync, file)); }
"""

_SYNCING = """
import sys
from pathlib import Path
from telemetry.agent.spool import SpoolFile
from telemetry.spooling import Row
from telemetry.topics import AgentKey

spool = SpoolFile(Path(sys.argv[1]), AgentKey("f01234", "gpu01"), time_ms=5)
print("open", flush=True)
for _ in range(3):
    assert spool.append([Row(spool.epoch, spool.next, "topic", b"}")])
    print("appended", flush=True)
spool.delete(spool.epoch, 2)
print("deleted", flush=True)
"""


def test_what_is_appended_is_on_disk_before_that_returns(tmp_path: Path) -> None:
    with _child(_SYNCING, tmp_path, environment=_preload(tmp_path, _TOLD_SYNC)) as child:
        printed, _ = child.communicate(timeout=30)
    assert child.returncode == 0
    # The first one makes a file, whose name has to be there too.
    assert printed.partition("open\n")[2].splitlines() == [
        *("on disk", "on disk", "appended"),
        *("on disk", "appended"),
        *("on disk", "appended"),
        "deleted",
    ]


# --- a disk that is full ---


@dataclass(frozen=True, slots=True)
class Disk:
    """A directory on a disk that can be filled, and be made room on."""

    directory: Path
    fill: Callable[[], None]
    free: Callable[[], None]


@contextlib.contextmanager
def _mounted(directory: Path) -> Iterator[Path]:
    """A small file system of its own."""
    directory.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=768k", "tmpfs", directory], check=False, capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("a tmpfs of one's own needs root, and the right to mount")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    with _mounted(tmp_path / "disk") as directory:
        yield directory


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def _limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture(params=["tmpfs", "RLIMIT_FSIZE"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "tmpfs":
        with _mounted(tmp_path / "disk") as directory:
            ballast = directory / "ballast"
            yield Disk(directory, lambda: _fill(ballast), ballast.unlink)
    else:
        try:
            yield Disk(tmp_path / "state", lambda: _limit_files(64), lambda: _limit_files(resource.RLIM_INFINITY))
        finally:
            _limit_files(resource.RLIM_INFINITY)


def _append_until_full(spool: SpoolFile) -> list[Row]:
    """Append until the disk is full: what was kept."""
    kept: list[Row] = []
    for _ in range(100):
        rows = _rows(spool, 2, 500)
        if not spool.append(rows):
            return kept
        kept += rows
    raise AssertionError("the disk is not full")


def test_a_spool_on_a_full_disk_works_in_memory_until_there_is_room(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    clock = Clock()
    with closing(_open(disk.directory, now=clock)) as spool:
        rows = _append(spool, 5)
        disk.fill()
        rows += _append_until_full(spool)
        # All or none: what was refused is in none of the logs.
        assert (_all(spool), spool.next) == (rows, rows[-1].seq + 1)
        begun = _begin(spool)
        rows += _append(spool, 2)
        clock.seconds += 11
        rows += _append(spool, 60)
        assert _all(spool) == rows
        assert list(spool.epochs()) == [BEGAN, begun]
        assert not _told(caplog, "can be written again")

        disk.free()
        rows += _append(spool, 1)
        assert not _told(caplog, "can be written again")
        clock.seconds += 11
        rows += _append(spool, 1)
        assert len(_told(caplog, "can be written again")) == 1
        assert len(_told(caplog, "working in memory until it can be written")) == 1
        rows += _append(spool, 1)
        assert (_all(spool), spool.lost) == (rows, 0)
    # What is refused leaves nothing behind.
    assert not _told(caplog, "set aside as")
    with closing(_open(disk.directory)) as spool:
        assert (_all(spool), spool.epoch, spool.next, spool.lost) == (rows, begun, rows[-1].seq + 1, 0)


def test_a_spool_that_ends_on_a_disk_with_room_again_keeps_what_was_in_memory(disk: Disk) -> None:
    with closing(_open(disk.directory)) as spool:
        disk.fill()
        rows = _append_until_full(spool)
        _begin(spool)
        rows += _append(spool, 3)
        disk.free()
    with closing(_open(disk.directory)) as spool:
        assert _all(spool) == rows


def test_a_log_that_was_in_memory_alone_is_never_gone_on_with(disk: Disk) -> None:
    with closing(_open(disk.directory)) as spool:
        rows = _append(spool, 3)
        disk.fill()
        rows += _append_until_full(spool)
        begun = _begin(spool)
        _append(spool, 3)
        spool.delete(begun, END)
    disk.free()
    with closing(_open(disk.directory, time_ms=1)) as spool:
        assert spool.epoch > begun
        assert _all(spool) == rows


def test_a_log_of_which_only_a_part_has_room_stays_in_memory_whole(tmp_path: Path) -> None:
    clock = Clock()
    try:
        with closing(_open(tmp_path, now=clock)) as spool:
            rows = _append(spool, 3)
            _limit_files(64)
            assert not spool.append(_rows(spool, 1))
            begun = _begin(spool)
            _append(spool, 100, 500)
            _limit_files(30_000)
            clock.seconds += 11
            _append(spool, 1)
            assert [row.seq for row in _all(spool)] == list(range(1, 105))
            assert [path.name for path in _file(tmp_path).iterdir() if path not in _files(tmp_path)] == ["lock"]
    finally:
        _limit_files(resource.RLIM_INFINITY)
    with closing(_open(tmp_path, time_ms=1)) as spool:
        assert _all(spool) == rows
        assert spool.epoch > begun


def test_damage_on_a_full_disk_is_mended_when_there_is_room(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with closing(_open(disk.directory)) as spool:
        rows = _append(spool, 30, 300) + _append(spool, 1)
    (path,) = _files(disk.directory)
    os.truncate(path, _size(path) - 1)
    disk.fill()
    with closing(_open(disk.directory, now=clock)) as spool:
        new = _append_or_begin(spool, 1)
        assert len(_told(caplog, "working in memory until it can be written")) == 1
        disk.free()
        clock.seconds += 11
        new += _append(spool, 1)
        assert (_all(spool), len(_told(caplog, "set aside as"))) == (rows[:30] + new, 1)
    with closing(_open(disk.directory)) as spool:
        assert (_all(spool), spool.epoch) == (rows[:30] + new, new[-1].epoch)


def test_deletion_on_a_full_disk_is_made_up_for(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    clock = Clock()
    with closing(_open(disk.directory, now=clock)) as spool:
        rows = _append(spool, 5)
        disk.fill()
        rows += _append_until_full(spool)
        begun = _begin(spool)
        late = _append(spool, 4)
        before = len(caplog.records)
        for row in rows:
            spool.delete(BEGAN, row.seq)
        spool.delete(begun, late[0].seq)
        clock.seconds += 11
        late += _append(spool, 40, 500)
        assert (_all(spool), list(spool.epochs())) == (late[1:], [begun])
        assert len(caplog.records) == before

        disk.free()
        clock.seconds += 11
        late += _append(spool, 1)
        spool.delete(begun, late[1].seq)
        assert (_all(spool), list(spool.epochs())) == (late[2:], [begun])
    with closing(_open(disk.directory)) as spool:
        assert (_all(spool), list(spool.epochs())) == (late[2:], [begun])


def test_a_spool_that_begins_on_a_full_disk_works_in_memory_until_there_is_room(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    disk.directory.mkdir(exist_ok=True)
    disk.fill()
    with closing(_open(disk.directory, now=clock)) as spool:
        rows = _append_or_begin(spool, 3)
        assert _all(spool) == rows
        assert len(_told(caplog, "working in memory until it can be written")) == 1
        disk.free()
        clock.seconds += 11
        rows += _append(spool, 3)
        assert len(_told(caplog, "can be written again")) == 1
    with closing(_open(disk.directory)) as spool:
        assert _all(spool) == rows


def test_what_is_in_memory_is_bounded_and_what_had_to_go_is_counted(tmp_path: Path) -> None:
    clock = Clock()
    try:
        with closing(_open(tmp_path, now=clock)) as spool:
            _limit_files(64)
            rows = _rows(spool, 1)
            assert not spool.append(rows)
            _begin(spool)
            rows = [row for _ in range(12) for row in _append(spool, 1, 1 << 20)]
            kept = _all(spool)
            assert kept == rows[-7:]
            _limit_files(resource.RLIM_INFINITY)
            clock.seconds += 11
            kept += _append(spool, 1)
            assert (_all(spool), spool.lost) == (kept, 5)
    finally:
        _limit_files(resource.RLIM_INFINITY)
    with closing(_open(tmp_path)) as spool:
        assert (_all(spool), spool.lost) == (kept, 5)


def _remount(directory: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", directory], check=True)


@pytest.mark.parametrize("held", [0, 30])
def test_a_spool_in_a_directory_that_is_read_only_works_in_memory_until_it_is_not(
    mounted: Path, held: int, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[Row] = []
    if held:
        with closing(_open(mounted)) as spool:
            rows += _append(spool, held)
            spool.delete(spool.epoch, 10)
            rows = rows[10:]
    _remount(mounted, "ro")
    clock = Clock()
    with closing(_open(mounted, time_ms=BEGAN + 1_000, now=clock)) as spool:
        assert spool.epoch > BEGAN
        begun, new = spool.epoch, _append(spool, 5)
        assert _all(spool) == new
        _remount(mounted, "rw")
        clock.seconds += 11
        new += _append(spool, 5)
        assert len(_told(caplog, "can be written again")) == 1
        # What the file held before has lower numbers than what came while it could not be read.
        assert _all(spool) == rows + new
        new += _append(spool, 5)
        assert list(spool.epochs()) == [*([BEGAN] if held else []), begun]
    with closing(_open(mounted)) as spool:
        assert (_all(spool), spool.epoch) == (rows + new, begun)


# --- a file that is broken ---


def _filled(directory: Path) -> list[Row]:
    """Two logs in two files each."""
    with closing(_open(directory, most_bytes=8 << 20)) as spool:
        rows = [row for _ in range(14) for row in _append(spool, 30, 300)]
        _begin(spool)
        rows += [row for _ in range(14) for row in _append(spool, 30, 300)]
        assert len(_files(directory)) == 4
        return rows


def _overwrite(path: Path, offset: int, damage: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(damage)


def _size(path: Path) -> int:
    return path.stat().st_size


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("damage", "whole"),
    [
        pytest.param(lambda path: _overwrite(path, 0, os.urandom(200)), lambda _: 0, id="beginning"),
        pytest.param(lambda path: _overwrite(path, _size(path) // 2, os.urandom(5_000)), lambda n: n // 2, id="middle"),
        pytest.param(lambda path: _overwrite(path, _size(path) - 1, b"x"), lambda n: n - 1, id="last byte"),
        pytest.param(lambda path: os.truncate(path, _size(path) - 100), lambda n: n - 1, id="torn"),
        pytest.param(lambda path: os.truncate(path, _size(path) + 100), lambda n: n, id="zeros"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes() * 2), lambda n: n, id="twice"),
        pytest.param(lambda path: os.truncate(path, 0), lambda _: 0, id="empty"),
        pytest.param(lambda path: path.write_text("no log\n" * 1000), lambda _: 0, id="text"),
    ],
)
def test_what_stands_beside_damage_keeps_its_numbers_and_a_higher_log_begins(
    tmp_path: Path,
    damage: Callable[[Path], None],
    whole: Callable[[int], int],
    place: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = _filled(tmp_path)
    first, following = [*map(_first, _files(tmp_path)), END][place : place + 2]
    groups = sum(first <= row.seq < following for row in rows) // 30
    path = _files(tmp_path)[place]
    damage(path)
    text, inode = path.read_bytes(), path.stat().st_ino
    for _ in range(2):
        # It ends before anything is kept: the next one must not go on in the log that was damaged either.
        with closing(_open(tmp_path, time_ms=1)) as spool:
            assert spool.epoch > rows[-1].epoch
            left = _all(spool)
            assert left == [row for row in rows if row.seq < first + 30 * whole(groups) or row.seq >= following]
            assert (spool.lost, spool.next) == (0, max(first, left[-1].seq + 1))
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        f"broken; set aside as {_broken(tmp_path).name}, a new log begins"
    ]
    assert (_broken(tmp_path).read_bytes(), _broken(tmp_path).stat().st_ino) == (text, inode)
    with closing(_open(tmp_path, time_ms=1)) as spool:
        left += _append(spool, 3)
        assert _all(spool) == left
    with closing(_open(tmp_path)) as spool:
        assert (_all(spool), spool.epoch) == (left, left[-1].epoch)


def test_a_log_that_was_damaged_is_not_gone_on_with_where_its_epoch_was_lost_too(tmp_path: Path) -> None:
    rows = _filled(tmp_path)
    os.truncate(_files(tmp_path)[-1], _size(_files(tmp_path)[-1]) - 1)
    for _ in range(2):
        (tmp_path / f"{KEY.client_id}.epoch").unlink()
        with closing(_open(tmp_path, time_ms=1)) as spool:
            assert spool.epoch > rows[-1].epoch


def test_deletions_after_damage_do_not_bring_the_log_back(tmp_path: Path) -> None:
    rows = _filled(tmp_path)
    os.truncate(_files(tmp_path)[-1], _size(_files(tmp_path)[-1]) - 1)
    with closing(_open(tmp_path, time_ms=1)) as spool:
        spool.delete(rows[-1].epoch, rows[-1].seq)
    (tmp_path / f"{KEY.client_id}.epoch").unlink()
    with closing(_open(tmp_path, time_ms=1)) as spool:
        assert spool.epoch > rows[-1].epoch
        assert rows[-1].epoch not in spool.epochs()


def _make_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE messages (something)")
        connection.commit()


@pytest.mark.parametrize("make", [_make_database, Path.touch, lambda path: path.write_text("no spool\n")])
def test_a_file_that_is_no_spool_is_set_aside_and_a_higher_log_begins(
    tmp_path: Path, make: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    EpochFile(tmp_path, KEY).keep(BEGAN)
    make(_file(tmp_path))
    inode = _file(tmp_path).stat().st_ino
    with closing(_open(tmp_path, time_ms=1)) as spool:
        assert spool.epoch > BEGAN
        assert len(_told(caplog, f"broken; set aside as {_broken(tmp_path).name}, a new log begins")) == 1
        assert _broken(tmp_path).stat().st_ino == inode
        rows = _append(spool, 3)
    with closing(_open(tmp_path)) as spool:
        assert _all(spool) == rows


@settings(max_examples=60, deadline=None)
@given(damages=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=64)), min_size=1, max_size=12))
def test_whatever_is_written_over_a_file_only_what_was_kept_is_read_and_more_is_taken(
    damages: list[tuple[float, bytes]],
) -> None:
    with TemporaryDirectory() as temporary:
        directory = Path(temporary)
        rows = _filled(directory)
        files = _files(directory)
        for place, damage in damages:
            path = files[int(place * len(files)) % len(files)]
            _overwrite(path, int(place * len(files) % 1 * _size(path)), damage)
        for _ in range(3):
            with closing(_open(directory)) as spool:
                for _ in range(2):
                    assert set(_all(spool)) <= set(rows)
                    for log in spool.epochs():
                        spool.delete(log, (spool.oldest(log) or 0) + 5)
                    rows += _append_or_begin(spool, 1)
        with closing(_open(directory)) as spool:
            assert _all(spool)[-1] == rows[-1]


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_file_that_breaks_while_it_is_used_is_set_aside_at_the_next_message(
    tmp_path: Path, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    rows = _filled(tmp_path)
    with closing(_open(tmp_path)) as spool:
        damaged = _files(tmp_path)[place]
        _overwrite(damaged, _size(damaged) // 2, os.urandom(8192))
        read = _all(spool)
        assert read == rows[: len(read)]
        assert _first(damaged) < read[-1].seq < rows[-1].seq
        assert not spool.append(_rows(spool, 1))
        assert len(_told(caplog, "set aside as")) == 1
        begun = _begin(spool)
        new = _append(spool, 2)
        assert new[0].seq == rows[-1].seq + 1
        left = _all(spool)
        assert left[: len(read)] == read
        assert left[len(read) :] == [row for row in [*rows, *new] if row.seq >= left[len(read)].seq]
        assert list(spool.epochs())[-1] == begun
    assert _broken(tmp_path).exists()
    with closing(_open(tmp_path)) as spool:
        assert (_all(spool), spool.epoch) == (left, begun)
    assert len(_told(caplog, "set aside as")) == 1


def test_a_byte_that_turned_in_a_message_is_found(tmp_path: Path) -> None:
    with closing(_open(tmp_path)) as spool:
        rows = _append(spool, 3, 300) + _append(spool, 1, 300)
    (path,) = _files(tmp_path)
    text = path.read_bytes()
    _overwrite(path, text.rindex(b"xxxx") + 2, b"y")
    with closing(_open(tmp_path)) as spool:
        assert _all(spool) == rows[:3]
        assert spool.epoch > rows[-1].epoch


def test_a_directory_that_is_taken_away_is_made_again(tmp_path: Path) -> None:
    clock = Clock()
    with closing(_open(tmp_path, now=clock)) as spool:
        last = _append(spool, 3)[-1].seq
        shutil.rmtree(_file(tmp_path))
        new = _append_or_begin(spool, 1)
        for _ in range(2):
            clock.seconds += 11
            new += _append(spool, 1)
        assert new[0].seq == last + 1
    with closing(_open(tmp_path)) as spool:
        assert (_all(spool), spool.epoch) == (new, new[-1].epoch)


def test_a_file_that_is_broken_when_the_memory_could_be_left_is_set_aside_and_nothing_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    directory = tmp_path / "file" / "agent"
    (tmp_path / "file").touch()
    with closing(_open(directory, now=clock)) as spool:
        begun, new = spool.epoch, _append(spool, 3)
        (tmp_path / "file").unlink()
        directory.mkdir(parents=True)
        _file(directory).write_text("no database\n" * 1000)
        for _ in range(2):
            clock.seconds += 11
            new += _append(spool, 1)
        assert len(_told(caplog, "set aside as")) == 1
        assert len(_told(caplog, "can be written again")) == 1
        assert _all(spool) == new
    with closing(_open(directory)) as spool:
        assert (_all(spool), spool.epoch) == (new, begun)


# --- the agent ---

QUIET = FAST.replace("host = 0.2", "host = 600").replace("heartbeat = 1.0", "heartbeat = 600").replace("full = 30", "")


def _agent(start: StartPart, broker: Broker, data: Path) -> Process:
    options = ("--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))
    return start("agent", *options, "--miner", KEY.minerId, "--name", "gpu01")


def _aggregator(start: StartPart, broker: Broker, data: Path) -> Process:
    return start("aggregator", "--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))


def _spooled(data: Path) -> list[tuple[int, int]] | None:
    """What a running agent's spool holds, looked at in a copy, since it is held; None while there is none."""
    with TemporaryDirectory() as temporary:
        try:
            shutil.copytree(_file(data / "agent"), _file(Path(temporary)))
        except (OSError, shutil.Error):
            return None
        with closing(_open(Path(temporary))) as spool:
            return [(row.epoch, row.seq) for row in _all(spool)]


def _more_spooled(data: Path, count: int) -> Callable[[], bool]:
    return lambda: len(_spooled(data) or ()) > count


def _history(data: Path) -> list[tuple[int, int]]:
    with closing(sqlite3.connect(data / "telemetry.db", timeout=10)) as connection:
        try:
            return connection.execute("SELECT epoch, seq FROM history ORDER BY epoch, seq").fetchall()
        except sqlite3.OperationalError:
            return []


def test_what_an_agent_spooled_without_a_broker_is_in_the_history_exactly_once(
    start: StartPart, broker: Broker, data: Path
) -> None:
    broker.kill()
    for _ in range(2):
        before = len(_spooled(data) or ())
        agent = _agent(start, broker, data)
        wait_for(_more_spooled(data, before + 5), seconds=20, what=f"spooled: {agent.text}")
        agent.kill()
    spooled = wait_for(lambda: _spooled(data), seconds=5, what="a spool")
    broker.start()
    _aggregator(start, broker, data)
    agent = _agent(start, broker, data)
    wait_for(lambda: set(spooled) < set(_history(data)), seconds=20, what=f"history: {agent.text}")
    wait_for(lambda: (_spooled(data) or spooled)[0] > spooled[-1], seconds=20, what="what is acknowledged goes")
    # All of it in one log, and nothing lost between the three processes.
    epoch = spooled[0][0]
    wait_for(
        lambda: _history(data) == [(epoch, seq) for seq in range(1, len(_history(data)) + 1)],
        seconds=20,
        what="a history without holes",
    )
    assert "Traceback" not in agent.text


def test_a_spool_is_empty_again_once_all_is_acknowledged(start: StartPart, broker: Broker, data: Path) -> None:
    (data / "fast.toml").write_text(QUIET)
    broker.kill()
    agent = _agent(start, broker, data)
    wait_for(lambda: _spooled(data), seconds=20, what=f"spooled: {agent.text}")
    broker.start()
    _aggregator(start, broker, data)
    wait_for(lambda: _history(data) and _spooled(data) == [], seconds=30, what=f"an empty spool: {agent.text}")
    agent.kill()
    with closing(_open(data / "agent", time_ms=1)) as spool:
        assert (list(spool.epochs()), spool.lost) == ([], 0)
        assert (spool.epoch, spool.next - 1) == _history(data)[-1]


def test_an_agent_that_runs_has_no_sqlite(start: StartPart, broker: Broker, data: Path) -> None:
    agent = _agent(start, broker, data)
    wait_for(lambda: _spooled(data), seconds=20, what=f"spooled: {agent.text}")
    assert agent.process is not None
    mapped = Path(f"/proc/{agent.process.pid}/maps").read_text()
    assert "orjson" in mapped
    assert "sqlite" not in mapped


def test_an_agent_whose_spool_was_broken_says_so_and_reports_in_a_higher_log(
    start: StartPart, broker: Broker, data: Path, listen: Callable[..., Listener]
) -> None:
    listener = listen(TOPIC)
    agent = _agent(start, broker, data)
    wait_for(lambda: len(_spooled(data) or ()) > 5, seconds=20, what=f"spooled: {agent.text}")
    agent.kill()
    state = data / "agent"
    _overwrite(_files(state)[-1], 0, os.urandom(64))
    before = len(listener.of(TOPIC))
    last = json.loads(listener.of(TOPIC)[-1].payload)["_epoch"]
    agent = _agent(start, broker, data)
    wait_for(lambda: len(listener.of(TOPIC)) > before, seconds=20, what=f"a report: {agent.text}")
    assert agent.text.count("set aside as") == 1
    change = json.loads(listener.of(TOPIC)[before].payload)
    assert change["_epoch"] > last
    assert "Traceback" not in agent.text
    assert _broken(state).exists()


def test_a_second_agent_on_one_spool_ends_with_one_line(start: StartPart, broker: Broker, data: Path) -> None:
    first = _agent(start, broker, data)
    wait_for(lambda: _spooled(data), seconds=20, what=f"spooled: {first.text}")
    before = first.text
    second = _agent(start, broker, data)
    assert second.process is not None
    assert second.process.wait(20) == 1
    told = [line for line in second.text.removeprefix(before).splitlines() if "another agent of this name" in line]
    assert len(told) == 1
    assert "Traceback" not in second.text
    assert first.is_running
