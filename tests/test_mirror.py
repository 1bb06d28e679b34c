"""The mirror of one record: whatever comes in whatever order, it holds what the statements of the protocol say."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from telemetry.admission import admission
from telemetry.aggregator.mirror import MirroredRecord
from telemetry.fields import Owner, Value
from telemetry.topics import RecordKey
from telemetry.wire import Change, Position, decode_snapshot

HOST = RecordKey("f01234", "seal01")
FIELDS = {
    Owner.HARDWARE: ("diskR", "diskW", "cpuLoad", "netIO", "newHardware"),
    Owner.TASKS: ("runningTasks", "taskState", "newTasks"),
}
_INTERFACES = [{"interface": "eth0", "rx": 1, "tx": 2}]
_VALUES: dict[str, st.SearchStrategy[Value]] = {
    "netIO": st.sampled_from([[], _INTERFACES]),
    "taskState": st.sampled_from(["enabled", "disabled"]),
}


@st.composite
def _changes(draw: st.DrawFn) -> tuple[Owner, Change]:
    owner = draw(st.sampled_from([Owner.HARDWARE, Owner.TASKS]))
    names = FIELDS[owner]
    optional = {name: _VALUES.get(name, st.integers(0, 3)) for name in names}
    values: dict[str, Value] = draw(st.fixed_dictionaries({}, optional=optional))
    gone = draw(st.lists(st.sampled_from([name for name in names if name not in values] or ["other"]), max_size=2))
    seq, full = draw(st.integers(1, 15)), draw(st.booleans())
    return owner, Change(7, seq, seq * 1000, None, full, False, values, () if full else tuple(gone))


@dataclass
class _Plain:
    """P-26 and P-10, a field at a time: the newest position that says something of it is what counts."""

    said: dict[tuple[Owner, str], dict[int, Value | None]] = field(default_factory=dict)

    def apply(self, owner: Owner, change: Change) -> None:
        for name in FIELDS[owner]:
            if name in change.values or name in change.gone or change.full:
                self.said.setdefault((owner, name), {})[change.seq] = change.values.get(name)

    @property
    def values(self) -> dict[str, Value]:
        newest = {name: positions[max(positions)] for (_, name), positions in self.said.items()}
        return {name: value for name, value in newest.items() if value is not None}


def _shown(record: MirroredRecord) -> dict[str, Value]:
    for part in record.parts:
        part.whole = Position(7, 1)
    values = decode_snapshot(record.snapshot()).values
    return {name: value for name, value in values.items() if name not in {"minerId", "hostName"}}


@given(st.lists(_changes(), max_size=12, unique_by=lambda one: (one[0], one[1].seq)), st.data())
def test_a_record_holds_of_each_field_what_was_said_last(
    changes: Sequence[tuple[Owner, Change]], data: st.DataObject
) -> None:
    record, plain = MirroredRecord(HOST), _Plain()
    for owner, change in changes:
        before = _shown(record)
        form = admission(HOST.record, owner).form_of(change.values)
        altered = record.apply(record.part(owner), change, change.values, form)
        plain.apply(owner, change)
        # What is unknown is not remembered once it is gone: an older value of it may come back.
        declared = {name: value for name, value in _shown(record).items() if not name.startswith("new")}
        assert declared == {name: value for name, value in plain.values.items() if not name.startswith("new")}
        assert altered == (_shown(record) != before)
        if data.draw(st.booleans()):
            record = MirroredRecord(HOST, record.stored())


def test_what_a_new_log_says_is_newer_than_all_before_and_nothing_of_the_old_one_counts_any_more() -> None:
    record = MirroredRecord(HOST)
    part = record.part(Owner.HARDWARE)
    for epoch, seq, value in ((7, 900, 1), (8, 1, 2), (7, 901, 3)):
        change = Change(epoch, seq, 0, None, values={"diskR": value})
        record.apply(part, change, change.values)
    assert _shown(record) == {"diskR": 2}
