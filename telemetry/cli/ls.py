"""Every miner and host as it is now, from the database; with --self agents, aggregators and the broker."""

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import orjson

from telemetry.cli.health import print_health, print_json
from telemetry.cli.options import add_common, add_database, add_json, chosen
from telemetry.cli.tables import Cell, count_of, format_column, print_table, state_text, warn_if_idle
from telemetry.fields import Record
from telemetry.records import MINER_INFO, WORKER_INFO
from telemetry.render.sql import TIME_COLUMN, column_from_sql
from telemetry.security.expiry import near_ends
from telemetry.security.registry import Registry
from telemetry.stores.reading import Reader, open_reader
from telemetry.units import format_age

Columns: TypeAlias = dict[str, Sequence[Any]]

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
    parser.add_argument(
        "--self", dest="itself", action="store_true", help="how the parts of telemetry are, not the fleet"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the fleet: the miners, then the hosts."""
    choice = chosen(arguments)
    database = choice.database
    if arguments.itself:
        with open_reader(database) as reader:
            (print_json if arguments.json else print_health)(reader)
        warn_if_idle(database)
        return 0
    with open_reader(database) as reader:
        lost, late = reader.lost_and_late()
        miners = _columns(reader, MINER_INFO, (*_NET, *_MINER_HEADINGS))
        hosts = _columns(reader, WORKER_INFO, (*_NET, *_WORKER_HEADINGS))
        rejected, defects = reader.rejected(), reader.defects()
    if arguments.json:
        print(orjson.dumps([*_rows(miners), *_rows(hosts)]).decode())
        return 0
    if miners[TIME_COLUMN]:
        _print(MINER_INFO, miners, {"netState": "STATE"} | _MINER_HEADINGS)
        print()
    _print(WORKER_INFO, hosts, {"netState": "STATE"} | _WORKER_HEADINGS)
    states = Counter(state or "without agent" for state in hosts["netState"])
    counts = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    messages = f"{count_of(lost, 'message')} lost, {late} late, {rejected} rejected, {count_of(defects, 'defect')}"
    print(f"\n{count_of(states.total(), 'host')}: {counts or 'none yet'}; {messages}")
    _print_ends(Registry(choice.data))
    warn_if_idle(database)
    return 0


def _columns(reader: Reader, record: Record, names: tuple[str, ...]) -> Columns:
    """Of all records of a kind some fields, each as a column: there may be 10,000 hosts."""
    wanted = (*record.keys, *names, TIME_COLUMN)
    columns = list(zip(*reader.columns(record, wanted), strict=True)) or [()] * len(wanted)
    return {
        name: column if name == TIME_COLUMN else column_from_sql(record.by_name[name], column)
        for name, column in zip(wanted, columns, strict=True)
    }


def _rows(columns: Columns) -> Iterator[dict[str, Any]]:
    for row in zip(*columns.values(), strict=True):
        yield {name: value for name, value in zip(columns, row, strict=True) if value is not None}


def _print(record: Record, columns: Columns, headings: dict[str, str]) -> None:
    # A column that no row fills is left out, such as GPUs where there are none.
    filled = {name: title for name, title in headings.items() if any(value is not None for value in columns[name])}
    keys = {"minerId": "MINER", "hostName": "HOST"}
    titles = [*(keys[name] for name in record.keys), *filled.values(), "CHANGED"]
    now = time.time()
    cells: list[Sequence[Cell]] = [columns[name] for name in record.keys]
    for name in filled:
        if name == "netState":
            cells.append([_state(*one, now) for one in zip(columns["netState"], columns["netSince"], strict=True)])
        else:
            cells.append(format_column(record.by_name[name], columns[name]))
    cells.append([format_age(now - changed / 1000) for changed in columns[TIME_COLUMN]])
    spare = [title for title in filled.values() if title != "STATE"]
    print_table(titles, list(zip(*cells, strict=True)), right=frozenset(spare) | {"CHANGED"}, spare=spare)


def _state(state: str | None, since: int | None, now: float) -> Cell:
    """The state, and since when, if it is not the one that is wished for."""
    shown = state_text(state or "-")
    if since is None or state == "online":
        return shown
    return shown._replace(text=f"{shown.text} {format_age(now - since / 1000)}")


def _print_ends(registry: Registry) -> None:
    """Say which certificates end soon, where this machine's broker has some."""
    if registry.exists and registry.is_readable:
        for end in near_ends(registry.served(), registry.accounts(), time.time()):
            print(end)
