"""Have a miner's snapshots published again, for all who follow it."""

import argparse

from telemetry.cli.exchange import connect, flush, follow
from telemetry.cli.options import add_broker, add_common, add_record, chosen, record_of


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
        fleet.resubscribe(key.minerId, (key.hostName,) if key.hostName else ())
        flush(fleet)
    print(f"asked for the snapshots of {key}")
    return 0
