"""Messages to bytes and back, and what is refused."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry import wire
from telemetry.admission import admission
from telemetry.errors import WireError
from telemetry.fields import Owner
from telemetry.records import WORKER_INFO
from telemetry.wire import Backlog, Change, Position, Presence, PresenceState, Snapshot

_SEQ = st.integers(1, 2**50)
_JSON = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=10,
)
_NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,10}", fullmatch=True)
_VALUES = st.dictionaries(_NAMES, _JSON, max_size=5)


def _joined(parts: tuple[dict[str, Any], dict[str, Any]]) -> bytes:
    return orjson.dumps(parts[0] | parts[1])


@given(_SEQ, _SEQ, st.one_of(st.none(), st.integers(0, 2**50)), _VALUES, st.lists(_NAMES, unique=True))
def test_a_change_survives_the_wire(epoch: int, seq: int, prev: int | None, values: Any, gone: list[str]) -> None:
    change = Change(epoch=epoch, seq=seq, time=5, prev=prev, full=prev is None, values=values, gone=tuple(gone))
    assert wire.decode_change(wire.encode_change(change)) == change


def test_a_change_reads_as_the_protocol_shows_it() -> None:
    change = Change(epoch=1763900000000, seq=1841, prev=1840, time=1763900123456, values={"cpuLoad": 37.5, "diskW": 0})
    shown = b'{"_epoch":1763900000000,"_seq":1841,"_time":1763900123456,"cpuLoad":37.5,"diskW":0}'
    assert wire.encode_change(change) == shown


def _decoded_plainly(payload: bytes) -> Change | None:
    """What a payload says by the statements of the protocol, one after another; None where it breaks one."""
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(message, dict) or len(payload) > wire.LARGEST_PAYLOAD:
        return None
    limits = {"_epoch": (1, 2**53 - 1), "_seq": (1, 2**53 - 1), "_time": (0, 221_845_392_000_000)}
    numbers = [(message.get(name), least, most) for name, (least, most) in limits.items()]
    flags = [message.get(name, False) for name in ("_full", "_first")]
    if not (
        all(type(number) is int and least <= number <= most for number, least, most in numbers)
        and all(isinstance(flag, bool) for flag in flags)
    ):
        return None
    full, prev = message.get("_full", False), message.get("_prev", message["_seq"] - 1)
    if not full and (type(prev) is not int or not 0 <= prev < 2**53):
        return None
    gone = message.get("_gone", [])
    if not isinstance(gone, list) or not all(isinstance(name, str) for name in gone):
        return None
    return Change(
        epoch=message["_epoch"],
        seq=message["_seq"],
        time=message["_time"],
        prev=None if full else prev,
        full=full,
        first=message.get("_first", False),
        values={name: value for name, value in message.items() if not name.startswith("_")},
        gone=tuple(gone),
    )


_NEARLY = st.one_of(_JSON, st.none(), st.integers(-1, 3), st.integers(2**53 - 1, 2**64 - 1), st.booleans())
_ENVELOPES = st.fixed_dictionaries(
    {"_epoch": st.one_of(_SEQ, _NEARLY), "_seq": st.one_of(_SEQ, _NEARLY), "_time": st.one_of(_SEQ, _NEARLY)},
    optional={
        "_prev": _NEARLY,
        "_full": st.one_of(st.booleans(), _NEARLY),
        "_first": st.one_of(st.booleans(), _NEARLY),
        "_gone": st.one_of(st.lists(_NAMES), _NEARLY),
        "_later": _JSON,
        "": _JSON,
    },
)


@given(st.one_of(st.binary(), _JSON.map(orjson.dumps), st.tuples(_ENVELOPES, _VALUES).map(_joined)))
def test_a_change_is_what_the_statements_of_the_protocol_say(payload: bytes) -> None:
    try:
        decoded = wire.decode_change(payload)
    except WireError:
        decoded = None
    assert decoded == _decoded_plainly(payload)


@given(_VALUES, st.dictionaries(st.sampled_from(["hardware", "tasks"]), st.tuples(_SEQ, _SEQ)))
def test_a_snapshot_survives_the_wire(values: Any, positions: dict[str, tuple[int, int]]) -> None:
    held = {sender: Position(*position) for sender, position in positions.items()}
    payload = wire.encode_snapshot(values, time=5, positions=held)
    assert wire.decode_snapshot(payload) == Snapshot(values=values, time=5, positions=held)


def test_presence_ack_resubscribe_and_backlog_survive_the_wire() -> None:
    presence = Presence(state=PresenceState.ONLINE, session="s", time=1, version="1", epoch=7, next=2)
    will = Presence(state=PresenceState.LOST, session="s", time=1, version="1")
    late = Backlog(epoch=7, first=1, next=3, messages=(("miners/f01", b'{"a":1}'),))
    assert wire.decode_presence(wire.encode_presence(presence)) == presence
    assert wire.decode_presence(wire.encode_presence(will)) == will
    for ack in (wire.Ack(position=Position(7, 0)), wire.Ack(position=Position(7, 5), former={6: 3, 5: 1})):
        assert wire.decode_ack(wire.encode_ack(ack)) == ack
    digests = wire.Digests(position=Position(7, 3), digests={"miners/f01": "00ff"})
    assert wire.decode_backlog(wire.encode_digests(digests)) == digests
    assert wire.decode_resubscribe(wire.encode_resubscribe(("a", "b"))) == ("a", "b")
    assert wire.decode_resubscribe(wire.encode_resubscribe()) is None
    assert wire.decode_backlog(wire.encode_backlog(late)) == late


DECODERS: list[Callable[[bytes], object]] = [
    wire.decode_change, wire.decode_snapshot, wire.decode_presence, wire.decode_ack, wire.decode_request,
    wire.decode_resubscribe, wire.decode_backlog,
]  # fmt: skip


@pytest.mark.parametrize("decode", DECODERS)
@given(payload=st.one_of(st.binary(), _JSON.map(orjson.dumps), _VALUES.map(orjson.dumps)))
def test_whatever_comes_is_decoded_or_refused(decode: Callable[[bytes], object], payload: bytes) -> None:
    try:
        decode(payload)
    except WireError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        b"[]",
        b"\xff\xfe",
        b'{"_epoch":1,"_seq":0,"_time":1}',
        b'{"_epoch":1,"_seq":true,"_time":1}',
        b'{"_epoch":1.5,"_seq":1,"_time":1}',
        b'{"_seq":1,"_time":1}',
        b'{"_epoch":1,"_seq":1,"_time":1,"_gone":"cpuLoad"}',
        b'{"_epoch":1,"_seq":1,"_time":1,"_full":1}',
        b'{"_epoch":1,"_seq":99999999999999999999999,"_time":1}',
        b'{"a":' * 100_000,
        b'{"_epoch":1,"_seq":1,"_time":1,"name":"' + b"x" * wire.LARGEST_PAYLOAD + b'"}',
    ],
)
def test_a_change_that_breaks_the_envelope_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode_change(payload)


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ({"cpuLoad": None}, "cpuLoad"),
        ({"cpuLoad": "37"}, "cpuLoad"),
        ({"cpuLoad": True}, "cpuLoad"),
        ({"totalMemory": 1.5}, "totalMemory"),
        ({"totalMemory": 2**63}, "totalMemory"),
        ({"useDisk": [{"mount": "/"}]}, "useDisk"),
        ({"useDisk": {"mount": "/"}}, "useDisk"),
        ({"netState": "online"}, "netState"),
        ({"taskState": "enabled"}, "taskState"),
        ({"hostName": "other"}, "hostName"),
        ({"newer": None}, "newer"),
        ({"newer": [{"deep": None}]}, "newer"),
        ({"no name": 1}, "no name"),
    ],
)
def test_a_value_of_the_wrong_type_or_sender_is_refused_alone(values: dict[str, Any], refused: str) -> None:
    admitted = admission(WORKER_INFO, Owner.HARDWARE).admit(values | {"diskR": 5})
    assert admitted.values == {"diskR": 5}
    assert [reason.split(":")[0] for reason in admitted.refused] == [refused]


def test_a_field_of_a_newer_agent_is_admitted_and_named() -> None:
    admitted = admission(WORKER_INFO, Owner.HARDWARE).admit({"fanSpeed": 900})
    assert (admitted.values, admitted.unknown, admitted.refused) == ({"fanSpeed": 900}, ("fanSpeed",), ())


def test_gone_are_only_names_that_a_field_can_have() -> None:
    payload = b'{"_epoch":1,"_seq":2,"_time":3,"_gone":["diskR","5","_full","newer",""]}'
    assert wire.decode_change(payload).gone == ("diskR", "newer")
