"""The agent as a process: its sources, its rhythm, its end."""

import itertools
import json
import os
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telemetry.fields import Owner, fits
from telemetry.records import WORKER_INFO
from telemetry.topics import AgentKey, RecordKey, Topics
from tests.conftest import StartPart
from tests.nvml_library import FakeCard, FakeNvml, build_nvml
from tests.parts import FAST, Broker, Listener, Process, wait_for

KEY = RecordKey("f01234", "gpu01")
TOPICS = Topics()
CHANGES = TOPICS.change(KEY, Owner.HARDWARE)
GPU_FIELDS = {"gpuInfo", "gpuTemper", "gpuLoad", "gpuMemory"}


def _agent(start: StartPart, broker: Broker, data: Path, environment: dict[str, str] | None = None) -> Process:
    options = ("--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))
    return start("agent", *options, "--miner", "f01234", "--name", "gpu01", environment=environment)


def _changes(listener: Listener) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in listener.of(CHANGES)]


def _held(listener: Listener) -> dict[str, Any]:
    """What a reader holds that applies every change."""
    held: dict[str, Any] = {}
    for change in _changes(listener):
        if change.get("_full"):
            held.clear()
        for name in change.get("_gone", ()):
            held.pop(name, None)
        held |= {name: value for name, value in change.items() if not name.startswith("_")}
    return held


@pytest.fixture
def nvml(tmp_path: Path) -> FakeNvml:
    fake = FakeNvml(path=tmp_path / "nvml-state")
    fake.write((FakeCard(temperature=61),) * 8)
    return fake


@pytest.fixture
def gpu_host(tmp_path: Path, nvml: FakeNvml) -> dict[str, str]:
    return nvml.environment(build_nvml(tmp_path))


def test_eight_cards_arrive_as_declared(
    start: StartPart, broker: Broker, data: Path, listen: Callable[..., Listener], gpu_host: dict[str, str]
) -> None:
    listener = listen("miners/#")
    agent = _agent(start, broker, data, gpu_host)
    wait_for(lambda: "gpuInfo" in _held(listener), seconds=15, what=f"cards: {agent.text}")
    held = _held(listener)
    assert len(held["gpuInfo"]) == 8
    for name in GPU_FIELDS:
        assert fits(WORKER_INFO.by_name[name].type, held[name]), name


def test_a_wedged_driver_costs_the_gpu_fields_and_nothing_else(
    start: StartPart,
    broker: Broker,
    data: Path,
    listen: Callable[..., Listener],
    gpu_host: dict[str, str],
    nvml: FakeNvml,
) -> None:
    (data / "fast.toml").write_text(FAST + "\n[sources.gpu]\ndeadline = 0.5\n")
    listener = listen("miners/#")
    agent = _agent(start, broker, data, gpu_host)
    wait_for(lambda: "gpuInfo" in _held(listener), seconds=15, what="cards")
    nvml.write((FakeCard(temperature=61),) * 8, "hang temperature 5")
    wait_for(lambda: not GPU_FIELDS & _held(listener).keys(), seconds=10, what="cards gone")
    before = len(_changes(listener))
    wait_for(lambda: len(_changes(listener)) > before + 10, seconds=20, what="other changes")
    told = [line for line in agent.text.splitlines() if "cannot read gpuInfo" in line]
    assert len(told) == 1
    assert "no answer for 0.5 s" in told[0]
    gone = [change["_gone"] for change in _changes(listener) if "_gone" in change]
    assert [set(names) for names in gone] == [GPU_FIELDS]


def test_ctrl_c_ends_the_agent_while_a_source_hangs(
    start: StartPart,
    broker: Broker,
    data: Path,
    listen: Callable[..., Listener],
    gpu_host: dict[str, str],
    nvml: FakeNvml,
) -> None:
    nvml.write((FakeCard(),), "hang temperature 0")
    listener = listen("miners/#")
    agent = _agent(start, broker, data, gpu_host)
    wait_for(lambda: "temperature 0" in nvml.calls() and _changes(listener), seconds=15, what="a hanging call")
    os.kill(agent.pid, signal.SIGINT)
    assert agent.process is not None
    assert agent.process.wait(15) == 0
    presence = wait_for(lambda: listener.of(TOPICS.presence(KEY)), seconds=5, what="presence")
    assert json.loads(presence[-1].payload)["state"] == "stopped"


def test_what_cannot_be_read_is_logged_once(
    start: StartPart,
    broker: Broker,
    data: Path,
    listen: Callable[..., Listener],
    gpu_host: dict[str, str],
    nvml: FakeNvml,
) -> None:
    listener = listen("miners/#")
    agent = _agent(start, broker, data, gpu_host)
    wait_for(lambda: "gpuInfo" in _held(listener), seconds=15, what="cards")
    nvml.write((FakeCard(temperature=61),) * 8, "lost 3")
    wait_for(lambda: len(_held(listener).get("gpuInfo", ())) == 7, seconds=10, what="seven cards")
    before = len(_changes(listener))
    wait_for(lambda: len(_changes(listener)) > before + 10, seconds=20, what="more samples")
    nvml.write((FakeCard(temperature=61),) * 8)
    wait_for(lambda: "gpu: reads gpuInfo again" in agent.text, seconds=10, what="the card again")
    assert agent.text.count("GPU 3") == 1


def test_an_agent_sends_only_what_changed_after_its_full_report(
    start: StartPart, broker: Broker, data: Path, listen: Callable[..., Listener]
) -> None:
    listener = listen("miners/#")
    _agent(start, broker, data)
    wait_for(lambda: len(_changes(listener)) > 8, seconds=20, what="changes")
    changes = _changes(listener)
    assert [change["_seq"] for change in changes] == list(range(1, len(changes) + 1))
    held: dict[str, Any] = {}
    for change in changes:
        values = {name: value for name, value in change.items() if not name.startswith("_")}
        if not change.get("_full"):
            assert not values.items() <= held.items() or not values
        held |= values


