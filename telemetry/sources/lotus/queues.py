"""Which task stands in which host's queue: every row of WorkerJobs in exactly one place, whatever the order of rows.

A row belongs to the host of its worker's UUID. What has no UUID belongs to the host that Lotus names with it, else
to that where its call ran before. Counts are lengths of lists of the same poll.
"""

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Generic, TypeAlias, TypeVar

from telemetry.fields import Value
from telemetry.sources.lotus.answers import Job, Request, WorkerStat
from telemetry.sources.lotus.tasks import USUAL_SECONDS, counts_by_short_name, in_order, short_name

NO_WORKER = "00000000-0000-0000-0000-000000000000"
"""The UUID under which Lotus lists calls that it knows of no worker for."""

UNKNOWN_HOST = "unknown"

_NO_NAMES = {"", "[err]"}

_STATES = {-1: "ret-wait", 0: "running"}
_STATES_WITH_PREPARED = {**_STATES, 1: "prepared"}

_KEPT_MS = 24 * 3600 * 1000
_MOST_WORKERS = 16_384
_MOST_CALLS = 131_072
_MOST_HOSTS = 16_384

MOST_ENTRIES, MOST_REQUESTS = 400, 1000
"""Entries of a host's queue, and of the requests, that are told: a message has 256 KiB. The counts tell all."""

_Work: TypeAlias = tuple[int, int, str]
"""Miner, sector and task: what stays when a task gets another id, or another worker."""

