"""A fleet to try on: a miner with sealing hosts, on a Lotus that is simulated. With --broker the fleet alone.

All else is real: the agents, their messages and, where no broker is named, a broker, an aggregator with its
database, and the web page.
More than 200 hosts, or those with a --rate, are light agents of made-up hardware, without a Lotus. They say what real
ones would say but share a few connections: only their wills are missing.
"""

import argparse
import logging
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import replace

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from telemetry.agent.agent import Agent
from telemetry.agent.plans import miner_plans, require_known_names
from telemetry.agent.sampler import Plan
from telemetry.cli.agent import AgentStop, make_agent, run_agents
from telemetry.cli.light_fleet import run_light_fleet
from telemetry.cli.options import Chosen, add_broker, add_common, chosen
from telemetry.cli.tables import Cell, console, format_value, make_table, print_table, state_text
from telemetry.cli.together import Together, add_ports, run_together
from telemetry.config import Settings
from telemetry.errors import TelemetryError, UsageError
from telemetry.fields import Owner
from telemetry.logs import start_logging
from telemetry.records import MINER_INFO, WORKER_INFO
from telemetry.simulate.accounts import MINER
from telemetry.simulate.hardware import SimulatedHardware
from telemetry.simulate.lotus import Lotus
from telemetry.simulate.scenario import SCENARIOS, Scenario
from telemetry.stores.reading import Reader, open_reader
from telemetry.topics import MINER_AGENT, AgentKey

_DATA = "telemetry-demo"
_MOST_HOSTS = 100_000
_MOST_REAL_AGENTS = 200
_SAMPLES_A_SECOND = 4.0
_SHOW_INTERVAL = 10.0
_HOST_DEADLINE = 5.0

_PIPELINE = ("preCommit1", "preCommit2", "preCommitWait", "waitSeed", "committing", "commitWait", "finalizeSector",
             "failSectors", "unassignedTasks", "chainHeight", "lotusState")  # fmt: skip
