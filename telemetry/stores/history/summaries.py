"""Messages to summaries: what each field did in each step of time. No I/O.

A number counts from when it was stated until it is stated again or gone, and for an hour at most: a sender that lives
states all it knows every quarter of an hour. Anything else is kept as the changes it made; of lists and objects, which
change all the time, only what they were at the end of each step.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from telemetry.fields import Value
from telemetry.stores.history import HOUR, Change, Statement, Summary
from telemetry.stores.history.blocks import decimals

LONGEST_HELD = HOUR
"""Milliseconds for which a number counts that nobody states again."""

_MORE_DECIMALS = 2

Timeline = list[tuple[int, Value | None]]
"""When a field was stated, and what it was; None: gone."""


def timelines(statements: Iterable[Statement]) -> dict[str, Timeline]:
    """What was stated of each field, from messages in order."""
    found: dict[str, Timeline] = {}
    held: set[str] = set()
    for statement in statements:
        time, values = statement.time, statement.values
        gone = held - values.keys() if statement.full else held.intersection(statement.gone)
        for name in gone:
            found[name].append((time, None))
        for name, value in values.items():
            found.setdefault(name, []).append((time, value))
        held -= gone
        held |= values.keys()
    return found


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def summarize(timeline: Timeline, start: int, end: int, step: int) -> list[Summary]:
    """The steps from `start` to before `end` in which a number held; those in which it is not known are left out."""
    numbers = [(time, _number(value)) for time, value in timeline]
    buckets: dict[int, _Bucket] = {}
    after = [*(time for time, _ in numbers[1:]), *[end][: len(numbers)]]
    for (time, value), until in zip(numbers, after, strict=True):
        if value is None:
            continue
        if start <= time < end:
            buckets.setdefault((time - start) // step, _Bucket()).state(value)
        at, stop = max(time, start), min(until, time + LONGEST_HELD, end)
        while at < stop:
            index = (at - start) // step
            through = min(stop, start + (index + 1) * step)
            buckets.setdefault(index, _Bucket()).hold(value, through - at)
            at = through
    places = decimals([value for _, value in numbers if value is not None])
    return [
        bucket.summary(start + index * step, None if places is None else places + _MORE_DECIMALS)
        for index, bucket in sorted(buckets.items())
    ]


class _Bucket:
    __slots__ = ("counted", "held", "last", "max", "min", "sum")

    def __init__(self) -> None:
        self.counted = self.held = 0
        self.sum: float = 0
        self.min: float | None = None
        self.max: float
        self.last: float

    def state(self, value: float) -> None:
        self.counted += 1
        self._take(value)

    def hold(self, value: float, duration: int) -> None:
        self.sum += value * duration
        self.held += duration
        self._take(value)

    def _take(self, value: float) -> None:
        self.last = value
        if self.min is None:
            self.min = self.max = value
        elif value < self.min:
            self.min = value
        elif value > self.max:
            self.max = value

    def summary(self, start: int, places: int | None) -> Summary:
        assert self.min is not None
        mean = self.sum / self.held if self.held else self.last
        mean = float(mean if places is None else round(mean, places))
        return Summary(start, self.min, mean, self.max, self.last, self.counted, self.held)


def combine(summaries: Sequence[Summary], step: int, offset: int = 0) -> list[Summary]:
    """Summaries of a longer step, which begins at multiples of it after `offset`."""
    grouped: dict[int, list[Summary]] = {}
    for summary in summaries:
        grouped.setdefault((summary.start - offset) // step * step + offset, []).append(summary)
    return [_combined(start, parts) for start, parts in grouped.items()]


def _combined(start: int, parts: Sequence[Summary]) -> Summary:
    held = sum(one.held for one in parts)
    weight = held or len(parts)
    mean = sum(one.mean * (one.held if held else 1) for one in parts) / weight
    places = decimals([value for one in parts for value in (one.min, one.max, one.last)])
    return Summary(
        start,
        min(one.min for one in parts),
        float(mean if places is None else round(mean, places + _MORE_DECIMALS)),
        max(one.max for one in parts),
        parts[-1].last,
        sum(one.counted for one in parts),
        held,
    )


def changes(timeline: Timeline, start: int, end: int, step: int) -> list[Change]:
    """What a field that is no number was at `start`, and what it became until `end`.

    Of lists and objects only what they were at the end of each step.
    """
    texts = [(time, value if _number(value) is None else None) for time, value in timeline if time < end]
    before = [value for time, value in texts if time < start][-1:]
    within = [(max(time, start), value) for time, value in texts if time >= start]
    stated = [(start, value) for value in before] + within
    if any(isinstance(value, list | dict) for _, value in stated):
        stated = list({(time - start) // step: (time, value) for time, value in stated}.values())
    return list(_without_repeats(Change(*one) for one in stated))


def _without_repeats(found: Iterable[Change]) -> Iterator[Change]:
    held: Value | None = None
    for change in found:
        if change.value != held or type(change.value) is not type(held):
            held = change.value
            yield change


def merge_changes(old: Sequence[Change], new: Sequence[Change], start: int, end: int) -> list[Change]:
    """Changes of a longer span in which those from `start` to before `end` are replaced."""
    kept = [one for one in old if not start <= one.time < end]
    return list(_without_repeats(sorted([*kept, *new], key=lambda one: one.time)))


def merge_summaries(old: Sequence[Summary], new: Sequence[Summary], start: int, end: int) -> list[Summary]:
    """Summaries of a longer span in which those from `start` to before `end` are replaced."""
    return sorted([one for one in old if not start <= one.start < end] + list(new))


def of_all(
    statements: Sequence[Statement], start: int, end: int, step: int
) -> tuple[Mapping[str, list[Summary]], Mapping[str, list[Change]]]:
    """What all fields did from `start` to before `end`; messages of the time before say what held then."""
    summaries, changed = {}, {}
    for name, timeline in timelines(statements).items():
        if rows := summarize(timeline, start, end, step):
            summaries[name] = rows
        if any(value is not None and _number(value) is None for _, value in timeline) and (
            became := changes(timeline, start, end, step)
        ):
            changed[name] = became
    return summaries, changed
