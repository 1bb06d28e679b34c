"""A broker with TLS and credentials on a loopback address of its own, and what a thief does with a bundle."""

import itertools
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from telemetry.processes import answers
from telemetry.security.registry import Registry
from tests.parts import Listener, Process, own_port, wait_for

_ADDRESSES = itertools.count(2 + os.getpid() % 200)


@contextmanager
def reachable_directory() -> Iterator[Path]:
    """A directory that Mosquitto's user can reach too: then, started as root, the broker runs as that user."""
    with TemporaryDirectory(prefix="telemetry-secured.") as place:
        Path(place).chmod(0o755)
        yield Path(place)


def telemetry(*words: str, status: int = 0, given: str | None = None, environment: dict[str, str] | None = None) -> str:
    """What `telemetry` prints, both outputs, when it ends with the status."""
    done = subprocess.run(
        [sys.executable, "-m", "telemetry", *words],
        capture_output=True, text=True, timeout=60, check=False, input=given,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


class Secured:
    """A broker after `broker init`."""

    def __init__(self, place: Path, *options: str) -> None:
        self.place, self.data = place, place / "data"
        self.address = f"127.0.0.{next(_ADDRESSES) % 250 + 2}"
        self.port, self.tls_port = own_port(), own_port(25)
        self.said = telemetry(
            "broker", "init", "--name", self.address, "--listen", self.address, "--port", str(self.tls_port),
            "--data", str(self.data), *options,
        )  # fmt: skip
        self.process = Process(place, "broker", "--data", str(self.data), "--port", str(self.port))

    def start(self) -> "Secured":
        self.process.start()
        wait_for(lambda: answers(self.port), seconds=15, what=f"broker answers: {self.process.text}")
        return self

    def end(self) -> None:
        self.process.end()

    @property
    def registry(self) -> Registry:
        return Registry(self.data)

    def enroll(self, *words: str) -> Path:
        """The bundle of a user."""
        path = self.place / f"{'-'.join(word.strip('-') for word in words)}.toml"
        telemetry("enroll", *words, "--data", str(self.data), "--output", str(path))
        return path

    def operator(self, number: int = 8) -> str:
        """The URL by which an operator connects who is no command."""
        user = f"operator.{number}"
        return f"mqtt://{user}:{self.registry.local_passwords()[user]}@127.0.0.1:{self.port}"

    def listener(self, topic_filter: str = "miners/#", number: int = 8) -> Listener:
        """An operator that keeps what comes in."""
        return Listener(self.operator(number), topic_filter)

    def thief(self, bundle: Path, *words: str) -> list[str]:
        """The options by which a plain client connects with a stolen bundle."""
        stolen = read_bundle(bundle)
        authority = bundle.with_suffix(".ca")
        authority.write_text(stolen["tls"]["ca"])
        own = ["-u", stolen["broker"]["username"], "-P", stolen["broker"]["password"]]
        return ["-h", self.address, "-p", str(self.tls_port), "--cafile", str(authority), *own, *words]


def read_bundle(bundle: Path) -> dict[str, Any]:
    return tomllib.loads(bundle.read_text())


def plain(program: str, options: Sequence[str], *, seconds: float = 10) -> subprocess.CompletedProcess[str]:
    """Run a plain client."""
    return subprocess.run([program, *options], capture_output=True, text=True, timeout=seconds, check=False)


class Running:
    """A plain client that runs until the end of the block; killed there, so that the broker sends its will."""

    def __init__(self, program: str, options: Sequence[str]) -> None:
        self._output = TemporaryFile("w+b")  # noqa: SIM115  # closed at the end of the block
        self.process = subprocess.Popen([program, *options], stdout=self._output)

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(10)
        self._output.close()

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return os.pread(self._output.fileno(), 1 << 20, 0).decode()
