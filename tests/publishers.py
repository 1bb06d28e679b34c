"""Many agents in one thread and on one connection: their publishers are the real ones, their spools are in memory."""

import queue
import time
from random import Random

from telemetry.config import Intervals
from telemetry.fields import Owner
from telemetry.mqtt import BrokerUrl, Connected, Connection, Disconnected, Event, Message, Messages
from telemetry.publish import Publisher
from telemetry.spooling import MemorySpool
from telemetry.topics import AgentKey, Topics

TOPICS = Topics()


class Publishers:
    """So many agents of a miner, each of which states one field."""

    def __init__(self, url: str, *, agents: int, intervals: Intervals, seed: int = 0) -> None:
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        dice, epoch = Random(seed), time.time_ns() // 1_000_000
        self.publishers = {
            key: Publisher(
                key, owner=Owner.HARDWARE, topics=TOPICS, intervals=intervals, spool=MemorySpool(epoch),
                now=time.monotonic(), dice=dice, deadbands={"diskR": 0.0}, process=str(key), since=epoch,
            )
            for key in (AgentKey("f01234", f"h{number:05}") for number in range(agents))
        }  # fmt: skip
        self.value = 0
        self._connection = Connection(
            BrokerUrl.parse(url),
            client_id="publishers",
            deliver=self._inbox.put,
            filters=("telemetry/agents/f01234/+/request", "telemetry/agents/f01234/+/ack/+"),
        )

    def start(self) -> None:
        self._connection.start()

    def change(self) -> None:
        """Let every agent state another value."""
        self.value += 1
        now_ms = time.time_ns() // 1_000_000
        for publisher in self.publishers.values():
            publisher.own.update({"diskR": self.value}, ("diskR",), now_ms)

    def work(self) -> None:
        """Do what is due for all, once."""
        now, now_ms = time.monotonic(), time.time_ns() // 1_000_000
        while True:
            try:
                self._take(self._inbox.get_nowait(), now, now_ms)
            except queue.Empty:
                break
        for publisher in self.publishers.values():
            publisher.tick(now=now, time=now_ms)
            for message in publisher.take_outgoing():
                self._connection.publish(message)

    @property
    def written(self) -> int:
        """How many messages all logs have."""
        return sum(publisher.position.seq for publisher in self.publishers.values())

    def close(self) -> None:
        self._connection.close()

    def _take(self, event: Event, now: float, now_ms: int) -> None:
        match event:
            case Connected():
                for publisher in self.publishers.values():
                    publisher.connected(event.session, now)
            case Disconnected():
                for publisher in self.publishers.values():
                    publisher.disconnected()
            case Messages():
                for message in event.messages:
                    self._receive(message, now, now_ms)

    def _receive(self, message: Message, now: float, now_ms: int) -> None:
        address = TOPICS.parse(message.topic)
        assert address is not None
        self.publishers[address.agent].receive(message.topic, message.payload, now=now, time=now_ms)
