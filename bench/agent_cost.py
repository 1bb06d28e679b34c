"""What the agent of one idle host costs at default intervals, beside collectd and node_exporter in the same run."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench.measurement import BenchError, Options, Report
from bench.network import Network, cable, obstacle, traffic_of
from bench.programs import Program
from bench.subjects import OTHERS, OURS, Stage, Subject
from bench.table import number
from bench.usage import Cost, Memory, Usage, cost, cost_by_thread, read_memory, read_usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A subject that runs."""

    subject: Subject
    program: Program
    network: Network

    def read(self) -> Usage:
        """What it has used so far."""
        self.program.require_running()
        traffic = traffic_of(self.program.pid) if self.network.is_counted else None
        return read_usage(self.program.pid, traffic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a subject and its threads use in an hour, and the memory that it holds."""

    cost: Cost
    threads: Mapping[str, Cost]
    memory: Memory

    @property
    def figures(self) -> dict[str, float | None]:
        """All of it by name."""
        return {
            "cpu_s_h": self.cost.cpu_s,
            "rss_mb": self.memory.rss,
            "pss_mb": self.memory.pss,
            "private_mb": self.memory.private,
            "wakeups_h": self.cost.wakeups,
            "wire_kb_h": self.cost.wire_kb,
            "packets_h": self.cost.packets,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table: the figure, in words, and what we want of ours."""

    figure: str
    title: str
    aim: float | None = None
    limit: float | None = None


_LINES = (
    Line(figure="cpu_s_h", title="CPU s/h", aim=1.0, limit=1.5),
    Line(figure="rss_mb", title="RSS MiB", aim=30, limit=32),
    Line(figure="pss_mb", title="PSS MiB"),
    Line(figure="private_mb", title="private MiB"),
    Line(figure="wakeups_h", title="wake-ups/h"),
    Line(figure="wire_kb_h", title="wire kB/h", aim=100, limit=130),
    Line(figure="packets_h", title="packets/h"),
)


def measure(options: Options) -> list[Report]:
    """Run all subjects side by side, each with its own network and broker."""
    if not OURS.is_installed:
        raise BenchError(f"{OURS.needs} is not installed: apt-get install {OURS.package}")
    subjects = [OURS, *(other for other in OTHERS if other.is_installed)]
    why_not = obstacle()
    with _all_running(subjects, options, is_counted=not why_not) as run:
        measured = _observe(run, options)
    report = Report(
        title=f"One idle host, default intervals: {options.seconds:g} s scaled to an hour",
        rows=[*_rows(subjects, measured), *_thread_rows(measured[0].threads)],
        figures=_figures(subjects, measured),
        notes=_notes(options, why_not),
    )
    return [report]


def _observe(run: Sequence[Running], options: Options) -> list[Measured]:
    _say(f"warm-up of {', '.join(one.subject.title for one in run)}, {options.warm_up:g} s")
    time.sleep(options.warm_up)
    before = [one.read() for one in run]
    _say(f"measuring, {options.seconds:g} s")
    time.sleep(options.seconds)
    after = [one.read() for one in run]
    return [
        Measured(cost=cost(*usages), threads=cost_by_thread(*usages), memory=read_memory(one.program.pid))
        for one, usages in zip(run, zip(before, after, strict=True), strict=True)
    ]


@contextmanager
def _all_running(subjects: Sequence[Subject], options: Options, *, is_counted: bool) -> Iterator[list[Running]]:
    with ExitStack() as started:
        yield [_start(subject, options, started, is_counted=is_counted) for subject in subjects]


def _start(subject: Subject, options: Options, started: ExitStack, *, is_counted: bool) -> Running:
    directory = options.directory / subject.name
    directory.mkdir()
    network = started.enter_context(cable(subject.name)) if is_counted else Network()
    program = subject.start(Stage(network=network, directory=directory, started=started))
    return Running(subject=subject, program=program, network=network)


def _rows(subjects: Sequence[Subject], measured: Sequence[Measured]) -> list[list[str]]:
    titles = [subject.title for subject in subjects]
    heading = ["", *titles, *(f"/{title}" for title in titles[1:]), "aim", "limit"]
    return [heading, *(_row(line, measured) for line in _LINES)]


def _row(line: Line, measured: Sequence[Measured]) -> list[str]:
    ours, *others = (one.figures[line.figure] for one in measured)
    ratios = [_ratio(ours, other) for other in others]
    return [line.title, *map(number, [ours, *others]), *ratios, *map(_bound, (line.aim, line.limit))]


def _ratio(ours: float | None, other: float | None) -> str:
    return f"{ours / other:.2f}" if ours is not None and other else "-"


def _bound(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _thread_rows(threads: Mapping[str, Cost]) -> list[list[str]]:
    rows = [[f"  {name}", number(used.cpu_s), number(used.wakeups)] for name, used in threads.items()]
    return [[""], ["our threads", "CPU s/h", "wake-ups/h"], *rows]


def _figures(subjects: Sequence[Subject], measured: Sequence[Measured]) -> dict[str, float]:
    return {
        f"{subject.name}_{figure}": round(value, 3)
        for subject, one in zip(subjects, measured, strict=True)
        for figure, value in one.figures.items()
        if value is not None
    }


def _notes(options: Options, why_not: str) -> list[str]:
    missing = [other for other in OTHERS if not other.is_installed]
    notes = [f"{other.title} is not here: apt-get install {other.package}" for other in missing]
    if why_not:
        notes.append(f"wire and packets are not measured: no network namespaces here ({why_not})")
    if options.seconds < 900:
        notes.append("our full reports, four an hour, do not fall into so short a run: --seconds 3600 has them")
    return notes


def _say(what: str) -> None:
    print(f"agent_cost: {what}", file=sys.stderr, flush=True)
