"""Sample this host's hardware, and the Lotus of its miner if it has one, and publish what changed."""

import argparse
import logging
import signal
import threading
from collections.abc import Sequence
from functools import partial

from telemetry.agent.agent import Agent
from telemetry.agent.place import Connect
from telemetry.agent.plans import host_plans, miner_plans, require_known_names
from telemetry.agent.sampler import Plan
from telemetry.cli.identity import MINER_HELP, host_name, is_miner_host, learn_miner
from telemetry.cli.options import Chosen, add_broker, add_common, chosen
from telemetry.cli.reload import Reload
from telemetry.config import Settings
from telemetry.errors import UsageError
from telemetry.fields import Owner
from telemetry.logs import start_logging
from telemetry.mqtt import BrokerUrl, Connection
from telemetry.processes import keep_memory_small
from telemetry.topics import MINER_AGENT, AgentKey, RecordKey, require_host_name

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_common(parser)
    add_broker(parser)
    parser.add_argument("--miner", dest="miner_id", metavar="ID", help=MINER_HELP)
    parser.add_argument("--name", dest="host_name", help="the host's name (default: that of the machine)")
    parser.add_argument("--state", metavar="DIR", help="what it keeps between two runs (default: agent in --data)")


def run(arguments: argparse.Namespace) -> int:
    """Sample until Ctrl-C or SIGTERM."""
    keep_memory_small()
    choice = chosen(arguments)
    start_logging("agent", choice.settings.log)
    require_known_names(choice.settings)
    host, stop = host_name(choice.settings), AgentStop()
    reload = Reload("agent", arguments, choice, require_known_names)
    miner = learn_miner(choice, stop.wait, _log.warning)
    if miner is not None:
        agents = _agents(choice, RecordKey(miner, host))
        reload.hand_to(lambda settings: _retune(agents, settings))
        run_agents(agents, choice, stop)
    return 0


def _retune(agents: Sequence[Agent], settings: Settings) -> None:
    for agent in agents:
        agent.retune(settings)


def _agents(choice: Chosen, host: RecordKey) -> list[Agent]:
    """The host's agent, and the miner's where it runs."""
    settings = choice.settings
    agents = [make_agent(choice, AgentKey.of(host), Owner.HARDWARE, host_plans(settings))]
    if is_miner_host(settings):
        plans = miner_plans(settings, host.minerId)
        agents.append(make_agent(choice, AgentKey(host.minerId, MINER_AGENT), Owner.MINER, plans))
    return agents


def make_agent(choice: Chosen, key: AgentKey, owner: Owner, plans: list[Plan]) -> Agent:
    """An agent by the settings."""
    settings = choice.settings
    return Agent(
        key,
        owner=owner,
        plans=plans,
        intervals=settings.intervals,
        deadbands=settings.deadbands,
        topics=choice.topics,
        state=choice.state,
        aggregators=[require_host_name(name.strip()) for name in settings.agent.aggregators.split(",")],
        has_own_user=_has_own_user(choice.broker_of(key), key),
        spool_bytes=settings.spool.bytes,
        spool_seconds=settings.spool.seconds,
    )


def _has_own_user(url: BrokerUrl, key: AgentKey) -> bool:
    """Whether the credentials are this agent's alone. Those of another would let it publish nothing, silently."""
    if url.username is None:
        return False
    from telemetry.access import User  # noqa: PLC0415  # memory: not where there are no credentials

    user = User.parse(url.username)
    if user is None or user.agent == key:
        return user is not None
    if key.agent == MINER_AGENT:
        remedy = "enroll it with --miner-agent, or set lotus.use = never"
    else:
        remedy = f"enroll it, or say who it is: --miner {user.miner or 'ID'} --name {user.name}"
    raise UsageError(f"the credentials are for {user}, and this agent is {key.client_id}: {remedy}")


class AgentStop:
    """Ctrl-C or SIGTERM, and the agents that it ends."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.agents: Sequence[Agent] = ()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self._asked.set()
        for agent in self.agents:
            agent.stop()

    def wait(self, seconds: float) -> bool:
        """Wait, but not longer than until the signal; whether it came."""
        return self._asked.wait(seconds)


def run_agents(agents: Sequence[Agent], choice: Chosen, stop: AgentStop) -> None:
    """Run agents until stopped, each with a connection of its own; the first one in this thread."""
    stop.agents = agents
    if stop.wait(0):
        return
    first, *others = agents
    threads = [threading.Thread(target=one.run, args=(_connect(one, choice),), name=str(one.key)) for one in others]
    for thread in threads:
        thread.start()
    first.run(_connect(first, choice))
    for thread in threads:
        thread.join()


def _connect(agent: Agent, choice: Chosen) -> Connect:
    broker = choice.settings.broker
    return partial(
        Connection,
        choice.broker_of(agent.key),
        deliver=agent.deliver,
        protocol=broker.protocol,
        retry=(broker.retry_first, broker.retry_most),
    )
