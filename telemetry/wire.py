"""Messages to bytes and back. What `decode_…` returns is valid; what is not raises WireError.

Flat JSON; keys that begin with `_` are reserved, and unknown ones are ignored so that a newer version may add some.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from telemetry.errors import WireError
from telemetry.fields import Record, Scalar, Value, fits, is_field_name

if TYPE_CHECKING:
    from telemetry.health import Health

LARGEST_PAYLOAD = 262_144
"""Bytes; the broker's message_size_limit."""

_LARGEST_NUMBER = 2**53
_LONGEST_VERSION = 100
_LATEST_TIME = 221_845_392_000_000  # the year 9000, which every calendar still knows
_FIRST_CHARACTER = itemgetter(slice(1))
_ALWAYS_RESERVED = 3
"""`_epoch`, `_seq` and `_time`."""

new_tuple = tuple.__new__
"""Makes a named tuple of all its members, at half of what its own constructor costs, which is written in Python."""


class Position(NamedTuple):
    """A place in an agent's log. Order is (epoch, seq), never a clock."""

    epoch: int
    seq: int


class Change(NamedTuple):
    """What changed in one part of a record: absolute values, and the names of those that cannot be read any more.

    `prev` is the seq of the agent's previous message on the topic, None in a full report. `first`: it is the first
    full report of its process, which may say anything; a later one says what was said already. `time`: Unix ms.
    """

    epoch: int
    seq: int
    time: int
    prev: int | None
    full: bool = False
    first: bool = False
    values: Mapping[str, Value] = MappingProxyType({})
    gone: tuple[str, ...] = ()

    @property
    def position(self) -> Position:
        """Where the message stands in the log."""
        return Position(self.epoch, self.seq)


class Snapshot(NamedTuple):
    """A full record; `positions` says for each sender up to where the record is whole. `time`: Unix ms."""

    values: Mapping[str, Value]
    time: int
    positions: Mapping[str, Position]


class PresenceState(Enum):
    """What a presence says."""

    ONLINE = "online"
    STOPPED = "stopped"
    LOST = "lost"


class Presence(NamedTuple):
    """Whether an agent is there. `session` names one connection, so that the death of another is told apart.

    `next` is the position at which the full reports that follow begin; a will has none. `process` and its start
    `since` tell two agents of one name apart. Times: Unix ms.
    """

    state: PresenceState
    session: str
    time: int
    version: str
    epoch: int | None = None
    next: int | None = None
    process: str = ""
    since: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Messages sent late. What lies below `first` is not in the spool any more; `next` follows the last message.

    `now` is the epoch of the agent's log at present, when the messages are of an earlier one.
    """

    epoch: int
    first: int
    next: int
    messages: tuple[tuple[str, bytes], ...] = ()
    now: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """What an agent states of its records, each part as a digest, at a position of its log: the answer to a request."""

    position: Position
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """What an aggregator has committed of an agent's log; `former` has the same of its earlier logs, by epoch."""

    position: Position
    former: Mapping[int, int] = field(default_factory=dict)


class HealthReport(NamedTuple):
    """How a part was at a time (Unix ms of its clock): its metrics by name."""

    time: int
    version: str
    metrics: Mapping[str, float]


class Request(Enum):
    """What is asked of an agent."""

    ROUTINE = "routine"
    DIGEST = "digest"


class Outgoing(NamedTuple):
    """A message to publish, at QoS 1."""

    topic: str
    payload: bytes
    retain: bool = False


def encode_change(change: Change) -> bytes:
    """The message of a change; `_prev` is left out where it is `_seq - 1`."""
    envelope: dict[str, Any] = {"_epoch": change.epoch, "_seq": change.seq}
    if change.prev is not None and change.prev != change.seq - 1:
        envelope["_prev"] = change.prev
    envelope["_time"] = change.time
    if change.full:
        envelope["_full"] = True
    if change.first:
        envelope["_first"] = True
    if change.gone:
        envelope["_gone"] = change.gone
    return orjson.dumps(envelope | dict(change.values))


def decode_change(payload: bytes) -> Change:
    """A change, its values not yet held against the declaration: see `Admission`."""
    message = _object(payload)
    epoch, seq, time = message.pop("_epoch", None), message.pop("_seq", None), message.pop("_time", None)
    if seq.__class__ is not int or not 1 <= seq < _LARGEST_NUMBER:
        raise WireError("_seq: expected an integer of 1 or more")
    if epoch.__class__ is not int or not 1 <= epoch < _LARGEST_NUMBER:
        raise WireError("_epoch: expected an integer of 1 or more")
    if time.__class__ is not int or not 0 <= time <= _LATEST_TIME:
        raise WireError("_time: expected Unix milliseconds, before the year 9000")
    # Most messages have no other reserved key; their bytes show it without a look at each name.
    if payload.count(b'"_') == _ALWAYS_RESERVED and payload.find(b"\\") < 0:
        return new_tuple(Change, (epoch, seq, time, seq - 1, False, False, message, ()))
    full = _flag(message, "_full")
    prev = None if full else (_number(message, "_prev") if "_prev" in message else seq - 1)
    gone = tuple(filter(is_field_name, _names(message, "_gone"))) if "_gone" in message else ()
    values = {name: value for name, value in message.items() if not name.startswith("_")}
    return Change(epoch, seq, time, prev, full, _flag(message, "_first"), values, gone)


