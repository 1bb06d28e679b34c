"""What the history takes up on disk, and how long it takes to read a day of one field from a large one."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import realistic
from bench.database import pack, store_history, tier_bytes
from bench.measurement import BenchError, Options, Report
from bench.programs import ROOT
from bench.table import number
from telemetry.fields import Owner
from telemetry.simulate.light_agent import Course
from telemetry.stores import HistoryRow
from telemetry.stores.history import HOUR, Tier
from telemetry.topics import RecordKey
from telemetry.wire import Position

_MINER, _FIELD = "f01234", "cpuLoad"
_HOSTS, _MINUTES = 10_000, 10
_INTERVAL = 10
_DAY = 86_400
_TRIES = 5


def measure(options: Options) -> list[Report]:
    """Fill databases, and look at them."""
    raw, packed = _bytes_a_sample(options.directory / "realistic.db")
    taken = _day(options.directory / "day")
    rows = [
        ["", ""],
        ["raw tier, bytes a field sample", number(raw)],
        ["block tier, bytes a field sample", number(packed)],
        [f"telemetry history, a day of one field beside {_HOSTS:,} hosts, s", number(taken)],
    ]
    figures = {"raw_bytes": raw, "block_bytes": packed, "history_day_s": taken}
    notes = [f"realistic hosts: {realistic.HOSTS}, {realistic.HOURS} h; the file after a checkpoint, indexes included"]
    return [Report(title="The history: what it takes up, and to read", rows=rows, figures=figures, notes=notes)]


def _bytes_a_sample(path: Path) -> tuple[float, float]:
    """Of the same messages as rows, and as blocks."""
    messages = list(realistic.rows())
    store_history(path, messages)
    samples, raw = realistic.samples(messages), path.stat().st_size
    pack(path, messages[-1].time + 3 * HOUR)
    return raw / samples, tier_bytes(path, Tier.MESSAGES) / samples


def _day(directory: Path) -> float:
    """The median time of the whole process that prints a day of one field."""
    directory.mkdir()
    store_history(directory / "telemetry.db", _large_history(int(time.time())))
    command = [sys.executable, "-m", "telemetry", "history", _MINER, "seal00001", _FIELD, "--since", "-24h"]
    times = []
    for _ in range(_TRIES):
        began = time.monotonic()
        done = subprocess.run([*command, "--data", directory], capture_output=True, text=True, cwd=ROOT, check=False)
        times.append(time.monotonic() - began)
        if done.returncode:
            raise BenchError(f"telemetry history: {done.stderr}")
    return statistics.median(times)


def _large_history(now: int) -> Iterator[HistoryRow]:
    """A day of one host, and in its last minutes all other hosts beside it, in the order of time.

    Every second change of the course has the field that is read.
    """
    course, epoch = Course(0), (now - _DAY) * 1000
    for sample, moment in enumerate(range(now - _DAY, now, _INTERVAL), 1):
        hosts = _HOSTS if moment >= now - _MINUTES * 60 else 1
        for host in range(hosts):
            time_ms = moment * 1000 + host * _INTERVAL * 1000 // _HOSTS
            yield HistoryRow(
                RecordKey(_MINER, f"seal{host + 1:05}"), Owner.HARDWARE, Position(epoch, sample), time_ms, time_ms + 50,
                False, course.change(2 * (sample + host)), (),
            )  # fmt: skip
