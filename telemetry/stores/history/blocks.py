"""Blocks: columns of numbers and of JSON values, as compressed bytes and back. Nothing is lost, and damage is seen.

Numbers are written as the differences of integers, all their lowest bytes first, then the next ones, which compress
well; a column of decimals as integers with a common scale, if that gives exactly the same decimals back. Before all
stands a checksum: what passes it is what was written.
"""

import lzma
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from operator import sub
from types import MappingProxyType
from typing import Any

import orjson

from telemetry.errors import DamageError
from telemetry.fields import Value
from telemetry.stores.history import Change, Statement, Summary

_MOST_DECIMALS = 9
_EXACT = 2**53
_LARGEST = 2**62

# The fast preset: 20 % smaller than zlib on what hosts report, in the same time. Bytes of numbers have no neighbours.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 1, "lc": 0, "lp": 0, "pb": 0, "dict_size": 1 << 16}]

Timeline = list[tuple[int, Value | None]]
"""When a field was stated, and what it was; None: gone."""


def checksum(data: bytes) -> int:
    """A number that tells one block's bytes from another's."""
    return zlib.crc32(data)


def encode_statements(statements: Sequence[Statement]) -> bytes:
    """The block of messages in order; their fields have their short names."""
    columns: dict[str, tuple[list[int], list[Any]]] = defaultdict(lambda: ([], []))
    for row, statement in enumerate(statements):
        for name, value in statement.values.items():
            rows, values = columns[name]
            rows.append(row)
            values.append(value)
        for name in statement.gone:
            rows, values = columns[name]
            rows.append(row)
            values.append(None)
    to = _Writer()
    packed: dict[str, Any] = {
        "time": to.numbers(_differences(_differences([one.time for one in statements]))),
        "epoch": to.numbers(_differences([one.epoch for one in statements])),
        "seq": to.numbers(_differences(_differences([one.seq for one in statements]))),
        "delay": to.numbers([one.delay for one in statements]),
        "full": to.numbers(_differences([row for row, one in enumerate(statements) if one.full])),
    }
    packed["fields"] = {
        number: [
            None if len(rows) == len(statements) else to.numbers(_differences(rows)),
            *to.column(values),
        ]
        for number, (rows, values) in columns.items()
    }
    return to.pack(packed)


class Messages:
    """A block of messages, opened."""

    def __init__(self, data: bytes) -> None:
        self._reader = reader = _Reader(data)
        packed = reader.packed
        self.times = list(accumulate(accumulate(reader.numbers(packed["time"]))))
        self.epochs = list(accumulate(reader.numbers(packed["epoch"])))
        self.seqs = list(accumulate(accumulate(reader.numbers(packed["seq"]))))
        self._delays = reader.numbers(packed["delay"])
        self._fulls = list(accumulate(reader.numbers(packed["full"])))
        self._fields: dict[str, list[Any]] = packed["fields"]
        self._begin = reader.at

    @property
    def first(self) -> tuple[int, int, int]:
        """The place (time, epoch, seq) of the first message."""
        return self.times[0], self.epochs[0], self.seqs[0]

    @property
    def last(self) -> tuple[int, int, int]:
        """The place of the last message."""
        return self.times[-1], self.epochs[-1], self.seqs[-1]

    def statements(self, names: Mapping[Any, str] = MappingProxyType({})) -> list[Statement]:
        """The messages; `names` gives names of fields by their short ones."""
        values: list[dict[str, Any]] = [{} for _ in self.times]
        gone: list[list[str]] = [[] for _ in self.times]
        for number, rows, column in self._columns():
            name = names.get(number, number)
            for row, value in zip(rows, column, strict=True):
                if value is None:
                    gone[row].append(name)
                else:
                    values[row][name] = value
        full = set(self._fulls)
        places = zip(self.times, self.epochs, self.seqs, self._delays, strict=True)
        return [Statement(*place, row in full, values[row], tuple(gone[row])) for row, place in enumerate(places)]

    def field(self, number: str) -> list[tuple[int, int, int, Any]]:
        """When (time, epoch, seq) one field was stated, and what it was.

        None: it was gone, or a full message left it out.
        """
        stated: dict[int, Any] = dict.fromkeys(self._fulls)
        for _, rows, column in self._columns(number):
            stated |= zip(rows, column, strict=True)
        return [(self.times[row], self.epochs[row], self.seqs[row], stated[row]) for row in sorted(stated)]

    def timelines(self, known: Iterable[str] = ()) -> dict[str, Timeline]:
        """What was stated of each field, by its short name; of `known` ones also where full messages left them out."""
        times, fulls = self.times, dict.fromkeys(self._fulls)
        found: dict[str, Timeline] = {number: [(times[row], None) for row in self._fulls] for number in known}
        for number, rows, column in self._columns():
            if fulls.keys() <= set(rows):
                found[number] = [(times[row], value) for row, value in zip(rows, column, strict=True)]
            else:
                stated = fulls | dict(zip(rows, column, strict=True))
                found[number] = [(times[row], stated[row]) for row in sorted(stated)]
        return found

    def _columns(self, only: str | None = None) -> "list[tuple[str, Sequence[int], list[Any]]]":
        """Each field, the rows that state it, and what they state."""
        found: list[tuple[str, Sequence[int], list[Any]]] = []
        reader = self._reader
        reader.at = self._begin
        for number, (gaps, *column) in self._fields.items():
            if only is None or number == only:
                rows = range(len(self.times)) if gaps is None else list(accumulate(reader.numbers(gaps)))
                found.append((number, rows, reader.column(column)))
            else:
                reader.skip(gaps or [])
                reader.skip(column[1] if column[0] is not None else [])
        return found


