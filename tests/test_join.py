"""A subscriber that joins at any moment, under load, holds exactly the aggregator's record."""

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.aggregator.mirror import MirroredRecord
from telemetry.client import Fleet
from telemetry.errors import TelemetryError
from telemetry.fields import Owner, Value
from telemetry.reports import Numbering
from telemetry.stores.reading import open_reader
from telemetry.topics import AgentKey, RecordKey, Topics, sender_of
from telemetry.wire import (
    Backlog,
    Presence,
    PresenceState,
    decode_snapshot,
    encode_backlog,
    encode_change,
    encode_presence,
)
from tests.conftest import StartPart
from tests.parts import Broker, Listener, wait_for

TOPICS = Topics()
MINER = "f01234"
HOSTS = [RecordKey(MINER, f"seal{number:02}") for number in range(5)]
RECORDS = [*HOSTS, RecordKey(MINER)]
NUMBERS = {
    Owner.HARDWARE: ("cpuLoad", "diskR", "diskW", "useMemory", "netRx", "netTx"),
    Owner.TASKS: ("runningTasks", "pendingTasks"),
    Owner.MINER: ("totalSectors", "preCommit1", "effectivePower"),
}

Part: TypeAlias = tuple[RecordKey, Owner]
PARTS: list[Part] = [(key, owner) for key in RECORDS for owner in key.record.senders]


class Load:
    """Five hosts and their miner that change all the time, through the publishers that agents use, until paused."""

    def __init__(self, url: str) -> None:
        self._wire = Listener(url, "nothing/here")
        epoch = int(time.time() * 1000)
        self._publishers = {sender_of(*part): Numbering(epoch) for part in PARTS}
        self._fields: dict[Part, dict[str, Value]] = {part: {} for part in PARTS}
        self._random = random.Random(1)
        self._running = threading.Event()
        self._pause = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        for agent in self._publishers:
            self._announce(agent)
        self._running.set()
        self._thread.start()

    def stop(self) -> None:
        self._running.clear()
        self._thread.join(10)
        self._wire.close()

    def paused(self) -> threading.Lock:
        """While it is held nothing changes."""
        return self._pause

    def _run(self) -> None:
        while self._running.is_set():
            with self._pause:
                for _ in range(5):
                    self._change(self._random.choice(PARTS))
            time.sleep(0.002)

    def _change(self, part: Part) -> None:
        fields = self._fields[part]
        dice = self._random.random()
        if fields and dice < 0.1:
            name = self._random.choice(list(fields))
            del fields[name]
            self._send(part, {}, gone=(name,))
        elif dice < 0.12:
            self._send(part, dict(fields), full=True)
        elif dice < 0.14:
            # What is refused changes nothing, at either end.
            self._send(part, {"minerId": 7, "netState": "bogus", "useDisk": [1], "effectivePower": "much"})
        else:
            names = self._random.sample(NUMBERS[part[1]], 2)
            changed: dict[str, Value] = {name: self._random.randrange(100) for name in names}
            fields.update(changed)
            self._send(part, changed)

    def _send(self, part: Part, values: dict[str, Value], *, gone: tuple[str, ...] = (), full: bool = False) -> None:
        topic = TOPICS.change(*part)
        now = int(time.time() * 1000)
        change = self._publishers[sender_of(*part)].change(topic, time=now, values=values, gone=gone, full=full)
        self._wire.send(topic, encode_change(change))

    def _announce(self, agent: AgentKey) -> None:
        publisher = self._publishers[agent]
        presence = Presence(
            state=PresenceState.ONLINE, session="load", time=0, version="0", epoch=publisher.epoch, next=1
        )
        self._wire.send(TOPICS.presence(agent.record), encode_presence(presence), retain=True)
        for part in PARTS:
            if sender_of(*part) == agent:
                self._send(part, {}, full=True)
        empty = Backlog(epoch=publisher.epoch, first=1, next=publisher.next)
        self._wire.send(TOPICS.backlog(agent), encode_backlog(empty))


@pytest.fixture
def load(broker: Broker, data: Path, start: StartPart) -> Iterator[Load]:
    start("aggregator", "--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))
    presence = Listener(broker.url, TOPICS.aggregator("main"))
    wait_for(lambda: presence.messages, seconds=15, what="the aggregator is there")
    presence.close()
    running = Load(broker.url)
    running.start()
    yield running
    running.stop()


def _mirror(data: Path) -> dict[RecordKey, dict[str, Value]]:
    try:
        with open_reader(data / "telemetry.db") as reader:
            stored = reader.records()
    except TelemetryError:
        return {}
    return {key: dict(decode_snapshot(MirroredRecord(key, one).snapshot()).values) for key, one in stored.items()}


def _copies(fleet: Fleet) -> dict[RecordKey, dict[str, Value]]:
    return {key: dict(copy.fields) for key, copy in fleet.records.items() if copy.is_whole}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wait=st.floats(0, 0.3), one_host=st.booleans())
def test_a_subscriber_that_joins_under_load_holds_exactly_the_aggregators_record(
    load: Load, broker: Broker, data: Path, wait: float, one_host: bool
) -> None:
    wait_for(lambda: len(_mirror(data)) == len(RECORDS), seconds=15, what="all hosts mirrored")
    host = HOSTS[0].hostName if one_host else None
    joined = HOSTS[:1] if one_host else RECORDS
    with Fleet(broker.url, miner=MINER, host=host) as fleet:
        until = time.monotonic() + wait
        while time.monotonic() < until:
            fleet.poll(0.01)
        with load.paused():
            wait_for(lambda: _agree(fleet, data, joined), seconds=15, what=f"agreement: {_copies(fleet)}")


def _agree(fleet: Fleet, data: Path, keys: list[RecordKey]) -> bool:
    fleet.poll(0.05)
    mirror = _mirror(data)
    return _copies(fleet) == {key: mirror[key] for key in keys}


@pytest.mark.usefixtures("load")
def test_a_copy_is_never_wrong_about_a_value_that_it_calls_whole(broker: Broker, data: Path) -> None:
    """Two readers that joined at different moments, and are at the same position, hold the same."""
    wait_for(lambda: len(_mirror(data)) == len(RECORDS), seconds=15, what="all hosts mirrored")
    compared = 0
    with Fleet(broker.url, miner=MINER) as first:
        while compared < 200:
            with Fleet(broker.url, miner=MINER) as second:
                for _ in range(20):
                    first.poll(0.005)
                    second.poll(0.005)
                    compared += _compare(first, second)


def _compare(first: Fleet, second: Fleet) -> int:
    same = 0
    for key, copy in first.records.items():
        other = second.records.get(key)
        if other and copy.is_whole and other.is_whole and copy.positions == other.positions:
            assert {**copy.fields} == {**other.fields}
            same += 1
    return same
