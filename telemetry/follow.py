"""An agent is an ordered log: who follows it, and who copies a record from it. No I/O, no clock.

`Follower` keeps what an aggregator holds of a log; `RecordCopy` is a subscriber's copy of a record, from its snapshot
and the changes after it.
"""

import bisect
from collections.abc import Collection, Mapping, Set
from enum import Enum

from telemetry.fields import Owner, Record, Value
from telemetry.wire import Change, Position, Snapshot

MOST_RANGES = 1000
"""Ranges kept beyond a hole; above it the oldest hole counts as lost, so that no sender can make us grow."""


class Arrival(Enum):
    """What a position is to a follower."""

    NEW = "new"
    DUPLICATE = "duplicate"
    OLD_LOG = "old log"


class Follower:
    """What is held of one of an agent's logs.

    `position`: all up to it is held or lost; None until a batch says where the log begins. Ranges beyond it are
    held too; between them are holes. `lost` counts the messages that will never come; only a full report after
    `floor`, the last of them, makes a record whole again.
    """

    __slots__ = ("beyond", "epoch", "floor", "fulls", "lost", "position")

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.position: int | None = None
        self.lost = 0
        self.beyond: list[tuple[int, int]] = []
        self.fulls: dict[str, int] = {}
        self.floor = 0

    @classmethod
    def restored(
        cls, *, epoch: int, position: int | None, lost: int, beyond: Collection[tuple[int, int]],
        fulls: Mapping[str, int], floor: int,
    ) -> "Follower":  # fmt: skip
        """A follower as it was stored."""
        follower = cls(epoch)
        follower.position, follower.lost, follower.floor = position, lost, floor
        follower.beyond, follower.fulls = [(first, last) for first, last in beyond], dict(fulls)
        return follower

    def step(self, epoch: int, seq: int) -> bool:
        """Take in the next message of a log without a hole, as most are. Any other is left to `arrive`."""
        if seq - 1 != self.position or epoch != self.epoch or self.beyond:
            return False
        self.position = seq
        return True

    def arrive(self, position: Position) -> Arrival:
        """Take in the position of a message. A higher epoch begins a new log."""
        if position.epoch < self.epoch:
            return Arrival.OLD_LOG
        if position.epoch > self.epoch:
            self._begin(position.epoch)
        if not self._hold(position.seq):
            return Arrival.DUPLICATE
        self._join()
        while len(self.beyond) > MOST_RANGES:
            self.advance_to(self.beyond[0][0] if self.position is not None else self.beyond[1][0])
        return Arrival.NEW

    def stand_full(self, topic: str, position: Position) -> None:
        """Note that the message at `position` was a full report of `topic`."""
        self.fulls[topic] = max(position.seq, self.fulls.get(topic, 0))

    def begin_at(self, epoch: int, first: int) -> bool:
        """Take in that nothing below `first` will come any more. False for a log older than the one followed."""
        if epoch < self.epoch:
            return False
        if epoch > self.epoch:
            self._begin(epoch)
        self.advance_to(first)
        return True

    def advance_to(self, first: int) -> None:
        """Close the holes below `first`: what is not held there is lost; below the start of a log nothing is."""
        if self.position is None:
            self.position = self._start_below(first)
        while self.beyond and self.beyond[0][0] < first:
            self._lose_up_to(self.beyond[0][0])
            self._join()
        if self.position + 1 < first:
            self._lose_up_to(first)
        self._join()

    @property
    def has_hole(self) -> bool:
        """Whether something is missing, or it is not known where the log begins."""
        return self.position is None or bool(self.beyond)

    def is_whole(self, topic: str) -> bool:
        """Whether all of `topic` is held: no hole, and a full report since the last loss."""
        return not self.has_hole and self.fulls.get(topic, 0) > self.floor

    def is_mended(self, topics: Collection[str]) -> bool:
        """Whether nothing has to be asked of the agent."""
        return not self.has_hole and all(self.is_whole(topic) for topic in topics)

    def whole_position(self, topic: str) -> Position | None:
        """Up to where `topic` is whole; None while it is not."""
        return Position(self.epoch, self.position) if self.position is not None and self.is_whole(topic) else None

    def _begin(self, epoch: int) -> None:
        self.epoch, self.position, self.floor = epoch, None, 0
        self.beyond.clear()
        self.fulls.clear()

    def _start_below(self, first: int) -> int:
        # The log is met for the first time: what was held before `first` is kept, its holes are not ours to count.
        self.beyond = [(low, high) for low, high in self.beyond if high >= first]
        if self.beyond and self.beyond[0][0] < first:
            self.beyond[0] = (first, self.beyond[0][1])
        return first - 1

    def _lose_up_to(self, first: int) -> None:
        assert self.position is not None
        self.lost += first - 1 - self.position
        self.position = self.floor = first - 1

    def _hold(self, seq: int) -> bool:
        if self.position is not None and seq <= self.position:
            return False
        at = bisect.bisect_right(self.beyond, (seq, seq))
        if (at > 0 and seq <= self.beyond[at - 1][1]) or (at < len(self.beyond) and self.beyond[at][0] == seq):
            return False
        joins_left = at > 0 and self.beyond[at - 1][1] == seq - 1
        joins_right = at < len(self.beyond) and self.beyond[at][0] == seq + 1
        first = self.beyond[at - 1][0] if joins_left else seq
        last = self.beyond[at][1] if joins_right else seq
        self.beyond[at - joins_left : at + joins_right] = [(first, last)]
        return True

    def _join(self) -> None:
        if self.position is not None and self.beyond and self.beyond[0][0] == self.position + 1:
            self.position = self.beyond.pop(0)[1]


