"""Blocks: columns of numbers and of JSON values, as compressed bytes and back. Nothing is lost.

Numbers that grow or wander are written as the differences of integers, which zlib makes small; a column of decimals
as integers with a common scale, if that gives exactly the same decimals back.
"""

import zlib
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from operator import sub
from typing import Any

import orjson

from telemetry.stores.history import Change, Statement, Summary

_MOST_DECIMALS = 9
_EXACT = 2**53

Column = list[Any]
"""`[scale, differences]` of numbers, `[None, values]` of anything else. Scale -1: integers."""


def encode_statements(statements: Sequence[Statement], numbers: Mapping[str, int | str]) -> bytes:
    """The block of messages in order; `numbers` gives short names of fields."""
    columns: dict[int | str, tuple[list[int], list[Any]]] = {}
    for row, statement in enumerate(statements):
        for name, value in statement.values.items():
            rows, values = columns.setdefault(numbers.get(name, name), ([], []))
            rows.append(row)
            values.append(value)
        for name in statement.gone:
            rows, values = columns.setdefault(numbers.get(name, name), ([], []))
            rows.append(row)
            values.append(None)
    return _pack(
        {
            "time": _differences(_differences([one.time for one in statements])),
            "epoch": _differences([one.epoch for one in statements]),
            "seq": _differences(_differences([one.seq for one in statements])),
            "delay": [one.delay for one in statements],
            "full": [row for row, one in enumerate(statements) if one.full],
            "fields": {
                str(number): [_gaps(rows, len(statements)), *encode_column(values)]
                for number, (rows, values) in columns.items()
            },
        }
    )


def decode_statements(block: bytes, names: Mapping[str, str]) -> list[Statement]:
    """The messages of a block; `names` gives the fields' names by their short ones."""
    packed = _unpack(block)
    times = list(accumulate(accumulate(packed["time"])))
    values: list[dict[str, Any]] = [{} for _ in times]
    gone: list[list[str]] = [[] for _ in times]
    for number, (gaps, *column) in packed["fields"].items():
        name = names.get(number, number)
        rows = accumulate(gaps) if gaps is not None else range(len(times))
        for row, value in zip(rows, decode_column(column), strict=True):
            if value is None:
                gone[row].append(name)
            else:
                values[row][name] = value
    full = set(packed["full"])
    places = zip(accumulate(packed["epoch"]), accumulate(accumulate(packed["seq"])), packed["delay"], strict=True)
    return [
        Statement(times[row], epoch, seq, delay, row in full, values[row], tuple(gone[row]))
        for row, (epoch, seq, delay) in enumerate(places)
    ]


def decode_field(block: bytes, number: str) -> list[tuple[int, int, int, Any]]:
    """When (time, epoch, seq) one field was stated in a block, and what it was.

    None: it was gone, or a full message left it out.
    """
    packed = _unpack(block)
    times, seqs = list(accumulate(accumulate(packed["time"]))), list(accumulate(accumulate(packed["seq"])))
    epochs = list(accumulate(packed["epoch"]))
    gaps, *column = packed["fields"].get(number, ([], None, []))
    rows = accumulate(gaps) if gaps is not None else range(len(times))
    stated = dict.fromkeys(packed["full"]) | dict(zip(rows, decode_column(column), strict=True))
    return [(times[row], epochs[row], seqs[row], stated[row]) for row in sorted(stated)]


def encode_summaries(summaries: Mapping[str, Sequence[Summary]], changes: Mapping[str, Sequence[Change]]) -> bytes:
    """The block of what fields did over a span, by their short names."""
    return _pack(
        {
            "summaries": {number: _encode_summary(rows) for number, rows in summaries.items()},
            "changes": {
                number: [_differences([one.time for one in rows]), *encode_column([one.value for one in rows])]
                for number, rows in changes.items()
            },
        }
    )


def decode_summaries(block: bytes) -> tuple[dict[str, list[Summary]], dict[str, list[Change]]]:
    """What `encode_summaries` was given."""
    packed = _unpack(block)
    return (
        {number: _decode_summary(columns) for number, columns in packed["summaries"].items()},
        {
            number: [Change(*one) for one in zip(accumulate(times), decode_column(column), strict=True)]
            for number, (times, *column) in packed["changes"].items()
        },
    )


def encode_column(values: Sequence[Any]) -> Column:
    """A column of one field's values; those that are not all integers, or all decimals, are written as they are."""
    kinds = set(map(type, values))
    if kinds == {int} and max(map(abs, values)) < _EXACT:
        return [-1, _differences(values)]
    if kinds == {float} and (found := _as_integers(values)):
        scale, integers = found
        return [scale, _differences(integers)]
    return [None, list(values)]


def decode_column(column: Column) -> list[Any]:
    """The values of a column."""
    scale, values = column
    if scale is None:
        return list(values)
    if scale < 0:
        return list(accumulate(values))
    unit = 10**scale
    return [value / unit for value in accumulate(values)]


def decimals(values: Collection[float]) -> int | None:
    """How many decimals numbers have at most; None where they are not decimals of a handful of digits."""
    for scale in range(_MOST_DECIMALS + 1):
        unit = 10**scale
        if all(abs(value * unit) < _EXACT and round(value * unit) / unit == value for value in values):
            return scale
    return None


def _as_integers(values: Sequence[float]) -> tuple[int, list[int]] | None:
    # Minus zero would come back as zero.
    if any(str(value) == "-0.0" for value in values):
        return None
    scale = decimals(values)
    return None if scale is None else (scale, [round(value * 10**scale) for value in values])


def _encode_summary(rows: Sequence[Summary]) -> list[Any]:
    return [encode_column(column) for column in zip(*rows, strict=True)]


def _decode_summary(columns: list[Column]) -> list[Summary]:
    return [Summary(*row) for row in zip(*map(decode_column, columns), strict=True)]


def _differences(values: Sequence[int]) -> list[int]:
    return [*values[:1], *map(sub, values[1:], values)]


def _gaps(rows: list[int], count: int) -> list[int] | None:
    return None if len(rows) == count else _differences(rows)


def _pack(packed: dict[str, Any]) -> bytes:
    return zlib.compress(orjson.dumps(packed), 6)


def _unpack(block: bytes) -> Any:  # noqa: ANN401  # what was packed
    return orjson.loads(zlib.decompress(block))
