"""One agent: takes in readings and the broker's events one by one, and publishes what has to be reported.

All state belongs to the thread that runs `Agent.run`; the others only put events into its inbox.
"""

import logging
import queue
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from telemetry import __version__, mqtt
from telemetry.agent.report import ProblemLog, Report, Reports
from telemetry.agent.sampler import SECOND_SAMPLE, Plan, Sampler, Samples
from telemetry.agent.state import EpochFile, HostFile
from telemetry.config import Intervals
from telemetry.errors import WireError
from telemetry.fields import Owner, Value
from telemetry.follow import Publisher
from telemetry.topics import AgentKey, Channel, Topics
from telemetry.wire import (
    LARGEST_PAYLOAD,
    Backlog,
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
    """The agent of one host or one miner: the reports that its sources state, in one log."""

    def __init__(
        self,
        key: AgentKey,
        *,
        owner: Owner,
        plans: Sequence[Plan],
        intervals: Intervals,
        deadbands: Mapping[str, float],
        topics: Topics,
        state: Path,
    ) -> None:
        self.key, self._intervals, self._topics = key, intervals, topics
        self._epochs, self._hosts = epochs, hosts = EpochFile(state, key), HostFile(state, key)
        known = hosts.last()
        self._reports = Reports(key, owner=owner, topics=topics, deadbands=deadbands, known_hosts=known)
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
        self._began = self._sent = time.monotonic()
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
            for report in self._known_reports():
                self._push(report)
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
            due += [self._sent + self._intervals.heartbeat, *map(self._due_of, self._reports)]
        return min((one for one in due if one is not None), default=time.monotonic() + 60)

    def _due_of(self, report: Report) -> float | None:
        """When something of a report has to be published next."""
        if not report.is_known:
            return None
        return min(report.full_due, self._push_due(report)) if report.values.changed else report.full_due

    def _push_due(self, report: Report) -> float:
        return report.pushed + self._intervals.push

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
        for report in list(self._known_reports()):
            if now >= report.full_due:
                self._publish_full(report)
            elif report.values.changed and now >= self._push_due(report):
                self._push(report)
        if now >= self._sent + self._intervals.heartbeat:
            self._send(self._reports.own, {})

    def _known_reports(self) -> Iterator[Report]:
        return (report for report in self._reports if report.is_known)

    def _sampled(self, samples: Samples) -> None:
        for sampled in samples:
            self._reports.take_in(sampled)
            self._problems.tell(sampled.source, sampled.reading)
            if sampled.source.host_fields:
                self._hosts.keep(self._reports.hosts)

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
        reports = list(self._known_reports())
        for report in reports:
            if report.values.taken:
                self._push(report)
        self._publish_presence(PresenceState.ONLINE)
        for report in reports:
            self._publish_full(report)
        after = self._publisher.next
        empty = Backlog(epoch=self._publisher.epoch, first=after, next=after)
        self._publish(mqtt.Outgoing(topic=self._topics.backlog(self.key), payload=encode_backlog(empty)))

    def _push(self, report: Report) -> None:
        if report.values.changed:
            taken = report.values.take()
            report.pushed = time.monotonic()
            self._send(report, taken.values, gone=taken.gone)

    def _publish_full(self, report: Report) -> None:
        """Report all of it, which carries what was last sent: what has changed since is sent before."""
        if report.values.taken:
            self._push(report)
        else:
            report.values.take()
        self._send(report, report.values.taken, full=True)
        # Agents that started together must not report together for ever.
        spread = random.uniform(0.8, 1.2)  # noqa: S311  # spreading load is no secret
        report.full_due = time.monotonic() + self._intervals.full * spread
        self._reports.drop_ended(report)

    def _send(
        self, report: Report, values: Mapping[str, Value], *, gone: tuple[str, ...] = (), full: bool = False
    ) -> None:
        """Publish the next message of the log. Without values and gone names it is a heartbeat."""
        sampled = report.time if values or gone or full else _now()
        change = self._publisher.change(report.topic, time=sampled, values=values, gone=gone, full=full)
        payload = encode_change(change)
        if len(payload) > LARGEST_PAYLOAD:
            _log.error("%s: message of %d bytes not sent: at most %d", report.topic, len(payload), LARGEST_PAYLOAD)
            return
        self._publish(mqtt.Outgoing(topic=report.topic, payload=payload))

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
