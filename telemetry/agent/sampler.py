"""Each source is sampled on its own interval, in its own thread, against its own deadline.

A source that hangs holds up itself alone: not another source, not the agent, not the end of the process.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.job import Job
from apscheduler.schedulers.background import BackgroundScheduler

from telemetry.errors import SourceError
from telemetry.sources import Reading, Source

_log = logging.getLogger(__name__)

SECOND_SAMPLE = 1.0
"""Seconds from the first sample to the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A source, the seconds between its samples, and the seconds that one may take."""

    source: Source
    interval: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a sample of a source gave; `time` (Unix ms) is when it began."""

    source: Source
    time: int
    reading: Reading


class Sampler:
    """Samples the planned sources; what they give goes to `deliver`, from their threads."""

    def __init__(self, plans: Sequence[Plan], deliver: Callable[[Sampled], None]) -> None:
        self._plans = {plan.source.name: plan for plan in plans}
        self._deliver = deliver
        self._running: dict[str, float] = {}
        self._late: set[str] = set()
        self._lock = threading.Lock()
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={"default": _SourceThreads()}, daemon=True)

    def start(self) -> None:
        """Begin: each source at once, soon again because a rate needs two samples, and then at its interval."""
        again = datetime.now(UTC) + timedelta(seconds=SECOND_SAMPLE)
        for plan in self._plans.values():
            self._add_job(plan)
            self._add_job(plan, trigger="interval", seconds=plan.interval, start_date=again)
        self._scheduler.start()

    def stop(self) -> None:
        """End; samples under way are abandoned."""
        self._scheduler.shutdown(wait=False)

    def next_deadline(self) -> float | None:
        """When, on the monotonic clock, the next sample under way will be late."""
        with self._lock:
            due = [self._running[name] + self._plans[name].deadline for name in self._running.keys() - self._late]
        return min(due, default=None)

    def expire(self) -> list[tuple[Source, str]]:
        """The sources that have just missed their deadline, each with the reason in words."""
        now = time.monotonic()
        with self._lock:
            late = {name for name, since in self._running.items() if now >= since + self._plans[name].deadline}
            missed = late - self._late
            self._late |= missed
        return [(self._plans[name].source, f"no answer for {self._plans[name].deadline:g} s") for name in missed]

    def _add_job(self, plan: Plan, **when: object) -> None:
        # One at a time, and none made up for: what counts is how things are now.
        once = {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
        self._scheduler.add_job(self._sample, args=(plan.source,), **once, **when)

    def _sample(self, source: Source) -> None:
        with self._lock:
            self._running[source.name] = time.monotonic()
        began = time.time_ns() // 1_000_000
        try:
            reading = source.sample()
        except SourceError as error:
            reading = Reading(values={}, problems=dict.fromkeys(source.fields, str(error)))
        except Exception as error:  # noqa: BLE001  # a source with a defect must not cost the others
            _log.debug("source %s", source.name, exc_info=True)
            reading = Reading(values={}, problems=dict.fromkeys(source.fields, f"{type(error).__name__}: {error}"))
        with self._lock:
            del self._running[source.name]
            was_late = source.name in self._late
            self._late.discard(source.name)
        if not was_late:
            # A late one describes a moment long past; the next sample tells how things are.
            self._deliver(Sampled(source, began, reading))


class _SourceThreads(BaseExecutor):  # type: ignore[misc]  # apscheduler is not annotated
    """A daemon thread a source: APScheduler's pools join their threads when the process ends, hung or not."""

    def __init__(self) -> None:
        super().__init__()
        self._queues: dict[str, queue.SimpleQueue[tuple[Job, list[datetime]]]] = {}

    def _do_submit_job(self, job: Job, run_times: list[datetime]) -> None:
        name = job.args[0].name
        if name not in self._queues:
            self._queues[name] = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(self._queues[name],), name=f"source-{name}", daemon=True).start()
        self._queues[name].put((job, run_times))

    def _work(self, jobs: queue.SimpleQueue[tuple[Job, list[datetime]]]) -> None:
        while True:
            job, run_times = jobs.get()
            events = run_job(job, job._jobstore_alias, run_times, self._logger.name)  # noqa: SLF001  # as its own pools do
            self._run_job_success(job.id, events)
