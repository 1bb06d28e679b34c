"""One agent: takes in readings and the broker's events one by one, and publishes what has to be reported.

All state belongs to the thread that runs `Agent.run`; the others only put events into its inbox.
"""

import logging
import queue
import random
import time
from collections.abc import Mapping, Sequence

from telemetry import __version__, mqtt
from telemetry.agent.report import ProblemLog, Report
from telemetry.agent.sampler import SECOND_SAMPLE, Plan, Sampler, Samples
from telemetry.agent.state import EpochFile
from telemetry.config import Intervals
from telemetry.errors import WireError
from telemetry.fields import Deadband, Owner
from telemetry.follow import Publisher
from telemetry.topics import AgentKey, Channel, Topics
from telemetry.wire import (
    LARGEST_PAYLOAD,
    Backlog,
    Change,
    Presence,
    PresenceState,
    decode_ack,
    decode_presence,
    decode_request,
    encode_backlog,
    encode_change,
    encode_presence,
)

_log = logging.getLogger(__name__)

SETTLE = 0.25
"""Seconds from the subscription to the connect routine, in which retained acknowledgements come in."""

_ROUTINE_SPACING = 30.0
_LAST_EPOCH = 7_258_118_400_000  # 2200; what is beyond was never a clock, and leaves no room for a higher one
_CLOSE_TIMEOUT = 2.0


