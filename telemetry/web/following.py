"""The one connection to the broker: a thread takes in what comes, and a few times a second hands on what it came to."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from telemetry.client import Fleet, Update
from telemetry.topics import RecordKey

HAND_ON = 0.25
"""Seconds in which changes are gathered."""

_LOOK_AT_TIMES = 1.0
"""Seconds between looks for records that were sampled again without a change."""


class Sampled(NamedTuple):
    """When a record was sampled last (Unix ms), and whether no change of it is missing."""

    time: int
    is_whole: bool


class News(NamedTuple):
    """What happened in a moment: records that changed, others that were sampled again, and whether there is a broker.

    `outage` says why there is none; it is None before the first try has ended.
    """

    updates: dict[RecordKey, Update]
    sampled: dict[RecordKey, Sampled]
    is_connected: bool
    outage: str | None


class Following:
    """Follows a fleet in a thread of its own, as a context manager; news go to `deliver`, in that thread.

    `has_failed` when it ended by a defect.
    """

    def __init__(self, fleet: Fleet, deliver: Callable[[News], None]) -> None:
        self._fleet, self._deliver = fleet, deliver
        self._stopping = threading.Event()
        self.has_failed = False
        self._sampled: dict[RecordKey, Sampled] = {}
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)

    def __enter__(self) -> "Following":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._follow()
        except BaseException:
            # A page whose records stand still must not go on as if they did not.
            self.has_failed = True
            raise

    def _follow(self) -> None:
        look_at = 0.0
        with self._fleet as fleet:
            while not self._stopping.is_set():
                updates = self._gather(fleet)
                for update in updates.values():
                    self._sampled[update.key] = Sampled(update.time, update.is_whole)
                sampled: dict[RecordKey, Sampled] = {}
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + _LOOK_AT_TIMES
                    sampled = self._look_at_times(fleet)
                self._deliver(News(updates, sampled, fleet.is_connected, fleet.outage))

    def _gather(self, fleet: Fleet) -> dict[RecordKey, Update]:
        """What changed in a moment; of a record that changed several times, all that did."""
        gathered: dict[RecordKey, Update] = {}
        until = time.monotonic() + HAND_ON
        while (left := until - time.monotonic()) > 0:
            for update in fleet.poll(left):
                before = gathered.get(update.key)
                gathered[update.key] = update if before is None else _joined(before, update)
        return gathered

    def _look_at_times(self, fleet: Fleet) -> dict[RecordKey, Sampled]:
        now = {key: Sampled(copy.time, copy.is_whole) for key, copy in fleet.records.items()}
        before, self._sampled = self._sampled, now
        return {key: one for key, one in now.items() if before.get(key) != one}


def _joined(before: Update, after: Update) -> Update:
    return Update(
        key=after.key,
        fields=after.fields,
        changed=before.changed | after.changed,
        time=after.time,
        is_whole=after.is_whole,
    )
