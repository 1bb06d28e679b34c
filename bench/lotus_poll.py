"""What a poll of a large Lotus costs: processor time, memory, calls, and how much of it has to be published."""

import compileall
import gc
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import psutil

from bench.lotus_server import Poll
from bench.measurement import BenchError, Options, Report
from bench.network import Network
from bench.programs import ROOT, Program, wait_for
from bench.subjects import OURS, Stage, start_broker
from bench.table import number
from bench.usage import read_memory
from telemetry.agent.plans import miner_plans
from telemetry.agent.sampler import Plan
from telemetry.config import Settings
from telemetry.errors import SourceError, WireError
from telemetry.mqtt import BrokerUrl, Connected, Connection, Event, Message, Messages
from telemetry.simulate.accounts import MINER
from telemetry.simulate.lotus import Lotus
from telemetry.simulate.scenario import SCENARIOS, Scenario
from telemetry.simulate.world import Size
from telemetry.sources.lotus.answers import decode_worker_stats
from telemetry.sources.lotus.client import Lotus as Client
from telemetry.sources.lotus.endpoints import find_miner
from telemetry.sources.lotus.tasks import USUAL_SECONDS
from telemetry.topics import Topics
from telemetry.wire import decode_change

_LARGE = "large"
_SMALL = Scenario(description="10 sectors", size=Size(hosts=1, sectors=6, sealing=4))

_INTERVAL = 8.0
_CALM = 0.1
"""Seconds by which the world goes on between two polls, when little is to change."""

_WARM_UP = 2  # polls: the first one tells everything
_MOST_POLLS = 3
_POLL_TIMEOUT = 60.0
_SETTLE = 2.0
"""Seconds from the end of a poll in which the agent publishes what it gave, and the broker passes it on."""

_JSON_RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Some polls of the queues: the processor time of the agent, its memory then, and by poll whose queues
    changed and the host of each message.
    """

    cpu_s: float
    rss_mb: float
    peak_mb: float
    polls: Sequence[Poll]
    published: Sequence[Sequence[str]]

    @property
    def figures(self) -> dict[str, float]:
        """All of it by name, per poll."""
        pairs = [(set(poll.changed), set(told)) for poll, told in zip(self.polls, self.published, strict=True)]
        return {
            "cpu_s": self.cpu_s / len(self.polls),
            "rss_mb": self.rss_mb,
            "peak_rss_mb": self.peak_mb,
            "hosts": max(poll.hosts for poll in self.polls),
            "changed_hosts": statistics.mean(len(changed) for changed, _ in pairs),
            "published_hosts": statistics.mean(len(told) for _, told in pairs),
            "messages": statistics.mean(map(len, self.published)),
            "unchanged_published": statistics.mean(len(told - changed) for changed, told in pairs),
            "changed_unpublished": statistics.mean(len(changed - told) for changed, told in pairs),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table: the figure, in words, and what we want of it."""

    figure: str
    title: str
    limit: float | None = None


