"""One agent is mad and floods, with what its own credentials allow it: the others lose nothing, and nothing grows."""

import contextlib
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from telemetry.aggregator.limits import BURST, MESSAGE_COST, NOTES
from telemetry.config import Intervals
from telemetry.simulate.fleet import Fleet, Pace
from telemetry.stores.reading import open_reader
from telemetry.topics import Topics
from tests.conftest import StartPart
from tests.flood import KINDS
from tests.parts import Broker, Process, wait_for

OTHERS, CHANGES_A_SECOND, SECONDS = 20, 100.0, 1.0
RATE = 32_768
MIB = 1 << 20

SETTINGS = f"[aggregator]\nrate = {RATE}\n[intervals]\nacknowledge = 1\nrefresh = 1\n"
INTERVALS = Intervals(push=0.0, heartbeat=60, full=900, acknowledge=1)


class Others:
    """What goes on beside the flood: hosts that state changes, and how long they wait for an acknowledgement."""

    def __init__(self, port: int) -> None:
        self.fleet = Fleet(("127.0.0.1", port), miner="f01234", hosts=OTHERS, intervals=INTERVALS, topics=Topics())
        self._pace = Pace(CHANGES_A_SECOND, time.monotonic())
        self.lag = 0.0

    def go_on(self) -> None:
        self.fleet.write(self._pace.take(time.monotonic()))
        self.fleet.serve()
        self.lag = max(self.lag, self.fleet.lag)
        time.sleep(0.005)

    def rest(self) -> bool:
        """State nothing new; whether all is acknowledged."""
        self.fleet.serve()
        return self.fleet.unacknowledged == 0


def _flood(others: Others, broker: Broker, aggregator: Process, kind: str) -> None:
    """Flood until operations are told who it is, and on."""
    mad = [sys.executable, "-m", "tests.flood", str(broker.port), kind, "f01234", f"mad-{kind}"]
    process = subprocess.Popen(mad)
    try:
        told = f"f01234/mad-{kind}: states more than is taken from one agent"

        def is_told() -> bool:
            others.go_on()
            return told in aggregator.text

        wait_for(is_told, seconds=30, what=f"the flood of {kind} is told: {aggregator.text}")
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            others.go_on()
        assert process.poll() is None, "the broker turned it away"
    finally:
        process.kill()
        process.wait()


def _memory(pid: int) -> int:
    """Bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def _health(broker: Broker) -> dict[str, int]:
    topic = ["-t", "telemetry/aggregators/main/health", "-C", "1", "-W", "10"]
    done = subprocess.run(["mosquitto_sub", "-p", str(broker.port), *topic], capture_output=True, check=True)
    health: dict[str, int] = orjson.loads(done.stdout)
    return health


@pytest.mark.timeout(240)
def test_beside_an_agent_that_floods_the_others_lose_nothing_and_nothing_grows(
    broker: Broker, data: Path, start: StartPart
) -> None:
    (data / "flood.toml").write_text(SETTINGS)
    aggregator = start("aggregator", "--data", str(data), "--broker", broker.url, "--config", str(data / "flood.toml"))
    wait_for(lambda: "connected as" in aggregator.text, seconds=15, what="the aggregator")
    others, began = Others(broker.port), time.monotonic()
    with contextlib.closing(others.fleet):
        for kind in KINDS:
            _flood(others, broker, aggregator, kind)
            assert _memory(aggregator.pid) < 150 * MIB
            assert _memory(broker.pid) < 1000 * MIB
        assert others.lag < 20
        wait_for(others.rest, seconds=60, what="all acknowledged")
        passed = time.monotonic() - began
        with open_reader(data / "telemetry.db") as reader:
            agents = reader.agents()
        for agent in others.fleet.agents:
            assert agents[agent.key].log.position == agent.publisher.position.seq
            assert agents[agent.key].log.lost == 0
    with contextlib.closing(sqlite3.connect(data / "telemetry.db")) as connection:
        count = "SELECT count(*), count(DISTINCT stream || ' ' || epoch || ' ' || seq) FROM history"
        rows, different = connection.execute(count).fetchone()
        kept = connection.execute("SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM rejected)").fetchone()
    assert rows == different, "one stands twice"
    assert others.fleet.changes <= rows
    taken = len(KINDS) * RATE * (BURST + passed) / MESSAGE_COST
    assert rows - others.fleet.written <= taken
    assert max(kept) <= len(KINDS) * (NOTES + 10) + OTHERS
    assert aggregator.text.count("states more than is taken") == len(KINDS), "told once"
    health = _health(broker)
    assert health["agentsLimited"] == len(KINDS)
    assert health["limited"] > 0
