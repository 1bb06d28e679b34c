"""Give a host (or one who reads, or an aggregator) its credentials: one file, for `--bundle` there."""

import argparse

from telemetry.cli.options import chosen
from telemetry.cli.users import Outputs, add_output, add_whom, tell_broker, tell_bundles, whom
from telemetry.security.enrolment import Enrolment
from telemetry.security.registry import Registry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_whom(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the users, write their bundles, and have the broker let them in."""
    registry, wanted = Registry(chosen(arguments).data), whom(arguments)
    enrolment, outputs = Enrolment(registry), Outputs(arguments, wanted, replaces=False)
    paths = list(outputs.write(enrolment.enroll(wanted)))
    tell_bundles(paths, tell_broker(registry), "enrolled:")
    return 0
