"""The history is what was sent, however it is packed, summarized, interrupted and read."""

import itertools
import math
import os
import shutil
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from telemetry.config import Retention
from telemetry.fields import Owner
from telemetry.stores import Batch, HistoryRow
from telemetry.stores.history import HOUR, Statement, Summary, blocks, packing, summaries, upkeep, writing
from telemetry.stores.history.reading import History, open_history
from telemetry.stores.history.upkeep import FOREVER
from telemetry.stores.sqlite import SqliteStore, delete_history
from telemetry.topics import RecordKey
from telemetry.wire import Position
from tests.history_oracle import PlainList, fields_of

RUNS = int(os.environ.get("TELEMETRY_FUZZ_RUNS", "25"))
START = 1_795_000_000_000 // (24 * HOUR) * (24 * HOUR) + 21 * HOUR
MINUTE = 60_000
HOST, OTHER, MINER = RecordKey("f01234", "seal01"), RecordKey("f01234", "seal02"), RecordKey("f01234")
SENDERS = [(HOST, Owner.HARDWARE), (HOST, Owner.TASKS), (OTHER, Owner.HARDWARE), (MINER, Owner.MINER)]

_JSON = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)
_NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 100),
    st.integers(0, 1000).map(lambda number: number / 10),
    st.floats(-1e12, 1e12),
)
_VALUES = st.one_of(_NUMBERS, _NUMBERS, st.sampled_from(["idle", "busy"]), _JSON)
_FIELDS = ("cpuUsage", "diskR", "netState", "gpuInfo", "newer")


def _statements() -> st.SearchStrategy[list[Statement]]:
    one = st.builds(
        Statement,
        time=st.integers(0, 2**47),
        epoch=st.integers(1, 2**53 - 1),
        seq=st.integers(1, 2**53 - 1),
        delay=st.integers(-(2**47), 2**47),
        full=st.booleans(),
        values=st.dictionaries(st.sampled_from(_FIELDS), _VALUES, max_size=4),
        gone=st.lists(st.sampled_from(["gone1", "gone2"]), max_size=2, unique=True).map(tuple),
    )
    return st.lists(one, max_size=12)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_statements())
def test_a_block_loses_nothing(statements: list[Statement]) -> None:
    back = blocks.Messages(blocks.encode_statements(statements)).statements()
    assert [_exact(one) for one in back] == [_exact(one) for one in statements]


def _exact(value: Any) -> str:
    """Distinguishes 1 from 1.0 and from True, and 0.0 from -0.0; objects are equal in any order."""
    if isinstance(value, Statement):
        return repr((value[:5], [_exact(value.values[name]) for name in sorted(value.values)], sorted(value.gone)))
    return repr(value)


@given(st.lists(st.builds(Summary, *[st.integers(0, 2**50)], *[_NUMBERS] * 4, st.integers(0, 99), st.integers(0, 99))))
def test_a_block_of_summaries_loses_nothing(rows: list[Summary]) -> None:
    back = blocks.Summaries(blocks.encode_summaries({"1": rows}, {}, source=7))
    assert repr(back.summaries["1"]) == repr(rows)
    assert (back.changes, back.source) == ({}, 7)


def test_the_mean_of_the_largest_numbers_is_none_of_those_beyond_all() -> None:
    timeline: blocks.Timeline = [(START, 5e307), (START + 4 * MINUTE, 1e308)]
    five, hour = (summaries.summarize(timeline, START, START + 5 * MINUTE, step) for step in (5 * MINUTE, HOUR))
    assert math.isclose(five[0].mean, 6e307)
    assert math.isclose(summaries.combine(five * 3, HOUR)[0].mean, 6e307)
    assert 5e307 < hour[0].mean < 1e308


DAY = 24 * HOUR


