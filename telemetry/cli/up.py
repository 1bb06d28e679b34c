"""Run broker, aggregator, this host's agent and a web page in the foreground; all they write is below --data."""

import argparse
import shlex
import shutil
import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path

from rich.live import Live

from telemetry.aggregator.mirror import MirroredRecord
from telemetry.cli.identity import MINER_HELP, host_name, known_miner
from telemetry.cli.live import record_view
from telemetry.cli.options import Chosen, add_common, chosen
from telemetry.cli.tables import console
from telemetry.cli.together import Together, add_ports, run_together
from telemetry.errors import TelemetryError
from telemetry.fields import Value
from telemetry.stores.reading import open_reader
from telemetry.topics import RecordKey
from telemetry.wire import decode_snapshot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_common(parser)
    parser.add_argument("--miner", dest="miner_id", metavar="ID", help=MINER_HELP)
    parser.add_argument("--name", dest="host_name", help="the host's name (default: that of the machine)")
    add_ports(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run until Ctrl-C or SIGTERM."""
    choice = chosen(arguments)
    host, key = host_name(choice.settings), _key(choice)
    own = ["--name", host, *(["--miner", arguments.miner_id] if arguments.miner_id else [])]
    told = {
        "agent": str(key or f"{host}, of the miner that Lotus will tell"),
        "look at it": f"{_program()} ls --data {shlex.quote(str(choice.data.resolve()))}",
    }
    on_terminal = sys.stdout.isatty()
    together = Together(
        own=("agent", ["agent", *own]),
        followed=f"{choice.topics.records}/#",
        told=told,
        # There the table has the screen to itself.
        logs_apart=on_terminal,
    )
    return run_together(together, arguments, choice, _show_live(choice) if on_terminal else _show_once(choice))


def _key(choice: Chosen) -> RecordKey | None:
    """This host's record; None while only Lotus knows its miner."""
    host, miner = host_name(choice.settings), known_miner(choice)
    return None if miner is None else RecordKey(miner, host)


def _program() -> str:
    """How a person starts this program from another terminal."""
    return "telemetry" if shutil.which("telemetry") else shlex.quote(str(Path(sys.argv[0]).resolve()))


def _show_live(choice: Chosen) -> Generator[None, None, None]:
    began = time.time_ns() // 1_000_000
    with Live("waiting for the first sample\n", console=console(), refresh_per_second=2) as live:
        while True:
            shown = _read(choice, began)
            if shown is not None:
                live.update(record_view(*shown))
            elif _key(choice) is None:
                live.update(f"waiting for Lotus to tell the miner's id: see {choice.data}/agent.log\n")
            yield


def _show_once(choice: Chosen) -> Generator[None, None, None]:
    began = time.time_ns() // 1_000_000
    while (shown := _read(choice, began)) is None or "cpuLoad" not in shown[1]:
        yield
    console().print(record_view(*shown))
    sys.stdout.flush()
    while True:
        yield


def _read(choice: Chosen, began: int) -> tuple[RecordKey, Mapping[str, Value], int] | None:
    """This host's record, its fields and their time, once it was sampled in this run, which began at `began` (ms)."""
    key = _key(choice)
    if key is None or not choice.database.exists():
        return None
    try:
        with open_reader(choice.database) as reader:
            stored = reader.record(key)
    except TelemetryError:
        return None
    snapshot = decode_snapshot(MirroredRecord(key, stored).snapshot()) if stored else None
    return (key, snapshot.values, snapshot.time) if snapshot is not None and snapshot.time >= began else None
