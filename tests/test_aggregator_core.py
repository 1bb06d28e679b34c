"""The aggregator's core without broker, database or clock: what it does with messages and with time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from math import inf
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.aggregator.agents import FIRST_REPEAT, GRACE, MOST_DRIFT
from telemetry.aggregator.core import Core
from telemetry.aggregator.limits import BURST, MESSAGE_COST, MOST_HOSTS, NOTES, NOTES_A_SECOND
from telemetry.aggregator.mirror import MirroredRecord
from telemetry.config import Intervals
from telemetry.fields import Owner
from telemetry.mqtt.packets import Message
from telemetry.stores import Batch, Held, RecordRow, Stored
from telemetry.topics import MINER_AGENT, AgentKey, RecordKey, Topics, sender_of
from telemetry.wire import (
    Ack,
    Backlog,
    Change,
    Outgoing,
    Position,
    Presence,
    PresenceState,
    Snapshot,
    decode_ack,
    decode_snapshot,
    encode_backlog,
    encode_change,
    encode_presence,
    encode_resubscribe,
)
from tests.stored import committed

TOPICS = Topics()
HOST = RecordKey("f01234", "seal01")
AGENT = AgentKey("f01234", "seal01")
MINER_SENDER = AgentKey("f01234", MINER_AGENT)
INTERVALS = Intervals(snapshot=5, refresh=60, acknowledge=60, stale=150, lost=15)
EPOCH = 7


class Bench:
    """A core on a clock of its own; what it stores and publishes is gathered as a store and a broker would."""

    def __init__(self, stored: Stored | None = None, *, written_at_once: int = 500, rate: float = inf) -> None:
        self.now = 1000.0
        empty = Stored(records={}, agents={})
        self.core = Core(
            name="main", topics=TOPICS, intervals=INTERVALS, stored=stored or empty, now=self.now, time=0,
            written_at_once=written_at_once, rate=rate,
        )  # fmt: skip
        self.batches: list[Batch] = []
        self.published: list[tuple[float, Outgoing]] = []

    def receive(self, topic: str, payload: bytes, *, retained: bool = False) -> None:
        time = int(self.now * 1000)
        self.core.receive_all([Message(topic, payload, retained, b"")], now=self.now, time=time)

    def change(
        self,
        seq: int,
        *,
        epoch: int = EPOCH,
        full: bool = False,
        gone: tuple[str, ...] = (),
        owner: Owner = Owner.HARDWARE,
        record: RecordKey = HOST,
        **values: Any,
    ) -> None:
        change = Change(epoch=epoch, seq=seq, time=seq, prev=None if full else 0, full=full, values=values, gone=gone)
        self.receive(TOPICS.change(record, owner), encode_change(change))

    def backlog(self, first: int, *, epoch: int = EPOCH, agent: AgentKey = AGENT) -> None:
        """An empty batch, which says that nothing below `first` will come."""
        self.receive(TOPICS.backlog(agent), encode_backlog(Backlog(epoch=epoch, first=first, next=first)))

    def presence(self, state: PresenceState, session: str = "one", *, retained: bool = False) -> None:
        presence = Presence(state=state, session=session, time=1, version="1", epoch=EPOCH, next=1)
        self.receive(TOPICS.presence(HOST), encode_presence(presence), retained=retained)

    def report_whole(self, **values: Any) -> None:
        """The connect routine: a full report as the first message of the log, and an empty batch."""
        self.change(1, full=True, **values)
        self.backlog(1)

    def let(self, seconds: float) -> None:
        """Let time pass in steps as small as the aggregator's own."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.5)
            self.settle()

    def settle(self) -> None:
        """What the aggregator does after each batch."""
        self.core.tick(now=self.now, time=int(self.now * 1000))
        batch = self.core.take_batch()
        if not batch.is_empty:
            self.batches.append(batch)
        self.published += [(self.now, outgoing) for outgoing in self.core.take_outgoing()]

    def when(self, topic: str) -> list[float]:
        """When something was published on the topic."""
        return [now for now, outgoing in self.published if outgoing.topic == topic]

    def snapshots(self, record: RecordKey = HOST) -> list[Snapshot]:
        topic = TOPICS.snapshot(record)
        return [decode_snapshot(one.payload) for _, one in self.published if one.topic == topic and one.payload]

    def snapshot(self) -> Snapshot:
        """The record as its next snapshot shows it."""
        self.let(INTERVALS.snapshot + 1)
        return self.snapshots()[-1]

    @property
    def events(self) -> list[str]:
        return [event.event for batch in self.batches for event in batch.events]

    @property
    def history(self) -> list[int]:
        return [row.position.seq for batch in self.batches for row in batch.history]

    @property
    def rejected(self) -> list[str]:
        return [row.reason for batch in self.batches for row in batch.rejected]

    def stored(self) -> Stored:
        """What a store holds after all batches."""
        return reduce(committed, self.batches, Stored(records={}, agents={}))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_agent_that_falls_silent_is_stale_and_a_message_brings_it_back(bench: Bench) -> None:
    bench.presence(PresenceState.ONLINE)
    bench.report_whole(diskR=1)
    bench.let(INTERVALS.stale - 1)
    assert bench.events == ["online"]
    bench.let(2)
    assert bench.events == ["online", "stale"]
    assert bench.snapshot().values["netState"] == "stale"
    bench.change(2)
    bench.settle()
    assert bench.events == ["online", "stale", "online"]
    assert bench.snapshot().values["netState"] == "online"


