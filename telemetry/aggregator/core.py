"""What the aggregator does with messages and with time: no I/O, no clock of its own.

Messages go in by `receive`, time by `tick`; what has to be stored comes out of `take_batch`, and what has to be
published once that is committed out of `take_outgoing`.
"""

import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

from telemetry.aggregator.agents import AgentRecord, NetState
from telemetry.aggregator.mirror import MirroredRecord
from telemetry.aggregator.snapshots import Resubscriptions, SnapshotSchedule
from telemetry.config import Intervals
from telemetry.errors import WireError
from telemetry.fields import Owner
from telemetry.follow import Arrival, Follower
from telemetry.stores import Batch, EventRow, HistoryRow, RejectedRow, Stored
from telemetry.topics import Address, AgentKey, Channel, RecordKey, Topics, sender_of
from telemetry.wire import (
    Admitted,
    Change,
    Digests,
    Outgoing,
    admit,
    decode_backlog,
    decode_change,
    decode_presence,
    decode_resubscribe,
    encode_ack,
    encode_request,
    encode_snapshot,
)

_log = logging.getLogger(__name__)

REQUESTS_A_SECOND, REQUEST_BURST = 50.0, 100.0
"""How fast the fleet is asked: what it answers with are full reports."""

TICK = 0.5
"""Seconds between looks at the whole fleet."""

_OLD_LOG_SPACING = 30.0
_FARTHEST_EPOCH = 10 * 365 * 86_400_000
_START_GRACE = 20.0
_LONGEST_KEPT_PAYLOAD = 1024
_MOST_UNKNOWN = 1000


COUNTS = ("messages", "changes", "late", "duplicates", "lost", "rejected", "requests", "defects", "snapshots")
"""What is counted since the start of the process, as `health` says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A message as it came: `now` is the monotonic clock in seconds, `time` Unix milliseconds.

    A `retained` one was published before the subscription, so it is no sign of life.
    """

    topic: str
    payload: bytes
    now: float
    time: int
    retained: bool = False


