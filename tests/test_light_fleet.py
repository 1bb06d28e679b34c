"""Light agents say what real ones say: seen through a real broker and a real aggregator."""

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

from telemetry.admission import Admission
from telemetry.aggregator.mirror import MirroredRecord
from telemetry.config import Intervals
from telemetry.errors import TelemetryError
from telemetry.fields import Owner
from telemetry.records import WORKER_INFO
from telemetry.simulate import packets
from telemetry.simulate.fleet import Fleet, Pace
from telemetry.simulate.light_agent import CHANGED_FIELDS, Course, LightAgent, LightSpool
from telemetry.spooling import MOST_ROWS, MemorySpool, Row
from telemetry.stores.reading import open_reader
from telemetry.topics import AgentKey, Topics
from telemetry.wire import Outgoing, decode_change, digest, without_epoch
from tests.conftest import StartPart
from tests.parts import Broker, Listener, Process, wait_for

MINER, TOPICS, EPOCH = "f01234", Topics(), 1_763_900_000_000
INTERVALS = Intervals(acknowledge=0.5, heartbeat=1.0, full=3.0)


def _agent(offset: int = 7) -> LightAgent:
    return LightAgent(
        AgentKey(MINER, "seal00001"), course=Course(0), offset=offset, topics=TOPICS, intervals=INTERVALS,
        aggregators=("main",), dice=Random(0), process="p", now=0.0, time=EPOCH,
    )  # fmt: skip


def _online(agent: LightAgent) -> list[Outgoing]:
    agent.publisher.connected("s", 0.0)
    return agent.work(1.0, EPOCH)


# --- an agent ---


def test_a_change_has_five_fields_each_of_which_is_new() -> None:
    agent = _agent()
    _online(agent)
    held = agent.values
    for number in range(2000):
        change = decode_change(agent.change(1.0, EPOCH + number))
        assert len(change.values) == CHANGED_FIELDS
        assert all(held[name] != value for name, value in change.values.items())
        held |= change.values
        assert held == agent.values
        admitted = Admission(WORKER_INFO, Owner.HARDWARE).admit(change.values)
        assert (admitted.values, admitted.unknown, admitted.refused) == (change.values, (), ())


def test_a_full_report_carries_what_the_changes_have_said() -> None:
    agent = _agent()
    first = decode_change(_online(agent)[1].payload)
    assert first.full
    assert first.first
    assert first.values.keys() == WORKER_INFO.owned_by(Owner.HARDWARE).keys()
    for _ in range(3):
        agent.change(2.0, EPOCH + 5)
    [full] = (decode_change(one.payload) for one in agent.work(5.0, EPOCH + 9) if not one.topic.endswith("backlog"))
    assert full.full
    assert full.values == agent.values
    assert full.seq == 5


def test_what_is_sent_again_is_what_was_sent() -> None:
    agent = _agent()
    sent = [decode_change(_online(agent)[1].payload)]
    sent += [decode_change(agent.change(1.0, EPOCH + number)) for number in range(120)]
    agent.spool.delete(EPOCH, 30)
    batch = agent.spool.read(0, 10_000)
    again = [decode_change(b'{"_epoch":%d,%b' % (row.epoch, row.kept)) for row in batch]
    assert again == sent[30 : 30 + MOST_ROWS]


