"""Run the Mosquitto that is installed, on loopback and without credentials, with its files below --data."""

import argparse
import sys

from telemetry.cli.options import add_common, chosen
from telemetry.mosquitto import run_mosquitto
from telemetry.processes import require_free


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_common(parser)
    parser.add_argument("--port", type=int, default=1883, help="loopback port (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Become Mosquitto."""
    choice = chosen(arguments)
    require_free(arguments.port)
    if not arguments.quiet:
        where = f"mqtt://127.0.0.1:{arguments.port}"
        print(f"broker: {where}, loopback only and without credentials", file=sys.stderr, flush=True)
    run_mosquitto(choice.data, port=arguments.port, connections=choice.settings.broker.connections)
    return 1
