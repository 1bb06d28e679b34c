"""The declarations as Prometheus metrics: their names, labels and help, and how a field's value is read as numbers.

The rule of the names is https://prometheus.io/docs/practices/naming/ : the application, whom it is about, the name in
snake case, the base unit. Bytes, seconds, degrees Celsius and watts are base units; a percentage is a `_ratio` from 0
to 1, a time a `_timestamp_seconds`; FIL, which no convention knows, is its own unit. A number of things has no unit. A
word of the name that says the unit stands at its end. What is no number becomes a label of a series of 1, whose name
ends in `_info`. Fields are gauges, because a record says what is; what a part counts of itself ends in `_total`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from telemetry.fields import Field, Member, ObjectList, Owner, Record, Scalar, ScalarList, ScalarMap
from telemetry.health import HEALTHS, Health, Kind, Metric
from telemetry.records import RECORDS
from telemetry.units import Unit

KEY_LABELS: Mapping[str, str] = {"minerId": "miner", "hostName": "host"}
"""The labels of the fields that identify a record: every series of it has them, before its own."""

AGE_HELP = "How long ago the newest value of the record was sampled."
HEALTH_AGE_HELP = "How long ago it told of itself, when the aggregator took it in."

Sample: TypeAlias = tuple[tuple[str, ...], float]
"""The values of a family's own labels, and the number, in the field's unit."""

Read: TypeAlias = Callable[[Any], Iterable[Sample]]
"""The samples of a value, each set of labels at most once."""

_APPLICATION = "telemetry"

_UNITS: Mapping[Unit, tuple[str, int]] = {
    Unit.NONE: ("", 1),
    Unit.COUNT: ("", 1),
    Unit.BYTES: ("bytes", 1),
    Unit.BYTES_PER_SECOND: ("bytes_per_second", 1),
    Unit.CELSIUS: ("celsius", 1),
    Unit.PERCENT: ("ratio", 100),
    Unit.WATTS: ("watts", 1),
    Unit.FIL: ("fil", 1),
    Unit.SECONDS: ("seconds", 1),
    Unit.WINS_PER_DAY: ("wins_per_day", 1),
    Unit.UNIX_MILLISECONDS: ("timestamp_seconds", 1000),
}
"""How a name ends, and by what a value is divided."""

_SAID_BY_UNIT = {"bytes", "seconds", "percent"}

_NUMBERS = {Scalar.INTEGER, Scalar.NUMBER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A metric: what it is called and says, which labels it has beside the record's, and from what it is read.

    `path` is the field, or field and member (`gpuInfo.temper`). `read` gives the samples of a value that is no single
    number. What is read is in `unit`, and is divided to be in the metric's base unit.
    """

    name: str
    help: str
    field: Field
    path: str
    unit: Unit
    labels: tuple[str, ...] = ()
    read: Read | None = None


@cache
def families(record: Record) -> tuple[Family, ...]:
    """The metrics of a record, in the order of its fields."""
    return tuple(family for field in record.fields if field.owner is not Owner.KEY for family in _of(record, field))


@cache
def by_path(record: Record) -> Mapping[str, Family]:
    """The metrics of a record by what they are read from."""
    return {family.path: family for family in families(record)}


def age_name(record: Record) -> str:
    """The metric that tells how long ago the newest value of a record was sampled."""
    return _name(_about(record), ("age",), Unit.SECONDS)


def health_name(health: Health, metric: Metric) -> str:
    """The name of what a part tells of itself."""
    name = _name(health.name, (metric.name,), metric.unit)
    return f"{name}_total" if metric.kind is Kind.COUNTER else name


def health_age_name(health: Health) -> str:
    """The metric that tells how long ago a part told of itself."""
    return _name(health.name, ("age",), Unit.SECONDS)


def divisor_of(unit: Unit) -> int:
    """By what a value is divided to be in its metric's base unit."""
    return _UNITS[unit][1]


def _of(record: Record, field: Field) -> Iterator[Family]:
    match field.type:
        case Scalar.INTEGER | Scalar.NUMBER:
            yield _family(record, field)
        case Scalar.BOOLEAN:
            yield _family(record, field, read=_boolean)
        case Scalar.STRING if field.label:
            yield _family(record, field, "info", labels=(field.label,), read=_text)
        case ScalarList() if field.label:
            yield _family(record, field, "info", labels=(field.label,), read=_entries)
        case ScalarMap(value=element) if field.label and element in _NUMBERS:
            yield _family(record, field, labels=(field.label,), read=_keys)
        case ObjectList(members=members):
            yield from _of_objects(record, field, members)


def _family(
    record: Record,
    field: Field,
    *words: str,
    member: Member | None = None,
    text: str = "",
    labels: tuple[str, ...] = (),
    read: Read | None = None,
) -> Family:
    unit = field.unit if member is None else member.unit
    parts = (field.name,) if member is None else (field.name, member.name)
    return Family(
        name=_name(_about(record), (*parts, *words), unit),
        help=text or field.english,
        field=field,
        path=".".join(parts),
        unit=unit,
        labels=labels,
        read=read,
    )


