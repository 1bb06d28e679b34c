"""Fields over time as columns, for tables, plots and pages: what was stated, or one value a step."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from telemetry.config import nearest
from telemetry.errors import UsageError
from telemetry.fields import Owner, Scalar, Value
from telemetry.records import declared
from telemetry.stores.history import Change, Tier
from telemetry.stores.history.reading import FOR_EVER, History
from telemetry.topics import RecordKey
from telemetry.units import Unit

AGGREGATES = ("min", "mean", "max", "last", "count")
MOST_STEPS = 1_000_000


class Part(NamedTuple):
    """A part of a range in which steps are as long as what is kept of it allows."""

    since: int
    until: int
    step: int


@dataclasses.dataclass(slots=True)
class Column:
    """One column: the values of a field (None: it was gone), or what a number did in each step, by time."""

    field: str
    aggregate: str = ""
    values: dict[int, Value | None] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name in JSON and CSV."""
        return f"{self.field}_{self.aggregate}" if self.aggregate else self.field

    @property
    def unit(self) -> Unit:
        """The unit of its numbers."""
        found = declared(self.field)
        return Unit.COUNT if self.aggregate == "count" else found.unit if found else Unit.NONE


def require_field(history: History, key: RecordKey, name: str) -> None:
    """Raise when a record cannot have a field in its history."""
    field = key.record.by_name.get(name)
    if field is None:
        elsewhere = declared(name)
        if elsewhere is not None and key.hostName is None:
            raise UsageError(f"{name} is a field of hosts: name one, as in {key.minerId}/HOST")
        if elsewhere is not None:
            raise UsageError(f"{name} is a field of the miner, not of its hosts: name {key.minerId} alone")
        stated = history.fields()
        if name not in stated:
            raise UsageError(f"unknown field {name}{nearest(name, {*stated, *key.record.by_name})}")
    elif field.owner is Owner.KEY:
        raise UsageError(f"{name} names the record: it does not change")
    elif field.owner is Owner.AGGREGATOR:
        raise UsageError(f"{name} is not in the history of messages: see `telemetry events {key}`")


def statements(history: History, key: RecordKey, fields: Sequence[str], since: int, until: int) -> list[Column]:
    """A column a field: each time it was stated."""
    found = history.changes_of(key, fields, since, until)
    return [Column(name, values={one.time: one.value for one in found[name]}) for name in fields]


def parts(kept: Mapping[Tier, int], since: int, until: int, step: int) -> list[Part]:
    """A range in parts, the oldest first: where what a step needs is not kept any more, steps are longer."""
    if (until - since) // step > MOST_STEPS:
        raise UsageError(f"more than {MOST_STEPS:,} steps in this range: take a longer step, or a shorter range")
    needed = next((tier for tier in reversed(Tier) if tier and step % tier == 0), Tier.MESSAGES)
    found: list[Part] = []
    end = until
    for tier in (tier for tier in Tier if tier >= needed):
        # What is not packed yet is summarized when it is asked for.
        first = min(kept.get(tier, FOR_EVER), kept.get(Tier.MESSAGES, FOR_EVER))
        begin = max(since, first)
        if begin < end:
            found.append(Part(begin, end, step if tier == needed else -(-step // tier) * tier))
            end = begin
    return found[::-1]


def stepped(
    history: History, key: RecordKey, fields: Sequence[str], ranges: Sequence[Part], aggregates: Sequence[str]
) -> list[Column]:
    """For each number a column an aggregate; for each other field one of what held at the end of each step."""
    columns = {name: {aggregate: Column(name, aggregate) for aggregate in aggregates} for name in fields}
    others = {name: Column(name) for name in fields}
    for since, until, step in ranges:
        summaries = history.summaries_of(key, [name for name in fields if may_be_number(name)], since, until, step)
        for name, rows in summaries.items():
            for row in rows:
                told = {"min": row.min, "mean": row.mean, "max": row.max, "last": row.last, "count": row.counted}
                for aggregate in aggregates:
                    columns[name][aggregate].values[row.start] = told[aggregate]
        rest = [name for name in fields if not summaries.get(name)]
        for name, changes in history.changes_of(key, rest, since // step * step, until).items():
            others[name].values |= at_ends(changes, since // step * step, until, step)
    return [one for name in fields for one in _filled([*columns[name].values()], others[name])]


def may_be_number(name: str) -> bool:
    """Whether the values of a field are numbers, or may be: it is of a newer agent."""
    found = declared(name)
    return found is None or found.type in {Scalar.INTEGER, Scalar.NUMBER}


def at_ends(changes: Sequence[Change], start: int, until: int, step: int) -> dict[int, Value | None]:
    """What a field was at the end of each step, by the step's beginning."""
    found: dict[int, Value | None] = {}
    held: Value | None = None
    remaining = iter(changes)
    change = next(remaining, None)
    for begin in range(start, until, step):
        while change is not None and change.time < min(begin + step, until):
            held = change.value
            change = next(remaining, None)
        if held is not None:
            found[begin] = held
    return found


def _filled(numbers: list[Column], other: Column) -> list[Column]:
    """The columns of a field: those of a number, unless it turned out to be none."""
    if may_be_number(other.field) and (declared(other.field) or numbers[0].values or not other.values):
        return numbers
    return [other]
