"""One record as it is now, from the database."""

import argparse

import orjson

from telemetry.aggregator.mirror import MirroredRecord
from telemetry.cli.live import record_rows, record_title
from telemetry.cli.options import add_common, add_database, add_json, add_record, chosen, record_of
from telemetry.cli.tables import console, print_table
from telemetry.errors import TelemetryError
from telemetry.stores.reading import open_reader
from telemetry.wire import flat_snapshot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_record(parser)
    add_common(parser)
    add_database(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the record as its snapshot would be published."""
    key = record_of(arguments)
    database = chosen(arguments).database
    with open_reader(database) as reader:
        stored = reader.record(key)
    if stored is None:
        raise TelemetryError(f"{key}: no such record in {database}; `telemetry ls` lists them")
    snapshot = MirroredRecord(key, stored).snapshot()
    if arguments.json:
        print(orjson.dumps(flat_snapshot(snapshot)).decode())
        return 0
    console().print(record_title(key, snapshot.values, snapshot.time))
    print_table(("FIELD", "VALUE"), record_rows(key, snapshot.values))
    return 0