def test_heartbeats_keep_an_agent_online(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    for seq in range(2, 10):
        bench.let(INTERVALS.stale / 2)
        bench.change(seq)
    bench.let(1)
    assert bench.events == ["online"]
    assert bench.history == [1]


def test_a_death_is_believed_only_after_the_debounce(bench: Bench) -> None:
    bench.presence(PresenceState.ONLINE)
    bench.presence(PresenceState.LOST)
    bench.let(INTERVALS.lost - 1)
    assert bench.events == ["online"]
    bench.let(2)
    assert bench.events == ["online", "lost"]


def test_an_agent_that_comes_back_within_the_debounce_was_never_lost(bench: Bench) -> None:
    bench.presence(PresenceState.ONLINE, "one")
    bench.presence(PresenceState.LOST, "one")
    bench.let(INTERVALS.lost / 2)
    bench.presence(PresenceState.ONLINE, "two")
    bench.let(2 * INTERVALS.lost)
    assert bench.events == ["online"]


def test_a_new_message_within_the_debounce_refutes_the_death(bench: Bench) -> None:
    bench.presence(PresenceState.ONLINE)
    bench.presence(PresenceState.LOST)
    bench.change(1)
    bench.let(2 * INTERVALS.lost)
    assert bench.events == ["online"]


def test_the_death_of_another_session_is_ignored(bench: Bench) -> None:
    bench.presence(PresenceState.ONLINE, "two")
    bench.presence(PresenceState.LOST, "one")
    bench.let(2 * INTERVALS.lost)
    assert bench.events == ["online"]


def test_a_stopped_agent_stays_stopped_through_silence_and_its_own_will(bench: Bench) -> None:
    bench.presence(PresenceState.ONLINE)
    bench.report_whole(diskR=1)
    bench.presence(PresenceState.STOPPED)
    bench.presence(PresenceState.LOST)
    bench.let(2 * INTERVALS.stale)
    assert bench.events == ["online", "stopped"]
    assert bench.snapshots()[-1].values["netState"] == "stopped"


def test_a_retained_message_is_no_sign_of_life(bench: Bench) -> None:
    bench.presence(PresenceState.ONLINE)
    bench.let(INTERVALS.stale - 1)
    bench.presence(PresenceState.ONLINE, retained=True)
    bench.let(2)
    assert bench.events == ["online", "stale"]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(PresenceState), st.sampled_from(["one", "two"])),
            st.floats(0.5, 200),
        ),
        max_size=12,
    )
)
def test_an_agent_that_is_heard_last_is_online_whatever_was_said_of_it(steps: Sequence[Any]) -> None:
    bench = Bench()
    for step in steps:
        if isinstance(step, float):
            bench.let(step)
        else:
            bench.presence(*step)
    bench.change(1, diskR=1, full=True)
    bench.let(INTERVALS.lost + 1)
    assert bench.stored().agents[AGENT].state == "online"
    assert all(before != after for before, after in pairwise(bench.events))


def test_a_late_change_goes_to_history_but_not_over_newer_values(bench: Bench) -> None:
    bench.report_whole(diskR=1, diskW=1)
    bench.change(3, diskR=3)
    bench.change(2, diskR=2, diskW=2)
    snapshot = bench.snapshot()
    assert (snapshot.values["diskR"], snapshot.values["diskW"]) == (3, 2)
    assert bench.history == [1, 3, 2]


@settings(deadline=None)
@given(
    order=st.permutations(range(2, 12)),
    again=st.lists(st.integers(1, 11)),
    values=st.lists(st.sampled_from(["diskR", "diskW", "netRx"]), min_size=10, max_size=10),
)
def test_the_mirror_ends_equal_in_any_order_and_with_duplicates(
    order: Sequence[int], again: list[int], values: list[str]
) -> None:
    bench = Bench()
    bench.report_whole(diskR=0, diskW=0, netRx=0)
    for seq in [*order, *again]:
        bench.change(seq, **_value(values[seq - 2] if seq > 1 else "diskR", seq))
    last = {"diskR": 0, "diskW": 0, "netRx": 0} | {name: seq for seq, name in enumerate(values, start=2)}
    snapshot = bench.snapshot()
    assert {name: snapshot.values[name] for name in last} == last
    assert snapshot.positions == {"hardware": Position(EPOCH, 11)}
    assert sorted(bench.history) == list(range(1, 12))


def test_a_full_report_removes_what_it_does_not_name(bench: Bench) -> None:
    bench.report_whole(diskR=1, diskW=1, newField=1)
    bench.change(2, full=True, diskR=2)
    values = bench.snapshot().values
    assert values["diskR"] == 2
    assert not {"diskW", "newField"} & values.keys()


