"""Remove a host, or a miner with its hosts, that is gone for good: retained messages and mirror; history stays."""

import argparse
import time

from telemetry.cli.exchange import TIMEOUT, connect, flush, follow, receive_retained
from telemetry.cli.options import add_broker, add_common, add_record, chosen, record_of
from telemetry.client import Fleet
from telemetry.errors import TelemetryError
from telemetry.topics import RecordKey
from telemetry.wire import PresenceState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_record(parser)
    add_common(parser)
    add_broker(parser)
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
            fleet.forget(key)
            flush(fleet)
            print(f"asked to forget {key}, of which the broker retains no snapshot")
            return 0
        if not keys:
            raise TelemetryError(f"{key}: the broker has no snapshot of it; `telemetry ls` lists what there is")
        if not arguments.force:
            _require_gone(fleet, keys)
        for one in keys:
            fleet.forget(one)
        flush(fleet)
        return _wait_for_removal(fleet, keys)


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


def _wait_for_removal(fleet: Fleet, keys: list[RecordKey]) -> int:
    deadline = time.monotonic() + TIMEOUT
    while left := [key for key in keys if key in fleet.records]:
        if time.monotonic() > deadline:
            raise TelemetryError(f"asked, but no aggregator has removed {', '.join(map(str, left))} yet; does it run?")
        fleet.poll(0.1)
    print(f"forgot {', '.join(map(str, keys))}")
    return 0
