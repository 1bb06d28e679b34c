"""Give a host (or one who reads, or an aggregator) its credentials: one file, for `--bundle` there."""

import argparse

from telemetry.cli.users import add_output, add_whom, give
from telemetry.security.enrolment import Enrolment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_whom(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the users, write their bundles, and have the broker let them in."""
    give(arguments, Enrolment.enroll, replaces=False, verb="enrolled:")
    return 0
