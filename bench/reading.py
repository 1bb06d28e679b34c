"""What the history takes up on disk, how long it takes to read a day of one field, and what its upkeep holds up."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import realistic
from bench.database import Step, pack, store_history, tier_bytes, upkeep_steps
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
_SECONDS_AN_HOUR = 3600
_QUIET = 50


def measure(options: Options) -> list[Report]:
    """Fill databases, and look at them."""
    raw, packed = _bytes_a_sample(options.directory / "realistic.db")
    taken = _day(options.directory / "day")
    steps = _upkeep(options.directory / "busy.db")
    longest = max(step.wall for step in steps) * 1000
    rows = [
        ["", ""],
        ["raw tier, bytes a field sample", number(raw)],
        ["block tier, bytes a field sample", number(packed)],
        [f"telemetry history, a day of one field beside {_HOSTS:,} hosts, s", number(taken)],
        ["the longest step of the upkeep, ms", number(longest)],
        ["  the longest of the processor, ms", number(max(step.cpu for step in steps) * 1000)],
    ]
    figures = {"raw_bytes": raw, "block_bytes": packed, "history_day_s": taken, "upkeep_step_ms": longest}
    notes = [
        f"realistic hosts: {realistic.HOSTS}, {realistic.HOURS} h; the file after a checkpoint, indexes included",
        f"upkeep packs two hours of a host that states changes each second, and of {_QUIET} others",
    ]
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


def _upkeep(path: Path) -> list[Step]:
    """The steps of packing some hours, those of a host that states changes each second among them."""
    course, start = Course(0), int(time.time()) // _SECONDS_AN_HOUR * _SECONDS_AN_HOUR - 4 * _SECONDS_AN_HOUR
    rows = []
    for second in range(2 * _SECONDS_AN_HOUR):
        moment = (start + second) * 1000
        for host in range(_QUIET + 1 if second % _INTERVAL == 0 else 1):
            key, position = RecordKey(_MINER, f"seal{host:05}"), Position(1, second + 1)
            values = course.change(second + host)
            rows.append(HistoryRow(key, Owner.HARDWARE, position, moment, moment + 50, second == 0, values, ()))
    store_history(path, rows)
    return upkeep_steps(path, (start + 4 * _SECONDS_AN_HOUR) * 1000)


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