class Logs:
    """What is held of all the logs of one agent: the present one, and those that it gave up but may still send from."""

    __slots__ = ("former", "present")

    MOST_FORMER = 4

    def __init__(self, present: Follower | None = None, former: Collection[Follower] = ()) -> None:
        self.present = present or Follower()
        self.former = {follower.epoch: follower for follower in former}

    def begins(self, epoch: int) -> bool:
        """Whether a message of this epoch begins a new log."""
        return epoch > self.present.epoch

    def of(self, epoch: int) -> Follower | None:
        """The follower of a log: a higher epoch begins a new one; None for a lower one that is not known."""
        if self.begins(epoch):
            if self.present.epoch:
                self.former[self.present.epoch] = self.present
            self.present = Follower(epoch)
            self._forget_oldest()
        return self.present if epoch == self.present.epoch else self.former.get(epoch)

    def keep(self, epoch: int, now: int | None) -> Follower | None:
        """The follower of a log of which a batch comes; an unknown one is begun if its agent's present log is ours."""
        follower = self.of(epoch)
        if follower is None and now == self.present.epoch:
            follower = self.former[epoch] = Follower(epoch)
            self._forget_oldest()
        return self.former.get(epoch) if follower is None else follower

    def _forget_oldest(self) -> None:
        while len(self.former) > self.MOST_FORMER:
            gone = self.former.pop(min(self.former))
            self.present.lost += gone.lost


