"""Give a user new credentials. The old ones end at once, so that its agent is out until it has the new bundle."""

import argparse

from telemetry.cli.users import add_output, add_whom, give
from telemetry.security.enrolment import Enrolment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_whom(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Change the users, write their bundles, and have the broker know."""
    give(arguments, Enrolment.rotate, replaces=True, verb="renewed:")
    return 0
