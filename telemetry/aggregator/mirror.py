"""The aggregator's copy of one record, which keeps a position a field: late changes never replace newer values.

It is held as the row of its table, so that to write it is to copy it. Of lists and objects only their JSON is held.
"""

from collections.abc import Iterable, Mapping

import orjson

from telemetry.admission import Form
from telemetry.fields import Owner, Value
from telemetry.render.sql import SqlValue, columns, from_sql, to_sql
from telemetry.stores import Held, RecordRow
from telemetry.stores.state import Part, State, decode_state, layout
from telemetry.topics import RecordKey
from telemetry.wire import Change, Position, encode_snapshot

MOST_UNKNOWN = 64
"""Fields of newer agents that a record keeps; further ones stay in the history only."""


class MirroredRecord:
    """One record as the aggregator holds it."""

    __slots__ = ("_layout", "_row", "_state", "_stored_time", "key")

    def __init__(self, key: RecordKey, stored: RecordRow | None = None) -> None:
        self.key = key
        self._layout = layout(key.record)
        if stored is None:
            self._row: list[SqlValue] = [key.fields.get(name) for name in columns(key.record)]
            self._state = State.of_new(key.record)
            self._stored_time = 0
        else:
            self._row = list(stored)
            self._state = decode_state(key.record, str(stored[-1]), {self._layout.number: self._layout.names})
            self._stored_time = int(stored[-2] or 0)

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is held of each sender. Up to where it is `whole`, is for the one who follows its log to say."""
        return self._state.parts

    def part(self, owner: Owner) -> Part:
        """What is held of a sender."""
        part = self._state.part(owner)
        assert part is not None
        return part

    def apply(self, part: Part, change: Change, values: Mapping[str, Value], form: Form | None = None) -> bool:
        """Take in a change of a sender with its admitted values, and their form if they have one.

        Returns whether it altered anything that is shown.
        """
        if change.epoch != part.epoch and not self._begins(part, change.epoch):
            return False
        seq = change.seq
        row, seqs = self._row, self._state.seqs
        # The newest message of a log is newer than all that is held of it.
        is_newest = seq > part.newest
        altered = False
        if form is not None and is_newest:
            for place, value in zip(form.places, values.values(), strict=True):
                altered = altered or row[place] != value
                row[place], seqs[place] = value, seq  # type: ignore[assignment]  # those of a form are scalars
        else:
            altered = self._apply_one_by_one(part, change, values)
        if change.full or change.gone:
            altered |= self._lose_all(part.owner, change, values)
        if is_newest:
            part.newest, part.time = seq, change.time
        return altered

    def _apply_one_by_one(self, part: Part, change: Change, values: Mapping[str, Value]) -> bool:
        row, seqs = self._row, self._state.seqs
        altered = False
        for name, value in values.items():
            place = self._layout.at.get(name)
            if place is None:
                altered |= self._set_unknown(name, Held(value, part.owner, change.position))
            elif seqs[place] < change.seq:
                held = to_sql(value)
                altered |= row[place] != held
                row[place], seqs[place] = held, change.seq
        return altered

    @property
    def time(self) -> int:
        """When the newest message of any sender was sampled, Unix milliseconds: a wrong clock is forgotten with it."""
        times = [part.time for part in self._state.parts if part.time is not None]
        return max(times) if times else self._stored_time

    def state(self, name: str, value: str | int) -> bool:
        """Set a field of the aggregator's own; whether it was different."""
        column = self._layout.at[name]
        before, self._row[column] = self._row[column], value
        return before != value

    def snapshot(self) -> bytes:
        """The record for subscribers. A sender that was never whole is left out with its fields."""
        names = self._layout.names
        values: dict[str, Value | orjson.Fragment]
        values = {name: value for name, value in zip(names, self._row, strict=False) if value is not None}
        for name in self._layout.lists:
            if name in values:
                values[name] = orjson.Fragment(str(values[name]))
        positions = {}
        for part in self._state.parts:
            if part.whole is not None:
                positions[part.sender] = part.whole
            else:
                for name in self._layout.owned[part.owner]:
                    values.pop(name, None)
        if self._state.unknown:
            for name, held in self._state.unknown.items():
                if held.value is not None and held.owner.value in positions:
                    values[name] = held.value
        return encode_snapshot(values, time=self.time, positions=positions)

    def held(self, owner: Owner) -> dict[str, Held]:
        """What an owner stated, with its position; None for what it had and is gone."""
        part, seqs, declared = self._state.part(owner), self._state.seqs, self.key.record.by_name
        epoch = part.epoch if part is not None else 0
        held = {
            name: Held(from_sql(declared[name], self._row[at]), owner, Position(epoch, seqs[at]))
            for name, at in self._layout.owned[owner].items()
            if seqs[at] or self._row[at] is not None
        }
        return held | {name: one for name, one in self._state.unknown.items() if one.owner is owner}

    @property
    def has_fields(self) -> bool:
        """Whether any sender stated anything."""
        if any(self._state.seqs) or self._state.unknown:
            return True
        owned = [self._layout.owned[part.owner] for part in self._state.parts]
        return any(self._row[column] is not None for mine in owned for column in mine.values())

    def stored(self) -> RecordRow:
        """The record for the store."""
        self._row[-2:] = self.time, self._state.encoded(self._layout)
        return tuple(self._row)

    def _begins(self, part: Part, epoch: int) -> bool:
        """Whether a message of another log than the present one begins a new one: all that is held is older then."""
        if epoch < part.epoch:
            return False
        part.epoch, part.newest = epoch, 0
        for column in self._layout.owned[part.owner].values():
            self._state.seqs[column] = 0
        return True

    def _lose_all(self, owner: Owner, change: Change, values: Mapping[str, Value]) -> bool:
        """Take in that fields are gone: those that a change names, those that a full report does not name."""
        mine = self._layout.owned[owner]
        gone: Iterable[str] = change.gone
        if change.full:
            unknown = [name for name, held in self._state.unknown.items() if held.owner is owner]
            gone = [name for name in (*mine, *unknown) if name not in values]
        altered = False
        for name in gone:
            column = mine.get(name)
            if column is None:
                altered |= self._lose_unknown(name, owner, change.position)
            elif self._state.seqs[column] < change.seq:
                # Also where there is no value: an older one may come late.
                altered |= self._row[column] is not None
                self._row[column], self._state.seqs[column] = None, change.seq
        return altered

    def _set_unknown(self, name: str, new: Held) -> bool:
        unknown = self._state.unknown
        held = unknown.get(name)
        if held is None and len(unknown) >= MOST_UNKNOWN:
            return False
        if held is not None and held.position >= new.position and held.owner is new.owner:
            return False
        unknown[name] = new
        return held is None or held.value != new.value

    def _lose_unknown(self, name: str, owner: Owner, position: Position) -> bool:
        held = self._state.unknown.get(name)
        if held is None or held.owner is not owner or held.position >= position:
            return False
        del self._state.unknown[name]
        return True
