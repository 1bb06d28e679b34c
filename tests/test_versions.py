"""Agent, aggregator and reader that are one version apart, as real processes: of today, and of a version that adds.

The other version is a copy of this one in which every kind of message has gained something: a field, a member of a
composite, a reserved key, a member of a message.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import telemetry
from telemetry.fields import Owner
from telemetry.topics import AgentKey, RecordKey, Topics
from tests.parts import FAST, Broker, Listener, Process, wait_for

CHECKOUT = Path(telemetry.__file__).parents[1]
KEY = RecordKey("f01234", "seal01")
TOPICS = Topics()

ADDED = {
    "telemetry/__init__.py": [('__version__ = "', '__version__ = "1000.')],
    "telemetry/records.py": [
        ('_hardware("useDisk"', '_hardware("fanSpeed", Scalar.NUMBER, Unit.NONE, "Fan.", "风扇"), _hardware("useDisk"'),
    ],
    "telemetry/sources/host.py": [
        ('"totalMemory", "useMemory", "diskR"', '"totalMemory", "useMemory", "fanSpeed", "diskR"'),
        ('"useMemory"), self._read_memory', '"useMemory", "fanSpeed"), self._read_memory'),
        ('"useMemory": total - available}', '"useMemory": total - available, "fanSpeed": 900.0}'),
    ],
    "telemetry/sources/mounts.py": [('"used": space.used,', '"used": space.used, "inodes": 7,')],
    "telemetry/wire.py": [
        ('envelope["_time"] = change.time', 'envelope["_time"], envelope["_mood"] = change.time, {"well": 1}'),
        ('flat = {**values, "_time": time,', 'flat = {**values, "_mood": 1, "_time": time,'),
        ('{"state": presence.state.value}', '{"state": presence.state.value, "mood": [1]}'),
        ('{"epoch": ack.position.epoch,', '{"mood": 1, "epoch": ack.position.epoch,'),
        ('b\'{"digest":true}\' if', 'b\'{"digest":true,"mood":1}\' if'),
        ('batch = {"epoch": backlog.epoch,', 'batch = {"mood": 1, "epoch": backlog.epoch,'),
        ('{"epoch": epoch, "seq": seq, "digests"', '{"mood": 1, "epoch": epoch, "seq": seq, "digests"'),
    ],
}  # fmt: skip
"""By file, what the other version has in the place of what."""


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the other version can be imported from."""
    place = tmp_path_factory.mktemp("newer")
    shutil.copytree(CHECKOUT / "telemetry", place / "telemetry", ignore=shutil.ignore_patterns("__pycache__"))
    for name, replaced in ADDED.items():
        path = place / name
        text = path.read_text()
        for before, after in replaced:
            assert text.count(before) == 1, f"{name}: {before}"
            text = text.replace(before, after)
        path.write_text(text)
    return place


class Fleet:
    """A broker with one aggregator and one agent, each of today or of the newer version."""

    def __init__(self, data: Path, broker: Broker, newer: Path) -> None:
        # What changes all the time is never the same at two places: deadbands as declared, and pauses between changes.
        settings = FAST.split("[deadbands]", maxsplit=1)[0].replace("push = 0.1", "push = 2")
        (data / "fast.toml").write_text(settings)
        self._data, self._newer = data, newer
        self._common = ("--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))
        self.parts: list[Process] = []

    def start(self, part: str, *, is_newer: bool) -> Process:
        own = ("--miner", "f01234", "--name", "seal01") if part == "agent" else ()
        process = Process(
            self._data, part, *self._common, *own, environment=self._environment(is_newer=is_newer)
        ).start()
        self.parts.append(process)
        return process

    def run(self, *words: str, is_newer: bool) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "telemetry", *words, *self._common], env=self._environment(is_newer=is_newer),
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def query(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._data / "telemetry.db", timeout=10)) as connection:
            return connection.execute(query).fetchall()

    def _environment(self, *, is_newer: bool) -> dict[str, str]:
        # Where the tests run, the version of today is what Python finds first.
        other = {"PYTHONPATH": str(self._newer), "PYTHONSAFEPATH": "1"}
        return os.environ | other if is_newer else dict(os.environ)


