"""Ten thousand agents, all disconnected at once: how long until all are back, and every mirror equals its host."""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from bench.measurement import BenchError, Options, Report
from bench.network import Network
from bench.programs import Program
from bench.subjects import Stage, start_broker
from bench.table import number
from bench.usage import cost, read_memory, read_usage
from telemetry.aggregator.mirror import MirroredRecord
from telemetry.config import Intervals
from telemetry.errors import TelemetryError
from telemetry.fields import Owner
from telemetry.simulate.swarm import FIRST_TRY, Swarm
from telemetry.stores.reading import open_reader
from telemetry.topics import Topics
from telemetry.wire import digest

_AGENTS = 10_000
_SPARE_DESCRIPTORS = 500
_LIMIT = 60.0
_DEADLINE = 150.0
_HOUR = 3600.0


def measure(options: Options) -> list[Report]:
    """Let all come, break all connections, and let all come back."""
    agents = _allowed(_AGENTS)
    with _running(options, agents) as (swarm, database, programs):
        came = _settle(swarm, database, value=1)
        before = [read_usage(program.pid, None) for program in programs]
        swarm.abort_all()
        _say("all connections broken")
        back = _settle(swarm, database, value=2)
        used = [cost(usage, read_usage(program.pid, None)) for usage, program in zip(before, programs, strict=True)]
        memory = [read_memory(program.pid).rss for program in programs]
        lost, refused = _lost(database), swarm.refused
    cpu = [one.cpu_s * back / _HOUR for one in used]
    rows = [
        ["", "", "limit"],
        ["all there at first, s", number(came), ""],
        ["all back and verified, s", number(back), number(_LIMIT)],
        ["messages lost", number(lost), "0"],
        ["connections tried in vain", number(refused), ""],
        ["CPU s, broker", number(cpu[0]), ""],
        ["CPU s, aggregator", number(cpu[1]), ""],
        ["RSS MiB, broker", number(memory[0]), ""],
        ["RSS MiB, aggregator", number(memory[1]), ""],
    ]
    figures = {
        "storm_agents": float(agents),
        "storm_join_s": came,
        "storm_back_s": back,
        "storm_lost": float(lost),
        "storm_broker_cpu_s": cpu[0],
        "storm_aggregator_cpu_s": cpu[1],
    }
    notes = [f"first tries within {FIRST_TRY:g} s; broker, aggregator and all agents on this machine"]
    if agents < _AGENTS:
        notes.append(f"{agents} agents instead of {_AGENTS}: the limit of descriptors allows no more")
    return [Report(title=f"{agents} agents, all disconnected at once", rows=rows, figures=figures, notes=notes)]


def _allowed(wanted: int) -> int:
    """As many agents as descriptors allow, of which the broker inherits the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted + _SPARE_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, wanted + _SPARE_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most - _SPARE_DESCRIPTORS


@contextmanager
def _running(options: Options, agents: int) -> Iterator[tuple[Swarm, Path, list[Program]]]:
    directory = options.directory / "storm"
    directory.mkdir()
    with ExitStack() as started:
        stage = Stage(network=Network(), directory=directory, started=started)
        port, broker = start_broker(stage)
        words = ("aggregator", "--broker", f"mqtt://127.0.0.1:{port}", "--data", directory)
        aggregator = stage.serve("aggregator", sys.executable, "-m", "telemetry", *words)
        swarm = Swarm(("127.0.0.1", port), agents=agents, intervals=Intervals(), topics=Topics())
        started.enter_context(closing(swarm))
        swarm.start(within=FIRST_TRY)
        yield swarm, directory / "telemetry.db", [broker, aggregator]


def _settle(swarm: Swarm, database: Path, *, value: int) -> float:
    """Let all state a value, and wait until all are there and every mirror has it: seconds."""
    began = time.monotonic()
    swarm.change(value)
    _until(lambda: swarm.connected == len(swarm.agents), swarm, f"all connected ({value})")
    _say(f"all connected after {time.monotonic() - began:.1f} s")
    _until(lambda: _differing(swarm, database) == 0, swarm, f"every mirror equals its host ({value})")
    took = time.monotonic() - began
    _say(f"all verified after {took:.1f} s")
    return took


def _until(condition: Callable[[], bool], swarm: Swarm, what: str) -> None:
    deadline = time.monotonic() + _DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"not within {_DEADLINE:g} s: {what}; {swarm.connected} connected")
        swarm.run(0.5)


def _differing(swarm: Swarm, database: Path) -> int:
    """How many mirrors do not equal their host, or do not say that it is online."""
    try:
        with open_reader(database) as reader:
            records = reader.records()
    except TelemetryError:
        return len(swarm.agents)
    wrong = 0
    for agent in swarm.agents:
        stored = records.get(agent.key.record)
        mirrored = MirroredRecord(agent.key.record, stored)
        held = {name: one.value for name, one in mirrored.held(Owner.HARDWARE).items() if one.value is not None}
        told, record = agent.publisher.own.values.taken, agent.key.record.record
        state = mirrored.held(Owner.AGGREGATOR).get("netState")
        wrong += digest(record, held) != digest(record, told) or state is None or state.value != "online"
    return wrong


def _lost(database: Path) -> int:
    with open_reader(database) as reader:
        return sum(agent.lost for agent in reader.agents().values())


def _say(what: str) -> None:
    print(f"storm: {what}", file=sys.stderr, flush=True)
