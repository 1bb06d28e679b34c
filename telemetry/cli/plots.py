"""A number over time, drawn with the dots of Braille letters: within 80 columns, and without colour."""

import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from plotille import Canvas

from telemetry.units import Unit, format_number

_HEIGHT = 12
_BLANK = "\u2800"
_DOTS_WIDE, _DOTS_HIGH = 2, 4
_MOST_VALUE_TICKS = 5
_CHARACTERS_A_TIME = 14

_MINUTE, _HOUR, _DAY = 60_000, 3_600_000, 86_400_000
_TIME_STEPS = (
    1_000, 5_000, 10_000, 30_000, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE,
    _HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY, 28 * _DAY, 91 * _DAY,
)  # fmt: skip


class Span(NamedTuple):
    """A number that held from a time to before another (Unix ms)."""

    start: int
    end: int
    value: float


class _Column(NamedTuple):
    """What a number was within one dot's width."""

    first: float
    low: float
    high: float
    last: float


def draw(spans: Sequence[Span], since: int, until: int, unit: Unit) -> Iterator[str]:
    """The lines of a plot; there is at least one span in the range."""
    ticks = _value_ticks(min(one.value for one in spans), max(one.value for one in spans), unit)
    labels = [format_number(tick, unit) for tick in ticks]
    margin = max(map(len, labels))
    width = max(20, shutil.get_terminal_size().columns - margin - 3)
    canvas = _draw_lines(_columns(spans, since, until, width * _DOTS_WIDE), ticks[0], ticks[-1], width)
    rows = {_row(tick, ticks[0], ticks[-1]): label for tick, label in zip(ticks, labels, strict=True)}
    for row, line in zip(range(_HEIGHT - 1, -1, -1), canvas.plot().replace(_BLANK, " ").split("\n"), strict=True):
        label = rows.get(row, "")
        yield f"{label:>{margin}} {'┤' if label else '│'}{line}".rstrip()
    yield from _time_axis(since, until, width, margin)


def _columns(spans: Iterable[Span], since: int, until: int, count: int) -> dict[int, _Column]:
    columns: dict[int, _Column] = {}
    for start, end, value in spans:
        first = max(0, (start - since) * count // (until - since))
        last = min(count - 1, (end - 1 - since) * count // (until - since))
        for number in range(first, last + 1):
            held = columns.get(number)
            columns[number] = (
                _Column(value, value, value, value)
                if held is None
                else _Column(held.first, min(held.low, value), max(held.high, value), value)
            )
    return columns


def _draw_lines(columns: dict[int, _Column], low: float, high: float, width: int) -> Canvas:
    # In the canvas' coordinates a dot is 1 wide and 1 high.
    canvas = Canvas(width, _HEIGHT, xmin=0, ymin=0, xmax=width * _DOTS_WIDE, ymax=_HEIGHT * _DOTS_HIGH)
    for number, column in columns.items():
        canvas.line(number, _dot(column.low, low, high), number, _dot(column.high, low, high))
        if (before := columns.get(number - 1)) is not None:
            canvas.line(number - 1, _dot(before.last, low, high), number, _dot(column.first, low, high))
    return canvas


def _dot(value: float, low: float, high: float) -> int:
    return round((value - low) / (high - low) * (_HEIGHT * _DOTS_HIGH - 1))


def _row(value: float, low: float, high: float) -> int:
    return _dot(value, low, high) // _DOTS_HIGH


# --- the axes ---


def _value_ticks(low: float, high: float, unit: Unit) -> list[float]:
    """Round numbers from at or below the lowest value to at or above the highest."""
    prefix, least = _prefix(max(abs(low), abs(high)), unit)
    step = prefix * max(_round_up((high - low) / prefix / (_MOST_VALUE_TICKS - 1)), least)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _prefix(largest: float, unit: Unit) -> tuple[float, float]:
    """The number that the unit's prefix stands for at such values, and the least step by which two labels differ."""
    if unit is Unit.COUNT or unit is Unit.NONE:
        return 1, 1
    step = unit.value.step
    if step is None or largest < step:
        return 1, 1 if step else 0.001
    prefix = float(step ** int(math.log(largest, step)))
    return prefix, 1 if largest / prefix >= 100 else 0.1


def _round_up(number: float) -> float:
    if number <= 0:
        return 0
    power = 10.0 ** math.floor(math.log10(number))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= number * (1 - 1e-9))


def _time_axis(since: int, until: int, width: int, margin: int) -> Iterator[str]:
    most = max(2, width // _CHARACTERS_A_TIME)
    step = next((one for one in _TIME_STEPS if (until - since) / one <= most), _TIME_STEPS[-1])
    axis, labels = ["─"] * width, ""
    for time in _time_ticks(since, until, step):
        column = (time - since) * width // (until - since)
        label = _local(time).strftime(_time_format(step, until - since))
        if column >= len(labels) + (2 if labels else 0) and column + len(label) <= width:
            axis[column] = "┬"
            labels = labels.ljust(column) + label
    yield f"{'':>{margin}} └{''.join(axis)}"
    yield f"{'':>{margin}}  {labels}"


def _time_ticks(since: int, until: int, step: int) -> Iterator[int]:
    """The multiples of a step in local time."""
    offset = _local(since).utcoffset()
    shift = 0 if offset is None else round(offset.total_seconds() * 1000)
    yield from range(-(-(since + shift) // step) * step - shift, until, step)


def _time_format(step: int, span: int) -> str:
    if step >= _DAY:
        return "%Y-%m-%d"
    return "%m-%d %H:%M" if span > _DAY * 1.5 else "%H:%M:%S" if step < _MINUTE else "%H:%M"


def _local(time: int) -> datetime:
    return datetime.fromtimestamp(time / 1000, UTC).astimezone()