def test_a_full_report_that_differs_from_the_mirror_is_a_defect_and_mends_it(bench: Bench) -> None:
    bench.report_whole(diskR=1, diskW=1)
    bench.change(2, full=True, diskR=1, diskW=1)
    assert bench.core.counts["defects"] == 0
    bench.change(3, full=True, diskR=2)
    assert bench.core.counts["defects"] == 1
    assert bench.snapshot().values["diskR"] == 2
    told = [event for batch in bench.batches for event in batch.events if event.event == "defect"]
    assert [(event.agent, event.detail) for event in told] == [(AGENT, "f01234/seal01: diskR, diskW")]


def test_the_first_full_report_of_a_process_may_say_anything(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    change = Change(epoch=EPOCH, seq=2, time=2, prev=None, full=True, first=True, values={"diskR": 7})
    bench.receive(TOPICS.change(HOST, Owner.HARDWARE), encode_change(change))
    assert bench.core.counts["defects"] == 0


def test_a_full_report_that_is_late_removes_nothing_newer(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    bench.change(3, diskW=3)
    bench.change(2, full=True, diskR=2)
    assert bench.snapshot().values["diskW"] == 3


def test_a_field_that_is_gone_leaves_the_snapshot_and_comes_back(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    bench.change(2, gone=("diskR", "never"))
    assert "diskR" not in bench.snapshot().values
    bench.change(3, diskR=3)
    assert bench.snapshot().values["diskR"] == 3


def test_snapshots_keep_their_spacing_and_show_the_last_change(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    for seq in range(2, 42):
        bench.change(seq, diskR=seq)
        bench.let(0.5)
    bench.let(INTERVALS.snapshot)
    times = bench.when(TOPICS.snapshot(HOST))
    assert all(after - before >= INTERVALS.snapshot for before, after in pairwise(times))
    assert 4 <= len(times) <= 6
    assert bench.snapshots()[-1].values["diskR"] == 41


def test_a_snapshot_is_refreshed_unchanged(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    bench.let(10)
    bench.published.clear()
    bench.let(INTERVALS.stale - 15)
    times = bench.when(TOPICS.snapshot(HOST))
    assert [after - before for before, after in pairwise(times)] == [INTERVALS.refresh]
    assert bench.snapshots()[-1].values["diskR"] == 1


def test_resubscriptions_of_a_moment_are_answered_together(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    bench.change(1, full=True, record=RecordKey("f01234", "seal02"), diskR=1)
    bench.let(6)
    bench.published.clear()
    for hosts in (("seal01",), ("seal01", "unknown"), ("seal01",)):
        bench.receive(TOPICS.resubscribe("f01234"), encode_resubscribe(hosts))
    bench.settle()
    assert [len(bench.snapshots(RecordKey("f01234", host))) for host in ("seal01", "seal02")] == [1, 0]
    for _ in range(5):
        bench.receive(TOPICS.resubscribe("f01234"), b"")
        bench.settle()
    bench.let(1)
    assert [len(bench.snapshots(RecordKey("f01234", host))) for host in ("seal01", "seal02")] == [2, 1]


def test_an_agent_is_asked_only_when_a_hole_outlasts_the_grace_and_then_ever_later(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    bench.change(3, diskR=3)
    began = bench.now
    bench.let(8 * FIRST_REPEAT)
    asked = [round(when - began - 0.5) for when in bench.when(TOPICS.request(AGENT))]
    assert asked == [round(GRACE), round(GRACE + FIRST_REPEAT), round(GRACE + 3 * FIRST_REPEAT),
                     round(GRACE + 7 * FIRST_REPEAT)]  # fmt: skip


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.integers(1, 8), st.sampled_from([EPOCH - 1, EPOCH, EPOCH + 1]), st.booleans()),
        st.tuples(st.just("backlog"), st.integers(1, 8), st.sampled_from([EPOCH, EPOCH + 1])),
        st.tuples(st.just("presence"), st.sampled_from(PresenceState), st.sampled_from(["one", "two"])),
        st.tuples(st.just("empty"), st.integers(1, 8)),
        st.tuples(st.just("forget")),
        st.tuples(st.just("connected")),
        st.tuples(st.just("let"), st.floats(0.5, 200)),
    ),
    max_size=20,
)


def _do(bench: Bench, step: tuple[Any, ...]) -> None:
    match step:
        case ("change", seq, epoch, full):
            bench.change(seq, epoch=epoch, full=full, diskR=seq)
        case ("backlog", first, epoch):
            bench.backlog(first, epoch=epoch)
        case ("presence", state, session):
            bench.presence(state, session)
        case ("empty", seq):
            bench.change(seq, full=True)
        case ("forget",):
            bench.receive(TOPICS.presence(HOST), b"")
        case ("connected",):
            bench.core.connected(bench.now)
        case ("let", seconds):
            bench.let(seconds)


class RestlessBench(Bench):
    """One that looks at every agent in every tick."""

    def settle(self) -> None:
        for agent in self.core._agents.values():
            agent.wake()
        super().settle()


@settings(deadline=None, max_examples=60)
@given(_STEPS)
def test_an_agent_that_is_not_looked_at_had_nothing_to_do(steps: list[tuple[Any, ...]]) -> None:
    bench, restless = Bench(), RestlessBench()
    for step in [*steps, ("let", 100.0)]:
        _do(bench, step)
        _do(restless, step)
    assert bench.published == restless.published
    assert bench.batches == restless.batches


def test_an_agent_whose_hole_closes_by_itself_is_not_asked(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    bench.change(3, diskR=3)
    bench.let(GRACE - 1)
    bench.change(2, diskW=2)
    bench.let(100)
    assert bench.when(TOPICS.request(AGENT)) == []


def test_an_agent_that_stopped_is_not_asked(bench: Bench) -> None:
    bench.change(3, diskR=3)
    bench.presence(PresenceState.STOPPED)
    bench.let(100)
    assert bench.when(TOPICS.request(AGENT)) == []


def test_what_lies_below_a_batchs_first_is_lost_and_told_and_a_full_report_is_asked_for(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    bench.change(5, diskR=5)
    bench.backlog(5)
    bench.let(GRACE + 1)
    assert "missing" in bench.events
    assert bench.stored().agents[AGENT].lost == 3
    assert len(bench.when(TOPICS.request(AGENT))) == 1
    bench.change(6, full=True, diskR=6)
    assert bench.snapshot().positions == {"hardware": Position(EPOCH, 6)}


def test_positions_do_not_move_while_a_hole_is_open_but_values_do(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    bench.let(1)
    bench.change(3, diskR=3)
    snapshot = bench.snapshot()
    assert (snapshot.values["diskR"], snapshot.positions["hardware"]) == (3, Position(EPOCH, 1))
    bench.change(2, diskW=2)
    assert bench.snapshot().positions["hardware"] == Position(EPOCH, 3)


def test_an_old_log_is_answered_with_the_ack_and_nothing_of_it_is_stored(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    bench.let(31)
    acks = len(bench.when(TOPICS.ack(AGENT, "main")))
    assert acks == 1
    for seq in range(1, 50):
        bench.change(seq, epoch=EPOCH - 1, diskR=666)
        bench.backlog(1, epoch=EPOCH - 1)
        bench.let(1)
    payloads = [one.payload for _, one in bench.published if one.topic == TOPICS.ack(AGENT, "main")]
    assert [decode_ack(payload) for payload in payloads[acks:]] == 2 * [Ack(position=Position(EPOCH, 1))]  # each 30 s
    assert bench.snapshots()[-1].values["diskR"] == 1
    assert bench.history == [1]


def test_a_new_log_takes_the_place_of_the_old_one(bench: Bench) -> None:
    bench.report_whole(diskR=1, diskW=1)
    bench.change(1, epoch=EPOCH + 1, full=True, diskR=2)
    bench.backlog(1, epoch=EPOCH + 1)
    snapshot = bench.snapshot()
    assert snapshot.positions == {"hardware": Position(EPOCH + 1, 1)}
    assert (snapshot.values["diskR"], "diskW" in snapshot.values) == (2, False)


def test_acknowledged_is_only_what_has_no_hole_and_not_more_often_than_the_interval(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    for seq in (2, 3, 5):
        bench.change(seq, diskR=seq)
        bench.let(1)
    bench.let(INTERVALS.acknowledge * (1 + MOST_DRIFT))
    acks = [(at, decode_ack(one.payload)) for at, one in bench.published if one.topic == TOPICS.ack(AGENT, "main")]
    assert [ack.position.seq for _, ack in acks] == [2, 3]
    assert acks[1][0] - acks[0][0] >= INTERVALS.acknowledge


def test_agents_that_are_met_together_are_not_acknowledged_together_for_ever(bench: Bench) -> None:
    hosts = [RecordKey("f01234", f"seal{number:02}") for number in range(40)]
    for seq in range(1, 200):
        for host in hosts:
            bench.change(seq, record=host, full=seq == 1, diskR=seq)
            if seq == 1:
                bench.backlog(1, agent=AgentKey.of(host))
        bench.let(1)
    last = bench.now - INTERVALS.acknowledge
    acks = {TOPICS.ack(AgentKey.of(host), "main") for host in hosts}
    at = Counter(at for at, one in bench.published if one.topic in acks and at > last)
    assert sum(at.values()) >= len(hosts) - 4
    assert max(at.values()) <= len(hosts) / 4


def test_an_empty_presence_forgets_the_record_and_its_agent(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    bench.let(1)
    bench.receive(TOPICS.presence(HOST), b"")
    bench.settle()
    assert bench.stored() == Stored(records={}, agents={})
    assert bench.events[-1] == "forgotten"
    cleared = {one.topic for _, one in bench.published if one.payload == b"" and one.retain}
    assert cleared == {TOPICS.snapshot(HOST), TOPICS.ack(AGENT, "main")}
    bench.published.clear()
    bench.let(2 * INTERVALS.refresh)
    assert bench.published == []


def test_a_host_that_is_forgotten_and_reports_again_is_back(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    bench.receive(TOPICS.presence(HOST), b"")
    bench.report_whole(diskR=2)
    assert bench.snapshot().values["diskR"] == 2
    assert bench.stored().records.keys() == {HOST}


def test_forgetting_what_is_not_known_does_nothing(bench: Bench) -> None:
    bench.receive(TOPICS.presence(HOST), b"")
    bench.settle()
    assert (bench.batches, bench.published) == ([], [])


def test_a_sender_that_was_never_whole_is_left_out_with_its_fields(bench: Bench) -> None:
    bench.change(5, diskR=5)
    bench.change(1, full=True, owner=Owner.TASKS, runningTasks=2)
    bench.backlog(1, agent=MINER_SENDER)
    snapshot = bench.snapshot()
    assert snapshot.positions == {"tasks": Position(EPOCH, 1)}
    assert "diskR" not in snapshot.values
    assert snapshot.values["runningTasks"] == 2


def test_a_host_of_two_miners_is_two_records(bench: Bench) -> None:
    other, agent = RecordKey("f09999", "seal01"), AgentKey("f09999", "seal01")
    bench.report_whole(diskR=1)
    bench.change(1, full=True, record=other, diskR=2)
    bench.backlog(1, agent=agent)
    bench.let(INTERVALS.snapshot)
    shown = [bench.snapshots(key)[-1].values for key in (HOST, other)]
    assert [(values["minerId"], values["diskR"]) for values in shown] == [("f01234", 1), ("f09999", 2)]


def test_both_senders_of_a_host_meet_in_one_record(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    bench.change(1, full=True, owner=Owner.TASKS, runningTasks=2, taskState="enabled")
    bench.backlog(1, agent=MINER_SENDER)
    bench.change(2, full=True, diskR=3)
    bench.change(2, owner=Owner.TASKS, gone=("taskState", "diskR"))
    snapshot = bench.snapshot()
    expected = {"minerId": "f01234", "hostName": "seal01", "diskR": 3, "runningTasks": 2, "netState": "online"}
    expected |= {"netSince": 1_000_000}
    assert snapshot.values == expected
    assert snapshot.positions == {"hardware": Position(EPOCH, 2), "tasks": Position(EPOCH, 2)}


@settings(deadline=None)
@given(st.permutations([(owner, seq) for owner in (Owner.HARDWARE, Owner.TASKS) for seq in range(2, 6)]))
def test_neither_sender_of_a_host_overwrites_the_other(order: Sequence[tuple[Owner, int]]) -> None:
    bench = Bench()
    name = {Owner.HARDWARE: "diskR", Owner.TASKS: "runningTasks"}
    for owner, field in name.items():
        bench.change(1, full=True, owner=owner, **_value(field, 1))
        bench.backlog(1, agent=sender_of(HOST, owner))
    for owner, seq in order:
        bench.change(seq, owner=owner, full=seq == 5, **_value(name[owner], seq), **_value(name[_other(owner)], 666))
    values = bench.snapshot().values
    assert (values["diskR"], values["runningTasks"]) == (5, 5)
    assert len(bench.rejected) == len(order)


def _value(name: str, value: int) -> dict[str, Any]:
    return {name: value}


def _other(owner: Owner) -> Owner:
    return Owner.TASKS if owner is Owner.HARDWARE else Owner.HARDWARE


def test_what_is_stored_is_enough_to_go_on_with(bench: Bench) -> None:
    bench.presence(PresenceState.ONLINE)
    bench.report_whole(diskR=1, newField=[1])
    bench.change(3, diskR=3)
    bench.let(10)
    again = Bench(bench.stored())
    again.change(3, diskR=666)
    again.change(2, diskW=2)
    again.core.connected(again.now)
    snapshot = again.snapshot()
    assert again.history == [2]
    assert (snapshot.values["diskR"], snapshot.values["diskW"], snapshot.values["newField"]) == (3, 2, [1])
    assert snapshot.positions == {"hardware": Position(EPOCH, 3)}


@settings(deadline=None, max_examples=60)
@given(_STEPS)
def test_records_that_are_behind_the_history_catch_up_with_it(steps: list[tuple[Any, ...]]) -> None:
    ahead, behind = Bench(), Bench(written_at_once=0)
    for step in steps:
        for bench in (ahead, behind):
            _do(bench, step)
            bench.settle()
    again = Bench(behind.stored(), written_at_once=0)
    again.core.mirror_all()
    again.settle()
    caught_up = {**behind.stored().records, **again.stored().records}
    assert _values_of(caught_up) == _values_of(ahead.stored().records)
    assert again.stored().behind == ()


def _values_of(records: Mapping[RecordKey, RecordRow]) -> dict[RecordKey, dict[str, Held]]:
    held = {key: MirroredRecord(key, row).held(Owner.HARDWARE) for key, row in records.items()}
    return {key: fields for key, fields in held.items() if fields}


def test_many_records_that_change_are_written_once_a_second() -> None:
    bench = Bench(written_at_once=0)
    bench.report_whole(diskR=1)
    for seq in range(2, 22):
        bench.change(seq, diskR=seq)
        bench.now += 0.1
        bench.settle()
    written = [batch for batch in bench.batches if batch.records]
    assert 2 <= len(written) <= 4
    assert all(batch.is_behind == (not batch.records) for batch in bench.batches if batch.history)
    assert bench.history == list(range(1, 22))


def test_a_late_message_of_a_batch_that_cannot_be_used_does_not_stop_the_rest(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    good = {"_epoch": EPOCH, "_seq": 2, "_time": 2, "diskR": 2}
    messages = [[TOPICS.change(HOST, Owner.HARDWARE), late] for late in ({"_epoch": "x"}, good)]
    batch = {"epoch": EPOCH, "first": 2, "next": 3, "messages": messages}
    bench.receive(TOPICS.backlog(AGENT), orjson.dumps(batch))
    assert bench.snapshot().values["diskR"] == 2
    assert len(bench.rejected) == 1


def test_a_message_that_cannot_be_used_is_no_sign_of_life(bench: Bench) -> None:
    bench.report_whole(diskR=1)
    bench.let(INTERVALS.stale - 1)
    bench.receive(TOPICS.change(HOST, Owner.HARDWARE), b"garbage")
    bench.let(2)
    assert bench.events == ["online", "stale"]


def test_garbage_from_nobody_does_not_make_an_agent(bench: Bench) -> None:
    bench.receive("miners/f09999/workers/nobody", b"garbage")
    bench.let(100)
    assert len(bench.rejected) == 1
    assert bench.published == []


@pytest.mark.parametrize("depth", [300, 1000])
@pytest.mark.parametrize("late", [False, True])
def test_a_value_nested_too_deeply_is_rejected(bench: Bench, depth: int, *, late: bool) -> None:
    message = b'{"_epoch":7,"_seq":2,"_time":2,"newField":' + b"[" * depth + b"]" * depth + b"}"
    topic = TOPICS.change(HOST, Owner.HARDWARE)
    bench.report_whole(diskR=1)
    if late:
        batch = b'{"epoch":7,"first":2,"next":3,"messages":[["' + topic.encode() + b'",' + message + b"]]}"
        bench.receive(TOPICS.backlog(AGENT), batch)
    else:
        bench.receive(topic, message)
    snapshot = bench.snapshot()
    assert "newField" not in snapshot.values
    assert len(bench.rejected) == 1


_PAYLOADS = st.one_of(
    st.binary(max_size=50),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=5)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
        max_leaves=6,
    ).map(orjson.dumps),
    st.fixed_dictionaries(
        {"_epoch": st.integers(1, 9), "_seq": st.integers(1, 9), "_time": st.just(1)},
        optional={name: st.one_of(st.none(), st.integers(-(2**63), 2**64 - 1), st.text())
                  for name in ("_prev", "_full", "_gone", "diskR", "netState", "hostName", "newField")},
    ).map(orjson.dumps),
)  # fmt: skip
_INGESTED = st.sampled_from([
    "miners/f01234", "miners/f01234/presence", "miners/f01234/resubscribe", "miners/f01234/workers/seal01",
    "miners/f01234/workers/seal01/presence", "miners/f01234/workers/seal01/tasks", "miners/x",
    "telemetry/agents/f01234/seal01/backlog", "telemetry/agents/f01234/_miner/backlog", "other", "miners/f01/workers/_",
])  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(_INGESTED, _PAYLOADS, st.booleans()), max_size=15))
def test_whatever_comes_is_stored_or_rejected_and_no_snapshot_has_null(
    messages: list[tuple[str, bytes, bool]],
) -> None:
    bench = Bench()
    for topic, payload, retained in messages:
        bench.receive(topic, payload, retained=retained)
        bench.settle()
    bench.report_whole(diskR=1)
    bench.change(1, epoch=99, full=True, diskR=42)
    bench.backlog(1, epoch=99)
    assert bench.snapshot().values["diskR"] == 42


def test_records_of_both_kinds_that_are_due_together_are_both_published() -> None:
    bench = Bench()
    for topic in ("miners/f01234", "miners/f01234/workers/seal01"):
        bench.receive(topic, b'{"_epoch":7,"_seq":1,"_time":1,"_full":true}')
        bench.receive(topic, b'{"_epoch":7,"_seq":2,"_time":1,"other":1}')
    bench.core.connected(bench.now)
    bench.core.connected(bench.now)
    bench.core.tick(now=bench.now + 10, time=0)
    topics = {outgoing.topic for outgoing in bench.core.take_outgoing()}
    assert topics >= {"miners/f01234/snapshot", "miners/f01234/workers/seal01/snapshot"}


def test_a_topic_that_a_new_log_does_not_state_is_not_asked_for() -> None:
    bench = Bench()
    for epoch, hosts in ((7, ("a", "b")), (8, ("a",))):
        for seq, host in enumerate(hosts, start=1):
            topic = f"miners/f01234/workers/{host}/tasks"
            bench.receive(topic, b'{"_epoch":%d,"_seq":%d,"_time":1,"_full":true}' % (epoch, seq))
        backlog = b'{"epoch":%d,"first":1,"next":%d,"messages":[]}' % (epoch, len(hosts) + 1)
        bench.receive("telemetry/agents/f01234/_miner/backlog", backlog)
    for second in range(60):
        bench.core.tick(now=bench.now + second, time=second * 1000)
    assert not [one for one in bench.core.take_outgoing() if one.topic.endswith("/request")]


def test_an_epoch_far_ahead_of_the_clock_is_refused() -> None:
    bench = Bench()
    bench.receive("miners/f01234/workers/seal01", b'{"_epoch":%d,"_seq":1,"_time":1}' % (2**53 - 1))
    backlog = b'{"epoch":%d,"first":1,"next":1,"messages":[]}' % (2**53 - 1)
    bench.receive("telemetry/agents/f01234/seal01/backlog", backlog)
    reasons = [row.reason for row in bench.core.take_batch().rejected]
    assert reasons == ["epoch: more than ten years ahead"] * 2
    bench.receive("miners/f01234/workers/seal01", b'{"_epoch":7,"_seq":1,"_time":1,"_full":true,"diskR":5}')
    assert len(bench.core.take_batch().history) == 1


def test_a_log_that_is_followed_goes_on_when_the_clock_goes_back_for_years() -> None:
    bench, epoch = Bench(), 12 * 365 * 86_400_000
    first, late, third = (
        encode_change(Change(epoch=epoch, seq=seq, time=1, prev=seq - 1, values={"diskR": seq})) for seq in (1, 2, 3)
    )
    topic = TOPICS.change(HOST, Owner.HARDWARE)
    begun = Backlog(epoch=epoch, first=1, next=2, messages=((topic, first),))
    rest = Backlog(epoch=epoch, first=2, next=3, messages=((topic, late),))
    for time, to, payload in (
        (epoch, TOPICS.backlog(AGENT), encode_backlog(begun)),
        (0, topic, third),
        (0, TOPICS.backlog(AGENT), encode_backlog(rest)),
    ):
        bench.core.receive_all([Message(to, payload, False, b"")], now=bench.now, time=time)
    bench.settle()
    assert (bench.history, bench.rejected) == ([1, 3, 2], [])
    assert [decode_ack(one.payload).position.seq for _, one in bench.published if "/ack/" in one.topic] == [3]


def test_what_is_anothers_to_state_is_counted_by_its_topic() -> None:
    bench = Bench()
    own, host = "miners/f01234", "miners/f01234/workers/seal01"
    for seq in (1, 2):
        bench.receive(host, b'{"_epoch":7,"_seq":%d,"_time":1,"cpuLoad":1.5,"runningTasks":3}' % seq)
    foreign = orjson.dumps([own, {"_epoch": 7, "_seq": 3, "_time": 1, "minerBalance": 1.5}])
    batch = b'{"epoch":7,"first":1,"next":4,"messages":[' + foreign + b"]}"
    bench.receive("telemetry/agents/f01234/seal01/backlog", batch)
    stored = bench.core.take_batch()
    assert bench.core.violations == {host: 2, own: 1}
    assert bench.core.metrics()["violations"] == 3
    seal01 = AgentKey("f01234", "seal01")
    assert {topic: (one.agent, one.number) for topic, one in stored.violations.items()} == {
        host: (seal01, 2),
        own: (seal01, 1),
    }
    assert [event.detail for event in stored.events if event.event == "violation"] == [host, own]
    assert len(stored.rejected) == 3


# --- limits ---

RATE = 1000.0


@pytest.fixture
def limited() -> Bench:
    return Bench(rate=RATE)


def _flood(bench: Bench, seconds: float, *, payload: bytes, topic: str = TOPICS.change(HOST, Owner.HARDWARE)) -> None:
    """A thousand messages a second."""
    for _ in range(int(seconds)):
        for _ in range(1000):
            bench.receive(topic, payload)
        bench.let(1)


def _steps(bench: Bench, seconds: int, most: int, first: int = 1) -> None:
    """So many changes a second, each of a number of its own."""
    for second in range(seconds):
        for number in range(most):
            bench.change(first + second * most + number, cpuLoad=1)
        bench.let(1)


def test_what_one_agent_states_beyond_its_rate_is_left_and_told_once(limited: Bench) -> None:
    _steps(limited, 60, 200)
    taken = len(limited.history)
    per_message = MESSAGE_COST + len(b'{"_epoch":7,"_seq":10000,"_prev":0,"_time":10000,"cpuLoad":1}')
    assert (2 * BURST - 10) * RATE / per_message < taken <= 2 * BURST * RATE / per_message + 10
    counts = limited.core.metrics()
    assert counts["limited"] == 60 * 200 - taken
    assert counts["agentsLimited"] == 1
    assert limited.events.count("limited") == 1
    # It is told again after an hour, if it still goes on.
    limited.let(3600)
    assert limited.core.metrics()["agentsLimited"] == 0
    _steps(limited, 60, 200, first=100_000)
    assert limited.events.count("limited") == 2


def test_an_agent_beside_one_that_is_limited_is_not(limited: Bench) -> None:
    other = RecordKey("f01234", "seal02")
    for second in range(1, 60):
        _steps(limited, 1, 200, first=200 * second)
        limited.change(second, record=other, cpuLoad=second)
    limited.let(1)
    held = [row for batch in limited.batches for row in batch.history if row.record == other]
    assert len(held) == 59


def test_the_next_batch_is_asked_for_when_the_last_one_is_paid(limited: Bench) -> None:
    """Who waits for acknowledgements is never refused anything."""
    limited.report_whole(cpuLoad=1)
    first, sent = 2, 0
    topic, ack = TOPICS.change(HOST, Owner.HARDWARE), TOPICS.ack(AGENT, "main")
    limited.let(120)
    began = limited.now
    for _ in range(20):
        for _ in range(2):
            change = Change(epoch=EPOCH, seq=first, time=1, prev=None, values={"junk": "x" * 15_000})
            batch = Backlog(epoch=EPOCH, first=2, next=first + 1, messages=((topic, encode_change(change)),))
            limited.receive(TOPICS.backlog(AGENT), encode_backlog(batch))
            first, sent = first + 1, sent + 15_000
        before = len(limited.when(ack))
        while len(limited.when(ack)) == before:
            limited.let(0.5)
    assert limited.core.metrics()["limited"] == 0
    assert sent / (limited.now - began + BURST) < RATE * 1.1


def test_what_nobody_can_use_is_counted_but_not_all_of_it_is_kept(bench: Bench) -> None:
    _flood(bench, 20, payload=b"rubbish")
    assert bench.core.metrics()["rejected"] == 20_000
    assert NOTES <= len(bench.rejected) <= NOTES + 20 * NOTES_A_SECOND + 1
    # What another one states wrongly is kept beside it.
    bench.receive(TOPICS.presence(RecordKey("f01234", "seal02")), b"x")
    bench.let(1)
    assert len(bench.batches[-1].rejected) == 1


def test_who_sends_nothing_but_rubbish_is_told_of_too(limited: Bench) -> None:
    _flood(limited, 5, payload=b"rubbish")
    assert limited.events.count("limited") == 1


def test_who_comes_and_goes_all_the_time_leaves_few_events(bench: Bench) -> None:
    for _ in range(1000):
        bench.presence(PresenceState.ONLINE)
        bench.presence(PresenceState.STOPPED)
    bench.let(1)
    assert len(bench.events) <= NOTES + 1


def test_an_operator_is_heard_who_forgets_an_agent_that_is_limited(limited: Bench) -> None:
    _steps(limited, 60, 200)
    limited.receive(TOPICS.presence(HOST), b"")
    limited.let(1)
    assert "forgotten" in limited.events


def test_who_asks_for_snapshots_without_end_costs_the_miners_agent_nothing(limited: Bench) -> None:
    _flood(limited, 5, topic=TOPICS.resubscribe("f01234"), payload=encode_resubscribe(["x" * 100]))
    assert limited.core.metrics()["limited"] > 0
    limited.change(1, owner=Owner.TASKS, runningTasks=1)
    limited.let(1)
    assert limited.history == [1]


def test_a_miners_agent_cannot_name_hosts_without_end(bench: Bench) -> None:
    for number in range(MOST_HOSTS + 10):
        bench.change(number + 1, owner=Owner.TASKS, record=RecordKey("f01234", f"h{number}"), runningTasks=1)
    assert bench.core.metrics()["records"] == MOST_HOSTS
    assert f"f01234 has {MOST_HOSTS} hosts already" in bench.core.take_batch().rejected[-1].reason
    bench.change(1, owner=Owner.TASKS, record=RecordKey("f09", "h1"), runningTasks=1)
    assert bench.core.metrics()["records"] == MOST_HOSTS + 1


def test_intervals_that_became_shorter_hold_for_what_waits_already(bench: Bench) -> None:
    bench.presence(PresenceState.ONLINE)
    bench.report_whole(diskR=1)
    bench.let(1)
    bench.change(2, diskR=2)
    bench.let(1)
    shown = len(bench.snapshots())
    bench.core.retune(replace(INTERVALS, snapshot=1, refresh=20, acknowledge=2, stale=10), bench.now)
    bench.let(1)
    assert len(bench.snapshots()) == shown + 1, "the change that waited for the end of 5 s"
    bench.let(2)
    acks = [decode_ack(one.payload) for _, one in bench.published if one.topic == TOPICS.ack(AGENT, "main")]
    assert acks[-1].position == Position(EPOCH, 2)
    bench.let(7)
    assert bench.snapshot().values["netState"] == "stale"
    at = bench.when(TOPICS.snapshot(HOST))
    bench.let(45)
    assert all(later - earlier <= 20.5 for earlier, later in pairwise(bench.when(TOPICS.snapshot(HOST))[len(at) - 1 :]))
