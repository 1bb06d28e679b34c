"""Real processes and a real broker for the tests: started on free ports, really killed, always ended."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TypeVar

from telemetry.mqtt import BrokerUrl, Connected, Connection, Event, Message, Messages
from telemetry.processes import answers, free_port
from telemetry.wire import Outgoing

_T = TypeVar("_T")

FAST = """
[intervals]
host = 0.2
push = 0.1
heartbeat = 1.0
full = 30
snapshot = 0.1
refresh = 2.0
acknowledge = 0.5
stale = 4.0
lost = 0.5

[deadbands]
cpuLoad = 0
useMemory = 0
"""
"""Settings by which a test sees in tenths of seconds what takes minutes in the field."""


def own_port(apart: int = 0) -> int:
    """A free port, of a range that other processes that run tests beside this one do not look at."""
    return free_port(20_000 + os.getpid() * 53 % 12_000 + apart)


def wait_for(condition: Callable[[], _T | None], *, seconds: float, what: str) -> _T:
    """Wait until the condition gives something true, and return that; fail when it takes longer."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


class Process:
    """`telemetry` with some arguments, as a process; its output is kept in a file."""

    def __init__(self, directory: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._arguments = arguments
        self._environment = {**os.environ, **(environment or {})}
        self._output: IO[bytes] = (directory / f"{arguments[0]}.log").open("ab")
        self.log = Path(self._output.name)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Process":
        self.process = subprocess.Popen(
            [sys.executable, "-m", "telemetry", *self._arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,
        )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """Kill it as `kill -9` does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def terminate(self, seconds: float = 15.0) -> int:
        """Ask it to end; its exit status."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def end(self) -> None:
        """End it whatever its state is."""
        if self.is_running:
            assert self.process is not None
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                self.kill()
        self._output.close()


class Broker:
    """A Mosquitto by our configuration on a free port."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.data = directory
        self.port = own_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._process = Process(directory, "broker", "--data", str(directory), "--port", str(self.port), *options)

    def start(self) -> "Broker":
        self._process.start()
        wait_for(lambda: answers(self.port), seconds=15, what=f"broker answers: {self._process.text}")
        return self

    def kill(self) -> None:
        self._process.kill()

    def stop(self) -> None:
        self._process.terminate()

    def end(self) -> None:
        self._process.end()

    @property
    def pid(self) -> int:
        return self._process.pid


class Listener:
    """A plain client that keeps every message of its filter, and may publish."""

    def __init__(self, url: str, topic_filter: str = "#", *, client_id: str = "") -> None:
        self.messages: list[Message] = []
        self.connections = 0
        self._connection = Connection(
            BrokerUrl.parse(url),
            client_id=client_id or f"listener.{os.urandom(4).hex()}",
            deliver=self._take,
            filters=(topic_filter,),
        )
        self._connection.start()
        wait_for(lambda: self.connections, seconds=15, what="listener subscribed")

    def _take(self, event: Event) -> None:
        if isinstance(event, Messages):
            self.messages.extend(event.messages)
        elif isinstance(event, Connected):
            self.connections += 1

    def of(self, topic: str) -> list[Message]:
        """The messages of one topic so far."""
        return [message for message in list(self.messages) if message.topic == topic]

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand over a message without waiting for the broker."""
        assert self._connection.publish(Outgoing(topic=topic, payload=payload, retain=retain))

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish, and wait until the broker has it."""
        self.send(topic, payload, retain=retain)
        assert self._connection.flush(10)

    def close(self) -> None:
        self._connection.close()
