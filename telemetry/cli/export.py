"""What happened, to a file or standard output: every message as a row, or with --step one row a step."""

import argparse
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from telemetry.cli.files import Advance, progress, replacing
from telemetry.cli.known import aggregates_of, opened, require_record, tell
from telemetry.cli.options import add_common, add_database, chosen, named_record
from telemetry.cli.ranges import add_range, range_of
from telemetry.cli.tables import count_of, format_moment
from telemetry.cli.writers import WRITERS, Columns, Row
from telemetry.config import nearest
from telemetry.errors import TelemetryError, UsageError
from telemetry.fields import Owner, Scalar, ScalarList, Type
from telemetry.records import declared
from telemetry.stores.history import Statement, Tier
from telemetry.stores.history.reading import FOR_EVER, History
from telemetry.stores.history.series import AGGREGATES, may_be_number, parts, stepped
from telemetry.times import parse_span
from telemetry.topics import RecordKey
from telemetry.units import Unit, format_number

_MESSAGE: dict[str, Type] = {
    "_time": Scalar.INTEGER, "minerId": Scalar.STRING, "hostName": Scalar.STRING, "_owner": Scalar.STRING,
    "_epoch": Scalar.INTEGER, "_seq": Scalar.INTEGER, "_received": Scalar.INTEGER, "_full": Scalar.BOOLEAN,
    "_gone": ScalarList(element=Scalar.STRING),
}  # fmt: skip
_STEP: dict[str, Type] = {"_time": Scalar.INTEGER, "minerId": Scalar.STRING, "hostName": Scalar.STRING}

_SECONDS_A_VIEW = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("miner", metavar="MINER", nargs="?", help="a miner's id: it and its hosts (default: all)")
    parser.add_argument("host", metavar="HOST", nargs="?", help="a host of it (MINER/HOST does too)")
    parser.add_argument("--fields", metavar="NAMES", help="only these fields, with commas (default: all)")
    add_range(parser, since=None)
    parser.add_argument("--step", metavar="SPAN", help="one row a step of such a length: 5m, 1h, 1d")
    parser.add_argument(
        "--agg", metavar="NAMES",
        help=f"with --step, of numbers: {', '.join(AGGREGATES)}, or several with commas (default: mean)",
    )  # fmt: skip
    parser.add_argument("--format", choices=WRITERS, help="default: as --output ends, else csv")
    parser.add_argument("--output", metavar="FILE", default="-", help="the file to make (default: standard output)")
    add_common(parser)
    add_database(parser)


@dataclass(slots=True)
class _Export:
    """What is exported, and what came of it."""

    database: Path
    keys: Sequence[RecordKey]
    fields: Sequence[str]
    is_partial: bool
    since: int
    until: int
    step: int
    aggregates: Sequence[str]
    advance: Advance
    rows: int = 0
    records: int = 0
    unkept: dict[RecordKey, int] = field(default_factory=dict)