_LINES = (
    Line(figure="cpu_s", title="CPU s/poll", limit=3),
    Line(figure="rss_mb", title="RSS MiB", limit=150),
    Line(figure="peak_rss_mb", title="peak RSS MiB"),
    Line(figure="hosts", title="hosts"),
    Line(figure="changed_hosts", title="whose queues changed/poll"),
    Line(figure="published_hosts", title="published/poll"),
    Line(figure="messages", title="messages/poll"),
    Line(figure="unchanged_published", title="published, not changed/poll", limit=0),
    Line(figure="changed_unpublished", title="changed, not published/poll", limit=0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """The calls of a first cycle, in which each source is sampled once, and of a further one."""

    first: int
    further: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """The size of an answer to WorkerStats in MB, and the processor seconds that reading it takes, by the reader."""

    size_mb: float
    cpu_s: Mapping[str, float]


_READERS: Mapping[str, Callable[[bytes], object]] = {
    "decode": decode_worker_stats,
    "orjson": orjson.loads,
    "json": json.loads,
}


def measure(options: Options) -> list[Report]:
    """Run the agent on a large Lotus while much and while little changes; count the calls; decode by other means."""
    if not OURS.is_installed:
        raise BenchError(f"{OURS.needs} is not installed: apt-get install {OURS.package}")
    polls = max(1, min(_MOST_POLLS, int(options.seconds / _INTERVAL / 2)))
    with _running(options, polls) as run:
        busy, calm = run.observe(polls)
        answer = _worker_stats(run.environment)
    _say("decoding WorkerStats by other means, and counting calls")
    decoding = Decoding(
        size_mb=len(answer) / 1e6, cpu_s={name: _cpu_of(partial(read, answer)) for name, read in _READERS.items()}
    )
    small, large = _count_calls(_SMALL), _count_calls(SCENARIOS[_LARGE])
    report = Report(
        title=f"Polls of a large Lotus, every {_INTERVAL:g} s, {polls} a column: {SCENARIOS[_LARGE].description}",
        rows=[*_rows(busy, calm), *_call_rows(small, large), *_decoding_rows(busy, decoding)],
        figures=_figures(busy, calm, small, large, decoding),
        notes=(
            f"busy: Lotus goes on for {_INTERVAL:g} s between two polls; calm: for {_CALM:g} s",
            "CPU is all of the agent's, its other sources and the publishing included",
            "decoding is in this process, the poll in the agent's, which also receives, compares and publishes",
            "settings keep tasks from being overdue: when they become so would differ from reader to reader",
        ),
    )
    return [report]


# --- the agent on a large Lotus ---


class _Published:
    """What was published of the hosts' tasks."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self.is_ready = threading.Event()

    def deliver(self, event: Event) -> None:
        """Take in an event of the connection; from the network thread."""
        if isinstance(event, Messages):
            self._messages.extend(event.messages)
        elif isinstance(event, Connected):
            self.is_ready.set()

    def between(self, after: int, until: int) -> list[str]:
        """The host of each message of polls that began in a time (Unix ms)."""
        try:
            told = [(decode_change(message.payload).time, message.topic) for message in list(self._messages)]
        except WireError as error:
            raise BenchError(f"what the agent publishes of the hosts' tasks cannot be read: {error}") from None
        addresses = (Topics().parse(topic) for time_ms, topic in told if after < time_ms <= until)
        return [address.record.hostName or "" for address in addresses if address is not None]


class _Run:
    """The agent and the Lotus that it polls, as processes."""

    def __init__(self, agent: Program, lotus: Program, log: Path, published: _Published) -> None:
        self._agent, self._lotus, self._log, self._published = agent, lotus, log, published
        self._process = psutil.Process(agent.pid)

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which the Lotus is found."""
        return _variables(self._log)

    def observe(self, polls: int) -> tuple[Phase, Phase]:
        """So many polls while much changes, and as many while little does."""
        _say(f"warm-up, {_WARM_UP} polls")
        self._await_polls(_WARM_UP)
        _say(f"measuring, {polls} polls while much changes")
        busy = self._phase(_WARM_UP, polls)
        # What is gone from a queue is shown once more: the next poll still tells of the busy time.
        calm_after = _WARM_UP + polls + 1
        self._await_polls(calm_after)
        _say(f"measuring, {polls} polls while little changes")
        return busy, self._phase(calm_after, polls)

    def _phase(self, after: int, polls: int) -> Phase:
        before = self._cpu()
        seen = self._await_polls(after + polls)
        used = self._cpu() - before
        memory = read_memory(self._agent.pid)
        pairs = list(zip(seen[after - 1 :], seen[after:], strict=False))
        return Phase(
            cpu_s=used,
            rss_mb=memory.rss,
            peak_mb=_peak(self._agent.pid),
            polls=seen[after:],
            published=[self._published.between(last.seen, this.seen) for last, this in pairs],
        )

    def _await_polls(self, count: int) -> list[Poll]:
        """Wait until that poll has ended and was published; all polls so far."""
        have = len(self._polls())
        while have < count:
            have += 1
            wait_for(partial(self._has_polls, have), f"poll {have} of the queues", _POLL_TIMEOUT)
        time.sleep(_SETTLE)
        polls = self._polls()
        if len(polls) != count:
            raise BenchError("the next poll came before the last one was read: the machine is too busy to measure")
        return polls

    def _has_polls(self, count: int) -> bool:
        self._agent.require_running()
        self._lotus.require_running()
        return len(self._polls()) >= count

    def _polls(self) -> list[Poll]:
        return [Poll(**line) for line in _printed(self._log)[1:]]

    def _cpu(self) -> float:
        self._agent.require_running()
        used = self._process.cpu_times()  # also of threads that ended
        return used.user + used.system


@contextmanager
def _running(options: Options, polls: int) -> Iterator[_Run]:
    compileall.compile_dir(ROOT / "telemetry", quiet=1)  # as installed: compiling at the start would enlarge the agent
    directory = options.directory / "lotus_poll"
    directory.mkdir()
    config = directory / "agent.toml"
    config.write_text(_settings())
    with ExitStack() as started:
        stage = Stage(network=Network(), directory=directory, started=started)
        url = f"mqtt://127.0.0.1:{start_broker(stage)[0]}"
        published = started.enter_context(_subscribed(url))
        python = (sys.executable, "-m")
        steps = [_INTERVAL] * (_WARM_UP - 1 + polls) + [_CALM] * (polls + 2)
        lotus = stage.serve(
            "lotus", *python, "bench.lotus_server", _LARGE, "--config", config, "--steps", *map(str, steps)
        )
        log = directory / "lotus.log"
        wait_for(lambda: _is_serving(lotus, log), "the simulated Lotus is ready", _POLL_TIMEOUT)
        options_of_both: tuple[str | Path, ...] = ("--broker", url, "--data", directory, "--config", config)
        stage.serve("aggregator", *python, "telemetry", "aggregator", *options_of_both)
        variables = [f"{name}={value}" for name, value in _variables(log).items()]
        words = ("env", *variables, *python, "telemetry", "agent", *options_of_both)
        agent = stage.measured("agent", *words, "--miner", MINER, "--name", "miner01")
        yield _Run(agent, lotus, log, published)


def _settings() -> str:
    # The moment at which a task becomes overdue is another for each reader.
    overdue = "\n".join(f"{short} = 1e8" for short in USUAL_SECONDS)
    return f"[intervals]\nqueues = {_INTERVAL}\n\n[overdue]\n{overdue}\n"


@contextmanager
def _subscribed(url: str) -> Iterator[_Published]:
    published = _Published()
    connection = Connection(
        BrokerUrl.parse(url),
        client_id="bench",
        deliver=published.deliver,
        filters=[f"miners/{MINER}/workers/+/tasks"],
    )
    connection.start()
    try:
        wait_for(published.is_ready.is_set, "the broker takes a subscription")
        yield published
    finally:
        connection.close()


def _is_serving(lotus: Program, log: Path) -> bool:
    lotus.require_running()
    return bool(_printed(log))


def _variables(log: Path) -> Mapping[str, str]:
    variables: Mapping[str, str] = _printed(log)[0]
    return variables


def _printed(log: Path) -> list[dict[str, Any]]:
    """The JSON objects that were printed so far, one a line."""
    lines = log.read_bytes().splitlines(keepends=True)
    return [orjson.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"\n")]


def _peak(process_id: int) -> float:
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


# --- calls, and reading by other means ---


def _count_calls(scenario: Scenario) -> Calls:
    with Lotus(scenario) as lotus:
        plans = miner_plans(Settings(), MINER, lotus.environment)
        return Calls(first=_cycle(lotus, plans), further=_cycle(lotus, plans))


def _cycle(lotus: Lotus, plans: Sequence[Plan]) -> int:
    """The calls that it takes to sample each source once; BenchError where one cannot be read."""
    lotus.miner.forget_calls()
    lotus.full.forget_calls()
    for plan in plans:
        try:
            problems = plan.source.sample().problems
        except SourceError as error:
            problems = {plan.source.name: str(error)}
        if problems:
            raise BenchError(f"{lotus.scenario.description}: cannot read {'; '.join(map(': '.join, problems.items()))}")
    return lotus.miner.calls.total() + lotus.full.calls.total()


def _worker_stats(environment: Mapping[str, str]) -> bytes:
    endpoint = find_miner(environment, Path.home())
    assert endpoint is not None
    client = Client(endpoint)
    try:
        return client.call("WorkerStats", deadline=_POLL_TIMEOUT)
    except SourceError as error:
        raise BenchError(str(error)) from None
    finally:
        client.close()


def _cpu_of(act: Callable[[], object]) -> float:
    """The processor seconds that something takes, the median of some runs."""
    taken = []
    for _ in range(_JSON_RUNS):
        gc.collect()
        began = time.process_time()
        act()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


# --- the report ---


def _rows(busy: Phase, calm: Phase) -> list[list[str]]:
    def row(line: Line) -> list[str]:
        limit = "" if line.limit is None else f"{line.limit:g}"
        return [line.title, *(number(phase.figures[line.figure]) for phase in (busy, calm)), limit]

    return [["", "busy", "calm", "limit"], *map(row, _LINES)]


def _call_rows(small: Calls, large: Calls) -> list[list[str]]:
    heading = ["calls of a cycle", "10 sectors", "100,000 sectors", "ratio", "limit"]
    pairs = {"first": (small.first, large.first), "further": (small.further, large.further)}
    rows = [[f"  {name}", *map(number, pair), f"{pair[1] / pair[0]:.2f}", "1"] for name, pair in pairs.items()]
    return [[""], heading, *rows]


def _decoding_rows(busy: Phase, decoding: Decoding) -> list[list[str]]:
    taken = decoding.cpu_s
    whole = {"json.loads": taken["json"], "orjson.loads": taken["orjson"]}
    ours = {"a poll, busy": busy.figures["cpu_s"], "decoding what is needed": taken["decode"]}
    heading = [f"WorkerStats of {decoding.size_mb:.1f} MB", "CPU s", *(f"/{title}" for title in whole)]
    rows = [[f"  {title}", number(cpu), *(f"{cpu / one:.2f}" for one in whole.values())] for title, cpu in ours.items()]
    return [[""], heading, *rows, *([f"  {title}", number(cpu)] for title, cpu in whole.items())]


def _figures(busy: Phase, calm: Phase, small: Calls, large: Calls, decoding: Decoding) -> dict[str, float]:
    poll, taken = busy.figures["cpu_s"], decoding.cpu_s
    figures = {
        **{f"lotus_poll_{name}": value for name, value in busy.figures.items()},
        **{f"lotus_poll_calm_{name}": value for name, value in calm.figures.items()},
        "lotus_poll_calls_small": small.further,
        "lotus_poll_calls_large": large.further,
        "lotus_poll_first_calls_small": small.first,
        "lotus_poll_first_calls_large": large.first,
        "lotus_worker_stats_mb": decoding.size_mb,
        **{f"lotus_worker_stats_{name}_cpu_s": cpu for name, cpu in taken.items()},
        "lotus_poll_cpu_ratio_json": poll / taken["json"],
        "lotus_poll_cpu_ratio_orjson": poll / taken["orjson"],
        "lotus_worker_stats_cpu_ratio_json": taken["decode"] / taken["json"],
        "lotus_worker_stats_cpu_ratio_orjson": taken["decode"] / taken["orjson"],
    }
    return {name: round(value, 3) for name, value in figures.items()}


def _say(what: str) -> None:
    print(f"lotus_poll: {what}", file=sys.stderr, flush=True)
