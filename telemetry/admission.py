"""What of a message may enter a record: values of the declared type, stated by their owner.

`Admission` is that rule for one sender of one kind of record, prepared once. Messages resemble each other: one whose
names and JSON types were let pass before is known by these alone, and only what is new is looked at name by name.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

from telemetry.fields import (
    INTEGER_LIMIT,
    ObjectList,
    Owner,
    Record,
    Scalar,
    Type,
    Value,
    fits,
    fits_integer,
    has_no_null,
    is_field_name,
)

_COMPOUND = frozenset({list, dict})
MOST_FORMS = 4096
"""Forms known of one kind of message. A fleet's are few; who makes up others all the time costs no more than that."""

_Check = Callable[[Any], bool] | None
"""What a value of the right class has to pass besides; None: nothing."""

_CHECKS: Mapping[Scalar, Mapping[type, _Check]] = {
    Scalar.STRING: {str: None},
    Scalar.INTEGER: {int: fits_integer},
    Scalar.NUMBER: {int: fits_integer, float: None},
    Scalar.BOOLEAN: {bool: None},
}


class Form(NamedTuple):
    """What is known of values by their names and JSON types alone: which of them are integers, whose size is to be
    looked at, and the places of all in the record's declaration.
    """

    integers: tuple[str, ...]
    places: tuple[int, ...]


class Admitted(NamedTuple):
    """The values of a message that may enter the record, those among them not declared, and what was refused.

    `is_foreign`: some of that are fields of another owner.
    """

    values: Mapping[str, Value]
    unknown: tuple[str, ...]
    refused: tuple[str, ...]
    is_foreign: bool = False


class Admission:
    """The values that one owner may state of a record."""

    __slots__ = ("_checks", "_forms", "_owner", "_places", "_record")

    def __init__(self, record: Record, owner: Owner) -> None:
        self._record, self._owner = record, owner
        self._checks = {name: _checks(field.type) for name, field in record.owned_by(owner).items()}
        self._places = {name: place for place, name in enumerate(record.by_name)}
        # None: some of them are lists or objects, which are looked at each time.
        self._forms: dict[tuple[tuple[str, ...], tuple[type, ...]], Form | None] = {}

    def form_of(self, values: Mapping[str, Any]) -> Form | None:
        """The form of values that are all scalars and may enter the record as they are; None where they are not."""
        named = tuple(values), tuple(map(type, values.values()))
        try:
            form = self._forms[named]
        except KeyError:
            form = self._new_form(*named)
        if form is not None:
            for name in form.integers:
                if not -INTEGER_LIMIT <= values[name] < INTEGER_LIMIT:
                    return None
        return form

    def admit(self, values: Mapping[str, Any]) -> Admitted:
        """Hold a sender's values against the declaration: type, and who owns the field."""
        return Admitted(values, (), ()) if _pass(self._checks, values) else self._one_by_one(values)

    def _new_form(self, names: tuple[str, ...], kinds: tuple[type, ...]) -> Form | None:
        if not all(kind in self._checks.get(name, ()) for name, kind in zip(names, kinds, strict=True)):
            return None
        if len(self._forms) >= MOST_FORMS:
            self._forms.clear()
        form = None
        if _COMPOUND.isdisjoint(kinds):
            integers = tuple(name for name, kind in zip(names, kinds, strict=True) if kind is int)
            form = Form(integers, tuple(self._places[name] for name in names))
        self._forms[names, kinds] = form
        return form

    def _one_by_one(self, values: Mapping[str, Any]) -> Admitted:
        """The rule itself."""
        admitted: dict[str, Value] = {}
        unknown, refused, is_foreign = [], [], False
        for name, value in values.items():
            declared = self._record.by_name.get(name)
            if declared is None:
                if _is_of_a_newer_version(name, value):
                    unknown.append(name)
                    admitted[name] = value
                else:
                    refused.append(f"{name[:64]}: no name or value of a field")
            elif declared.owner is not self._owner:
                is_foreign = True
                refused.append(f"{name}: {declared.owner.value} states it, not {self._owner.value}")
            elif not fits(declared.type, value):
                refused.append(f"{name}: not of the declared type")
            else:
                admitted[name] = value
        return Admitted(admitted, tuple(unknown), tuple(refused), is_foreign)


@cache
def admission(record: Record, owner: Owner) -> Admission:
    """What `owner` may state of a record, prepared once."""
    return Admission(record, owner)


def admit_snapshot(record: Record, values: Mapping[str, Any]) -> Mapping[str, Value]:
    """The values of a snapshot that are of the declared type, and those of fields that are not declared."""
    if _pass(_checks_of_all(record), values):
        return values
    by_name = record.by_name
    return {
        name: value
        for name, value in values.items()
        if (fits(by_name[name].type, value) if name in by_name else _is_of_a_newer_version(name, value))
    }


def _is_of_a_newer_version(name: str, value: object) -> bool:
    """Whether what is not declared here may be a field of another version's declaration."""
    return is_field_name(name) and has_no_null(value)


@cache
def _checks_of_all(record: Record) -> Mapping[str, Mapping[type, _Check]]:
    return {field.name: _checks(field.type) for field in record.fields}


def _pass(checks: Mapping[str, Mapping[type, _Check]], values: Mapping[str, Any]) -> bool:
    """Whether all values are of known fields, and without fault."""
    try:
        for name, value in values.items():
            check = checks[name][value.__class__]
            if check is not None and not check(value):
                return False
    except KeyError:
        return False
    return True


def _checks(declared: Type) -> Mapping[type, _Check]:
    match declared:
        case Scalar():
            return _CHECKS[declared]
        case ObjectList(members=members):
            checks = {member.name: _CHECKS[member.type] for member in members}
            needed = {member.name for member in members if not member.optional}
            return {list: partial(_are_plain_objects, checks, needed)}
    return {list: partial(fits, declared), dict: partial(fits, declared)}


def _are_plain_objects(checks: Mapping[str, Mapping[type, _Check]], needed: set[str], entries: list[Any]) -> bool:
    """Whether the entries are objects of the declared members and no others."""
    for entry in entries:
        if entry.__class__ is not dict or not needed <= entry.keys():
            return False
        for name, value in entry.items():
            check = checks[name][value.__class__]
            if check is not None and not check(value):
                return False
    return True
