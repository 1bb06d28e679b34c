"""An agent is an ordered log: who writes it. No I/O, no clock: time comes in, messages come out.

The law: a message is in the spool before it is published, and stays there until every aggregator that counts has
acknowledged it. A message is named by (epoch, seq) for ever; where a log cannot be continued, a new one begins, and
what is left of the old one is sent under its own name.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from telemetry.config import Intervals
from telemetry.errors import WireError
from telemetry.fields import Deadband, Owner, Value
from telemetry.reports import Numbering, Report
from telemetry.spooling import Row, Spool
from telemetry.topics import AgentKey, Channel, RecordKey, Topics
from telemetry.wire import (
    LARGEST_PAYLOAD,
    Ack,
    Backlog,
    Change,
    Digests,
    Outgoing,
    Position,
    Presence,
    PresenceState,
    Request,
    decode_ack,
    decode_presence,
    decode_request,
    digest,
    encode_backlog,
    encode_change,
    encode_digests,
    encode_presence,
    with_epoch,
    without_epoch,
)

_log = logging.getLogger(__name__)

SETTLE = 0.25
"""Seconds from the subscription to the connect routine, in which retained acknowledgements come in."""

ROUTINE_SPACING = 30.0
"""Seconds between two connect routines that were asked for."""

LAST_EPOCH = 7_258_118_400_000  # 2200; what is beyond was never a clock, and leaves no room for a higher one

HOLD = 3.0
"""Seconds for which a new agent holds its first messages back: once connected, a full report says the same in one."""

STALL = 2.5
"""Acknowledgement intervals without progress after which what is not acknowledged is sent again."""

_LONGEST_STALL = 3600.0
_BATCH_SPACING = 0.05
_WINDOW = 2
"""Batches on their way: the next one follows an acknowledgement, so that an aggregator that is busy is sent less."""

_DIGESTS_A_MESSAGE = 1000


class Dice(Protocol):
    """Chance, such as that of `random.Random`."""

    def uniform(self, a: float, b: float) -> float:
        """A number between two, evenly."""

    def randint(self, a: int, b: int) -> int:
        """An integer between two, both included."""


class Publisher:
    """One agent: takes in reports, the broker's messages and time, and says what has to be published.

    `process` and `since` (Unix ms) tell this process from another agent of the same name; `aggregators` are those
    whose acknowledgement lets a message go. `now` is the monotonic clock in seconds, `time` Unix milliseconds.
    """

    def __init__(
        self,
        key: AgentKey,
        *,
        owner: Owner,
        topics: Topics,
        intervals: Intervals,
        spool: Spool,
        now: float,
        dice: Dice,
        deadbands: Mapping[str, float] | None = None,
        aggregators: Sequence[str] = ("main",),
        process: str = "",
        since: int = 0,
        version: str = "",
    ) -> None:
        self.key, self.topics, self._intervals, self._spool = key, topics, intervals, spool
        self._deadbands = _absolute(deadbands or {})
        self._aggregators, self._dice = tuple(aggregators), dice
        self._process, self._since, self._version = process, since, version
        self._numbering = Numbering(spool.epoch, spool.next)
        self.own = self._report(key.record, owner)
        self._others: dict[str, Report] = {}
        self._outgoing: list[Outgoing] = []
        self._unwritten: list[Row] = []
        # Online once the connect routine was done: what is published before it would come ahead of the presence.
        self.is_online = False
        self.rival: Presence | None = None
        self.resent = 0
        self._session, self._announced = "", 0
        self._routine_due: float | None = None
        self._began, self._asked = now, now - ROUTINE_SPACING
        self._sent = self._progress = now
        self._stall = STALL * intervals.acknowledge
        self._acks: dict[str, Ack] = {}
        self._late: _Late | None = None

    # --- what is stated ---

    @property
    def identity(self) -> tuple[int, str]:
        """By which two agents of one name know who began first."""
        return (self._since, self._process)

    @property
    def position(self) -> Position:
        """That of the last message."""
        return Position(self._numbering.epoch, self._numbering.next - 1)

    @property
    def is_acknowledged(self) -> bool:
        """Whether nothing of any log waits for an acknowledgement."""
        return not self._spool.epochs()

    @property
    def hosts(self) -> list[str]:
        """The worker hosts of which something is stated."""
        return sorted(self._others)

    def host_reports(self) -> Mapping[str, Report]:
        """The reports of worker hosts, by name."""
        return dict(self._others)

    def host_report(self, host: str) -> Report:
        """The report of a worker host, made where there was none."""
        if host not in self._others:
            self._others[host] = self._report(RecordKey(self.key.minerId, host), Owner.TASKS)
        return self._others[host]

    def _report(self, record: RecordKey, owner: Owner) -> Report:
        fields = record.record.owned_by(owner)
        return Report(record, self.topics.change(record, owner), fields, self._deadbands)

    def retune(self, intervals: Intervals, deadbands: Mapping[str, float], now: float) -> None:
        """Go by other intervals and deadbands from now on."""
        self._intervals, self._deadbands = intervals, _absolute(deadbands)
        self._stall = STALL * intervals.acknowledge
        for report in (self.own, *self._others.values()):
            report.values.replace_deadbands(self._deadbands)
            report.full_due = min(report.full_due, self._next_full(now))

    def _reports(self) -> Iterator[Report]:
        """Those of which something is known."""
        yield from (report for report in (self.own, *self._others.values()) if report.is_known)

    def number(self, now: float) -> int:
        """Number a message of the own report that the caller itself has in the spool at once, and publishes.

        It is for those that write one message after the other where nothing else has to be looked at.
        """
        if not self._spool.epochs():
            self._progress = now
        if self.is_online:
            self._sent = now
        return self._numbering.take(self.own.topic)

    # --- the broker ---

    @property
    def filters(self) -> tuple[str, ...]:
        """What the agent subscribes to: what is asked of it, what is acknowledged, what is said of it."""
        return self.topics.read_by(self.key)

    def will(self, session: str, time: int) -> Outgoing:
        """The message by which the broker tells that this agent is lost."""
        return self._presence(PresenceState.LOST, session, time, has_log=False)

    def connected(self, session: str, now: float, *, not_before: float = 0.0) -> None:
        """There is a connection, and the subscriptions stand."""
        self._session, self.is_online = session, False
        self._routine_due = max(now, not_before) + SETTLE
        self._late = None

    def outlived(self, presence: Presence) -> None:
        """Another agent of this name is gone that had said so much: it is no rival any more."""
        self._announced = max(self._announced, presence.time)

    def disconnected(self) -> None:
        """There is none any more. Messages on their way may be lost: they are in the spool."""
        self.is_online, self._routine_due, self._late = False, None, None

    def receive(self, topic: str, payload: bytes, *, now: float, time: int) -> None:
        """Take in a message of one of the filters; raises WireError for one that is not what its topic promises."""
        address = self.topics.parse(topic)
        match address.channel if address else None:
            case Channel.REQUEST:
                if decode_request(payload) is Request.DIGEST:
                    self._tell_digests()
                else:
                    self._ask_routine(now)
            case Channel.ACK:
                self._acknowledged(topic.rpartition("/")[2], decode_ack(payload), now, time)
            case Channel.PRESENCE if payload:
                self._presence_seen(decode_presence(payload), now)

    def take_outgoing(self) -> list[Outgoing]:
        """What has to be published now, in this order."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def _presence_seen(self, presence: Presence, now: float) -> None:
        is_another = bool(presence.process) and presence.process != self._process
        is_later = 0 < self._announced < presence.time
        if is_another and is_later and presence.state is not PresenceState.STOPPED:
            # It was here after us, so it is no one that we have replaced.
            self.rival = presence
        if presence.state is not PresenceState.ONLINE:
            # Whoever it was meant for, readers take it for this agent's.
            self._ask_routine(now)

    def _ask_routine(self, now: float) -> None:
        """Do the routine soon; when asked again and again, at most every 30 s."""
        if self.is_online and self._routine_due is None:
            self._routine_due = self._asked = max(now, self._asked + ROUTINE_SPACING)

    def _tell_digests(self) -> None:
        told = {report.topic: digest(report.record.record, report.values.taken) for report in self._reports()}
        topics = list(told)
        for start in range(0, max(1, len(topics)), _DIGESTS_A_MESSAGE):
            part = {topic: told[topic] for topic in topics[start : start + _DIGESTS_A_MESSAGE]}
            payload = encode_digests(Digests(position=self.position, digests=part))
            self._outgoing.append(Outgoing(topic=self.topics.backlog(self.key), payload=payload))

    # --- acknowledgements ---

    def _acknowledged(self, aggregator: str, ack: Ack, now: float, time: int) -> None:
        if ack.position.epoch > LAST_EPOCH:
            raise WireError("epoch: beyond the year 2200")
        if self._numbering.outranked_by(ack.position):
            self._begin_log(max(time, ack.position.epoch))
            self._ask_routine(now)
            return
        if aggregator not in self._aggregators:
            return
        held = self._acks.get(aggregator)
        if ack.position.epoch < self._numbering.epoch or ack.position.seq < self._deleted_through(held):
            # Its database is one of before: what it lacks, and the spool still has, it gets once more.
            self._ask_routine(now)
            if ack.position.epoch < self._numbering.epoch:
                return
        self._acks[aggregator] = ack
        oldest = self._oldest()
        if self._delete() and self._late is not None:
            self._late.on_the_way = 0
        if self._oldest() != oldest:
            # What counts is the oldest message: a former log may stand still while the present one goes on.
            self._progress, self._stall = now, STALL * self._intervals.acknowledge

    def _oldest(self) -> Position | None:
        """That of the oldest message in the spool."""
        epoch = next(iter(self._spool.epochs()), None)
        seq = None if epoch is None else self._spool.oldest(epoch)
        return None if epoch is None or seq is None else Position(epoch, seq)

    def _deleted_through(self, held: Ack | None) -> int:
        oldest = self._spool.oldest(self._numbering.epoch)
        return 0 if held is None else min(held.position.seq, (oldest or self._numbering.next) - 1)

    def _delete(self) -> bool:
        """Let go what all that count have acknowledged; whether there was any."""
        deleted = False
        for epoch in self._spool.epochs():
            through = min(_through(self._acks.get(name), epoch) for name in self._aggregators)
            oldest = self._spool.oldest(epoch)
            if oldest is not None and oldest <= through:
                self._spool.delete(epoch, through)
                deleted = True
        return deleted

    def _begin_log(self, known: int) -> None:
        """Go on in a new log, higher than any known; what is left of the old one keeps its name."""
        epoch = max(known, self._numbering.epoch) + self._dice.randint(1, 1000)
        self._spool.begin(epoch)
        self._numbering = Numbering(epoch, self._numbering.next)
        for report in self._reports():
            report.full_due = float("-inf")

    # --- time ---

    def tick(self, *, now: float, time: int, is_alive: bool = True) -> None:
        """Do what is due. `is_alive`: the sources are sampled still; a heartbeat says that too."""
        if self._routine_due is not None and now >= self._routine_due:
            self._connect_routine(now, time)
        for report in list(self._reports()):
            if self.is_online and now >= report.full_due:
                self._publish_full(report, now)
            elif report.values.changed and now >= self._push_due(report):
                self._push(report, now)
        if self.is_online and is_alive and now >= self._sent + self._intervals.heartbeat:
            self._write(self.own, {}, now, time=time)
        self._flush(now, time)
        if self.is_online:
            self._send_late(now)

    def next_due(self) -> float | None:
        """When `tick` has something to do; None when nothing is known to come."""
        due = [self._routine_due]
        for report in self._reports():
            if report.values.changed:
                due.append(self._push_due(report))
            if self.is_online:
                due.append(report.full_due)
        if self.is_online:
            due.append(self._sent + self._intervals.heartbeat)
            due.append(self._late_due())
        return min((one for one in due if one is not None), default=None)

    def stop(self, *, now: float, time: int) -> None:
        """Write what has changed, and say goodbye."""
        for report in self._reports():
            self._push(report, now)
        self._flush(now, time)
        if self.is_online:
            self._outgoing.append(self._presence(PresenceState.STOPPED, self._session, time))

    def _connect_routine(self, now: float, time: int) -> None:
        """Pending changes, presence, full reports: how things are now. What is left of the log follows after it."""
        self._routine_due, self.is_online = None, True
        self._late = _Late(below=self._numbering.next, due=now)
        for report in list(self._reports()):
            if report.values.taken:
                self._push(report, now)
        self._flush(now, time)
        self._outgoing.append(self._presence(PresenceState.ONLINE, self._session, time))
        self._announced = time
        for report in list(self._reports()):
            self._publish_full(report, now)

    def _push_due(self, report: Report) -> float:
        held_until = float("-inf") if self.is_online or report.was_full else self._began + HOLD
        return max(held_until, report.pushed + self._intervals.push)

    def _push(self, report: Report, now: float) -> None:
        if report.values.changed:
            taken = report.values.take()
            report.pushed = now
            self._write(report, taken.values, now, gone=taken.gone)

    def _publish_full(self, report: Report, now: float) -> None:
        """Report all of it, which carries what was last sent: what has changed since is sent before."""
        if report.values.taken:
            self._push(report, now)
        else:
            report.values.take()
            report.pushed = now
        self._write(report, report.values.taken, now, full=True)
        report.was_full = True
        report.full_due = self._next_full(now)
        if report.has_ended:
            self._others = {host: one for host, one in self._others.items() if one is not report}

    def _next_full(self, now: float) -> float:
        # Agents that started together must not report together for ever.
        return now + self._intervals.full * self._dice.uniform(0.8, 1.2)

    def _write(
        self,
        report: Report,
        values: Mapping[str, Value],
        now: float,
        *,
        gone: tuple[str, ...] = (),
        full: bool = False,
        time: int | None = None,
    ) -> None:
        """Give the log its next message. Without values and gone names it is a heartbeat."""
        first = full and not report.was_full
        sampled = report.time if time is None else time
        change = self._numbering.change(report.topic, time=sampled, values=values, gone=gone, full=full, first=first)
        payload = encode_change(change)
        if len(payload) > LARGEST_PAYLOAD:
            _log.error("%s: message of %d bytes not sent: at most %d", report.topic, len(payload), LARGEST_PAYLOAD)
            payload = encode_change(Change(epoch=change.epoch, seq=change.seq, time=change.time, prev=change.prev))
        self._unwritten.append(Row(change.epoch, change.seq, report.topic, without_epoch(payload)))
        if self.is_online:
            self._sent = now

    def _flush(self, now: float, time: int) -> None:
        """Keep what was written; only then it is published."""
        rows, self._unwritten = self._unwritten, []
        if not rows:
            return
        if not self._spool.epochs():
            self._progress = now
        if not self._spool.append(rows):
            # It could not go on in this log: the next one is where the spool now is, such as in memory.
            self._begin_log(time)
            rows = [row._replace(epoch=self._numbering.epoch) for row in rows]
            self._spool.append(rows)
            self._ask_routine(now)
        if self.is_online:
            self._outgoing += (Outgoing(topic=row.topic, payload=with_epoch(row.epoch, row.kept)) for row in rows)

    # --- what is late ---

    def _late_due(self) -> float | None:
        if self._late is not None and self._late.on_the_way < _WINDOW:
            return self._late.due
        return self._progress + self._stall if self._spool.epochs() else None

    def _send_late(self, now: float) -> None:
        due = self._late_due()
        if due is None or now < due:
            return
        if self._late is None or self._late.on_the_way >= _WINDOW:
            self._late = _Late(below=self._numbering.next, due=now)
            self._progress, self._stall = now, min(2 * self._stall, _LONGEST_STALL)
        self._send_batch(self._late, now)

    def _send_batch(self, late: "_Late", now: float) -> None:
        epoch = self._numbering.epoch
        rows = self._spool.read(late.after, late.below)
        if rows and rows[0].epoch != epoch and not late.has_said_first:
            # Where the present log begins comes first: until that is known, nothing of the former ones is acknowledged.
            rows = []
        if not rows and late.has_said_first:
            self._late = None
            return
        if rows:
            epoch, late.after = rows[0].epoch, rows[-1].seq
        first = self._spool.oldest(epoch) or self._numbering.next
        batch = Backlog(
            epoch=epoch,
            first=first,
            next=rows[-1].seq + 1 if rows else first,
            messages=tuple((row.topic, with_epoch(row.epoch, row.kept)) for row in rows),
            now=None if epoch == self._numbering.epoch else self._numbering.epoch,
        )
        self._outgoing.append(Outgoing(topic=self.topics.backlog(self.key), payload=encode_backlog(batch)))
        self.resent += len(rows)
        late.has_said_first |= epoch == self._numbering.epoch
        late.due, late.on_the_way = now + _BATCH_SPACING, late.on_the_way + bool(rows)

    def _presence(self, state: PresenceState, session: str, time: int, *, has_log: bool = True) -> Outgoing:
        presence = Presence(
            state=state,
            session=session,
            time=time,
            version=self._version,
            epoch=self._numbering.epoch if has_log else None,
            next=self._numbering.next if has_log else None,
            process=self._process,
            since=self._since,
        )
        return Outgoing(topic=self.topics.presence(self.key.record), payload=encode_presence(presence), retain=True)


class _Late:
    """What of the spool is sent late: the rows after `after` and below `below`, batch by batch."""

    def __init__(self, *, below: int, due: float) -> None:
        self.after, self.below, self.due = 0, below, due
        self.on_the_way = 0
        self.has_said_first = False


def _absolute(deadbands: Mapping[str, float]) -> dict[str, Deadband]:
    return {name: Deadband(absolute=value) for name, value in deadbands.items()}


def _through(ack: Ack | None, epoch: int) -> int:
    if ack is None:
        return 0
    return ack.position.seq if ack.position.epoch == epoch else ack.former.get(epoch, 0)
