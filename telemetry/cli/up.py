"""Run broker, aggregator, this host's agent and a web page in the foreground; all they write is below --data."""

import argparse
import shlex
import shutil
import sys
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path

from rich.live import Live

from telemetry.aggregator.mirror import MirroredRecord
from telemetry.cli.foreground import Stop, held, look_after, require_writable
from telemetry.cli.identity import MINER_HELP, host_name, known_miner
from telemetry.cli.live import record_view
from telemetry.cli.options import Chosen, add_common, chosen
from telemetry.cli.parts import Part, log_file, start_broker, stop_parts
from telemetry.cli.tables import console
from telemetry.cli.web import NOT_INSTALLED, is_installed, url_of
from telemetry.errors import TelemetryError
from telemetry.fields import Value
from telemetry.mosquitto import connection_limit
from telemetry.processes import free_port, require_free
from telemetry.stores.reading import open_reader
from telemetry.topics import RecordKey
from telemetry.wire import decode_snapshot


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_common(parser)
    parser.add_argument("--miner", dest="miner_id", metavar="ID", help=MINER_HELP)
    parser.add_argument("--name", dest="host_name", help="the host's name (default: that of the machine)")
    parser.add_argument("--port", type=int, help="the broker's loopback port (default: 1883, or the next free one)")
    parser.add_argument(
        "--web-port", type=int, metavar="N", help="the web page's port (default: 8585, or the next free one)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run until Ctrl-C or SIGTERM, and end all in the order web page, agent, aggregator, broker."""
    stop = Stop()
    choice = chosen(arguments)
    _key(choice)
    require_writable(choice.data)
    parts: list[Part] = []
    with held(choice.data, "telemetry up"):
        try:
            web_port = _web_port(choice, arguments.web_port)
            port = start_broker(parts, choice.data, arguments.port, arguments.config)
            _start_others(parts, arguments, choice, port, web_port)
            _say_where(choice, port, web_port)
            show = _show_live if sys.stdout.isatty() else _show_once
            look_after(parts, show(choice), stop)
        finally:
            stop_parts(parts)
    print(f"ended {', '.join(part.name for part in reversed(parts))}; the data stays in {choice.data}")
    return 0


def _key(choice: Chosen) -> RecordKey | None:
    """This host's record; None while only Lotus knows its miner."""
    host, miner = host_name(choice.settings), known_miner(choice)
    return None if miner is None else RecordKey(miner, host)


def _web_port(choice: Chosen, named: int | None) -> int | None:
    """The port of the web page; None where what it needs is not installed."""
    if not is_installed():
        return None
    if named is None:
        return free_port(choice.settings.web.port)
    require_free(named, option="--web-port")
    return named


def _start_others(
    parts: list[Part], arguments: argparse.Namespace, choice: Chosen, port: int, web_port: int | None
) -> None:
    data = choice.data
    shared = ["--data", arguments.data, "--broker", f"mqtt://127.0.0.1:{port}"]
    shared += ["--config", arguments.config] if arguments.config else []
    own = ["--name", host_name(choice.settings)]
    own += ["--miner", arguments.miner_id] if arguments.miner_id else []
    others = [("aggregator", []), ("agent", own)]
    if web_port is not None:
        others.append(("web", ["--quiet", "--port", str(web_port)]))
    for name, options in others:
        # On a terminal the table has the screen to itself.
        log = log_file(data, name) if sys.stdout.isatty() else None
        parts.append(Part(name, [name, *shared, *options], log=log, is_needed=name != "web"))
    for part in parts[1:]:
        part.start()


def _say_where(choice: Chosen, port: int, web_port: int | None) -> None:
    key = _key(choice)
    prefix = choice.topics.records
    out = console()
    limit = connection_limit(choice.data, port=port, wanted=choice.settings.broker.connections)
    out.print(f"broker     mqtt://127.0.0.1:{port}, loopback only and without credentials; {limit}")
    out.print(f"database   {choice.database}")
    out.print(f"agent      {key or host_name(choice.settings) + ', of the miner that Lotus will tell'}")
    page = NOT_INSTALLED if web_port is None else _url(choice, web_port)
    out.print(f"web page   {page}", markup=False)
    out.print("follow it  " + f"mosquitto_sub -h 127.0.0.1 -p {port} -t '{prefix}/#' -v", style="bold")
    out.print(f"look at it {_program()} ls --data {shlex.quote(str(choice.data.resolve()))}")
    out.print(f"logs       {choice.data}/*.log" if sys.stdout.isatty() else f"log        {choice.data}/broker.log")
    out.print("Ctrl-C ends all of it")
    sys.stdout.flush()


def _url(choice: Chosen, port: int) -> str:
    web = choice.settings.web
    return url_of(replace(web, port=port), is_tls=bool(web.cert))


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