_HOST_COLUMNS = {"netState": "STATE", "cpuLoad": "CPU", "gpuLoad": "GPU", "runningTasks": "RUNNING",
                 "pendingTasks": "PENDING", "taskState": "TASKS"}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_common(parser, data=_DATA)
    add_broker(parser)
    listed = "; ".join(f"{name}: {scenario.description}" for name, scenario in SCENARIOS.items())
    parser.add_argument("--hosts", type=int, default=20, metavar="N", help="sealing hosts (default: %(default)s)")
    parser.add_argument("--rate", type=float, help="changes a second of all hosts together, from light agents")
    parser.add_argument("--scenario", choices=SCENARIOS, default="busy", help=f"what happens ({listed})")
    parser.add_argument("--speed", type=float, default=60.0, help="how fast Lotus' time passes (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=0, help="another number, another course of things")
    add_ports(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run until Ctrl-C or SIGTERM."""
    if not 1 <= arguments.hosts <= _MOST_HOSTS:
        raise UsageError(f"--hosts {arguments.hosts}: expected 1 to {_MOST_HOSTS}")
    if not (0 < arguments.speed <= 100_000 and (arguments.rate is None or 0 < arguments.rate <= 1_000_000)):
        raise UsageError("--rate and --speed: expected numbers above 0")
    choice = chosen(arguments)
    require_known_names(choice.settings)
    return _run_fleet(choice, arguments) if arguments.broker else _run_all(choice, arguments)


def _is_light(arguments: argparse.Namespace) -> bool:
    return arguments.hosts > _MOST_REAL_AGENTS or arguments.rate is not None


# --- the fleet alone ---


def _run_fleet(choice: Chosen, arguments: argparse.Namespace) -> int:
    if _is_light(arguments):
        run_light_fleet(choice, hosts=arguments.hosts, rate=arguments.rate, seed=arguments.seed)
        return 0
    start_logging("fleet", choice.settings.log)
    # As many agents would say the same.
    logging.getLogger("telemetry.agent").setLevel(logging.WARNING)
    stop = AgentStop()
    scenario = _sized(SCENARIOS[arguments.scenario], arguments.hosts)
    with Lotus(scenario, seed=arguments.seed, speed=arguments.speed) as lotus:
        run_agents(list(_agents(choice, arguments, lotus)), choice, stop)
    return 0


def _sized(scenario: Scenario, hosts: int) -> Scenario:
    """The scenario with so many hosts, and as much for each to do."""
    sealing = max(1, scenario.size.sealing * hosts // scenario.size.hosts)
    return replace(scenario, size=replace(scenario.size, hosts=hosts, sealing=sealing))


def _hurried(settings: Settings) -> Settings:
    """Settings by which Lotus is asked so often that what happens there in a hurry is seen."""
    usual = settings.intervals
    queues, miner, chain = (min(pair) for pair in ((usual.queues, 3.0), (usual.miner, 6.0), (usual.chain, 30.0)))
    return replace(settings, intervals=replace(usual, queues=queues, miner=miner, chain=chain))


def _agents(choice: Chosen, arguments: argparse.Namespace, lotus: Lotus) -> Iterator[Agent]:
    plans = miner_plans(_hurried(choice.settings), MINER, lotus.environment)
    yield make_agent(choice, AgentKey(MINER, MINER_AGENT), Owner.MINER, plans)
    interval = max(0.1, arguments.hosts / _SAMPLES_A_SECOND)
    for number in range(1, arguments.hosts + 1):
        source = SimulatedHardware(seed=arguments.seed * 1_000_003 + number)
        plan = Plan(source=source, interval=interval, deadline=_HOST_DEADLINE)
        yield make_agent(choice, AgentKey(MINER, f"seal{number:02}"), Owner.HARDWARE, [plan])


# --- with a broker, an aggregator, the web page and a view ---


def _run_all(choice: Chosen, arguments: argparse.Namespace) -> int:
    options = {name: getattr(arguments, name) for name in ("hosts", "rate", "scenario", "speed", "seed")}
    own = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    together = Together(
        own=("fleet", ["simulate", *own]), followed=f"{choice.topics.records}/{MINER}/#", logs_apart=True
    )
    return run_together(together, arguments, choice, _view(choice, arguments))


def _view(choice: Chosen, arguments: argparse.Namespace) -> Generator[None, None, None]:
    if _is_light(arguments):
        return _show_nothing()
    return _show_live(choice) if sys.stdout.isatty() else _show_now_and_then(choice)


def _show_nothing() -> Generator[None, None, None]:
    """The light fleet, which shares our output, says how it goes."""
    while True:
        yield


def _show_live(choice: Chosen) -> Generator[None, None, None]:
    with Live("waiting for the first poll of Lotus\n", console=console(), refresh_per_second=2) as live:
        while True:
            tables = _tables(choice)
            if tables is not None:
                live.update(_rendered(*tables))
            yield


def _show_now_and_then(choice: Chosen) -> Generator[None, None, None]:
    due = time.monotonic()
    while True:
        tables = _tables(choice) if time.monotonic() >= due else None
        if tables is not None:
            pipeline, hosts = tables
            print(f"\n{time.strftime('%H:%M:%S')}  {MINER}  {pipeline}")
            print_table(_headings(), hosts, right=_RIGHT)
            sys.stdout.flush()
            due = time.monotonic() + _SHOW_INTERVAL
        yield


_RIGHT = frozenset({"CPU", "GPU", "RUNNING", "PENDING"})


def _headings() -> tuple[str, ...]:
    return ("HOST", *_HOST_COLUMNS.values())


def _rendered(pipeline: str, hosts: list[list[Cell]]) -> RenderableType:
    return Group(
        Text(f"{MINER}  {pipeline}", style="bold"), make_table(_headings(), hosts, right=_RIGHT, folds="TASKS")
    )


def _tables(choice: Chosen) -> tuple[str, list[list[Cell]]] | None:
    """The miner's pipeline in one line, and a row a host; None while there is none."""
    if not choice.database.exists():
        return None
    try:
        with open_reader(choice.database) as reader:
            pipeline, hosts = _pipeline(reader), list(_hosts(reader))
    except TelemetryError:
        return None
    return (pipeline, hosts) if pipeline and hosts else None


def _pipeline(reader: Reader) -> str:
    for row in reader.columns(MINER_INFO, ("minerId", *_PIPELINE)):
        if row["minerId"] == MINER:
            told = ((name, row[name]) for name in _PIPELINE if row[name] is not None)
            return "  ".join(f"{name} {format_value(MINER_INFO.by_name[name], value)}" for name, value in told)
    return ""


def _hosts(reader: Reader) -> Iterator[list[Cell]]:
    for row in reader.columns(WORKER_INFO, ("minerId", "hostName", *_HOST_COLUMNS)):
        if row["minerId"] == MINER:
            cells: list[Cell] = [format_value(WORKER_INFO.by_name[name], row[name]) for name in _HOST_COLUMNS]
            yield [row["hostName"], state_text(str(cells[0])), *cells[1:]]
