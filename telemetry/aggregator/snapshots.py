"""When each record's snapshot is published: soon after a change, never too often, and again unchanged."""

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Iterator

from telemetry.topics import RecordKey

RESUBSCRIBE_SPACING = 1.0
"""Seconds: resubscriptions of a miner that come within it are answered together."""


class SnapshotSchedule:
    """At least `spacing` seconds between two snapshots of a record, at most `refresh`."""

    def __init__(self, *, spacing: float, refresh: float) -> None:
        self._spacing, self._refresh = spacing, refresh
        # In the order in which they were published, which is that in which they are to be refreshed.
        self._published: OrderedDict[RecordKey, float] = OrderedDict()
        self._changed: dict[RecordKey, float] = {}
        self._queue: list[tuple[float, int, RecordKey]] = []
        # Keys cannot be put in order: a miner's has no host name.
        self._order = itertools.count()

    def retune(self, *, spacing: float, refresh: float, now: float) -> None:
        """Go by another spacing from now on, and refresh in another time."""
        self._spacing, self._refresh = spacing, refresh
        waiting, self._changed, self._queue = self._changed, {}, []
        for key in waiting:
            self.changed(key, now)

    def changed(self, key: RecordKey, now: float) -> None:
        """The record is different: publish it as soon as the spacing allows."""
        if key not in self._changed:
            due = max(now, self._published.get(key, now - self._spacing) + self._spacing)
            self._changed[key] = due
            heapq.heappush(self._queue, (due, next(self._order), key))

    def published(self, key: RecordKey, now: float) -> None:
        """The snapshot was published now."""
        self._changed.pop(key, None)
        self._published[key] = now
        self._published.move_to_end(key)

    def forget(self, key: RecordKey) -> None:
        """The record is no more."""
        self._published.pop(key, None)
        self._changed.pop(key, None)

    def pop_due(self, now: float) -> Iterator[RecordKey]:
        """The records whose snapshot is due; each has to be told `published` or `changed` to come again."""
        while self._queue and self._queue[0][0] <= now:
            due, _, key = heapq.heappop(self._queue)
            # What was published or forgotten meanwhile stays in the heap until its time.
            if self._changed.get(key) == due:
                del self._changed[key]
                yield key
        while self._published and next(iter(self._published.values())) + self._refresh <= now:
            yield self._published.popitem(last=False)[0]

    def next_due(self) -> float | None:
        """When to look again."""
        changed = self._queue[0][0] if self._queue else None
        if not self._published:
            return changed
        refreshed = next(iter(self._published.values())) + self._refresh
        return refreshed if changed is None else min(changed, refreshed)


class Resubscriptions:
    """Who asked for a miner's snapshots again, gathered and spaced a miner."""

    def __init__(self) -> None:
        self._asked: dict[str, frozenset[str] | None] = {}
        self._answered: dict[str, float] = {}

    def ask(self, miner: str, hosts: tuple[str, ...] | None) -> None:
        """Take in a resubscription: of some hosts, or with None of the whole miner."""
        before = self._asked.get(miner, frozenset())
        self._asked[miner] = None if hosts is None or before is None else before | set(hosts)

    def pop_due(self, now: float) -> Iterator[tuple[str, frozenset[str] | None]]:
        """The miners to answer for now, each with the hosts asked for (None: all)."""
        self._answered = {miner: at for miner, at in self._answered.items() if now < at + RESUBSCRIBE_SPACING}
        for miner in self._asked.keys() - self._answered.keys():
            self._answered[miner] = now
            yield miner, self._asked.pop(miner)
