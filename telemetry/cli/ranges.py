"""The options by which commands are told a range of time."""

import argparse

from telemetry.errors import UsageError
from telemetry.times import TIME_HELP, parse_time


def add_range(parser: argparse.ArgumentParser, *, since: str | None) -> None:
    """`--since` and `--until`."""
    default = "all that there is" if since is None else since
    parser.add_argument("--since", metavar="TIME", default=since, help=f"{TIME_HELP} (default: {default})")
    parser.add_argument("--until", metavar="TIME", default="now", help="up to this time (default: %(default)s)")


def range_of(arguments: argparse.Namespace, now: int) -> tuple[int, int]:
    """The range that `--since` and `--until` name: from the first to before the second."""
    since = 0 if arguments.since is None else parse_time(arguments.since, now)
    until = parse_time(arguments.until, now)
    if since >= until:
        raise UsageError(f"--since {arguments.since.strip()} is not before --until {arguments.until.strip()}")
    return since, until
