"""A broker, an aggregator and a fleet as processes, and what can be done to them."""

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from telemetry.processes import answers, free_port
from tests.chaos.children import Child, fleet, telemetry
from tests.chaos.disks import Disk, limit_writes, unlimit_writes
from tests.chaos.network import Gate, Network
from tests.chaos.oracle import Oracle
from tests.chaos.plan import ALL, Fault
from tests.parts import wait_for

_CONFIG = """
[intervals]
snapshot = 0.5
refresh = 5
acknowledge = 0.5
stale = 4.0
lost = 0.5
"""


@dataclass
class Part:
    """A process of the fleet, and what belongs to it."""

    child: Child
    disk: Disk
    gate: Gate
    clock: float = 0.0
    runs: int = 0


class World:
    """All processes of a run. `end` ends them, and leaves nothing mounted."""

    def __init__(self, directory: Path, seed: int, *, processes: int = 10, agents: int = 5) -> None:
        self.data, self.seed = directory, seed
        self._stack = contextlib.ExitStack()
        self._config = directory / "chaos.toml"
        self._config.write_text(_CONFIG)
        self.port = free_port(20_000 + Random().randrange(20_000))
        self.network = Network(self.port)
        self._stack.callback(self.network.close)
        self.hosts = [f"h{number:02}" for number in range(processes * agents)]
        self.oracle = Oracle(self.hosts)
        self.broker = self._child("broker", self._broker_command)
        self.gate = self.network.gate()
        self.aggregator = self._child("aggregator", self._aggregator_command)
        self.parts = [self._part(index, self.hosts[index * agents :][:agents]) for index in range(processes)]

    @property
    def url(self) -> str:
        """The broker's, past the network."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        """The settings file."""
        return self._config

    @property
    def children(self) -> list[Child]:
        """All processes."""
        return [self.broker, self.aggregator, *(part.child for part in self.parts)]

    def start(self) -> None:
        """Start all."""
        self.broker.start()
        wait_for(lambda: answers(self.port), seconds=15, what=f"broker answers: {self.broker.text}")
        self.aggregator.start()
        for part in self.parts:
            part.child.start()

    def end(self) -> None:
        """End all that was started; safe at any moment."""
        self._stack.close()

    def _child(self, name: str, command: Callable[[], list[str]], take: Callable[[bytes], None] | None = None) -> Child:
        child = Child(name, command, self.data / f"{name}.log", take)
        self._stack.callback(child.kill)
        return child

    def _part(self, index: int, hosts: list[str]) -> Part:
        disk = Disk(self.data / f"state{index}")
        self._stack.callback(disk.unmount)
        gate = self.network.gate()

        def command() -> list[str]:
            part.runs += 1
            return fleet(
                f"--broker=mqtt://127.0.0.1:{gate.port}",
                f"--state={disk.directory}",
                f"--hosts={','.join(hosts)}",
                f"--seed={self.seed} {part.runs}",
                f"--clock={part.clock}",
            )

        part = Part(self._child(f"fleet{index}", command, self.oracle.take), disk, gate)
        return part

    def _broker_command(self) -> list[str]:
        return telemetry("broker", "--quiet", "--data", str(self.data), "--port", str(self.port))

    def _aggregator_command(self) -> list[str]:
        url = f"mqtt://127.0.0.1:{self.gate.port}"
        return telemetry("aggregator", "--data", str(self.data), "--broker", url, "--config", str(self._config))

    # --- faults ---

    def begin(self, fault: Fault) -> Callable[[], None]:  # noqa: PLR0911  # a table of faults
        """Do a fault; what heals it."""
        match fault.kind.split():
            case ["broker's", "store", "lost"]:
                return self._lose_store()
            case ["clock", "stepped"]:
                return self._step_clock(self.parts[fault.index], fault.amount)
            case ["disk", "filled"]:
                return self._fill(self.parts[fault.index])
            case ["writes", "refused"]:
                return self._refuse_writes(self.parts[fault.index])
            case ["network", *how]:
                return self._disturb(fault.index, " ".join(how))
            case [_, "killed"]:
                return self._kill(self._child_of(fault))
            case [_, "stopped"]:
                child = self._child_of(fault)
                child.stop()
                return child.go_on
        raise AssertionError(fault.kind)

    def _child_of(self, fault: Fault) -> Child:
        named = {"broker": self.broker, "aggregator": self.aggregator}
        return named.get(fault.kind.split()[0]) or self.parts[fault.index].child

    def _kill(self, child: Child) -> Callable[[], None]:
        if child is self.broker:
            # It saves what it has now, and not what comes until it is killed: what it retains is old then.
            self.broker.signal(signal.SIGUSR1)
            time.sleep(0.3)
        child.kill()
        return child.start

    def _lose_store(self) -> Callable[[], None]:
        self.broker.kill()
        (self.data / "broker" / "mosquitto.db").unlink(missing_ok=True)
        return self.broker.start

    def _step_clock(self, part: Part, amount: float) -> Callable[[], None]:
        part.clock += amount
        part.child.ask(f"clock {part.clock}")
        return lambda: None

    def _fill(self, part: Part) -> Callable[[], None]:
        if not part.disk.is_mounted:
            return self._refuse_writes(part)
        part.disk.fill()
        return part.disk.free

    def _refuse_writes(self, part: Part) -> Callable[[], None]:
        if part.child.is_running:
            limit_writes(part.child.pid)
        return lambda: unlimit_writes(part.child.pid)

    def _disturb(self, index: int, how: str) -> Callable[[], None]:
        everywhere = [self.gate, *(part.gate for part in self.parts)]
        gates = everywhere if index == ALL else [everywhere[index]]
        for gate in gates:
            self.network.call(gate.cut if how == "cut" else gate.freeze)

        def heal() -> None:
            for gate in gates:
                if how == "frozen, then cut":
                    self.network.call(gate.cut)
                self.network.call(gate.heal)

        return heal