def encode_summaries(
    summaries: Mapping[str, Sequence[Summary]], changes: Mapping[str, Sequence[Change]], *, source: int = 0
) -> bytes:
    """The block of what fields did over a span, by their short names; `source`: `checksum` of what it was made from."""
    to = _Writer()
    packed: dict[str, Any] = {"source": source}
    packed["summaries"] = {
        number: [to.column(column) for column in zip(*rows, strict=True)] for number, rows in summaries.items()
    }
    packed["changes"] = {
        number: [to.numbers(_differences([one.time for one in rows])), *to.column([one.value for one in rows])]
        for number, rows in changes.items()
    }
    return to.pack(packed)


class Summaries:
    """A block of summaries, opened."""

    def __init__(self, data: bytes) -> None:
        reader = _Reader(data)
        self.source: int = reader.packed["source"]
        self.summaries: dict[str, list[Summary]] = {
            number: [Summary(*row) for row in zip(*map(reader.column, columns), strict=True)]
            for number, columns in reader.packed["summaries"].items()
        }
        self.changes: dict[str, list[Change]] = {
            number: [Change(*one) for one in zip(accumulate(reader.numbers(times)), reader.column(column), strict=True)]
            for number, (times, *column) in reader.packed["changes"].items()
        }


class _Writer:
    """Columns of numbers, gathered as bytes; what describes them stands before them as JSON."""

    def __init__(self) -> None:
        self._bytes: list[bytes] = []

    def numbers(self, numbers: Sequence[int]) -> list[Any]:
        """Write integers; what describes them: how many, and of how many bytes each."""
        if not numbers:
            return []
        if max(map(abs, numbers)) >= _LARGEST:
            return [None, numbers]
        folded = [number << 1 ^ number >> 63 for number in numbers]
        width = max(1, (max(folded).bit_length() + 7) // 8)
        plain = struct.pack(f"<{len(folded)}q", *folded)
        self._bytes += [plain[place::8] for place in range(width)]
        return [len(folded), width]

    def column(self, values: Sequence[Any]) -> list[Any]:
        """Write one field's values: those that are not all integers, or all decimals, as they are.

        What describes them: their scale (-1: integers; None: as they are), and `numbers` or the values.
        """
        kinds = set(map(type, values))
        if kinds == {int} and max(map(abs, values)) < _EXACT:
            return [-1, self.numbers(_differences(values))]
        # Minus zero would come back as zero.
        is_plain = kinds == {float} and not (0.0 in values and "-0.0" in map(str, values))
        if is_plain and (found := _as_integers(values)):
            scale, integers = found
            return [scale, self.numbers(_differences(integers))]
        return [None, list(values)]

    def pack(self, packed: dict[str, Any]) -> bytes:
        head = orjson.dumps(packed)
        plain = b"".join([len(head).to_bytes(4, "little"), head, *self._bytes])
        data = lzma.compress(plain, lzma.FORMAT_RAW, filters=_FILTERS)
        return zlib.crc32(data).to_bytes(4, "little") + data


class _Reader:
    """What a `_Writer` packed; columns are read in the order in which they were written."""

    def __init__(self, data: bytes) -> None:
        is_one = isinstance(data, bytes) and len(data) > 4
        if not is_one or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
            raise DamageError("its checksum does not fit")
        self._plain = lzma.decompress(data[4:], lzma.FORMAT_RAW, filters=_FILTERS)
        self.at = 4 + int.from_bytes(self._plain[:4], "little")
        self.packed: dict[str, Any] = orjson.loads(self._plain[4 : self.at])

    def numbers(self, column: list[Any]) -> list[int]:
        if not column:
            return []
        count, width = column
        if count is None:
            return list(width)
        plain = bytearray(8 * count)
        for place in range(width):
            plain[place::8] = self._plain[self.at : self.at + count]
            self.at += count
        return [number >> 1 ^ -(number & 1) for number in struct.unpack(f"<{count}q", plain)]

    def column(self, column: list[Any]) -> list[Any]:
        scale, described = column
        if scale is None:
            return list(described)
        integers = accumulate(self.numbers(described))
        if scale < 0:
            return list(integers)
        unit = 10**scale
        return [number / unit for number in integers]

    def skip(self, column: list[Any]) -> None:
        if column and column[0] is not None:
            self.at += column[0] * column[1]


def decimals(values: Sequence[float]) -> int | None:
    """How many decimals numbers have at most; None where they are not decimals of a handful of digits."""
    found = _as_integers(values)
    return None if found is None else found[0]


def _as_integers(values: Sequence[float]) -> tuple[int, list[int]] | None:
    """A scale, and the integers that give exactly these numbers by it."""
    if not all(-_EXACT < value < _EXACT for value in values):
        return None
    scale = 0
    # The first ones tell the scale, mostly.
    for some in (values[:4], values):
        while (unit := 10**scale) and [round(value * unit) / unit for value in some] != list(some):
            scale += 1
            if scale > _MOST_DECIMALS:
                return None
    integers = [round(value * unit) for value in values]
    return (scale, integers) if all(-_EXACT < one < _EXACT for one in integers) else None


def _differences(values: Sequence[int]) -> list[int]:
    return [*values[:1], *map(sub, values[1:], values)]
