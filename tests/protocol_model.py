"""Agents, a broker that loses, repeats and resends, aggregators and subscribers, in one process and without a clock.

The ends are the real ones: `Publisher`, `Core`, `RecordCopy`. What stands between them is made up, and so is time.
"""

import copy
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from random import Random

from telemetry.aggregator.core import Core
from telemetry.config import Intervals
from telemetry.fields import Owner, Value
from telemetry.follow import RecordCopy
from telemetry.mqtt.packets import Message
from telemetry.publish import Publisher
from telemetry.records import WORKER_INFO
from telemetry.spooling import MemorySpool, Row
from telemetry.stores import Stored
from telemetry.topics import AgentKey, Channel, RecordKey, Topics
from telemetry.wire import (
    Outgoing,
    Position,
    decode_change,
    decode_snapshot,
    encode_resubscribe,
    with_epoch,
)
from tests.stored import committed

TOPICS = Topics()
MINER = "f01234"
FIELDS = ("diskR", "diskW", "netRx")
INTERVALS = Intervals(push=1, heartbeat=60, full=900, snapshot=5, refresh=60, acknowledge=60, stale=150, lost=15)


@dataclass
class Link:
    """What is on its way from the broker to one end: a queue that outlives the connection where the session does."""

    queue: deque[tuple[Outgoing, bool]] = field(default_factory=deque)
    is_up: bool = False


class ModelAgent:
    """An agent: a publisher whose process may end, a spool that stays, a clock that may be wrong."""

    def __init__(self, world: "World", host: str) -> None:
        self.world, self.key = world, AgentKey(MINER, host)
        self.values: dict[str, Value] = {"diskR": 0, "diskW": 0, "netRx": 0}
        self.clock_offset = 0
        self.last_epoch = 0
        self.spool = self._new_spool()
        self.written: dict[Position, Row] = {}
        self.runs = 0
        self.inbox = Link()
        self.sent: deque[Outgoing] = deque(maxlen=8)
        self.publisher: Publisher | None = None
        self.start()

    @property
    def time(self) -> int:
        return self.world.time + self.clock_offset

    def _new_spool(self) -> MemorySpool:
        self.last_epoch = max(self.time, self.last_epoch + 1)
        return MemorySpool(self.last_epoch, most_bytes=self.world.spool_bytes)

    def start(self) -> None:
        self.runs += 1
        spool = _Recorded(self)
        self.publisher = Publisher(
            self.key, owner=Owner.HARDWARE, topics=TOPICS, intervals=INTERVALS, spool=spool, now=self.world.now,
            dice=self.world.dice, aggregators=self.world.counted, process=f"{self.key.agent}.{self.runs}",
            since=self.time, deadbands=dict.fromkeys(FIELDS, 0.0),
        )  # fmt: skip
        self.sample()

    def sample(self) -> None:
        if self.publisher is not None:
            self.publisher.own.update(self.values, FIELDS, self.time)

    def kill(self) -> None:
        self.publisher = None
        self.disconnect()

    def lose_spool(self) -> None:
        self.kill()
        self.spool = self._new_spool()
        self.start()

    def connect(self) -> None:
        if self.publisher is None or self.inbox.is_up or not self.world.broker_is_up:
            return
        self.inbox = Link(is_up=True)
        self.publisher.connected(f"s{self.runs}", self.world.now)
        for topic, message in self.world.retained.items():
            if topic.startswith(f"telemetry/agents/{MINER}/{self.key.agent}/ack/"):
                self.inbox.queue.append((message, True))

    def disconnect(self) -> None:
        if self.inbox.is_up and self.publisher is not None:
            self.publisher.disconnected()
        self.inbox = Link()
        # What a client resends after a broken connection comes late, and again.
        if self.world.dice.random() < self.world.resend:
            for message in self.sent:
                self.world.deliver(message)

    def tick(self) -> None:
        if self.publisher is None:
            return
        while self.inbox.queue:
            message, _ = self.inbox.queue.popleft()
            self.publisher.receive(message.topic, message.payload, now=self.world.now, time=self.time)
        self.publisher.tick(now=self.world.now, time=self.time)
        outgoing = self.publisher.take_outgoing()
        if self.inbox.is_up:
            for message in outgoing:
                self.sent.append(message)
                self.world.publish(message)