class Core:
    """The fleet as one aggregator holds it."""

    def __init__(
        self, *, name: str, topics: Topics, intervals: Intervals, stored: Stored, now: float, time: int
    ) -> None:
        self._name, self._topics, self._intervals = name, topics, intervals
        self._records = {key: MirroredRecord(key, one) for key, one in stored.records.items()}
        # Nobody was heard while no aggregator ran; after it all have a moment before their silence counts.
        oldest = now - max(0.0, intervals.stale - _START_GRACE)
        self._agents = {
            key: AgentRecord(key, now=max(oldest, now - max(0, time - one.heard) / 1000), stored=one)
            for key, one in stored.agents.items()
        }
        self._batch = Batch()
        self._dirty_records: set[RecordKey] = set()
        self._dirty_agents: set[AgentKey] = set()
        self._outgoing: list[Outgoing] = []
        self._snapshots = SnapshotSchedule(spacing=intervals.snapshot, refresh=intervals.refresh)
        self._resubscriptions = Resubscriptions()
        self._tokens = REQUEST_BURST
        self._ticked = now - TICK
        self._unknown: set[tuple[str, str]] = set()
        self._hurried: set[AgentKey] = set()
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))

    def receive(self, incoming: Incoming) -> None:
        """Take in one message. One that cannot be used is kept among the rejected, and does nothing else."""
        self.counts["messages"] += 1
        address = self._topics.parse(incoming.topic)
        if address is None:
            self._reject(incoming, "no miner, host or agent has this topic")
            return
        try:
            match address.channel:
                case Channel.CHANGE:
                    self._change(address, incoming)
                case Channel.PRESENCE:
                    self._presence(address, incoming)
                case Channel.BACKLOG:
                    self._backlog(address, incoming)
                case Channel.RESUBSCRIBE:
                    self._resubscriptions.ask(address.record.minerId, decode_resubscribe(incoming.payload))
        except WireError as error:
            self._reject(incoming, str(error))

    def tick(self, *, now: float, time: int) -> None:
        """Let time pass: silence, deaths, requests, acknowledgements, and the snapshots that are due."""
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
            for agent in self._agents.values():
                self._look_at(agent, now, time)

    def health(self) -> dict[str, int]:
        """What was counted since the start, and how the fleet is: agents by state, and those that are asked."""
        states = Counter(agent.state for agent in self._agents.values())
        counted = {f"agents{state.value.capitalize()}": states[state] for state in NetState}
        unmended = sum(not agent.follower.is_mended(agent.topics) for agent in self._agents.values())
        return {**self.counts, **counted, "agentsUnmended": unmended, "records": len(self._records)}

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
        for key in self._dirty_records:
            record = self._records.get(key)
            self._batch.records[key] = record.stored() if record else None
        for agent_key in self._dirty_agents:
            agent = self._agents.get(agent_key)
            self._batch.agents[agent_key] = agent.stored() if agent else None
        batch, self._batch = self._batch, Batch()
        self._dirty_records.clear()
        self._dirty_agents.clear()
        return batch

    def take_outgoing(self) -> list[Outgoing]:
        """What has to be published, once the batch taken before it is committed."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def _change(self, address: Address, incoming: Incoming) -> None:
        change = decode_change(incoming.payload)
        agent = self._heard_agent(address, incoming)
        if self._apply(agent, address, change, incoming):
            self._turned(agent, agent.live(), incoming.now, incoming.time)

    def _apply(self, agent: AgentRecord, address: Address, change: Change, incoming: Incoming) -> bool:
        """Follow the log, and mirror what the message says; whether it was new."""
        follower = self._log_of(agent, change.epoch, incoming)
        if follower is None:
            self._answer_old_log(agent, incoming.now)
            return False
        is_next = follower.is_whole(incoming.topic) and change.seq == (follower.position or 0) + 1
        if follower.arrive(change.position) is not Arrival.NEW:
            self.counts["duplicates"] += 1
            return False
        self._dirty_agents.add(agent.key)
        key = address.record
        assert address.owner is not None
        admitted = admit(key.record, address.owner, change.values)
        self._tell(address, admitted, incoming)
        if admitted.values or change.gone or change.full:
            self.counts["changes"] += 1
            row = HistoryRow(
                key, address.owner, change.position, change.time, incoming.time, change.full,
                admitted.values, change.gone,
            )  # fmt: skip
            self._batch.history.append(row)
        if follower is agent.follower:
            self._follow(agent, change, incoming)
            self._mirror(address, change, admitted, incoming, is_next=is_next)
        return True

    def _log_of(self, agent: AgentRecord, epoch: int, incoming: Incoming) -> Follower | None:
        """The log that is followed under an epoch; None for one that is behind the known one."""
        if epoch > incoming.time + _FARTHEST_EPOCH:
            raise WireError("epoch: more than ten years ahead")
        if agent.logs.begins(epoch):
            agent.topics.clear()
        return agent.logs.of(epoch)

    def _follow(self, agent: AgentRecord, change: Change, incoming: Incoming) -> None:
        agent.topics.add(incoming.topic)
        if change.full:
            agent.follower.stand_full(incoming.topic, change.position)
            if not change.values:
                # It states nothing there any more: nothing has to be asked for until it does.
                agent.topics.discard(incoming.topic)

    def _mirror(
        self, address: Address, change: Change, admitted: Admitted, incoming: Incoming, *, is_next: bool
    ) -> None:
        assert address.owner is not None
        key = address.record
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = MirroredRecord(key)
            self._mirror_net_state(record)
        if change.full and not change.first and is_next:
            self._compare(address.agent, record, address.owner, admitted, incoming.time)
        altered = record.apply(address.owner, change, admitted.values)
        if altered or change.full:
            self._snapshots.changed(key, incoming.now)
        if admitted.values or change.gone:
            self._dirty_records.add(key)

    def _compare(
        self, agent: AgentKey, record: MirroredRecord, owner: Owner, admitted: Admitted, time: int
    ) -> None:  # fmt: skip
        """Hold a full report, which says nothing new, against the mirror: where they differ, one of us has a defect."""
        told = {name: value for name, value in admitted.values.items() if name not in admitted.unknown}
        held = record.stated_by(owner)
        different = sorted(name for name in told.keys() | held.keys() if told.get(name) != held.get(name))
        if different:
            self.counts["defects"] += 1
            self._batch.events.append(EventRow(time, agent, "defect", f"{record.key}: {', '.join(different)}"))
            _log.error("%s: differs from the full report of %s: %s", record.key, agent, ", ".join(different))

    def _presence(self, address: Address, incoming: Incoming) -> None:
        if not incoming.payload:
            self._forget(address.record, address.agent, incoming.time)
            return
        presence = decode_presence(incoming.payload)
        agent = self._heard_agent(address, incoming)
        self._dirty_agents.add(agent.key)
        turned = agent.see(presence, incoming.now, self._intervals)
        self._turned(agent, turned, incoming.now, incoming.time)

    def _backlog(self, address: Address, incoming: Incoming) -> None:
        batch = decode_backlog(incoming.payload)
        agent = self._heard_agent(address, incoming)
        if isinstance(batch, Digests):
            return
        if batch.epoch >= agent.follower.epoch:
            self._log_of(agent, batch.epoch, incoming)
        follower = agent.logs.keep(batch.epoch, batch.now)
        if follower is None:
            self._answer_old_log(agent, incoming.now)
            return
        self._dirty_agents.add(agent.key)
        self.counts["late"] += len(batch.messages)
        agent.late += len(batch.messages)
        for topic, payload in batch.messages:
            self._late(agent, replace(incoming, topic=topic, payload=payload))
        lost = follower.lost
        follower.begin_at(batch.epoch, batch.first)
        if follower.lost > lost:
            self.counts["lost"] += follower.lost - lost
            missing = f"{follower.lost - lost} messages lost"
            self._batch.events.append(EventRow(incoming.time, agent.key, "missing", missing))
        for topic in agent.topics:
            stated = self._topics.parse(topic)
            if stated is not None and stated.record in self._records:
                self._snapshots.changed(stated.record, incoming.now)
        if batch.messages or agent.acknowledged is None or agent.acknowledged.position.epoch != agent.follower.epoch:
            # The next batch waits for it; what was a duplicate is acknowledged again.
            agent.acknowledged, agent.ack_due = None, incoming.now
            self._hurried.add(agent.key)

    def _late(self, agent: AgentRecord, incoming: Incoming) -> None:
        address = self._topics.parse(incoming.topic)
        if address is None or address.channel is not Channel.CHANGE or address.agent != agent.key:
            self._reject(incoming, f"no topic of {agent.key}")
            return
        try:
            self._apply(agent, address, decode_change(incoming.payload), incoming)
        except WireError as error:
            self._reject(incoming, str(error))

    def _forget(self, key: RecordKey, agent_key: AgentKey, time: int) -> None:
        """An empty presence: an operator cleared it, and wants the record and its agent to be gone."""
        known = self._agents.pop(agent_key, None) is not None
        if self._records.pop(key, None) is not None:
            known = True
            self._dirty_records.add(key)
            self._snapshots.forget(key)
            for owner in key.record.senders:
                if (sender := self._agents.get(sender_of(key, owner))) is not None:
                    sender.topics.discard(self._topics.change(key, owner))
            self._outgoing.append(Outgoing(topic=self._topics.snapshot(key), payload=b"", retain=True))
        if known:
            self._dirty_agents.add(agent_key)
            self._batch.events.append(EventRow(time, agent_key, "forgotten", ""))
            self._outgoing.append(Outgoing(topic=self._topics.ack(agent_key, self._name), payload=b"", retain=True))

    def _heard_agent(self, address: Address, incoming: Incoming) -> AgentRecord:
        agent = self._agents.get(address.agent)
        if agent is None:
            agent = self._agents[address.agent] = AgentRecord(address.agent, now=incoming.now)
        if not incoming.retained:
            agent.hear(incoming.now, incoming.time)
        return agent

    def _look_at(self, agent: AgentRecord, now: float, time: int) -> None:
        self._turned(agent, agent.grow_old(now, self._intervals), now, time)
        if self._tokens >= 1 and agent.is_asked(now, agent.topics):
            self._tokens -= 1
            agent.asked(now)
            self.counts["requests"] += 1
            self._outgoing.append(Outgoing(topic=self._topics.request(agent.key), payload=encode_request()))
        self._acknowledge(agent, now)

    def _acknowledge(self, agent: AgentRecord, now: float) -> None:
        committed = agent.committed
        if committed is not None and committed != agent.acknowledged and now >= agent.ack_due:
            topic = self._topics.ack(agent.key, self._name)
            self._outgoing.append(Outgoing(topic=topic, payload=encode_ack(committed), retain=True))
            agent.acknowledged, agent.ack_due = committed, now + self._intervals.acknowledge

    def _turned(self, agent: AgentRecord, state: NetState | None, now: float, time: int) -> None:
        """Note that an agent came or went."""
        if state is None:
            return
        agent.since = time
        self._dirty_agents.add(agent.key)
        self._batch.events.append(EventRow(time, agent.key, state.value, ""))
        record = self._records.get(agent.key.record)
        if record is not None and self._mirror_net_state(record):
            self._dirty_records.add(record.key)
            self._snapshots.changed(record.key, now)

    def _mirror_net_state(self, record: MirroredRecord) -> bool:
        agent = self._agents.get(AgentKey.of(record.key))
        if agent is None or agent.state is NetState.UNKNOWN:
            return False
        record.state("netSince", agent.since)
        return record.state("netState", agent.state.value)

    def _tell(self, address: Address, admitted: Admitted, incoming: Incoming) -> None:
        for reason in admitted.refused:
            self._reject(incoming, reason)
        for name in admitted.unknown:
            seen = (address.record.record.name, name)
            if seen not in self._unknown and len(self._unknown) < _MOST_UNKNOWN:
                self._unknown.add(seen)
                _log.warning("%s: unknown field %s from %s, a newer agent: kept as it is", *seen, address.agent)

    def _reject(self, incoming: Incoming, reason: str) -> None:
        self.counts["rejected"] += 1
        kept = incoming.payload[:_LONGEST_KEPT_PAYLOAD]
        self._batch.rejected.append(RejectedRow(incoming.time, incoming.topic[:512], reason, kept))

    def _answer_old_log(self, agent: AgentRecord, now: float) -> None:
        """Tell an agent whose log is behind the known one how far that goes, so that it renames its own."""
        acknowledged_at = agent.ack_due - self._intervals.acknowledge
        if agent.acknowledged is None or now >= acknowledged_at + _OLD_LOG_SPACING:
            agent.acknowledged, agent.ack_due = None, now

    def _publish_snapshot(self, key: RecordKey, now: float) -> None:
        record = self._records.get(key)
        if record is None or not record.has_fields:
            return
        for owner in key.record.senders:
            agent = self._agents.get(sender_of(key, owner))
            if agent is not None:
                record.make_whole(owner, agent.follower.whole_position(self._topics.change(key, owner)))
        self.counts["snapshots"] += 1
        payload = encode_snapshot(record.snapshot())
        self._outgoing.append(Outgoing(topic=self._topics.snapshot(key), payload=payload, retain=True))
        self._snapshots.published(key, now)

    def _records_of(self, miner: str, hosts: Collection[str] | None) -> list[RecordKey]:
        if hosts is not None:
            return [RecordKey(miner, host) for host in hosts]
        return [key for key in self._records if key.minerId == miner]
