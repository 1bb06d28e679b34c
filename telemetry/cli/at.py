"""One record as it was at a time, from the database."""

import argparse
import time

import orjson

from telemetry.cli.moments import Moment, moments
from telemetry.cli.options import add_common, add_database, add_json, add_record, chosen, record_of
from telemetry.cli.tables import Cell, Styled, format_moment, format_value, print_line, print_table, state_text
from telemetry.times import TIME_HELP, parse_time
from telemetry.topics import RecordKey
from telemetry.units import format_age


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("time", metavar="TIME", help=TIME_HELP)
    add_record(parser)
    add_common(parser)
    add_database(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the record as `show` would have then."""
    now = time.time_ns() // 1_000_000
    key = record_of(arguments)
    [moment] = moments(chosen(arguments).database, key, [parse_time(arguments.time, now)], now)
    if arguments.json:
        newest = max(one.time for one in moment.held.values())
        print(orjson.dumps(key.fields | moment.values | {"_time": newest}).decode())
        return 0
    print_line(*_title(key, moment, now))
    declared = key.record.by_name
    rows = [
        (name, format_value(declared.get(name), one.value), f"{format_age((moment.time - one.time) / 1000)} before")
        for name, one in moment.held.items()
    ]
    print_table(("FIELD", "VALUE", "STATED"), rows, right=frozenset({"STATED"}), folds="VALUE")
    return 0


def _title(key: RecordKey, moment: Moment, now: int) -> list[Cell]:
    when = f"{format_moment(moment.time)}, {format_age((now - moment.time) / 1000)} ago: "
    named = Styled(str(key), "bold")
    if moment.state is None:
        return [named, f"  {when}whether its agent was there is not known"]
    state, since = moment.state
    return [named, f"  {when}", state_text(state), f" for {format_age((moment.time - since) / 1000)}"]