def encode_snapshot(
    values: Mapping[str, Value | orjson.Fragment], *, time: int, positions: Mapping[str, tuple[int, int]]
) -> bytes:
    """The retained message of a full record; see `Snapshot`. What is JSON already goes in as it is."""
    # A position may be a named tuple, which orjson does not know.
    flat = {**values, "_time": time, "_positions": {name: [*one] for name, one in positions.items()}}
    return _compact(orjson.dumps(flat))


def decode_snapshot(payload: bytes) -> Snapshot:
    """A snapshot, its values not yet held against the declaration: see `admit_snapshot`."""
    message = _object(payload)
    time, positions = message.pop("_time", None), message.pop("_positions", None)
    if time.__class__ is not int or not 0 <= time <= _LATEST_TIME:
        raise WireError("_time: expected Unix milliseconds, before the year 9000")
    if positions.__class__ is not dict:
        raise WireError("_positions: expected an object")
    if "_" in map(_FIRST_CHARACTER, message):
        for name in [name for name in message if name.startswith("_")]:
            del message[name]
    return Snapshot(message, time, {sender: _position(position) for sender, position in positions.items()})


def encode_presence(presence: Presence) -> bytes:
    """The retained message of a presence."""
    message: dict[str, Any] = {"state": presence.state.value}
    if presence.epoch is not None:
        message |= {"epoch": presence.epoch, "next": presence.next}
    if presence.process:
        message |= {"process": presence.process, "since": presence.since}
    return orjson.dumps(message | {"session": presence.session, "time": presence.time, "version": presence.version})


def decode_presence(payload: bytes) -> Presence:
    """A presence."""
    message = _object(payload)
    try:
        state = PresenceState(message.get("state"))
    except ValueError:
        raise WireError("state: expected online, stopped or lost") from None
    has_log = "epoch" in message
    process = _text(message, "process") if "process" in message else ""
    return Presence(
        state=state,
        session=_text(message, "session"),
        time=_time(message, "time"),
        version=_text(message, "version"),
        epoch=_number(message, "epoch", least=1) if has_log else None,
        next=_number(message, "next", least=1) if has_log else None,
        process=process,
        since=_time(message, "since") if process and "since" in message else 0,
    )


def encode_ack(ack: Ack) -> bytes:
    """What an aggregator has committed of a log."""
    message: dict[str, Any] = {"epoch": ack.position.epoch, "seq": ack.position.seq}
    if ack.former:
        message["former"] = {str(epoch): seq for epoch, seq in ack.former.items()}
    return _compact(orjson.dumps(message))


def decode_ack(payload: bytes) -> Ack:
    """What an ack confirms."""
    message = _object(payload)
    position = Position(_number(message, "epoch", least=1), _number(message, "seq"))
    former = message.get("former", {})
    if not isinstance(former, dict) or not all(epoch.isdecimal() and len(epoch) < 20 for epoch in former):
        raise WireError("former: expected positions by epoch")
    return Ack(position=position, former={int(epoch): _number(former, epoch) for epoch in former})


def encode_request(request: Request = Request.ROUTINE) -> bytes:
    """A request: to do the connect routine, or to tell what is stated now."""
    return b'{"digest":true}' if request is Request.DIGEST else b"{}"


def decode_request(payload: bytes) -> Request:
    """What is asked."""
    return Request.DIGEST if _flag(_object(payload), "digest") else Request.ROUTINE


def encode_resubscribe(hosts: Sequence[str] = ()) -> bytes:
    """The request for a miner's snapshots, of all or of some hosts."""
    return orjson.dumps({"hosts": list(hosts)}) if hosts else b""


def decode_resubscribe(payload: bytes) -> tuple[str, ...] | None:
    """The hosts asked for; None for the whole miner."""
    if not payload:
        return None
    message = _object(payload)
    return tuple(_names(message, "hosts")) if "hosts" in message else None


def encode_backlog(backlog: Backlog) -> bytes:
    """A batch of late messages, each with its topic."""
    messages = [(topic, orjson.Fragment(payload)) for topic, payload in backlog.messages]
    batch = {"epoch": backlog.epoch, "first": backlog.first, "next": backlog.next, "messages": messages}
    return orjson.dumps(batch if backlog.now is None else batch | {"now": backlog.now})


