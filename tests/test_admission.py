"""What may enter a record: the prepared look at a message is the rule itself."""

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from telemetry.admission import MOST_FORMS, Admission, admission
from telemetry.fields import Owner, Record, Scalar
from telemetry.records import MINER_INFO, RECORDS, WORKER_INFO

_SINGLE = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**64), 2**64), st.floats(allow_nan=False), st.text(max_size=3),
    st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1]),
)  # fmt: skip
_MEMBERS = st.sampled_from(["interface", "rx", "tx", "mount", "device", "filesystem", "total", "used", "newer"])
_ENTRIES = st.lists(st.one_of(_SINGLE, st.dictionaries(_MEMBERS, _SINGLE, max_size=6)), max_size=3)
_INTERFACES = st.lists(
    st.fixed_dictionaries(
        {"interface": st.text(max_size=3), "rx": st.integers(-(2**64), 2**64), "tx": st.integers(0, 9)},
        optional={"newer": _SINGLE},
    ),
    max_size=3,
)
_VALUES = st.one_of(_SINGLE, _ENTRIES, _INTERFACES, st.dictionaries(st.text(max_size=3), _SINGLE, max_size=3))
_NAMES = st.one_of(st.sampled_from([*WORKER_INFO.by_name, *MINER_INFO.by_name]), st.text(max_size=8))
_SENDERS = st.sampled_from([(record, owner) for record in RECORDS for owner in record.senders])


@given(_SENDERS, st.dictionaries(_NAMES, _VALUES, max_size=6))
def test_a_message_is_admitted_at_once_as_it_would_be_name_by_name(
    sender: tuple[Record, Owner], values: dict[str, Any]
) -> None:
    prepared = admission(*sender)
    assert prepared.admit(values) == prepared._one_by_one(values)


@given(_SENDERS, st.data())
def test_values_have_a_form_where_they_are_scalars_and_all_of_them_are_admitted(
    sender: tuple[Record, Owner], data: st.DataObject
) -> None:
    record, owner = sender
    prepared, names = admission(*sender), st.sampled_from([*record.owned_by(owner), "newer", "minerId"])
    for _ in range(3):
        # The second and third time some forms are known already, also those of values that are too large.
        values = data.draw(st.dictionaries(names, _VALUES, max_size=3))
        form, admitted = prepared.form_of(values), prepared._one_by_one(values)
        is_plain = not admitted.refused and not admitted.unknown
        is_scalar = not any(isinstance(value, list | dict) for value in values.values())
        assert (form is not None) == (is_plain and is_scalar)
        if form is not None:
            assert [record.fields[place].name for place in form.places] == list(values)


def test_a_known_form_lets_no_integer_pass_that_no_column_holds() -> None:
    prepared = admission(WORKER_INFO, Owner.HARDWARE)
    for largest, is_held in ((2**63 - 1, True), (2**63, False), (-(2**63), True), (-(2**63) - 1, False), (0, True)):
        assert (prepared.form_of({"cpuLoad": 1.5, "diskR": largest}) is not None) == is_held


def test_forms_without_end_make_nothing_grow_without_end() -> None:
    prepared = Admission(WORKER_INFO, Owner.HARDWARE)
    names = [name for name, field in WORKER_INFO.owned_by(Owner.HARDWARE).items() if field.type is Scalar.INTEGER]
    for some in itertools.islice(itertools.permutations(names), MOST_FORMS + 10):
        assert prepared.form_of(dict.fromkeys(some, 1)) is not None
    assert len(prepared._forms) <= MOST_FORMS