class Recording(RuleBasedStateMachine):
    """A store and a plain list that are told the same; upkeep, crashes and clocks that are set come at any time."""

    retention = FOREVER
    jumps: tuple[int, ...] = (-365 * DAY, -3 * HOUR, 365 * DAY)

    @initialize()
    def begin(self) -> None:
        self.directory = TemporaryDirectory()
        self.copies = itertools.count()
        self.path = Path(self.directory.name) / "telemetry.db"
        self.store = SqliteStore(self.path, self.retention)
        self.plain = PlainList()
        self.now = START
        self.seqs = itertools.count(1)
        self.epochs = dict.fromkeys(SENDERS, 1)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.directory.cleanup()

    @rule(
        messages=st.lists(
            st.tuples(
                st.sampled_from(SENDERS),
                st.integers(0, 6 * HOUR),
                st.one_of(st.integers(0, 2000), st.integers(-HOUR, 4 * HOUR), st.just(0)),
                st.booleans(),
                st.dictionaries(st.sampled_from(_FIELDS), _VALUES, max_size=3),
                st.lists(st.sampled_from(_FIELDS), max_size=2),
                st.booleans(),
            ),
            max_size=8,
        ),
        dense=st.booleans(),
    )
    def commit(self, messages: list[Any], dense: bool) -> None:
        rows = []
        for sender, pause, delay, full, stated, left_out, new_log in messages:
            values = {f"{name}_{sender[1].value}": value for name, value in stated.items()}
            gone = [f"{name}_{sender[1].value}" for name in left_out]
            self.now += pause // 600 if dense else pause // 10
            self.epochs[sender] += new_log
            position = Position(self.epochs[sender], next(self.seqs))
            left = tuple(name for name in dict.fromkeys(gone) if name not in values)
            rows.append(HistoryRow(sender[0], sender[1], position, self.now - delay, self.now, full, values, left))
        self.store.commit(Batch(history=rows))
        self.plain.rows += rows

    @rule(passed=st.integers(0, 5 * HOUR), steps=st.integers(0, 30))
    def keep_up(self, passed: int, steps: int) -> None:
        self.now += passed
        for _ in range(steps):
            if not self.store.maintain(self.now):
                break

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = SqliteStore(self.path, self.retention)

    @rule()
    def crash(self) -> None:
        """Go on with the files as a process leaves them that is killed now, in the middle of its upkeep."""
        copy = Path(self.directory.name) / f"{next(self.copies)}.db"
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", f"{copy}{suffix}")
        self.store.close()
        self.path = copy
        self.store = SqliteStore(self.path, self.retention)

    @rule(jump=st.data())
    def set_clock(self, jump: st.DataObject) -> None:
        if self.jumps:
            self.now += jump.draw(st.sampled_from(self.jumps))

    @rule(key=st.sampled_from([HOST, OTHER]))
    def forget(self, key: RecordKey) -> None:
        delete_history(self.path, [key])
        self.plain.rows = [row for row in self.plain.rows if row.record != key]

    @rule(sender=st.sampled_from(SENDERS), steps=st.integers(0, 3))
    def fail_to_commit(self, sender: tuple[RecordKey, Owner], steps: int) -> None:
        """Of a batch that cannot be written nothing is, and nothing of it is in the way, also of upkeep under way."""
        row = HistoryRow(*sender, Position(1, 1), self.now, self.now, False, {"failed": 1}, ())
        with pytest.raises(OverflowError):
            self.store.commit(Batch(history=[row, row._replace(time=2**70)]))
        for _ in range(steps):
            self.store.maintain(self.now)

    @invariant()
    def history_is_the_list(self) -> None:
        if hasattr(self, "store"):
            with open_history(self.path) as history:
                self.compare(history)
                assert not history.damaged

    def compare(self, history: History) -> None:
        for key in (HOST, OTHER, MINER):
            found = [(owner, _exact(one)) for owner, one in history.statements(key)]
            assert found == [(row.owner, _exact(_statement(row))) for row in self.plain.of(key)]
            self.compare_moments(history, key)
            self.compare_changes(history, key)
            self.compare_summaries(history, key, (5 * MINUTE, HOUR, 7 * MINUTE))

    def compare_moments(self, history: History, key: RecordKey) -> None:
        rows = self.plain.of(key)
        for moment in {row.time + shift for row in rows[-6:] for shift in (-1, 0, 90_000)}:
            assert {name: tuple(one) for name, one in history.at(key, moment).items()} == self.plain.at(key, moment)

    def compare_changes(self, history: History, key: RecordKey) -> None:
        rows = self.plain.of(key)
        for name, owner in fields_of(rows)[:2]:
            middle, until = rows[len(rows) // 2].time, rows[-1].time + 2 * HOUR
            changed = [tuple(one) for one in history.changes(key, name, middle, until)]
            assert changed == self.plain.changes(key, name, owner, middle, until)

    def compare_summaries(self, history: History, key: RecordKey, steps: tuple[int, ...], oldest: int = 0) -> None:
        rows = self.plain.of(key)
        for name, owner in fields_of(rows)[:2]:
            for step in steps:
                # A value holds for an hour: everything is within two of a message.
                starts = {(row.time + shift) // step * step for row in rows for shift in range(0, 2 * HOUR, step)}
                since, until = min(starts), max(starts) + step
                found = {one.start: one for one in history.summaries(key, name, max(since, oldest), until, step)}
                assert found.keys() <= starts
                for start in starts:
                    if start >= oldest:
                        self.compare_summary(found.get(start), key, name, owner, start, start + step)

    def compare_summary(
        self, found: Summary | None, key: RecordKey, name: str, owner: Owner, start: int, end: int
    ) -> None:
        expected = self.plain.summary(key, name, owner, start, end)
        if expected is None or found is None:
            assert (found is None) == (expected is None)
            return
        largest = max(abs(expected["min"]), abs(expected["max"]))
        assert math.isclose(found.mean, expected["mean"], rel_tol=1e-9, abs_tol=1e-9 * largest + 0.02), (
            found,
            expected,
        )
        assert found._replace(mean=expected["mean"]) == Summary(start=start, **expected)


class Expiring(Recording):
    """Messages are kept for some hours, summaries longer: what must be there is, and in time the rest is gone."""

    retention = Retention(messages=6 * 3600, five_minutes=48 * 3600, hours=1e6, bytes=1 << 62)
    jumps = ()
    # The clock is believed after twice the shortest retention, at the most.
    latest = 3 * 6 * HOUR + 2 * HOUR

    def compare(self, history: History) -> None:
        for key in (HOST, OTHER, MINER):
            found = [(owner, _exact(one)) for owner, one in history.statements(key)]
            rows = self.plain.of(key)
            kept = [(row.owner, _exact(_statement(row))) for row in rows if row.received >= self.now - 6 * HOUR]
            everything = [(row.owner, _exact(_statement(row))) for row in rows]
            assert [one for one in everything if one in found] == found
            assert [one for one in found if one in kept] == kept
            self.compare_summaries(history, key, (5 * MINUTE,), self.now // HOUR * HOUR - 48 * HOUR)
            self.compare_summaries(history, key, (HOUR,))

    @rule()
    def pass_time(self) -> None:
        """What is older than the retention is gone, when the clock went on for long enough."""
        for _ in range(self.latest // (10 * MINUTE) + 1):
            self.now += 10 * MINUTE
            while self.store.maintain(self.now):
                pass
        oldest = self.now - self.latest
        with open_history(self.path) as history:
            for key in (HOST, OTHER, MINER):
                kept = {_exact(one) for _, one in history.statements(key)}
                old = {_exact(_statement(row)) for row in self.plain.of(key) if row.received < oldest}
                assert not kept & old


def _statement(row: HistoryRow) -> Statement:
    return Statement(row.time, *row.position, row.received - row.time, row.full, row.values, row.gone)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes so small that a few messages exceed each of them."""
    for module, name, size in (
        (writing, "MOST_UNMARKED", 5), (writing, "_MARKED_AT_ONCE", 2), (writing, "MOST_NAMES", 7),
        (writing, "MOST_STATED", 9),
        (packing, "MOST_ROWS", 5), (upkeep, "MOST_ROWS", 5), (packing, "_LARGEST_BLOCK", 6),
        (upkeep, "_LINKS_A_PIECE", 3), (upkeep, "_ROWS_A_STEP", 4), (upkeep, "_BLOCKS_A_STEP", 2),
        (upkeep, "_STREAMS_A_STEP", 2), (upkeep, "_SECONDS_A_STEP", 0),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, size)


def test_messages_of_fields_without_end_make_the_writer_no_larger(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "telemetry.db")) as store:
        for seq in range(1, 30):
            values = dict.fromkeys((f"new{seq}x{number}" for number in range(10_000)), seq)
            store.commit(Batch(history=[HistoryRow(HOST, Owner.HARDWARE, Position(1, seq), 1, 1, False, values, ())]))
        assert 0 < sum(map(len, store._history._statements)) <= writing.MOST_STATED


@pytest.mark.usefixtures("small")
def test_what_is_deleted_while_it_is_packed_does_not_come_back_and_what_follows_stays(tmp_path: Path) -> None:
    def rows_from(seq: int, begin: int) -> list[HistoryRow]:
        times = [(one, begin + (one - seq) * MINUTE) for one in range(seq, seq + 30)]
        return [
            HistoryRow(HOST, Owner.HARDWARE, Position(1, seq + 1), time, time, False,
                       {"diskR": seq, "taskState": str(seq)}, ())
            for seq, time in times
        ]  # fmt: skip

    rows, following = rows_from(0, START), rows_from(30, START + 4 * HOUR)
    for steps in itertools.count():
        path = tmp_path / f"{steps}.db"
        with closing(SqliteStore(path)) as store:
            store.commit(Batch(history=rows))
            is_done = not all(store.maintain(START + 5 * HOUR) for _ in range(steps))
            delete_history(path, [HOST])
            store.commit(Batch(history=following))
            while store.maintain(START + 7 * HOUR):
                pass
        with open_history(path) as history:
            assert [one.seq for _, one in history.statements(HOST)] == [row.position.seq for row in following]
            assert list(history.summaries(HOST, "diskR", START, START + 3 * HOUR, HOUR)) == []
        if is_done:
            assert steps > 20
            return


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("full_at", [None, 4, 17])
@pytest.mark.parametrize("late_at", [None, 3])
def test_what_the_first_of_an_hours_blocks_states_holds_on_in_the_next_hour(
    tmp_path: Path, full_at: int | None, late_at: int | None
) -> None:
    plain, path = PlainList(), tmp_path / "telemetry.db"
    for seq in range(24):
        time = START + HOUR + (seq - 22) * MINUTE  # two of them are of the next hour
        received = time + (30 * MINUTE if seq == late_at else 0)
        values: dict[str, Any] = {"diskR": 7, "taskState": "first"} if seq == 1 else {"diskW": seq}
        position = Position(1, seq + 1)
        plain.rows.append(HistoryRow(HOST, Owner.HARDWARE, position, time, received, seq == full_at, values, ()))
    with closing(SqliteStore(path)) as store:
        store.commit(Batch(history=sorted(plain.rows, key=lambda row: row.received)))
        while store.maintain(START + 5 * HOUR):
            pass
    with open_history(path) as history:
        for name in ("diskR", "diskW"):
            found = {one.start: one for one in history.summaries(HOST, name, START, START + 3 * HOUR, 5 * MINUTE)}
            for start in range(START, START + 3 * HOUR, 5 * MINUTE):
                expected = plain.summary(HOST, name, Owner.HARDWARE, start, start + 5 * MINUTE)
                assert (start in found) == (expected is not None)
                if expected is not None:
                    assert found[start]._replace(mean=0) == Summary(start=start, **expected)._replace(mean=0)
        stated = [tuple(one) for one in history.changes(HOST, "taskState", START, START + 3 * HOUR)]
        assert stated == plain.changes(HOST, "taskState", Owner.HARDWARE, START, START + 3 * HOUR)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("machine", [Recording, Expiring])
def test_the_history_equals_a_plain_list(machine: type[Recording]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        ),
    )
