"""The log protocol without a wire: what a follower and a subscriber hold, whatever the wire does."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from telemetry.fields import Owner, Value
from telemetry.follow import MOST_RANGES, Arrival, Follower, RecordCopy
from telemetry.records import WORKER_INFO
from telemetry.reports import Numbering
from telemetry.wire import Change, Position, Snapshot

TOPIC = "miners/f01/workers/h"


@given(st.permutations(range(1, 30)), st.data())
def test_a_follower_that_got_everything_in_any_order_has_no_hole(order: Sequence[int], data: st.DataObject) -> None:
    follower = Follower()
    follower.begin_at(7, 1)
    again = data.draw(st.lists(st.sampled_from(list(order))))
    for seq in [*order, *again]:
        follower.arrive(Position(7, seq))
    assert (follower.position, follower.beyond, follower.lost) == (29, [], 0)


@given(st.lists(st.integers(1, 60)), st.integers(1, 61))
def test_a_batch_counts_as_lost_exactly_what_is_below_its_first_and_not_held(seqs: list[int], first: int) -> None:
    follower = Follower()
    follower.begin_at(7, 1)
    for seq in seqs:
        follower.arrive(Position(7, seq))
    follower.begin_at(7, first)
    held = set(seqs)
    below = set(range(1, first))
    assert follower.lost == len(below - held)
    position = first - 1
    while position + 1 in held:
        position += 1
    assert follower.position == position


@given(st.lists(st.integers(1, 40), min_size=1))
def test_a_message_is_new_once(seqs: list[int]) -> None:
    follower = Follower()
    follower.begin_at(7, 1)
    seen: set[int] = set()
    for seq in seqs:
        expected = Arrival.DUPLICATE if seq in seen else Arrival.NEW
        assert follower.arrive(Position(7, seq)) is expected
        seen.add(seq)


@given(st.lists(st.tuples(st.integers(6, 8), st.integers(1, 12)), max_size=40), st.booleans())
def test_a_step_is_what_an_arrival_is(positions: list[tuple[int, int]], known: bool) -> None:
    stepping, arriving = Follower(), Follower()
    for follower in (stepping, arriving) if known else ():
        follower.begin_at(6, 1)
    for position in [Position(*one) for one in positions]:
        expected = arriving.arrive(position)
        assert (Arrival.NEW if stepping.step(*position) else stepping.arrive(position)) is expected
        assert all(getattr(stepping, name) == getattr(arriving, name) for name in Follower.__slots__)


def test_a_log_met_in_the_middle_begins_at_the_batchs_first_with_nothing_lost() -> None:
    follower = Follower()
    for seq in (10, 11, 13):
        follower.arrive(Position(7, seq))
    assert follower.has_hole
    follower.begin_at(7, 14)
    assert (follower.position, follower.lost, follower.has_hole) == (13, 0, False)


def test_only_a_full_report_after_the_last_loss_makes_a_record_whole() -> None:
    follower = Follower()
    follower.begin_at(7, 1)
    for seq in (1, 4):
        follower.arrive(Position(7, seq))
    follower.stand_full(TOPIC, Position(7, 1))
    assert not follower.is_whole(TOPIC)
    follower.begin_at(7, 5)
    assert (follower.lost, follower.is_whole(TOPIC)) == (2, False)
    follower.arrive(Position(7, 5))
    follower.stand_full(TOPIC, Position(7, 5))
    assert follower.whole_position(TOPIC) == Position(7, 5)


def test_a_higher_epoch_begins_anew_and_a_lower_one_is_told() -> None:
    follower = Follower()
    follower.begin_at(7, 1)
    follower.arrive(Position(7, 1))
    assert follower.arrive(Position(9, 3)) is Arrival.NEW
    assert follower.position is None
    assert follower.arrive(Position(7, 2)) is Arrival.OLD_LOG
    assert not follower.begin_at(7, 2)


def test_a_sender_of_scattered_positions_cannot_make_a_follower_grow() -> None:
    follower = Follower()
    follower.begin_at(7, 1)
    for seq in range(2, 4 * MOST_RANGES, 2):
        follower.arrive(Position(7, seq))
    assert len(follower.beyond) <= MOST_RANGES
    assert follower.lost > 0


def test_a_follower_of_an_unknown_beginning_cannot_grow_either() -> None:
    follower = Follower()
    for seq in range(2, 4 * MOST_RANGES, 2):
        follower.arrive(Position(7, seq))
    assert len(follower.beyond) <= MOST_RANGES


def test_a_publisher_numbers_over_all_topics_and_tells_the_previous_of_each() -> None:
    publisher = Numbering(7)
    made = [publisher.change(topic, time=0, values={}) for topic in ("a", "b", "a")]
    assert [(change.seq, change.prev) for change in made] == [(1, 0), (2, 0), (3, 1)]
    assert publisher.outranked_by(Position(7, 4))
    assert not publisher.outranked_by(Position(7, 3))


@dataclass
class _World:
    """A host's fields, its publisher, and the aggregator's snapshot of what arrived."""

    publisher: Numbering = field(default_factory=lambda: Numbering(7))
    fields: dict[str, Value] = field(default_factory=dict)
    wire: list[Change] = field(default_factory=list)

    def change(self, name: str, value: int) -> None:
        self.fields[name] = value
        self.wire.append(self.publisher.change(TOPIC, time=0, values={name: value}))

    def lose(self, name: str) -> None:
        if self.fields.pop(name, None) is not None:
            self.wire.append(self.publisher.change(TOPIC, time=0, values={}, gone=(name,)))

    def report_full(self) -> None:
        self.wire.append(self.publisher.change(TOPIC, time=0, values=dict(self.fields), full=True))

    def snapshot(self) -> Snapshot:
        position = Position(self.publisher.epoch, self.publisher.next - 1)
        return Snapshot(values=dict(self.fields), time=0, positions={"hardware": position})


_FIELDS = ("cpuLoad", "diskR", "useMemory")
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.sampled_from(_FIELDS), st.integers(0, 5)),
        st.tuples(st.just("lose"), st.sampled_from(_FIELDS), st.just(0)),
        st.tuples(st.just("full"), st.just(""), st.just(0)),
        st.tuples(st.just("snapshot"), st.just(""), st.just(0)),
        st.tuples(st.just("drop"), st.just(""), st.just(0)),
        st.tuples(st.just("repeat"), st.just(""), st.integers(0, 9)),
    ),
    max_size=60,
)


@given(_STEPS)
def test_a_copy_that_calls_itself_whole_holds_what_the_host_holds(steps: list[tuple[str, str, int]]) -> None:
    """Whatever is dropped, repeated or late: a copy is right, or it knows that it is not."""
    world, copy = _World(), RecordCopy(WORKER_INFO)
    for act, name, value in steps:
        delivered: list[Change] = []
        match act:
            case "change":
                world.change(name, value)
                delivered = world.wire[-1:]
            case "lose":
                before = len(world.wire)
                world.lose(name)
                delivered = world.wire[before:]
            case "full":
                world.report_full()
                delivered = world.wire[-1:]
            case "drop":
                world.change("cpuLoad", value + 10)
                continue
            case "repeat" if world.wire:
                delivered = [world.wire[-1 - value % len(world.wire)]]
            case "snapshot":
                copy.apply_snapshot(world.snapshot())
        for change in delivered:
            copy.apply_change(Owner.HARDWARE, change)
        newest = Position(world.publisher.epoch, world.publisher.next - 1)
        if copy.is_whole and copy.positions.get(Owner.HARDWARE) == newest:
            assert copy.fields == world.fields
    copy.apply_snapshot(world.snapshot())
    assert copy.is_whole
    assert copy.fields == world.fields


def test_a_copy_ignores_changes_until_it_has_a_snapshot() -> None:
    world, copy = _World(), RecordCopy(WORKER_INFO)
    world.change("cpuLoad", 1)
    assert copy.apply_change(Owner.HARDWARE, world.wire[0]) == set()
    assert not copy.is_whole


def test_a_snapshot_behind_the_copy_changes_nothing_of_that_sender() -> None:
    world, copy = _World(), RecordCopy(WORKER_INFO)
    world.change("cpuLoad", 1)
    old = world.snapshot()
    copy.apply_snapshot(old)
    world.change("cpuLoad", 2)
    copy.apply_change(Owner.HARDWARE, world.wire[-1])
    copy.apply_snapshot(old)
    assert copy.fields["cpuLoad"] == 2


def test_a_field_of_a_newer_agent_follows_its_sender() -> None:
    world, copy = _World(), RecordCopy(WORKER_INFO)
    copy.apply_snapshot(world.snapshot())
    world.change("fanSpeed", 900)
    copy.apply_change(Owner.HARDWARE, world.wire[-1])
    assert copy.fields["fanSpeed"] == 900
    copy.apply_snapshot(world.snapshot())
    assert copy.fields["fanSpeed"] == 900
    world.lose("fanSpeed")
    copy.apply_change(Owner.HARDWARE, world.wire[-1])
    assert "fanSpeed" not in copy.fields


def test_whose_an_undeclared_field_is_is_not_known_any_more_after_a_gap() -> None:
    def change(
        owner: Owner, seq: int, values: dict[str, Value], *, full: bool = False, prev: int | None = None
    ) -> None:
        copy.apply_change(owner, Change(7, seq, 0, None if full else prev, full, values=values))

    copy = RecordCopy(WORKER_INFO)
    copy.apply_snapshot(Snapshot({}, 0, {"hardware": Position(7, 1), "tasks": Position(7, 1)}))
    change(Owner.TASKS, 2, {"newer": 1}, prev=1)
    # Hardware's second message, which states it too, is missed; the snapshot that mends that has it.
    change(Owner.HARDWARE, 3, {"diskR": 1}, prev=2)
    copy.apply_snapshot(Snapshot({"newer": 2, "diskR": 1}, 0, {"hardware": Position(7, 3), "tasks": Position(7, 2)}))
    assert copy.is_whole
    change(Owner.TASKS, 4, {"runningTasks": 1}, full=True)
    assert not copy.is_whole or copy.fields.get("newer") == 2
