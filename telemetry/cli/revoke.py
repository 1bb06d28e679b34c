"""End a user's credentials at once: who is connected by them is dropped. With MINER alone those of all its hosts."""

import argparse

from telemetry.access import User
from telemetry.cli.options import chosen
from telemetry.cli.tables import count_of
from telemetry.cli.users import add_whom, tell_broker, whom
from telemetry.errors import TelemetryError
from telemetry.security.enrolment import revoke, users_of
from telemetry.security.registry import Registry
from telemetry.topics import RecordKey, require_miner_id


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_whom(parser)


def run(arguments: argparse.Namespace) -> int:
    """Take the users away, and have the broker drop them."""
    registry = Registry(chosen(arguments).data)
    users = _users(arguments, registry)
    ended = revoke(registry, users)
    if not ended:
        raise TelemetryError(f"not enrolled: {', '.join(map(str, users)) or arguments.miner}; nothing was revoked")
    told = tell_broker(registry)
    named = str(ended[0]) if len(ended) == 1 else count_of(len(ended), "user")
    print(f"revoked {named}: {told}")
    return 0


def _users(arguments: argparse.Namespace, registry: Registry) -> list[User]:
    is_whole_miner = arguments.miner is not None and arguments.host is None and arguments.viewer is None
    if is_whole_miner and arguments.list is None and arguments.aggregator is None:
        return users_of(registry.accounts(), RecordKey(require_miner_id(arguments.miner)))
    return [one.user for one in whom(arguments)]
