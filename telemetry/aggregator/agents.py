"""What the aggregator knows of one agent: its log, whether it is there, and when to ask it for what is missing."""

from collections.abc import Collection
from enum import Enum
from math import inf
from zlib import crc32

from telemetry.config import Intervals
from telemetry.follow import Follower, Logs
from telemetry.stores import StoredAgent, StoredLog
from telemetry.topics import AgentKey
from telemetry.wire import Ack, Position, Presence, PresenceState

GRACE = 3.0
"""Seconds in which a hole may close by itself before the agent is asked."""

FIRST_REPEAT, LAST_REPEAT = 30.0, 600.0
"""Seconds between requests to one agent: doubling from the first to the last."""

MOST_DRIFT = 0.5
"""Of an interval: by so much the acknowledgement after a first one comes later. An agent waits for 2.5 of them."""


class NetState(Enum):
    """Whether an agent is there."""

    UNKNOWN = "unknown"
    ONLINE = "online"
    STALE = "stale"
    STOPPED = "stopped"
    LOST = "lost"


_STATE_OF = {
    PresenceState.ONLINE: NetState.ONLINE,
    PresenceState.STOPPED: NetState.STOPPED,
    PresenceState.LOST: NetState.LOST,
}
_NOT_ASKED = frozenset({NetState.STOPPED, NetState.LOST})


class AgentRecord:
    """One agent as the aggregator sees it. `now` is the monotonic clock in seconds throughout.

    `due` is when time alone may make it something to do: not later than that, and nothing is missed by looking early.
    """

    __slots__ = (
        "_death_due", "_drift", "_heard", "_repeat", "_request_due", "ack_due", "acknowledged", "acknowledged_at",
        "due", "heard_time", "is_live", "key", "late", "logs", "session", "since", "state", "topics", "version",
    )  # fmt: skip

    def __init__(self, key: AgentKey, *, now: float, stored: StoredAgent | None = None) -> None:
        self.key = key
        self.state = NetState(stored.state) if stored else NetState.UNKNOWN
        self.since = stored.since if stored else 0
        self.heard_time = stored.heard if stored else 0
        self.session = stored.session if stored else ""
        self.version = stored.version if stored else ""
        self.late = stored.late if stored else 0
        self.logs = _restored(stored) if stored else Logs()
        self.topics: set[str] = set(self.follower.fulls)
        self.acknowledged: Ack | None = None
        self.acknowledged_at = -inf
        self.ack_due = now
        self._drift = MOST_DRIFT * crc32(str(key).encode()) / 2**32
        self.due = now
        self._heard = now
        self._death_due: float | None = None
        self._request_due: float | None = None
        self._repeat = FIRST_REPEAT
        self.is_live = self.state is NetState.ONLINE
        """Whether it is there, and nothing else was said: a message that comes is no news of it."""

    @property
    def follower(self) -> Follower:
        """What is held of its present log."""
        return self.logs.present

    def hear(self, now: float, time: int) -> None:
        """Note a sign of life."""
        self._heard, self.heard_time = now, time

    def see(self, presence: Presence, now: float, intervals: Intervals) -> NetState | None:
        """Take in a presence; the new state, if it changes now. The death of another session is ignored."""
        self.wake()
        if presence.state is PresenceState.LOST:
            if self.session and presence.session != self.session:
                return None
            self.session = presence.session
            if self.state not in _NOT_ASKED:
                # Mosquitto sends the will of a connection that another replaces: wait for the birth that follows.
                self._death_due, self.is_live = now + intervals.lost, False
            return None
        self.session, self.version, self._death_due = presence.session, presence.version, None
        return self._turn(_STATE_OF[presence.state])

    def live(self) -> NetState | None:
        """A new message of its log came: whatever was said of it, it is there. The new state, if it changes."""
        self._death_due = None
        return self._turn(NetState.ONLINE)

    def grow_old(self, now: float, intervals: Intervals) -> NetState | None:
        """Let time pass; the new state, if it changes."""
        if self._death_due is not None and now >= self._death_due:
            self._death_due = None
            return self._turn(NetState.LOST)
        if self.state is NetState.ONLINE and now >= self._heard + intervals.stale:
            return self._turn(NetState.STALE)
        return None

    def is_asked(self, now: float, topics: Collection[str]) -> bool:
        """Whether it is time to send a request: something is missing, and asking can help."""
        if self.follower.is_mended(topics):
            self._request_due, self._repeat = None, FIRST_REPEAT
            return False
        if self._request_due is None:
            self._request_due = now + GRACE
        return now >= self._request_due and self.state not in _NOT_ASKED

    def asked(self, now: float) -> None:
        """A request was sent: the next one later."""
        self._request_due = now + self._repeat
        self._repeat = min(2 * self._repeat, LAST_REPEAT)

    def connected(self, now: float) -> None:
        """The broker may have lost what was retained, and what was asked never arrived: begin both anew."""
        self.acknowledged, self.ack_due = None, now
        self._request_due, self._repeat = None, FIRST_REPEAT
        self.wake()

    def wake(self) -> None:
        """Something else than time made it something to do."""
        self.due = 0.0

    def moved(self) -> None:
        """Its position moved on, and is to be acknowledged in its time."""
        self.due = min(self.due, self.ack_due)

    def acknowledge(self, committed: Ack, now: float, intervals: Intervals) -> None:
        """Note what is told it now. After the first time the next is later, so that those met together drift apart."""
        drift = self._drift if self.acknowledged is None else 0.0
        self.acknowledged, self.acknowledged_at = committed, now
        self.ack_due = now + intervals.acknowledge * (1 + drift)

    def rest(self, intervals: Intervals) -> None:
        """All that is due was done: until when there is nothing more to do."""
        dues = [inf]
        if self._death_due is not None:
            dues.append(self._death_due)
        if self.state is NetState.ONLINE:
            dues.append(self._heard + intervals.stale)
        if self._request_due is not None and self.state not in _NOT_ASKED:
            dues.append(self._request_due)
        if self.committed != self.acknowledged:
            dues.append(self.ack_due)
        self.due = min(dues)

    @property
    def committed(self) -> Ack | None:
        """What may be acknowledged once it is committed."""
        position = self.follower.position
        if position is None:
            return None
        former = {epoch: log.position for epoch, log in self.logs.former.items() if log.position}
        return Ack(position=Position(self.follower.epoch, position), former=former)

    def stored(self) -> StoredAgent:
        """The agent for the store."""
        return StoredAgent(
            log=_stored_log(self.follower),
            former=tuple(map(_stored_log, self.logs.former.values())),
            state=self.state.value,
            since=self.since,
            heard=self.heard_time,
            session=self.session,
            version=self.version,
            late=self.late,
        )

    def _turn(self, state: NetState) -> NetState | None:
        self.is_live = state is NetState.ONLINE and self._death_due is None
        if state is self.state:
            return None
        self.state = state
        self.wake()
        return state


def _stored_log(follower: Follower) -> StoredLog:
    return StoredLog(
        epoch=follower.epoch,
        position=follower.position,
        beyond=tuple(follower.beyond),
        fulls=dict(follower.fulls),
        floor=follower.floor,
        lost=follower.lost,
    )


def _restored(stored: StoredAgent) -> Logs:
    return Logs(_restored_log(stored.log), [_restored_log(log) for log in stored.former])


def _restored_log(stored: StoredLog) -> Follower:
    return Follower.restored(
        epoch=stored.epoch,
        position=stored.position,
        lost=stored.lost,
        beyond=stored.beyond,
        fulls=stored.fulls,
        floor=stored.floor,
    )
