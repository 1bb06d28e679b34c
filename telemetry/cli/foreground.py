"""What commands share that run several parts in the foreground, below one data directory."""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Generator
from pathlib import Path

from telemetry.cli.parts import Part
from telemetry.errors import TelemetryError

_LOOK_INTERVAL = 0.5


@contextlib.contextmanager
def held(data: Path, command: str) -> Generator[None, None, None]:
    """Keep off the directory whoever else would run parts there."""
    with (data / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TelemetryError(f"{data}: `{command}` runs there already; give another --data") from None
        yield


class Stop:
    """Whether Ctrl-C or SIGTERM came, or the terminal was closed."""

    def __init__(self) -> None:
        self.is_asked = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup has SIGHUP ignored, and means it.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.is_asked = True


def require_writable(data: Path) -> None:
    """Make the data directory; TelemetryError where that, or writing there, cannot be done."""
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TelemetryError(f"{data}: {error.strerror}; give a --data that can be written") from None
    if not os.access(data, os.W_OK):
        raise TelemetryError(f"{data}: cannot be written; give another --data")


def look_after(parts: list[Part], view: Generator[None, None, None], stop: Stop) -> None:
    """Keep the parts running, and what is shown up to date, until stopped."""
    with contextlib.closing(view):
        while not stop.is_asked:
            for part in parts:
                part.restart_if_ended()
            next(view)
            time.sleep(_LOOK_INTERVAL)
