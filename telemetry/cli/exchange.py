"""What commands that act through the broker share."""

import time

from telemetry.cli.options import Chosen
from telemetry.client import Fleet
from telemetry.errors import TelemetryError
from telemetry.topics import RecordKey

TIMEOUT = 10.0
"""Seconds to wait for the broker."""

_QUIET = 0.5


def follow(choice: Chosen, key: RecordKey) -> Fleet:
    """The fleet that the settings name, limited to a miner or host."""
    protocol = choice.settings.broker.protocol
    return Fleet(choice.broker, miner=key.minerId, host=key.hostName, topics=choice.topics, protocol=protocol)


def connect(fleet: Fleet) -> None:
    """Wait until the fleet is connected; TelemetryError with the reason when that takes too long."""
    deadline = time.monotonic() + TIMEOUT
    while fleet.outage is not None:
        fleet.poll(0.1)
        if time.monotonic() > deadline:
            raise TelemetryError(f"not connected: {fleet.outage}; does the broker run?")


def receive_retained(fleet: Fleet) -> None:
    """Take in the snapshots that the broker retains: they follow the subscription without a long pause."""
    quiet_since = time.monotonic()
    while time.monotonic() < quiet_since + _QUIET:
        if fleet.poll(0.1):
            quiet_since = time.monotonic()


def flush(fleet: Fleet) -> None:
    """Wait until the broker has taken what was asked."""
    if not fleet.flush(TIMEOUT):
        raise TelemetryError("the broker did not take the request; try again")
