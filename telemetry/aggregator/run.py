"""The aggregator's loop: gather a batch, let the core work on it, commit, acknowledge, publish."""

import logging
import queue
import time
from collections.abc import Callable
from math import inf

from telemetry import __version__, mqtt
from telemetry.aggregator.core import Core
from telemetry.aggregator.health import Spread
from telemetry.config import Intervals, Settings
from telemetry.errors import StoreBusyError
from telemetry.health import AGGREGATOR_HEALTH, BROKER_HEALTH
from telemetry.processes import usage
from telemetry.stores import Batch, HealthRow, Store
from telemetry.topics import Topics
from telemetry.wire import HealthReport, Outgoing, Presence, PresenceState, encode_health, encode_presence

_log = logging.getLogger(__name__)

LARGEST_BATCH = 3000
"""Messages a transaction, and the rest of what was read with the last of them. The broker's in-flight window has room
for two, so that it goes on while one is committed."""

LINGER = 0.025
"""Seconds in which a batch is gathered: from its first message on, or from the end of the one before, if it came while
that was committed.
"""

SMALLEST_WINDOW, QUIET = 10, 0.005
"""A batch of so many messages is complete after so many seconds without another one: a broker with a small window sends
no more before these are acknowledged. Mosquitto's own is 20."""

_FIRST_HEALTH = 2.0
"""Seconds from the connection until we say how we are: by then there is something to say."""

_HEALTH_SPACING = 1.0
"""Seconds at least between two messages on how we are, when asked."""

_FIRST_RETRY, _LAST_RETRY = 0.5, 10.0
_CLOSE_TIMEOUT = 2.0
_LONGEST_WITHOUT_UPKEEP = 1.0
_MOST_AT_ONCE = 1000


