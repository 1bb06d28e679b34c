"""Which sources an agent has, how often each is sampled, and how long it may take. A new source is an entry here.

The sources of Lotus, and what they import, are loaded only where there is a Lotus.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from telemetry.agent.sampler import Plan
from telemetry.config import Settings, SourceSettings, require_known
from telemetry.records import RECORDS
from telemetry.sources import Source
from telemetry.sources.gpu import Gpu
from telemetry.sources.host import CpuTemperature, System
from telemetry.sources.lotus.tasks import SHORT_NAMES
from telemetry.sources.mounts import Disks
from telemetry.topics import require_host_name

if TYPE_CHECKING:
    from telemetry.sources.lotus.environment import Environment

_HOST_DEADLINE = 5.0
_LOTUS_DEADLINES: Mapping[str, float] = {"lotus": 45, "queues": 90, "sectors": 60, "miner": 90, "chain": 240}
_LATE = 1.0
"""Seconds by which a source of Lotus may miss its deadline, which it keeps by itself and with a better reason."""


def host_sources() -> tuple[Source, ...]:
    """All sources of a host."""
    return (System(), CpuTemperature(), Disks(), Gpu())


def require_known_names(settings: Settings) -> None:
    """Raise UsageError where a setting names a source, a field or a task that there is not."""
    stated = [name for record in RECORDS for owner in record.senders for name in record.owned_by(owner)]
    require_known(settings.deadbands, stated, "deadbands")
    require_known(settings.sources, [*(source.name for source in host_sources()), *_LOTUS_DEADLINES], "sources")
    require_known(settings.overdue, SHORT_NAMES.values(), "overdue")
    for host in settings.hosts.values():
        require_host_name(host)


def host_plans(settings: Settings) -> list[Plan]:
    """The sources of a host."""
    return [
        Plan(source=source, interval=_interval(settings, source.name), deadline=_deadline(settings, source.name))
        for source in host_sources()
    ]


def miner_environment(settings: Settings, miner: str, environ: Mapping[str, str] = os.environ) -> "Environment":
    """What looks whether the Lotus that the variables tell of can be used for a miner."""
    from telemetry.sources.lotus.environment import Environment  # noqa: PLC0415

    return Environment(miner, network=settings.lotus.network, deadline=_deadline(settings, "lotus"), environ=environ)


def miner_plans(settings: Settings, miner: str, environ: Mapping[str, str] = os.environ) -> list[Plan]:
    """The sources of a miner: what says whether its Lotus can be used comes first, because the others ask it."""
    from telemetry.sources.lotus.polls import Balances, Sealing, State, TaskQueues, Walk  # noqa: PLC0415

    environment = miner_environment(settings, miner, environ)

    def deadline(name: str) -> float:
        return _deadline(settings, name)

    sources: tuple[Source, ...] = (
        State(environment),
        TaskQueues(environment, deadline=deadline("queues"), host_names=settings.hosts, overdue=settings.overdue),
        Sealing(environment, deadline=deadline("sectors")),
        Balances(environment, miner, deadline=deadline("miner")),
        Walk(environment, miner, deadline=deadline("chain")),
    )
    # What fails is tried again as soon as a look may have found Lotus well again.
    tick = _interval(settings, "lotus")
    return [
        Plan(
            source=source,
            interval=_interval(settings, source.name),
            deadline=deadline(source.name) + _LATE,
            second=tick,
            retry=tick,
        )
        for source in sources
    ]


def retimed(plans: Sequence[Plan], settings: Settings) -> list[Plan]:
    """The same sources, each at the interval of other settings."""
    tick = _interval(settings, "lotus")
    return [
        replace(
            plan,
            interval=_interval(settings, plan.source.name),
            retry=None if plan.retry is None else tick,
        )
        for plan in plans
    ]


def _interval(settings: Settings, name: str) -> float:
    intervals = settings.intervals
    usual = {
        "lotus": intervals.queues,
        "queues": intervals.queues,
        "sectors": intervals.miner,
        "miner": intervals.miner,
        "chain": intervals.chain,
    }
    return settings.sources.get(name, SourceSettings()).interval or usual.get(name, intervals.host)


def _deadline(settings: Settings, name: str) -> float:
    return settings.sources.get(name, SourceSettings()).deadline or _LOTUS_DEADLINES.get(name, _HOST_DEADLINE)
