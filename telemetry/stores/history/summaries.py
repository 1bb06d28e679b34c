"""Messages to summaries: what each field did in each step of time. No I/O.

A number counts from when it was stated until it is stated again or gone, and for an hour at most: a sender that lives
states all it knows every quarter of an hour. Anything else is kept as the changes it made; of lists and objects, which
change all the time, only what they were at the end of each step.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from math import isfinite
from operator import mul, sub
from typing import TYPE_CHECKING, Any

from telemetry.stores.history import HOUR, Change, Summary
from telemetry.stores.history.blocks import Timeline, decimals

if TYPE_CHECKING:
    from telemetry.fields import Value

LONGEST_HELD = HOUR
"""Milliseconds for which a number counts that nobody states again."""

_MORE_DECIMALS = 2
_NUMBERS = {int, float}


def summarize(timeline: Timeline, start: int, end: int, step: int) -> list[Summary]:
    """The steps from `start` to before `end` in which a number held; those in which it is not known are left out."""
    numbers: list[Any] = [value if type(value) in _NUMBERS else None for _, value in timeline]
    if numbers.count(None) == len(numbers):
        return []
    times = [time for time, _ in timeline]
    found: list[Summary] = []
    begin = start + max(0, times[0] - start) // step * step
    first = bisect_left(times, begin)
    while begin < min(end, times[-1] + LONGEST_HELD):
        finish = begin + step
        after = bisect_left(times, finish, first)
        values, since = numbers[first:after], times[first:after]
        held = list(map(min, map(sub, [*since[1:], finish], since), repeat(LONGEST_HELD)))
        counted = len(values) - values.count(None)
        if first and (holds := min(since[0] if since else finish, times[first - 1] + LONGEST_HELD) - begin) > 0:
            values, held = [numbers[first - 1], *values], [holds, *held]
        if summary := _summary(begin, values, held, counted):
            found.append(summary)
        begin, first = finish, after
    return _rounded(found)


def _summary(start: int, values: list[float | None], held: list[int], counted: int) -> Summary | None:
    """What a step was, from what held in it and for how long."""
    if None in values:
        held = [duration for value, duration in zip(values, held, strict=True) if value is not None]
    numbers = [value for value in values if value is not None]
    if not numbers:
        return None
    least, most, total = min(numbers), max(numbers), sum(held)
    mean = sum(map(mul, numbers, held)) / total if total else numbers[-1]
    if not isfinite(mean):
        # So large are the numbers that their sums are beyond all floats.
        mean = sum(number * (duration / total) for number, duration in zip(numbers, held, strict=True))
    return Summary(start, least, _within(least, mean, most), most, numbers[-1], counted, total)


def _within(least: float, mean: float, most: float) -> float:
    """A mean, which rounding may have put beyond what it is of."""
    return float(mean if least <= mean <= most else most)


def _rounded(summaries: list[Summary]) -> list[Summary]:
    """Means with two decimals more than what they are of: more is noise, and takes room."""
    places = decimals([value for one in summaries for value in (one.min, one.max, one.last)])
    if places is None:
        return summaries
    return [one._replace(mean=round(one.mean, places + _MORE_DECIMALS)) for one in summaries]


def combine(summaries: Sequence[Summary], step: int, offset: int = 0) -> list[Summary]:
    """Summaries of a longer step, which begins at multiples of it after `offset`."""
    grouped: dict[int, list[Summary]] = {}
    for summary in summaries:
        grouped.setdefault((summary.start - offset) // step * step + offset, []).append(summary)
    return _rounded([_combined(start, parts) for start, parts in grouped.items()])


def _combined(start: int, parts: Sequence[Summary]) -> Summary:
    held = sum(one.held for one in parts)
    weight = held or len(parts)
    mean = sum(one.mean * ((one.held if held else 1) / weight) for one in parts)
    least, most = min(one.min for one in parts), max(one.max for one in parts)
    return Summary(
        start,
        least,
        _within(least, mean, most),
        most,
        parts[-1].last,
        sum(one.counted for one in parts),
        held,
    )


def changes(timeline: Timeline, start: int, end: int, step: int) -> list[Change]:
    """What a field that is no number was at `start`, and what it became until `end`.

    Of lists and objects only what they were at the end of each step.
    """
    texts = [(time, None if type(value) in _NUMBERS else value) for time, value in timeline if time < end]
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
    timelines: Mapping[str, Timeline], start: int, end: int, step: int
) -> tuple[Mapping[str, list[Summary]], Mapping[str, list[Change]]]:
    """What all fields did from `start` to before `end`; what was stated before says what held then."""
    summaries, changed = {}, {}
    for name, timeline in timelines.items():
        kinds = {type(value) for _, value in timeline} - {type(None)}
        if kinds & _NUMBERS and (rows := summarize(timeline, start, end, step)):
            summaries[name] = rows
        if kinds - _NUMBERS and (became := changes(timeline, start, end, step)):
            changed[name] = became
    return summaries, changed
