"""A fleet of any size in one thread: light agents that share a few connections, and say what a real fleet says.

Only the wills are missing, of which a connection has but one. What is not acknowledged the agents keep, and send again
when asked, as every agent does.
"""

import heapq
import itertools
import logging
import secrets
import selectors
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from telemetry.config import Intervals
from telemetry.errors import TelemetryError, WireError
from telemetry.publish import STALL
from telemetry.simulate import packets
from telemetry.simulate.light_agent import Course, LightAgent
from telemetry.simulate.lines import Line, LineError
from telemetry.topics import AgentKey, Topics
from telemetry.wire import Outgoing

MOST_UNACKNOWLEDGED = 4_000_000
"""Messages that a fleet keeps; with so many it writes no further ones until some are acknowledged."""

_log = logging.getLogger(__name__)

_AGENTS_A_SUBSCRIPTION = 100
_COMING_A_SECOND = 2500
"""Agents: a real fleet, too, spreads its connect routines."""

_MOST_WAITING = 20_000
"""Messages for one connection: a broker that is busy is handed no more."""

_RETRY = 3.0
_GOODBYE = 4.0


@dataclass(eq=False, slots=True)
class _Connection:
    """A connection that is made again and again, its agents, and those of them that wait for a SUBACK, by mid."""

    name: str
    members: list["_Member"] = field(default_factory=list)
    awaited: dict[int, Sequence["_Member"]] = field(default_factory=dict)
    line: Line | None = None
    tries: int = 0
    retry_at: float = 0.0


@dataclass(eq=False, slots=True)
class _Member:
    """An agent, its topic as packets hold it, and its connection."""

    agent: LightAgent
    topic: bytes
    connection: _Connection
    due: float = float("inf")


