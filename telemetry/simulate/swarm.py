"""Thousands of agents in one thread, each on a connection of its own: real publishers over plain sockets.

paho serves one connection a thread; here one selector serves all. What an agent says and when is the publisher's.
"""

import contextlib
import heapq
import itertools
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from random import Random

from telemetry.config import Intervals
from telemetry.fields import Owner
from telemetry.publish import Publisher
from telemetry.simulate import packets
from telemetry.spooling import MemorySpool
from telemetry.topics import AgentKey, Topics

FIRST_TRY = 3.0
"""Seconds within which an agent tries to connect again first."""

_CONNACK_TIMEOUT = 5.0
_KEEPALIVE = 300
_WINDOW = 20
_RECEIVED = 65_536


class SwarmAgent:
    """One agent: its publisher, and its connection while it has one."""

    def __init__(self, key: AgentKey, publisher: Publisher) -> None:
        self.key, self.publisher = key, publisher
        self.socket: socket.socket | None = None
        self.is_ready = False
        self.tries = 0
        self.deadline = 0.0
        self.received = bytearray()
        self.unsent = bytearray()
        self.waiting: deque[bytes] = deque()
        self.on_the_way = 0
        self.mids = itertools.cycle(range(1, 65_536))

    @property
    def is_settled(self) -> bool:
        """Whether all that it has written is acknowledged by the aggregator."""
        return self.is_ready and self.publisher.is_online and self.publisher.is_acknowledged


