"""Programs that a measurement runs: each ends with the block that started it, or when this process ends."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.measurement import BenchError

ROOT = Path(__file__).resolve().parent.parent

_END_TIMEOUT = 8.0
_LISTEN = "0A"  # a socket's state in /proc/net/tcp


class Program:
    """A running program and what it printed."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def require_running(self) -> None:
        """Raise BenchError, with the end of what it printed, when it has ended."""
        if self._process.poll() is not None:
            raise BenchError(f"{self._log.stem} ended by itself:\n{self._log.read_text(errors='replace')[-2000:]}")

    def wait_until_listening(self, port: int) -> None:
        """Wait until a TCP port is open at the end of the network where it runs."""
        wait_for(lambda: self._is_listening(port), f"{self._log.stem} listens on port {port}")

    def _is_listening(self, port: int) -> bool:
        self.require_running()
        lines = Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]
        sockets = (line.split() for line in lines)
        return any(columns[1].endswith(f":{port:04X}") and columns[3] == _LISTEN for columns in sockets)

    def end(self) -> None:
        """Ask it to end, and make it end when it does not."""
        self._process.terminate()
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def running(name: str, command: Sequence[str | Path], directory: Path) -> Iterator[Program]:
    """Run a program; what it prints goes to a file in the directory."""
    log = directory / f"{name}.log"
    program = Program(_start(command, log), log)
    try:
        yield program
    finally:
        program.end()


def _start(command: Sequence[str | Path], log: Path) -> subprocess.Popen[bytes]:
    # A session of its own, because Ctrl-C is for us; the kernel kills it if we cannot.
    settings = {name: value for name, value in os.environ.items() if not name.startswith("TELEMETRY_")}
    with log.open("wb") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=settings,
            start_new_session=True,
        )


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait until a condition holds; BenchError when it takes longer."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)
