"""What a plain list of the messages says: held against the history that is packed, summarized and read back.

Nothing here is shared with the history's own code but the types that it gives back.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from telemetry.fields import Owner, Value
from telemetry.stores import HistoryRow
from telemetry.topics import RecordKey

HOUR = 3_600_000


class PlainList:
    """All messages that were committed."""

    def __init__(self) -> None:
        self.rows: list[HistoryRow] = []

    def of(self, key: RecordKey, since: int = 0, until: int = 2**60) -> list[HistoryRow]:
        """Those of a record in a range of time, in order."""
        mine = [row for row in self.rows if row.record == key and since <= row.time < until]
        return sorted(mine, key=lambda row: (row.time, row.position))

    def at(self, key: RecordKey, time: int) -> dict[str, tuple[Value, Owner, int]]:
        """The record at a time: value, sender and time of each field."""
        held: dict[str, tuple[Value, Owner, int]] = {}
        for row in self.of(key, until=time + 1):
            for name in [name for name, (_, owner, _) in held.items() if owner is row.owner]:
                if row.full or name in row.gone:
                    del held[name]
            held |= {name: (value, row.owner, row.time) for name, value in row.values.items()}
        return held

    def segments(self, key: RecordKey, field: str, owner: Owner) -> list[tuple[int, int, Value | None]]:
        """What a field was, and from when to when at most; a value counts for an hour without being stated again."""
        stated: list[tuple[int, Value | None]] = []
        for row in self.of(key):
            if row.owner is not owner:
                continue
            if field in row.values:
                stated.append((row.time, row.values[field]))
            elif row.full or field in row.gone:
                stated.append((row.time, None))
        ends = [time for time, _ in stated[1:]] + [2**60]
        return [(time, min(end, time + HOUR), value) for (time, value), end in zip(stated, ends, strict=True)]

    def changes(self, key: RecordKey, field: str, owner: Owner, since: int, until: int) -> list[tuple[int, Any]]:
        """Each statement of a field in a range, each time it was gone, and at first what it was before."""
        held: Value | None = None
        found: list[tuple[int, Any]] = []
        for time, _, value in self.segments(key, field, owner):
            if time >= until:
                break
            if time < since:
                found = [] if value is None else [(since, value)]
            elif value is not None or held is not None:
                found.append((time, value))
            held = value
        return found

    def summary(self, key: RecordKey, field: str, owner: Owner, start: int, end: int) -> Mapping[str, Any] | None:
        """What a number did from `start` to before `end`; None where it was not known."""
        total, held, counted = Fraction(0), 0, 0
        values: list[float] = []
        for since, until, value in self.segments(key, field, owner):
            if value is None or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            is_stated = start <= since < end
            duration = min(until, end) - max(since, start)
            if is_stated or duration > 0:
                values.append(value)
            counted += is_stated
            if duration > 0:
                total += Fraction(value) * duration
                held += duration
        if not values:
            return None
        mean = float(total / held) if held else values[-1]
        return {
            "min": min(values), "mean": mean, "max": max(values), "last": values[-1], "counted": counted, "held": held,
        }  # fmt: skip


def fields_of(rows: Iterable[HistoryRow]) -> Sequence[tuple[str, Owner]]:
    """The fields that were stated, each with its sender."""
    return sorted({(name, row.owner) for row in rows for name in row.values}, key=str)
