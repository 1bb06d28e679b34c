"""Who the agents of this machine are: the host's name, its miner, and whether the miner's agent runs here too."""

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from telemetry.agent.state import MinerFile
from telemetry.cli.options import Chosen
from telemetry.config import Settings
from telemetry.errors import TelemetryError, UsageError
from telemetry.sources.lotus.endpoints import find_miner, tells_of_miner
from telemetry.topics import require_host_name, require_miner_id

NO_MINER = "f00"
"""The miner id where neither a setting nor a Lotus tells one."""

MINER_HELP = f"the miner it works for (default: as Lotus says; {NO_MINER} where there is none)"

_RETRY = 5.0


def host_name(settings: Settings) -> str:
    """The name of this machine's host agent."""
    return require_host_name(settings.agent.name or socket.gethostname())


def known_miner(choice: Chosen) -> str | None:
    """The miner id of this machine's agents: that of the settings, else what Lotus told last; None when not known."""
    if choice.settings.agent.miner:
        return require_miner_id(choice.settings.agent.miner)
    return MinerFile(choice.state).last() if _names_lotus(choice.settings) else NO_MINER


def learn_miner(choice: Chosen, wait: Callable[[float], bool], tell: Callable[[str], None]) -> str | None:
    """The miner id, for which Lotus is asked where it alone knows, until it answers; None when `wait` says to end.

    What it told in an earlier run stands in for it while it is down, which goes to `tell`, once.
    """
    if choice.settings.agent.miner or not _names_lotus(choice.settings):
        return known_miner(choice)
    from telemetry.sources.lotus.environment import actor_address  # noqa: PLC0415  # where there is a Lotus only

    told = ""
    while True:
        try:
            miner = require_miner_id(actor_address(os.environ, Path.home()))
        except TelemetryError as error:
            if (kept := known_miner(choice)) is not None:
                tell(f"lotus: {error}; the miner is {kept}, as it said before")
                return kept
            if str(error) != told:
                told = str(error)
                tell(f"lotus: {told}; waiting for it to tell the miner's id: start it, or give --miner")
        else:
            MinerFile(choice.state).keep(miner)
            return miner
        if wait(_RETRY):
            return None


def is_miner_host(settings: Settings) -> bool:
    """Whether the miner's agent runs here.

    By itself it does where lotus-miner is on this machine. A sealing host names its miner's API too, for
    lotus-worker; that miner's agent runs where the miner does.
    """
    if settings.lotus.use != "auto":
        return settings.lotus.use == "always"
    if not _names_lotus(settings):
        return False
    try:
        endpoint = find_miner(os.environ, Path.home())
    except UsageError:
        return True
    return endpoint is None or _is_of_this_machine(endpoint.host)


def _names_lotus(settings: Settings) -> bool:
    return settings.lotus.use != "never" and tells_of_miner(os.environ, Path.home())


def _is_of_this_machine(host: str) -> bool:
    try:
        addresses = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    return any(_can_bind(family, address) for family, _, _, _, address in addresses)


def _can_bind(family: int, address: Sequence[object]) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(address)  # type: ignore[arg-type]  # as getaddrinfo gave it
        except OSError:
            return False
    return True
