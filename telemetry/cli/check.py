"""What works on this machine and what does not, each line with what to do. Exit status 1 when something fails."""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import orjson
from rich.table import Table
from rich.text import Text

from telemetry.agent.plans import miner_environment, require_known_names
from telemetry.cli.check_access import look_at_broker, look_at_users
from telemetry.cli.check_fleet import look_at_agents, look_at_aggregators
from telemetry.cli.check_machine import (
    look_at_growth,
    look_at_limits,
    look_at_mosquitto,
    look_at_sources,
    look_at_state,
    look_at_versions,
)
from telemetry.cli.findings import Finding
from telemetry.cli.identity import NO_MINER, host_name, is_miner_host, learn_miner
from telemetry.cli.options import Chosen, add_broker, add_common, add_database, add_json, chosen
from telemetry.cli.tables import console, count_of
from telemetry.errors import SourceError, TelemetryError, UsageError
from telemetry.stores.examine import Examination
from telemetry.stores.reading import Reader, is_served, open_database, open_reader
from telemetry.stores.save import save
from telemetry.topics import LONGEST_GRAFANA_TOPIC, RecordKey
from telemetry.units import Unit, format_number

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_SHOWN_EVERY = 0.5
_REMEDY = (
    "put back a copy of the database, or copy what can be read: `telemetry check --db --save FILE`; "
    "records as they are now come again from the agents"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_common(parser)
    add_broker(parser)
    add_database(parser)
    add_json(parser)
    parser.add_argument("--db", action="store_true", help="look only at the database, but at all of it")
    parser.add_argument("--save", metavar="FILE", type=Path, help="with --db: copy what can be read of it to a new one")
    parser.add_argument("--miner", dest="miner_id", metavar="ID", help="the miner that this machine's agent works for")
    parser.add_argument("--name", dest="host_name", help="the host's name (default: that of the machine)")
    parser.add_argument("--state", metavar="DIR", help="where its agent keeps things (default: agent in --data)")


def run(arguments: argparse.Namespace) -> int:
    """Look at everything, print what was found."""
    if arguments.save and not arguments.db:
        raise UsageError("--save copies what --db can read: give both")
    findings = []
    choice = chosen(arguments)
    for finding in (
        _look_into_database(choice.database, arguments.save) if arguments.db else _look(choice, arguments.bundle)
    ):
        findings.append(finding)
        if not arguments.json:
            _print(finding)
    if arguments.json:
        print(orjson.dumps([asdict(finding) for finding in findings]).decode())
    return 1 if any(finding.status == "fail" for finding in findings) else 0


def _print(finding: Finding) -> None:
    """A line; on a terminal its text folds beside its subject."""
    if not sys.stdout.isatty():
        print(f"{finding.status:<5}{finding.subject:<13} {finding.text}")
        return
    grid = Table.grid(padding=(0, 1))
    for width in (4, 13, None):
        grid.add_column(width=width, overflow="fold")
    grid.add_row(Text(finding.status, _STYLES[finding.status]), Text(finding.subject), Text(finding.text))
    console().print(grid)


def _look(choice: Chosen, bundle: str | None) -> Iterator[Finding]:
    require_known_names(choice.settings)
    yield look_at_versions()
    yield Finding("ok", "settings", "every name and value is known")
    miner = learn_miner(choice, _never_wait, _say_nothing)
    yield _look_at_names(choice, miner)
    yield look_at_mosquitto()
    key = RecordKey(miner or NO_MINER, host_name(choice.settings))
    is_reached = False
    for finding in look_at_broker(choice, key, bundle):
        is_reached |= (finding.subject, finding.status) == ("broker", "ok")
        yield finding
    if is_reached:
        yield from look_at_aggregators(choice, key)
    yield from look_at_users(choice)
    yield look_at_state(choice)
    yield from _look_at_database(choice)
    yield from look_at_sources()
    if is_miner_host(choice.settings):
        yield from _look_at_lotus(choice, miner or NO_MINER)


def _never_wait(_: float) -> bool:
    return True


def _say_nothing(_: str) -> None:
    """What Lotus lacks is found below."""


def _look_at_names(choice: Chosen, miner: str | None) -> Finding:
    if miner is None:
        return Finding("fail", "topic", "the miner's id is not known: Lotus alone knows it, and does not answer")
    record = RecordKey(miner, host_name(choice.settings))
    topic = choice.topics.snapshot(record)
    if len(topic) > LONGEST_GRAFANA_TOPIC:
        limit = f"{len(topic)} characters, Grafana follows at most {LONGEST_GRAFANA_TOPIC}"
        return Finding("warn", "topic", f"{topic}: {limit}; set a shorter --name")
    return Finding("ok", "topic", f"this machine's agent would report as {record}: {topic}")


def _look_at_lotus(choice: Chosen, miner: str) -> Iterator[Finding]:
    environment = miner_environment(choice.settings, miner)
    for check in environment.verdict.checks:
        if check.problem is None:
            yield Finding("ok", check.subject, check.found)
        else:
            yield Finding("fail", check.subject, f"{check.problem}: {check.remedy}")
    try:
        alerts = environment.alerts()
    except SourceError:
        return
    if alerts:
        yield Finding("warn", "alerts", f"{', '.join(alerts)}: see `lotus-miner log alerts`")


def _look_at_database(choice: Chosen) -> Iterator[Finding]:
    if not choice.database.exists():
        yield Finding("ok", "database", f"none at {choice.database} (only where the aggregator runs)")
        yield from look_at_limits(choice, None)
        return
    try:
        with open_reader(choice.database) as reader:
            yield _look_at_records(choice.database, reader)
            yield look_at_growth(choice, reader)
            yield from look_at_limits(choice, reader)
            yield from look_at_agents(reader)
    except TelemetryError as error:
        yield Finding("fail", "database", str(error))


def _look_at_records(path: Path, reader: Reader) -> Finding:
    text, rejected = f"{path}, {count_of(reader.count(), 'record')}", reader.rejected()
    if not is_served(path):
        return Finding(
            "fail", "database", f"{text}, which no aggregator keeps up to date: start one, or `telemetry up`"
        )
    if rejected:
        return Finding("warn", "database", f"{text}, {rejected} messages rejected: see its table rejected")
    return Finding("ok", "database", text)


def _look_into_database(path: Path, copy: Path | None) -> Iterator[Finding]:
    damaged = False
    with open_database(path) as connection, _Progress() as progress:
        yield Finding("ok", "database", f"{path}, {format_number(path.stat().st_size, Unit.BYTES)}")
        for found in Examination(connection, progress.show).findings():
            damaged = damaged or not found.is_fine
            progress.clear()
            yield Finding("ok" if found.is_fine else "fail", found.subject, found.text)
        if copy is not None:
            rows = save(connection, copy)
            progress.clear()
            yield Finding(
                "ok", "saved", f"{rows:,} rows to {copy}: end the aggregator, and put it in the other's place"
            )
        elif damaged:
            yield Finding("fail", "what to do", _REMEDY)


class _Progress:
    """What is being looked at, on a terminal."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._next = 0.0

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, text: str) -> None:
        if self._is_shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + _SHOWN_EVERY
            print(f"\r{text:<40}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._is_shown and self._next:
            print(f"\r{'':<40}\r", end="", file=sys.stderr, flush=True)
            self._next = 0.0
