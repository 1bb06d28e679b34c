"""The declaration and the messages as JSON Schema 2020-12: one schema a kind of message.

A message's schema says what a sender may write. Readers ignore reserved keys that they do not know, and keep fields
that a newer agent adds; these may have any value but null.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from telemetry.fields import Field, Member, ObjectList, Owner, Record, Scalar, ScalarList, ScalarMap, Type
from telemetry.health import HEALTHS, Health, Metric
from telemetry.records import RECORDS
from telemetry.units import Unit

Schema: TypeAlias = dict[str, Any]

_NOT_NULL: Schema = {"not": {"type": "null"}}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_FROM_ONE: Schema = {"type": "integer", "minimum": 1}
_TIME: Schema = {"type": "integer", "minimum": 0, "description": "Unix time in milliseconds."}
_NAMES: Schema = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}

_ENVELOPE: Mapping[str, Schema] = {
    "_epoch": _FROM_ONE | {"description": "Names the agent's log; changes only when the log is lost."},
    "_seq": _FROM_ONE | {"description": "Position in the log; grows by one with each message over all topics."},
    "_prev": _COUNT | {"description": "_seq of the agent's previous message on this topic; absent where _seq - 1."},
    "_time": _TIME | {"description": "When the values were sampled, Unix time in milliseconds."},
    "_full": {"const": True, "description": "A full report: every field that the sender states and can read."},
    "_first": {"const": True, "description": "The first full report of a process; a later one says nothing new."},
    "_gone": _NAMES | {"minItems": 1, "description": "Fields that cannot be read any more."},
}


def schemas() -> dict[str, Schema]:
    """All schemas, by file name."""
    named = {"envelope": _envelope(), "presence": _presence(), "ack": _ack(), "request": _request()}
    named |= {"resubscribe": _resubscribe(), "backlog": _backlog()}
    named |= {f"health.{health.name}": _health(health) for health in HEALTHS}
    for record in RECORDS:
        named[f"{record.name}.snapshot"] = _snapshot(record)
        for owner in record.senders:
            named[change_schema_name(record, owner)] = _change(record, owner)
    return {f"{name}.schema.json": _titled(name, schema) for name, schema in named.items()}


def change_schema_name(record: Record, owner: Owner) -> str:
    """The name of the schema of the changes that a sender states of a record."""
    return f"{record.name}.{owner.value}"


def _titled(name: str, schema: Schema) -> Schema:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"{name}.schema.json", "title": name}
    return head | schema


def _object(properties: Mapping[str, Schema], required: tuple[str, ...], description: str) -> Schema:
    return {
        "description": description,
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": _NOT_NULL,
    }


def _envelope() -> Schema:
    text = "The reserved keys of a change; alone they are a heartbeat."
    return _object(_ENVELOPE, ("_epoch", "_seq", "_time"), text)


def _change(record: Record, owner: Owner) -> Schema:
    fields = {name: _field(field) for name, field in record.owned_by(owner).items()}
    foreign = [name for name in record.by_name if name not in fields]
    text = f"A change of {record.name}: the fields that changed, of those that {owner.value} states."
    schema = _object(dict(_ENVELOPE) | fields, ("_epoch", "_seq", "_time"), text)
    # A full report has no previous message, and nobody states another's fields.
    whole = {"_full": {"properties": {"_prev": False}}}
    return schema | {"dependentSchemas": whole, "propertyNames": {"not": {"enum": foreign}}}


def _snapshot(record: Record) -> Schema:
    position = {"type": "array", "prefixItems": [_FROM_ONE, _COUNT], "items": False, "minItems": 2}
    positions = {
        "type": "object",
        "properties": {owner.value: position for owner in record.senders},
        "additionalProperties": False,
        "description": "For each sender the [epoch, seq] up to which the record is whole.",
    }
    fields = {name: _field(field) for name, field in record.by_name.items()}
    properties = fields | {"_time": _ENVELOPE["_time"], "_positions": positions}
    text = f"A full {record.name}, retained. A field that cannot be read is absent."
    return _object(properties, (*record.keys, "_time", "_positions"), text)


def shown_record(record: Record) -> Schema:
    """A record as readers are shown it."""
    properties = {name: _field(field) for name, field in record.by_name.items()}
    properties |= {"_time": _TIME, "_whole": {"type": "boolean", "description": "Whether no change of it is missing."}}
    return _object(properties, (*record.keys, "_time", "_whole"), f"{record.name} as it is now.")


def _field(declared: Field | Member | Metric) -> Schema:
    symbol = declared.unit.value.symbol
    unit = {} if declared.unit in {Unit.NONE, Unit.COUNT} else {"unit": symbol}
    return _type(declared.type) | {"description": declared.english} | unit


def _type(declared: Type) -> Schema:
    match declared:
        case Scalar():
            return {"type": declared.value}
        case ScalarList(element=element):
            return {"type": "array", "items": {"type": element.value}}
        case ScalarMap(value=element):
            return {"type": "object", "additionalProperties": {"type": element.value}}
        case ObjectList(members=members):
            required = [member.name for member in members if not member.optional]
            properties = {member.name: _field(member) for member in members}
            items: Schema = {"type": "object", "properties": properties, "required": required}
            return {"type": "array", "items": items | {"additionalProperties": _NOT_NULL}}


def _presence() -> Schema:
    properties: dict[str, Schema] = {
        "state": {"enum": ["online", "stopped", "lost"]},
        "epoch": _ENVELOPE["_epoch"],
        "next": _FROM_ONE | {"description": "The position at which the full reports that follow begin."},
        "session": {"type": "string", "description": "Names one connection; the will carries the same."},
        "time": _TIME,
        "version": {"type": "string", "description": "Of the software."},
        "process": {"type": "string", "description": "Names the process, to tell two agents of one name apart."},
        "since": _TIME | {"description": "When the process began, Unix time in milliseconds."},
    }
    schema = _object(properties, ("state", "session", "time", "version"), "Whether a part is there; retained.")
    return schema | {"dependentRequired": {"epoch": ["next"], "next": ["epoch"]}}


def _ack() -> Schema:
    former = {"type": "object", "additionalProperties": _COUNT, "description": "The same of earlier logs, by epoch."}
    properties: dict[str, Schema] = {"epoch": _FROM_ONE, "seq": _COUNT, "former": former}
    return _object(properties, ("epoch", "seq"), "Up to where an aggregator has committed an agent's log; retained.")


def _health(health: Health) -> Schema:
    metrics = {metric.name: _field(metric) | {"minimum": 0} for metric in health.metrics}
    head = {"time": _TIME, "version": {"type": "string", "description": "Of the software."}}
    text = f"How {health.an} is, in numbers. One that it cannot tell is absent."
    return _object(head | metrics, ("time", "version"), text)


def _request() -> Schema:
    digest = {"type": "boolean", "description": "Asks for digests of what is stated now instead."}
    return _object({"digest": digest}, (), "Asks an agent to do its connect routine.")


def _resubscribe() -> Schema:
    text = "Asks for a miner's snapshots again, of these hosts; an empty payload asks for all."
    return _object({"hosts": _NAMES}, (), text)


def _backlog() -> Schema:
    late = {"type": "array", "prefixItems": [{"type": "string"}, {"type": "object"}], "items": False, "minItems": 2}
    properties: dict[str, Schema] = {
        "epoch": _FROM_ONE,
        "first": _FROM_ONE | {"description": "The oldest position that can still come."},
        "next": _FROM_ONE | {"description": "The position after the last message of the batch."},
        "messages": {"type": "array", "items": late, "description": "Pairs of topic and message."},
        "now": _FROM_ONE | {"description": "The epoch of the agent's log, where the messages are of an earlier one."},
        "seq": _COUNT | {"description": "With `digests`: the position at which they hold."},
        "digests": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "The answer to a request for digests: BLAKE2b of what is stated, by topic.",
        },
    }
    text = "Messages that an agent sends late, or the digests that it was asked for."
    either = [{"required": ["first", "next", "messages"]}, {"required": ["seq", "digests"]}]
    return _object(properties, ("epoch",), text) | {"oneOf": either}