def run(arguments: argparse.Namespace) -> int:
    """Write the selection."""
    since, until = range_of(arguments, time.time_ns() // 1_000_000)
    step = 0 if arguments.step is None else parse_span(arguments.step)
    aggregates = aggregates_of(arguments.agg, step)
    database, output = chosen(arguments).database, Path(arguments.output)
    write = WRITERS[_format(arguments.format, output)]
    with opened(database) as history:
        keys = _selected(history, arguments)
        fields = _fields(history, keys, arguments.fields)
    columns = _columns(fields, aggregates if step else None)
    _require_other(output, database)
    with progress("export", beside_output=arguments.output == "-") as advance:
        export = _Export(
            database, keys, fields, arguments.fields is not None, since, until, step, aggregates, advance
        )  # fmt: skip
        if arguments.output == "-" or _is_stream(output):
            write(_rows(export), columns, _stream(arguments.output))
            sys.stdout.flush()
            _require_some(export)
        else:
            with replacing(output) as temporary:
                with temporary.open("wb") as file:
                    write(_rows(export), columns, file)
                _require_some(export)
    _tell(export)
    if arguments.output != "-":
        size = format_number(output.stat().st_size, Unit.BYTES)
        print(f"{count_of(export.rows, 'row')} of {count_of(export.records, 'record')} to {output}, {size}")
    return 0


# --- what is chosen ---


def _format(named: str | None, output: Path) -> str:
    ending = output.suffix.removeprefix(".").lower()
    chosen_format = named or {"ndjson": "jsonl", "pq": "parquet"}.get(ending, ending)
    if named is None and chosen_format not in WRITERS:
        if str(output) != "-" and ending:
            raise UsageError(f"{output}: which format? give --format {' or '.join(WRITERS)}")
        chosen_format = "csv"
    if chosen_format == "parquet" and str(output) == "-":
        raise UsageError("Parquet is no text: give --output FILE")
    return chosen_format


def _selected(history: History, arguments: argparse.Namespace) -> list[RecordKey]:
    if arguments.miner is None:
        return history.records()
    key = named_record(arguments.miner, arguments.host)
    keys = [one for one in history.records() if one == key or (key.hostName is None and one.minerId == key.minerId)]
    if not keys:
        require_record(history, key)
    return keys


def _fields(history: History, keys: Sequence[RecordKey], named: str | None) -> list[str]:
    """The fields in order: as they are declared, then those of newer agents."""
    stated = set(history.fields())
    kinds = dict.fromkeys(key.record for key in keys) if keys else {}
    order = [name for kind in kinds for name in kind.by_name if kind.by_name[name].owner is not Owner.KEY]
    known = dict.fromkeys([*order, *sorted(name for name in stated if declared(name) is None)])
    if named is None:
        return [name for name in known if name in stated]
    wanted = [name.strip() for name in named.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise UsageError(f"--fields: unknown field {name}{nearest(name, known)}")
        found = declared(name)
        if found is not None and found.owner is Owner.AGGREGATOR:
            raise UsageError(f"--fields: {name} is not in the history of messages: see `telemetry events`")
    return list(dict.fromkeys(wanted))


def _columns(fields: Sequence[str], aggregates: Sequence[str] | None) -> Columns:
    if aggregates is None:
        return _MESSAGE | {name: _type(name) for name in fields}
    found: dict[str, Type | None] = dict(_STEP)
    for name in fields:
        if may_be_number(name):
            found |= {f"{name}_{one}": Scalar.INTEGER if one == "count" else Scalar.NUMBER for one in aggregates}
        if not may_be_number(name) or declared(name) is None:
            found[name] = _type(name)
    return found


def _type(name: str) -> Type | None:
    found = declared(name)
    return found.type if found else None


# --- where it goes ---


def _is_stream(output: Path) -> bool:
    """Whether it is a pipe or a device, in whose place no file may be put."""
    return output.exists() and not stat.S_ISREG(output.stat().st_mode)


def _stream(output: str) -> IO[bytes]:
    return sys.stdout.buffer if output == "-" else Path(output).open("wb")  # ends with the process


def _require_other(output: Path, database: Path) -> None:
    if output.exists() and output.samefile(database):
        raise UsageError(f"{output} is the database itself: give another --output")


def _require_some(export: _Export) -> None:
    if not export.rows:
        _tell(export)
        raise TelemetryError(f"nothing from {format_moment(export.since)} to {format_moment(export.until)}")


def _tell(export: _Export) -> None:
    if export.unkept:
        key, since = next(iter(export.unkept.items()))
        tell(
            f"not all messages of this time are kept (of {key}: since {format_moment(since)});"
            " what summaries tell of it: --step 5m"
        )


# --- the rows ---


def _rows(export: _Export) -> Iterator[Row]:
    for done, (key, history) in enumerate(_views(export)):
        export.advance(done, len(export.keys))
        before = export.rows
        for row in (_steps if export.step else _messages)(export, history, key):
            export.rows += 1
            yield {"_time": row["_time"]} | key.fields | row
        export.records += export.rows > before


def _views(export: _Export) -> Iterator[tuple[RecordKey, History]]:
    """Each record with the history as it is about then: one view for all would keep SQLite's log from ending."""
    keys = iter(export.keys)
    key = next(keys, None)
    while key is not None:
        with opened(export.database) as history:
            end = time.monotonic() + _SECONDS_A_VIEW
            while key is not None and time.monotonic() < end:
                yield key, history
                key = next(keys, None)


def _messages(export: _Export, history: History, key: RecordKey) -> Iterator[Row]:
    kept = history.kept_since(key)
    messages, summaries = kept.get(Tier.MESSAGES, FOR_EVER), kept.get(Tier.FIVE_MINUTES, FOR_EVER)
    if max(summaries, export.since) < min(messages, export.until):
        export.unkept[key] = messages
    wanted = set(export.fields) if export.is_partial else None
    for owner, statement in history.statements(key, export.since, export.until):
        if wanted is None:
            yield _message(owner, statement)
        elif statement.full or wanted.intersection(statement.values) or wanted.intersection(statement.gone):
            yield _message(owner, _part(statement, wanted)) | {"_partial": True}


def _part(statement: Statement, wanted: set[str]) -> Statement:
    values = {name: value for name, value in statement.values.items() if name in wanted}
    return statement._replace(values=values, gone=tuple(name for name in statement.gone if name in wanted))


def _message(owner: Owner, statement: Statement) -> Row:
    told: dict[str, Any] = {
        "_time": statement.time,
        "_owner": owner.value,
        "_epoch": statement.epoch,
        "_seq": statement.seq,
        "_received": statement.time + statement.delay,
        "_full": statement.full,
    }
    return told | ({"_gone": list(statement.gone)} if statement.gone else {}) | dict(statement.values)


def _steps(export: _Export, history: History, key: RecordKey) -> Iterator[Row]:
    kept = history.kept_since(key)
    fields = [name for name in export.fields if name in key.record.by_name or declared(name) is None]
    since = max(export.since, min(kept.values(), default=FOR_EVER))
    if since >= export.until:
        return
    columns = stepped(history, key, fields, parts(kept, since, export.until, export.step), export.aggregates)
    for moment in sorted({moment for column in columns for moment in column.values}):
        row = {column.name: column.values.get(moment) for column in columns}
        yield {"_time": moment} | {name: value for name, value in row.items() if value is not None}
