"""Records as they change, live through the broker; the database is not needed."""

import argparse
import sys
import time
from datetime import UTC, datetime

import orjson
from rich.text import Text

from telemetry.cli.exchange import follow
from telemetry.cli.options import add_broker, add_common, add_json, add_record, chosen, record_of
from telemetry.cli.tables import console, format_value
from telemetry.client import Fleet, Update
from telemetry.topics import RecordKey

_SILENCE = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_record(parser)
    add_common(parser)
    add_broker(parser)
    add_json(parser)
    parser.add_argument("--count", type=int, metavar="N", help="end after N updates")


def run(arguments: argparse.Namespace) -> int:
    """Print each update until Ctrl-C."""
    key = record_of(arguments)
    show = _print_json if arguments.json else _print_line
    printed, told, began = 0, "", time.monotonic()
    try:
        with follow(chosen(arguments), key) as fleet:
            while True:
                for update in fleet.poll(1.0):
                    show(update)
                    printed += 1
                    if printed == arguments.count:
                        return 0
                state = _state(fleet, key, time.monotonic() - began)
                if state != told:
                    told = state
                    print(f"telemetry: {state}", file=sys.stderr)
    except KeyboardInterrupt:
        return 0


def _state(fleet: Fleet, key: RecordKey, elapsed: float) -> str:
    if fleet.outage is not None:
        return f"{fleet.outage}; trying again (does the broker run?)"
    if not fleet.records and elapsed > _SILENCE:
        return f"nothing heard of {key} yet"
    return f"following {key}" if fleet.is_connected else "connecting"


def _print_json(update: Update) -> None:
    changed = {name: update.fields[name] for name in update.fields if name in update.changed}
    gone = sorted(update.changed - update.fields.keys())
    line = update.key.fields | changed | {"_time": update.time} | ({"_gone": gone} if gone else {})
    print(orjson.dumps(line).decode(), flush=True)


def _print_line(update: Update) -> None:
    declared = update.key.record.by_name
    moment = datetime.fromtimestamp(update.time / 1000, UTC).astimezone().strftime("%H:%M:%S")
    line = Text.assemble((moment, "dim"), " ", (str(update.key), "cyan"))
    order = [*declared, *sorted(update.changed - declared.keys())]
    for name in (name for name in order if name in update.changed):
        value = format_value(declared.get(name), update.fields[name]) if name in update.fields else "gone"
        line.append("  ").append(name, "bold").append(" " + value.replace("\n", " | "))
    if not update.is_whole:
        line.append("  (changes missing, asking)", "yellow")
    console().print(line, soft_wrap=True)
