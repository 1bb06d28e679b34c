"""What lotus-miner answers."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from hashlib import sha256
from zlib import crc32

from telemetry.simulate.accounts import MINER, ROBUST, SECTOR_BYTES
from telemetry.simulate.protocol import METHOD_ERROR, Method, Parameters, RpcError, list_of, number_of, text_of
from telemetry.simulate.resources import TABLE
from telemetry.simulate.sealing import GET, TASKS, WDP, WNP
from telemetry.simulate.values import FIL, ZERO_UUID, base64_bytes, cid, go_number, go_time
from telemetry.simulate.world import DEADLINE_EPOCHS, EPOCH_SECONDS, GENESIS, Job, Stage, Worker, World

_PROOF = 8
_WINDOW = 2
_POST_SECONDS = 600
_RUN_WAIT: Mapping[Stage, int] = {
    Stage.PREPARING: 0,
    Stage.RUNNING: 0,
    Stage.PREPARED: 1,
    Stage.RET_WAIT: -1,
    Stage.RETURNED: -2,
    Stage.RET_DONE: -3,
}
_UNTOLD = {Stage.RET_WAIT, Stage.RETURNED, Stage.RET_DONE}
"""Stages of a call that the miner knows from its store alone."""

Row = Mapping[str, object]


# --- jobs ---


def _worker_jobs(world: World, _: Parameters) -> Mapping[str, list[Row]]:
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for job in world.jobs:
        if _is_listed(world, job):
            found[_key(job)].append(_row(world, job, _RUN_WAIT[job.stage]))
    for worker in world.workers.values():
        for position, job in enumerate(worker.queue):
            found[worker.uuid].append(_row(world, job, _first_assigned(world) + position // _WINDOW))
    return found


def _first_assigned(world: World) -> int:
    return 2 if world.version.has("prepared") else 1


def _is_listed(world: World, job: Job) -> bool:
    if job.stage is Stage.PREPARED:
        return world.version.has("prepared")
    return job.stage in _RUN_WAIT


def _is_untold(job: Job) -> bool:
    return job.stage in _UNTOLD or (job.stage is Stage.RUNNING and not TASKS[job.task].tracked)


def _key(job: Job) -> str:
    return ZERO_UUID if job.worker is None or _is_untold(job) else job.worker.uuid


def _row(world: World, job: Job, run_wait: int) -> Row:
    row: dict[str, object] = {
        "ID": {"Sector": _sector(world, job) if job.call else {"Miner": 0, "Number": 0}, "ID": job.call or ZERO_UUID},
        "Sector": _sector(world, job),
        "Task": GET if job.stage is Stage.PREPARING else job.task,
        "RunWait": run_wait,
        "Start": go_time(_start(world, job), world.zone_hours),
    }
    if not _is_untold(job):
        return row
    hostname = "" if job.worker is None else job.worker.hostname
    return row | {"RunWait": min(run_wait, -1)} | ({"Hostname": hostname} if hostname else {})


def _start(world: World, job: Job) -> float:
    told = world.told(job.queued if job.stage is Stage.ASSIGNED else job.started)
    return float(int(told)) if _is_untold(job) else told


def _sector(world: World, job: Job) -> Mapping[str, int]:
    return {"Miner": world.actor, "Number": job.sector.number}


# --- workers ---


def _worker_stats(world: World, _: Parameters) -> Mapping[str, Row]:
    at_work: defaultdict[str, list[Job]] = defaultdict(list)
    for job in world.jobs:
        if job.worker is not None and job.stage in {Stage.PREPARING, Stage.PREPARED, Stage.RUNNING}:
            at_work[job.worker.uuid].append(job)
    registered = [worker for worker in world.workers.values() if worker.registered]
    return {worker.uuid: _stats(world, worker, at_work[worker.uuid]) for worker in registered}


def _stats(world: World, worker: Worker, jobs: list[Job]) -> Row:
    running = [TASKS[job.task] for job in jobs if job.stage is Stage.RUNNING]
    memory, gpus = sum(task.memory_bytes for task in running), sum(task.gpus for task in running)
    stats: dict[str, object] = {
        "Info": {"Hostname": worker.hostname, "IgnoreResources": False, "Resources": _resources(world, worker)},
        "Enabled": worker.enabled,
        "MemUsedMin": memory * 7 // 8,
        "MemUsedMax": memory,
        "GpuUsed": go_number(gpus / 2) if world.version.has("resources") else gpus > 0,
        "CpuUse": sum(task.cpus for task in running),
    }
    if world.version.has("tasks"):
        stats["Tasks"] = _tasks(world, worker)
    if world.version.has("task counts"):
        stats["TaskCounts"] = _task_counts(world, worker, jobs)
    return stats


def _tasks(world: World, worker: Worker) -> list[str] | None:
    if not worker.enabled:
        return None
    # Go's maps have no order; it differs from call to call.
    return sorted(worker.kind.tasks, key=lambda task: crc32(f"{task} {world.now}".encode()))


def _resources(world: World, worker: Worker) -> Row:
    kind = worker.kind
    gpus = list(kind.gpus) or None
    if not world.version.has("resources"):
        return {"MemPhysical": kind.memory_bytes, "MemSwap": 0, "MemReserved": 8 << 30, "CPUs": kind.cpus, "GPUs": gpus}
    used = {"MemUsed": 8 << 30, "MemSwap": 0, "MemSwapUsed": 0}
    return {"MemPhysical": kind.memory_bytes, **used, "CPUs": kind.cpus, "GPUs": gpus, "Resources": TABLE}


def _task_counts(world: World, worker: Worker, jobs: Iterable[Job]) -> Mapping[str, int]:
    counts = Counter(f"{_PROOF}:{_counted_as(job)}" for job in jobs)
    counts.update(f"{_PROOF}:{task}" for task in _posts(world, worker))
    if worker.kind.seals:
        counts.setdefault(f"{_PROOF}:{GET}", 0)
        counts.setdefault(f"{_PROOF}:", 0)
    return counts


def _counted_as(job: Job) -> str:
    if job.stage is Stage.RUNNING:
        return job.task
    return GET if TASKS[job.task].fetches else ""


def _posts(world: World, worker: Worker) -> tuple[str, ...]:
    since_open = (world.now - GENESIS) % (DEADLINE_EPOCHS * EPOCH_SECONDS)
    since_epoch = (world.now - GENESIS) % (DEADLINE_EPOCHS * EPOCH_SECONDS // 6)
    busy = {WDP: since_open < _POST_SECONDS, WNP: since_epoch < EPOCH_SECONDS}
    return tuple(task for task in (WDP, WNP) if task in worker.kind.tasks and busy[task])


# --- scheduler ---


def _diagnosis(world: World, _: Parameters) -> Row:
    calls = [job for job in world.jobs if job.call]
    kept = [job for job in calls if _is_kept(job)]
    simple = [_call_id(world, job) for job in calls if not _is_kept(job)]
    returned = [_work_id(job) for job in kept if job.stage is Stage.RETURNED]
    return {
        "SchedInfo": {
            "Requests": [_scheduled(world, job) for job in world.requests] or None,
            "OpenWindows": _open_windows(world) or None,
        },
        "ReturnedWork": returned or None,
        "Waiting": [_work_id(job) for job in kept if job.stage is Stage.RUNNING] or None,
        "CallToWork": {_call_id(world, job): _work_id(job) for job in kept},
        "EarlyRet": simple or None,
    }


def _is_kept(job: Job) -> bool:
    return job.stage is not Stage.PREPARING and TASKS[job.task].survives


def _scheduled(world: World, job: Job) -> Row:
    request = {"Sector": _sector(world, job), "TaskType": job.task, "Priority": 1024}
    return {**request, "SchedId": job.scheduling} if world.version.has("sched id") else request


def _open_windows(world: World) -> list[str]:
    free = ((worker, 2 - -(-len(worker.queue) // _WINDOW)) for worker in world.workers.values())
    return [worker.uuid for worker, number in free if worker.has_room and worker.kind.seals for _ in range(number)]


def _call_id(world: World, job: Job) -> str:
    return f"{world.actor}-{job.sector.number}-{job.call}"


def _work_id(job: Job) -> str:
    return f"{job.task}({sha256(job.scheduling.encode()).hexdigest()})"


# --- sectors ---


def _summary(world: World, _: Parameters) -> Mapping[str, int]:
    counted = {state: int(number * world.filled) for state, number in world.states.items()}
    unknown = {"": 1} if world.filled < 1 else {}
    return {state: number for state, number in counted.items() if number} | unknown


def _all_sectors(world: World) -> Mapping[int, str]:
    return world.settled | {number: sector.state for number, sector in world.sectors.items()}


def _list(world: World, _: Parameters) -> list[int] | None:
    return sorted(_all_sectors(world)) or None


def _list_in_states(world: World, parameters: Parameters) -> list[int] | None:
    wanted = set(list_of(parameters[0]))
    return sorted(number for number, state in _all_sectors(world).items() if state in wanted) or None


def _status(world: World, parameters: Parameters) -> Row:
    number = number_of(parameters[0])
    on_chain = bool(parameters[1]) and number in world.live
    state = _all_sectors(world).get(number)
    if state is None:
        raise RpcError(METHOD_ERROR, f"sector {number} not found")
    return {
        "SectorID": number,
        "State": state,
        "CommD": cid("D", number),
        "CommR": cid("R", number),
        "Proof": base64_bytes(192, number),
        "Deals": [0],
        "Pieces": [],
        "Ticket": {"Value": base64_bytes(32, "ticket", number), "Epoch": world.height - 1000},
        "Seed": {"Value": base64_bytes(32, "seed", number), "Epoch": world.height - 100},
        "PreCommitMsg": cid("precommit", number),
        "CommitMsg": cid("commit", number),
        "Retries": 0,
        "ToUpgrade": False,
        "ReplicaUpdateMessage": None,
        "LastErr": "" if not state.endswith("Failed") else "sealing failed: task aborted",
        "Log": _log(world, number),
        "SealProof": _PROOF,
        "Activation": world.height - 1000 if on_chain else 0,
        "Expiration": world.height + 1_500_000 if on_chain else 0,
        "DealWeight": "0",
        "VerifiedDealWeight": str(SECTOR_BYTES * 1_500_000) if on_chain else "0",
        "InitialPledge": str(FIL * 15 // 100) if on_chain else "0",
        "OnTime": 0,
        "Early": 0,
    }


def _log(world: World, number: int) -> list[Row]:
    sector = world.sectors.get(number)
    if sector is None:
        return []
    kind = "event;sealing.SectorState"
    return [{"Kind": kind, "Timestamp": int(world.told(sector.since)), "Trace": "", "Message": sector.state}]


def _pending(world: World, state: str) -> list[Row] | None:
    waiting = [sector for sector in world.sectors.values() if sector.state == state]
    return [{"Miner": world.actor, "Number": sector.number} for sector in waiting] or None


# --- storage ---

_PATHS = {
    "76f1988b-ef30-4d7e-b3ec-9a627f4ba5a8": "/data/seal",
    "1d3c1f3e-8a0f-4e6b-9d0e-3a5b7c9e1f20": "/data/store",
}


def _storage_list(world: World, _: Parameters) -> Mapping[str, list[Row]]:
    sealing, store = _PATHS
    return {
        sealing: [_file(world, number, 6) for number in world.sectors],
        store: [_file(world, number, 6) for number in world.settled if number in world.live],
    }


def _file(world: World, number: int, file_type: int) -> Row:
    return {"Miner": world.actor, "Number": number, "SectorFileType": file_type}


def _storage_stat(world: World, parameters: Parameters) -> Row:
    _known_path(parameters)
    capacity, used = 10 << 50, (len(world.settled) + len(world.sectors)) * SECTOR_BYTES
    free = max(capacity - used, 0)
    return {"Capacity": capacity, "Available": free, "FSAvailable": free, "Reserved": 0, "Max": 0, "Used": used}


def _storage_info(_: World, parameters: Parameters) -> Row:
    path = _known_path(parameters)
    nothing = dict.fromkeys(("Groups", "AllowTo", "AllowTypes", "DenyTypes", "AllowMiners", "DenyMiners"))
    seals = path == next(iter(_PATHS))
    urls = ["http://miner01:2345/remote"]
    place = {"ID": path, "URLs": urls, "Weight": 10, "MaxStorage": 0, "CanSeal": seals, "CanStore": not seals}
    return {**place, **nothing}


def _known_path(parameters: Parameters) -> str:
    path = text_of(parameters[0])
    if path not in _PATHS:
        raise RpcError(METHOD_ERROR, f"sector store not found: {path}")
    return path


# --- identity ---


def _address(_world: World, _: Parameters) -> str:
    return MINER


def _address_config(_world: World, _: Parameters) -> Row:
    return {
        "PreCommitControl": [ROBUST["f01236"]],
        "CommitControl": [ROBUST["f01236"]],
        "TerminateControl": [],
        "DealPublishControl": None,
        "DisableOwnerFallback": True,
        "DisableWorkerFallback": False,
    }


_SEALING = "Sealing"
_STORAGE = "SectorStorage"

METHODS: Mapping[str, Method] = {
    "ActorAddress": Method(answer=_address),
    "ActorAddressConfig": Method(answer=_address_config),
    "ActorSectorSize": Method(answer=lambda _world, _: SECTOR_BYTES, parameters=1),
    "RuntimeSubsystems": Method(answer=lambda world, _: list(world.subsystems), since="subsystems"),
    "SectorsSummary": Method(answer=_summary, subsystem=_SEALING),
    "SectorsList": Method(answer=_list, subsystem=_SEALING),
    "SectorsListInStates": Method(answer=_list_in_states, parameters=1, subsystem=_SEALING),
    "SectorsStatus": Method(answer=_status, parameters=2, subsystem=_SEALING),
    "SectorPreCommitPending": Method(
        answer=lambda world, _: _pending(world, "PreCommitBatchWait"), permission="admin", subsystem=_SEALING
    ),
    "SectorCommitPending": Method(
        answer=lambda world, _: _pending(world, "CommitAggregateWait"), permission="admin", subsystem=_SEALING
    ),
    "SectorTerminatePending": Method(answer=lambda _world, _: None, permission="admin", subsystem=_SEALING),
    "WorkerStats": Method(answer=_worker_stats, permission="admin", subsystem=_STORAGE),
    "WorkerJobs": Method(answer=_worker_jobs, permission="admin", subsystem=_STORAGE),
    "SealingSchedDiag": Method(answer=_diagnosis, parameters=1, permission="admin", subsystem=_STORAGE),
    "StorageList": Method(answer=_storage_list, permission="admin", subsystem=_STORAGE),
    "StorageStat": Method(answer=_storage_stat, parameters=1, permission="admin", subsystem=_STORAGE),
    "StorageInfo": Method(answer=_storage_info, parameters=1, permission="admin", subsystem=_STORAGE),
    "StorageLocal": Method(answer=lambda _world, _: dict(_PATHS), permission="admin", subsystem=_STORAGE),
}
