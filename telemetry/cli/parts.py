"""The parts that `telemetry up` runs, each a process of its own that ends with it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from telemetry.config import VARIABLE_PREFIX
from telemetry.errors import TelemetryError
from telemetry.processes import END_WITH_PARENT, answers, free_port, require_free
from telemetry.security.registry import Registry

_DEFAULT_PORT = 1883
_START_TIMEOUT = 15.0
_STOP_TIMEOUT = 6.0
_FIRST_DELAY, _LAST_DELAY = 0.5, 10.0
_RAN_WELL = 30.0
_LOG_FORMAT = f"{VARIABLE_PREFIX}LOG_FORMAT"
"""What a part writes into a file of the data directory is for a person."""

_CANNOT_RUN = 10.0
"""Seconds: a part that ends within them with an error of its own would do so again."""


class Part:
    """One part: `telemetry` with some arguments, started again when it ends by itself; `log` takes its log.

    Where one that is not needed cannot run, the others go on.
    """

    def __init__(self, name: str, arguments: list[str], *, log: Path | None = None, is_needed: bool = True) -> None:
        self.name, self._log = name, log
        self._is_needed, self._is_given_up = is_needed, False
        self._command = [sys.executable, "-P", "-m", "telemetry", END_WITH_PARENT, str(os.getpid()), *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._delay = _FIRST_DELAY
        self._restart_at: float | None = None

    def start(self) -> None:
        """Start the process. In a session of its own: Ctrl-C is for us, who end the parts in order."""
        self._started, self._restart_at = time.monotonic(), None
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(_open_log(self._log)) if self._log else None
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
                env=os.environ | ({_LOG_FORMAT: "text"} if log else {}),
            )

    @property
    def has_ended(self) -> bool:
        """Whether it does not run."""
        return self._process is None or self._process.poll() is not None

    def restart_if_ended(self) -> None:
        """Start it again, the sooner the longer it ran."""
        if not self.has_ended or self._is_given_up:
            return
        assert self._process is not None
        now = time.monotonic()
        if self._restart_at is None:
            self._delay = _FIRST_DELAY if now - self._started > _RAN_WELL else min(2 * self._delay, _LAST_DELAY)
            self._restart_at = now + self._delay
            how = self._process.returncode
            if how in {1, 2} and now - self._started < _CANNOT_RUN:
                self._give_up()
                return
            text = f"signal {-how}" if how < 0 else f"status {how}"
            print(f"{self.name} ended ({text}); starting it again in {self._delay:g} s", file=sys.stderr)
        elif now >= self._restart_at:
            self.start()

    def _give_up(self) -> None:
        text = f"the {self.name} cannot run{self._last_words()}"
        if self._is_needed:
            raise TelemetryError(text)
        self._is_given_up = True
        print(f"{text}; the rest goes on", file=sys.stderr)

    def _last_words(self) -> str:
        return f": {_last_line(self._log)}" if self._log else ", as it says above"

    def stop(self) -> None:
        """Ask it to end, and make it end when it does not."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start_broker(parts: list[Part], data: Path, port: int | None, config: str | None) -> int:
    """Start the broker as the first part and wait until it answers; its port."""
    if Registry(data).exists:
        text = f"{data}: made for a fleet by `telemetry broker init`: run `telemetry broker` and `aggregator` there"
        raise TelemetryError(f"{text}, and an enrolled agent; or give another --data")
    chosen = free_port(_DEFAULT_PORT) if port is None else port
    require_free(chosen)
    if port is None and chosen != _DEFAULT_PORT:
        print(f"port {_DEFAULT_PORT} is in use: the broker takes {chosen}", flush=True)
    configured = ["--config", config] if config else []
    # Mosquitto's own lines, some of them said at each start, are for those who look for them.
    log = log_file(data, "broker")
    broker = Part("broker", ["broker", "--quiet", "--data", str(data), "--port", str(chosen), *configured], log=log)
    parts.append(broker)
    broker.start()
    deadline = time.monotonic() + _START_TIMEOUT
    while not answers(chosen):
        if broker.has_ended:
            raise TelemetryError(f"the broker did not start: {_last_line(log)}")
        if time.monotonic() > deadline:
            raise TelemetryError(f"the broker does not answer on port {chosen} after {_START_TIMEOUT:.0f} s")
        time.sleep(0.05)
    return chosen


def log_file(data: Path, name: str) -> Path:
    """The log of a part, begun anew."""
    path = data / f"{name}.log"
    try:
        path.write_text("")
    except OSError as error:
        raise TelemetryError(f"{path}: {error.strerror}; remove it, or give another --data") from None
    return path


def _open_log(path: Path) -> IO[bytes]:
    try:
        return path.open("ab")
    except OSError as error:
        raise TelemetryError(f"{path}: {error.strerror}") from None


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.removeprefix("telemetry: ") for line in reversed(lines) if line.strip()), "it said nothing")


def stop_parts(parts: list[Part]) -> None:
    """End the parts, the last started first: the agent says goodbye, the aggregator hears it."""
    for part in reversed(parts):
        part.stop()
