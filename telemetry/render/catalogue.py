"""The declarations as lists for people and programs, and as `docs/fields.md` and `docs/health.md`."""

from collections.abc import Iterator
from typing import Any

from telemetry.fields import Deadband, Field, Member, ObjectList, Record, Scalar, ScalarList, ScalarMap, Type
from telemetry.health import HEALTHS
from telemetry.records import RECORDS
from telemetry.units import Unit, format_number


def catalogue() -> list[dict[str, Any]]:
    """Every field, flat."""
    return [
        {
            "record": record.name,
            "name": field.name,
            "type": type_name(field.type),
            "unit": field.unit.value.symbol,
            "owner": field.owner.value,
            "english": field.english,
            "chinese": field.chinese,
            "members": [member.name for member in field.type.members] if isinstance(field.type, ObjectList) else [],
        }
        for record in RECORDS
        for field in record.fields
    ]


def type_name(declared: Type) -> str:
    """A type in one word or two."""
    match declared:
        case Scalar():
            return declared.value
        case ScalarList(element=element):
            return f"list of {element.value}"
        case ScalarMap(value=value):
            return f"map to {value.value}"
        case ObjectList():
            return "list of objects"


def fields_page() -> str:
    """The page `docs/fields.md`."""
    return "\n".join(_page()) + "\n"


def health_page() -> str:
    """The page `docs/health.md`."""
    return "\n".join(_health_page()) + "\n"


def _page() -> Iterator[str]:
    yield "# Fields"
    yield ""
    yield "Written by `make generate` from `telemetry/records.py`; do not edit."
    yield ""
    yield "A field has its type in every message and is never `null`: one that cannot be read is left out. A change is"
    yield "reported when the value has moved from the one last reported by more than the deadband."
    for record in RECORDS:
        yield from _section(record)


def _section(record: Record) -> Iterator[str]:
    yield ""
    yield f"## {record.name}"
    yield ""
    yield f"One a {' and '.join(record.keys)}."
    yield ""
    yield "| field | type | unit | deadband | stated by | meaning | 含义 |"
    yield "|---|---|---|---|---|---|---|"
    for field in record.fields:
        cells = (f"`{field.name}`", type_name(field.type), field.unit.value.symbol, _deadband(field),
                 field.owner.value, field.english, field.chinese)  # fmt: skip
        yield f"| {' | '.join(cells)} |"
    for field in record.fields:
        if isinstance(field.type, ObjectList):
            yield from _members(field, field.type)


def _members(field: Field, declared: ObjectList) -> Iterator[str]:
    yield ""
    yield f"### An element of {field.name}"
    yield ""
    yield "| member | type | unit | deadband | meaning | 含义 |"
    yield "|---|---|---|---|---|---|"
    for member in declared.members:
        optional = " May be absent." if member.optional else ""
        cells = (f"`{member.name}`", member.type.value, member.unit.value.symbol, _deadband(member),
                 member.english + optional, member.chinese)  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def _deadband(declared: Field | Member) -> str:
    band: Deadband = declared.deadband
    parts = []
    if band.absolute:
        unit = declared.unit if declared.unit.value.step else Unit.NONE
        parts.append(format_number(band.absolute, unit))
    if band.relative:
        parts.append(f"{band.relative * 100:g} %")
    return " and ".join(parts)


def _health_page() -> Iterator[str]:
    yield "# Health"
    yield ""
    yield "What the parts tell of themselves. Written by `make generate` from `telemetry/health.py`; do not edit."
    yield ""
    yield "`telemetry ls --self` shows it, with `--json` all of it. On the wire it is a flat JSON object of these"
    yield "numbers, with `time` (Unix milliseconds) and `version`; what cannot be told is left out. Counters grow from"
    yield "the start of their process, unless they say otherwise."
    for health in HEALTHS:
        yield ""
        yield f"## {health.name}"
        yield ""
        yield health.told
        yield ""
        yield "| metric | kind | type | unit | meaning | 含义 |"
        yield "|---|---|---|---|---|---|"
        for metric in health.metrics:
            cells = (f"`{metric.name}`", metric.kind.value, metric.type.value, metric.unit.value.symbol,
                     metric.english, metric.chinese)  # fmt: skip
            yield f"| {' | '.join(cells)} |"
