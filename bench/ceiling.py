"""What the broker can do at QoS 1: one publisher, one subscriber, 150 bytes, 1,000 topics, each end its own process.

The ceiling is the better of a pair of raw sockets and one over libmosquitto, as in the field: both answer at once. For
comparison: a subscriber that rests between its looks, so that the broker does more in one go, and paho as it stands.
The pairs run in turns, and with them what is held against the ceiling: the speed of a machine that is shared drifts by
a third within minutes. Each pair's figure is the median of its rounds.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.measurement import Report
from bench.network import Network
from bench.pair import LAG, PAYLOAD, TOPICS, Counts
from bench.programs import Program, running, wait_for
from bench.subjects import Stage, start_broker
from bench.table import number
from bench.usage import read_usage, spent

_WARM_UP, _SECONDS = 0.5, 2.5
_PROCESSES = ("publisher", "broker", "subscriber")
_SOURCE = Path(__file__).with_name("pair.c")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Messages a second, and what 100,000 of them cost each process, in seconds of CPU."""

    rate: float
    cpu: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A publisher and a subscriber, each the words of a command that lack port and counts."""

    name: str
    title: str
    publisher: Sequence[str | Path]
    subscriber: Sequence[str | Path]
    rounds: list[Round] = field(default_factory=list)

    @property
    def median(self) -> Round:
        """The round in the middle."""
        return sorted(self.rounds, key=lambda one: one.rate)[len(self.rounds) // 2]


class Ceiling:
    """The pairs at a broker of their own, which listens as long as `started` is open."""

    def __init__(self, directory: Path, started: ExitStack) -> None:
        directory.mkdir()
        self._directory = directory
        program, self._why_not = _compiled(directory)
        self._pairs = _pairs(program)
        stage = Stage(network=Network(), directory=directory, started=started)
        self._port, self._broker = start_broker(stage)

    def take_turn(self) -> None:
        """Let each pair run once."""
        for pair in self._pairs:
            directory = self._directory / f"{pair.name}{len(pair.rounds)}"
            pair.rounds.append(_round(pair, directory, self._port, self._broker))
            _say(f"{pair.title}: {pair.rounds[-1].rate:,.0f} messages/s")

    @property
    def rate(self) -> float:
        """Messages a second of the better of the pairs that answer at once."""
        return _best(self._pairs).median.rate

    def report(self) -> Report:
        """All pairs."""
        return _report(self._pairs, self._why_not)


def _pairs(program: Path | None) -> list[Pair]:
    python = (sys.executable, "-m", "bench.pair")
    raw = Pair(name="raw", title="raw sockets", publisher=(*python, "publish"), subscriber=(*python, "receive"))
    rested = Pair(name="rested", title="raw, rests 0.5 ms", publisher=raw.publisher, subscriber=(*python, "rest"))
    paho = Pair(name="paho", title="raw to paho", publisher=raw.publisher, subscriber=(*python, "paho"))
    if program is None:
        return [raw, rested, paho]
    library = Pair(
        name="libmosquitto", title="libmosquitto", publisher=(program, "publish"), subscriber=(program, "receive")
    )
    return [raw, library, rested, paho]


def _compiled(directory: Path) -> tuple[Path | None, str]:
    """The program of the pair over libmosquitto; without it, why there is none."""
    if shutil.which("gcc") is None:
        return None, "no pair over libmosquitto: no gcc"
    program = directory / "pair"
    command: list[str | Path] = ["gcc", "-O2", "-o", program, _SOURCE, "-l:libmosquitto.so.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None, f"no pair over libmosquitto, apt-get install libmosquitto1: {done.stderr.strip()[-200:]}"
    return program, ""


def _round(pair: Pair, directory: Path, port: int, broker: Program) -> Round:
    directory.mkdir()
    file = directory / "counts"
    counts = Counts(file)
    ends = (str(port), file)
    with running("subscriber", (*pair.subscriber, *ends), directory) as subscriber:
        wait_for(lambda: counts.is_ready, f"{pair.title}: subscribed")
        with running("publisher", (*pair.publisher, *ends), directory) as publisher:
            wait_for(lambda: counts.received > 0, f"{pair.title}: first message")
            time.sleep(_WARM_UP)
            programs = (publisher, broker, subscriber)
            before, since, first = [read_usage(one.pid, None) for one in programs], time.monotonic(), counts.received
            time.sleep(_SECONDS)
            received, elapsed = counts.received - first, time.monotonic() - since
            used = [spent(usage, read_usage(one.pid, None)) for usage, one in zip(before, programs, strict=True)]
            for one in programs:
                one.require_running()
    return Round(rate=received / elapsed, cpu=[cpu / received * 100_000 for cpu in used])


def _best(pairs: Sequence[Pair]) -> Pair:
    return max((pair for pair in pairs if pair.name in {"raw", "libmosquitto"}), key=lambda pair: pair.median.rate)


def _report(pairs: Sequence[Pair], why_not: str) -> Report:
    medians = {pair.name: pair.median for pair in pairs}
    best = _best(pairs)
    heading = ["", "messages/s", "rounds", "/ceiling", *(f"{name} CPU s/100k" for name in _PROCESSES)]
    rows = [heading, *(_row(pair, best.median.rate) for pair in pairs)]
    figures = {"ceiling_msgs_s": best.median.rate}
    for name, median in medians.items():
        figures[f"ceiling_{name}_msgs_s"] = median.rate
        for process, cpu in zip(_PROCESSES, median.cpu, strict=True):
            figures[f"ceiling_{name}_{process}_cpu_s_100k"] = cpu
    notes = [f"the ceiling is that of {best.title}; lag of the subscriber at most {LAG:,}"]
    return Report(
        title=f"The broker at QoS 1: {PAYLOAD} bytes, {TOPICS:,} topics, one publisher, one subscriber",
        rows=rows,
        figures=figures,
        notes=notes + ([why_not] if why_not else []),
    )


def _row(pair: Pair, ceiling: float) -> list[str]:
    rates = [one.rate for one in pair.rounds]
    spread = f"{min(rates) / 1000:.0f}-{max(rates) / 1000:.0f} k"
    return [
        pair.title, number(pair.median.rate), spread, f"{pair.median.rate / ceiling:.2f}", *map(number, pair.median.cpu)
    ]  # fmt: skip


def _say(what: str) -> None:
    print(f"ceiling: {what}", file=sys.stderr, flush=True)
