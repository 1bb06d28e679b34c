"""What may enter a record: the prepared look at a message is the rule itself."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from telemetry.admission import admission
from telemetry.fields import Owner, Record
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
