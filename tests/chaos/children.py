"""The processes of a run: killed, stopped and started again at will, and always ended."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from telemetry.processes import END_WITH_PARENT

_CHECKOUT = Path(__file__).parents[2]


class Child:
    """A process with some command, and a log. `take` gets its output line by line, over all its lives."""

    def __init__(
        self, name: str, command: Callable[[], list[str]], log: Path, take: Callable[[bytes], None] | None = None
    ) -> None:
        self.name, self._command, self._log, self._take = name, command, log, take
        self._process: subprocess.Popen[bytes] | None = None
        self._readers: list[threading.Thread] = []
        self.is_stopped = False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def text(self) -> str:
        """What it logged so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Start it. Its log comes through a pipe: it may have no right to write a file."""
        self.is_stopped = False
        self._process = subprocess.Popen(
            self._command(),
            cwd=_CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._read(self._process.stdout, self._take or self._keep)
        self._read(self._process.stderr, self._keep)

    def kill(self) -> None:
        """As `kill -9` does; what it said before is read to the end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._finish()

    def stop(self) -> None:
        """SIGSTOP."""
        self.signal(signal.SIGSTOP)
        self.is_stopped = True

    def go_on(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)
        self.is_stopped = False

    def ask(self, line: str) -> None:
        """Give it a line of input; one that is dead does without."""
        if not self.is_running:
            return
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def end(self, seconds: float = 8.0) -> int | None:
        """End it, by SIGTERM if that is enough; its exit status, None where it had to be killed."""
        if not self.is_running:
            return None if self._process is None else self._process.returncode
        assert self._process is not None
        self.go_on()
        self._process.terminate()
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        self._finish()
        return status

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _keep(self, line: bytes) -> None:
        with self._log.open("ab") as log:
            log.write(line)

    def _read(self, pipe: IO[bytes], take: Callable[[bytes], None]) -> None:
        def read() -> None:
            with pipe:
                for line in pipe:
                    take(line)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        self._readers.append(thread)

    def _finish(self) -> None:
        for reader in self._readers:
            reader.join(5)
        self._readers.clear()
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()


def telemetry(*arguments: str) -> list[str]:
    """The command line of a part that ends with us."""
    return [sys.executable, "-m", "telemetry", END_WITH_PARENT, str(os.getpid()), *arguments]


def fleet(*arguments: str) -> list[str]:
    """The command line of a process of the fleet."""
    return [sys.executable, "-m", "tests.chaos.fleet", "--parent", str(os.getpid()), *arguments]
