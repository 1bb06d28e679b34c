"""What works on this machine and what does not, each line with what to do. Exit status 1 when something fails."""

import argparse
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import asdict

import orjson
from rich.text import Text

from telemetry.agent.plans import host_sources, miner_environment, require_known_names
from telemetry.cli.check_access import look_at_broker, look_at_users
from telemetry.cli.findings import Finding
from telemetry.cli.identity import NO_MINER, host_name, is_miner_host, learn_miner
from telemetry.cli.options import Chosen, add_broker, add_common, add_database, add_json, chosen
from telemetry.cli.tables import console, count_of
from telemetry.errors import SourceError, TelemetryError
from telemetry.mosquitto import find_mosquitto
from telemetry.sources import Source
from telemetry.stores.reading import is_served, open_reader
from telemetry.topics import LONGEST_GRAFANA_TOPIC, RecordKey
from telemetry.units import Unit, format_number

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_SOURCE_DEADLINE = 5.0
_LEAST_SPACE = 256 * 1024**2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_common(parser)
    add_broker(parser)
    add_database(parser)
    add_json(parser)
    parser.add_argument("--miner", dest="miner_id", metavar="ID", help="the miner that this machine's agent works for")
    parser.add_argument("--name", dest="host_name", help="the host's name (default: that of the machine)")


def run(arguments: argparse.Namespace) -> int:
    """Look at everything, print what was found."""
    findings = []
    for finding in _look(chosen(arguments), arguments.bundle):
        findings.append(finding)
        if not arguments.json:
            status = (f"{finding.status:<5}", _STYLES[finding.status])
            console().print(Text.assemble(status, f"{finding.subject:<14}{finding.text}"))
    if arguments.json:
        print(orjson.dumps([asdict(finding) for finding in findings]).decode())
    return 1 if any(finding.status == "fail" for finding in findings) else 0


def _look(choice: Chosen, bundle: str | None) -> Iterator[Finding]:
    require_known_names(choice.settings)
    yield Finding("ok", "settings", "every name and value is known")
    miner = learn_miner(choice, _never_wait, _say_nothing)
    yield _look_at_names(choice, miner)
    yield _look_at_mosquitto()
    yield from look_at_broker(choice, RecordKey(miner or NO_MINER, host_name(choice.settings)), bundle)
    yield from look_at_users(choice)
    yield _look_at_database(choice)
    yield _look_at_aggregator(choice)
    yield _look_at_space(choice)
    for source in host_sources():
        yield _look_at_source(source)
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


def _look_at_mosquitto() -> Finding:
    try:
        program = find_mosquitto()
    except TelemetryError as error:
        return Finding("warn", "mosquitto", f"{error} (only where `telemetry broker` or `up` runs)")
    lines = subprocess.run([program, "-h"], capture_output=True, text=True, check=False, timeout=5).stdout.splitlines()
    return Finding("ok", "mosquitto", f"{program}, {lines[0] if lines else 'version unknown'}")


def _look_at_database(choice: Chosen) -> Finding:
    if not choice.database.exists():
        return Finding("warn", "database", f"none at {choice.database} (only where the aggregator runs)")
    try:
        with open_reader(choice.database) as reader:
            records, rejected = len(reader.records()), reader.rejected()
    except TelemetryError as error:
        return Finding("fail", "database", str(error))
    status = "warn" if rejected else "ok"
    more = f", {rejected} messages rejected: see its table rejected" if rejected else ""
    return Finding(status, "database", f"{choice.database}, {count_of(records, 'record')}{more}")


def _look_at_aggregator(choice: Chosen) -> Finding:
    if not choice.database.exists():
        return Finding("ok", "aggregator", "not on this machine")
    if is_served(choice.database):
        return Finding("ok", "aggregator", f"it keeps {choice.database} up to date")
    return Finding("fail", "aggregator", f"none runs on {choice.database}: start `telemetry aggregator` or `up`")


def _look_at_space(choice: Chosen) -> Finding:
    directory = choice.data if choice.data.exists() else choice.data.resolve().parent
    free = shutil.disk_usage(directory).free
    text = f"{format_number(free, Unit.BYTES)} free for {directory}"
    return Finding("ok", "disk", text) if free >= _LEAST_SPACE else Finding("warn", "disk", f"{text}: make room")


def _look_at_source(source: Source) -> Finding:
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.append(_sample(source)), daemon=True)
    thread.start()
    thread.join(_SOURCE_DEADLINE)
    return found[0] if found else Finding("fail", source.name, f"no answer for {_SOURCE_DEADLINE:g} s")


def _sample(source: Source) -> Finding:
    try:
        reading = source.sample()
    except SourceError as error:
        return Finding("fail", source.name, str(error))
    except Exception as error:  # noqa: BLE001  # a source with a defect is what a check is for
        return Finding("fail", source.name, f"{type(error).__name__}: {error}")
    problems = "; ".join(f"{name}: {reason}" for name, reason in reading.problems.items())
    read = ", ".join(reading.values) or "nothing to read here"
    return Finding("warn", source.name, problems) if problems else Finding("ok", source.name, read)
