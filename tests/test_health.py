"""What the parts tell of themselves: as their declaration says, kept for who asks, and gone when forgotten."""

import contextlib
import json
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.aggregator.health import BrokerWatch, Spread
from telemetry.fields import fits
from telemetry.health import AGENT_HEALTH, AGGREGATOR_HEALTH, BROKER_HEALTH, BROKER_TOPICS, HEALTHS, Health, Kind
from telemetry.stores import Batch, HealthRow, StoredAgent, StoredLog, Violated
from telemetry.stores.reading import open_reader
from telemetry.stores.sqlite import MOST_VIOLATIONS, SqliteStore
from telemetry.topics import AgentKey, Topics
from telemetry.units import Unit
from telemetry.wire import HealthReport, decode_health, encode_health
from tests.conftest import StartPart
from tests.parts import FAST, Broker, Listener, Process, wait_for
from tests.secured import telemetry

TOPICS = Topics()
SEAL01 = AgentKey("f01234", "seal01")


def _validate(health: Health, message: dict[str, Any]) -> None:
    schema = json.loads(files("telemetry.schemas").joinpath(f"health.{health.name}.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(message)


@pytest.fixture
def fleet(start: StartPart, broker: Broker, data: Path) -> Process:
    """An aggregator and an agent, whose process it gives."""
    (data / "fast.toml").write_text(FAST.replace("full = 30", "full = 30\nhealth = 0.5"))
    common = ("--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))
    start("aggregator", *common)
    return start("agent", *common, "--miner", "f01234", "--name", "seal01")


def _told(data: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What `ls --self --json` says, by kind and name."""
    if not (data / "telemetry.db").exists():
        return {}
    rows = json.loads(telemetry("ls", "--self", "--json", "--data", str(data)))
    return {(row["kind"], row.get("name", row.get("topic"))): row for row in rows}


def test_every_part_tells_every_metric_that_is_declared(
    fleet: Process, data: Path, listen: Callable[..., Listener]
) -> None:
    listener = listen("telemetry/#")
    topics = {
        AGENT_HEALTH: TOPICS.agent_health(SEAL01),
        AGGREGATOR_HEALTH: TOPICS.aggregator_health("main"),
        BROKER_HEALTH: TOPICS.broker_health,
    }
    # What a spread says of what did not happen meanwhile is left out; the broker tells every 10 s.
    for health, topic in topics.items():
        wait_for(lambda topic=topic: listener.of(topic), seconds=40, what=f"{topic}: {fleet.text}")  # type: ignore[misc]
        told = {name for message in listener.of(topic) for name in json.loads(message.payload)}
        assert told == {"time", "version", *health.by_name}, topic
        for message in listener.of(topic):
            _validate(health, json.loads(message.payload))
    kinds = [("agent", str(SEAL01)), ("aggregator", "main"), ("broker", "")]
    wait_for(lambda: all(kind in _told(data) for kind in kinds), seconds=10, what="all are kept")
    agent = _told(data)["agent", str(SEAL01)]
    assert agent["state"] == "online"
    assert abs(agent["clockOffsetSeconds"]) < 5
    shown = telemetry("ls", "--self", "--data", str(data))
    for word in ("aggregator main", "broker", str(SEAL01), "mosquitto"):
        assert word in shown, shown


def test_who_asks_for_snapshots_is_told_at_once_how_the_aggregator_is(
    start: StartPart, broker: Broker, data: Path, listen: Callable[..., Listener]
) -> None:
    """By it one sees that somebody hears, and how the aggregator's clock is."""
    aggregator = start("aggregator", "--data", str(data), "--broker", broker.url)
    listener = listen(TOPICS.aggregator_health("main"))
    wait_for(lambda: listener.messages, seconds=15, what=f"the first: {aggregator.text}")
    before = len(listener.messages)
    listener.publish(TOPICS.resubscribe("f01234"), b"")
    wait_for(lambda: len(listener.messages) > before, seconds=10, what="one that was asked for")


def test_what_is_anothers_to_state_is_shown_by_topic_and_forgotten_with_its_agent(
    fleet: Process, data: Path, listen: Callable[..., Listener]
) -> None:
    listener = listen("telemetry/#")
    presence = TOPICS.presence(SEAL01.record)
    topic = "miners/f01234/workers/seal01"
    wait_for(lambda: ("agent", str(SEAL01)) in _told(data), seconds=30, what=f"agent: {fleet.text}")
    fleet.terminate()
    newer = time.time_ns() // 1_000_000 + 1
    for seq in range(1, 4):
        listener.publish(topic, b'{"_epoch":%d,"_seq":%d,"_time":1,"runningTasks":3}' % (newer, seq))
    wait_for(lambda: _told(data).get(("violation", topic), {}).get("number") == 3, seconds=15, what="3 violations")
    assert _told(data)["violation", topic]["agent"] == str(SEAL01)
    assert topic in telemetry("ls", "--self", "--data", str(data))
    listener.publish(presence, b"", retain=True)
    wait_for(
        lambda: not {("violation", topic), ("agent", str(SEAL01))} & _told(data).keys(), seconds=15, what="all gone"
    )


def test_names_say_their_units_and_mean_one_thing() -> None:
    for health in HEALTHS:
        names = [metric.name for metric in health.metrics]
        assert len(set(names)) == len(names)
        for metric in health.metrics:
            assert metric.name.endswith("Seconds") == (metric.unit is Unit.SECONDS), metric.name
            is_size = metric.name.endswith("Bytes") or metric.name.startswith("bytes")
            assert is_size == (metric.unit is Unit.BYTES), metric.name
            assert metric.kind in Kind
    assert set(BROKER_TOPICS.values()) <= set(BROKER_HEALTH.by_name)


_METRICS = st.dictionaries(st.sampled_from(sorted(AGENT_HEALTH.by_name)), st.integers(0, 2**53))


@given(_METRICS, st.integers(0, 2**47), st.text(max_size=20))
def test_health_survives_the_wire(metrics: dict[str, float], moment: int, version: str) -> None:
    report = HealthReport(moment, version, metrics)
    assert decode_health(AGENT_HEALTH, encode_health(report)) == report


_VALUES = st.one_of(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.booleans(), st.none(),
    st.lists(st.integers()),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["samples", "uptimeSeconds", "x", "_y"]), _VALUES))
def test_what_is_no_metric_is_left_out(told: dict[str, Any]) -> None:
    payload = json.dumps(told | {"time": 1, "version": ""}).encode()
    for name, value in decode_health(AGENT_HEALTH, payload).metrics.items():
        assert fits(AGENT_HEALTH.by_name[name].type, value)


@given(st.lists(st.floats(0, 100), min_size=1))
def test_a_spread_is_in_order_and_told_once(seconds: list[float]) -> None:
    spread = Spread("lag")
    for one in seconds:
        spread.add(one)
    told = spread.take()
    assert round(min(seconds), 4) <= told["lagP50Seconds"] <= told["lagP99Seconds"] <= told["lagMaxSeconds"]
    assert told["lagMaxSeconds"] == round(max(seconds), 4)
    assert spread.take() == {}


@given(st.binary(max_size=30), st.sampled_from([*BROKER_TOPICS, "$SYS/broker/version", "$SYS/broker/load/x"]))
def test_whatever_a_broker_tells_of_itself_is_a_number_or_nothing(payload: bytes, topic: str) -> None:
    watch = BrokerWatch()
    watch.take(topic, payload)
    _validate(BROKER_HEALTH, {"time": 1, "version": watch.version} | watch.metrics())


def _agent(state: str = "online") -> StoredAgent:
    log = StoredLog(epoch=1, position=1, beyond=(), fulls={}, floor=0, lost=0)
    return StoredAgent(log=log, state=state, since=1, heard=1, session="", version="1")


def _row(name: str, moment: int, **metrics: float) -> HealthRow:
    return HealthRow("agent", name, moment, "1", metrics, moment)


def test_the_last_health_of_each_is_kept_and_that_of_a_forgotten_agent_is_not(tmp_path: Path) -> None:
    other = AgentKey("f01234", "seal02")
    with contextlib.closing(SqliteStore(tmp_path / "telemetry.db")) as store:
        rows = [_row(str(SEAL01), 1, samples=1), _row(str(SEAL01), 2, samples=2), _row(str(other), 3, samples=3)]
        for row in rows:
            batch = Batch(agents={SEAL01: _agent(), other: _agent()}, health={(row.kind, row.name): row})
            batch.violations = {"t": Violated(SEAL01, 2, 1), "u": Violated(other, 1, 1)}
            store.commit(batch)
        with open_reader(tmp_path / "telemetry.db") as reader:
            assert sorted(reader.health()) == sorted(rows[1:])
            assert [(one.topic, one.number) for one in reader.violations()] == [("t", 6), ("u", 3)]
        store.commit(Batch(agents={SEAL01: None}))
        with open_reader(tmp_path / "telemetry.db") as reader:
            assert reader.health() == rows[2:]
            assert [one.topic for one in reader.violations()] == ["u"]


def test_violations_are_bounded_to_those_heard_of_last(tmp_path: Path) -> None:
    with contextlib.closing(SqliteStore(tmp_path / "telemetry.db")) as store:
        for start in range(0, 2 * MOST_VIOLATIONS, 500):
            batch = Batch(agents={SEAL01: _agent()})
            batch.violations = {str(one): Violated(SEAL01, 1, one) for one in range(start, start + 500)}
            store.commit(batch)
        with open_reader(tmp_path / "telemetry.db") as reader:
            kept = {int(one.topic) for one in reader.violations()}
    assert kept == set(range(MOST_VIOLATIONS, 2 * MOST_VIOLATIONS))
