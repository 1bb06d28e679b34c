"""The aggregator's copy of one record, which keeps a position a field: late changes never replace newer values."""

from collections.abc import Mapping

from telemetry.fields import Owner, Value
from telemetry.stores import Held, StoredRecord
from telemetry.topics import RecordKey
from telemetry.wire import Change, Position, Snapshot

_OWN = Position(0, 0)

MOST_UNKNOWN = 64
"""Fields of newer agents that a record keeps; further ones stay in the history only."""


class MirroredRecord:
    """One record as the aggregator holds it."""

    def __init__(self, key: RecordKey, stored: StoredRecord | None = None) -> None:
        self.key = key
        self._stored_time = stored.time if stored else 0
        self._times: dict[Owner, tuple[Position, int]] = {}
        self._held: dict[str, Held] = dict(stored.fields) if stored else {}
        self._whole: dict[Owner, Position] = dict(stored.whole) if stored else {}

    def apply(self, owner: Owner, change: Change, values: Mapping[str, Value]) -> tuple[str, ...]:
        """Take in a change with its admitted values; the names of the fields that it altered."""
        altered = [name for name, value in values.items() if self._set(name, Held(value, owner, change.position))]
        gone = self._unstated(owner, values) if change.full else change.gone
        altered += [name for name in gone if self._lose(name, owner, change.position)]
        if owner not in self._times or change.position > self._times[owner][0]:
            self._times[owner] = (change.position, change.time)
        return tuple(altered)

    @property
    def time(self) -> int:
        """When the newest message of any sender was sampled, Unix milliseconds: a wrong clock is forgotten with it."""
        return max((time for _, time in self._times.values()), default=self._stored_time)

    def state(self, name: str, value: Value) -> bool:
        """Set a field of the aggregator's own; whether it was different."""
        held = self._held.get(name)
        self._held[name] = Held(value, Owner.AGGREGATOR, _OWN)
        return held is None or held.value != value

    def make_whole(self, owner: Owner, position: Position | None) -> None:
        """Note up to where a sender's part is whole; without a position the last one stands."""
        if position is not None:
            self._whole[owner] = position

    def snapshot(self) -> Snapshot:
        """The record for subscribers. A sender that was never whole is left out with its fields."""
        shown = self._whole.keys() | {Owner.AGGREGATOR}
        values: dict[str, Value] = dict(self.key.fields)
        values |= {name: held.value for name, held in self._ordered() if held.value is not None and held.owner in shown}
        return Snapshot(
            values=values,
            time=self.time,
            positions={owner.value: self._whole[owner] for owner in self.key.record.senders if owner in self._whole},
        )

    def stated_by(self, owner: Owner) -> dict[str, Value]:
        """The declared fields that a sender stated last, as they are held."""
        return {
            name: held.value
            for name, held in self._held.items()
            if held.owner is owner and held.value is not None and name in self.key.record.by_name
        }

    @property
    def has_fields(self) -> bool:
        """Whether any sender stated anything."""
        return any(held.owner is not Owner.AGGREGATOR for held in self._held.values())

    def stored(self) -> StoredRecord:
        """The record for the store."""
        return StoredRecord(fields=dict(self._held), whole=dict(self._whole), time=self.time)

    def _ordered(self) -> list[tuple[str, Held]]:
        declared = [(name, self._held[name]) for name in self.key.record.by_name if name in self._held]
        return declared + [(name, held) for name, held in self._held.items() if name not in self.key.record.by_name]

    def _set(self, name: str, new: Held) -> bool:
        held = self._held.get(name)
        if held is None and not self._has_room(name):
            return False
        if held is not None and held.position >= new.position and held.owner is new.owner:
            return False
        self._held[name] = new
        return held is None or held.value != new.value

    def _lose(self, name: str, owner: Owner, position: Position) -> bool:
        held = self._held.get(name)
        if held is None:
            if name in self.key.record.owned_by(owner):
                # An older value of it may come late.
                self._held[name] = Held(None, owner, position)
            return False
        if held.owner is not owner or held.position >= position:
            return False
        if name in self.key.record.by_name:
            self._held[name] = Held(None, owner, position)
        else:
            del self._held[name]
        return held.value is not None

    def _has_room(self, name: str) -> bool:
        declared = self.key.record.by_name
        return name in declared or len(self._held.keys() - declared.keys()) < MOST_UNKNOWN

    def _unstated(self, owner: Owner, values: Mapping[str, Value]) -> list[str]:
        mine = [name for name, held in self._held.items() if held.owner is owner]
        return [name for name in {**dict.fromkeys(mine), **self.key.record.owned_by(owner)} if name not in values]