@pytest.mark.parametrize("seed", range(50))
def test_a_light_spool_does_what_one_of_rows_does(seed: int) -> None:
    dice, course = Random(seed), Course(0)
    light, rows = LightSpool(EPOCH, "t", course, 3), MemorySpool(EPOCH)
    for _ in range(200):
        match dice.randrange(6):
            case 0 | 1 | 2:
                seq, sampled = light.next, EPOCH + dice.randrange(1000)
                kept = without_epoch(light.keep_change(seq, sampled))
                rows.append([Row(rows.epoch, seq, "t", kept)])
            case 3:
                row = Row(light.epoch, light.next, "t", b'"_seq":%d}' % light.next)
                light.append([row])
                rows.append([row])
            case 4 if light.epochs():
                epoch = dice.choice(light.epochs())
                through = dice.randrange(light.next + 3)
                light.delete(epoch, through)
                rows.delete(epoch, through)
            case 5 if dice.random() < 0.2:
                light.begin(light.epoch + 10)
                rows.begin(rows.epoch + 10)
        assert (light.epoch, light.next, len(light)) == (rows.epoch, rows.next, len(rows.rows))
        assert list(light.epochs()) == list(rows.epochs())
        assert [light.oldest(epoch) for epoch in rows.epochs()] == [rows.oldest(epoch) for epoch in rows.epochs()]
        after = dice.randrange(light.next + 1)
        below = after + dice.randrange(light.next + 2)
        assert light.read(after, below) == rows.read(after, below)


def test_a_packet_to_a_prepared_topic_is_the_same_as_any() -> None:
    for size in (0, 1, 120, 126, 127, 128, 20_000):
        message = Outgoing(topic="miners/f01234/workers/ä", payload=b"x" * size)
        prepared = packets.publish_to(packets.text(message.topic), 513, message.payload)
        assert prepared == packets.publish(513, message)


def test_pubacks_are_counted_up_to_the_first_other_packet() -> None:
    other = packets.publish(1, Outgoing(topic="t", payload=b"\x40\x02\x40\x02"))
    received = bytearray(packets.puback(0x4002) * 3 + other + packets.puback(9) + b"\x40\x02")
    assert packets.take_pubacks(received) == 3
    assert packets.take_pubacks(received) == 0
    assert [packet.kind for packet in packets.take_packets(received)] == [packets.PUBLISH, packets.PUBACK]
    assert received == b"\x40\x02"


def test_a_pace_gives_its_rate_and_makes_up_for_a_second_at_most() -> None:
    pace = Pace(70.0, 0.0)
    assert sum(pace.take(tick / 100) for tick in range(1, 201)) == 140
    assert pace.take(60.0) == 70


# --- a fleet ---


class Running:
    """A fleet beside a real aggregator."""

    def __init__(self, broker: Broker, aggregator: Process, database: Path, *, hosts: int, seed: int = 0) -> None:
        self.aggregator, self.database = aggregator, database
        address = ("127.0.0.1", broker.port)
        self.fleet = Fleet(address, miner=MINER, hosts=hosts, intervals=INTERVALS, topics=TOPICS, seed=seed)

    def until(self, condition: Callable[[], bool], what: str, *, rate: float = 0.0, seconds: float = 30.0) -> None:
        """Serve the fleet, which writes at a rate, until a condition holds."""
        pace, deadline = Pace(rate, time.monotonic()), time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.fleet.written} written, {self.fleet.acknowledged} acked"
            self.fleet.write(pace.take(time.monotonic()))
            self.fleet.serve()
            time.sleep(0.005)

    def all_online(self) -> bool:
        return self.fleet.online == len(self.fleet.agents)

    def query(self, query: str) -> Any:
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as connection:
            return connection.execute(query).fetchone()

    def settle(self) -> None:
        """Wait until all that is written now is acknowledged; heartbeats go on."""
        written = {agent.key: agent.publisher.position.seq for agent in self.fleet.agents}

        def all_acknowledged() -> bool:
            oldest = ((agent.key, agent.spool.oldest(agent.spool.epoch)) for agent in self.fleet.agents)
            return all(seq is None or seq > written[key] for key, seq in oldest)

        self.until(all_acknowledged, "all acknowledged")

    def require_equal(self) -> None:
        """The mirror holds what the fleet states, the history each message that it wrote, once."""
        written = {agent.key: agent.publisher.position.seq for agent in self.fleet.agents}
        self.settle()
        with open_reader(self.database) as reader:
            records, agents = reader.records(), reader.agents()
        for agent in self.fleet.agents:
            mirrored = MirroredRecord(agent.key.record, records[agent.key.record])
            held = {n: one.value for n, one in mirrored.held(Owner.HARDWARE).items() if one.value is not None}
            assert digest(WORKER_INFO, held) == digest(WORKER_INFO, agent.values), agent.key
            assert (agents[agent.key].log.position or 0) >= written[agent.key]
            assert agents[agent.key].lost == 0
        assert self.query("SELECT count(*) FROM history WHERE full = 0") == (self.fleet.changes,)
        distinct = "SELECT count(*) - count(DISTINCT stream || ' ' || epoch || ' ' || seq) FROM history"
        assert self.query(distinct) == (0,)
        assert self.query("SELECT count(*) FROM events WHERE event = 'defect'") == (0,)
        assert self.query("SELECT count(*) FROM rejected") == (0,)


