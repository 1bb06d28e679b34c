"""Give a user new credentials. The old ones end at once, so that its agent is out until it has the new bundle."""

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
    """Change the users, write their bundles, and have the broker know."""
    registry, wanted = Registry(chosen(arguments).data), whom(arguments)
    enrolment, outputs = Enrolment(registry), Outputs(arguments, wanted, replaces=True)
    paths = list(outputs.write(enrolment.rotate(wanted)))
    tell_bundles(paths, tell_broker(registry), "renewed:")
    return 0
