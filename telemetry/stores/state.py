"""What a record holds beside its values: at which position each stands, and up to where each sender's part is whole.

It is the column `_state`. Every change moves it, so it is made to be written cheaply: one number a field, in the order
of the declaration, whose names the store keeps once (see `Layout`).
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any
from zlib import crc32

import orjson

from telemetry.fields import Owner, Record, Scalar, Value
from telemetry.stores import Held
from telemetry.wire import Position

Layouts = Mapping[int, tuple[str, ...]]
"""By their number, the fields in the order in which a `_state` has them."""


class Layout:
    """Where the fields of a record stand in its row. `number` names the order, for one who reads it much later."""

    def __init__(self, record: Record) -> None:
        self.names = tuple(record.by_name)
        self.number = crc32(" ".join(self.names).encode())
        self.at = {name: at for at, name in enumerate(self.names)}
        self.owned = {
            owner: {name: self.at[name] for name, field in record.by_name.items() if field.owner is owner}
            for owner in Owner
        }
        self.lists = tuple(field.name for field in record.fields if not isinstance(field.type, Scalar))


@cache
def layout(record: Record) -> Layout:
    """The layout of a record's row."""
    return Layout(record)


class Part:
    """What a record holds of one sender: its log, up to where it is whole, and its newest message with its time.

    `newest` is no lower than any position that is held of a field.
    """

    __slots__ = ("epoch", "newest", "owner", "sender", "time", "whole")

    def __init__(self, owner: Owner, epoch: int = 0, whole: Position | None = None) -> None:
        self.owner, self.sender = owner, owner.value
        self.epoch, self.whole = epoch, whole
        self.newest = 0
        self.time: int | None = None


class State:
    """The positions of a record. `seqs` has one a field, 0 where it was last stated before its sender's present log."""

    __slots__ = ("parts", "seqs", "unknown")

    def __init__(self, parts: Iterable[Part], seqs: list[int], unknown: Mapping[str, Held] | None = None) -> None:
        self.parts = tuple(parts)
        self.seqs = seqs
        self.unknown = dict(unknown or {})

    @classmethod
    def of_new(cls, record: Record) -> "State":
        """The state of a record of which nothing is held."""
        return cls(map(Part, record.senders), [0] * len(record.fields))

    def part(self, owner: Owner) -> Part | None:
        """What is held of a sender."""
        return next((part for part in self.parts if part.owner is owner), None)

    def encoded(self, layout: Layout) -> str:
        """The state as its column holds it."""
        state: dict[str, Any] = {"layout": layout.number, "seqs": self.seqs}
        for part in self.parts:
            state[part.sender] = (part.epoch, *part.whole) if part.whole else (part.epoch,)
        if self.unknown:
            state["unknown"] = {
                name: (held.value, held.owner.value, *held.position) for name, held in self.unknown.items()
            }
        return orjson.dumps(state).decode()


def decode_state(record: Record, text: str | bytes, layouts: Layouts) -> State:
    """The state that a column holds. Raises ValueError where that is none."""
    try:
        state = orjson.loads(text)
        return _first_form(record, state) if "held" in state else _decoded(record, state, layouts)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"_state: {error!r}") from None


def _decoded(record: Record, state: dict[str, Any], layouts: Layouts) -> State:
    parts = []
    for owner in record.senders:
        epoch, *whole = state.get(owner.value, (0,))
        parts.append(Part(owner, epoch, Position(*whole) if whole else None))
    seqs = dict(zip(layouts[state["layout"]], state["seqs"], strict=True))
    unknown = {
        name: Held(value, Owner(owner), Position(*position))
        for name, (value, owner, *position) in state.get("unknown", {}).items()
    }
    return _restored(record, parts, [seqs.get(name, 0) for name in record.by_name], unknown)


def _first_form(record: Record, state: dict[str, Any]) -> State:
    """The form of version 1: a position a field, each with its epoch."""
    held = {
        name: (Owner(owner), Position(epoch, seq))
        for name, (owner, epoch, seq) in state["held"].items()
    }  # fmt: skip
    parts = []
    for owner in record.senders:
        epochs = [position.epoch for one, position in held.values() if one is owner]
        whole = state["whole"].get(owner.value)
        parts.append(Part(owner, max(epochs, default=0), Position(*whole) if whole else None))
    present = {part.owner: part.epoch for part in parts}
    seqs = [0] * len(record.fields)
    for at, name in enumerate(record.by_name):
        if name in held and present.get(held[name][0]) == held[name][1].epoch:
            seqs[at] = held[name][1].seq
    unknown: dict[str, Value] = state["unknown"]
    still_unknown = {name: Held(value, *held[name]) for name, value in unknown.items() if value is not None}
    return _restored(record, parts, seqs, still_unknown)


def _restored(record: Record, parts: Iterable[Part], seqs: list[int], unknown: Mapping[str, Held]) -> State:
    state = State(parts, seqs, unknown)
    for part in state.parts:
        part.newest = max((seqs[at] for at in layout(record).owned[part.owner].values()), default=0)
    return state