@pytest.fixture
def running(broker: Broker, data: Path, start: StartPart) -> Iterator[Running]:
    options = ("--broker", broker.url, "--data", str(data), "--config", str(data / "fast.toml"))
    aggregator = start("aggregator", *options)
    wait_for(lambda: "connected as" in aggregator.text, seconds=15, what="the aggregator")
    one = Running(broker, aggregator, data / "telemetry.db", hosts=150)
    yield one
    one.fleet.close()


def test_the_mirror_equals_a_light_fleet_which_is_asked_for_nothing(
    running: Running, listen: Callable[..., Listener]
) -> None:
    health = listen(TOPICS.aggregator_health("main"))
    running.until(running.all_online, "all online")
    began = time.monotonic()
    running.until(lambda: time.monotonic() > began + 4, "four seconds", rate=1500)  # full reports are among them
    assert running.fleet.changes > 1000
    running.require_equal()
    told = len(health.messages)
    running.until(lambda: len(health.messages) > told, "health")
    counts = orjson.loads(health.messages[-1].payload)
    assert (counts["agentsUnmended"], counts["lost"], counts["defects"], counts["requests"]) == (0, 0, 0, 0)
    assert counts["agentsOnline"] == 150


def test_a_light_fleet_outlives_a_broker_that_is_killed(running: Running, broker: Broker) -> None:
    running.until(running.all_online, "all online")
    running.until(lambda: running.fleet.changes >= 1000, "changes", rate=2000)
    broker.kill()
    before = running.fleet.changes
    running.until(lambda: running.fleet.changes >= before + 500, "changes without a broker", rate=2000)
    broker.start()
    running.until(running.all_online, "all online again", rate=500)
    running.require_equal()


def test_a_light_fleet_that_begins_again_goes_on_in_a_higher_log(running: Running, broker: Broker, data: Path) -> None:
    running.until(running.all_online, "all online")
    running.until(lambda: running.fleet.changes >= 500, "changes", rate=2000)
    running.require_equal()
    running.fleet.stop()
    second = Running(broker, running.aggregator, data / "telemetry.db", hosts=150, seed=1)
    second.until(second.all_online, "all online")
    second.settle()
    with open_reader(second.database) as reader:
        agents = reader.agents()
    for agent in second.fleet.agents:
        assert agents[agent.key].log.epoch == agent.spool.epoch
        assert agents[agent.key].lost == 0
    second.fleet.stop()


def test_a_second_light_fleet_of_the_same_hosts_is_told_from_the_first(running: Running, broker: Broker) -> None:
    running.until(running.all_online, "all online")
    second = Running(broker, running.aggregator, running.database, hosts=1)
    with contextlib.closing(second.fleet):
        second.until(second.all_online, "online")
        with pytest.raises(TelemetryError, match="another agent of this name"):
            running.until(lambda: False, "told", seconds=10)


def test_light_agents_say_goodbye(running: Running, listen: Callable[..., Listener]) -> None:
    presences = listen(f"miners/{MINER}/workers/+/presence")
    running.until(running.all_online, "all online")
    running.fleet.stop()

    def stopped() -> bool:
        said = [json.loads(one.payload)["state"] for one in presences.messages]
        return said.count("stopped") == 150

    wait_for(stopped, seconds=10, what="all stopped")
