"""What the whole pipeline takes in: fleet, Mosquitto by our settings and aggregator, all on this machine.

History, mirror, snapshots and acknowledgements are on. The rate that it sustains is found in a closed loop: the fleet
writes as long as no more than a window of messages is not committed; the broker's own ceiling is measured in turns with
it, while the pipeline is suspended. Then half of that rate is sent, and it is seen
how long a change takes from before it is handed to the socket until it can be read as committed: until another
connection to the database, which looks 200 times a second, finds the position of its agent at or above it. Then twice
the rate, after which nothing may be missing: what was written is compared with what the history holds.
"""

import contextlib
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from bench.ceiling import Ceiling
from bench.database import Committed, Found, changes_in_history, late_messages, lost_messages, own_ceiling
from bench.disk import seconds_to_sync
from bench.measurement import BenchError, Options, Report
from bench.pipeline import ACKNOWLEDGE, Pipeline, pipeline
from bench.table import number
from bench.usage import read_usage, spent
from telemetry.simulate.light_agent import CHANGED_FIELDS, LightAgent
from telemetry.topics import AgentKey

_HOSTS = 1000
_WINDOW = 8000
"""Messages that are not committed yet, in the closed loop: eight of the aggregator's batches."""

_TURNS, _WARM_UP, _SECONDS = 3, 1.5, 5.0
_OVERLOAD_SECONDS = 10.0
_SAMPLED_HOSTS = 50
_SETTLED_WITHIN = 60.0
_MOST_COPIED = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sustained:
    """Changes a second that were committed, turn by turn, and the CPU seconds of 100,000 by process.

    `disk`: how long it took meanwhile to have some bytes for good, in seconds, in order.
    """

    rates: Sequence[float]
    disk: Sequence[float]
    fleet_cpu: float
    broker_cpu: float
    aggregator_cpu: float

    @property
    def rate(self) -> float:
        """The median of the turns."""
        return statistics.median(self.rates)