class _Recorded:
    """An agent's spool, which also tells the world what was written."""

    def __init__(self, agent: ModelAgent) -> None:
        self._agent, self._spool = agent, agent.spool

    def __getattr__(self, name: str) -> object:
        return getattr(self._spool, name)

    @property
    def epoch(self) -> int:
        return self._spool.epoch

    @property
    def next(self) -> int:
        return self._spool.next

    @property
    def lost(self) -> int:
        return self._spool.lost

    def begin(self, epoch: int) -> None:
        self._agent.last_epoch = max(self._agent.last_epoch, epoch)
        self._spool.begin(epoch)

    def append(self, rows: Sequence[Row]) -> bool:
        for row in rows:
            self._agent.written[Position(row.epoch, row.seq)] = row
        return self._spool.append(rows)

    def delete(self, epoch: int, through: int) -> None:
        self._spool.delete(epoch, through)

    def epochs(self) -> list[int]:
        return list(self._spool.epochs())

    def oldest(self, epoch: int) -> int | None:
        return self._spool.oldest(epoch)

    def read(self, after: int, below: int) -> list[Row]:
        return self._spool.read(after, below)


class ModelAggregator:
    """An aggregator: a core whose process may end, a database that stays, or goes back."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        self.stored = Stored(records={}, agents={})
        self.history: list[tuple[AgentKey, Position]] = []
        self.backup = self._saved()
        self.link = Link()
        self.core: Core | None = None
        self.start()

    def start(self) -> None:
        self.core = Core(
            name=self.name, topics=TOPICS, intervals=INTERVALS, stored=self.stored, now=self.world.now,
            time=self.world.time, rate=self.world.rate, written_at_once=self.world.written_at_once,
        )  # fmt: skip
        self.link.is_up = True
        self.core.connected(self.world.now)

    def kill(self) -> None:
        """What it had not committed comes again: it was not acknowledged to the broker."""
        self.core = None
        self.link.is_up = False

    def save(self) -> None:
        self.backup = self._saved()

    def restore(self) -> None:
        self.kill()
        self.stored, self.history = copy.deepcopy(self.backup)
        self.start()

    def lose_database(self) -> None:
        self.kill()
        self.stored, self.history = Stored(records={}, agents={}), []
        self.start()

    def _saved(self) -> tuple[Stored, list[tuple[AgentKey, Position]]]:
        return copy.deepcopy((self.stored, self.history))

    def tick(self, *, dies: bool = False) -> None:
        """Take in what has come; with `dies` the process ends before the commit."""
        if self.core is None:
            return
        taken = list(self.link.queue)
        came = [Message(message.topic, message.payload, retained, b"") for message, retained in taken]
        self.core.receive_all(came, now=self.world.now, time=self.world.time)
        self.core.tick(now=self.world.now, time=self.world.time)
        if dies:
            self.kill()
            return
        self._commit()
        for _ in taken:
            self.link.queue.popleft()
        for outgoing in self.core.take_outgoing():
            self.world.publish(outgoing)

    def _commit(self) -> None:
        assert self.core is not None
        batch = self.core.take_batch()
        self.stored = committed(self.stored, batch)
        for row in batch.history:
            host = row.record.hostName
            assert host is not None
            self.history.append((AgentKey(row.record.minerId, host), row.position))
        assert [row.reason for row in batch.rejected] == []


class ModelSubscriber:
    """A subscriber of one miner, which asks where something is missing."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.link = Link(is_up=True)
        self.copies: dict[RecordKey, RecordCopy] = {}
        self._asked = world.now
        for topic, message in world.retained.items():
            if topic.startswith(f"miners/{MINER}/"):
                self.link.queue.append((message, True))

    def tick(self) -> None:
        while self.link.queue:
            message, _ = self.link.queue.popleft()
            self._take(message)
        missing = any(not one.is_whole for one in self.copies.values())
        if missing and self.world.now >= self._asked + 5:
            self._asked = self.world.now
            self.world.publish(Outgoing(topic=TOPICS.resubscribe(MINER), payload=encode_resubscribe()))

    def _take(self, message: Outgoing) -> None:
        address = TOPICS.parse(message.topic)
        if address is None or address.record.hostName is None:
            return
        held = self.copies.setdefault(address.record, RecordCopy(WORKER_INFO))
        before = dict(held.positions)
        if address.channel is Channel.SNAPSHOT and message.payload:
            held.apply_snapshot(decode_snapshot(message.payload))
        elif address.channel is Channel.CHANGE:
            assert address.owner is not None
            held.apply_change(address.owner, decode_change(message.payload))
        for owner, position in before.items():
            assert held.positions[owner] >= position, "a copy went back"