def encode_digests(digests: Digests) -> bytes:
    """The answer to a request for digests."""
    epoch, seq = digests.position
    return orjson.dumps({"epoch": epoch, "seq": seq, "digests": dict(digests.digests)})


def decode_backlog(payload: bytes) -> Backlog | Digests:
    """A batch of late messages, each not yet decoded itself, or the answer to a request for digests."""
    message = _object(payload)
    epoch = _number(message, "epoch", least=1)
    if "digests" in message:
        digests = message["digests"]
        if not isinstance(digests, dict) or not all(isinstance(one, str) for one in digests.values()):
            raise WireError("digests: expected texts by topic")
        return Digests(position=Position(epoch, _number(message, "seq")), digests=digests)
    first, after = _number(message, "first", least=1), _number(message, "next", least=1)
    if after < first:
        raise WireError("next: below first")
    return Backlog(
        epoch=epoch,
        first=first,
        next=after,
        messages=tuple(_late_messages(message)),
        now=_number(message, "now", least=1) if "now" in message else None,
    )


def digest(record: Record, values: Mapping[str, Value]) -> str:
    """A digest of what a sender states of a record: equal where both hold the same values.

    A whole number of a NUMBER field may have lost its fraction, or gained one, on the way.
    """
    numbers = {name for name, value in values.items() if _is_whole_number(record, name, value)}
    same = {name: float(values[name]) if name in numbers else values[name] for name in sorted(values)}  # type: ignore[arg-type]  # they are numbers
    return blake2b(orjson.dumps(same, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()


def _is_whole_number(record: Record, name: str, value: Value) -> bool:
    declared = record.by_name.get(name)
    return declared is not None and declared.type is Scalar.NUMBER and isinstance(value, int)


def encode_health(report: HealthReport) -> bytes:
    """How a part is: flat, as a snapshot."""
    return orjson.dumps({"time": report.time, "version": report.version, **report.metrics})


def decode_health(health: "Health", payload: bytes) -> HealthReport:
    """How a part is; metrics that are not declared, or not of their type, are left out."""
    message = _object(payload)
    metrics = {
        metric.name: message[metric.name]
        for metric in health.metrics
        if metric.name in message and fits(metric.type, message[metric.name])
    }
    return HealthReport(_time(message, "time"), _text(message, "version")[:_LONGEST_VERSION], metrics)


def without_epoch(payload: bytes) -> bytes:
    """The message of a change as it is kept: without the name of its log, which stands first."""
    return payload[payload.index(b",") + 1 :]


def with_epoch(epoch: int, kept: bytes) -> bytes:
    """The message again."""
    return b'{"_epoch":%d,%b' % (epoch, kept)


def _compact(payload: bytes) -> bytes:
    """A copy of what orjson wrote: its own bytes keep a buffer several times as large, and 10,000 may wait at once."""
    return bytes(memoryview(payload))


def _late_messages(message: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    entries = message.get("messages")
    if not isinstance(entries, list):
        raise WireError("messages: expected a list")
    for entry in entries:
        match entry:
            case [str(topic), dict(late)]:
                yield topic, _again(late)
            case _:
                raise WireError("messages: expected pairs of topic and message")


def _again(message: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(message)
    except TypeError:
        # Deeper than orjson writes: what is empty is refused where this message is decoded, not the whole batch.
        return b""


def _object(payload: bytes) -> dict[str, Any]:
    if len(payload) > LARGEST_PAYLOAD:
        raise WireError(f"payload of {len(payload)} bytes: at most {LARGEST_PAYLOAD}")
    try:
        message = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise WireError(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise WireError("not a JSON object")
    return message


def _number(message: Mapping[str, Any], name: str, *, least: int = 0) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < _LARGEST_NUMBER:
        raise WireError(f"{name}: expected an integer of {least} or more")
    return value


def _time(message: Mapping[str, Any], name: str) -> int:
    time = _number(message, name)
    if time > _LATEST_TIME:
        raise WireError(f"{name}: beyond the year 9000")
    return time


def _flag(message: Mapping[str, Any], name: str) -> bool:
    value = message.get(name, False)
    if not isinstance(value, bool):
        raise WireError(f"{name}: expected true or false")
    return value


def _text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str):
        raise WireError(f"{name}: expected a string")
    return value


def _names(message: Mapping[str, Any], name: str) -> list[str]:
    value = message.get(name)
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise WireError(f"{name}: expected a list of names")
    return value


def _position(value: object) -> Position:
    if isinstance(value, list) and len(value) == 2:
        epoch, seq = value
        if epoch.__class__ is int and seq.__class__ is int:
            return Position(epoch, seq)
    raise WireError("_positions: expected pairs of epoch and seq")
