"""The aggregator's loop: gather a batch, let the core work on it, commit, acknowledge, publish."""

import logging
import queue
import time

from telemetry import __version__, mqtt
from telemetry.aggregator.core import Core
from telemetry.config import Intervals, Settings
from telemetry.errors import StoreBusyError
from telemetry.stores import Batch, Store
from telemetry.topics import Topics
from telemetry.wire import Outgoing, Presence, PresenceState, encode_health, encode_presence

_log = logging.getLogger(__name__)

LARGEST_BATCH = 3000
"""Messages a transaction, and the rest of what was read with the last of them. The broker's in-flight window has room
for two, so that it goes on while one is committed."""

LINGER = 0.025
"""Seconds in which a batch is gathered after its first message."""

SMALLEST_WINDOW, QUIET = 10, 0.005
"""A batch of so many messages is complete after so many seconds without another one: a broker with a small window sends
no more before these are acknowledged. Mosquitto's own is 20."""

_FIRST_RETRY, _LAST_RETRY = 0.5, 10.0
_CLOSE_TIMEOUT = 2.0
_LONGEST_WITHOUT_UPKEEP = 1.0
_MOST_AT_ONCE = 1000


class Aggregator:
    """One aggregator: a store, a connection, and the core between them."""

    def __init__(self, *, name: str, topics: Topics, intervals: Intervals, store: Store) -> None:
        self.name, self._topics, self._store = name, topics, store
        self._core = Core(
            name=name, topics=topics, intervals=intervals, stored=store.load(), now=time.monotonic(), time=_now()
        )
        self._inbox: queue.SimpleQueue[mqtt.Event | Settings | None] = queue.SimpleQueue()
        self._health_due, self._health_interval = time.monotonic(), intervals.refresh
        self._maintained, self._has_upkeep = time.monotonic(), False
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

    def will(self, session: str) -> Outgoing:
        """The message by which the broker tells that this aggregator is lost."""
        return self._presence(PresenceState.LOST, session)

    def deliver(self, event: mqtt.Event) -> None:
        """Hand an event to the aggregator, from any thread."""
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
        self._core.mirror_all()
        self._settle(link, [])
        link.publish(self._presence(PresenceState.STOPPED, self._session))
        link.close(_CLOSE_TIMEOUT)

    def _gather(self, link: mqtt.Connection) -> list[mqtt.Messages]:
        """Let the core receive one batch; nothing, when time has come for it to do something."""
        batch: list[mqtt.Messages] = []
        size, timeout = 0, 0.0 if self._has_upkeep else self._core.next_due(time.monotonic())
        deadline: float | None = None
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
        if time.monotonic() >= self._health_due:
            payload = encode_health(self._core.health(), time=_now(), version=__version__)
            link.publish(Outgoing(topic=self._topics.health(self.name), payload=payload, retain=True))
            self._health_due = time.monotonic() + self._health_interval

    def _settle(self, link: mqtt.Connection, batch: list[mqtt.Messages]) -> None:
        """Commit; only then acknowledge what came, and publish what follows from it."""
        if not self._commit(self._core.take_batch()):
            return
        for came in batch:
            link.acknowledge(came)
        outgoing = self._core.take_outgoing()
        for start in range(0, len(outgoing), _MOST_AT_ONCE):
            link.publish_all(outgoing[start : start + _MOST_AT_ONCE])

    def _commit(self, batch: Batch) -> bool:
        """Write a batch, again and again where the store may recover; False when asked to stop before it did."""
        delay, told = _FIRST_RETRY, ""
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
