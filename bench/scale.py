"""What 10,000 hosts cost that 100 do not: CPU of the aggregator a change, its memory, to join, and to look at them.

Both fleets state as many changes a second in all, 10,000 hosts one each in 10 s, as by default. They take turns, one
suspended while the other is measured: the speed of a shared machine drifts. A subscriber joins while its fleet goes on;
what the commands take is measured when the hosts are quiet, the aggregator running.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.measurement import BenchError, Options, Report
from bench.pipeline import MINER, Pipeline, pipeline
from bench.programs import ROOT
from bench.table import number
from bench.usage import read_memory, read_usage, spent
from telemetry.config import Intervals

_FEW, _MANY = 100, 10_000
_RATE = 1000.0
_TURNS, _WARM_UP, _SECONDS = 3, 3.0, 6.0
_TRIES = 5
_JOINED_WITHIN = 60.0
_HOST = "seal05000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a fleet costs: CPU a change in µs, and the aggregator's resident MiB."""

    aggregator_cpu: float
    broker_cpu: float
    rss: float


def measure(options: Options) -> list[Report]:
    """Measure with few hosts and with many, in turns."""
    few: list[Load] = []
    many: list[Load] = []
    with (
        pipeline(options.directory / "few", hosts=_FEW, acknowledge=Intervals().acknowledge) as small,
        pipeline(options.directory / "many", hosts=_MANY, acknowledge=Intervals().acknowledge) as large,
    ):
        for _ in range(_TURNS):
            with large.suspended():
                few.append(_load(small))
            with small.suspended():
                many.append(_load(large))
            _say(f"{few[-1].aggregator_cpu:.0f} and {many[-1].aggregator_cpu:.0f} µs a change")
        with small.suspended():
            joins = _joins(large)
            _say(f"joined in {joins[0]:.2f} to {joins[-1]:.2f} s")
            ls, show = _time(large, "ls"), _time(large, "show", MINER, _HOST)
            _say(f"ls {ls:.2f} s, show {show:.2f} s")
    return [_report(_median(few), _median(many), joins, ls, show)]


def _load(running: Pipeline) -> Load:
    running.run(_WARM_UP, _RATE)
    programs = (running.aggregator.pid, running.broker.pid)
    before = [read_usage(one, None) for one in programs]
    changes = running.run(_SECONDS, _RATE)
    used = [spent(usage, read_usage(one, None)) / changes * 1e6 for usage, one in zip(before, programs, strict=True)]
    return Load(aggregator_cpu=used[0], broker_cpu=used[1], rss=read_memory(running.aggregator.pid).rss)


def _median(loads: Sequence[Load]) -> Load:
    """The turn in the middle."""
    return sorted(loads, key=lambda one: one.aggregator_cpu)[len(loads) // 2]


def _joins(running: Pipeline) -> list[float]:
    """How long each of some subscribers takes to hold all snapshots, while the fleet goes on."""
    return sorted(_join(running) for _ in range(_TRIES))


def _join(running: Pipeline) -> float:
    command = [sys.executable, "-m", "bench.join", running.url, MINER, str(_MANY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        deadline = time.monotonic() + _JOINED_WITHIN
        while process.poll() is None:
            running.run(0.02, _RATE)
            if time.monotonic() > deadline:
                process.kill()
                raise BenchError(f"a subscriber does not hold {_MANY} records after {_JOINED_WITHIN:g} s")
        output = process.communicate()[0]
    if process.returncode:
        raise BenchError("a subscriber that joined has failed")
    return float(output)


def _time(running: Pipeline, *words: str) -> float:
    """The median of a command's times, each that of the whole process."""
    command = [sys.executable, "-m", "telemetry", *words, "--data", str(running.database.parent)]
    times = []
    for _ in range(_TRIES):
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        times.append(time.monotonic() - began)
        if done.returncode or _HOST not in done.stdout:
            raise BenchError(f"telemetry {' '.join(words)}: {done.stderr or done.stdout[:500]}")
        running.serve()
    return statistics.median(times)


def _report(few: Load, many: Load, joins: Sequence[float], ls: float, show: float) -> Report:
    join, growth = statistics.median(joins), many.aggregator_cpu / few.aggregator_cpu
    rows = [
        ["", f"{_FEW:,} hosts", f"{_MANY:,} hosts", "ratio"],
        ["aggregator, CPU µs a change", *_beside(few.aggregator_cpu, many.aggregator_cpu)],
        ["broker, CPU µs a change", *_beside(few.broker_cpu, many.broker_cpu)],
        ["aggregator, RSS MiB", *_beside(few.rss, many.rss)],
        ["to join until all snapshots are held, s", "", number(join), ""],
        ["telemetry ls, s", "", number(ls), ""],
        ["telemetry show, s", "", number(show), ""],
    ]
    figures = {
        "cost_growth": growth,
        "aggregator_us_change_100": few.aggregator_cpu,
        "aggregator_us_change_10k": many.aggregator_cpu,
        "aggregator_rss_mb": many.rss,
        "join_10k_s": join,
        "ls_10k_s": max(ls, show),
    }
    notes = [
        f"in {_TURNS} turns, of which the one in the middle counts",
        f"{_RATE:,.0f} changes/s in both; of {_MANY:,} hosts each change brings a snapshot, of {_FEW} every 50th",
        f"the join is the median of {_TRIES} ({joins[0]:.2f} to {joins[-1]:.2f} s)",
        f"commands: the median of {_TRIES} whole processes; ls_10k_s is the slower one",
    ]
    return Report(title=f"{_MANY:,} hosts beside {_FEW:,}", rows=rows, figures=figures, notes=notes)


def _beside(few: float, many: float) -> tuple[str, str, str]:
    return number(few), number(many), f"{many / few:.2f}"


def _say(what: str) -> None:
    print(f"scale: {what}", file=sys.stderr, flush=True)
