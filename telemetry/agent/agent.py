"""One agent: its sources, its publisher and its connection, joined by one thread.

All state belongs to the thread that runs `Agent.run`; the others only put events into its inbox.
"""

import logging
import queue
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import SystemRandom
from secrets import token_hex
from typing import TypeAlias

from telemetry import __version__, mqtt
from telemetry.agent.health import AgentHealth
from telemetry.agent.place import Connect, Place
from telemetry.agent.plans import retimed
from telemetry.agent.report import Intake, ProblemLog
from telemetry.agent.sampler import SECOND_SAMPLE, Plan, Sampler, Samples
from telemetry.agent.spool import SpoolFile
from telemetry.agent.state import HostFile
from telemetry.config import Intervals, Settings
from telemetry.errors import WireError
from telemetry.fields import Owner
from telemetry.processes import give_memory_back
from telemetry.publish import Publisher
from telemetry.topics import AgentKey, Topics

_log = logging.getLogger(__name__)

_Event: TypeAlias = mqtt.Event | Samples | Settings

_LONGEST_SLEEP = 60.0
_SIGNS_OF_LIFE = 3.0


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
        aggregators: Sequence[str] = ("main",),
        spool_bytes: int = 64 << 20,
        spool_seconds: float = 7 * 86_400,
        spool: SpoolFile | None = None,
        has_own_user: bool = False,
    ) -> None:
        self.key, self._intervals, self._has_own_user = key, intervals, has_own_user
        self._began = time.monotonic()
        self._hosts = HostFile(state, key)
        self._spool = spool or SpoolFile(state, key, time_ms=_now(), most_bytes=spool_bytes, most_seconds=spool_seconds)
        self._publisher = Publisher(
            key,
            owner=owner,
            topics=topics,
            intervals=intervals,
            deadbands=deadbands,
            spool=self._spool,
            aggregators=aggregators,
            now=self._began,
            dice=SystemRandom(),
            process=token_hex(8),
            since=_now(),
            version=__version__,
        )
        for host in self._hosts.last():
            # What was told of it has to be told anew, or taken back.
            self._publisher.host_report(host)
        self._intake, self._problems = Intake(self._publisher), ProblemLog()
        self._inbox: queue.SimpleQueue[_Event | None] = queue.SimpleQueue()
        self._plans = plans
        self._sampler = Sampler(plans, self._inbox.put)
        self._health = AgentHealth(
            self._publisher, self._spool, self._sampler, self._problems, interval=intervals.health
        )
        self._sampled = self._woke = self._began
        self._stopping, self._is_new = False, True
        self._place: Place | None = None
        self._outage = ""

    def deliver(self, event: mqtt.Event) -> None:
        """Hand an event to the agent, from any thread."""
        self._inbox.put(event)

    def retune(self, settings: Settings) -> None:
        """Go by the intervals and deadbands of other settings from now on; from any thread."""
        self._inbox.put(settings)

    def stop(self) -> None:
        """End `run`; safe in a signal handler."""
        self._stopping = True
        self._inbox.put(None)

    def run(self, connect: Connect) -> None:
        """Sample and publish until stopped."""
        self._place = Place(self.key, self._publisher, connect, self._intervals, has_own_user=self._has_own_user)
        self._sampler.start()
        while not self._stopping:
            event = self._next_event()
            if event is not None:
                self._take_in(event)
            self._do_what_is_due()
        self._sampler.stop()
        self._publisher.stop(now=time.monotonic(), time=_now())
        self._publish()
        self._place.close()
        self._spool.close()

    def _next_event(self) -> _Event | None:
        assert self._place is not None
        parts = (self._sampler.next_deadline, self._publisher.next_due, self._place.next_due, self._health.next_due)
        now = time.monotonic()
        due = min([*(one for part in parts if (one := part()) is not None), now + _LONGEST_SLEEP])
        try:
            return self._inbox.get(timeout=max(0.0, due - now))
        except queue.Empty:
            return None
        finally:
            # What is due at once is due since the last look.
            due, self._woke = max(due, self._woke), time.monotonic()
            self._health.woke(self._woke - due)

    def _take_in(self, event: _Event) -> None:
        match event:
            case Settings():
                self._go_by(event)
            case tuple():
                self._take_samples(event)
            case mqtt.Connected():
                self._connected(event.session)
            case mqtt.Disconnected():
                self._publisher.disconnected()
                if event.reason != self._outage:
                    _log.warning("not connected: %s; trying again", event.reason)
                self._outage = event.reason
            case mqtt.Messages():
                for message in event.messages:
                    self._receive(message)

    def _go_by(self, settings: Settings) -> None:
        assert self._place is not None
        self._intervals, self._plans = settings.intervals, retimed(self._plans, settings)
        self._sampler.retime(self._plans)
        self._publisher.retune(settings.intervals, settings.deadbands, time.monotonic())
        self._place.retune(settings.intervals)
        self._health.retune(settings.intervals, time.monotonic())

    def _connected(self, session: str) -> None:
        assert self._place is not None
        if self._place.is_waiting:
            return
        self._outage = ""
        # A first report that had no rates yet would only be followed by a second one.
        self._publisher.connected(session, time.monotonic(), not_before=self._began + SECOND_SAMPLE)
        self._health.connected(time.monotonic())
        _log.info("connected as %s", self.key.client_id)

    def _receive(self, message: mqtt.Message) -> None:
        assert self._place is not None
        try:
            if self._place.is_waiting:
                self._place.hear(message.topic, message.payload, time.monotonic())
            else:
                self._publisher.receive(message.topic, message.payload, now=time.monotonic(), time=_now())
        except WireError as error:
            _log.warning("%s: %s", message.topic, error)

    def _do_what_is_due(self) -> None:
        self._sampler.follow_clock()
        self._take_samples(self._sampler.expire())
        assert self._place is not None
        now = time.monotonic()
        self._place.look(now)
        self._publisher.tick(now=now, time=_now(), is_alive=now < self._sampled + self._patience)
        self._publish()
        if (told := self._health.take_message(now, _now())) is not None:
            self._place.publish(told)
        if self._is_new and self._publisher.is_online:
            self._is_new = False
            give_memory_back()

    @property
    def _patience(self) -> float:
        # So long nothing may come of any source before the agent is silent too: it would say that all is as it was.
        return max(self._intervals.stale, _SIGNS_OF_LIFE * max((plan.interval for plan in self._plans), default=0.0))

    def _take_samples(self, samples: Samples) -> None:
        for sampled in samples:
            self._sampled = time.monotonic()
            self._health.sampled()
            self._intake.take_in(sampled)
            self._problems.tell(sampled.source, sampled.reading)
            if sampled.source.host_fields:
                self._hosts.keep(self._publisher.hosts)

    def _publish(self) -> None:
        assert self._place is not None
        for message in self._publisher.take_outgoing():
            self._place.publish(message)


def _now() -> int:
    return time.time_ns() // 1_000_000