_V = TypeVar("_V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """What one poll gave: the task fields of workerInfo by host, those of minerInfo, and the rows in no queue.

    `taskType` is left out of a host's fields as long as none of its workers has told; `unassigned` is empty when
    the requests were not read.
    """

    hosts: Mapping[str, dict[str, Value]]
    unassigned: dict[str, Value]
    returned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A row with its worker's UUID and its worker's name."""

    worker: str
    name: str
    job: Job

    @property
    def key(self) -> Hashable:
        """What tells the entry from all others; a task that does not run has no id."""
        return self if self.job.call_id is None else self.job.call_id

    @property
    def work(self) -> _Work:
        return (self.job.miner, self.job.sector, self.job.task)

    @property
    def start(self) -> int | None:
        """When it began: Go's zero time and the zero of Unix both stand for unknown."""
        return self.job.start_ms if self.job.start_ms is not None and self.job.start_ms > 0 else None

    @property
    def is_returned(self) -> bool:
        return self.job.run_wait < min(_STATES)

    @property
    def is_current(self) -> bool:
        return self.job.run_wait in _STATES

    @property
    def place(self) -> tuple[Any, ...]:
        """Where it stands in its queue."""
        job = self.job
        return (
            *(self.start is None, self.start or 0, job.task, job.sector, job.call_id or ""),
            *(self.worker, self.name, job.miner, job.run_wait, job.hostname),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """How the rows of a poll are read."""

    now_ms: int
    states: Mapping[int, str]
    overdue_seconds: Mapping[str, float]

    def is_overdue(self, entry: _Entry) -> bool:
        limit = self.overdue_seconds.get(short_name(entry.job.task))
        if limit is None or entry.start is None or not entry.is_current:
            return False
        return self.now_ms - entry.start > limit * 1000


class _Recent(Generic[_V]):
    """Values by name that were told within a day, and no more than `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._told: OrderedDict[str, tuple[int, _V]] = OrderedDict()

    def __iter__(self) -> Iterator[str]:
        return iter(self._told)

    def get(self, name: str) -> _V | None:
        told = self._told.get(name)
        return None if told is None else told[1]

    def tell(self, name: str, value: _V, now_ms: int) -> None:
        self._told[name] = (now_ms, value)
        self._told.move_to_end(name)

    def forget_old(self, now_ms: int) -> None:
        while self._told and (len(self._told) > self._most or self._oldest_ms() < now_ms - _KEPT_MS):
            self._told.popitem(last=False)

    def _oldest_ms(self) -> int:
        return next(iter(self._told.values()))[0]

    def clear(self) -> None:
        self._told.clear()


class Queues:
    """The queues of one miner's hosts over its polls; `host_names` gives the host of a worker's name that is none."""

    def __init__(self, host_names: Mapping[str, str] = MappingProxyType({})) -> None:
        self._host_names = host_names
        self._session: str | None = None
        self._workers: _Recent[WorkerStat] = _Recent(_MOST_WORKERS)
        self._names_by_call: _Recent[str] = _Recent(_MOST_CALLS)
        self._types_by_host: _Recent[tuple[str, ...] | None] = _Recent(_MOST_HOSTS)
        self._lacking: set[str] = set()
        self._last: Sequence[_Entry] = ()
        self._last_requests: Counter[_Work] = Counter()

    def poll(
        self,
        stats: Mapping[str, WorkerStat],
        jobs: Mapping[str, Sequence[Job]],
        requests: Sequence[Request] | None,
        now_ms: int,
        session: str | None,
        *,
        has_prepared: bool = True,
        overdue_seconds: Mapping[str, float] = USUAL_SECONDS,
    ) -> Poll:
        """Take in one poll. `requests` is None when they were not read, `session` when it is not known.

        `has_prepared`: Lotus v1.13.1 and later, where RunWait 1 is prepared and no longer assigned.
        """
        self._follow(session)
        workers = self._recall(stats, now_ms)
        entries = self._entries(jobs, workers, now_ms)
        shown = [entry for entry in entries if not entry.is_returned]
        reading = _Reading(
            now_ms=now_ms, states=_STATES_WITH_PREPARED if has_prepared else _STATES, overdue_seconds=overdue_seconds
        )
        hosts = self._hosts([*shown, *self._missing(entries, requests)], workers, reading)
        self._forget_old(now_ms)
        return Poll(hosts=hosts, unassigned=_unassigned(requests), returned=len(entries) - len(shown))

    def lacks_workers(self, stats: Mapping[str, WorkerStat], jobs: Iterable[str]) -> bool:
        """Whether jobs stand under workers that nobody has told of, for the first time: they may have come since."""
        lacking = {uuid for uuid in jobs if uuid != NO_WORKER and uuid not in stats and self._workers.get(uuid) is None}
        new, self._lacking = lacking - self._lacking, lacking
        return bool(new)

    def _follow(self, session: str | None) -> None:
        """A restarted miner has other workers. Its calls go on, under no worker: their hosts stay known."""
        if session is None or session == self._session:
            return
        if self._session is not None:
            self._workers.clear()
            self._last, self._last_requests = (), Counter()
        self._session = session

    def _recall(self, stats: Mapping[str, WorkerStat], now_ms: int) -> dict[str, WorkerStat]:
        workers = {uuid: _completed(stats[uuid], self._workers.get(uuid)) for uuid in sorted(stats)}
        for uuid, worker in workers.items():
            self._workers.tell(uuid, worker, now_ms)
        return workers

    def _entries(
        self, jobs: Mapping[str, Sequence[Job]], workers: Mapping[str, WorkerStat], now_ms: int
    ) -> list[_Entry]:
        entries = [
            _Entry(worker=uuid, name=self._name(uuid, job, workers), job=job) for uuid in jobs for job in jobs[uuid]
        ]
        for entry in entries:
            if entry.job.call_id is not None and entry.name != UNKNOWN_HOST:
                self._names_by_call.tell(entry.job.call_id, entry.name, now_ms)
        return entries

    def _name(self, uuid: str, job: Job, workers: Mapping[str, WorkerStat]) -> str:
        if uuid != NO_WORKER:
            worker = workers.get(uuid) or self._workers.get(uuid)
            return UNKNOWN_HOST if worker is None else worker.hostname
        if job.hostname not in _NO_NAMES:
            return job.hostname
        return (job.call_id and self._names_by_call.get(job.call_id)) or UNKNOWN_HOST

    def _missing(self, entries: Sequence[_Entry], requests: Sequence[Request] | None) -> list[_Entry]:
        """The entries of the last poll that stand nowhere in this one.

        Lotus lists a task nowhere while it hands it on, so what is missing once is shown once more.
        """
        asked = self._last_requests if requests is None else Counter(map(_work_asked, requests))
        appeared = Counter(entry.work for entry in _beyond(entries, self._last)) + (asked - self._last_requests)
        gone = [entry for entry in _beyond(self._last, entries) if not entry.is_returned]
        # Only a task without an id gets one: where several are gone, it is the one that moved.
        gone.sort(key=lambda entry: (entry.job.call_id is not None, entry.place))
        self._last, self._last_requests = entries, asked
        return [entry for entry in gone if not _take(appeared, entry.work)]

    def _hosts(
        self, entries: Iterable[_Entry], workers: Mapping[str, WorkerStat], reading: _Reading
    ) -> dict[str, dict[str, Value]]:
        queues = self._by_host((entry.name, entry) for entry in entries)
        registered = self._by_host((worker.hostname, worker) for worker in workers.values())
        for host in sorted(queues.keys() | registered.keys()):
            types = _types(registered.get(host, ()))
            known = self._types_by_host.get(host) if types is None else types
            self._types_by_host.tell(host, known, reading.now_ms)
        return {
            host: _fields(queues.get(host, ()), registered.get(host, ()), self._types_by_host.get(host), reading)
            for host in sorted(self._types_by_host)
        }

    def _by_host(self, named: Iterable[tuple[str, _V]]) -> dict[str, list[_V]]:
        grouped: dict[str, list[_V]] = {}
        for name, value in named:
            grouped.setdefault(self._host_names.get(name, name), []).append(value)
        return grouped

    def _forget_old(self, now_ms: int) -> None:
        for recent in (self._workers, self._names_by_call, self._types_by_host):
            recent.forget_old(now_ms)


def _completed(worker: WorkerStat, known: WorkerStat | None) -> WorkerStat:
    """A worker with what it did not tell this time."""
    name = worker.hostname
    if name in _NO_NAMES:
        name = known.hostname if known is not None else UNKNOWN_HOST
    tasks = known.tasks if worker.tasks is None and known is not None else worker.tasks
    return replace(worker, hostname=name, tasks=tasks)


def _beyond(entries: Iterable[_Entry], others: Iterable[_Entry]) -> list[_Entry]:
    """The entries that are not among the others."""
    held = Counter(entry.key for entry in others)
    return [entry for entry in entries if not _take(held, entry.key)]


def _take(counts: Counter[Any], key: Hashable) -> bool:
    if counts[key] <= 0:
        return False
    counts[key] -= 1
    return True


def _work_asked(request: Request) -> _Work:
    return (request.miner, request.sector, request.task)


def _fields(
    entries: Iterable[_Entry], workers: Sequence[WorkerStat], types: tuple[str, ...] | None, reading: _Reading
) -> dict[str, Value]:
    placed = sorted(entries, key=lambda entry: entry.place)
    current = [_written(entry, reading) for entry in placed if entry.is_current]
    pending = [_written(entry, reading) for entry in placed if not entry.is_current]
    fields: dict[str, Value] = {
        "currentQueue": current[:MOST_ENTRIES],
        "pendingQueue": pending[:MOST_ENTRIES],
        "taskState": _state(workers, Counter(written["taskShort"] for written in current)),
        "runningTasks": len(current),
        "pendingTasks": len(pending),
    }
    return fields if types is None else {**fields, "taskType": list(types)}


def _written(entry: _Entry, reading: _Reading) -> dict[str, Any]:
    job = entry.job
    written: dict[str, Any] = {
        "callId": job.call_id,
        "worker": entry.worker,
        "sector": job.sector,
        "task": job.task,
        "taskShort": short_name(job.task),
        "state": reading.states.get(job.run_wait, "assigned"),
        "start": entry.start,
        "overdue": reading.is_overdue(entry) or None,
    }
    return {name: value for name, value in written.items() if value is not None}


def _state(workers: Sequence[WorkerStat], running: Counter[str]) -> str:
    """Such as `enabled PC1:4 GET:1`, or `enabled+disabled PC1:4` where workers of one host differ."""
    enabled = {worker.enabled for worker in workers}
    words = [word for word, holds in (("enabled", True), ("disabled", False)) if holds in enabled]
    # PoSt and the moving of files are only in the workers' own counts, unregistered workers only in the queue;
    # what is in both must not count twice.
    counts = running | _told_counts(workers)
    return " ".join(["+".join(words) or "unregistered", *(f"{short}:{counts[short]}" for short in in_order(counts))])


def _told_counts(workers: Iterable[WorkerStat]) -> Counter[str]:
    told: Counter[str] = Counter()
    for worker in workers:
        told += counts_by_short_name(worker.task_counts or {})
    return told


def _types(workers: Iterable[WorkerStat]) -> tuple[str, ...] | None:
    told = [worker.tasks for worker in workers if worker.tasks is not None]
    return tuple(sorted(set().union(*told))) if told else None


def _unassigned(requests: Sequence[Request] | None) -> dict[str, Value]:
    if requests is None:
        return {}
    first = sorted(requests, key=_place_asked)[:MOST_REQUESTS]
    return {"unassignedQueue": [_written_request(one) for one in first], "unassignedTasks": len(requests)}


def _place_asked(request: Request) -> tuple[int, bool, int, str]:
    return (-(request.priority or 0), request.priority is None, request.sector, request.task)


def _written_request(request: Request) -> dict[str, Any]:
    written = {"sector": request.sector, "task": request.task, "taskShort": short_name(request.task)}
    return written if request.priority is None else {**written, "priority": request.priority}
