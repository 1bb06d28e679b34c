"""What commands that act through the broker share."""

import time

from telemetry.cli.options import Chosen
from telemetry.client import Fleet
from telemetry.errors import TelemetryError
from telemetry.topics import RecordKey

TIMEOUT = 10.0
"""Seconds to wait for the broker."""

_QUIET = 0.5
_LONGEST_RETAINED = 3.0  # live changes may leave no quiet moment


def follow(choice: Chosen, key: RecordKey) -> Fleet:
    """The fleet that the settings name, limited to a miner or host."""
    protocol = choice.settings.broker.protocol
    return Fleet(choice.broker, miner=key.minerId, host=key.hostName, topics=choice.topics, protocol=protocol)


def connect(fleet: Fleet) -> None:
    """Wait until the fleet is connected; TelemetryError when the first try fails, or takes too long."""
    deadline = time.monotonic() + TIMEOUT
    while not fleet.is_connected:
        fleet.poll(0.1)
        if fleet.outage is not None or time.monotonic() > deadline:
            raise TelemetryError(f"not connected: {fleet.outage or 'no answer'}; does the broker run?")


def receive_retained(fleet: Fleet) -> None:
    """Take in the snapshots that the broker retains: they follow the subscription without a long pause."""
    began = quiet_since = time.monotonic()
    while time.monotonic() < min(quiet_since + _QUIET, began + _LONGEST_RETAINED):
        if fleet.poll(0.1):
            quiet_since = time.monotonic()


def flush(fleet: Fleet) -> None:
    """Wait until the broker has taken what was asked."""
    if not fleet.flush(TIMEOUT):
        raise TelemetryError("the broker did not take the request; try again")
