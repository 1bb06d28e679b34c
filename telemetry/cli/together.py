"""What `up` and `simulate` share: parts in the foreground below one data directory, from the broker to the web page."""

import argparse
import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from telemetry.cli.foreground import Stop
from telemetry.cli.options import Chosen
from telemetry.cli.parts import Part, log_file, start_broker, stop_parts
from telemetry.cli.tables import console
from telemetry.cli.web import NOT_INSTALLED, is_installed, url_of
from telemetry.errors import TelemetryError
from telemetry.mosquitto import connection_limit
from telemetry.processes import free_port, require_free

_LOOK_INTERVAL = 0.5


@dataclass(frozen=True, kw_only=True)
class Together:
    """Broker, aggregator and web page, and between them `own`: the name of a part and its arguments.

    `followed` is the topic filter by which a person follows it, `told` are further lines of what is said at the
    beginning. With `logs_apart` the parts write into files, because something else has the terminal.
    """

    own: tuple[str, Sequence[str]]
    followed: str
    told: Mapping[str, str] = field(default_factory=dict)
    logs_apart: bool


def add_ports(parser: argparse.ArgumentParser) -> None:
    """Declare where broker and web page listen."""
    parser.add_argument("--port", type=int, help="the broker's loopback port (default: 1883, or the next free one)")
    parser.add_argument(
        "--web-port", type=int, metavar="N", help="the web page's port (default: 8585, or the next free one)"
    )


def run_together(
    together: Together, arguments: argparse.Namespace, choice: Chosen, view: Generator[None, None, None]
) -> int:
    """Run all of it until Ctrl-C or SIGTERM, and end it in the order web page, own part, aggregator, broker."""
    stop = Stop()
    _require_writable(choice.data)
    parts: list[Part] = []
    with _held(choice.data):
        try:
            web_port = _web_port(choice, arguments.web_port)
            port = start_broker(parts, choice.data, arguments.port, arguments.config)
            _start_others(parts, together, arguments, choice, port, web_port)
            _say_where(together, choice, port, web_port)
            _look_after(parts, view, stop)
        finally:
            stop_parts(parts)
    print(f"ended {', '.join(part.name for part in reversed(parts))}; the data stays in {choice.data}")
    return 0


def _require_writable(data: Path) -> None:
    """Make the data directory; TelemetryError where that, or writing there, cannot be done."""
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TelemetryError(f"{data}: {error.strerror}; give a --data that can be written") from None
    if not os.access(data, os.W_OK):
        raise TelemetryError(f"{data}: cannot be written; give another --data")


@contextlib.contextmanager
def _held(data: Path) -> Generator[None, None, None]:
    """Keep off the directory whoever else would run parts there."""
    with (data / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TelemetryError(f"{data}: `telemetry up` runs there already; give another --data") from None
        yield


def _web_port(choice: Chosen, named: int | None) -> int | None:
    """The port of the web page; None where what it needs is not installed."""
    if not is_installed():
        return None
    if named is None:
        return free_port(choice.settings.web.port)
    require_free(named, option="--web-port")
    return named


def _start_others(
    parts: list[Part],
    together: Together,
    arguments: argparse.Namespace,
    choice: Chosen,
    port: int,
    web_port: int | None,
) -> None:
    shared = ["--data", str(choice.data), "--broker", f"mqtt://127.0.0.1:{port}"]
    shared += ["--config", arguments.config] if arguments.config else []
    others: list[tuple[str, Sequence[str]]] = [("aggregator", ["aggregator"]), together.own]
    if web_port is not None:
        others.append(("web", ["web", "--quiet", "--port", str(web_port)]))
    for name, (command, *words) in others:
        log = log_file(choice.data, name) if together.logs_apart else None
        parts.append(Part(name, [command, *shared, *words], log=log, is_needed=name != "web"))
        parts[-1].start()


def _say_where(together: Together, choice: Chosen, port: int, web_port: int | None) -> None:
    out = console()
    limit = connection_limit(choice.data, port=port, wanted=choice.settings.broker.connections)
    web = choice.settings.web
    page = NOT_INSTALLED if web_port is None else url_of(replace(web, port=web_port), is_tls=bool(web.cert))
    lines = {
        "broker": f"mqtt://127.0.0.1:{port}, loopback only and without credentials; {limit}",
        "database": str(choice.database),
        "web page": page,
        "follow it": f"mosquitto_sub -h 127.0.0.1 -p {port} -t '{together.followed}' -v",
        **together.told,
        "log": str(choice.data / ("*.log" if together.logs_apart else "broker.log")),
    }
    for name, text in lines.items():
        out.print(f"{name:10} {text}", markup=False, highlight=False, style="bold" if name == "web page" else "")
    out.print("Ctrl-C ends all of it")
    sys.stdout.flush()


def _look_after(parts: list[Part], view: Generator[None, None, None], stop: Stop) -> None:
    """Keep the parts running, and what is shown up to date, until stopped."""
    with contextlib.closing(view):
        while not stop.is_asked:
            for part in parts:
                part.restart_if_ended()
            next(view)
            time.sleep(_LOOK_INTERVAL)
