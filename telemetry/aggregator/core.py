"""What the aggregator does with messages and with time: no I/O, no clock of its own.

Messages go in by `receive_all`, time by `tick`; what has to be stored comes out of `take_batch`, and what has to be
published once that is committed out of `take_outgoing`.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Protocol

from telemetry.admission import Form, admission
from telemetry.aggregator.agents import AgentRecord, NetState
from telemetry.aggregator.health import BrokerWatch
from telemetry.aggregator.limits import (
    BATCHES_COST,
    BURST,
    MESSAGE_COST,
    MOST_HOSTS,
    NOTES,
    NOTES_A_SECOND,
    Bucket,
    Buckets,
)
from telemetry.aggregator.mirror import MirroredRecord
from telemetry.aggregator.snapshots import Resubscriptions, SnapshotSchedule
from telemetry.config import Intervals
from telemetry.errors import WireError
from telemetry.fields import Owner, Value
from telemetry.follow import Arrival, Follower
from telemetry.health import AGENT_HEALTH
from telemetry.stores import Batch, EventRow, HealthRow, HistoryRow, Moved, RejectedRow, Stored, Violated
from telemetry.topics import Address, AgentKey, Channel, RecordKey, Topics, sender_of
from telemetry.wire import (
    Change,
    Digests,
    Outgoing,
    Position,
    decode_backlog,
    decode_change,
    decode_health,
    decode_presence,
    decode_resubscribe,
    encode_ack,
    encode_request,
    new_tuple,
)

if TYPE_CHECKING:
    from telemetry.stores.state import Part

_log = logging.getLogger(__name__)

REQUESTS_A_SECOND, REQUEST_BURST = 50.0, 100.0
"""How fast the fleet is asked: what it answers with are full reports."""

TICK = 0.5
"""Seconds between looks at the whole fleet."""

MIRROR_SPACING = 1.0
"""Seconds that the stored records may be behind the history, where more have changed than are written at once."""

WRITTEN_AT_ONCE = 500
"""Records that have changed: so few are written with every batch."""

_OLD_LOG_SPACING = 30.0
_FARTHEST_EPOCH = 10 * 365 * 86_400_000
_START_GRACE = 20.0
_LONGEST_KEPT_PAYLOAD, _LONGEST_KEPT_TOPIC = 1024, 512
_MOST_UNKNOWN = 1000
_LIMITED_AGAIN = 3600.0
"""Seconds until it is told again that an agent is limited."""

_LIMITED_STILL = 60.0
_ANYBODY = ""
"""In the place of an agent's name: those who ask for snapshots, and those whose topics are none."""


COUNTS = (
    "messages", "changes", "late", "duplicates", "lost", "limited", "rejected", "violations", "requests", "defects",
    "snapshots",
)  # fmt: skip
"""What is counted since the start of the process, as `health` says it."""


class Message(Protocol):
    """A message as it came. A `retained` one was published before the subscription, so it is no sign of life."""

    @property
    def topic(self) -> str: ...  # noqa: D102

    @property
    def payload(self) -> bytes: ...  # noqa: D102

    @property
    def retained(self) -> bool: ...  # noqa: D102


class _Feed:
    """All that a topic of changes stands for, found once: who states what, in whose log, of which record."""

    __slots__ = ("admission", "agent", "allowance", "owner", "part", "record", "stated_in", "topic")

    def __init__(self, topic: str, owner: Owner, agent: AgentRecord, record: MirroredRecord, allowance: Bucket) -> None:
        self.topic, self.owner, self.agent, self.record = topic, owner, agent, record
        self.allowance = allowance
        self.admission = admission(record.key.record, owner)
        self.part = record.part(owner)
        # The log whose `topics` are known to have this one.
        self.stated_in: Follower | None = None