class Swarm:
    """Agents of one miner, each with one field that changes when it is told to."""

    def __init__(
        self, address: tuple[str, int], *, agents: int, intervals: Intervals, topics: Topics, seed: int = 0
    ) -> None:
        self._address, self._intervals, self._topics = address, intervals, topics
        self._dice = Random(seed)  # noqa: S311  # spreading load is no secret
        self._selector = selectors.DefaultSelector()
        self._due: list[tuple[float, int, SwarmAgent]] = []
        self._order = itertools.count()
        epoch = _now_ms()
        self.agents = [self._agent(number, epoch) for number in range(agents)]
        self.refused = 0

    def _agent(self, number: int, epoch: int) -> SwarmAgent:
        key = AgentKey("f01234", f"h{number:05}")
        publisher = Publisher(
            key,
            owner=Owner.HARDWARE,
            topics=self._topics,
            intervals=self._intervals,
            spool=MemorySpool(epoch),
            now=time.monotonic(),
            dice=self._dice,
            deadbands={"diskR": 0.0},
            process=str(key),
            since=epoch,
        )
        return SwarmAgent(key, publisher)

    # --- what the one who runs it does ---

    def start(self, within: float) -> None:
        """Let all connect, evenly within so many seconds."""
        for agent in self.agents:
            self._wake(agent, time.monotonic() + self._dice.uniform(0, within))

    def change(self, value: int, agents: Sequence[SwarmAgent] | None = None) -> None:
        """Let agents state a value."""
        now_ms = _now_ms()
        for agent in self.agents if agents is None else agents:
            agent.publisher.own.update({"diskR": value}, ("diskR",), now_ms)
            self._wake(agent, time.monotonic())

    def abort_all(self) -> None:
        """Break all connections at once, as a cut cable or a restarted switch does."""
        for agent in self.agents:
            if agent.socket is not None:
                agent.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._lose(agent)

    def run(self, seconds: float) -> None:
        """Serve all for a moment."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self._do_what_is_due(now)
            wait = min([end, *(due for due, _, _ in self._due[:1])]) - time.monotonic()
            for key, events in self._selector.select(max(0.0, wait)):
                agent: SwarmAgent = key.data
                if events & selectors.EVENT_WRITE:
                    self._send(agent)
                if events & selectors.EVENT_READ and agent.socket is not None:
                    self._receive(agent)

    @property
    def connected(self) -> int:
        """How many have a connection with its subscriptions."""
        return sum(agent.is_ready for agent in self.agents)

    @property
    def settled(self) -> int:
        """How many are connected, with all that they wrote acknowledged."""
        return sum(agent.is_settled for agent in self.agents)

    def close(self) -> None:
        """End all connections without a word."""
        for agent in self.agents:
            if agent.socket is not None:
                agent.socket.close()
        self._selector.close()

    # --- time ---

    def _wake(self, agent: SwarmAgent, at: float) -> None:
        heapq.heappush(self._due, (at, next(self._order), agent))

    def _do_what_is_due(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, _, agent = heapq.heappop(self._due)
            if agent.socket is None:
                if now >= agent.deadline:
                    self._connect(agent, now)
            elif not agent.is_ready:
                if now >= agent.deadline:
                    self._lose(agent)
            else:
                self._work(agent, now)

    def _work(self, agent: SwarmAgent, now: float) -> None:
        agent.publisher.tick(now=now, time=_now_ms())
        for message in agent.publisher.take_outgoing():
            agent.waiting.append(packets.publish(next(agent.mids), message))
        self._send(agent)
        due = agent.publisher.next_due()
        if due is not None:
            self._wake(agent, max(due, now + 0.01))

    # --- the connection ---

    def _connect(self, agent: SwarmAgent, now: float) -> None:
        end = socket.socket()
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BlockingIOError):
            end.connect(self._address)
        agent.socket, agent.is_ready, agent.on_the_way = end, False, 0
        agent.tries += 1
        will = agent.publisher.will(f"{agent.key}.{agent.tries}", _now_ms())
        agent.unsent += packets.connect(agent.key.client_id, will, _KEEPALIVE)
        agent.deadline = now + _CONNACK_TIMEOUT
        self._wake(agent, agent.deadline)
        self._selector.register(end, selectors.EVENT_READ | selectors.EVENT_WRITE, agent)

    def _lose(self, agent: SwarmAgent) -> None:
        """It is gone: try again, the first time soon, then ever later (2 * 2**n seconds, half a minute at most)."""
        assert agent.socket is not None
        if not agent.is_ready:
            self.refused += 1
        most = FIRST_TRY if agent.is_ready else min(30.0, 2.0 * 2.0 ** min(agent.tries, 8))
        agent.tries = 0 if agent.is_ready else agent.tries
        self._selector.unregister(agent.socket)
        agent.socket.close()
        agent.socket, agent.is_ready = None, False
        agent.received.clear()
        agent.unsent.clear()
        agent.waiting.clear()
        agent.publisher.disconnected()
        agent.deadline = time.monotonic() + self._dice.uniform(0, most)
        self._wake(agent, agent.deadline)

    def _send(self, agent: SwarmAgent) -> None:
        while agent.waiting and agent.on_the_way < _WINDOW:
            agent.unsent += agent.waiting.popleft()
            agent.on_the_way += 1
        if agent.socket is None:
            return
        try:
            while agent.unsent:
                del agent.unsent[: agent.socket.send(agent.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._lose(agent)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if agent.unsent else 0)
        if self._selector.get_key(agent.socket).events != wanted:
            self._selector.modify(agent.socket, wanted, agent)

    def _receive(self, agent: SwarmAgent) -> None:
        assert agent.socket is not None
        try:
            data = agent.socket.recv(_RECEIVED)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(agent)
            return
        agent.received += data
        for packet in packets.take_packets(agent.received):
            self._take(agent, packet)
        self._send(agent)

    def _take(self, agent: SwarmAgent, packet: packets.Packet) -> None:
        now = time.monotonic()
        match packet.kind:
            case packets.CONNACK:
                agent.unsent += packets.subscribe(next(agent.mids), agent.publisher.filters)
            case packets.SUBACK:
                agent.is_ready = True
                agent.publisher.connected(f"{agent.key}.{agent.tries}", now)
                due = agent.publisher.next_due()
                self._wake(agent, now if due is None else due)
            case packets.PUBACK:
                agent.on_the_way -= 1
            case packets.PUBLISH:
                message = packets.read_message(packet)
                if message.mid:
                    agent.unsent += packets.puback(message.mid)
                agent.publisher.receive(message.topic, message.payload, now=now, time=_now_ms())
                self._wake(agent, now)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
