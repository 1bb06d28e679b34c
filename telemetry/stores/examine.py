"""What of a database can be read, without writing to it: structure, tables, rows and blocks of the history."""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from telemetry.errors import DamageError
from telemetry.fields import Record
from telemetry.records import RECORDS
from telemetry.stores.history import HOUR, Statement, Tier
from telemetry.stores.history.blocks import Messages, Summaries
from telemetry.stores.history.rows import ROW, Names, read_row, telling_damage
from telemetry.stores.history.salvage import LAST_ROW, Lost, salvage
from telemetry.stores.rows import SCHEMA_VERSION, read_agent, read_layouts, read_record
from telemetry.stores.state import Layouts
from telemetry.topics import RecordKey

_SECONDS_FOR_STRUCTURE = 120.0
_MOST_PROBLEMS = 20
_INSTRUCTIONS_A_LOOK = 1_000_000
_LATEST = 253_402_300_800_000
_LARGEST = 2**53
_ROWS_A_LOOK, _BLOCKS_A_LOOK = 100_000, 1_000
_MOST_RANGES = 5

Show = Callable[[str], None]
"""Told what is being looked at, now and then."""


class Finding(NamedTuple):
    """What was found of one part of a database."""

    is_fine: bool
    subject: str
    text: str


class StoredStream(NamedTuple):
    """A row of the table `streams`."""

    id: int
    record: RecordKey
    last: int
    packed: int


def _read_record(record: Record, layouts: Layouts, row: sqlite3.Row) -> object:
    return read_record(record, row, layouts)


def _read_agent(row: sqlite3.Row) -> object:
    # Its position and when it was heard stand in another table, but for version 1.
    return read_agent({"position": None, "heard": 0} | dict(row))