class Core:
    """The fleet as one aggregator holds it. `rate`: bytes a second that it takes from one agent."""

    def __init__(
        self, *, name: str, topics: Topics, intervals: Intervals, stored: Stored, now: float, time: int,
        rate: float = inf, written_at_once: int = WRITTEN_AT_ONCE,
    ) -> None:  # fmt: skip
        self._name, self._topics, self._intervals = name, topics, intervals
        self._records = {key: MirroredRecord(key, one) for key, one in stored.records.items()}
        # Nobody was heard while no aggregator ran; after it all have a moment before their silence counts.
        oldest = now - max(0.0, intervals.stale - _START_GRACE)
        self._agents = {
            key: AgentRecord(key, now=max(oldest, now - max(0, time - one.heard) / 1000), stored=one)
            for key, one in stored.agents.items()
        }
        self._hosts = Counter(key.minerId for key in self._records if key.hostName is not None)
        self._allowances = Buckets(rate=rate, most=rate * BURST)
        self._reserve = min(BATCHES_COST, rate * BURST / 2)
        self._notes = Buckets(rate=NOTES_A_SECOND, most=NOTES)
        self._limited: dict[AgentKey, float] = {}
        self._feeds: dict[str, _Feed] = {}
        self._now, self._time = now, time
        self._batch = Batch()
        self._moved: set[AgentRecord] = set()
        self._dirty_records: set[MirroredRecord] = set()
        self._forgotten: set[RecordKey] = set()
        self._dirty_agents: set[AgentKey] = set()
        self._outgoing: list[Outgoing] = []
        self._snapshots = SnapshotSchedule(spacing=intervals.snapshot, refresh=intervals.refresh)
        self._resubscriptions = Resubscriptions()
        self._tokens = REQUEST_BURST
        self._ticked = now - TICK
        # Of each record the topic of its snapshot, and of its parts the topic of their changes and who states them.
        self._shown: dict[RecordKey, tuple[str, list[tuple[Part, str, AgentKey]]]] = {}
        self._unknown: set[tuple[str, str]] = set()
        self._hurried: set[AgentKey] = set()
        self._written_at_once, self._mirror_due = written_at_once, now
        self.counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self.violations: Counter[str] = Counter()
        self.broker = BrokerWatch()
        # Who asks for snapshots sees by the health that follows that somebody hears it, and how our clock is.
        self.is_asked_how_it_is = False
        self._first_sampled: int | None = None
        self._catch_up(stored.behind)

    def receive_all(self, messages: Iterable[Message], *, now: float, time: int) -> None:
        """Take in messages. One that cannot be used is kept among the rejected, and does nothing else.

        `now` is the monotonic clock in seconds, `time` Unix milliseconds: one moment for all that came together.
        """
        self._now, self._time = now, time
        feeds, counts = self._feeds, self.counts
        for message in messages:
            topic, payload = message.topic, message.payload
            feed = feeds.get(topic)
            if feed is None:
                self._receive(topic, payload, retained=message.retained)
                continue
            counts["messages"] += 1
            if not feed.allowance.take(len(payload) + MESSAGE_COST, now):
                self._limit(feed.agent.key)
                continue
            try:
                self._change(feed, decode_change(payload), payload, retained=message.retained)
            except WireError as error:
                self._reject(feed.agent.key, topic, payload, str(error))

    def _receive(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take in what is not one more change of a known topic."""
        if self.broker.take(topic, payload):
            return
        self.counts["messages"] += 1
        address = self._topics.parse(topic)
        sender = _sender(address)
        # What is empty, an operator's word to forget the agent, is heard whatever that one does.
        if payload and not self._allowances.of(sender, self._now).take(len(payload) + MESSAGE_COST, self._now):
            self._limit(sender)
            return
        try:
            if address is not None:
                self._take(address, topic, payload, retained=retained)
            else:
                self._reject(sender, topic, payload, "no miner, host or agent has this topic")
        except WireError as error:
            self._reject(sender, topic, payload, str(error))

    def _take(self, address: Address, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take in what comes seldom: presences, batches, resubscriptions, and the first change of a topic."""
        match address.channel:
            case Channel.CHANGE:
                change = decode_change(payload)
                self._change(self._feed(address, topic), change, payload, retained=retained)
            case Channel.PRESENCE:
                self._presence(address, payload, retained=retained)
            case Channel.BACKLOG:
                self._backlog(address, payload, retained=retained)
            case Channel.RESUBSCRIBE:
                self._resubscriptions.ask(address.record.minerId, decode_resubscribe(payload))
                self.is_asked_how_it_is = True
            case Channel.HEALTH if not retained and address.agent in self._agents:
                report = decode_health(AGENT_HEALTH, payload)
                self.keep(HealthRow(AGENT_HEALTH.name, str(address.agent), *report, received=self._time))

    def tick(self, *, now: float, time: int) -> None:
        """Let time pass: silence, deaths, requests, acknowledgements, and the snapshots that are due."""
        self._now, self._time = now, time
        for miner, hosts in self._resubscriptions.pop_due(now):
            for key in self._records_of(miner, hosts):
                self._publish_snapshot(key, now)
        for key in self._snapshots.pop_due(now):
            self._publish_snapshot(key, now)
        for hurried in self._hurried:
            if (waiting := self._agents.get(hurried)) is not None:
                self._acknowledge(waiting, now)
        self._hurried.clear()
        if now >= self._ticked + TICK:
            self._tokens = min(REQUEST_BURST, self._tokens + (now - self._ticked) * REQUESTS_A_SECOND)
            self._ticked = now
            for agent in [agent for agent in self._agents.values() if agent.due <= now]:
                self._look_at(agent, now)

    def retune(self, intervals: Intervals, now: float) -> None:
        """Go by other intervals from now on."""
        self._intervals = intervals
        self._snapshots.retune(spacing=intervals.snapshot, refresh=intervals.refresh, now=now)
        for agent in self._agents.values():
            agent.ack_due = min(agent.ack_due, now + intervals.acknowledge)
            agent.wake()

    def metrics(self) -> dict[str, float]:
        """What was counted since the start, and how the fleet is: agents by state, and those that are asked."""
        states = Counter(agent.state for agent in self._agents.values())
        counted = {f"agents{state.value.capitalize()}": states[state] for state in NetState}
        unmended = sum(not agent.follower.is_mended(agent.topics) for agent in self._agents.values())
        counted |= {"agentsLimited": self._allowances.refusing(self._now - _LIMITED_STILL), "agentsUnmended": unmended}
        held = {"records": len(self._records), "dirtyRecords": len(self._dirty_records)}
        return {**self.counts, **counted, **held}

    def keep(self, health: HealthRow) -> None:
        """Have the next batch store how a part is."""
        self._batch.health[health.kind, health.name] = health

    def take_first_sampled(self) -> int | None:
        """When the values of the first change that came since the last call were sampled (Unix ms), if any came."""
        first, self._first_sampled = self._first_sampled, None
        return first

    def next_due(self, now: float) -> float:
        """Seconds until `tick` has something to do."""
        due = self._ticked + TICK
        snapshot = self._snapshots.next_due()
        return max(0.0, (due if snapshot is None else min(due, snapshot)) - now)

    def connected(self, now: float) -> None:
        """The broker may have lost what it retained: snapshots and acknowledgements are published again."""
        for key in self._records:
            self._snapshots.changed(key, now)
        for agent in self._agents.values():
            agent.connected(now)

    def take_batch(self) -> Batch:
        """What has to be stored since the last call."""
        if len(self._dirty_records) <= self._written_at_once or self._now >= self._mirror_due:
            self._write_mirror()
        else:
            self._batch.is_behind = True
        for agent_key in self._dirty_agents:
            agent = self._agents.get(agent_key)
            self._batch.agents[agent_key] = agent.stored() if agent else None
        for moved in self._moved:
            position = moved.logs.present.position
            if moved.key not in self._batch.agents and position is not None:
                self._batch.moved[moved.key] = Moved(position, moved.heard_time)
        batch, self._batch = self._batch, Batch()
        self._dirty_agents.clear()
        self._moved.clear()
        return batch

    def take_outgoing(self) -> list[Outgoing]:
        """What has to be published, once the batch taken before it is committed."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def mirror_all(self) -> None:
        """Have the next batch write all that has changed, as before the end."""
        self._mirror_due = self._now

    def _write_mirror(self) -> None:
        self._mirror_due = self._now + MIRROR_SPACING
        self._batch.records.update(dict.fromkeys(self._forgotten))
        for record in self._dirty_records:
            if self._records.get(record.key) is record:
                self._batch.records[record.key] = record.stored()
        self._forgotten.clear()
        self._dirty_records.clear()

    def _catch_up(self, behind: Sequence[HistoryRow]) -> None:
        """Mirror again what a process that ended had not written to the records yet."""
        for row in behind:
            sender = self._agents.get(sender_of(row.record, row.owner))
            if sender is None or row.position.epoch != sender.follower.epoch:
                continue  # of an earlier log: it belongs to the history only
            record = self._keep(self._records.get(row.record) or MirroredRecord(row.record))
            epoch, seq = row.position
            change = Change(epoch, seq, row.time, None, row.full, values=row.values, gone=row.gone)
            record.apply(record.part(row.owner), change, row.values)
            self._dirty_records.add(record)
        for record in self._records.values():
            if self._mirror_net_state(record):
                self._dirty_records.add(record)

    def _change(self, feed: _Feed, change: Change, payload: bytes, *, retained: bool) -> None:
        agent = feed.agent
        if not retained:
            agent.hear(self._now, self._time)
        if self._first_sampled is None:
            self._first_sampled = change.time
        if self._apply(feed, change, payload) and not agent.is_live:
            self._turned(agent, agent.live())

    def _apply(self, feed: _Feed, change: Change, payload: bytes) -> bool:
        """Follow the log, and mirror what the message says; whether it was new."""
        epoch, seq, time, _, full, first, values, gone = change
        agent = feed.agent
        present = agent.logs.present
        follower = present if epoch == present.epoch else self._log_of(agent, epoch)
        if follower is None:
            self._answer_old_log(agent)
            return False
        is_next = follower.step(epoch, seq)
        if not is_next and follower.arrive(change.position) is not Arrival.NEW:
            self.counts["duplicates"] += 1
            return False
        form = feed.admission.form_of(values)
        if form is None:
            values = self._admit(feed, values, payload)
        if values or gone or full:
            self.counts["changes"] += 1
            position = new_tuple(Position, (epoch, seq))
            row = feed.record.key, feed.owner, position, time, self._time, full, values, gone
            self._batch.history.append(new_tuple(HistoryRow, row))
        if follower is not agent.logs.present:
            self._altered(agent)
            return True
        if is_next and full and not first and follower.is_whole(feed.topic):
            self._compare(feed, values)
        if is_next and not full and feed.stated_in is follower:
            self._moved.add(agent)
            agent.moved()
        else:
            self._follow(feed, change)
        self._mirror(feed, change, values, form)
        return True

    def _log_of(self, agent: AgentRecord, epoch: int) -> Follower | None:
        """The log that is followed under another epoch than the present; None for one behind it that is not known."""
        if epoch > self._time + _FARTHEST_EPOCH:
            raise WireError("epoch: more than ten years ahead")
        if agent.logs.begins(epoch):
            agent.topics.clear()
            # What its former log said last is not caught up with.
            self.mirror_all()
        return agent.logs.of(epoch)

    def _follow(self, feed: _Feed, change: Change) -> None:
        """Note more of an agent's log than that it went on."""
        agent = feed.agent
        self._altered(agent)
        if change.full:
            agent.follower.stand_full(feed.topic, change.position)
        if change.full and not change.values:
            # It states nothing there any more: nothing has to be asked for until it does.
            agent.topics.discard(feed.topic)
            feed.stated_in = None
        else:
            agent.topics.add(feed.topic)
            feed.stated_in = agent.follower

    def _altered(self, agent: AgentRecord) -> None:
        self._dirty_agents.add(agent.key)
        agent.wake()

    def _mirror(self, feed: _Feed, change: Change, values: Mapping[str, Value], form: Form | None) -> None:
        record = feed.record
        if feed.topic not in self._feeds:
            self._feeds[feed.topic] = feed
            self._keep(record)
            self._mirror_net_state(record)
        if record.apply(feed.part, change, values, form) or change.full:
            self._snapshots.changed(record.key, self._now)
        if values or change.gone or change.full:
            self._dirty_records.add(record)

    def _compare(self, feed: _Feed, values: Mapping[str, Value]) -> None:
        """Hold a full report, which says nothing new, against the mirror: where they differ, one of us has a defect."""
        record, agent = feed.record, feed.agent.key
        declared = record.key.record.by_name
        told = {name: value for name, value in values.items() if name in declared}
        held = {name: one.value for name, one in record.held(feed.owner).items() if name in declared}
        different = sorted(name for name in told.keys() | held.keys() if told.get(name) != held.get(name))
        if different:
            self.counts["defects"] += 1
            if self._note(agent, "defect", f"{record.key}: {', '.join(different)}"):
                _log.error("%s: differs from the full report of %s: %s", record.key, agent, ", ".join(different))

    def _presence(self, address: Address, payload: bytes, *, retained: bool) -> None:
        if not payload:
            self._forget(address.record, address.agent)
            return
        presence = decode_presence(payload)
        agent = self._heard_agent(address.agent, retained=retained)
        self._altered(agent)
        self._turned(agent, agent.see(presence, self._now, self._intervals))

    def _backlog(self, address: Address, payload: bytes, *, retained: bool) -> None:
        batch = decode_backlog(payload)
        agent = self._heard_agent(address.agent, retained=retained)
        if isinstance(batch, Digests):
            return
        allowance = self._allowances.of(agent.key, self._now)
        allowance.charge(len(batch.messages) * MESSAGE_COST)
        if agent.logs.begins(batch.epoch):
            self._log_of(agent, batch.epoch)
        follower = agent.logs.keep(batch.epoch, batch.now)
        if follower is None:
            self._answer_old_log(agent)
            return
        self._altered(agent)
        self.counts["late"] += len(batch.messages)
        agent.late += len(batch.messages)
        for topic, late in batch.messages:
            self._late(agent, topic, late)
        lost = follower.lost
        follower.begin_at(batch.epoch, batch.first)
        if follower.lost > lost:
            self.counts["lost"] += follower.lost - lost
            self._note(agent.key, "missing", f"{follower.lost - lost} messages lost")
        for topic in agent.topics:
            stated = self._stated(topic)
            if stated in self._records:
                self._snapshots.changed(stated, self._now)
        if batch.messages or agent.acknowledged is None or agent.acknowledged.position.epoch != agent.follower.epoch:
            # The next batch waits for it; what was a duplicate is acknowledged again.
            wait = allowance.wait(self._reserve, self._now)
            agent.acknowledged, agent.ack_due = None, self._now + wait
            if not wait:
                self._hurried.add(agent.key)

    def _stated(self, topic: str) -> RecordKey | None:
        """The record that a topic is about."""
        if (feed := self._feeds.get(topic)) is not None:
            return feed.record.key
        address = self._topics.parse(topic)
        return None if address is None else address.record

    def _late(self, agent: AgentRecord, topic: str, payload: bytes) -> None:
        address = self._topics.parse(topic)
        if address is None or address.channel is not Channel.CHANGE or address.agent != agent.key:
            self._reject(agent.key, topic, payload, f"no topic of {agent.key}")
            self._violation(agent.key, topic)
            return
        try:
            change = decode_change(payload)
            self._apply(self._feed(address, topic), change, payload)
        except WireError as error:
            self._reject(agent.key, topic, payload, str(error))

    def _forget(self, key: RecordKey, agent_key: AgentKey) -> None:
        """An empty presence: an operator cleared it, and wants the record and its agent to be gone."""
        known = self._agents.pop(agent_key, None) is not None
        if self._records.pop(key, None) is not None:
            known = True
            self._hosts[key.minerId] -= key.hostName is not None
            self._forgotten.add(key)
            self._shown.pop(key, None)
            self.mirror_all()
            self._snapshots.forget(key)
            for owner in key.record.senders:
                if (sender := self._agents.get(sender_of(key, owner))) is not None:
                    sender.topics.discard(self._topics.change(key, owner))
                    sender.wake()
            self._outgoing.append(Outgoing(topic=self._topics.snapshot(key), payload=b"", retain=True))
        if known:
            # They name an agent or a record that is no more; those that do not are found again.
            self._feeds.clear()
            self._dirty_agents.add(agent_key)
            self._batch.health.pop((AGENT_HEALTH.name, str(agent_key)), None)
            self._event(agent_key, "forgotten")
            self._outgoing.append(Outgoing(topic=self._topics.ack(agent_key, self._name), payload=b"", retain=True))

    def _feed(self, address: Address, topic: str) -> _Feed:
        """What a topic of changes stands for; it is kept, and so is its record, with the first change mirrored."""
        feed = self._feeds.get(topic)
        if feed is None:
            assert address.owner is not None
            record = self._records.get(address.record)
            miner, host = address.record
            if record is None and host is not None and self._hosts[miner] >= MOST_HOSTS:
                raise WireError(f"{miner} has {MOST_HOSTS} hosts already")
            allowance = self._allowances.of(address.agent, self._now)
            record = record or MirroredRecord(address.record)
            feed = _Feed(topic, address.owner, self._agent(address.agent), record, allowance)
        return feed

    def _keep(self, record: MirroredRecord) -> MirroredRecord:
        if record.key not in self._records:
            self._records[record.key] = record
            self._hosts[record.key.minerId] += record.key.hostName is not None
        return record

    def _agent(self, key: AgentKey) -> AgentRecord:
        agent = self._agents.get(key)
        if agent is None:
            agent = self._agents[key] = AgentRecord(key, now=self._now)
        return agent

    def _heard_agent(self, key: AgentKey, *, retained: bool) -> AgentRecord:
        agent = self._agent(key)
        if not retained:
            agent.hear(self._now, self._time)
        return agent

    def _look_at(self, agent: AgentRecord, now: float) -> None:
        self._turned(agent, agent.grow_old(now, self._intervals))
        if self._tokens >= 1 and agent.is_asked(now, agent.topics):
            self._tokens -= 1
            agent.asked(now)
            self.counts["requests"] += 1
            self._outgoing.append(Outgoing(topic=self._topics.request(agent.key), payload=encode_request()))
        self._acknowledge(agent, now)
        agent.rest(self._intervals)

    def _acknowledge(self, agent: AgentRecord, now: float) -> None:
        committed = agent.committed
        if committed is not None and committed != agent.acknowledged and now >= agent.ack_due:
            topic = self._topics.ack(agent.key, self._name)
            self._outgoing.append(Outgoing(topic=topic, payload=encode_ack(committed), retain=True))
            agent.acknowledge(committed, now, self._intervals)

    def _turned(self, agent: AgentRecord, state: NetState | None) -> None:
        """Note that an agent came or went."""
        if state is None:
            return
        agent.since = self._time
        self._dirty_agents.add(agent.key)
        self._note(agent.key, state.value)
        record = self._records.get(agent.key.record)
        if record is not None and self._mirror_net_state(record):
            self._dirty_records.add(record)
            self._snapshots.changed(record.key, self._now)

    def _mirror_net_state(self, record: MirroredRecord) -> bool:
        agent = self._agents.get(AgentKey.of(record.key))
        if agent is None or agent.state is NetState.UNKNOWN:
            return False
        record.state("netSince", agent.since)
        return record.state("netState", agent.state.value)

    def _admit(self, feed: _Feed, values: Mapping[str, Value], payload: bytes) -> Mapping[str, Value]:
        """What of a message may enter the record, where that is not all of it, or not all of it is declared."""
        admitted = feed.admission.admit(values)
        for reason in admitted.refused:
            self._reject(feed.agent.key, feed.topic, payload, reason)
        if admitted.is_foreign:
            self._violation(feed.agent.key, feed.topic)
        for name in admitted.unknown:
            seen = (feed.record.key.record.name, name)
            if seen not in self._unknown and len(self._unknown) < _MOST_UNKNOWN:
                self._unknown.add(seen)
                _log.warning("%s: unknown field %s from %s, a newer agent: kept as it is", *seen, feed.agent.key)
        return admitted.values

    def _violation(self, agent: AgentKey, topic: str) -> None:
        """Count that somebody stated what is another's to state; by topic, which is told once."""
        self.counts["violations"] += 1
        if topic in self.violations or len(self.violations) < _MOST_UNKNOWN:
            self.violations[topic] += 1
            kept = topic[:_LONGEST_KEPT_TOPIC]
            before = self._batch.violations.get(kept)
            self._batch.violations[kept] = Violated(agent, 1 + (before.number if before else 0), self._time)
            if self.violations[topic] == 1:
                _log.warning("%s: says what is not its to say, at %s: see `telemetry ls --self`", agent, kept)
                self._event(agent, "violation", kept)

    def _limit(self, sender: AgentKey) -> None:
        """Leave a message: its sender states too much. One that means it has it in its spool, and sends it again."""
        self.counts["limited"] += 1
        if self._now >= self._limited.get(sender, -inf) + _LIMITED_AGAIN:
            self._limited[sender] = self._now
            self._event(sender, "limited")
            _log.warning("%s: states more than is taken from one agent: what is too much is left for later", sender)

    def _event(self, agent: AgentKey, event: str, detail: str = "") -> None:
        self._batch.events.append(EventRow(self._time, agent, event, detail))

    def _note(self, agent: AgentKey, event: str, detail: str = "") -> bool:
        """Keep an event that an agent may bring about as often as it likes; False where there were too many of it."""
        may = self._notes.of(agent, self._now).take(1, self._now)
        if may:
            self._event(agent, event, detail)
        return may

    def _reject(self, sender: AgentKey, topic: str, payload: bytes, reason: str) -> None:
        self.counts["rejected"] += 1
        if not self._notes.of(sender, self._now).take(1, self._now):
            return
        row = RejectedRow(self._time, topic[:_LONGEST_KEPT_TOPIC], reason, payload[:_LONGEST_KEPT_PAYLOAD])
        self._batch.rejected.append(row)

    def _answer_old_log(self, agent: AgentRecord) -> None:
        """Tell an agent whose log is behind the known one how far that goes, so that it renames its own."""
        if agent.acknowledged is None or self._now >= agent.acknowledged_at + _OLD_LOG_SPACING:
            agent.acknowledged, agent.ack_due = None, self._now
            agent.wake()

    def _publish_snapshot(self, key: RecordKey, now: float) -> None:
        record = self._records.get(key)
        if record is None or not record.has_fields:
            return
        shown = self._shown.get(key)
        if shown is None:
            parts = [(part, self._topics.change(key, part.owner), sender_of(key, part.owner)) for part in record.parts]
            shown = self._shown[key] = self._topics.snapshot(key), parts
        snapshot_topic, parts = shown
        for part, topic, sender in parts:
            agent = self._agents.get(sender)
            if agent is not None:
                part.whole = agent.follower.whole_position(topic) or part.whole
        self.counts["snapshots"] += 1
        self._outgoing.append(Outgoing(snapshot_topic, record.snapshot(), retain=True))
        self._snapshots.published(key, now)

    def _records_of(self, miner: str, hosts: Collection[str] | None) -> list[RecordKey]:
        if hosts is not None:
            return [RecordKey(miner, host) for host in hosts]
        return [key for key in self._records if key.minerId == miner]


def _sender(address: Address | None) -> AgentKey:
    """At whose expense a message is. Anybody may ask for snapshots: a miner's agent does not pay for those who do."""
    if address is None:
        return AgentKey(_ANYBODY, _ANYBODY)
    return AgentKey(address.record.minerId, _ANYBODY) if address.channel is Channel.RESUBSCRIBE else address.agent
