"""Have a miner's snapshots published again, for all who follow it."""

import argparse
import time

from telemetry.cli.exchange import connect, flush, follow, receive_retained
from telemetry.cli.options import add_broker, add_common, add_record, chosen, record_of
from telemetry.errors import TelemetryError

_PATIENCE = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_record(parser)
    add_common(parser)
    add_broker(parser)


def run(arguments: argparse.Namespace) -> int:
    """Publish the request, and wait for the broker to take it."""
    key = record_of(arguments)
    with follow(chosen(arguments), key) as fleet:
        connect(fleet)
        receive_retained(fleet)
        before = fleet.snapshots
        fleet.resubscribe(key.minerId, (key.hostName,) if key.hostName else ())
        flush(fleet)
        deadline = time.monotonic() + _PATIENCE
        while fleet.snapshots == before and time.monotonic() < deadline:
            fleet.poll(0.1)
        if fleet.snapshots == before:
            raise TelemetryError(
                f"asked for the snapshots of {key}, and none came: is it known, does an aggregator run?"
            )
    print(f"the snapshots of {key} are published again")
    return 0
