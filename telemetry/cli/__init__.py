"""The console script `telemetry`: one file a command, imported only when it runs."""

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn, Protocol

from telemetry import __version__
from telemetry.errors import TelemetryError

COMMANDS = {
    "up": "broker, aggregator and this host's agent in the foreground",
    "agent": "sample this host and publish what changed",
    "aggregator": "mirror every record into the database and publish snapshots",
    "broker": "Mosquitto by our rules: on loopback, and after `broker init` beyond it",
    "web": "a page of the fleet, its read API and its WebSocket",
    "enroll": "credentials for a host, in one file; also for one who reads",
    "rotate": "new credentials for a user; the old ones end",
    "revoke": "the end of a user's credentials, at once",
    "ls": "every miner and host as it is now",
    "show": "one record as it is now",
    "watch": "records as they change, through the broker",
    "history": "what fields were over a time, as a table or a plot",
    "at": "one record as it was at a time",
    "diff": "what differs in a record between two times",
    "events": "who went away, and who came back",
    "export": "what happened, to a file: CSV, JSON lines or Parquet",
    "backup": "copy the database, also while an aggregator writes",
    "import": "put a backup in place, or add an export to the history",
    "resubscribe": "have a miner's snapshots published again",
    "verify": "whether every mirror equals its host",
    "forget": "remove a host or miner that is gone for good",
    "simulate": "a fleet to try on, with a Lotus that is simulated",
    "install": "a part as a service of systemd",
    "check": "what works on this machine, and what to do about the rest",
    "fields": "the catalogue of fields",
}


_MODULES = {"import": "import_"}
"""Where the name is a word of Python's own."""

SERVERS = {"up", "agent", "aggregator", "broker", "web", "simulate"}
"""Commands that run until Ctrl-C or SIGTERM, and end with status 0."""


RELOADING = {"agent", "aggregator"}
"""Those that take SIGHUP for "read the settings anew" once they run, also when it came earlier."""

_AGO = re.compile(r"-[\d.]+(ms|[smhdw]).*")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors show no password, whichever option it was given to, and which takes `-1h` for a value."""

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The arguments."""
        # What begins with a dash is an option for argparse, and what begins with a space never is.
        return self.parse_args([f" {word}" if _AGO.fullmatch(word) else word for word in words])

    def error(self, message: str) -> NoReturn:
        super().error(re.sub(r"://[^@\s]*@", "://***@", message))


class Command(Protocol):
    """What the module of a command holds."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; the exit status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. 0: done; 1: it ran and the answer is no, or it could not; 2: usage or configuration."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except TelemetryError as error:
        _tell_end(error)
        return error.exit_status
    except BrokenPipeError:
        # The reader of our output, such as head, has seen enough; nothing more may be flushed to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _tell_end(TelemetryError(f"{error.filename or 'output'}: {error.strerror or error}"))
        return 1
    except KeyboardInterrupt:
        return 130


def _tell_end(error: TelemetryError) -> None:
    from telemetry.logs import tell_end  # noqa: PLC0415  # for errors only

    tell_end(error)


def _run(words: list[str]) -> int:
    if len(words) > 1 and words[1].isdigit():
        from telemetry.processes import END_WITH_PARENT, end_with_parent  # noqa: PLC0415  # ctypes and more

        if words[0] == END_WITH_PARENT:
            end_with_parent(int(words[1]))
            words = words[2:]
    name = words[0] if words else ""
    if name not in COMMANDS:
        _overview().parse_args(words or ["--help"])
        return 2
    if name in SERVERS:
        # Until it has its own handlers: nothing was begun that would have to be ended.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os._exit(0))
    if name in RELOADING:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    module: Command = import_module(f"telemetry.cli.{_MODULES.get(name, name)}")
    parser = _Parser(prog=f"telemetry {name}", description=module.__doc__)
    module.add_arguments(parser)
    return module.run(parser.parse(words[1:]))


def _overview() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:<12} {summary}" for name, summary in COMMANDS.items())
    parser = _Parser(
        prog="telemetry",
        description="Telemetry of Filecoin miners and sealing hosts over MQTT.",
        epilog=f"commands:\n{listed}\n\n`telemetry COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"telemetry {__version__}")
    parser.add_argument("command", choices=list(COMMANDS), metavar="COMMAND", help="one of those below")
    return parser
