"""One record as it is now, from the database."""

import argparse
from pathlib import Path

from telemetry.aggregator.mirror import MirroredRecord
from telemetry.cli.live import record_rows, record_title
from telemetry.cli.options import add_common, add_database, add_json, add_record, chosen, record_of
from telemetry.cli.tables import print_line, print_table, warn_if_idle
from telemetry.errors import TelemetryError
from telemetry.stores.reading import open_reader
from telemetry.topics import RecordKey
from telemetry.wire import decode_snapshot


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
        hosts = reader.hosts(key.minerId)
    if stored is None:
        raise TelemetryError(_absent(key, hosts, database))
    payload = MirroredRecord(key, stored).snapshot()
    if arguments.json:
        print(payload.decode())
        return 0
    snapshot = decode_snapshot(payload)
    print_line(*record_title(key, snapshot.values, snapshot.time))
    print_table(("FIELD", "VALUE"), record_rows(key, snapshot.values), folds="VALUE")
    warn_if_idle(database)
    return 0


def _absent(key: RecordKey, hosts: list[str], database: Path) -> str:
    if key.hostName is None and hosts:
        return f"{key} has no record of its own; its hosts have: telemetry show {key} {hosts[0]}"
    return f"{key}: no such record in {database}; `telemetry ls` lists them"
