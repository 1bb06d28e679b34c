"""Sample this host's hardware, and publish what changed."""

import argparse
import signal
import socket

from telemetry.agent.agent import Agent
from telemetry.agent.sampler import Plan
from telemetry.agent.state import EpochFile
from telemetry.cli.logs import start_logging
from telemetry.cli.options import Chosen, add_broker, add_common, chosen
from telemetry.config import Settings, SourceSettings, require_known
from telemetry.fields import Owner
from telemetry.mqtt import BrokerUrl, Connection
from telemetry.records import WORKER_INFO
from telemetry.sources import Source
from telemetry.sources.gpu import Gpu
from telemetry.sources.host import CpuTemperature, System
from telemetry.sources.mounts import Disks
from telemetry.topics import AgentKey, require_host_name, require_miner_id

NO_MINER = "f00"
"""The miner id where neither a setting nor a Lotus tells one."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_common(parser)
    add_broker(parser)
    parser.add_argument("--miner", dest="miner_id", metavar="ID", help=f"the miner it works for (default: {NO_MINER})")
    parser.add_argument("--name", dest="host_name", help="the host's name (default: that of the machine)")
    parser.add_argument("--state", metavar="DIR", help="what it keeps between two runs (default: agent in --data)")


def run(arguments: argparse.Namespace) -> int:
    """Sample until Ctrl-C or SIGTERM."""
    choice = chosen(arguments)
    start_logging("agent")
    url = BrokerUrl.parse(choice.broker)
    agent = _make(choice)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: agent.stop())
    connection = Connection(
        url,
        client_id=agent.key.client_id,
        deliver=agent.deliver,
        filters=agent.filters,
        will=agent.will,
        protocol=choice.settings.broker.protocol,
    )
    agent.run(connection)
    return 0


def _make(choice: Chosen) -> Agent:
    settings = choice.settings
    key = agent_key(settings)
    return Agent(
        key,
        owner=Owner.HARDWARE,
        plans=host_plans(settings),
        intervals=settings.intervals,
        deadbands=settings.deadbands,
        topics=choice.topics,
        epochs=EpochFile(choice.state, key),
    )


def agent_key(settings: Settings) -> AgentKey:
    """Whom the settings make this machine's host agent."""
    miner = require_miner_id(settings.agent.miner or NO_MINER)
    return AgentKey(miner, require_host_name(settings.agent.name or socket.gethostname()))


def host_sources() -> tuple[Source, ...]:
    """All sources of a host. A new one is an entry here."""
    return (System(), CpuTemperature(), Disks(), Gpu())


def host_plans(settings: Settings) -> list[Plan]:
    """Each source of the host with its interval and deadline. Raises UsageError for a source that is not known."""
    require_known(settings.deadbands, WORKER_INFO.owned_by(Owner.HARDWARE), "deadbands")
    sources = host_sources()
    require_known(settings.sources, [source.name for source in sources], "sources")
    plans = []
    for source in sources:
        own = settings.sources.get(source.name, SourceSettings())
        interval = own.interval or settings.intervals.host
        plans.append(Plan(source=source, interval=interval, deadline=own.deadline))
    return plans
