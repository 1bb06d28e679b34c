"""One run: start all, do the faults of the seed, heal them, and wait until nothing is missing."""

import heapq
import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TypeAlias

from telemetry.cli import COMMANDS
from tests.chaos.checks import Database, at_broker, never_true, not_yet_true, other_defects
from tests.chaos.plan import Fault, plan
from tests.chaos.world import World
from tests.parts import Listener

SETTLE = 75.0
"""Seconds: an agent does its connect routine every 30 s at most, and may have to do it twice."""

_LOOK = 0.5

_Act: TypeAlias = Fault | Callable[[], None]


class ChaosError(AssertionError):
    """Something was lost, stands twice, does not converge, or a process ended by itself."""


@dataclass
class Report:
    """What a run did: its faults, and how it went."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    in_memory: int = 0
    excused: int = 0
    settled: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        faults = ", ".join(f"{name} {number}" for name, number in sorted(self.faults.items()))
        return (
            f"seed {self.seed}: {self.seconds:.0f} s, settled after {self.settled:.1f} s, {self.messages} changes; "
            f"{faults}; spools in memory {self.in_memory}, killed so {self.excused}"
        )


def run(directory: Path, seed: int) -> Report:
    """Make one run; its report, or ChaosError."""
    report, began = Report(seed), time.monotonic()
    world = World(directory, seed)
    try:
        world.start()
        _wait_for_all(world)
        _do_faults(world, report)
        _settle(world, report)
        _verify(world)
        _require_clean_end(world)
    finally:
        world.end()
        report.seconds = time.monotonic() - began
        report.in_memory, report.excused = world.oracle.episodes, world.oracle.excused
        sys.stdout.write(f"{report}\n")
        sys.stdout.flush()
    return report


def _wait_for_all(world: World) -> None:
    """Faults begin once every agent was heard."""
    database = Database(world.data / "telemetry.db")
    deadline = time.monotonic() + 30
    while not _is_known(world, database):
        _require_running(world)
        if time.monotonic() > deadline:
            raise ChaosError(f"not all agents are known after 30 s: {world.aggregator.text[-1000:]}")
        time.sleep(0.2)


def _is_known(world: World, database: Database) -> bool:
    try:
        return len(database.mirror()) == len(world.hosts)
    except sqlite3.OperationalError:
        return False  # there is no database yet, or no table in it


def _do_faults(world: World, report: Report) -> None:
    """Begin each fault at its time, and heal it at its own; afterwards nothing is wrong any more."""
    began, order = time.monotonic(), count()
    faults = plan(world.seed, processes=len(world.parts))
    due: list[tuple[float, int, _Act]] = [(fault.at, next(order), fault) for fault in faults]
    heapq.heapify(due)
    while due:
        at, _, act = heapq.heappop(due)
        time.sleep(max(0.0, began + at - time.monotonic()))
        if isinstance(act, Fault):
            report.faults[act.kind] += 1
            heal = world.begin(act)
            heapq.heappush(due, (time.monotonic() - began + act.lasts, next(order), heal))
        else:
            act()


def _require_running(world: World) -> None:
    ended = [child for child in world.children if not child.is_running]
    if ended:
        raise ChaosError(f"{ended[0].name} ended by itself: {ended[0].text[-2000:]}")


def _settle(world: World, report: Report) -> None:
    """Have all values stay as they are, and wait until all is where it belongs."""
    for part in world.parts:
        part.child.ask("hold")
    with closing(Listener(world.url, "miners/#")) as listener:
        _wait_until_nothing_is_missing(world, report, listener)


def _wait_until_nothing_is_missing(world: World, report: Report, listener: Listener) -> None:
    database, began = Database(world.data / "telemetry.db"), time.monotonic()
    while True:
        _require_running(world)
        oracle = world.oracle.hosts()
        history = database.history()
        # What was written while the history was read is known to the later oracle.
        if wrong := never_true(history, world.oracle.hosts()):
            raise ChaosError(_listed(wrong))
        missing = not_yet_true(history, database.mirror(), oracle) + other_defects(database, oracle)
        missing += at_broker(list(listener.messages), oracle)
        report.settled = time.monotonic() - began
        report.messages = sum(map(len, history.values()))
        if not missing:
            return
        if report.settled > SETTLE:
            raise ChaosError(f"after {report.settled:.0f} s still: {_listed(missing)}")
        time.sleep(_LOOK)


def _verify(world: World) -> None:
    if "verify" not in COMMANDS:
        return
    command = [sys.executable, "-m", "telemetry", "verify", "--json", "--data", str(world.data), "--broker", world.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        wrong = [one for one in json.loads(done.stdout or "[]") if one["result"] != "equal"]
        raise ChaosError(f"telemetry verify: {done.returncode} {done.stderr} {wrong[:5]}")


def _require_clean_end(world: World) -> None:
    """Asked to end, every process does, and none has said anything that only a defect says."""
    for child in reversed(world.children):
        status = child.end()
        if status != 0:
            raise ChaosError(f"{child.name} ended with {status}: {child.text[-2000:]}")
        if "Traceback" in child.text:
            raise ChaosError(f"{child.name}: {child.text[child.text.index('Traceback') :][:3000]}")


def _listed(lines: list[str]) -> str:
    more = f" (and {len(lines) - 6} more)" if len(lines) > 6 else ""
    return "; ".join(lines[:6]) + more