class Agent:
    """The agent of one host: one report, stated by its sources."""

    def __init__(
        self,
        key: AgentKey,
        *,
        owner: Owner,
        plans: Sequence[Plan],
        intervals: Intervals,
        deadbands: Mapping[str, float],
        topics: Topics,
        epochs: EpochFile,
    ) -> None:
        self.key, self._intervals, self._topics, self._epochs = key, intervals, topics, epochs
        record = key.record
        own = {name: Deadband(absolute=value) for name, value in deadbands.items()}
        self._report = Report(topics.change(record, owner), record.record.owned_by(owner), own)
        self._publisher = Publisher(epochs.begin(_now()))
        self._inbox: queue.SimpleQueue[mqtt.Event | Samples | None] = queue.SimpleQueue()
        self._sampler = Sampler(plans, self._inbox.put)
        self._stopping = False
        self._link: mqtt.Connection | None = None
        self._session = ""
        # Online once the connect routine was done: what is published before it would come ahead of the presence.
        self._online = False
        self._routine_due: float | None = None
        self._asked = -_ROUTINE_SPACING
        self._began = self._full_due = self._sent = self._pushed = time.monotonic()
        self._problems = ProblemLog()
        self._outage = ""

    @property
    def filters(self) -> tuple[str, ...]:
        """What the agent subscribes to: what is asked of it, what is acknowledged, what is said of it."""
        return (
            self._topics.request(self.key),
            self._topics.ack(self.key, "+"),
            self._topics.presence(self.key.record),
        )

    def will(self, session: str) -> mqtt.Outgoing:
        """The message by which the broker tells that this agent is lost."""
        return self._presence(Presence(state=PresenceState.LOST, session=session, time=_now(), version=__version__))

    def deliver(self, event: mqtt.Event) -> None:
        """Hand an event to the agent, from any thread."""
        self._inbox.put(event)

    def stop(self) -> None:
        """End `run`; safe in a signal handler."""
        self._stopping = True
        self._inbox.put(None)

    def run(self, link: mqtt.Connection) -> None:
        """Sample and publish until stopped."""
        self._link = link
        self._sampler.start()
        link.start()
        while not self._stopping:
            event = self._next_event()
            if event is not None:
                self._take_in(event)
            self._do_what_is_due()
        self._sampler.stop()
        if self._online:
            self._push()
            self._publish_presence(PresenceState.STOPPED)
        link.close(_CLOSE_TIMEOUT)

    def _next_event(self) -> mqtt.Event | Samples | None:
        try:
            return self._inbox.get(timeout=max(0.0, self._next_due() - time.monotonic()))
        except queue.Empty:
            return None

    def _next_due(self) -> float:
        due = [self._sampler.next_deadline(), self._routine_due]
        if self._online:
            due += [self._sent + self._intervals.heartbeat, self._full_due, self._push_due()]
        return min((one for one in due if one is not None), default=time.monotonic() + 60)

    def _push_due(self) -> float | None:
        return self._pushed + self._intervals.push if self._report.values.changed else None

    def _take_in(self, event: mqtt.Event | Samples) -> None:
        match event:
            case tuple():
                self._sampled(event)
            case mqtt.Connected():
                self._connected(event.session)
            case mqtt.Disconnected():
                self._disconnected(event.reason)
            case mqtt.Message():
                self._message(event)

    def _do_what_is_due(self) -> None:
        self._sampler.follow_clock()
        self._sampled(self._sampler.expire())
        now = time.monotonic()
        if self._routine_due is not None and now >= self._routine_due:
            self._connect_routine()
        elif self._online:
            self._publish_due(now)

    def _publish_due(self, now: float) -> None:
        push_due = self._push_due()
        if now >= self._full_due:
            self._publish_full()
        elif push_due is not None and now >= push_due:
            self._push()
        elif now >= self._sent + self._intervals.heartbeat:
            self._send(self._publisher.change(self._report.topic, time=_now(), values={}))

    def _sampled(self, samples: Samples) -> None:
        for sampled in samples:
            self._report.update(sampled)
            self._problems.tell(sampled.source, sampled.reading)

    def _connected(self, session: str) -> None:
        self._session, self._outage = session, ""
        # A first report that had no rates yet would only be followed by a second one.
        self._routine_due = max(time.monotonic(), self._began + SECOND_SAMPLE) + SETTLE
        _log.info("connected as %s", self.key.client_id)

    def _disconnected(self, reason: str) -> None:
        self._online, self._routine_due = False, None
        if reason != self._outage:
            _log.warning("not connected: %s; trying again", reason)
        self._outage = reason

    def _message(self, message: mqtt.Message) -> None:
        address = self._topics.parse(message.topic)
        try:
            match address.channel if address else None:
                case Channel.REQUEST:
                    decode_request(message.payload)
                    self._ask_routine()
                case Channel.ACK:
                    self._acknowledged(message.payload)
                case Channel.PRESENCE if message.payload:
                    self._presence_seen(decode_presence(message.payload))
        except WireError as error:
            _log.warning("%s: %s", message.topic, error)

    def _acknowledged(self, payload: bytes) -> None:
        ack = decode_ack(payload)
        if ack.epoch > _LAST_EPOCH:
            raise WireError("epoch: beyond the year 2200")
        if self._publisher.outranked_by(ack):
            epoch = max(_now(), ack.epoch) + random.randint(1, 1000)  # noqa: S311  # only has to differ
            self._publisher.rename(self._epochs.keep(epoch))
            self._ask_routine()

    def _presence_seen(self, presence: Presence) -> None:
        if presence.state is not PresenceState.ONLINE:
            self._ask_routine()

    def _ask_routine(self) -> None:
        """Do the routine soon; when asked again and again, at most every 30 s."""
        if self._online and self._routine_due is None:
            self._routine_due = self._asked = max(time.monotonic(), self._asked + _ROUTINE_SPACING)

    def _connect_routine(self) -> None:
        """Pending changes, presence, full reports, and what is left of the log: nothing, for it is kept in memory."""
        self._routine_due, self._online = None, True
        self._push()
        self._publish_presence(PresenceState.ONLINE)
        self._publish_full()
        after = self._publisher.next
        empty = Backlog(epoch=self._publisher.epoch, first=after, next=after)
        self._publish(mqtt.Outgoing(topic=self._topics.backlog(self.key), payload=encode_backlog(empty)))

    def _push(self) -> None:
        if self._report.values.changed:
            taken = self._report.values.take()
            self._pushed = time.monotonic()
            self._send(
                self._publisher.change(self._report.topic, time=self._report.time, values=taken.values, gone=taken.gone)
            )

    def _publish_full(self) -> None:
        self._push()
        self._send(
            self._publisher.change(
                self._report.topic, time=self._report.time, values=self._report.values.taken, full=True
            )
        )
        # Agents that started together must not report together for ever.
        spread = random.uniform(0.8, 1.2)  # noqa: S311  # spreading load is no secret
        self._full_due = time.monotonic() + self._intervals.full * spread

    def _send(self, change: Change) -> None:
        payload = encode_change(change)
        if len(payload) > LARGEST_PAYLOAD:
            _log.error(
                "%s: message of %d bytes not sent: at most %d", self._report.topic, len(payload), LARGEST_PAYLOAD
            )
            return
        self._publish(mqtt.Outgoing(topic=self._report.topic, payload=payload))

    def _publish_presence(self, state: PresenceState) -> None:
        presence = Presence(
            state=state,
            session=self._session,
            time=_now(),
            version=__version__,
            epoch=self._publisher.epoch,
            next=self._publisher.next,
        )
        self._publish(self._presence(presence))

    def _presence(self, presence: Presence) -> mqtt.Outgoing:
        topic = self._topics.presence(self.key.record)
        return mqtt.Outgoing(topic=topic, payload=encode_presence(presence), retain=True)

    def _publish(self, message: mqtt.Outgoing) -> None:
        assert self._link is not None
        self._link.publish(message)
        self._sent = time.monotonic()


def _now() -> int:
    return time.time_ns() // 1_000_000
