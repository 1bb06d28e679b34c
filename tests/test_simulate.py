"""`telemetry simulate`: one command shows a fleet whose queues move."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from telemetry.processes import answers
from telemetry.simulate.accounts import MINER
from telemetry.stores.reading import open_reader
from telemetry.topics import RecordKey, Topics
from tests.parts import Broker, Listener, own_port, wait_for

ROOT = Path(__file__).parents[1]


class Demo:
    """`make demo` with some arguments, and what it printed."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.port = own_port()
        self.database = directory / "demo" / "telemetry.db"
        self._log = directory / "log"
        words = f"--data '{directory}/demo' --port {self.port} {' '.join(arguments)}"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["make", "-C", str(ROOT), "demo", f"ARGS={words}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def text(self) -> str:
        return self._log.read_text()

    def query(self, query: str) -> list[Any]:
        if not self.database.exists():
            return []
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as connection:
            try:
                return connection.execute(query).fetchall()
            except sqlite3.OperationalError:
                return []

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
            self.process.wait(30)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path, "--hosts 4 --speed 600")
    yield running
    running.end()


def test_a_miner_with_its_hosts_is_shown_and_their_queues_move(demo: Demo) -> None:
    queues = "SELECT hostName, currentQueue FROM workerInfo WHERE hostName LIKE 'seal0%' AND currentQueue IS NOT NULL"
    wait_for(lambda: len(demo.query(queues)) == 4, seconds=40, what=demo.text)
    first = dict(demo.query(queues))
    wait_for(lambda: any(dict(demo.query(queues))[host] != queue for host, queue in first.items()), seconds=30, what="")
    hosts = "SELECT count(*) FROM workerInfo WHERE netState = 'online' AND cpuLoad IS NOT NULL"
    wait_for(lambda: demo.query(hosts) == [(4,)], seconds=20, what="the hardware of all hosts")
    wait_for(lambda: "seal04" in demo.text and "lotusState ok" in demo.text, seconds=20, what=demo.text)
    assert "Traceback" not in demo.text


def test_ctrl_c_ends_all_of_it(demo: Demo) -> None:
    wait_for(lambda: answers(demo.port), seconds=40, what=demo.text)
    wait_for(lambda: "Ctrl-C ends all of it" in demo.text, seconds=20, what=demo.text)
    demo.end()
    assert "ended web, fleet, aggregator, broker" in demo.text
    assert not answers(demo.port)


def test_with_a_broker_it_is_the_fleet_alone(broker: Broker, tmp_path: Path) -> None:
    command = ["simulate", "--broker", broker.url, "--data", str(tmp_path), "--hosts", "2", "--scenario", "quiet"]
    with contextlib.closing(Listener(broker.url, "miners/#")) as listener:
        process = subprocess.Popen([sys.executable, "-m", "telemetry", *command], stdin=subprocess.DEVNULL)
        try:
            presences = [Topics().presence(RecordKey(MINER, host)) for host in (None, "seal01", "seal02")]
            wait_for(lambda: all(listener.of(topic) for topic in presences), seconds=30, what="three agents")
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
            for topic in presences:
                assert json.loads(listener.of(topic)[-1].payload)["state"] == "stopped"
        finally:
            process.kill()


def _simulate(directory: Path, *words: str) -> tuple[subprocess.Popen[bytes], Path]:
    log = directory / "simulate.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "telemetry", "simulate", "--data", str(directory / "demo"), *words]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output), log


@pytest.mark.parametrize("words", [("--hosts", "300"), ("--hosts", "30", "--rate", "400")])
def test_many_hosts_or_a_rate_make_a_light_fleet_which_says_goodbye(
    words: tuple[str, ...], broker: Broker, tmp_path: Path
) -> None:
    hosts = int(words[1])
    with contextlib.closing(Listener(broker.url, f"miners/{MINER}/#")) as listener:
        process, log = _simulate(tmp_path, "--broker", broker.url, *words)
        try:
            seen = {f"miners/{MINER}/workers/seal{number:05}" for number in range(1, hosts + 1)}
            wait_for(lambda: seen <= {one.topic for one in listener.messages}, seconds=30, what="all hosts")
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()

        def all_stopped() -> bool:
            stopped = {one.topic for one in listener.messages if b'"stopped"' in one.payload}
            return stopped == {f"{topic}/presence" for topic in seen}

        wait_for(all_stopped, seconds=10, what="all said goodbye")
    assert f"ended {hosts} hosts: sent " in log.read_text()


def test_a_light_fleet_comes_with_broker_and_aggregator(tmp_path: Path) -> None:
    port = own_port()
    process, log = _simulate(tmp_path, "--port", str(port), "--hosts", "250", "--rate", "500")
    try:
        wait_for(lambda: "250 online  sent " in log.read_text(), seconds=60, what="a line of the fleet")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert "ended web, fleet, aggregator, broker" in log.read_text()
    assert "Traceback" not in log.read_text()
    with open_reader(tmp_path / "demo" / "telemetry.db") as reader:
        assert len(reader.hosts(MINER)) == 250


def test_a_light_fleet_takes_no_broker_with_credentials(tmp_path: Path) -> None:
    process, log = _simulate(tmp_path, "--hosts", "300", "--broker", "mqtts://u:secret@127.0.0.1:8883")
    assert process.wait(30) == 2
    assert "need a broker at mqtt:// without credentials" in log.read_text()
    assert "secret" not in log.read_text()


@pytest.mark.parametrize(
    "words", [("--hosts", "0"), ("--hosts", "1000000"), ("--rate", "0"), ("--rate", "nan"), ("--scenario", "none")]
)
def test_a_fleet_that_cannot_be_is_refused_in_one_line(words: tuple[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "telemetry", "simulate", *words, "--data", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert words[0] in done.stderr
    assert "Traceback" not in done.stderr
