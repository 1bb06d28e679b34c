"""Whether an agent is there: what the record says of it is true, whatever became of it, the broker or a namesake."""

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telemetry.fields import Owner
from telemetry.topics import RecordKey, Topics
from tests.conftest import StartPart
from tests.parts import FAST, Broker, Listener, Process, wait_for

KEY = RecordKey("f01234", "seal01")
TOPICS = Topics()
CHANGES = TOPICS.change(KEY, Owner.HARDWARE)


@pytest.fixture
def listener(broker: Broker, listen: Callable[..., Listener]) -> Listener:
    del broker
    return listen("miners/#")


@pytest.fixture
def aggregator(broker: Broker, data: Path, start: StartPart) -> Process:
    return start("aggregator", *_common(broker, data))


def _common(broker: Broker, data: Path) -> tuple[str, ...]:
    return ("--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))


def _agent(start: StartPart, broker: Broker, data: Path, state: str) -> Process:
    own = ("--miner", "f01234", "--name", "seal01", "--state", str(data / state))
    return start("agent", *_common(broker, data), *own)


def _record(listener: Listener) -> dict[str, Any]:
    found = listener.of(TOPICS.snapshot(KEY))
    return json.loads(found[-1].payload) if found else {}


def _state(listener: Listener) -> str | None:
    return _record(listener).get("netState")


def _wait_for_state(listener: Listener, state: str, *, seconds: float, agent: Process) -> None:
    wait_for(lambda: _state(listener) == state, seconds=seconds, what=f"{state}: {_state(listener)}, {agent.text}")


def test_a_dead_host_stays_with_its_last_values_and_since_when(
    broker: Broker, data: Path, start: StartPart, aggregator: Process, listener: Listener
) -> None:
    agent = _agent(start, broker, data, "one")
    wait_for(lambda: {"cpuLoad", "netSince"} <= _record(listener).keys(), seconds=20, what=agent.text)
    online = _record(listener)
    assert online["netState"] == "online"
    agent.kill()
    _wait_for_state(listener, "lost", seconds=10, agent=agent)
    lost = _record(listener)
    assert {"cpuLoad", "useMemory", "totalMemory"} <= lost.keys()
    assert lost["netSince"] > online["netSince"]
    assert aggregator.is_running


def test_a_hung_agent_is_stale_and_online_again_when_it_goes_on(
    broker: Broker, data: Path, start: StartPart, aggregator: Process, listener: Listener
) -> None:
    (data / "fast.toml").write_text(FAST.replace("stale = 4.0", "stale = 1.5"))
    agent = _agent(start, broker, data, "one")
    _wait_for_state(listener, "online", seconds=20, agent=agent)
    os.kill(agent.pid, signal.SIGSTOP)
    _wait_for_state(listener, "stale", seconds=10, agent=agent)
    os.kill(agent.pid, signal.SIGCONT)
    _wait_for_state(listener, "online", seconds=10, agent=agent)
    assert aggregator.is_running


def test_an_agent_whose_sources_are_dead_does_not_look_alive(
    broker: Broker, data: Path, start: StartPart, aggregator: Process, listener: Listener
) -> None:
    # The sources are sampled so rarely that none is for as long as the test looks: as good as dead.
    rare = FAST.replace("host = 0.2", "host = 600").replace("heartbeat = 1.0", "heartbeat = 0.3")
    (data / "fast.toml").write_text(rare.replace("full = 30", "full = 6000"))
    agent = _agent(start, broker, data, "one")
    _wait_for_state(listener, "online", seconds=20, agent=agent)
    before = len(listener.of(CHANGES))
    wait_for(lambda: len(listener.of(CHANGES)) > before + 5, seconds=10, what="heartbeats while it is patient")
    assert aggregator.is_running


def test_after_a_broker_that_lost_all_it_retained_every_snapshot_and_presence_is_back(
    broker: Broker, data: Path, start: StartPart, aggregator: Process, listener: Listener
) -> None:
    agent = _agent(start, broker, data, "one")
    _wait_for_state(listener, "online", seconds=20, agent=agent)
    broker.kill()
    for file in (data / "broker").glob("mosquitto.db*"):
        file.unlink()
    broker.start()
    with contextlib.closing(Listener(broker.url, "miners/#")) as late:
        wait_for(lambda: _state(late) == "online", seconds=30, what=f"snapshot: {agent.text} {aggregator.text}")
        presence = wait_for(lambda: late.of(TOPICS.presence(KEY)), seconds=30, what="presence")
        assert json.loads(presence[-1].payload)["state"] == "online"


@pytest.mark.timeout(240)
def test_two_agents_of_one_name_both_say_so_and_one_waits_until_the_other_is_gone(
    broker: Broker, data: Path, start: StartPart, aggregator: Process, listener: Listener
) -> None:
    # As by default, longer than an agent that was put out takes to come back.
    (data / "fast.toml").write_text(FAST.replace("lost = 0.5", "lost = 5"))
    first = _agent(start, broker, data, "one")
    _wait_for_state(listener, "online", seconds=20, agent=first)
    (data / "second").mkdir()
    other = Process(
        data / "second", "agent", *_common(broker, data), "--miner", "f01234", "--name", "seal01",
        "--state", str(data / "two"),
    ).start()  # fmt: skip
    try:
        wait_for(lambda: "this one waits" in other.text, seconds=30, what=f"the later one waits: {other.text}")
        wait_for(lambda: "that one has to wait" in first.text, seconds=30, what=f"the first one says so: {first.text}")
        # From then on the first one has the place, and keeps it.
        connections, changes = -1, 0

        def is_at_rest() -> bool:
            nonlocal connections, changes
            if (seen := first.text.count("connected as") + other.text.count("connected as")) != connections:
                connections, changes = seen, len(listener.of(CHANGES))
            return len(listener.of(CHANGES)) > changes + 20

        wait_for(is_at_rest, seconds=90, what="changes, and nobody takes a place")
        assert _state(listener) == "online"
        assert first.terminate() == 0
        wait_for(lambda: "taking its place" in other.text, seconds=20, what=f"the place is free: {other.text}")
        wait_for(lambda: "connected as f01234.seal01" in other.text.splitlines()[-1], seconds=10, what=other.text)
        _wait_for_state(listener, "online", seconds=10, agent=other)
    finally:
        other.end()
    assert aggregator.is_running