class Aggregator:
    """One aggregator: a store, a connection, and the core between them.

    `find_broker` gives the pid of the broker's process, where that is on this machine.
    """

    def __init__(
        self,
        *,
        name: str,
        topics: Topics,
        intervals: Intervals,
        store: Store,
        rate: float = inf,
        find_broker: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.name, self._topics, self._store = name, topics, store
        self._core = Core(
            name=name,
            topics=topics,
            intervals=intervals,
            stored=store.load(),
            now=time.monotonic(),
            time=_now(),
            rate=rate,
        )
        self._inbox: queue.SimpleQueue[mqtt.Event | Settings | None] = queue.SimpleQueue()
        self._find_broker, self._began = find_broker, time.monotonic()
        self._health_interval = intervals.refresh
        self._health_told, self._health_due = self._began, self._began + self._health_interval
        self._broker_due = self._began
        self._commits, self._lags = Spread("commit"), Spread("lag")
        # Written by the network's thread alone.
        self._delivered = 0
        self._settled = self._most_waiting = 0
        self._connections = self._committed = self._committed_batches = 0
        self._gathered = self._maintained = time.monotonic()
        self._has_upkeep = False
        self._stopping = False
        self._session = self._outage = ""

    @property
    def client_id(self) -> str:
        """The MQTT client id, to which the broker's queue belongs."""
        return f"telemetry.aggregator.{self.name}"

    @property
    def filters(self) -> tuple[str, ...]:
        """What the aggregator subscribes to."""
        return self._topics.ingested

    @property
    def unqueued(self) -> tuple[str, ...]:
        """What it subscribes to for the moment: the broker keeps none of it while it is away."""
        return self._topics.of_the_moment

    def will(self, session: str) -> Outgoing:
        """The message by which the broker tells that this aggregator is lost."""
        return self._presence(PresenceState.LOST, session)

    def deliver(self, event: mqtt.Event) -> None:
        """Hand an event to the aggregator, from the thread of its connection."""
        if isinstance(event, mqtt.Messages):
            self._delivered += len(event.messages)
        self._inbox.put(event)

    def retune(self, settings: Settings) -> None:
        """Go by the intervals of other settings from now on; from any thread."""
        self._inbox.put(settings)

    def stop(self) -> None:
        """End `run`; safe in a signal handler."""
        self._stopping = True
        self._inbox.put(None)

    def run(self, link: mqtt.Connection) -> None:
        """Mirror what comes until stopped."""
        link.start()
        while not self._stopping:
            batch = self._gather(link)
            self._core.tick(now=time.monotonic(), time=_now())
            self._settle(link, batch)
            self._maintain()
            self._tell_health(link)
            self._tell_broker(link)
        self._core.mirror_all()
        self._settle(link, [])
        link.publish(self._presence(PresenceState.STOPPED, self._session))
        link.close(_CLOSE_TIMEOUT)

    def _gather(self, link: mqtt.Connection) -> list[mqtt.Messages]:
        """Let the core receive one batch; nothing, when time has come for it to do something."""
        batch: list[mqtt.Messages] = []
        size, timeout = 0, 0.0 if self._has_upkeep else self._core.next_due(time.monotonic())
        deadline = None if self._inbox.empty() else self._gathered + LINGER
        while size < LARGEST_BATCH and not self._stopping:
            try:
                event = self._inbox.get(timeout=timeout)
            except queue.Empty:
                break
            deadline = deadline or time.monotonic() + LINGER
            match event:
                case mqtt.Messages():
                    self._core.receive_all(event.messages, now=time.monotonic(), time=_now())
                    batch.append(event)
                    size += len(event.messages)
                case mqtt.Connected():
                    self._connected(link, event.session)
                case mqtt.Disconnected():
                    self._disconnected(event.reason)
                case Settings():
                    self._go_by(event.intervals)
            left = max(0.0, deadline - time.monotonic())
            timeout = left if size < SMALLEST_WINDOW else min(QUIET, left)
        self._gathered = time.monotonic()
        return batch

    def _go_by(self, intervals: Intervals) -> None:
        now = time.monotonic()
        self._core.retune(intervals, now)
        self._health_interval = intervals.refresh
        self._health_due = min(self._health_due, now + intervals.refresh)

    def _maintain(self) -> None:
        """Let the store do some upkeep, when nothing waits, or for a second nothing was done."""
        now = time.monotonic()
        if self._inbox.empty() or now >= self._maintained + _LONGEST_WITHOUT_UPKEEP:
            self._maintained = now
            self._has_upkeep = self._store.maintain(_now())

    def _tell_health(self, link: mqtt.Connection) -> None:
        now = time.monotonic()
        is_asked = self._core.is_asked_how_it_is and now >= self._health_told + _HEALTH_SPACING
        if now < self._health_due and not is_asked:
            return
        self._core.is_asked_how_it_is = False
        self._health_told, self._health_due = now, now + self._health_interval
        metrics = {**self._metrics(now), **usage(), **self._core.metrics()}
        report = HealthReport(_now(), __version__, metrics)
        self._tell(link, self._topics.aggregator_health(self.name), report, kind=AGGREGATOR_HEALTH.name, name=self.name)

    def _tell_broker(self, link: mqtt.Connection) -> None:
        now, broker = time.monotonic(), self._core.broker
        if now >= self._broker_due and broker.is_known and not self._outage:
            self._broker_due = now + self._health_interval
            process = self._find_broker()
            used = {} if process is None else usage(process)
            report = HealthReport(_now(), broker.version, {**used, **broker.metrics()})
            self._tell(link, self._topics.broker_health, report, kind=BROKER_HEALTH.name, name="")

    def _tell(self, link: mqtt.Connection, topic: str, report: HealthReport, *, kind: str, name: str) -> None:
        link.publish(Outgoing(topic=topic, payload=encode_health(report), retain=True))
        self._core.keep(HealthRow(kind, name, *report, received=report.time))

    def _metrics(self, now: float) -> dict[str, float]:
        """What is counted here, since the start or since the last call."""
        most, self._most_waiting = self._most_waiting, 0
        return {
            "uptimeSeconds": round(now - self._began, 1),
            "connections": self._connections,
            "committed": self._committed,
            "commits": self._committed_batches,
            **self._commits.take(),
            **self._lags.take(),
            "queueMessages": self._waiting,
            "queueMaxMessages": most,
            "databaseBytes": self._store.size(),
        }

    @property
    def _waiting(self) -> int:
        return self._delivered - self._settled

    def _settle(self, link: mqtt.Connection, batch: list[mqtt.Messages]) -> None:
        """Commit; only then acknowledge what came, and publish what follows from it."""
        self._most_waiting = max(self._most_waiting, self._waiting)
        written = self._core.take_batch()
        if not self._commit(written):
            return
        self._committed = self._core.counts["messages"]
        for came in batch:
            link.acknowledge(came)
            self._settled += len(came.messages)
        if (first := self._core.take_first_sampled()) is not None:
            self._lags.add(max(0, _now() - first) / 1000)
        outgoing = self._core.take_outgoing()
        for start in range(0, len(outgoing), _MOST_AT_ONCE):
            link.publish_all(outgoing[start : start + _MOST_AT_ONCE])

    def _commit(self, batch: Batch) -> bool:
        """Write a batch, again and again where the store may recover; False when asked to stop before it did."""
        delay, told, began = _FIRST_RETRY, "", time.monotonic()
        while True:
            try:
                self._store.commit(batch)
            except StoreBusyError as error:
                if str(error) != told:
                    told = str(error)
                    _log.error("%s; nothing is acknowledged until it can be written", told)  # one line
            else:
                if told:
                    _log.warning("the database can be written again")
                if not batch.is_empty:
                    self._committed_batches += 1
                    self._commits.add(time.monotonic() - began)
                return True
            if not self._wait(delay):
                return False
            delay = min(2 * delay, _LAST_RETRY)

    def _wait(self, delay: float) -> bool:
        """Wait; False when asked to stop meanwhile."""
        deadline = time.monotonic() + delay
        while not self._stopping and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self._stopping

    def _connected(self, link: mqtt.Connection, session: str) -> None:
        self._session, self._outage = session, ""
        self._connections += 1
        self._health_due = min(self._health_due, time.monotonic() + _FIRST_HEALTH)
        link.publish(self._presence(PresenceState.ONLINE, session))
        self._core.connected(time.monotonic())
        _log.info("connected as %s", self.client_id)

    def _disconnected(self, reason: str) -> None:
        if reason != self._outage:
            _log.warning("not connected: %s; trying again", reason)
        self._outage = reason

    def _presence(self, state: PresenceState, session: str) -> Outgoing:
        presence = Presence(state=state, session=session, time=_now(), version=__version__)
        return Outgoing(topic=self._topics.aggregator(self.name), payload=encode_presence(presence), retain=True)


def _now() -> int:
    return time.time_ns() // 1_000_000