class Latencies:
    """From the write of a change of some hosts to the moment in which it is seen as committed, in seconds."""

    def __init__(self, agents: Sequence[LightAgent], committed: Committed) -> None:
        self._agents, self._committed = agents, committed
        self._version = committed.version
        self._seen = [agent.publisher.position.seq for agent in agents]
        self._waiting: list[deque[tuple[int, float]]] = [deque() for _ in agents]
        self.seconds: list[float] = []

    def look(self, written: float) -> None:
        """Note what was written at that moment, and what is committed now."""
        for at, agent in enumerate(self._agents):
            seq = agent.publisher.position.seq
            if seq != self._seen[at]:
                self._seen[at] = seq
                self._waiting[at].append((seq, written))
        version = self._committed.version
        if version != self._version:
            self._version = version
            self._take(self._committed.positions([agent.key for agent in self._agents]))

    def _take(self, positions: Mapping[AgentKey, int]) -> None:
        now = time.monotonic()
        for agent, waiting in zip(self._agents, self._waiting, strict=True):
            while waiting and waiting[0][0] <= positions.get(agent.key, 0):
                self.seconds.append(now - waiting.popleft()[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """Changes a second that were written, how many there were, how long all took to settle, and what was found."""

    rate: float
    changes: int
    settled: float
    found: Found
    lost: int
    late: int


def measure(options: Options) -> list[Report]:
    """Find the sustained rate beside the broker's ceiling, then send half of it, then twice as much."""
    directory = options.directory / "ingest"
    with ExitStack() as started:
        running = started.enter_context(pipeline(directory, hosts=_HOSTS))
        committed = started.enter_context(closing(Committed(running.database)))
        broker = Ceiling(options.directory / "ceiling", started)
        sustained = _sustained(running, committed, broker)
        running.until(lambda: committed.messages == running.fleet.written, "all committed")
        latencies = [_latencies(running, committed, sustained.rate / 2) for _ in range(_TURNS)]
        _say(f"at half of that 99 % committed after {', '.join(number(_at(one, 0.99)) for one in latencies)} ms")
        overload = _overload(running, committed, 2 * sustained.rate)
        _say(f"at {overload.rate:,.0f}/s {overload.lost} lost")
    alone = own_ceiling(running.database, directory / "copy.db", _MOST_COPIED)
    return [broker.report(), _report(sustained, broker.rate, latencies, overload, alone)]


def _sustained(running: Pipeline, committed: Committed, broker: Ceiling) -> Sustained:
    fleet = running.fleet

    def go(seconds: float) -> int:
        before, end = committed.messages, time.monotonic() + seconds
        while time.monotonic() < end:
            fleet.write(_WINDOW - fleet.written + committed.messages)
            running.serve()
        return committed.messages - before

    programs = (os.getpid(), running.broker.pid, running.aggregator.pid)
    rates: list[float] = []
    disk: list[float] = []
    used, total = [0.0] * len(programs), 0
    for _ in range(_TURNS):
        running.until(lambda: committed.messages == fleet.written, "all committed")
        with running.suspended():
            broker.take_turn()
            disk += seconds_to_sync(running.database.with_name("disk"))
        go(_WARM_UP)
        before, since = [read_usage(one, None) for one in programs], time.monotonic()
        count = go(_SECONDS)
        rates.append(count / (time.monotonic() - since))
        _say(f"{rates[-1]:,.0f} changes/s")
        total += count
        now = [spent(usage, read_usage(one, None)) for usage, one in zip(before, programs, strict=True)]
        used = [so_far + more for so_far, more in zip(used, now, strict=True)]
    cpu = [one / total * 1e5 for one in used]
    return Sustained(rates=rates, disk=sorted(disk), fleet_cpu=cpu[0], broker_cpu=cpu[1], aggregator_cpu=cpu[2])


def _latencies(running: Pipeline, committed: Committed, rate: float) -> list[float]:
    agents = running.fleet.agents[:: _HOSTS // _SAMPLED_HOSTS]
    latencies = Latencies(agents, committed)
    running.run(_SECONDS, rate, latencies.look)
    return sorted(latencies.seconds)


def _overload(running: Pipeline, committed: Committed, rate: float) -> Overload:
    fleet = running.fleet
    began = time.monotonic()
    written = running.run(_OVERLOAD_SECONDS, rate)
    ended = time.monotonic()
    with contextlib.suppress(BenchError):  # what is missing then is counted below
        running.until(lambda: committed.messages >= fleet.written, "all committed", _SETTLED_WITHIN)
    found = changes_in_history(running.database)
    missing = max(fleet.changes - found.different, lost_messages(running.database))
    return Overload(
        rate=written / (ended - began),
        settled=time.monotonic() - ended,
        found=found,
        changes=fleet.changes,
        lost=missing,
        late=late_messages(running.database),
    )


def _report(
    sustained: Sustained, ceiling: float, latencies: Sequence[Sequence[float]], overload: Overload, alone: float
) -> Report:
    p50, p99 = (statistics.median(_at(one, share) for one in latencies) for share in (0.5, 0.99))
    disk50, disk99 = (_at(sustained.disk, share) for share in (0.5, 0.99))
    rows = [
        ["", ""],
        ["sustained, changes/s committed", number(sustained.rate)],
        ["  the broker's ceiling, messages/s", number(ceiling)],
        ["  ratio", f"{sustained.rate / ceiling:.3f}"],
        ["  CPU s/100k, fleet", number(sustained.fleet_cpu)],
        ["  CPU s/100k, broker", number(sustained.broker_cpu)],
        ["  CPU s/100k, aggregator", number(sustained.aggregator_cpu)],
        ["SQLite alone, the same rows, changes/s", number(alone)],
        ["  ratio", f"{sustained.rate / alone:.2f}"],
        ["at half, written to committed, p50 ms", number(p50)],
        ["  p99 ms", number(p99)],
        ["the disk alone, 100 kB for good, p50 ms", number(disk50)],
        ["  p99 ms", number(disk99)],
        ["  changes looked at", number(sum(map(len, latencies)))],
        ["at twice, changes/s written", number(overload.rate)],
        ["  all committed after, s", number(overload.settled)],
        ["  sent again", number(overload.late)],
        ["  lost", number(overload.lost)],
        ["  twice in the history", number(overload.found.rows - overload.found.different)],
    ]
    figures = {
        "ingest_msgs_s": sustained.rate,
        "ingest_fleet_cpu_s_100k": sustained.fleet_cpu,
        "ingest_broker_cpu_s_100k": sustained.broker_cpu,
        "ingest_aggregator_cpu_s_100k": sustained.aggregator_cpu,
        "ingest_ratio": sustained.rate / ceiling,
        "sqlite_msgs_s": alone,
        "commit_p50_ms": p50,
        "commit_p99_ms": p99,
        "disk_p99_ms": disk99,
        "overload_msgs_s": overload.rate,
        "overload_settled_s": overload.settled,
        "lost": float(overload.lost),
        "duplicated": float(overload.found.rows - overload.found.different),
    }
    turns = ", ".join(number(rate) for rate in sustained.rates)
    p99s = ", ".join(number(_at(one, 0.99)) for one in latencies)
    notes = [
        f"in turns with the broker's ceiling: {turns} changes/s",
        f"at half, the median of {_TURNS} times {_SECONDS:g} s, of which p99 was {p99s} ms",
        f"{_HOSTS:,} hosts; {overload.changes:,} changes of {CHANGED_FIELDS} fields in all",
        f"acknowledgements every {ACKNOWLEDGE:g} s, snapshots and all else at their defaults",
        "broker, aggregator and fleet share this machine",
    ]
    return Report(title="Ingest: fleet, broker and aggregator", rows=rows, figures=figures, notes=notes)


def _at(seconds: Sequence[float], share: float) -> float:
    """What a share of times is below; they are in order. In milliseconds."""
    return seconds[int(len(seconds) * share)] * 1000


def _say(what: str) -> None:
    print(f"ingest: {what}", file=sys.stderr, flush=True)