class Pace:
    """How many changes are due at a rate a second. What a second could not take is not made up for."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate, self._since, self._owed = rate, now, 0.0

    def take(self, now: float) -> int:
        """How many are due since the last call."""
        self._owed += min(1.0, now - self._since) * self._rate
        self._since = now
        whole = int(self._owed)
        self._owed -= whole
        return whole


class Fleet:
    """So many hosts of one miner. `write` lets them state changes; `serve` does all else, some hundred times a second.

    It looks at its connections only then: who woke for each PUBACK would do nothing else.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        miner: str,
        hosts: int,
        intervals: Intervals,
        topics: Topics,
        aggregators: Sequence[str] = ("main",),
        connections: int = 4,
        seed: int = 0,
    ) -> None:
        self._address = address
        self._process = secrets.token_hex(8)
        self._dice = Random(seed)  # noqa: S311  # spreading load is no secret
        self._selector = selectors.DefaultSelector()
        self._connections = [_Connection(f"telemetry.fleet.{self._process}.{one}") for one in range(connections)]
        self._due: list[tuple[float, int, _Member]] = []
        self._order = itertools.count()
        self._members = {
            member.agent.key: member
            for member in self._make_members(Course(seed), miner, hosts, intervals, topics, aggregators)
        }
        self._topics, self._intervals = topics, intervals
        self._turns = itertools.cycle(self._members.values())
        self.written = self.changes = self.unacknowledged = 0
        self.outage: str | None = None

    def _make_members(
        self,
        course: Course,
        miner: str,
        hosts: int,
        intervals: Intervals,
        topics: Topics,
        aggregators: Sequence[str],
    ) -> Iterator[_Member]:
        now, now_ms = time.monotonic(), _now_ms()
        for number in range(hosts):
            agent = LightAgent(
                AgentKey(miner, f"seal{number + 1:05}"),
                course=course,
                offset=self._dice.randrange(1 << 20),
                topics=topics,
                intervals=intervals,
                aggregators=aggregators,
                dice=self._dice,
                process=self._process,
                now=now,
                time=now_ms,
            )
            connection = self._connections[number % len(self._connections)]
            connection.members.append(_Member(agent, packets.text(agent.publisher.own.topic), connection))
            yield connection.members[-1]

    # --- what the one who runs it sees and does ---

    @property
    def agents(self) -> list[LightAgent]:
        """All agents."""
        return [member.agent for member in self._members.values()]

    @property
    def acknowledged(self) -> int:
        """How many of the messages that were written are acknowledged."""
        return self.written - self.unacknowledged

    @property
    def online(self) -> int:
        """How many agents are connected and have done their connect routine."""
        return sum(agent.publisher.is_online for agent in self.agents)

    @property
    def lag(self) -> float:
        """Seconds since the oldest change was written that is not acknowledged."""
        oldest = (agent.spool.oldest_time() for agent in self.agents)
        first = min((time_ms for time_ms in oldest if time_ms is not None), default=None)
        return 0.0 if first is None else max(0.0, (_now_ms() - first) / 1000)

    def write(self, count: int) -> int:
        """Let so many hosts, one after the other, state a change; how many did.

        Those that were not connected yet have nothing to say, and no one has while the broker or the aggregator is
        too far behind.
        """
        now, now_ms = time.monotonic(), _now_ms()
        room = min(MOST_UNACKNOWLEDGED - self.unacknowledged, self._room)
        written = 0
        for member in itertools.islice(self._turns, max(0, min(count, room))):
            agent = member.agent
            if agent.is_reporting:
                payload = agent.change(now, now_ms)
                written += 1
                if agent.publisher.is_online:
                    line = member.connection.line
                    assert line is not None
                    line.publish(member.topic, payload)
        self.changes += written
        self.written += written
        self.unacknowledged += written
        return written

    def serve(self) -> None:
        """Receive, do what is due, and send; returns at once. Raises TelemetryError where it cannot go on."""
        now = time.monotonic()
        for connection in self._connections:
            if connection.line is None and now >= connection.retry_at:
                self._connect(connection)
        for key, _ in self._selector.select(0):
            self._receive(key.data, now)
        self._do_what_is_due(now)
        self._send_all()

    def stop(self) -> None:
        """Let all agents say goodbye, and end the connections."""
        for member in self._members.values():
            member.agent.publisher.stop(now=time.monotonic(), time=_now_ms())
            self._publish(member, member.agent.publisher.take_outgoing())
        deadline = time.monotonic() + _GOODBYE
        while time.monotonic() < deadline and not all(line.is_settled for line in self._lines):
            self.serve()
            time.sleep(0.005)
        for line in self._lines:
            line.disconnect()
        self._send_all()
        self.close()

    def close(self) -> None:
        """End the connections without a word."""
        for line in self._lines:
            line.close()
        self._selector.close()

    @property
    def _lines(self) -> list[Line]:
        return [connection.line for connection in self._connections if connection.line is not None]

    @property
    def _room(self) -> int:
        return min((_MOST_WAITING - line.waiting for line in self._lines), default=_MOST_WAITING)

    # --- what agents do in time ---

    def _wake(self, member: _Member, at: float) -> None:
        if at < member.due:
            member.due = at
            heapq.heappush(self._due, (at, next(self._order), member))

    def _do_what_is_due(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            at, _, member = heapq.heappop(self._due)
            # What was superseded by an earlier time stays in the heap until its own.
            if at == member.due:
                member.due = float("inf")
                self._work(member, now)

    def _work(self, member: _Member, now: float) -> None:
        agent = member.agent
        kept = len(agent.spool)
        self._publish(member, agent.work(now, _now_ms()))
        grown = len(agent.spool) - kept
        self.written += grown
        self.unacknowledged += grown
        due = agent.publisher.next_due()
        if due is not None and member.connection.line is not None:
            # Changes are written without a word to the agent, which has to see in time that none is acknowledged.
            self._wake(member, min(max(due, now + 0.01), now + STALL * self._intervals.acknowledge))

    def _publish(self, member: _Member, outgoing: Sequence[Outgoing]) -> None:
        line = member.connection.line
        if line is not None:
            for message in outgoing:
                line.publish_outgoing(message)

    # --- connections ---

    def _connect(self, connection: _Connection) -> None:
        connection.tries += 1
        try:
            connection.line = Line(self._address, connection.name)
        except OSError as error:
            self._retry(connection, error.strerror or str(error))
            return
        self._selector.register(connection.line.socket, selectors.EVENT_READ, connection)

    def _lose(self, connection: _Connection, reason: str) -> None:
        assert connection.line is not None
        self._selector.unregister(connection.line.socket)
        connection.line.close()
        connection.line = None
        connection.awaited.clear()
        for member in connection.members:
            member.agent.publisher.disconnected()
        self._retry(connection, reason)

    def _retry(self, connection: _Connection, reason: str) -> None:
        if reason != self.outage:
            _log.warning("not connected: %s; trying again", reason)
        self.outage = reason
        connection.retry_at = time.monotonic() + self._dice.uniform(0, _RETRY)

    def _send_all(self) -> None:
        for connection in self._connections:
            if connection.line is not None:
                try:
                    connection.line.send()
                except LineError as error:
                    self._lose(connection, str(error))

    def _receive(self, connection: _Connection, now: float) -> None:
        assert connection.line is not None
        try:
            for packet in connection.line.receive():
                self._take(connection, connection.line, packet, now)
        except LineError as error:
            self._lose(connection, str(error))

    def _take(self, connection: _Connection, line: Line, packet: packets.Packet, now: float) -> None:
        match packet.kind:
            case packets.CONNACK:
                if packet.body[1]:
                    raise LineError(f"refused with code {packet.body[1]}")
                self._subscribe(connection, line)
            case packets.SUBACK:
                if packets.REFUSED in packet.body[2:]:
                    raise LineError("may not subscribe")
                self._begin(connection, connection.awaited.pop(int.from_bytes(packet.body[:2], "big")), now)
            case packets.PUBLISH:
                message = packets.read_message(packet)
                line.acknowledge(message)
                self._hear(message, now)

    def _subscribe(self, connection: _Connection, line: Line) -> None:
        for start in range(0, len(connection.members), _AGENTS_A_SUBSCRIPTION):
            members = connection.members[start : start + _AGENTS_A_SUBSCRIPTION]
            filters = [one for member in members for one in member.agent.publisher.filters]
            connection.awaited[line.subscribe(filters)] = members

    def _begin(self, connection: _Connection, members: Sequence[_Member], now: float) -> None:
        self.outage = None
        spread = len(self._members) / _COMING_A_SECOND
        for member in members:
            publisher, not_before = member.agent.publisher, now + self._dice.uniform(0, spread)
            publisher.connected(f"{connection.name}.{connection.tries}", now, not_before=not_before)
            self._work(member, now)

    def _hear(self, message: packets.Message, now: float) -> None:
        address = self._topics.parse(message.topic)
        member = self._members.get(address.agent) if address is not None else None
        if member is None:
            return
        publisher, kept = member.agent.publisher, len(member.agent.spool)
        try:
            member.agent.receive(message.topic, message.payload, now, _now_ms())
        except WireError as error:
            _log.warning("%s: %s", message.topic, error)
        if publisher.rival is not None:
            raise TelemetryError(f"{member.agent.key}: another agent of this name is there; end that one first")
        self.unacknowledged -= kept - len(member.agent.spool)
        self._work(member, now)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
