"""A miner, its workers and its chain, which go on by themselves: what is decided by chance is decided by the seed.

Time comes in by `advance` alone, and it does not matter in how many steps. Inside, a world lives `speed` seconds in
one second of ours; the moments it tells are of our time.
"""

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from itertools import count
from uuid import UUID

from telemetry.simulate.sealing import FAILED, KINDS, TASKS, WAY_WEIGHTS, Kind, Step, ways
from telemetry.simulate.versions import VERSIONS, Version

GENESIS = 1598306400
EPOCH_SECONDS = 30
DEADLINES, DEADLINE_EPOCHS, PERIOD_EPOCHS = 48, 60, 2880
QUEUE = 4
"""Tasks assigned to a worker beside those it works on: two windows of two."""

_RETRY_SECONDS = 60
_FILL_SECONDS = 60
_ABORT_SECONDS = 1800


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a world begins."""

    hosts: int = 4
    """Sealing hosts; each has a worker for PC1 and one for PC2 and C2."""
    sectors: int = 200
    """Sectors that are proven."""
    sealing: int = 60
    """Sectors on the way; a new one begins when one arrives."""
    slots: int = 0
    """Tasks a worker works on at once; what its kind says when 0."""


LARGE = Size(hosts=500, sectors=70_000, sealing=36_000, slots=16)
"""1,000 workers with nearly 20 jobs each, 100,000 sectors and 32 MB of WorkerStats."""


class Stage(Enum):
    """How far a job is."""

    REQUESTED = auto()
    ASSIGNED = auto()
    PREPARING = auto()
    PREPARED = auto()
    RUNNING = auto()
    RET_WAIT = auto()
    RETURNED = auto()
    RET_DONE = auto()


_ON_WORKER = (Stage.PREPARING, Stage.PREPARED, Stage.RUNNING)


@dataclass(slots=True, kw_only=True, eq=False)
class Sector:
    """A sector on its way to Proving."""

    number: int
    way: tuple[Step, ...]
    step: int = 0
    state: str = ""
    left: tuple[str, ...] = ()
    since: float = 0.0
    turn: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """A lotus-worker process, or the miner's own worker."""

    uuid: str
    hostname: str
    name: str
    kind: Kind
    slots: int
    enabled: bool = True
    registered: bool = True
    active: int = 0
    queue: deque["Job"] = field(default_factory=deque)
    turn: int = 0

    @property
    def has_room(self) -> bool:
        """Whether the scheduler may assign to it."""
        return self.enabled and self.registered and len(self.queue) < QUEUE


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """A task for a sector, from its request until its result is taken."""

    sector: Sector
    task: str
    scheduling: str
    stage: Stage = Stage.REQUESTED
    worker: Worker | None = None
    call: str = ""
    queued: float = 0.0
    started: float = 0.0
    ends: float = 0.0
    turn: int = 0


_Thing = Sector | Worker | Job
_Event = tuple[float, int, _Thing | None, int, Callable[[], object]]