class Examination:
    """One look at a whole database."""

    def __init__(self, connection: sqlite3.Connection, show: Show) -> None:
        self._connection, self._show = connection, show

    def findings(self) -> Iterator[Finding]:
        """Each part, one after the other."""
        yield self._structure()
        is_old = self._connection.execute("PRAGMA user_version").fetchone()[0] < SCHEMA_VERSION
        layouts: Layouts = {}
        with suppress(sqlite3.DatabaseError):
            layouts = read_layouts(self._connection)
        for record in RECORDS:
            yield self._table(record.name, partial(_read_record, record, layouts))
        yield self._table("agents", _read_agent)
        for table in ("events", "rejected", *(() if is_old else ("positions", "layouts", "mirrored"))):
            yield self._table(table, None)
        if is_old:
            yield self._table("history", None)
        else:
            yield from self._history()

    def _structure(self) -> Finding:
        began = time.monotonic()

        def look() -> int:
            passed = time.monotonic() - began
            self._show(f"structure, {passed:.0f} s")
            return passed > _SECONDS_FOR_STRUCTURE

        self._connection.set_progress_handler(look, _INSTRUCTIONS_A_LOOK)
        try:
            problems = [row[0] for row in self._connection.execute(f"PRAGMA integrity_check({_MOST_PROBLEMS})")]
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_INTERRUPT:
                raise
            return Finding(
                True, "structure", f"no damage found in {_SECONDS_FOR_STRUCTURE:.0f} s; the rest not looked at"
            )
        except sqlite3.DatabaseError as error:
            problems = [str(error)]
        finally:
            self._connection.set_progress_handler(None, 0)
        if problems == ["ok"]:
            return Finding(True, "structure", "SQLite finds no damage")
        lines = [line for problem in problems for line in problem.splitlines() if not line.startswith("***")]
        more = f", and {len(lines) - 3} more" if len(lines) > 3 else ""
        return Finding(False, "structure", f"{'; '.join(lines[:3])}{more}")

    def _table(self, table: str, read: Callable[[sqlite3.Row], object] | None) -> Finding:
        lost: list[Lost] = []
        count = bad = 0
        try:
            for row in salvage(self._connection, table, lost):
                count += 1
                try:
                    if read is not None:
                        read(row)
                except (LookupError, ValueError, TypeError, AttributeError):
                    bad += 1
        except sqlite3.OperationalError as error:
            return Finding(False, table, str(error))
        return Finding(not (lost or bad), table, _readable(count, lost, bad))

    # --- history ---

    def _history(self) -> Iterator[Finding]:
        lost: list[Lost] = []
        names = {row["number"]: row["name"] for row in salvage(self._connection, "names", lost)}
        yield Finding(not lost, "names", _readable(len(names), lost, 0))
        streams = read_streams(self._connection, lost := [])
        yield Finding(not lost, "streams", _readable(len(streams), lost, 0))
        yield from self._look_at_rows(streams, names)
        yield from self._look_at_blocks(streams)

    def _look_at_rows(self, streams: Mapping[int, StoredStream], names: Names) -> Iterator[Finding]:
        """The rows, and whether each stream's are a whole chain."""
        lost: list[Lost] = []
        count = bad = 0
        seen: dict[int, tuple[int, int]] = {}
        holes: dict[RecordKey, list[tuple[int, int]]] = {}
        for row in salvage(self._connection, "history", lost):
            count += 1
            if count % _ROWS_A_LOOK == 0:
                self._show(f"history, row {count:,}")
            stream = streams.get(row["stream"])
            try:
                statement = read_row(tuple(row[name] for name in ROW), names)
            except DamageError:
                bad += 1
                continue
            bad += stream is None or not _is_plausible(statement)
            if stream is None or row["id"] <= stream.packed:
                continue
            previous, since = seen.get(stream.id, (stream.packed, 0))
            if row["previous"] != previous if stream.id in seen else row["previous"] > stream.packed:
                holes.setdefault(stream.record, []).append((since, statement.time))
            seen[stream.id] = row["id"], statement.time
        for stream in streams.values():
            last, since = seen.get(stream.id, (stream.packed, 0))
            if last < stream.last:
                holes.setdefault(stream.record, []).append((since, _LATEST))
        yield Finding(not (lost or bad), "history", _readable(count, lost, bad))
        for record, gaps in holes.items():
            text = "; ".join(_range(since, until) for since, until in gaps[:_MOST_RANGES])
            yield Finding(False, str(record), f"some messages {text} cannot be read")

    def _look_at_blocks(self, streams: Mapping[int, StoredStream]) -> Iterator[Finding]:
        """The blocks, each of which is opened."""
        lost: list[Lost] = []
        count = 0
        bad: dict[tuple[RecordKey, Tier], list[int]] = {}
        for row in salvage(self._connection, "blocks", lost):
            count += 1
            if count % _BLOCKS_A_LOOK == 0:
                self._show(f"blocks, {count:,}")
            stream = streams.get(row["stream"])
            if stream is not None and not is_block(row):
                bad.setdefault((stream.record, Tier(row["tier"])), []).append(row["start"])
        # Those whose rows are lost: an index may tell of them.
        if lost:
            for number, tier, start in self._indexed(lost):
                if number in streams:
                    bad.setdefault((streams[number].record, tier), []).append(start)
        yield Finding(not lost, "blocks", _readable(count, lost, sum(map(len, bad.values()))))
        for (record, tier), starts in bad.items():
            ranges = list(_merged((start // tier.span * tier.span for start in sorted(starts)), tier.span))
            text = "; ".join(_range(*one) for one in ranges[:_MOST_RANGES])
            more = f"; and {len(ranges) - _MOST_RANGES} times more" if len(ranges) > _MOST_RANGES else ""
            yield Finding(False, str(record), f"{tier.title} {text}{more} cannot be read")

    def _indexed(self, lost: Iterable[Lost]) -> Iterator[tuple[int, Tier, int]]:
        with suppress(DamageError, ValueError), telling_damage():
            for number, stream, tier, start in self._connection.execute(
                "SELECT id, stream, tier, start FROM blocks INDEXED BY sqlite_autoindex_blocks_1"
            ):
                if any(one.first <= number <= one.last for one in lost):
                    yield stream, Tier(tier), start


def read_streams(connection: sqlite3.Connection, lost: list[Lost]) -> dict[int, StoredStream]:
    """What can be read of the table `streams`."""
    return {
        row["id"]: StoredStream(row["id"], RecordKey(row["minerId"], row["hostName"]), row["last"], row["packed"])
        for row in salvage(connection, "streams", lost)
    }


def is_block(row: sqlite3.Row) -> bool:
    """Whether a row of the table `blocks` can be opened, and holds what it says."""
    try:
        tier = Tier(row["tier"])
        if tier is not Tier.MESSAGES:
            Summaries(row["data"])
            return True
        start = row["start"] // HOUR * HOUR
        statements = Messages(row["data"]).statements()
    except (DamageError, ValueError, TypeError):
        return False
    return all(_is_plausible(one) and start <= one.time < start + HOUR for one in statements)


def _is_plausible(statement: Statement) -> bool:
    return 0 < statement.epoch < _LARGEST and 0 < statement.seq < _LARGEST and 0 <= statement.time < _LATEST


def _readable(count: int, lost: list[Lost], bad: int) -> str:
    """How much of a table can be read."""
    text = f"{count:,} {'row' if count == 1 else 'rows'}"
    if not lost and not bad:
        return text
    where = ", ".join(_numbers(one) for one in lost[:_MOST_RANGES])
    places = f"; rows {where}{' and others' if len(lost) > _MOST_RANGES else ''} cannot be read" if lost else ""
    return f"{text}{places}{f'; {bad:,} of them are damaged' if bad else ''}"


def _numbers(lost: Lost) -> str:
    if lost.last == LAST_ROW:
        return f"from {lost.first} on"
    return str(lost.first) if lost.first == lost.last else f"{lost.first} to {lost.last}"


def _merged(starts: Iterable[int], span: int) -> Iterator[tuple[int, int]]:
    since = until = -1
    for start in starts:
        if start > until:
            if until >= 0:
                yield since, until
            since = start
        until = start + span
    if until >= 0:
        yield since, until


def _range(since: int, until: int) -> str:
    end = "on" if until == _LATEST else f"to {_moment(until)}"
    return f"from {_moment(since)} {end}" if since else f"until {_moment(until)}"


def _moment(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")