def _of_objects(record: Record, field: Field, members: tuple[Member, ...]) -> Iterator[Family]:
    """What objects measure is a series each. Objects that measure nothing are counted, with their earliest time."""
    named = [member for member in members if member.label]
    if not named:
        return
    labels, keys = tuple(member.label for member in named), tuple(member.name for member in named)
    about = field.english.removesuffix(".")
    timed = [member for member in members if member.unit is Unit.UNIX_MILLISECONDS]
    measured = [member for member in members if member.unit is not Unit.NONE and member not in timed]
    for member in measured:
        text = f"{about}: {member.english[:1].lower()}{member.english[1:]}"
        yield _family(record, field, member=member, text=text, labels=labels, read=_measuring(keys, member.name))
    if measured:
        return
    yield _family(record, field, text=f"{about}: how many.", labels=labels, read=_counting(keys))
    for member in timed:
        text = f"{about}: the earliest {member.name}."
        yield _family(record, field, member=member, text=text, labels=labels, read=_earliest(keys, member.name))
    for member in members:
        if member.type is Scalar.BOOLEAN:
            text = f"{about}: how many are {member.name}."
            yield _family(record, field, member=member, text=text, labels=labels, read=_counting(keys, member.name))


# --- names ---


def _about(record: Record) -> str:
    return record.name.removesuffix("Info")


def _name(about: str, words: tuple[str, ...], unit: Unit) -> str:
    """A name. One that begins with whom it is about says that once: minerBalance of the miner."""
    snake = "_".join(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).lower() for word in words)
    ending = _UNITS[unit][0]
    said = [word for word in snake.removeprefix(f"{about}_").split("_") if not (ending and word in _SAID_BY_UNIT)]
    return "_".join((_APPLICATION, about, *said, *filter(None, [ending])))


# --- how values are read ---


def _boolean(value: Any) -> Iterable[Sample]:  # noqa: ANN401  # of the declared type, as in the others
    return [((), int(value))]


def _text(value: Any) -> Iterable[Sample]:  # noqa: ANN401
    return [((value,), 1)]


def _entries(value: Any) -> Iterable[Sample]:  # noqa: ANN401
    return [((entry,), 1) for entry in dict.fromkeys(map(str, value))]


def _keys(value: Any) -> Iterable[Sample]:  # noqa: ANN401
    return [((key,), number) for key, number in value.items()]


def _measuring(keys: tuple[str, ...], name: str) -> Read:
    def read(value: list[dict[str, Any]]) -> Iterable[Sample]:
        found: dict[tuple[str, ...], float] = {}
        for entry in value:
            number = entry.get(name)
            if number is not None:
                found.setdefault(_labels(entry, keys), number)
        return found.items()

    return read


def _earliest(keys: tuple[str, ...], name: str) -> Read:
    def read(value: list[dict[str, Any]]) -> Iterable[Sample]:
        found: dict[tuple[str, ...], float] = {}
        for entry in value:
            if name in entry:
                labels = _labels(entry, keys)
                found[labels] = min(entry[name], found.get(labels, entry[name]))
        return found.items()

    return read


def _counting(keys: tuple[str, ...], true: str | None = None) -> Read:
    """The number of entries, or of those of which `true` is."""

    def read(value: list[dict[str, Any]]) -> Iterable[Sample]:
        counts: Counter[tuple[str, ...]] = Counter()
        for entry in value:
            counts[_labels(entry, keys)] += true is None or entry.get(true, False)
        return counts.items()

    return read


def _labels(entry: dict[str, Any], keys: tuple[str, ...]) -> tuple[str, ...]:
    if len(keys) == 1:  # as most; a shorter way to the same
        return (str(entry.get(keys[0], "")),)
    return tuple([str(entry.get(key, "")) for key in keys])


# --- docs/metrics.md ---


def metrics_page() -> str:
    """The page `docs/metrics.md`."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "# Metrics"
    yield ""
    yield "What `GET /metrics` of `telemetry web` says. Written by `make generate` from `telemetry/records.py` and"
    yield "`telemetry/health.py`; do not edit."
    yield ""
    yield "A series of a miner has the label `miner`, one of a host `miner` and `host`, then the labels listed here."
    yield "It is there as long as the agent that states it is online or stale, and gone when that is lost or stopped:"
    yield "then only the state, since when, and the age are told. Units are Prometheus' base units: a percentage is a"
    yield "ratio, 0 to 1. Beside these stand the `process_` metrics of `telemetry web` itself."
    for record in RECORDS:
        yield ""
        yield f"## {record.name}"
        yield ""
        yield "All are gauges."
        yield ""
        yield "| metric | labels | field | meaning |"
        yield "|---|---|---|---|"
        yield f"| `{age_name(record)}` |  |  | {AGE_HELP} |"
        for family in families(record):
            yield f"| `{family.name}` | {', '.join(family.labels)} | `{family.path}` | {family.help} |"
    for health in HEALTHS:
        yield ""
        yield f"## Of {health.an}"
        yield ""
        yield "| metric | kind | meaning |"
        yield "|---|---|---|"
        yield f"| `{health_age_name(health)}` | gauge | {HEALTH_AGE_HELP} |"
        for metric in health.metrics:
            yield f"| `{health_name(health, metric)}` | {metric.kind.value} | {metric.english} |"