@pytest.fixture
def fleet(data: Path, broker: Broker, newer: Path) -> Iterator[Fleet]:
    made = Fleet(data, broker, newer)
    yield made
    for process in reversed(made.parts):
        process.end()


def _snapshot(listener: Listener) -> dict[str, Any]:
    told = listener.of(TOPICS.snapshot(KEY))
    return json.loads(told[-1].payload) if told else {}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("newer_part", ["agent", "aggregator"])
def test_agent_and_aggregator_one_version_apart_lose_and_refuse_nothing(
    fleet: Fleet, listen: Callable[..., Listener], newer_part: str
) -> None:
    listener = listen("#")
    agent_is_newer = newer_part == "agent"
    aggregator = fleet.start("aggregator", is_newer=not agent_is_newer)
    agent = fleet.start("agent", is_newer=agent_is_newer)
    wait_for(lambda: "cpuLoad" in _snapshot(listener), seconds=30, what=f"a snapshot: {agent.text}{aggregator.text}")
    presence = json.loads(listener.of(TOPICS.presence(KEY))[-1].payload)
    assert presence["version"].startswith("1000.") == agent_is_newer

    # What was not acknowledged while there was no aggregator comes late, as a batch.
    aggregator.kill()
    before = len(listener.of(TOPICS.change(KEY, Owner.HARDWARE)))
    wait_for(lambda: len(listener.of(TOPICS.change(KEY, Owner.HARDWARE))) > before + 3, seconds=30, what="changes")
    agent.kill()
    aggregator = fleet.start("aggregator", is_newer=not agent_is_newer)
    agent = fleet.start("agent", is_newer=agent_is_newer)
    wait_for(lambda: listener.of(TOPICS.backlog(AgentKey.of(KEY))), seconds=30, what="a batch")

    [result] = json.loads(fleet.run("verify", "--json", is_newer=False))
    assert result["result"] == "equal"
    for reader_is_newer in (False, True):
        followed = fleet.run("watch", "f01234", "seal01", "--count", "1", "--json", is_newer=reader_is_newer)
        assert "cpuLoad" in followed
    shown = _snapshot(listener)
    assert ("fanSpeed" in shown, "inodes" in shown["useDisk"][0]) == (agent_is_newer, agent_is_newer)
    assert fleet.query("SELECT * FROM rejected") == []
    assert fleet.query("SELECT event FROM events WHERE event IN ('violation', 'defect')") == []
    assert fleet.query("SELECT total(lost) FROM agents") == [(0,)]
    warned = [line for line in aggregator.text.splitlines() if '"warning"' in line or '"error"' in line]
    assert all("unknown field fanSpeed" in line for line in warned)
    assert len(warned) <= 2, "once a process"
    assert agent.terminate() == aggregator.terminate() == 0


def test_a_database_goes_on_under_another_version_of_the_same_form(
    fleet: Fleet, listen: Callable[..., Listener]
) -> None:
    listener = listen("#")
    for is_newer in (True, False, True):
        _run_once(fleet, listener, is_newer=is_newer)
    assert fleet.query("SELECT count(*) FROM rejected") == [(0,)]
    assert fleet.query("SELECT fanSpeed FROM workerInfo") == [(900,)]


def _run_once(fleet: Fleet, listener: Listener, *, is_newer: bool) -> None:
    """Run both until a snapshot has come of what this agent states, and no more."""
    heard = len(listener.of(TOPICS.snapshot(KEY)))
    aggregator, agent = fleet.start("aggregator", is_newer=is_newer), fleet.start("agent", is_newer=is_newer)

    def is_told() -> bool:
        return len(listener.of(TOPICS.snapshot(KEY))) > heard + 3 and ("fanSpeed" in _snapshot(listener)) == is_newer

    wait_for(is_told, seconds=40, what=f"snapshots of that version: {aggregator.text}{agent.text}")
    assert agent.terminate() == aggregator.terminate() == 0
