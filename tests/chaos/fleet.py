"""Several agents on scripted values in one process; their wall clock is ours to step, their spools tell an oracle.

Commands come by standard input, a line each: `clock SECONDS` (its distance from the true one), `hold` (the values stay
as they are, and are told).
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from telemetry.agent.agent import Agent
from telemetry.agent.sampler import Plan
from telemetry.config import Intervals
from telemetry.errors import SourceError
from telemetry.fields import Owner, Value
from telemetry.mqtt import BrokerUrl, Connection
from telemetry.processes import end_with_parent
from telemetry.sources import Reading
from telemetry.topics import AgentKey, Topics
from tests.chaos.oracle import Tell, ToldSpool, teller

MINER = "f01234"
INTERVALS = Intervals(
    host=0.5, push=0.2, heartbeat=1.0, full=15, snapshot=0.5, refresh=5, acknowledge=0.5, stale=4, lost=0.5
)
WALKING = ("cpuTemper", "cpuLoad", "useMemory", "diskR", "diskW", "gpuTemper", "netRx", "netTx")
FIELDS = (*WALKING, "totalMemory", "useDisk")

_real_time, _real_time_ns = time.time, time.time_ns


class Clock:
    """The wall clock of this process, which may be wrong."""

    def __init__(self, offset: float) -> None:
        self.offset = offset

    def install(self) -> None:
        """Be what the process takes for the time."""
        vars(time).update(time=self._time, time_ns=self._time_ns)

    def _time(self) -> float:
        return _real_time() + self.offset

    def _time_ns(self) -> int:
        return _real_time_ns() + int(self.offset * 1e9)


class Script:
    """A source whose values walk by chance, vanish and come back."""

    name = "script"
    fields = FIELDS
    host_fields = ()

    def __init__(self, seed: str) -> None:
        self._dice = Random(seed)
        self._values: dict[str, Value] = {name: self._dice.randint(0, 1000) for name in WALKING}
        self._values |= {"totalMemory": 1 << 36, "useDisk": [_disk(0)]}
        self._is_held = False
        self._lock = threading.Lock()

    def sample(self) -> Reading:
        """The next step; now and then nothing can be read at all."""
        with self._lock:
            if not self._is_held:
                if self._dice.random() < 0.01:
                    raise SourceError("scripted")
                self._step()
            return self._reading()

    def hold(self) -> Mapping[str, Value]:
        """Stay at the present values; these."""
        with self._lock:
            self._is_held = True
            return dict(self._values)

    def _reading(self) -> Reading:
        missing = [name for name in FIELDS if name not in self._values]
        return Reading(values=dict(self._values), problems=dict.fromkeys(missing, "scripted"))

    def _step(self) -> None:
        dice = self._dice
        for name in dice.sample(WALKING, 2):
            if dice.random() < 0.1:
                self._values.pop(name, None)
            else:
                held = self._values.get(name, 500)
                assert isinstance(held, int)
                self._values[name] = max(0, held + dice.randint(-5, 5))
        if dice.random() < 0.2:
            self._values["useDisk"] = [_disk(number) for number in range(dice.randint(0, 3))]


def _disk(number: int) -> dict[str, Any]:
    return {"mount": f"/d{number}", "device": f"/dev/sd{number}", "filesystem": "ext4", "total": 1 << 40, "used": 7}


class Fleet:
    """The agents of this process, and what is asked of them."""

    def __init__(self, arguments: argparse.Namespace, tell: Tell) -> None:
        self._tell, self._clock = tell, Clock(arguments.clock)
        self._clock.install()
        self.scripts = {host: Script(f"{arguments.seed} {host}") for host in arguments.hosts.split(",")}
        self.agents = [self._agent(host, script, arguments.state) for host, script in self.scripts.items()]
        self._broker = BrokerUrl.parse(arguments.broker)

    def _agent(self, host: str, script: Script, state: Path) -> Agent:
        key = AgentKey(MINER, host)
        directory = state / host
        self._tell("start", host)
        return Agent(
            key,
            owner=Owner.HARDWARE,
            plans=[Plan(source=script, interval=INTERVALS.host, deadline=5, second=0.3)],
            intervals=INTERVALS,
            deadbands=dict.fromkeys(FIELDS, 0.0),
            topics=Topics(),
            state=directory,
            spool=ToldSpool(directory, key, time_ms=time.time_ns() // 1_000_000, tell=self._tell),
        )

    def stop(self, *_: object) -> None:
        """End all agents; safe in a signal handler."""
        for agent in self.agents:
            agent.stop()

    def run(self) -> None:
        """Run the agents until they are stopped."""
        threads = [threading.Thread(target=self._run_one, args=(agent,)) for agent in self.agents]
        for thread in threads:
            thread.start()
        threading.Thread(target=self._obey, daemon=True).start()
        for thread in threads:
            thread.join()

    def _run_one(self, agent: Agent) -> None:
        try:
            agent.run(partial(Connection, self._broker, deliver=agent.deliver))
        except BaseException:  # noqa: BLE001  # an agent that ends by an error must not pass for one that runs
            sys.stderr.write(traceback.format_exc())
            os._exit(3)

    def _obey(self) -> None:
        for line in sys.stdin:
            match line.split():
                case ["clock", seconds]:
                    self._clock.offset = float(seconds)
                case ["hold"]:
                    for host, script in self.scripts.items():
                        self._tell("held", host, values=script.hold())


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--hosts", required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--clock", type=float, default=0.0)
    arguments = parser.parse_args()
    end_with_parent(arguments.parent)
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    fleet = Fleet(arguments, teller(sys.stdout.fileno()))
    signal.signal(signal.SIGTERM, fleet.stop)
    fleet.run()


if __name__ == "__main__":
    main()