class World:
    """All that a Lotus answers from."""

    def __init__(
        self,
        *,
        start: float,
        seed: int = 0,
        size: Size | None = None,
        version: str = VERSIONS[-1],
        speed: float = 1.0,
        failure_rate: float = 0.0,
    ) -> None:
        self.version = Version(version)
        self.size = size or Size()
        self.speed, self.origin, self.now = speed, start, start
        self.failure_rate = failure_rate
        self.random = random.Random(seed)  # noqa: S311 -- the same world again is what it is for
        self.actor, self.network, self.zone_hours = 1234, "mainnet", 8
        self.subsystems: tuple[str, ...] = ("Mining", "Sealing", "SectorStorage")
        self.session, self.started = self.uuid(), start - 10 * 86400
        self.workers: dict[str, Worker] = {}
        self.sectors: dict[int, Sector] = {}
        self.settled: dict[int, str] = {}
        self.states: Counter[str] = Counter()
        self.live: set[int] = set()
        self.unproven: set[int] = set()
        self.faulty: set[int] = set()
        self.recovering: set[int] = set()
        self.jobs: dict[Job, None] = {}
        self.messages = 0
        self.fee_debt = 0
        self.alerts: dict[tuple[str, str], tuple[bool, float]] = {("process", "fd-limit"): (False, self.started)}
        self.chain_stopped: float | None = None
        self._ways = ways(self.version)
        self._requests: dict[str, deque[Job]] = {task: deque() for task in TASKS}
        self._able: dict[str, deque[Worker]] = {task: deque() for task in TASKS}
        self._events: list[_Event] = []
        self._order = count()
        self._beginning = True
        self._populate()

    # --- time ---

    def advance(self, now: float) -> None:
        """Let the world go on until a moment of our time; one that has been is no matter."""
        target = self.origin + (now - self.origin) * self.speed
        while self._events and self._events[0][0] <= target:
            moment, _, thing, turn, action = heapq.heappop(self._events)
            self.now = max(self.now, moment)
            if thing is None or thing.turn == turn:
                action()
        self.now = max(self.now, target)

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Have something happen when the world is so many of its seconds old."""
        self._push(self.origin + seconds, None, action)

    def told(self, moment: float) -> float:
        """A moment of the world in our time."""
        return self.origin + (moment - self.origin) / self.speed

    def _later(self, seconds: float, thing: _Thing, action: Callable[[], object]) -> None:
        self._push(self.now + seconds, thing, action)

    def _push(self, moment: float, thing: _Thing | None, action: Callable[[], object]) -> None:
        turn = 0 if thing is None else thing.turn
        heapq.heappush(self._events, (moment, next(self._order), thing, turn, action))

    def _vary(self, seconds: float) -> float:
        return seconds * self.random.uniform(0.8, 1.2)

    def uuid(self) -> str:
        """A new one."""
        return str(UUID(int=self.random.getrandbits(128), version=4))

    # --- chain ---

    @property
    def height(self) -> int:
        """The epoch of the chain's head."""
        moment = self.now if self.chain_stopped is None else min(self.now, self.chain_stopped)
        return int((moment - GENESIS) // EPOCH_SECONDS)

    @property
    def behind(self) -> int:
        """The epochs that the head lacks."""
        return int((self.now - GENESIS) // EPOCH_SECONDS) - self.height

    def moment(self, height: int) -> float:
        """When an epoch began, in our time."""
        return self.told(GENESIS + height * EPOCH_SECONDS)

    def stop_chain(self) -> None:
        """Let the full node get no further."""
        self.chain_stopped = self.now
        self.alerts["chain", "sync"] = (True, self.now)

    def resume_chain(self) -> None:
        """Let the full node catch up."""
        self.chain_stopped = None
        self.alerts["chain", "sync"] = (False, self.now)

    def fault(self, number: int) -> None:
        """Let proven sectors be found faulty."""
        self.faulty.update(self._some(self.live - self.faulty - self.unproven, number))

    def declare_recovered(self, number: int) -> None:
        """Declare faulty sectors recovered; they are when their deadline closes."""
        self.recovering.update(self._some(self.faulty - self.recovering, number))

    def remove(self, number: int) -> None:
        """Terminate proven sectors and remove them."""
        proving = {sector for sector, state in self.settled.items() if state == "Proving"}
        for sector in self._some(proving, number):
            self._resettle(sector, "Removing")
            for held in (self.live, self.unproven, self.faulty, self.recovering):
                held.discard(sector)
            self.at(self.now - self.origin + _RETRY_SECONDS, partial(self._resettle, sector, "Removed"))

    def _some(self, numbers: set[int], at_most: int) -> list[int]:
        return self.random.sample(sorted(numbers), min(at_most, len(numbers)))

    def _resettle(self, number: int, state: str) -> None:
        self.states[self.settled[number]] -= 1
        self.states[state] += 1
        self.settled[number] = state

    def _close_deadlines(self) -> None:
        index = (round((self.now - GENESIS) / (DEADLINE_EPOCHS * EPOCH_SECONDS)) - 1) % DEADLINES
        recovered = {number for number in self.recovering if number % DEADLINES == index}
        self.recovering -= recovered
        self.faulty -= recovered
        self.unproven -= {number for number in self.unproven if number % DEADLINES == index}
        self.at(self.now - self.origin + DEADLINE_EPOCHS * EPOCH_SECONDS, self._close_deadlines)

    # --- sectors ---

    def _populate(self) -> None:
        self.settled = dict.fromkeys(range(1, self.size.sectors + 1), "Proving")
        self.live.update(self.settled)
        self.settled |= dict.fromkeys(range(self.size.sectors + 1, self.size.sectors + 3), "Removed")
        self.states.update(self.settled.values())
        self._numbers, self._upgradable = count(self.size.sectors + 3), iter(range(1, self.size.sectors + 1))
        self._hire()
        for _ in range(self.size.sealing):
            self._begin()
        self._beginning = False
        length = DEADLINE_EPOCHS * EPOCH_SECONDS
        self.at(length - (self.origin - GENESIS) % length, self._close_deadlines)

    def _hire(self) -> None:
        self.join("miner01", "local")
        self.join("post01", "windowpost")
        self.join("post02", "winningpost")
        for host in range(1, self.size.hosts + 1):
            self.join(f"seal{host:02}", "pc1")
            self.join(f"seal{host:02}", "pc2")

    def _begin(self) -> None:
        names = list(self._ways)
        name = self.random.choices(names, [WAY_WEIGHTS[name] for name in names])[0]
        sector = self._upgraded() if name == "snap" else None
        if sector is None:
            way = self._ways["seal" if name == "snap" else name]
            sector = Sector(number=next(self._numbers), way=way)
        self.sectors[sector.number] = sector
        steps = range(len(sector.way))
        weights = [step.weight for step in sector.way]
        self._enter(sector, self.random.choices(steps, weights)[0] if self._beginning else 0)

    def _upgraded(self) -> Sector | None:
        for number in self._upgradable:
            if self.settled.get(number) == "Proving" and number not in self.faulty:
                self.states[self.settled.pop(number)] -= 1
                return Sector(number=number, way=self._ways["snap"])
        return None

    def _enter(self, sector: Sector, index: int) -> None:
        if index == len(sector.way):
            self._settle(sector)
            return
        step = sector.way[index]
        sector.step, sector.left = index, step.tasks
        if self._beginning and any(before.commits for before in sector.way[:index]):
            self.live.add(sector.number)
        self._put(sector, step.state)
        self._go_on(sector)

    def _put(self, sector: Sector, state: str) -> None:
        if sector.state:
            self.states[sector.state] -= 1
        self.states[state] += 1
        sector.state, sector.since = state, self.now
        sector.turn += 1

    def _go_on(self, sector: Sector) -> None:
        step = sector.way[sector.step]
        if sector.left:
            task, *left = sector.left
            sector.left = tuple(left)
            self._request(Job(sector=sector, task=task, scheduling=self.uuid()))
        elif step.tasks:
            self._enter(sector, sector.step + 1)
        else:
            self._later(self._vary(step.seconds), sector, partial(self._leave, sector))

    def _leave(self, sector: Sector) -> None:
        step = sector.way[sector.step]
        self.messages += step.message
        if step.commits:
            self.live.add(sector.number)
            self.unproven.add(sector.number)
        self._enter(sector, sector.step + 1)

    def _settle(self, sector: Sector) -> None:
        self._put(sector, "Proving")
        self.live.add(sector.number)
        del self.sectors[sector.number]
        self.settled[sector.number] = "Proving"
        self._begin()

    def fail_sealing(self, number: int) -> None:
        """Let tasks at work fail; their sectors are tried again a minute later."""
        running = [job for job in self.jobs if job.stage is Stage.RUNNING and job.sector.state in FAILED]
        for job in running[:number]:
            self._end(job)
            self._fail(job.sector)

    def _fail(self, sector: Sector) -> None:
        self._put(sector, FAILED[sector.state])
        self._later(_RETRY_SECONDS, sector, partial(self._enter, sector, sector.step))

    # --- jobs ---

    @property
    def requests(self) -> Iterator[Job]:
        """The jobs without a worker."""
        return (job for queue in self._requests.values() for job in queue)

    def _request(self, job: Job) -> None:
        job.turn += 1
        job.stage, job.worker, job.call, job.queued = Stage.REQUESTED, None, "", self.now
        self.jobs[job] = None
        worker = self._worker_with_room(job.task)
        if worker is None:
            self._requests[job.task].append(job)
        else:
            self._assign(job, worker)

    def _worker_with_room(self, task: str) -> Worker | None:
        able = self._able[task]
        for _ in range(len(able)):
            able.rotate(-1)
            if able[-1].has_room:
                return able[-1]
        return None

    def _assign(self, job: Job, worker: Worker) -> None:
        job.stage, job.worker = Stage.ASSIGNED, worker
        worker.queue.append(job)
        self._take(worker)

    def _take(self, worker: Worker) -> None:
        while worker.queue and worker.active < worker.slots and worker.enabled and worker.registered:
            worker.active += 1
            self._prepare(worker.queue.popleft())

    def _refill(self, worker: Worker) -> None:
        self._take(worker)
        for task, requests in self._requests.items():
            while requests and task in worker.kind.tasks and worker.has_room:
                self._assign(requests.popleft(), worker)

    def _prepare(self, job: Job) -> None:
        if self._beginning:
            self._run(job)
        elif TASKS[job.task].fetches:
            job.stage, job.call, job.started = Stage.PREPARING, self.uuid(), self.now
            self._end_later(job, self._vary(60), self._prepared)
        else:
            self._prepared(job)

    def _prepared(self, job: Job) -> None:
        job.stage, job.call, job.started = Stage.PREPARED, "", self.now
        self._end_later(job, self._vary(20), self._run)

    def _run(self, job: Job) -> None:
        seconds = self._vary(TASKS[job.task].seconds)
        done = seconds * self.random.random() if self._beginning else 0.0
        job.stage, job.call, job.started = Stage.RUNNING, self.uuid(), self.now - done
        self._end_later(job, seconds - done, self._done)

    def _end_later(self, job: Job, seconds: float, action: Callable[[Job], object]) -> None:
        job.ends = self.now + seconds
        self._later(seconds, job, partial(action, job))

    def _done(self, job: Job) -> None:
        if job.stage is Stage.RET_WAIT:
            job.stage = Stage.RETURNED
            self._end_later(job, 20, self._collected)
        else:
            self._finish(job)

    def _collected(self, job: Job) -> None:
        job.stage = Stage.RET_DONE
        self._end_later(job, 20, self._finish)

    def _finish(self, job: Job) -> None:
        self._end(job)
        if job.sector.state in FAILED and self.random.random() < self.failure_rate:
            self._fail(job.sector)
        else:
            self._go_on(job.sector)

    def _end(self, job: Job) -> None:
        job.turn += 1
        self.jobs.pop(job)
        worker = job.worker
        if worker is not None and job.stage in _ON_WORKER:
            worker.active -= 1
            self._refill(worker)

    def _again(self, job: Job) -> None:
        self.jobs.pop(job, None)
        self._request(job)

    # --- workers ---

    def join(self, hostname: str, name: str) -> str:
        """Let a worker of a kind start on a host; gives its uuid."""
        kind = KINDS[name]
        slots = self.size.slots if self.size.slots and name in {"pc1", "pc2"} else kind.slots
        worker = Worker(uuid=self.uuid(), hostname=hostname, name=name, kind=kind, slots=slots)
        self.workers[worker.uuid] = worker
        if kind.seals:
            for task in TASKS.keys() & set(kind.tasks):
                self._able[task].append(worker)
            self._refill(worker)
        return worker.uuid

    def of_host(self, hostname: str) -> list[str]:
        """The uuids of a host."""
        return [worker.uuid for worker in self.workers.values() if worker.hostname == hostname]

    def lose(self, uuid: str) -> None:
        """Let a worker's heartbeat fail: what it runs stays listed, what it was assigned goes back."""
        worker = self.workers[uuid]
        worker.enabled = False
        self._give_back(worker)
        for job in self._jobs_of(worker):
            job.turn += 1

    def find(self, uuid: str) -> None:
        """Let a lost worker be there again, and go on."""
        worker = self.workers[uuid]
        worker.enabled = True
        after = {Stage.PREPARING: self._prepared, Stage.PREPARED: self._run, Stage.RUNNING: self._done}
        for job in self._jobs_of(worker):
            self._end_later(job, max(job.ends - self.now, 1.0), after[job.stage])
        self._refill(worker)

    def drop(self, uuid: str) -> None:
        """Let a worker be gone; what it ran stays listed under its uuid until somebody aborts it."""
        worker = self.workers.pop(uuid)
        worker.enabled = False
        self._forget(worker)
        self._give_back(worker)
        for job in self._jobs_of(worker):
            job.turn += 1
            self._later(_ABORT_SECONDS if job.stage is Stage.RUNNING else 0, job, partial(self._again, job))

    def restart_worker(self, uuid: str) -> str:
        """Let a worker's process start anew; gives its new uuid."""
        worker = self.workers[uuid]
        self.drop(uuid)
        return self.join(worker.hostname, worker.name)

    def _forget(self, worker: Worker) -> None:
        for able in self._able.values():
            if worker in able:
                able.remove(worker)

    def _give_back(self, worker: Worker) -> None:
        given, worker.queue = worker.queue, deque()
        for job in given:
            self._again(job)

    def _jobs_of(self, worker: Worker) -> list[Job]:
        return [job for job in self.jobs if job.worker is worker and job.stage in _ON_WORKER]

    # --- the miner's restart ---

    def restart_miner(self) -> None:
        """Let the miner's process start anew: it knows only the calls in its store, and workers come when idle."""
        self.session, self.started = self.uuid(), self.now
        busy_until = self._busy_until()
        for worker in list(self.workers.values()):
            self._disconnect(worker, busy_until.get(worker, self.now))
        self._requests = {task: deque() for task in TASKS}
        interrupted = [job for job in self.jobs if not self._survives(job)]
        for job in interrupted:
            self.jobs.pop(job)
        for job in interrupted:
            self._request(job)

    def _busy_until(self) -> Mapping[Worker, float]:
        found: dict[Worker, float] = {}
        for job in self.jobs:
            if job.worker is not None and job.stage in {*_ON_WORKER, Stage.RET_WAIT}:
                found[job.worker] = max(found.get(job.worker, 0.0), job.ends)
        return found

    def _survives(self, job: Job) -> bool:
        if job.stage in {Stage.RET_WAIT, Stage.RETURNED, Stage.RET_DONE}:
            return True
        lost_with_miner = job.worker is not None and job.worker.name == "local"
        if job.stage is not Stage.RUNNING or lost_with_miner or not TASKS[job.task].survives:
            return False
        job.stage = Stage.RET_WAIT
        return True

    def _disconnect(self, worker: Worker, busy_until: float) -> None:
        worker.registered, worker.active, worker.queue = False, 0, deque()
        worker.turn += 1
        if worker.name == "local":  # it is the miner's own process
            del self.workers[worker.uuid]
            worker.uuid, busy_until = self.uuid(), self.now
            self.workers[worker.uuid] = worker
        if worker.enabled:
            self._later(max(busy_until - self.now, 0) + self._vary(5), worker, partial(self._register, worker))
        else:
            del self.workers[worker.uuid]
            self._forget(worker)

    def _register(self, worker: Worker) -> None:
        worker.registered = True
        self._refill(worker)

    @property
    def filled(self) -> float:
        """The part of the sectors that the miner has counted since its start."""
        if not self.version.has("summary in memory"):
            return 1.0
        return min((self.now - self.started) / _FILL_SECONDS, 1.0)
