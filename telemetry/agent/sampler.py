"""Each source is sampled on its own interval and against its own deadline, and can hold up itself alone.

Sources that are due together are sampled one after the other by one thread, which costs half of what a thread each
does. A source that lets the others wait keeps the thread that it has; the rest of the round goes on in a new one.
"""

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apscheduler.executors.debug import DebugExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from telemetry.errors import SourceError
from telemetry.sources import Reading, Source, WithheldError, unread

_log = logging.getLogger(__name__)

SECOND_SAMPLE = 1.0
"""Seconds from the first sample to the second: a rate needs two."""

CLOCK_STEP = 1.0
"""Seconds by which the clock may be set back unnoticed."""

PATIENCE = 0.1
"""Seconds for which a source may let the others of its round wait."""

REST = 3.0
"""How long a slow source is left alone, as a multiple of the time that its last sample took: what is overloaded is
asked less, not more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A source, the seconds between its samples, and the seconds that one may take.

    `second`: seconds from the first sample to the second. `retry`: seconds to the next try where nothing could be
    read, if that is to be sooner than the interval.
    """

    source: Source
    interval: float
    deadline: float
    second: float = SECOND_SAMPLE
    retry: float | None = None

    @property
    def tick(self) -> float:
        """Seconds between looks at whether it is due."""
        return self.interval if self.retry is None else min(self.interval, self.retry)

    def is_left_alone_for(self, reading: Reading, took: float) -> float:
        """Seconds from the beginning of a sample in which there is no other."""
        failed = not reading.values and reading.hosts is None
        # A tick comes a little early or late.
        rest = self.interval - self.tick / 2 if self.tick < self.interval and not failed else 0.0
        return max(rest, took + REST * took if took > PATIENCE else 0.0)


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a sample of a source gave; `time` (Unix ms) is when it began."""

    source: Source
    time: int
    reading: Reading


Samples = tuple[Sampled, ...]
"""What one round gave."""


class Sampler:
    """Samples the planned sources; what each round gives goes to `deliver`, from threads of its own."""

    def __init__(self, plans: Sequence[Plan], deliver: Callable[[Samples], None]) -> None:
        self._plans = {plan.source.name: plan for plan in plans}
        self._deliver = deliver
        self._running: dict[str, float] = {}
        self._late: set[str] = set()
        self.missed = 0
        self._left_alone: dict[str, float] = {}
        self._lock = threading.Lock()
        self._worker = _Worker()
        self._clock_offset = time.time() - time.monotonic()
        # The debug executor runs a job in the scheduler's own thread; ours only hand a round to the worker.
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={"default": DebugExecutor()}, daemon=True)

    def start(self) -> None:
        """Begin: every source at once, a second time after `second`, and from then on at its interval."""
        plans = list(self._plans.values())
        self._add_job(plans)
        now = datetime.now(UTC)
        for tick, second in sorted({(plan.tick, plan.second) for plan in plans}):
            together = [plan for plan in plans if (plan.tick, plan.second) == (tick, second)]
            self._add_job(together, trigger="interval", seconds=tick, start_date=now + timedelta(seconds=second))
        self._scheduler.start()

    def retime(self, plans: Sequence[Plan]) -> None:
        """Sample the same sources at other intervals from now on; the next sample comes no later than it would have."""
        due: dict[str, datetime] = {}
        for job in self._scheduler.get_jobs():
            for plan in job.args[0]:
                due[plan.source.name] = min(job.next_run_time, due.get(plan.source.name, job.next_run_time))
            with contextlib.suppress(JobLookupError):  # the first one has just run, and is gone by itself
                job.remove()
        with self._lock:
            self._plans = {plan.source.name: plan for plan in plans}
            self._left_alone.clear()
        now = datetime.now(UTC)
        for tick in sorted({plan.tick for plan in plans}):
            together = [plan for plan in plans if plan.tick == tick]
            start = min([now + timedelta(seconds=tick), *(due[plan.source.name] for plan in together)])
            self._add_job(together, trigger="interval", seconds=tick, start_date=start)

    def stop(self) -> None:
        """End; samples under way are abandoned."""
        # Not shutdown(), in which a job that runs is not found any more. The thread, paused, ends with the process.
        self._scheduler.pause()

    def next_deadline(self) -> float | None:
        """When, on the monotonic clock, the next sample under way will be late."""
        with self._lock:
            due = [self._running[name] + self._plans[name].deadline for name in self._running.keys() - self._late]
        return min(due, default=None)

    def expire(self) -> Samples:
        """What is known of the sources that have just missed their deadline: that they cannot be read, and why."""
        now = time.monotonic()
        with self._lock:
            late = {name for name, since in self._running.items() if now >= since + self._plans[name].deadline}
            missed = late - self._late
            self._late |= missed
        self.missed += len(missed)
        return tuple(_missed(self._plans[name]) for name in missed)

    def follow_clock(self) -> None:
        """Go on at once where the clock was set back: APScheduler would wait until it is as late again."""
        offset = time.time() - time.monotonic()
        if offset < self._clock_offset - CLOCK_STEP:
            for job in self._scheduler.get_jobs():
                with contextlib.suppress(JobLookupError):  # as above
                    job.modify(next_run_time=datetime.now(UTC))
        self._clock_offset = offset

    def _add_job(self, plans: list[Plan], **when: object) -> None:
        # What was missed is not made up for: what counts is how things are now.
        self._scheduler.add_job(self._run_round, args=(plans,), coalesce=True, misfire_grace_time=None, **when)

    def _run_round(self, plans: list[Plan]) -> None:
        """Sample the sources that are not held up still, and deliver what they gave together."""
        now = time.monotonic()
        with self._lock:
            free = [
                plan.source
                for plan in plans
                if plan.source.name not in self._running and now >= self._left_alone.get(plan.source.name, now)
            ]
        one = _Round(free, self._sample, self._deliver)
        self._worker.take(one, 0)
        while not one.is_done(PATIENCE) and (owner := one.pass_on()) is not None:
            self._worker = _Worker()
            self._worker.take(one, owner)
        self._deliver(one.samples)

    def _sample(self, source: Source) -> Sampled | None:
        """Sample a source now; None for one that was late, for it tells of a moment long past."""
        with self._lock:
            self._running[source.name] = time.monotonic()
        began = _now()
        reading = _read(source)
        with self._lock:
            since = self._running.pop(source.name)
            left_alone = self._plans[source.name].is_left_alone_for(reading, time.monotonic() - since)
            self._left_alone[source.name] = since + left_alone
            was_late = source.name in self._late
            self._late.discard(source.name)
        return None if was_late else Sampled(source, began, reading)


def _missed(plan: Plan) -> Sampled:
    return Sampled(plan.source, _now(), unread(plan.source, f"no answer for {plan.deadline:g} s"))


def _read(source: Source) -> Reading:
    try:
        return source.sample()
    except WithheldError:
        return unread(source, None)
    except SourceError as error:
        return unread(source, str(error))
    except Exception as error:  # noqa: BLE001  # a source with a defect must not cost the others
        _log.debug("source %s", source.name, exc_info=True)
        return unread(source, f"{type(error).__name__}: {error}")


class _Round:
    """Sources to be sampled in turn. A worker that one of them holds up loses the round to the next worker."""

    def __init__(
        self,
        sources: Sequence[Source],
        sample: Callable[[Source], Sampled | None],
        deliver: Callable[[Samples], None],
    ) -> None:
        self._left, self._sample, self._deliver = deque(sources), sample, deliver
        self._samples: list[Sampled] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._owner = 0

    @property
    def samples(self) -> Samples:
        """What the sources gave that did not hold up the others."""
        with self._lock:
            return tuple(self._samples)

    def is_done(self, patience: float) -> bool:
        """Wait for the end of the round; False when it takes longer."""
        return self._done.wait(patience)

    def pass_on(self) -> int | None:
        """Take the round from the worker that has it; the next owner's number, None when it is done after all."""
        with self._lock:
            if self._done.is_set():
                return None
            self._owner += 1
            return self._owner

    def work(self, owner: int) -> bool:
        """Sample what is left. False when the round was passed on: then this worker is not needed any more."""
        while (source := self._next(owner)) is not None:
            sampled = self._sample(source)
            if not self._keep(owner, sampled):
                return False
        return self._owner == owner

    def _next(self, owner: int) -> Source | None:
        with self._lock:
            if self._owner != owner:
                return None
            if self._left:
                return self._left.popleft()
            self._done.set()
            return None

    def _keep(self, owner: int, sampled: Sampled | None) -> bool:
        with self._lock:
            is_mine = owner == self._owner
            if is_mine and sampled is not None:
                self._samples.append(sampled)
        if not is_mine and sampled is not None:
            self._deliver((sampled,))
        return is_mine


class _Worker:
    """A daemon thread: it does not hold up the end of the process, whatever holds it up."""

    def __init__(self) -> None:
        self._rounds: queue.SimpleQueue[tuple[_Round, int]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="sources", daemon=True).start()

    def take(self, one: _Round, owner: int) -> None:
        """Work on a round, as its `owner`."""
        self._rounds.put((one, owner))

    def _run(self) -> None:
        is_needed = True
        while is_needed:
            one, owner = self._rounds.get()
            is_needed = one.work(owner)


def _now() -> int:
    return time.time_ns() // 1_000_000
