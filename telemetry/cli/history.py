"""What fields of a record were over a time, from the database: each statement, or one row a step."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from telemetry.cli.known import TIERS, aggregates_of, opened, require_record, tell
from telemetry.cli.options import add_common, add_database, chosen, named_record
from telemetry.cli.ranges import add_range, range_of
from telemetry.cli.tables import Cell, format_column, format_moment, format_value, print_table
from telemetry.errors import TelemetryError, UsageError
from telemetry.records import declared
from telemetry.stores.history import HOUR, Tier
from telemetry.stores.history.reading import FOR_EVER, History
from telemetry.stores.history.series import AGGREGATES, Column, Part, parts, require_field, statements, stepped
from telemetry.times import parse_span
from telemetry.topics import RecordKey
from telemetry.units import format_age, format_number, number_formatter

_EXAMPLE = "as in `telemetry history f01234 seal01 cpuLoad useMemory`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.usage = "telemetry history [options] MINER [HOST] FIELD [FIELD ...]"
    parser.add_argument("miner", metavar="MINER", help="the miner's id, such as f01234")
    parser.add_argument(
        "names",
        metavar="FIELD",
        nargs="+",
        help="fields, see `telemetry fields`; a first name that is no field's is the host's (MINER/HOST does too)",
    )
    add_range(parser, since="-1h")
    parser.add_argument("--step", metavar="SPAN", help="one row a step of such a length: 30s, 5m, 1h, 1d")
    parser.add_argument(
        "--agg", metavar="NAMES",
        help=f"with --step, of numbers: {', '.join(AGGREGATES)}, or several with commas (default: mean); "
        "of other fields what held at the step's end",
    )  # fmt: skip
    add_common(parser)
    add_database(parser)
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON instead of a table")
    output.add_argument("--csv", action="store_true", help="print CSV instead of a table")
    output.add_argument("--plot", action="store_true", help="draw numbers instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Print the table, or what is asked for in its place."""
    since, until = range_of(arguments, time.time_ns() // 1_000_000)
    step = 0 if arguments.step is None else parse_span(arguments.step)
    aggregates = aggregates_of(arguments.agg, step)
    with opened(chosen(arguments).database) as history:
        key, fields = _named(history, arguments.miner, arguments.names)
        kept = require_record(history, key)
        for name in fields:
            require_field(history, key, name)
        if step:
            ranges = parts(kept, since, until, step)
            columns = stepped(history, key, fields, ranges, aggregates)
            _tell_of_steps(ranges, step)
        else:
            columns = statements(history, key, fields, since, until)
            _tell_of_summaries(columns, kept)
    times = sorted({time for column in columns for time in column.values})
    if not times:
        raise TelemetryError(_nothing(key, fields, since, until, kept))
    if arguments.json:
        print(orjson.dumps([_flat(columns, one) for one in times]).decode())
    elif arguments.csv:
        _print_csv(columns, times)
    elif arguments.plot:
        _plot(key, columns, since, until, step)
    else:
        _print_table(columns, times)
    return 0


def _named(history: History, miner: str, names: Sequence[str]) -> tuple[RecordKey, list[str]]:
    """The record and the fields: a first name that is no field's is the host's."""
    key, rest = named_record(miner, None), list(names)
    if key.hostName is None and declared(rest[0]) is None:
        host = named_record(miner, rest[0])
        if history.kept_since(host) or not (history.kept_since(key) and rest[0] in history.fields()):
            key, rest = host, rest[1:]
    if not rest:
        raise UsageError(f"which field of {key}? {_EXAMPLE}; `telemetry fields` lists them")
    return key, list(dict.fromkeys(rest))


def _nothing(key: RecordKey, fields: Sequence[str], since: int, until: int, kept: dict[Tier, int]) -> str:
    first = min(kept.values())
    return (
        f"{key}: nothing known of {', '.join(fields)} from {format_moment(since)} to {format_moment(until)}"
        f" (there is history since {format_moment(first)})"
    )


def _tell_of_summaries(columns: Sequence[Column], kept: dict[Tier, int]) -> None:
    messages = kept.get(Tier.MESSAGES)
    times = [time for column in columns for time in column.values]
    if times and (messages is None or min(times) < messages):
        tier = Tier.FIVE_MINUTES if kept.get(Tier.FIVE_MINUTES, FOR_EVER) <= min(times) else Tier.HOURS
        until = "" if messages is None else f" before {format_moment(messages)}"
        tell(f"messages are not kept any more{until}: there {TIERS[tier]} stand in for them")


def _tell_of_steps(ranges: Sequence[Part], step: int) -> None:
    for part in ranges:
        if part.step != step:
            tell(f"no steps so short are kept of the time before {format_moment(part.until)}: "
                 f"there one is {format_age(part.step / 1000)}")  # fmt: skip


# --- output ---


def _flat(columns: Sequence[Column], time: int) -> dict[str, Any]:
    told = {column.name: column.values[time] for column in columns if time in column.values}
    gone = [name for name, value in told.items() if value is None]
    return (
        {"_time": time}
        | {name: value for name, value in told.items() if value is not None}
        | ({"_gone": gone} if gone else {})
    )


def _print_csv(columns: Sequence[Column], times: Sequence[int]) -> None:
    from telemetry.cli.writers import write_csv  # noqa: PLC0415  # for CSV only

    rows = ({"_time": one} | {column.name: column.values.get(one) for column in columns} for one in times)
    write_csv(rows, dict.fromkeys(["_time", *(column.name for column in columns)]), sys.stdout.buffer)


def _print_table(columns: Sequence[Column], times: Sequence[int]) -> None:
    titles = ["\n".join(filter(None, (column.field, column.aggregate))) for column in columns]
    cells = [_cells(column, times) for column in columns]
    rows: list[tuple[Cell, ...]] = list(zip(map(format_moment, times), *cells, strict=True))
    numbers = [
        title
        for title, column in zip(titles, columns, strict=True)
        if not any(isinstance(value, str | list | dict) for value in column.values.values())
    ]
    folds = next((title for title in titles if title not in numbers), "")
    print_table(("TIME", *titles), rows, right=frozenset(numbers), folds=folds)


def _cells(column: Column, times: Sequence[int]) -> list[str]:
    if column.aggregate:
        values = column.values
        write = number_formatter(column.unit)
        return [write(_rounded(values[one])) if one in values else "" for one in times]  # type: ignore[arg-type]
    found = declared(column.field)
    stated = list(column.values.values())
    texts = [format_value(None, value) for value in stated] if found is None else format_column(found, stated)
    shown = ("gone" if value is None else text for value, text in zip(stated, texts, strict=True))
    told = dict(zip(column.values, shown, strict=True))
    return [told.get(one, "") for one in times]


def _rounded(value: float) -> float:
    """A number of which a person reads no more than two decimals: a mean has many."""
    return round(value, 2) if isinstance(value, float) and abs(value) >= 1 else value


def _plot(key: RecordKey, columns: Sequence[Column], since: int, until: int, step: int) -> None:
    from telemetry.cli.plots import Span, draw  # noqa: PLC0415  # for a plot only

    for number, column in enumerate(columns):
        spans = [Span(*one) for one in _held(column, until, step or HOUR)]
        if not spans:
            raise UsageError(f"{column.field} is no number in this range: --plot draws numbers")
        numbers = [one.value for one in spans]
        told = {"lowest": min(numbers), "highest": max(numbers), "last": numbers[-1]}
        title = " ".join(filter(None, (str(key), column.field, column.aggregate)))
        values = ", ".join(f"{name} {format_number(_rounded(value), column.unit)}" for name, value in told.items())
        print("\n" * (number > 0) + f"{title}: {values}\n")
        for line in draw(spans, since, until, column.unit):
            print(line)


def _held(column: Column, until: int, longest: int) -> Iterator[tuple[int, int, float]]:
    """From when to when a column was which number: as the summaries count it, without being stated again no longer."""
    ends = [*sorted(column.values)[1:], until]
    for (start, value), end in zip(sorted(column.values.items(), key=lambda one: one[0]), ends, strict=True):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield start, min(end, start + longest), value
