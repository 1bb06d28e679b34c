"""An agent's place at the broker, which its client id names; two agents of one name cannot both have it.

The broker gives it to whoever came last. An agent that was put out comes back, and finds who was there meanwhile. Both
then know of each other, and both follow the same rule: the one whose process began later waits until the other is gone.

It waits beside, and hears when the other is gone. Where the agent has a user of its own at the broker there is no
beside, since a user has one connection: it looks whether the place is free by taking it, ever more rarely.
"""

import logging
import time
from datetime import UTC, datetime
from secrets import token_hex
from typing import Protocol

from telemetry import mqtt
from telemetry.config import Intervals
from telemetry.publish import Publisher
from telemetry.topics import AgentKey, Channel, Topics
from telemetry.wire import Outgoing, Presence, PresenceState, decode_presence

_log = logging.getLogger(__name__)

_CLOSE_TIMEOUT = 2.0
_LONGEST_BLIND_WAIT = 900.0


class Connect(Protocol):
    """Makes a connection, not started yet, whose events go to the agent."""

    def __call__(self, *, client_id: str, filters: tuple[str, ...], will: mqtt.Will | None) -> mqtt.Connection:
        """Make it."""


class Place:
    """The connection of an agent: in its place, or beside it, waiting for it. `now`: seconds, monotonic."""

    def __init__(
        self, key: AgentKey, publisher: Publisher, connect: Connect, intervals: Intervals, *, has_own_user: bool = False
    ) -> None:
        self._key, self._publisher, self._connect, self._intervals = key, publisher, connect, intervals
        self._has_own_user = has_own_user
        self.is_waiting = False
        self._blind_wait = intervals.stale
        self._free_at = 0.0
        self._told: str | None = None
        self._link: mqtt.Connection | None = self._take()

    def publish(self, message: Outgoing) -> None:
        """Publish, if in place."""
        if self._link is not None and not self.is_waiting:
            self._link.publish(message)

    def close(self) -> None:
        """End the connection; what was published goes out."""
        if self._link is not None:
            self._link.close(_CLOSE_TIMEOUT)

    def retune(self, intervals: Intervals) -> None:
        """Go by other intervals from now on."""
        self._intervals = intervals

    def look(self, now: float) -> None:
        """Give the place up to a rival that was there before, or take it when that is gone."""
        if self.is_waiting:
            if now >= self._free_at:
                how = "looking whether the other agent is gone" if self._link is None else "the other agent is gone"
                _log.warning("%s: %s; taking its place", self._key, how)
                self._move(waiting=False)
            return
        rival, self._publisher.rival = self._publisher.rival, None
        if rival is not None:
            self._meet(rival, now)

    def next_due(self) -> float | None:
        """When to look again."""
        return self._free_at if self.is_waiting else None

    def hear(self, topic: str, payload: bytes, now: float) -> None:
        """Take in what the other agent says while we wait: a sign of life, or that it is gone."""
        address = self._publisher.topics.parse(topic)
        wait = self._intervals.stale
        if address is not None and address.channel is Channel.PRESENCE and payload:
            presence = decode_presence(payload)
            self._publisher.outlived(presence)
            wait = {PresenceState.STOPPED: 0.0, PresenceState.LOST: self._intervals.lost}.get(presence.state, wait)
        self._free_at = now + wait

    def _meet(self, rival: Presence, now: float) -> None:
        if rival.process != self._told:
            self._told = rival.process
            began = datetime.fromtimestamp(rival.since / 1000, UTC).isoformat(" ", "seconds")
            what = "this one waits until it is gone" if self._yields_to(rival) else "that one has to wait"
            _log.error(
                "%s: another agent of this name runs, since %s: %s; give one another --name", self._key, began, what
            )
        if self._yields_to(rival):
            self._move(waiting=True)
            self._free_at = now + (self._intervals.stale if self._link is not None else self._blind_wait)
            self._blind_wait = min(2 * self._blind_wait, max(_LONGEST_BLIND_WAIT, self._intervals.stale))

    def _yields_to(self, rival: Presence) -> bool:
        return (rival.since, rival.process) < self._publisher.identity

    def _move(self, *, waiting: bool) -> None:
        self.close()
        self._publisher.disconnected()
        self.is_waiting = waiting
        self._link = self._take() if not waiting else None if self._has_own_user else self._wait()

    def _take(self) -> mqtt.Connection:
        link = self._connect(
            client_id=self._key.client_id,
            filters=self._publisher.filters,
            will=lambda session: self._publisher.will(session, time.time_ns() // 1_000_000),
        )
        link.start()
        return link

    def _wait(self) -> mqtt.Connection:
        topics: Topics = self._publisher.topics
        filters = (topics.presence(self._key.record), self._publisher.own.topic)
        link = self._connect(client_id=f"{self._key.client_id}.waiting.{token_hex(4)}", filters=filters, will=None)
        link.start()
        return link
