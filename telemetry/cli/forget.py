"""Remove a host, or a miner with its hosts, that is gone for good: credentials, retained messages, mirror.

Its history stays unless it is asked for.
"""

import argparse
import time

from telemetry.cli.exchange import TIMEOUT, connect, flush, follow, receive_retained
from telemetry.cli.options import add_broker, add_common, add_database, add_record, chosen, record_of
from telemetry.cli.tables import count_of
from telemetry.cli.users import tell_broker
from telemetry.client import Fleet
from telemetry.errors import TelemetryError
from telemetry.security.enrolment import revoke, users_of
from telemetry.security.registry import Registry
from telemetry.stores.sqlite import delete_history
from telemetry.topics import RecordKey
from telemetry.wire import PresenceState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_record(parser)
    add_common(parser)
    add_broker(parser)
    add_database(parser)
    parser.add_argument("--history", action="store_true", help="delete what happened to it too, from the database here")
    parser.add_argument("--force", action="store_true", help="even while its agent is online, which brings it back")


def run(arguments: argparse.Namespace) -> int:
    """Clear the presences, and wait for the aggregator to remove the records."""
    key = record_of(arguments)
    with follow(chosen(arguments), key) as fleet:
        connect(fleet)
        receive_retained(fleet)
        keys = [one for one in fleet.records if key.hostName is None or one == key]
        if not keys and key.hostName is not None:
            # Nothing is retained of it, but the database may know it.
            _revoke(arguments, key)
            fleet.forget(key)
            flush(fleet)
            print(f"asked to forget {key}, of which the broker retains no snapshot")
            _delete_history(arguments, [key])
            return 0
        if not keys:
            raise TelemetryError(f"{key}: the broker has no snapshot of it; `telemetry ls` lists what there is")
        if not arguments.force:
            _require_gone(fleet, keys)
        # First: an agent that lives would only come back.
        _revoke(arguments, key)
        for one in keys:
            fleet.forget(one)
        flush(fleet)
        _wait_for_removal(fleet, keys)
        _delete_history(arguments, keys)
        return 0


def _revoke(arguments: argparse.Namespace, key: RecordKey) -> None:
    """End the credentials of what is forgotten, where this machine's broker gave some."""
    registry = Registry(chosen(arguments).data)
    if registry.exists and (ended := revoke(registry, users_of(registry.accounts(), key))):
        print(f"revoked {', '.join(map(str, ended))}: {tell_broker(registry)}")


def _delete_history(arguments: argparse.Namespace, keys: list[RecordKey]) -> None:
    if arguments.history:
        records = delete_history(chosen(arguments).database, keys)
        print(f"deleted the history of {count_of(records, 'record')}")


def _require_gone(fleet: Fleet, keys: list[RecordKey]) -> None:
    # The snapshot may be some seconds old, and the presence a broker's that was killed: both have to say so.
    online = [
        str(key)
        for key in keys
        if fleet.presences.get(key) is PresenceState.ONLINE
        and fleet.records[key].fields.get("netState", "online") == "online"
    ]
    if online:
        raise TelemetryError(f"still online: {', '.join(online)}; end the agent first, or it comes back (--force)")


def _wait_for_removal(fleet: Fleet, keys: list[RecordKey]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while left := [key for key in keys if key in fleet.records]:
        if time.monotonic() > deadline:
            raise TelemetryError(f"asked, but no aggregator has removed {', '.join(map(str, left))} yet; does it run?")
        fleet.poll(0.1)
    print(f"forgot {', '.join(map(str, keys))}")
