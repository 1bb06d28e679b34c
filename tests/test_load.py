"""A broker that drops what it has no room for costs nothing but time."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.config import Intervals
from telemetry.mosquitto import find_mosquitto
from telemetry.mqtt import BrokerUrl
from telemetry.processes import answers
from telemetry.simulate.fleet import Fleet, Pace
from telemetry.stores.reading import open_reader
from telemetry.topics import Topics
from tests.conftest import StartPart
from tests.parts import own_port, wait_for
from tests.publishers import Publishers

AGENTS, RATE, SECONDS = 25, 200.0, 4.0
"""5,000 changes a second, for so long."""

INTERVALS = Intervals(push=0.0, heartbeat=60, full=900, acknowledge=2)


@pytest.fixture
def careless_broker(tmp_path: Path) -> Iterator[str]:
    """A Mosquitto with its own limits: 20 messages on their way to a client and 1,000 waiting; the rest is dropped."""
    port = own_port()
    configuration = tmp_path / "careless.conf"
    user = "user root\n" if os.geteuid() == 0 else ""
    configuration.write_text(f"{user}listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
    process = subprocess.Popen([find_mosquitto(), "-c", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(port), seconds=15, what="the broker answers")
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _history(database: Path) -> tuple[int, int]:
    """How many rows, and how many different ones."""
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
            query = "SELECT count(*), count(DISTINCT stream || ' ' || epoch || ' ' || seq) FROM history"
            rows, different = connection.execute(query).fetchone()
            return rows, different
    except sqlite3.OperationalError:
        return 0, 0


def _lost(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        lost: int = connection.execute("SELECT sum(lost) FROM agents").fetchone()[0]
        return lost


def test_nothing_is_lost_where_the_broker_drops_while_the_commits_stall(
    careless_broker: str, data: Path, start: StartPart
) -> None:
    (data / "fast.toml").write_text("[intervals]\nacknowledge = 2\n")
    options = ("--data", str(data), "--broker", careless_broker, "--config", str(data / "fast.toml"))
    aggregator = start("aggregator", *options)
    wait_for(lambda: "connected as" in aggregator.text, seconds=15, what="the aggregator")
    database = data / "telemetry.db"
    with contextlib.closing(Publishers(careless_broker, agents=AGENTS, intervals=INTERVALS)) as fleet:
        fleet.start()
        fleet.change()
        began, stopped_at, stalled = time.monotonic(), None, False
        while (passed := time.monotonic() - began) < SECONDS:
            if passed > 1 and not stalled:
                os.kill(aggregator.pid, signal.SIGSTOP)
                stopped_at, stalled = passed, True
            if stopped_at is not None and passed > stopped_at + 1:
                os.kill(aggregator.pid, signal.SIGCONT)
                stopped_at = None
            if fleet.value < passed * RATE:
                fleet.change()
            fleet.work()
        os.kill(aggregator.pid, signal.SIGCONT)

        def all_there() -> bool:
            fleet.work()
            rows, different = _history(database)
            assert rows == different, "one stands twice"
            return rows >= fleet.written - 100

        # Full reports without changes, and heartbeats, are no more than a hundred.
        wait_for(all_there, seconds=80, what=f"{fleet.written} messages in the history")
    assert _lost(database) == 0


def test_nothing_of_a_light_fleet_is_lost_where_the_broker_drops(
    careless_broker: str, data: Path, start: StartPart
) -> None:
    (data / "fast.toml").write_text("[intervals]\nacknowledge = 2\n")
    options = ("--data", str(data), "--broker", careless_broker, "--config", str(data / "fast.toml"))
    aggregator = start("aggregator", *options)
    wait_for(lambda: "connected as" in aggregator.text, seconds=15, what="the aggregator")
    database, url = data / "telemetry.db", BrokerUrl.parse(careless_broker)
    fleet = Fleet((url.host, url.port), miner="f01234", hosts=AGENTS, intervals=INTERVALS, topics=Topics())
    with contextlib.closing(fleet):
        began = time.monotonic()
        pace, stalled = Pace(AGENTS * RATE, began), False
        while (passed := time.monotonic() - began) < SECONDS:
            if passed > 1 and not stalled:
                os.kill(aggregator.pid, signal.SIGSTOP)
                stalled = True
            elif passed > 2:
                os.kill(aggregator.pid, signal.SIGCONT)
            fleet.write(pace.take(time.monotonic()))
            fleet.serve()
            time.sleep(0.005)

        def all_there() -> bool:
            fleet.serve()
            return fleet.unacknowledged == 0

        wait_for(all_there, seconds=80, what="all acknowledged")
        rows, different = _history(database)
        assert rows == different, "one stands twice"
        assert rows >= fleet.changes > 5000
        with open_reader(database) as reader:
            agents = reader.agents()
        assert sum(agent.late for agent in agents.values()) > 0, "nothing was dropped"
        assert all(agents[agent.key].log.position == agent.publisher.position.seq for agent in fleet.agents)
    assert _lost(database) == 0
