"""Run broker, aggregator and this host's agent in the foreground; everything they write is below --data."""

import argparse
import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Generator
from pathlib import Path

from rich.live import Live

from telemetry.aggregator.mirror import MirroredRecord
from telemetry.cli.agent import NO_MINER, agent_key
from telemetry.cli.live import record_view
from telemetry.cli.options import Chosen, add_common, chosen
from telemetry.cli.parts import Part, log_file, start_broker, stop_parts
from telemetry.cli.tables import console
from telemetry.errors import TelemetryError
from telemetry.stores.reading import open_reader
from telemetry.topics import RecordKey
from telemetry.wire import Snapshot

_LOOK_INTERVAL = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_common(parser)
    parser.add_argument("--miner", dest="miner_id", metavar="ID", help=f"the miner it works for (default: {NO_MINER})")
    parser.add_argument("--name", dest="host_name", help="the host's name (default: that of the machine)")
    parser.add_argument("--port", type=int, help="the broker's loopback port (default: 1883, or the next free one)")


def run(arguments: argparse.Namespace) -> int:
    """Run until Ctrl-C or SIGTERM, and end all in the order agent, aggregator, broker."""
    stop = _Stop()
    choice = chosen(arguments)
    key = agent_key(choice.settings).record
    _require_writable(choice.data)
    parts: list[Part] = []
    with _held(choice.data):
        try:
            port = start_broker(parts, choice.data, arguments.port, arguments.config)
            _start_others(parts, arguments, choice.data, key, port)
            _say_where(choice, key, port)
            _look_after(parts, choice, key, stop)
        finally:
            stop_parts(parts)
    print(f"ended agent, aggregator and broker; the data stays in {choice.data}")
    return 0


@contextlib.contextmanager
def _held(data: Path) -> Generator[None, None, None]:
    """Keep a second `up` off the directory."""
    with (data / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TelemetryError(f"{data}: `telemetry up` runs there already; give another --data") from None
        yield


class _Stop:
    """Whether Ctrl-C or SIGTERM came, or the terminal was closed."""

    def __init__(self) -> None:
        self.is_asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup has SIGHUP ignored, and means it.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.is_asked = True


def _require_writable(data: Path) -> None:
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TelemetryError(f"{data}: {error.strerror}; give a --data that can be written") from None
    if not os.access(data, os.W_OK):
        raise TelemetryError(f"{data}: cannot be written; give another --data")


def _start_others(parts: list[Part], arguments: argparse.Namespace, data: Path, key: RecordKey, port: int) -> None:
    shared = ["--data", arguments.data, "--broker", f"mqtt://127.0.0.1:{port}"]
    shared += ["--config", arguments.config] if arguments.config else []
    own = ["--miner", key.minerId, "--name", key.hostName or ""]
    for name, options in (("aggregator", []), ("agent", own)):
        # On a terminal the table has the screen to itself.
        log = log_file(data, name) if sys.stdout.isatty() else None
        parts.append(Part(name, [name, *shared, *options], log=log))
    for part in parts[1:]:
        part.start()


def _say_where(choice: Chosen, key: RecordKey, port: int) -> None:
    prefix = choice.topics.records
    out = console()
    out.print(f"broker     mqtt://127.0.0.1:{port}, loopback only and without credentials")
    out.print(f"database   {choice.database}")
    out.print(f"agent      {key}")
    out.print("follow it  " + f"mosquitto_sub -h 127.0.0.1 -p {port} -t '{prefix}/#' -v", style="bold")
    out.print(f"look at it {_program()} ls --data {shlex.quote(str(choice.data.resolve()))}")
    out.print(f"logs       {choice.data}/*.log" if sys.stdout.isatty() else f"log        {choice.data}/broker.log")
    out.print("Ctrl-C ends all of it")
    sys.stdout.flush()


def _program() -> str:
    """How a person starts this program from another terminal."""
    return "telemetry" if shutil.which("telemetry") else shlex.quote(str(Path(sys.argv[0]).resolve()))


def _look_after(parts: list[Part], choice: Chosen, key: RecordKey, stop: _Stop) -> None:
    """Keep the parts running, and show this host: live on a terminal, once elsewhere."""
    show = _show_live if sys.stdout.isatty() else _show_once
    with contextlib.closing(show(choice.database, key)) as view:
        while not stop.is_asked:
            for part in parts:
                part.restart_if_ended()
            next(view)
            time.sleep(_LOOK_INTERVAL)


def _show_live(database: Path, key: RecordKey) -> Generator[None, None, None]:
    began = time.time_ns() // 1_000_000
    with Live("waiting for the first sample\n", console=console(), refresh_per_second=2) as live:
        while True:
            snapshot = _read(database, key, began)
            if snapshot is not None:
                live.update(record_view(key, snapshot.values, snapshot.time))
            yield


def _show_once(database: Path, key: RecordKey) -> Generator[None, None, None]:
    began = time.time_ns() // 1_000_000
    while (snapshot := _read(database, key, began)) is None or "cpuLoad" not in snapshot.values:
        yield
    console().print(record_view(key, snapshot.values, snapshot.time))
    sys.stdout.flush()
    while True:
        yield


def _read(database: Path, key: RecordKey, began: int) -> Snapshot | None:
    """This host's record, once it was sampled in this run, which began at `began` (Unix ms)."""
    if not database.exists():
        return None
    try:
        with open_reader(database) as reader:
            stored = reader.record(key)
    except TelemetryError:
        return None
    snapshot = MirroredRecord(key, stored).snapshot() if stored else None
    return snapshot if snapshot is not None and snapshot.time >= began else None
