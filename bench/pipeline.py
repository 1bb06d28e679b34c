"""Broker, aggregator and a light fleet on this machine: the whole pipeline, for measurements of it."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measurement import BenchError
from bench.network import Network
from bench.programs import Program, wait_for
from bench.subjects import Stage, start_broker
from telemetry.config import Intervals
from telemetry.simulate.fleet import Fleet, Pace
from telemetry.topics import Topics

MINER = "f01234"

ACKNOWLEDGE = 10.0
"""Seconds between acknowledgements, instead of 60: so that each phase of a measurement has its share of them."""

_PASS = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The programs, the fleet, which lives in this process, and the database."""

    broker: Program
    aggregator: Program
    fleet: Fleet
    database: Path
    url: str

    def run(self, seconds: float, rate: float, look: Callable[[float], object] = lambda _: None) -> int:
        """Let the fleet state changes at a rate; how many it did. `look` is told at each pass when it began."""
        before, pace, end = self.fleet.changes, Pace(rate, time.monotonic()), time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self.fleet.write(pace.take(now))
            self.serve()
            look(now)
        return self.fleet.changes - before

    def serve(self) -> None:
        """One pass of the fleet."""
        self.fleet.serve()
        time.sleep(_PASS)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let neither broker nor aggregator run, so that something else has the machine for itself."""
        for one in (self.aggregator, self.broker):
            os.kill(one.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for one in (self.broker, self.aggregator):
                os.kill(one.pid, signal.SIGCONT)

    def until(self, condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        """Serve the fleet until a condition holds; BenchError when it takes longer."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise BenchError(f"not within {seconds:g} s: {what}")
            self.serve()


@contextmanager
def pipeline(directory: Path, *, hosts: int, acknowledge: float = ACKNOWLEDGE) -> Iterator[Pipeline]:
    """Start all of it, by default settings but for the acknowledgements, and wait until every host is online."""
    directory.mkdir()
    settings = directory / "settings.toml"
    settings.write_text(f"[intervals]\nacknowledge = {acknowledge}\n")
    with ExitStack() as started:
        stage = Stage(network=Network(), directory=directory, started=started)
        port, broker = start_broker(stage)
        url, database = f"mqtt://127.0.0.1:{port}", directory / "telemetry.db"
        words = ("aggregator", "--broker", url, "--data", directory, "--config", settings)
        aggregator = stage.serve("aggregator", sys.executable, "-m", "telemetry", *words)
        wait_for(database.exists, "the aggregator's database")
        fleet = Fleet(
            ("127.0.0.1", port),
            miner=MINER,
            hosts=hosts,
            intervals=Intervals(acknowledge=acknowledge),
            topics=Topics(),
        )
        started.enter_context(closing(fleet))
        running = Pipeline(broker=broker, aggregator=aggregator, fleet=fleet, database=database, url=url)
        running.until(lambda: fleet.online == hosts, f"{hosts} hosts online")
        running.until(lambda: fleet.acknowledged >= hosts, "first reports acknowledged")
        yield running
