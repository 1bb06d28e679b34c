"""`telemetry verify`: every mirror equals its host, or it says which does not and in what."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartPart
from tests.parts import FAST, Broker, Process, wait_for


@pytest.fixture
def aggregator(broker: Broker, data: Path, start: StartPart) -> Process:
    return start("aggregator", *_common(broker, data))


@pytest.fixture
def agent(broker: Broker, data: Path, start: StartPart, aggregator: Process) -> Process:
    del aggregator
    (data / "fast.toml").write_text(FAST.split("[deadbands]", maxsplit=1)[0])
    running = start("agent", *_common(broker, data), "--miner", "f01234", "--name", "seal01")
    wait_for(lambda: _stored(data) not in {None, 0}, seconds=20, what=running.text)
    return running


def _common(broker: Broker, data: Path) -> tuple[str, ...]:
    return ("--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))


def _stored(data: Path) -> Any:
    try:
        with closing(sqlite3.connect(data / "telemetry.db", timeout=10)) as connection:
            row = connection.execute("SELECT totalMemory FROM workerInfo WHERE cpuLoad IS NOT NULL").fetchone()
            return row[0] if row else None
    except sqlite3.OperationalError:
        return None


def _verify(broker: Broker, data: Path, *words: str) -> tuple[int, list[dict[str, str]]]:
    command = [sys.executable, "-m", "telemetry", "verify", *words, *_common(broker, data), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def test_what_is_equal_is_said_to_be(broker: Broker, data: Path, agent: Process) -> None:
    for words in ((), ("f01234", "seal01")):
        status, results = _verify(broker, data, *words)
        assert results == [{"record": "f01234/seal01", "part": "hardware", "result": "equal", "detail": ""}]
        assert status == 0
    assert agent.is_running


def test_a_host_that_is_not_there_cannot_be_verified_and_is_said(broker: Broker, data: Path, agent: Process) -> None:
    assert agent.terminate() == 0

    def told() -> bool:
        status, results = _verify(broker, data)
        return status == 0 and [one["result"] for one in results] == ["not there"]

    wait_for(told, seconds=30, what="that it is stopped")


def test_a_mirror_that_differs_is_found_and_mended(
    broker: Broker, data: Path, agent: Process, aggregator: Process, start: StartPart
) -> None:
    # A defect of ours: the mirror is changed behind the aggregator's back, while it does not run.
    assert aggregator.terminate() == 0
    right = _stored(data)
    with closing(sqlite3.connect(data / "telemetry.db", timeout=10)) as connection:
        connection.execute("UPDATE workerInfo SET totalMemory = 1")
        connection.commit()
    start("aggregator", *_common(broker, data))
    wait_for(lambda: _stored(data) == 1, seconds=5, what="the wrong value")
    status, results = _verify(broker, data)
    assert status == 1
    assert [(one["result"], one["detail"]) for one in results] == [("differs", "totalMemory")]
    wait_for(lambda: _stored(data) == right, seconds=10, what="the right value again")
    assert _verify(broker, data)[0] == 0
    assert agent.is_running


def test_without_a_broker_it_says_so_in_one_line(data: Path, broker: Broker, agent: Process) -> None:
    broker.kill()
    command = [sys.executable, "-m", "telemetry", "verify", *_common(broker, data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "does the broker run?" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert agent.is_running
