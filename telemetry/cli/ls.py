"""Every miner and host as it is now, from the database."""

import argparse
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import orjson

from telemetry.cli.options import add_common, add_database, add_json, chosen
from telemetry.cli.tables import Cell, console, count_of, format_value, print_table, state_text, warn_if_idle
from telemetry.fields import Record
from telemetry.records import MINER_INFO, WORKER_INFO
from telemetry.render.sql import TIME_COLUMN, from_sql
from telemetry.security.expiry import near_ends
from telemetry.security.registry import Registry
from telemetry.stores import StoredAgent
from telemetry.stores.reading import Reader, open_reader
from telemetry.topics import AgentKey
from telemetry.units import format_age

_NET = ("netState", "netSince")
_WORKER_HEADINGS = {
    "cpuLoad": "CPU", "cpuTemper": "CPU °C", "useMemory": "MEMORY", "gpuLoad": "GPU", "gpuTemper": "GPU °C",
    "runningTasks": "RUNNING", "pendingTasks": "PENDING",
    "diskUsedPercent": "DISK", "diskR": "READ", "diskW": "WRITE", "netRx": "RX", "netTx": "TX",
}  # fmt: skip
_MINER_HEADINGS = {
    "effectivePower": "POWER", "minerBalance": "BALANCE", "minerAvailable": "AVAILABLE", "expectBlock": "EXPECTED",
    "effectiveSectors": "ACTIVE", "errorSectors": "FAULTY", "failSectors": "FAILED",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_common(parser)
    add_database(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the fleet: the miners, then the hosts."""
    choice = chosen(arguments)
    database = choice.database
    with open_reader(database) as reader:
        agents = reader.agents()
        miners = list(_rows(reader, MINER_INFO, (*_NET, *_MINER_HEADINGS)))
        hosts = list(_rows(reader, WORKER_INFO, (*_NET, *_WORKER_HEADINGS)))
        rejected, defects = reader.rejected(), reader.defects()
    if arguments.json:
        print(orjson.dumps([_flat(row) for row in miners + hosts]).decode())
        return 0
    if miners:
        _print(MINER_INFO, miners, {"netState": "STATE"} | _MINER_HEADINGS)
        print()
    _print(WORKER_INFO, hosts, {"netState": "STATE"} | _WORKER_HEADINGS)
    _print_summary(hosts, agents, rejected, defects)
    _print_ends(Registry(choice.data))
    warn_if_idle(database)
    return 0


def _rows(reader: Reader, record: Record, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for row in reader.columns(record, (*record.keys, *names, TIME_COLUMN)):
        yield dict(_decoded(record, row))


def _decoded(record: Record, row: sqlite3.Row) -> Iterator[tuple[str, Any]]:
    for name in row.keys():  # noqa: SIM118  # iterating over a Row gives its values
        yield name, row[name] if name == TIME_COLUMN else from_sql(record.by_name[name], row[name])


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _print(record: Record, rows: list[dict[str, Any]], headings: dict[str, str]) -> None:
    # A column that no row fills is left out, such as GPUs where there are none.
    filled = {name: title for name, title in headings.items() if any(row[name] is not None for row in rows)}
    keys = {"minerId": "MINER", "hostName": "HOST"}
    titles = [*(keys[name] for name in record.keys), *filled.values(), "CHANGED"]
    now = time.time()
    lines = [_line(record, row, tuple(filled), now) for row in rows]
    spare = [title for title in filled.values() if title != "STATE"]
    print_table(titles, lines, right=frozenset(spare) | {"CHANGED"}, spare=spare)


def _line(record: Record, row: dict[str, Any], names: tuple[str, ...], now: float) -> list[Cell]:
    cells: list[Cell] = [row[name] for name in record.keys]
    cells += [
        _state(row, now) if name == "netState" else format_value(record.by_name[name], row[name]) for name in names
    ]
    return [*cells, format_age(now - row[TIME_COLUMN] / 1000)]


def _state(row: dict[str, Any], now: float) -> Cell:
    """The state, and since when, if it is not the one that is wished for."""
    state, since = row["netState"] or "-", row["netSince"]
    text = state_text(state)
    return text if since is None or state == "online" else text.append(f" {format_age(now - since / 1000)}")


def _print_summary(
    hosts: list[dict[str, Any]], agents: dict[AgentKey, StoredAgent], rejected: int, defects: int
) -> None:
    states = [row["netState"] or "without agent" for row in hosts]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    lost = sum(agent.lost for agent in agents.values())
    late = sum(agent.late for agent in agents.values())
    messages = f"{count_of(lost, 'message')} lost, {late} late, {rejected} rejected, {count_of(defects, 'defect')}"
    print(f"\n{count_of(len(hosts), 'host')}: {counts or 'none yet'}; {messages}")


def _print_ends(registry: Registry) -> None:
    """Say which certificates end soon, where this machine's broker has some."""
    if registry.exists and registry.is_readable:
        for end in near_ends(registry.served(), registry.accounts(), time.time()):
            console().print(end, style="yellow")
