"""What `telemetry check` looks at of this machine: programs, room on its disks, limits, and what can be sampled."""

import platform
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from telemetry import __version__
from telemetry.agent.plans import host_sources
from telemetry.cli.findings import Finding
from telemetry.cli.options import Chosen
from telemetry.cli.tables import format_value
from telemetry.errors import SourceError, TelemetryError
from telemetry.fields import Value
from telemetry.health import BROKER_HEALTH
from telemetry.mosquitto import find_mosquitto
from telemetry.records import declared
from telemetry.security.reload import holder
from telemetry.sources import Source
from telemetry.stores.reading import Reader
from telemetry.stores.rows import size_of
from telemetry.units import Unit, format_number

_SOURCE_DEADLINE = 5.0
_LEAST_SPACE = 256 * 1024**2
_DAY = 86_400.0
_NEARLY_ALL = 0.9
_REMEDIES: Mapping[str, str] = {
    "no CPU package sensor": "load its driver (coretemp, k10temp); a virtual machine has none",
}
"""What to do about what a source does not find."""

_NOTHING_READ: Mapping[str, str] = {"gpu": "no driver of NVIDIA's here (libnvidia-ml.so.1), and so no cards"}
"""Why a source reads nothing, and that is no fault."""


def look_at_versions() -> Finding:
    """What runs here."""
    try:
        paho = f", paho-mqtt {version('paho-mqtt')}"
    except PackageNotFoundError:
        paho = ""
    text = f"telemetry {__version__}, Python {platform.python_version()}{paho}, SQLite {sqlite3.sqlite_version}"
    return Finding("ok", "versions", text)


def look_at_mosquitto() -> Finding:
    """Whether this machine could run a broker."""
    try:
        program = find_mosquitto()
    except TelemetryError as error:
        return Finding("ok", "mosquitto", f"{error} (only where `telemetry broker` or `up` runs)")
    lines = subprocess.run([program, "-h"], capture_output=True, text=True, check=False, timeout=5).stdout.splitlines()
    return Finding("ok", "mosquitto", f"{program}, {lines[0] if lines else 'version unknown'}")


def look_at_state(choice: Chosen) -> Finding:
    """Room for what an agent keeps."""
    most = choice.settings.spool.bytes
    free = _free(choice.state)
    text = f"{format_number(free, Unit.BYTES)} free for {choice.state}"
    if free >= most + _LEAST_SPACE:
        return Finding("ok", "disk", text)
    spool = f"the spool of an agent may take {format_number(most, Unit.BYTES)}"
    return Finding("warn", "disk", f"{text}; {spool}: make room, or set spool.bytes lower")


def look_at_growth(choice: Chosen, reader: Reader) -> Finding:
    """Room for what the database may become."""
    size, most, free = size_of(choice.database), choice.settings.history.bytes, _free(choice.database.parent)
    began = reader.since()
    days = (time.time() - began / 1000) / _DAY if began is not None else 0.0
    rate = f", {format_number(int(size / days), Unit.BYTES)} a day so far" if days >= 1 else ""
    text = f"the database has {format_number(size, Unit.BYTES)}{rate}; {format_number(free, Unit.BYTES)} free"
    if free >= max(_LEAST_SPACE, most - size):
        return Finding("ok", "growth", text)
    return Finding(
        "warn",
        "growth",
        f"{text}, and it may become {format_number(most, Unit.BYTES)}: make room, or set history.bytes lower",
    )


def look_at_limits(choice: Chosen, reader: Reader | None) -> Iterator[Finding]:
    """Room for connections at the broker of this machine, if it runs."""
    broker = choice.data / "broker"
    process = holder(broker) if broker.exists() else None
    files = _open_files(process) if process is not None else None
    if files is None:
        return
    wanted = choice.settings.broker.connections
    health = next((row for row in reader.health() if row.kind == BROKER_HEALTH.name), None) if reader else None
    connected = int(health.metrics.get("clientsConnected", 0)) if health else 0
    text = f"{files:,} open files of the broker for {wanted:,} connections, {connected:,} of them in use"
    if files < wanted:
        yield Finding("warn", "connections", f"{text}: raise the limit (LimitNOFILE, ulimit -Hn)")
    elif connected > _NEARLY_ALL * wanted:
        yield Finding("warn", "connections", f"{text}: set broker.connections higher")
    else:
        yield Finding("ok", "connections", text)


def _open_files(process: int) -> int | None:
    """How many files a process may have open; None where that cannot be seen."""
    try:
        lines = Path(f"/proc/{process}/limits").read_text().splitlines()
        return next(int(line.split()[3]) for line in lines if line.startswith("Max open files"))
    except (OSError, ValueError, StopIteration):
        return None


def _free(directory: Path) -> int:
    """Bytes free where a directory is, or will be."""
    there = directory.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def look_at_sources() -> Iterator[Finding]:
    """What each source of a host reads here, and what not, and why."""
    for source in host_sources():
        yield _look_at_source(source)


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
    problems = "; ".join(_problem(name, reason) for name, reason in reading.problems.items())
    if problems:
        return Finding("warn", source.name, problems)
    read = ", ".join(_shown(name, value) for name, value in reading.values.items())
    return Finding("ok", source.name, read or _NOTHING_READ.get(source.name, "nothing yet"))


def _problem(name: str, reason: str) -> str:
    return f"{name}: {reason}" + (f": {remedy}" if (remedy := _REMEDIES.get(reason)) else "")


def _shown(name: str, value: Value) -> str:
    if isinstance(value, list):
        return f"{name} of {len(value)}"
    return f"{name} {format_value(declared(name), value)}"
