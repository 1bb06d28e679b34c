"""Copy the database as it is now, also while an aggregator writes. The copy is checked before it stands there."""

import argparse
import time
from pathlib import Path

from telemetry.cli.files import progress, replacing
from telemetry.cli.options import add_common, add_database, chosen
from telemetry.cli.tables import count_of
from telemetry.errors import TelemetryError, UsageError
from telemetry.stores.backup import copy_database
from telemetry.stores.reading import is_served, open_database, open_reader
from telemetry.units import Unit, format_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("file", metavar="FILE", help="the backup to make; an earlier backup of that name is replaced")
    add_common(parser)
    add_database(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the backup."""
    database, target = chosen(arguments).database, Path(arguments.file)
    _require_replaceable(target, database)
    began = time.monotonic()
    with progress("backup") as advance, replacing(target) as temporary:
        copy_database(database, temporary, advance)
    with open_reader(target) as reader:
        records = reader.count()
    size, seconds = format_number(target.stat().st_size, Unit.BYTES), time.monotonic() - began
    print(f"{count_of(records, 'record')} and all history in {target}: {size}, checked, in {seconds:.1f} s")
    return 0


def _require_replaceable(target: Path, database: Path) -> None:
    """Only a backup that nobody uses is replaced."""
    if not target.exists():
        return
    if database.exists() and target.samefile(database):
        raise UsageError(f"{target} is the database itself: give another FILE")
    if is_served(target):
        raise UsageError(f"{target}: an aggregator is using it: give another FILE")
    if target.stat().st_size:
        try:
            with open_database(target):
                pass
        except TelemetryError as error:
            raise UsageError(f"{target} is there and no backup, so it stays: give another FILE ({error})") from None