class World:
    """All of it, with a clock, and chances by which the broker does wrong."""

    def __init__(
        self, *, seed: int, agents: int = 2, aggregators: tuple[str, ...] = ("main",), spool_bytes: int = 1 << 20,
        rate: float = inf,
    ) -> None:  # fmt: skip
        self.dice = Random(seed)
        self.rate = rate
        # As where many records change: what is stored of them is behind the history.
        self.written_at_once = self.dice.choice([0, 500])
        self.now, self.time = 1000.0, 1_700_000_000_000
        self.drop = self.repeat = self.resend = 0.0
        self.broker_is_up = True
        self.spool_bytes = spool_bytes
        self.counted = aggregators
        self.retained: dict[str, Outgoing] = {}
        self.counts: Counter[Channel | None] = Counter()
        self.aggregators = [ModelAggregator(self, name) for name in aggregators]
        self.agents = [ModelAgent(self, f"h{number}") for number in range(agents)]
        self.subscribers = [ModelSubscriber(self)]

    # --- the broker ---

    def publish(self, message: Outgoing) -> None:
        """What the broker does with a message: it may lose it, or take it twice."""
        if self.broker_is_up:
            self.deliver(message)
            if self.dice.random() < self.repeat:
                self.deliver(message)

    def deliver(self, message: Outgoing) -> None:
        address = TOPICS.parse(message.topic)
        self.counts[address.channel if address else None] += 1
        if message.retain:
            self.retained[message.topic] = message
        for link, wants in self._links():
            if wants(message.topic) and self.dice.random() >= self.drop:
                link.queue.append((message, False))

    def _links(self) -> list[tuple[Link, Callable[[str], bool]]]:
        found: list[tuple[Link, Callable[[str], bool]]] = [(one.link, _is_ingested) for one in self.aggregators]
        found += [(one.link, _is_followed) for one in self.subscribers if one.link.is_up]
        for agent in self.agents:
            if agent.inbox.is_up:
                name = agent.key.agent
                found.append((agent.inbox, lambda topic, name=name: _is_for(topic, name)))  # type: ignore[misc]
        return found

    def kill_broker(self, *, keeps_retained: bool) -> None:
        """What it had for anybody is gone, and with it what it retained, if it was not saved."""
        self.broker_is_up = False
        for agent in self.agents:
            agent.disconnect()
        for aggregator in self.aggregators:
            aggregator.link.queue.clear()
        for subscriber in self.subscribers:
            subscriber.link.queue.clear()
        if not keeps_retained:
            self.retained.clear()

    def start_broker(self) -> None:
        if self.broker_is_up:
            return
        self.broker_is_up = True
        for aggregator in self.aggregators:
            if aggregator.core is not None:
                aggregator.core.connected(self.now)
        # A subscriber whose session is gone begins anew.
        self.subscribers = [ModelSubscriber(self) for _ in self.subscribers]

    # --- time ---

    def step(self, seconds: float) -> None:
        self.now += seconds
        self.time += int(seconds * 1000)
        for agent in self.agents:
            if self.dice.random() < 0.9:
                agent.connect()
            agent.tick()
        for aggregator in self.aggregators:
            aggregator.tick()
        for subscriber in self.subscribers:
            subscriber.tick()

    def settle(self, seconds: float = 7200) -> None:
        """Let nothing go wrong any more, for so long."""
        self.drop = self.repeat = self.resend = 0.0
        self.start_broker()
        for agent in self.agents:
            if agent.publisher is None:
                agent.start()
        for aggregator in self.aggregators:
            if aggregator.core is None:
                aggregator.start()
        end = self.now + seconds
        while self.now < end:
            self.step(1.0 if self.now > end - 60 else 7.0)


def _is_ingested(topic: str) -> bool:
    address = TOPICS.parse(topic)
    wanted = {Channel.CHANGE, Channel.PRESENCE, Channel.BACKLOG, Channel.RESUBSCRIBE}
    return address is not None and address.channel in wanted


def _is_followed(topic: str) -> bool:
    return topic.startswith(f"miners/{MINER}/")


def _is_for(topic: str, agent: str) -> bool:
    return topic.startswith(f"telemetry/agents/{MINER}/{agent}/") and not topic.endswith("/backlog")


def changes_of(rows: dict[Position, Row]) -> set[Position]:
    """The positions of the messages that say something."""
    said = set()
    for position, row in rows.items():
        change = decode_change(with_epoch(row.epoch, row.kept))
        if change.values or change.gone:
            said.add(position)
    return said
