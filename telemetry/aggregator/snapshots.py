"""When each record's snapshot is published: soon after a change, never too often, and again unchanged."""

import heapq
import itertools
from collections.abc import Iterator

from telemetry.topics import RecordKey

RESUBSCRIBE_SPACING = 1.0
"""Seconds: resubscriptions of a miner that come within it are answered together."""


class SnapshotSchedule:
    """At least `spacing` seconds between two snapshots of a record, at most `refresh`."""

    def __init__(self, *, spacing: float, refresh: float) -> None:
        self._spacing, self._refresh = spacing, refresh
        self._published: dict[RecordKey, float] = {}
        self._due: dict[RecordKey, float] = {}
        self._queue: list[tuple[float, int, RecordKey]] = []
        # Keys cannot be put in order: a miner's has no host name.
        self._order = itertools.count()

    def changed(self, key: RecordKey, now: float) -> None:
        """The record is different: publish it as soon as the spacing allows."""
        due = max(now, self._published.get(key, now - self._spacing) + self._spacing)
        if due < self._due.get(key, due + 1):
            self._set_due(key, due)

    def published(self, key: RecordKey, now: float) -> None:
        """The snapshot was published now."""
        self._published[key] = now
        self._set_due(key, now + self._refresh)

    def forget(self, key: RecordKey) -> None:
        """The record is no more."""
        self._published.pop(key, None)
        self._due.pop(key, None)

    def pop_due(self, now: float) -> Iterator[RecordKey]:
        """The records whose snapshot is due; each has to be told `published` or `changed` to come again."""
        while self._queue and self._queue[0][0] <= now:
            due, _, key = heapq.heappop(self._queue)
            # What was superseded by another time stays in the heap until its own.
            if self._due.get(key) == due:
                del self._due[key]
                yield key

    def next_due(self) -> float | None:
        """When to look again."""
        return self._queue[0][0] if self._queue else None

    def _set_due(self, key: RecordKey, due: float) -> None:
        self._due[key] = due
        heapq.heappush(self._queue, (due, next(self._order), key))


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
