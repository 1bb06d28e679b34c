"""What a field and a record are: one declaration, from which everything else that knows a field is made.

A field has its declared JSON type in every message; `null` is never a value.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, TypeAlias

from telemetry.units import Unit

Value: TypeAlias = str | int | float | bool | list[Any] | dict[str, Any]
"""A JSON value without null."""

_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")

INTEGER_LIMIT = 2**63
"""SQLite's INTEGER. What does not fit is refused at the door, not at the commit."""


class Scalar(Enum):
    """The JSON types of a single value. A NUMBER may be written without a fraction."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"


class Owner(Enum):
    """Who states a field. `MINER`, `HARDWARE` and `TASKS` are the senders of reports."""

    # A member is one object: Enum's own hash, of its name, is made in Python.
    __hash__ = object.__hash__

    KEY = "key"
    MINER = "miner"
    HARDWARE = "hardware"
    TASKS = "tasks"
    AGGREGATOR = "aggregator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadband:
    """How far a number must move from the value last sent to count as changed: beyond both bounds.

    `absolute` is in the field's unit, `relative` a share of the value last sent.
    """

    absolute: float = 0.0
    relative: float = 0.0

    def exceeded(self, sent: float, now: float) -> bool:
        """Whether `now` is far enough from `sent` to be reported."""
        return now != sent and abs(now - sent) > max(self.absolute, self.relative * abs(sent))


EXACT = Deadband()


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From which value on a number asks for attention, and from which at once; in the field's unit."""

    warning: float
    critical: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One named value of an object in a list; an `optional` one may be left out.

    `label` names it where it tells the time series of the list's elements apart.
    """

    name: str
    type: Scalar
    english: str
    chinese: str
    unit: Unit = Unit.NONE
    deadband: Deadband = EXACT
    optional: bool = False
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class ObjectList:
    """A list of objects with declared members."""

    members: tuple[Member, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Member]:
        """The members by name."""
        return {member.name: member for member in self.members}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarList:
    """A list of single values of one type."""

    element: Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarMap:
    """An object whose keys are data and whose values are single values of one type."""

    value: Scalar


Type: TypeAlias = Scalar | ObjectList | ScalarList | ScalarMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a record: `name` is its name everywhere, `owner` the only one who states it.

    `label` names, in time series, what of it is no number: its text, the keys of a map, the entries of a list.
    """

    name: str
    type: Type
    owner: Owner
    english: str
    chinese: str
    unit: Unit = Unit.NONE
    deadband: Deadband = EXACT
    label: str = ""
    thresholds: Thresholds | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """A kind of record: its name, and its fields in the order in which they are shown. Two are the same if one is."""

    name: str
    fields: tuple[Field, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Field]:
        """The fields by name."""
        return {field.name: field for field in self.fields}

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The names of the fields that identify one record."""
        return tuple(field.name for field in self.fields if field.owner is Owner.KEY)

    @cached_property
    def senders(self) -> tuple[Owner, ...]:
        """The owners whose reports make the record, in order of their first field."""
        reported = (Owner.MINER, Owner.HARDWARE, Owner.TASKS)
        return tuple(dict.fromkeys(field.owner for field in self.fields if field.owner in reported))

    def owned_by(self, owner: Owner) -> Mapping[str, Field]:
        """The fields that `owner` states, by name."""
        return self._owned[owner]

    @cached_property
    def _owned(self) -> Mapping[Owner, Mapping[str, Field]]:
        return {owner: {one.name: one for one in self.fields if one.owner is owner} for owner in Owner}


def fits(declared: Type, value: object) -> bool:
    """Whether a JSON value has the declared type. Members that a newer version added are let pass."""
    match declared:
        case Scalar():
            return _fits_scalar(declared, value)
        case ScalarList(element=element):
            return isinstance(value, list) and all(_fits_scalar(element, entry) for entry in value)
        case ScalarMap(value=element):
            return isinstance(value, dict) and all(_fits_scalar(element, entry) for entry in value.values())
        case ObjectList():
            return isinstance(value, list) and all(_fits_object(declared, entry) for entry in value)


def _fits_scalar(declared: Scalar, value: object) -> bool:
    if declared is Scalar.STRING:
        return isinstance(value, str)
    if isinstance(value, bool):
        return declared is Scalar.BOOLEAN
    if isinstance(value, int):
        return declared in {Scalar.INTEGER, Scalar.NUMBER} and fits_integer(value)
    return declared is Scalar.NUMBER and isinstance(value, float)


def is_field_name(name: str) -> bool:
    """Whether a field, of any version, can have this name."""
    return _FIELD_NAME.fullmatch(name) is not None


def fits_integer(value: int) -> bool:
    """Whether every reader of the record can hold an integer."""
    return -INTEGER_LIMIT <= value < INTEGER_LIMIT


def _fits_object(declared: ObjectList, value: object) -> bool:
    return (
        isinstance(value, dict)
        and has_no_null(value)
        and all(
            _fits_scalar(member.type, value[member.name]) if member.name in value else member.optional
            for member in declared.members
        )
    )


DEEPEST = 32
"""Levels of a value: deeper ones are refused, so that no value can exhaust a reader's stack."""


def has_no_null(value: object, *, levels: int = DEEPEST) -> bool:
    """Whether no null stands anywhere in a JSON value, and it is no deeper than `levels`."""
    if isinstance(value, list | dict):
        inner = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(has_no_null(entry, levels=levels - 1) for entry in inner)
    return value is not None


def differs(declared: Type, deadband: Deadband, sent: Value, now: Value) -> bool:
    """Whether `now` has to be reported when `sent` is what the reader holds."""
    if sent == now:
        return False
    if isinstance(declared, ObjectList):
        return _objects_differ(declared, sent, now)
    if _is_number(sent) and _is_number(now):
        return deadband.exceeded(sent, now)  # type: ignore[arg-type]  # both are numbers
    return True


def _objects_differ(declared: ObjectList, sent: Value, now: Value) -> bool:
    if not isinstance(sent, list) or not isinstance(now, list) or len(sent) != len(now):
        return True
    return any(_object_differs(declared, old, new) for old, new in zip(sent, now, strict=True))


def _object_differs(declared: ObjectList, sent: dict[str, Value], now: dict[str, Value]) -> bool:
    if sent.keys() != now.keys():
        return True
    for name, value in now.items():
        member = declared.by_name.get(name)
        if member is None:
            if sent[name] != value:
                return True
        elif differs(member.type, member.deadband, sent[name], value):
            return True
    return False


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
