"""Put a backup in the database's place, or add the messages of an export (JSON lines) to its history.

No aggregator may use the database meanwhile.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from telemetry.admission import admission
from telemetry.cli.files import Advance, progress, replacing
from telemetry.cli.known import tell
from telemetry.cli.options import Chosen, add_common, add_database, chosen, named_record
from telemetry.cli.tables import count_of, format_moment
from telemetry.errors import TelemetryError, UsageError
from telemetry.fields import is_field_name
from telemetry.stores import HistoryRow
from telemetry.stores.backup import MAGIC, restore, unserved
from telemetry.stores.reading import open_reader
from telemetry.wire import Position

if TYPE_CHECKING:
    from telemetry.fields import Owner

_LARGEST = 2**53
_LATEST = 221_845_392_000_000
_LINES_A_TELLING = 1_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("file", metavar="FILE", help="a backup, or JSON lines of `telemetry export` (-: stdin)")
    parser.add_argument("--force", action="store_true", help="put a backup in the place of a database that is there")
    add_common(parser)
    add_database(parser)


def run(arguments: argparse.Namespace) -> int:
    """Import the file, whichever it is."""
    choice, file = chosen(arguments), Path(arguments.file)
    database = choice.database
    if arguments.file != "-" and database.exists() and file.exists() and file.samefile(database):
        raise UsageError(f"{file} is the database itself")
    if arguments.file != "-" and _is_database(file):
        _restore(file, database, is_forced=arguments.force)
    else:
        _add(choice, arguments.file)
    return 0


def _is_database(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(MAGIC)) == MAGIC


def _restore(backup: Path, database: Path, *, is_forced: bool) -> None:
    if not database.parent.is_dir():
        database.parent.mkdir(parents=True)
    with unserved(database):
        if database.exists() and not is_forced:
            raise UsageError(f"database {database} is there: --force puts {backup} in its place, and keeps it aside")
        with progress("import") as advance, replacing(database) as temporary:
            aside = restore(backup, temporary, database, advance)
    with open_reader(database) as reader:
        records = reader.count()
    kept = "" if aside is None else f"; what was there is kept as {aside}"
    print(f"{backup} is now {database}, with {count_of(records, 'record')}{kept}")


# --- messages ---


def _add(choice: Chosen, file: str) -> None:
    from telemetry.stores.importing import add_messages  # noqa: PLC0415  # what writes takes longer to load

    horizon = time.time_ns() // 1_000_000 - round(choice.settings.history.messages * 1000)
    old = _Old(horizon)
    source = nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb")  # noqa: SIM115  # closed below
    with progress("import") as advance, source as lines:
        size = 0 if file == "-" else Path(file).stat().st_size
        added, known = add_messages(choice.database, old.counted(_messages(lines, file, size, advance)))
    if not added and not known:
        raise TelemetryError(f"{file}: no messages in it")
    print(f"{count_of(added, 'message')} added to the history in {choice.database}, {known:,} were there already")
    if old.count:
        tell(
            f"{old.count:,} of them are of before {format_moment(horizon)}, and history.messages keeps no older ones:"
            " an aggregator lets them go, and keeps the summaries"
        )


class _Old:
    """Counts messages that are older than messages are kept."""

    def __init__(self, horizon: int) -> None:
        self.count, self._horizon = 0, horizon

    def counted(self, messages: Iterable[HistoryRow]) -> Iterator[HistoryRow]:
        """The messages, counted as they pass."""
        for message in messages:
            self.count += message.time < self._horizon
            yield message


def _messages(lines: Iterable[bytes], file: str, size: int, advance: Advance) -> Iterator[HistoryRow]:
    read = 0
    for number, line in enumerate(lines, 1):
        read += len(line)
        if number % _LINES_A_TELLING == 0 and size:
            advance(read, size)
        if not line.strip():
            continue
        try:
            yield read_message(orjson.loads(line))
        except (TelemetryError, ValueError) as error:
            raise TelemetryError(
                f"{file}, line {number}: {error}; what stands before it may have been added, and is not added twice"
            ) from None


def read_message(told: object) -> HistoryRow:
    """A line of an export as the message that it was; UsageError where it is none."""
    if not isinstance(told, dict):
        raise UsageError("expected an object")
    if "_partial" in told or "_seq" not in told:
        raise UsageError("no whole message: an export with --fields or --step cannot be imported")
    key = named_record(_text(told, "minerId"), None)._replace(hostName=None)
    if "hostName" in told:
        key = named_record(key.minerId, _text(told, "hostName"))
    owners = {owner.value: owner for owner in key.record.senders}
    owner: Owner | None = owners.get(_text(told, "_owner"))
    if owner is None:
        raise UsageError(f"_owner: expected {' or '.join(owners)}")
    gone = told.get("_gone", [])
    if not isinstance(gone, list) or not all(isinstance(name, str) and is_field_name(name) for name in gone):
        raise UsageError("_gone: expected names of fields")
    admitted = admission(key.record, owner).admit({name: value for name, value in told.items() if _is_stated(name)})
    if admitted.refused:
        raise UsageError("; ".join(admitted.refused))
    return HistoryRow(
        key, owner, Position(_number(told, "_epoch", _LARGEST), _number(told, "_seq", _LARGEST)),
        _number(told, "_time", _LATEST), _number(told, "_received", _LATEST), told.get("_full") is True,
        admitted.values, tuple(gone),
    )  # fmt: skip


def _is_stated(name: str) -> bool:
    return not name.startswith("_") and name not in {"minerId", "hostName"}


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name)
    if not isinstance(value, str):
        raise UsageError(f"{name}: expected a text")
    return value


def _number(told: Mapping[str, Any], name: str, most: int) -> int:
    value = told.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise UsageError(f"{name}: expected an integer from 0 to {most}")
    return value