class RecordCopy:
    """A subscriber's copy of one record. `is_whole` tells whether it can be trusted; if not, ask for snapshots.

    Per sender: a snapshot's fields are taken when its position is not behind the copy's, a change when it is newer.
    """

    __slots__ = ("_fields", "_gapped", "_positions", "_record", "_senders", "has_snapshot", "time")

    def __init__(self, record: Record) -> None:
        self._record = record
        self._fields: Mapping[str, Value] = {}
        self._senders: dict[str, Owner] = {}
        self._positions: dict[Owner, Position] = {}
        self._gapped: set[Owner] = set()
        self.time = 0
        self.has_snapshot = False

    @property
    def fields(self) -> Mapping[str, Value]:
        """The fields by name, as they are now: a later message makes others, and leaves these as they are."""
        return self._fields

    @property
    def positions(self) -> Mapping[Owner, Position]:
        """Up to where the copy goes, by sender."""
        return self._positions

    @property
    def is_whole(self) -> bool:
        """Whether a snapshot stands and no change is missing after it."""
        return self.has_snapshot and not self._gapped

    def apply_snapshot(self, snapshot: Snapshot) -> Set[str]:
        """Take in a snapshot; the names of the fields that changed."""
        before, positions, stated = self._fields, self._positions, snapshot.positions
        senders = self._record.senders
        refreshed = [owner for owner in senders if self._is_refreshed(owner, stated.get(owner.value))]
        is_all = len(refreshed) == len(senders)
        self._fields = snapshot.values if is_all else self._refreshed(refreshed, snapshot.values)
        positions |= {owner: stated[owner.value] for owner in refreshed}
        if is_all and self._gapped:
            # What was missed may have stated fields that are not declared: whose they are is not known any more.
            self._senders.clear()
        if is_all or self._fields.keys() <= self._record.by_name.keys():
            self._gapped.difference_update(refreshed)
        self.time, self.has_snapshot = snapshot.time, True
        return _changed(before, self._fields) if before else self._fields.keys()

    def _refreshed(self, senders: Collection[Owner], values: Mapping[str, Value]) -> Mapping[str, Value]:
        """The fields with what a snapshot says of some senders, and with what no sender states."""
        kept = set(self._record.senders).difference(senders)
        held = {name: value for name, value in self._fields.items() if self._sender_of(name) in kept}
        if values.keys() <= self._record.by_name.keys() and all(
            values.keys().isdisjoint(self._record.owned_by(owner)) for owner in kept
        ):
            return {**held, **values} if held else values
        return held | {name: value for name, value in values.items() if self._sender_of(name) not in kept}

    def apply_change(self, owner: Owner, change: Change) -> Set[str]:
        """Take in a change; the names of the fields that changed. Without a snapshot yet it is ignored."""
        held = self._positions.get(owner)
        if not self.has_snapshot or (held is not None and change.position <= held):
            return frozenset()
        if held is None and not change.full:
            self._gapped.add(owner)
            return frozenset()
        before = self._fields
        self._mark_gap(owner, change, held)
        replaced = set(self._replaced_by(owner, change))
        left = {name: value for name, value in before.items() if name not in replaced} if replaced else before
        self._fields = {**left, **change.values}
        self._senders.update(dict.fromkeys(change.values, owner))
        self._positions[owner] = change.position
        self.time = change.time
        return _changed(before, self._fields)

    def _is_refreshed(self, owner: Owner, position: Position | None) -> bool:
        held = self._positions.get(owner)
        return position is not None and (held is None or position >= held)

    def _sender_of(self, name: str) -> Owner:
        declared = self._record.by_name.get(name)
        if declared is not None:
            return declared.owner
        only = self._record.senders[0] if len(self._record.senders) == 1 else Owner.AGGREGATOR
        return self._senders.get(name, only)

    def _mark_gap(self, owner: Owner, change: Change, held: Position | None) -> None:
        if change.full and self._knows_all_senders():
            self._gapped.discard(owner)
        elif change.full:
            # Whether it ends a field of a newer agent, which only a snapshot has named, the next snapshot tells.
            self._gapped.add(owner)
        elif held is None or change.prev is None or change.epoch != held.epoch or change.prev > held.seq:
            self._gapped.add(owner)

    def _knows_all_senders(self) -> bool:
        unknown = self._fields.keys() - self._record.by_name.keys()
        return len(self._record.senders) == 1 or unknown <= self._senders.keys()

    def _replaced_by(self, owner: Owner, change: Change) -> Collection[str]:
        if not change.full:
            return change.gone
        return [name for name in self._fields if self._sender_of(name) is owner]


def _changed(before: Mapping[str, Value], now: Mapping[str, Value]) -> set[str]:
    """The names of the fields that are not as they were, or are gone, or new."""
    changed = {name for name, value in now.items() if before.get(name) != value}
    return changed | (before.keys() - now.keys())