def test_a_request_brings_the_connect_routine_once_in_a_while(
    start: StartPart, broker: Broker, data: Path, listen: Callable[..., Listener]
) -> None:
    listener = listen("#")
    agent = _agent(start, broker, data)
    assert KEY.hostName is not None
    key = AgentKey(KEY.minerId, KEY.hostName)

    def routines() -> int:
        return len([one for one in listener.of(TOPICS.presence(KEY)) if json.loads(one.payload)["state"] == "online"])

    wait_for(routines, seconds=15, what="the first routine")
    # The first request is answered at once; those of the 30 s after it are gathered.
    for _ in range(20):
        listener.publish(TOPICS.request(key), b"{}")
    listener.publish(TOPICS.request(key), b"not a request")
    wait_for(lambda: routines() > 1, seconds=10, what="the routine that was asked for")
    before = len(_changes(listener))
    wait_for(lambda: len(_changes(listener)) > before + 3, seconds=20, what="changes go on meanwhile")
    assert routines() == 2
    assert agent.text.count("not JSON") == 1
    assert agent.is_running


def _gap(listener: Listener, topic: str, pick: Callable[[dict[str, Any]], bool], count: int) -> float:
    """The median seconds between messages of a topic, seen as they come."""
    arrivals: list[float] = []
    taken = len(listener.of(topic))

    def enough() -> bool:
        nonlocal taken
        new = listener.of(topic)[taken:]
        taken += len(new)
        arrivals.extend(time.monotonic() for message in new if pick(json.loads(message.payload)))
        return len(arrivals) > count

    wait_for(enough, seconds=60, what=f"{count} messages on {topic}")
    return statistics.median(after - before for before, after in itertools.pairwise(arrivals))


def _any(_: dict[str, Any]) -> bool:
    return True


def _is_full(message: dict[str, Any]) -> bool:
    return "_full" in message


def _is_change(message: dict[str, Any]) -> bool:
    return "_full" not in message and any(not name.startswith("_") for name in message)


def _is_heartbeat(message: dict[str, Any]) -> bool:
    return message.keys() == {"_epoch", "_seq", "_time"}


QUIET = "[intervals]\nhost = 600\nsnapshot = 0.05\nlost = 0.5\npush = 0.05\n"
BUSY = "[intervals]\nhost = 0.05\nsnapshot = 0.05\npush = 0.05\n[deadbands]\ncpuLoad = 0\nuseMemory = 0\n"
ACK = TOPICS.ack(AgentKey("f01234", "gpu01"), "main")
SNAPSHOT = TOPICS.snapshot(KEY)


@pytest.mark.parametrize(
    ("setting", "settings", "topic", "pick", "short", "long"),
    [
        pytest.param("intervals.host", BUSY, CHANGES, _is_change, 0.4, 1.2, id="intervals.host"),
        pytest.param("intervals.push", BUSY, CHANGES, _is_change, 0.4, 1.2, id="intervals.push"),
        pytest.param("intervals.heartbeat", QUIET, CHANGES, _is_heartbeat, 0.3, 1.0, id="intervals.heartbeat"),
        pytest.param("intervals.full", QUIET, CHANGES, _is_full, 0.3, 1.0, id="intervals.full"),
        pytest.param("intervals.snapshot", BUSY, SNAPSHOT, _any, 0.4, 1.2, id="intervals.snapshot"),
        pytest.param("intervals.refresh", QUIET, SNAPSHOT, _any, 0.3, 1.0, id="intervals.refresh"),
        pytest.param("intervals.acknowledge", BUSY, ACK, _any, 0.6, 1.5, id="intervals.acknowledge"),
        pytest.param("sources.system.interval", BUSY, CHANGES, _is_change, 0.4, 1.2, id="sources.system.interval"),
    ],
)
def test_an_interval_that_is_set_is_the_rate_that_is_seen(
    setting: str,
    settings: str,
    topic: str,
    pick: Callable[[dict[str, Any]], bool],
    short: float,
    long: float,
    broker: Broker,
    data: Path,
    start: StartPart,
    listen: Callable[..., Listener],
) -> None:
    listener = listen("#")
    gaps = []
    for interval in (short, long):
        (data / "fast.toml").write_text(settings)
        table, key = setting.rsplit(".", 1)
        environment = {f"TELEMETRY_{table}_{key}".replace(".", "_").upper(): str(interval)}
        options = ("--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))
        aggregator = start("aggregator", *options, environment=environment)
        agent = _agent(start, broker, data, environment)
        gaps.append(_gap(listener, topic, pick, 5))
        agent.end()
        aggregator.end()
    # The machine may be late, by a little more than a tick of the aggregator, but never early.
    assert 0.7 * short < gaps[0] < short + 0.6
    assert 0.7 * long < gaps[1] < long + 0.8


def test_an_agent_that_is_ended_while_it_samples_says_nothing_of_it(tmp_path: Path) -> None:
    quiet = {"TELEMETRY_LOG_LEVEL": "error"}
    for number in range(4):
        place = tmp_path / str(number)
        place.mkdir()
        agent = Process(
            place, "agent", "--data", str(place), "--broker", "mqtt://127.0.0.1:1", environment=quiet
        ).start()
        wait_for(lambda place=place: list(place.glob("agent/*.spool/*")), seconds=15, what="its first sample")  # type: ignore[misc]
        assert agent.terminate() == 0
        assert agent.text == ""
