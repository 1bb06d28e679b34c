"""What a miner's sources tell is what its Lotus is, at a cost that does not grow, and whatever fails costs itself."""

import logging
import math
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.agent.plans import miner_plans
from telemetry.config import Settings
from telemetry.errors import SourceError
from telemetry.fields import Owner, Record, Value, fits
from telemetry.records import MINER_INFO, WORKER_INFO
from telemetry.simulate import node
from telemetry.simulate.accounts import MINER, POST, SECTOR_BYTES, WORKER, balance, purse
from telemetry.simulate.faults import Faults
from telemetry.simulate.lotus import Endpoint, Lotus, SteppedClock
from telemetry.simulate.scenario import Scenario
from telemetry.simulate.sealing import GET, PC1, TASKS
from telemetry.simulate.values import FIL
from telemetry.simulate.versions import VERSIONS
from telemetry.simulate.world import Job, Size, Stage, World
from telemetry.sources import Reading, Source, WithheldError, unread
from telemetry.sources.lotus.client import LARGEST_ANSWER
from telemetry.sources.lotus.environment import Environment
from telemetry.sources.lotus.miner_info import SEALING_FIELDS
from telemetry.sources.lotus.polls import Balances, Sealing, State, TaskQueues, Walk
from telemetry.sources.lotus.queues import UNKNOWN_HOST
from tests.conftest import Ends
from tests.fronts import Front, change, fails

STATED = set(MINER_INFO.owned_by(Owner.MINER))
"""The fields that Lotus tells of a miner."""

SHORT, AMPLE = 0.2, 40.0

SMALL = Scenario(description="with the least power that wins blocks", size=Size(hosts=2, sectors=400, sealing=30))
LARGE = Scenario(description="of 100,000 sectors", size=Size(hosts=2, sectors=100_000, sealing=30))

QUEUE_FIELDS = {"unassignedQueue", "unassignedTasks", "returnedTasks"}
STATE_FIELDS = {"minerBalance", "pledgeBalance", "lockedFunds", "preCommitDeposits", "feeDebt"}
POWER_FIELDS = {"effectivePower", "rawPower", "expectBlock"}
DEADLINE_FIELDS = {"deadlineIndex", "deadlineOpen", "deadlineClose"}
PARTITION_FIELDS = {"deadlinePartitions", "deadlineFaults"}
COUNT_FIELDS = {"liveSectors", "effectiveSectors", "errorSectors", "unprovenSectors"}


# --- a Lotus, and the sources of its miner

StartLotus = Callable[..., Lotus]


@pytest.fixture
def start(ends: Ends, clock: SteppedClock) -> StartLotus:
    """Start a Lotus, of a version where one is given."""

    def start_lotus(scenario: Scenario = SMALL, **arguments: Any) -> Lotus:
        lotus = Lotus(scenario, clock=clock, **arguments)
        ends.extend((lotus.miner.close, lotus.full.close))
        return lotus

    return start_lotus


@pytest.fixture
def lotus(start: StartLotus) -> Lotus:
    return start()


@dataclass(slots=True, kw_only=True)
class Told:
    """What all sources told in one round, as the agent takes it."""

    values: dict[str, Value] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    hosts: Mapping[str, Mapping[str, Value]] | None = None
    withheld: set[str] = field(default_factory=set)


class Polled:
    """The sources of a miner over one environment."""

    def __init__(
        self, environ: Mapping[str, str], clock: Callable[[], float], home: Path, *, miner: str = MINER,
        network: str = "", deadline: float = AMPLE, look: float = AMPLE, **queues: Any,
    ) -> None:  # fmt: skip
        self.environment = Environment(miner, network=network, deadline=look, environ=environ, home=home, clock=clock)
        self.state = State(self.environment, clock)
        self.queues = TaskQueues(self.environment, deadline=deadline, clock=clock, **queues)
        self.sealing = Sealing(self.environment, deadline=deadline, clock=clock)
        self.balances = Balances(self.environment, miner, deadline=deadline)
        self.walk = Walk(self.environment, miner, deadline=deadline)
        self.sources: tuple[Source, ...] = (self.state, self.queues, self.sealing, self.balances, self.walk)

    def __call__(self) -> Told:
        """Sample all of them once."""
        told = Told()
        for source in self.sources:
            reading = self._sampled(source, told)
            told.values |= reading.values
            told.problems |= reading.problems
            told.hosts = told.hosts if reading.hosts is None else reading.hosts
        return told

    def _sampled(self, source: Source, told: Told) -> Reading:
        try:
            return source.sample()
        except WithheldError:
            told.withheld.add(source.name)
            return unread(source, None)
        except SourceError as error:
            return unread(source, str(error))


PolledOf = Callable[..., Polled]


@pytest.fixture
def polled_of(clock: SteppedClock, tmp_path: Path) -> PolledOf:
    """The sources of a miner whose Lotus, or whose variables, are given."""

    def make(found: Lotus | Mapping[str, str], **arguments: Any) -> Polled:
        environ = found.environment if isinstance(found, Lotus) else found
        return Polled(environ, clock, tmp_path, **arguments)

    return make


@dataclass(frozen=True, slots=True, kw_only=True)
class Fronts:
    """A server before each role."""

    miner: Front
    full: Front

    @property
    def environment(self) -> Mapping[str, str]:
        return {"MINER_API_INFO": self.miner.api_info, "FULLNODE_API_INFO": self.full.api_info}

    def of(self, method: str) -> list[Any]:
        """The parameters of all requests of a method."""
        return [one.params for one in (*self.miner.asked, *self.full.asked) if one.method == method]


@pytest.fixture
def fronts(lotus: Lotus, ends: Ends) -> Fronts:
    made = Fronts(miner=Front(lotus.miner), full=Front(lotus.full))
    ends.extend((made.miner.close, made.full.close))
    return made


def endpoint_of(lotus: Lotus, role: str) -> Endpoint:
    return lotus.miner if role == "miner" else lotus.full


# --- what a world implies


def fil(atto: int) -> float:
    return round(atto / FIL, 9)


def sum_of(world: World, *states: str) -> int:
    return sum(world.states[state] for state in states)


def sealing_of(world: World) -> dict[str, Any]:
    before, after = ("PreCommitting", "PreCommitWait"), ("SubmitPreCommitBatch", "PreCommitBatchWait")
    single, joint = ("SubmitCommit", "CommitWait"), ("SubmitCommitAggregate", "CommitAggregateWait")
    return {
        "totalSectors": len(world.settled) + len(world.sectors) - world.states["Removed"],
        "deletedSectors": sum_of(world, "Removed", "Removing"),
        "failSectors": sum(number for state, number in world.states.items() if state.endswith("Failed")),
        "preCommit1": world.states["PreCommit1"],
        "preCommit2": world.states["PreCommit2"],
        "preCommitWait": sum_of(world, *before, *after),
        "waitSeed": world.states["WaitSeed"],
        "committing": world.states["Committing"],
        "commitWait": sum_of(world, *single, *joint),
        "finalizeSector": world.states["FinalizeSector"],
        "sectorStates": dict(+world.states),
    }


def chain_of(world: World, now: float) -> dict[str, Any]:
    active = len(world.live - world.faulty - world.unproven)
    owned, height = purse(world), world.height
    index, epoch = height % 2880 // 60, height % 60
    here = {number for number in world.live if number % 48 == index}
    share = 10 * active * SECTOR_BYTES / node._NETWORK_ADJUSTED
    wins = active * SECTOR_BYTES >= 10 << 40 and not world.fee_debt
    return {
        "minerBalance": fil(owned.balance),
        "pledgeBalance": fil(owned.pledge),
        "lockedFunds": fil(owned.vesting),
        "preCommitDeposits": fil(owned.deposits),
        "feeDebt": fil(owned.debt),
        "minerAvailable": fil(owned.available + owned.vested),
        "workerBalance": fil(balance(world, WORKER)),
        "postBalance": fil(balance(world, POST)),
        "rawPower": active * SECTOR_BYTES,
        "effectivePower": 10 * active * SECTOR_BYTES,
        "expectBlock": pytest.approx(2880 * (1 - math.exp(-5 * share)) if wins else 0, rel=1e-9),
        "liveSectors": len(world.live),
        "effectiveSectors": active,
        "errorSectors": len(world.faulty),
        "unprovenSectors": len(world.unproven),
        "recoverySectors": len(world.recovering),
        "deadlineIndex": index,
        "deadlineOpen": height - epoch,
        "deadlineClose": height - epoch + 60,
        "deadlinePartitions": 1 if here else 0,
        "deadlineFaults": len(here & world.faulty),
        "deadlineProven": 1 if here and epoch >= 20 else 0,
        "chainHeight": height,
        "chainLag": round(now - world.moment(height), 3),
        "chainBehind": int(now - world.moment(height)) // 30,
    }


def miner_of(world: World, now: float) -> dict[str, Any]:
    """All of minerInfo, but for the list of requests."""
    version = f"{world.version.text}+mainnet+git.0123456789"
    start = {"minerStart": world.started * 1000} if world.version.has("start time") else {}
    return {
        **sealing_of(world),
        **chain_of(world, now),
        **start,
        "lotusState": "ok",
        "minerVersion": version,
        "nodeVersion": version,
        "unassignedTasks": len(list(world.requests)),
        "returnedTasks": sum(job.stage in {Stage.RETURNED, Stage.RET_DONE} for job in world.jobs),
    }


_CURRENT = {Stage.PREPARING: "running", Stage.RUNNING: "running", Stage.RET_WAIT: "ret-wait"}
_PENDING = {Stage.PREPARED: "prepared", Stage.ASSIGNED: "assigned"}

Rows = Counter[tuple[int, str, str]]


def queues_of(world: World) -> dict[str, tuple[Rows, Rows]]:
    """By host, the rows of currentQueue and of pendingQueue."""
    found: defaultdict[str, tuple[Rows, Rows]] = defaultdict(lambda: (Counter(), Counter()))
    for worker in world.workers.values():
        if worker.registered:
            found[worker.hostname]  # it is there, be its queues empty
    for job in world.jobs:
        if job.worker is not None and job.stage in _CURRENT:
            found[job.worker.hostname][0][_row(job, _CURRENT[job.stage])] += 1
        elif job.worker is not None and job.stage in _PENDING and is_listed(world, job):
            found[job.worker.hostname][1][_row(job, _PENDING[job.stage])] += 1
    return dict(found)


def is_listed(world: World, job: Job) -> bool:
    return job.stage is not Stage.PREPARED or world.version.has("prepared")


def _row(job: Job, state: str) -> tuple[int, str, str]:
    untracked = job.stage is Stage.RUNNING and not TASKS[job.task].tracked
    task = GET if job.stage is Stage.PREPARING else job.task
    return job.sector.number, task, "ret-wait" if untracked else state


def rows_of(told: Told) -> dict[str, tuple[Rows, Rows]]:
    assert told.hosts is not None
    return {
        host: (_told_rows(values["currentQueue"]), _told_rows(values["pendingQueue"]))
        for host, values in told.hosts.items()
    }


def _told_rows(queue: Any) -> Rows:
    return Counter((entry["sector"], entry["task"], entry["state"]) for entry in queue)


def mistyped(record: Record, values: Mapping[str, Value]) -> list[str]:
    return [name for name, value in values.items() if not fits(record.by_name[name].type, value)]


def without_requests(values: Mapping[str, Value]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if name != "unassignedQueue"}


# --- every field, in every version


def test_every_field_of_a_miner_has_one_source(lotus: Lotus, polled_of: PolledOf) -> None:
    stated = [name for source in polled_of(lotus).sources for name in source.fields]
    assert sorted(stated) == sorted(STATED)


def test_every_field_of_a_hosts_tasks_has_one_source(lotus: Lotus, polled_of: PolledOf) -> None:
    stated = [name for source in polled_of(lotus).sources for name in source.host_fields]
    assert sorted(stated) == sorted(WORKER_INFO.owned_by(Owner.TASKS))


@pytest.mark.parametrize("version", VERSIONS)
def test_values_are_those_of_the_world(
    start: StartLotus, polled_of: PolledOf, clock: SteppedClock, version: str
) -> None:
    lotus = start(version=version)
    polled = polled_of(lotus)
    polled()
    told = polled()  # the counts of a miner that does not tell its start are believed once they stand still
    assert told.problems == {}
    assert without_requests(told.values) == miner_of(lotus.world, clock.now)


@pytest.mark.parametrize("version", VERSIONS)
def test_values_have_their_declared_types(start: StartLotus, polled_of: PolledOf, version: str) -> None:
    polled = polled_of(start(version=version))
    polled()
    told = polled()
    assert told.values.keys() >= STATED - {"minerStart"}
    assert mistyped(MINER_INFO, told.values) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_values_of_hosts_have_their_declared_types(start: StartLotus, polled_of: PolledOf, version: str) -> None:
    lotus = start(version=version)
    told = polled_of(lotus)()
    assert told.hosts is not None
    tasks = set(WORKER_INFO.owned_by(Owner.TASKS)) - (set() if lotus.world.version.has("tasks") else {"taskType"})
    for values in told.hosts.values():
        assert values.keys() == tasks
        assert mistyped(WORKER_INFO, values) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_queues_are_those_of_the_world(
    start: StartLotus, polled_of: PolledOf, clock: SteppedClock, version: str
) -> None:
    lotus = start(version=version)
    polled = polled_of(lotus)
    for _ in range(4):
        clock.advance(4000)
        polled()
        told = polled()  # what the first of two polls shows once more is gone at the second
        assert rows_of(told) == queues_of(lotus.world)


def test_counts_of_a_host_are_the_lengths_of_its_queues(lotus: Lotus, polled_of: PolledOf) -> None:
    told = polled_of(lotus)()
    assert told.hosts is not None
    for host, (current, pending) in queues_of(lotus.world).items():
        assert told.hosts[host]["runningTasks"] == current.total()
        assert told.hosts[host]["pendingTasks"] == pending.total()


def mishap(world: World) -> None:
    world.fault(30)
    world.declare_recovered(10)
    world.remove(3)
    world.fail_sealing(2)


@pytest.mark.parametrize("seconds", [0, 61, 1000, 40_000])
def test_values_are_those_of_a_world_with_faults(
    lotus: Lotus, polled_of: PolledOf, clock: SteppedClock, seconds: float
) -> None:
    change(lotus, mishap)
    clock.advance(seconds)
    told = polled_of(lotus)()
    assert without_requests(told.values) == miner_of(lotus.world, clock.now)


def test_requests_without_a_worker_are_listed(start: StartLotus, polled_of: PolledOf) -> None:
    lotus = start(Scenario(description="of few workers", size=Size(hosts=1, sectors=10, sealing=200)))
    told = polled_of(lotus)()
    queue = told.values["unassignedQueue"]
    assert isinstance(queue, list)
    assert queue
    expected = Counter((job.sector.number, job.task) for job in lotus.world.requests)
    assert Counter((entry["sector"], entry["task"]) for entry in queue) == expected


def test_a_miner_in_debt_expects_no_block(lotus: Lotus, polled_of: PolledOf) -> None:
    polled = polled_of(lotus)
    assert polled().values["expectBlock"] != 0
    with lotus.changing() as world:
        world.fee_debt = FIL
    assert (polled().values["expectBlock"], polled().values["feeDebt"]) == (0, 1)


def test_a_miner_at_fault_expects_no_block_until_it_is_over(
    lotus: Lotus, fronts: Fronts, polled_of: PolledOf, clock: SteppedClock
) -> None:
    polled = polled_of(fronts.environment)
    polled()
    info = next(one.result for one in fronts.full.asked if one.method == "StateMinerInfo")
    elapsed = lotus.world.height + 1
    fronts.full.answers["StateMinerInfo"] = lambda _: {**info, "ConsensusFaultElapsed": elapsed}
    expected = []
    for _ in range(3):
        expected.append(polled().values["expectBlock"] != 0)
        clock.advance(30)
    assert expected == [False, False, True]


def test_where_no_address_is_kept_for_proofs_the_worker_pays(lotus: Lotus, fronts: Fronts, polled_of: PolledOf) -> None:
    polled = polled_of(fronts.environment)
    polled()
    info = next(one.result for one in fronts.full.asked if one.method == "StateMinerInfo")
    fronts.full.answers["StateMinerInfo"] = lambda _: {**info, "ControlAddresses": None}
    told = polled()
    assert told.values["postBalance"] == told.values["workerBalance"] == fil(balance(lotus.world, WORKER))


def test_a_worker_of_another_name_stands_at_its_host(lotus: Lotus, polled_of: PolledOf) -> None:
    told = polled_of(lotus, host_names={"seal01": "rack1"})()
    assert told.hosts is not None
    assert set(told.hosts) == {"miner01", "post01", "post02", "rack1", "seal02"}


def test_a_task_that_runs_longer_than_is_set_is_overdue(lotus: Lotus, polled_of: PolledOf, clock: SteppedClock) -> None:
    # Sectors that began with the world run for less than three hours.
    polled = polled_of(lotus, overdue={"PC1": 4 * 3600.0})
    assert not overdue(polled())
    for uuid in lotus.world.of_host("seal01"):
        change(lotus, partial(World.lose, uuid=uuid))
    clock.advance(5 * 3600)
    assert {task for _, task in overdue(polled())} >= {PC1}


def overdue(told: Told) -> set[tuple[str, str]]:
    assert told.hosts is not None
    queues = [(host, values["currentQueue"]) for host, values in told.hosts.items()]
    return {
        (host, str(entry["task"]))
        for host, queue in queues
        if isinstance(queue, list)
        for entry in queue
        if entry.get("overdue") and entry["task"] == PC1
    }


def test_the_plans_of_an_agent_give_all_fields_typed(ends: Ends) -> None:
    lotus = Lotus(SMALL)
    ends.extend((lotus.miner.close, lotus.full.close))
    readings = [plan.source.sample() for plan in miner_plans(Settings(), MINER, lotus.environment)]
    values = {name: value for reading in readings for name, value in reading.values.items()}
    assert values.keys() == STATED
    assert mistyped(MINER_INFO, values) == []


# --- what it costs

ROUND = Counter(Session=3, WorkerJobs=1, WorkerStats=1, SealingSchedDiag=1, SectorsSummary=1)
ROUND_OF_NODE = Counter(
    Version=1, StateNetworkName=1, ChainHead=3, StateMinerInfo=2, StateReadState=1, StateMinerPower=1,
    StateMinerAvailableBalance=1, StateMinerProvingDeadline=1, StateMinerPartitions=1, StateMinerDeadlines=1,
    WalletBalance=2, StateMinerSectorCount=1, StateMinerRecoveries=1,
)  # fmt: skip


@pytest.mark.parametrize("scenario", [SMALL, LARGE], ids=["small", "large"])
def test_calls_of_a_round_are_the_same_for_any_number_of_sectors(
    start: StartLotus, polled_of: PolledOf, scenario: Scenario
) -> None:
    lotus = start(scenario)
    polled = polled_of(lotus)
    polled()
    lotus.miner.forget_calls()
    lotus.full.forget_calls()
    polled()
    assert lotus.miner.calls == ROUND
    assert lotus.full.calls == ROUND_OF_NODE


def test_what_stays_is_asked_for_once(lotus: Lotus, polled_of: PolledOf) -> None:
    polled = polled_of(lotus)
    for _ in range(3):
        polled()
    assert lotus.miner.calls["ActorAddressConfig"] == 1
    assert lotus.full.calls["StateLookupID"] == 1  # of the one address that has two other uses


def test_uses_of_addresses_are_asked_for_again_in_a_new_session(lotus: Lotus, polled_of: PolledOf) -> None:
    polled = polled_of(lotus)
    polled()
    lotus.miner.restart()
    polled()
    assert lotus.miner.calls["ActorAddressConfig"] == 2
    assert lotus.full.calls["StateLookupID"] == 1


def test_the_scheduler_is_not_set_to_work(fronts: Fronts, polled_of: PolledOf) -> None:
    polled_of(fronts.environment)()
    assert fronts.of("SealingSchedDiag") == [[False]]


# --- one tipset a poll


@pytest.mark.parametrize("name", ["balances", "walk"])
def test_state_calls_of_a_poll_are_on_the_tipset_of_its_head(
    fronts: Fronts, polled_of: PolledOf, clock: SteppedClock, name: str
) -> None:
    polled = polled_of(fronts.environment)
    polled.state.sample()
    fronts.full.before = lambda _: clock.advance(30)
    for _ in range(2):
        fronts.full.asked.clear()
        getattr(polled, name).sample()
        [head] = [one.result for one in fronts.full.asked if one.method == "ChainHead"]
        # An ID address stays for ever.
        state = [one for one in fronts.full.asked if one.method.startswith("State") and one.method != "StateLookupID"]
        assert len(state) >= 2
        assert [one.params[-1] for one in state] == [head["Cids"]] * len(state)


# --- what fails costs itself

LOST: Mapping[tuple[str, str], set[str]] = {
    ("miner", "WorkerJobs"): QUEUE_FIELDS,
    ("miner", "WorkerStats"): QUEUE_FIELDS,
    ("miner", "SealingSchedDiag"): QUEUE_FIELDS - {"returnedTasks"},
    ("miner", "SectorsSummary"): {*SEALING_FIELDS},
    ("miner", "ActorAddressConfig"): {"postBalance"},
    ("full", "StateReadState"): STATE_FIELDS,
    ("full", "StateMinerPower"): POWER_FIELDS,
    ("full", "StateMinerAvailableBalance"): {"minerAvailable"},
    ("full", "StateMinerProvingDeadline"): {*DEADLINE_FIELDS, *PARTITION_FIELDS, "deadlineProven"},
    ("full", "StateMinerPartitions"): PARTITION_FIELDS,
    ("full", "StateMinerDeadlines"): {"deadlineProven"},
    ("full", "WalletBalance"): {"workerBalance", "postBalance"},
    ("full", "StateLookupID"): {"postBalance"},
    ("full", "StateMinerSectorCount"): COUNT_FIELDS,
    ("full", "StateMinerRecoveries"): {"recoverySectors"},
}

KINDS: Mapping[str, Callable[[str], Faults]] = {
    "panic": lambda method: Faults(panic=frozenset({method})),
    "garbage": lambda method: Faults(garbage=True, only=frozenset({method})),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("role", "method"), LOST)
def test_a_method_that_fails_costs_its_own_fields_with_the_reason(
    lotus: Lotus, polled_of: PolledOf, role: str, method: str, kind: str
) -> None:
    endpoint_of(lotus, role).faults = KINDS[kind](method)
    told = polled_of(lotus)()
    lost = LOST[role, method]
    assert STATED - told.values.keys() == lost
    assert told.problems.keys() - WORKER_INFO.by_name.keys() == lost
    assert all(reason.startswith(f"{method} at 127.0.0.1:") for reason in told.problems.values())


@pytest.mark.parametrize(
    ("method", "is_lost"), [("WorkerJobs", True), ("WorkerStats", True), ("SealingSchedDiag", False)]
)
def test_queues_of_hosts_are_lost_with_the_jobs_or_the_workers_only(
    lotus: Lotus, polled_of: PolledOf, method: str, is_lost: bool
) -> None:
    lotus.miner.faults = Faults(panic=frozenset({method}))
    assert (polled_of(lotus)().hosts is None) is is_lost


@pytest.mark.parametrize(("role", "method"), LOST)
def test_what_was_lost_is_back_once_the_method_is_well(
    lotus: Lotus, polled_of: PolledOf, clock: SteppedClock, role: str, method: str
) -> None:
    polled = polled_of(lotus)
    endpoint_of(lotus, role).faults = KINDS["panic"](method)
    polled()
    endpoint_of(lotus, role).heal()
    told = polled()
    assert told.problems == {}
    assert without_requests(told.values) == miner_of(lotus.world, clock.now)


def test_an_actor_that_cannot_be_read_costs_what_its_addresses_own(lotus: Lotus, polled_of: PolledOf) -> None:
    lotus.full.faults = Faults(panic=frozenset({"StateMinerInfo"}))
    told = polled_of(lotus)()
    assert STATED - told.values.keys() == {"workerBalance", "postBalance"}


@pytest.mark.parametrize(("address", "lost"), [(WORKER, "workerBalance"), (POST, "postBalance")])
def test_a_wallet_that_cannot_be_read_costs_its_own_balance(
    fronts: Fronts, polled_of: PolledOf, address: str, lost: str
) -> None:
    def answer(params: list[Any]) -> object:
        return fails("no such wallet")(params) if params == [address] else str(7 * FIL)

    fronts.full.answers["WalletBalance"] = answer
    told = polled_of(fronts.environment)()
    [kept] = {"workerBalance", "postBalance"} - {lost}
    assert told.values[kept] == 7
    assert lost not in told.values
    assert told.problems.keys() == {lost}


@pytest.mark.parametrize(("role", "method"), [("miner", "SealingSchedDiag"), ("full", "StateMinerAvailableBalance")])
def test_a_method_that_this_lotus_lacks_costs_its_own_fields(
    lotus: Lotus, polled_of: PolledOf, role: str, method: str
) -> None:
    endpoint_of(lotus, role).faults = Faults(absent=frozenset({method}))
    told = polled_of(lotus)()
    assert STATED - told.values.keys() == LOST[role, method]
    assert all("is not known to this Lotus" in reason for reason in told.problems.values())


def test_methods_that_old_lotus_lacks_cost_the_start_alone(lotus: Lotus, polled_of: PolledOf) -> None:
    lotus.miner.faults = Faults(absent=frozenset({"StartTime", "RuntimeSubsystems", "LogAlerts"}))
    polled = polled_of(lotus)
    polled()
    told = polled()
    assert STATED - told.values.keys() == {"minerStart"}
    assert told.problems == {}


def test_a_token_without_admin_costs_the_queues_alone(lotus: Lotus, polled_of: PolledOf) -> None:
    environ = {**lotus.environment, "MINER_API_INFO": f"{lotus.miner.read_token}:{lotus.miner.address}"}
    told = polled_of(environ)()
    assert STATED - told.values.keys() == QUEUE_FIELDS
    assert "WorkerJobs" in told.problems["returnedTasks"]
    assert "is not allowed by the token" in told.problems["returnedTasks"]


def test_a_miner_without_its_sealing_costs_what_the_sealing_knows(lotus: Lotus, polled_of: PolledOf) -> None:
    with lotus.changing() as world:
        world.subsystems = ("Mining",)
    told = polled_of(lotus)()
    assert STATED - told.values.keys() == QUEUE_FIELDS | {*SEALING_FIELDS}


# --- restarts


def test_the_counts_of_a_restarted_miner_are_held_until_they_are_whole(
    lotus: Lotus, polled_of: PolledOf, clock: SteppedClock
) -> None:
    sealing = polled_of(lotus).sealing
    known = sealing.sample()
    lotus.miner.restart()
    for _ in range(2):
        clock.advance(20)
        assert sealing.sample() == known
    clock.advance(30)
    assert sealing.sample() == Reading(values=sealing_of(lotus.world))


def test_a_miner_that_was_met_as_it_started_is_believed_once_its_counts_stand_still(
    lotus: Lotus, polled_of: PolledOf, clock: SteppedClock
) -> None:
    sealing = polled_of(lotus).sealing
    lotus.miner.restart()
    for _ in range(3):
        clock.advance(20)
        reading = sealing.sample()
        assert reading.values == {}
        assert reading.problems == dict.fromkeys(SEALING_FIELDS, "lotus-miner has just started and counts its sectors")
    clock.advance(1)
    assert sealing.sample() == Reading(values=sealing_of(lotus.world))


@pytest.mark.parametrize(("seconds", "is_believed"), [(30, False), (590, False), (610, True), (10_000_000, True)])
def test_a_miner_that_has_run_for_long_is_believed_at_once(
    lotus: Lotus, polled_of: PolledOf, clock: SteppedClock, seconds: float, is_believed: bool
) -> None:
    with lotus.changing() as world:
        world.started = clock.now - seconds
    assert bool(polled_of(lotus).sealing.sample().values) is is_believed


def test_a_miner_that_does_not_tell_its_start_is_believed_at_the_second_poll(
    start: StartLotus, polled_of: PolledOf
) -> None:
    sealing = polled_of(start(version="1.17.0")).sealing
    assert [bool(sealing.sample().values) for _ in range(3)] == [False, True, True]


def test_a_restart_between_the_polls_of_a_round_costs_none_of_them(
    lotus: Lotus, polled_of: PolledOf, clock: SteppedClock
) -> None:
    polled = polled_of(lotus)
    polled()
    polled.state.sample()
    lotus.miner.restart()
    clock.advance(1)
    for source in (polled.queues, polled.sealing, polled.balances, polled.walk):
        assert source.sample().problems == {}
    verdict = polled.environment.verdict
    assert verdict.miner is not None
    assert verdict.miner.session == lotus.world.session


@pytest.mark.parametrize("method", ["Session", "WorkerJobs", "WorkerStats", "SealingSchedDiag"])
def test_a_restart_amid_the_poll_of_the_queues_is_over_at_the_next_but_one(
    lotus: Lotus, fronts: Fronts, polled_of: PolledOf, clock: SteppedClock, method: str
) -> None:
    polled = polled_of(fronts.environment)
    polled()
    once = [method]

    def restart(called: str) -> None:
        if called in once:
            once.clear()
            change(lotus, World.restart_miner)

    fronts.miner.before = restart
    polled.queues.sample()
    assert once == []
    clock.advance(600)
    polled()
    assert {host: rows for host, rows in rows_of(polled()).items() if any(rows)} == {
        host: rows for host, rows in queues_of(lotus.world).items() if any(rows)
    }


def test_a_miner_that_restarts_whenever_it_is_asked_tells_nothing(
    lotus: Lotus, fronts: Fronts, polled_of: PolledOf
) -> None:
    polled = polled_of(fronts.environment)
    fronts.miner.before = lambda method: change(lotus, World.restart_miner) if method == "Session" else None
    for source in (polled.queues, polled.sealing):
        with pytest.raises(SourceError, match="lotus-miner was restarted while it was asked"):
            source.sample()
    assert fronts.of("WorkerJobs") == []


def test_tasks_that_outlive_their_miner_stay_with_their_hosts(
    lotus: Lotus, polled_of: PolledOf, clock: SteppedClock
) -> None:
    polled = polled_of(lotus)
    polled()
    lotus.miner.restart()
    clock.advance(600)
    polled()
    told = polled()
    assert told.hosts is not None
    assert {host: rows for host, rows in rows_of(told).items() if host in queues_of(lotus.world)} == queues_of(
        lotus.world
    )
    assert str(told.hosts["seal01"]["taskState"]).startswith("unregistered PC1:")
    assert UNKNOWN_HOST not in told.hosts


# --- what must not be asked


def test_nothing_is_asked_of_another_miner(lotus: Lotus, polled_of: PolledOf) -> None:
    polled = polled_of(lotus, miner="f05678")
    polled.state.sample()
    calls = lotus.miner.calls
    for source in (polled.queues, polled.sealing):
        with pytest.raises(WithheldError, match="this lotus-miner is f01234, not f05678"):
            source.sample()
    assert lotus.miner.calls == calls


def test_nothing_is_asked_of_a_full_node_on_another_network(lotus: Lotus, polled_of: PolledOf) -> None:
    polled = polled_of(lotus, network="calibrationnet")
    polled.state.sample()
    calls = lotus.full.calls
    for source in (polled.balances, polled.walk):
        with pytest.raises(WithheldError, match="wrong network"):
            source.sample()
    assert lotus.full.calls == calls


def test_what_is_withheld_is_told_by_the_state_alone(lotus: Lotus, polled_of: PolledOf) -> None:
    lotus.miner.faults = lotus.full.faults = Faults(refuse=True)
    told = polled_of(lotus)()
    assert told.values.keys() == {"lotusState"}
    assert told.problems == {}
    assert told.withheld == {"queues", "sectors", "miner", "chain"}


@pytest.mark.parametrize("variable", ["MINER_API_INFO", "FULLNODE_API_INFO"])
def test_where_a_variable_is_malformed_nothing_is_asked_and_the_state_tells_why(
    lotus: Lotus, polled_of: PolledOf, variable: str
) -> None:
    told = polled_of({**lotus.environment, variable: "nowhere"})()
    assert str(told.values["lotusState"]).startswith(f"{variable}: ")
    assert told.problems == {}


def test_a_full_node_tells_of_a_miner_that_is_down(lotus: Lotus, polled_of: PolledOf, clock: SteppedClock) -> None:
    polled = polled_of(lotus)
    polled()
    lotus.miner.faults = Faults(refuse=True)
    clock.advance(60)
    told = polled()
    with lotus.changing() as world:
        expected = chain_of(world, clock.now)
    assert {name: value for name, value in told.values.items() if name in expected} == expected


def test_the_uses_of_addresses_are_not_known_of_a_miner_that_never_answered(lotus: Lotus, polled_of: PolledOf) -> None:
    lotus.miner.faults = Faults(refuse=True)
    told = polled_of(lotus)()
    assert told.problems.keys() == {"postBalance"}
    assert told.values["workerBalance"] == fil(balance(lotus.world, WORKER))


def test_all_is_back_once_both_are_well(lotus: Lotus, polled_of: PolledOf, clock: SteppedClock) -> None:
    polled = polled_of(lotus)
    lotus.miner.faults = lotus.full.faults = Faults(refuse=True)
    polled()
    lotus.miner.heal()
    lotus.full.heal()
    assert without_requests(polled().values) == miner_of(lotus.world, clock.now)


# --- what never ends, is too much, or is nonsense


@pytest.mark.parametrize("name", ["queues", "sealing", "balances", "walk"])
def test_a_poll_of_a_lotus_that_hangs_ends_at_its_deadline(lotus: Lotus, polled_of: PolledOf, name: str) -> None:
    polled = polled_of(lotus, deadline=SHORT)
    polled.state.sample()
    lotus.miner.faults = lotus.full.faults = Faults(hang=True)
    begun = time.monotonic()
    with pytest.raises(SourceError, match="gave no whole answer within its deadline"):
        getattr(polled, name).sample()
    assert time.monotonic() - begun < SHORT + 2


def test_a_look_at_a_lotus_that_hangs_ends_at_its_deadline(lotus: Lotus, polled_of: PolledOf) -> None:
    polled = polled_of(lotus, look=SHORT)
    lotus.miner.faults = lotus.full.faults = Faults(hang=True)
    begun = time.monotonic()
    assert "within its deadline" in str(polled.state.sample().values["lotusState"])
    assert time.monotonic() - begun < SHORT + 2


@pytest.mark.parametrize("method", ["StateReadState", "WalletBalance", "StateMinerInfo"])
def test_a_method_that_hangs_amid_a_poll_does_not_make_it_longer(
    lotus: Lotus, polled_of: PolledOf, method: str
) -> None:
    polled = polled_of(lotus, deadline=SHORT)
    polled.state.sample()
    lotus.full.faults = Faults(hang=True, only=frozenset({method}))
    begun = time.monotonic()
    reading = polled.balances.sample()
    assert time.monotonic() - begun < SHORT + 2
    lost = STATE_FIELDS if method == "StateReadState" else {"workerBalance", "postBalance"}
    assert lost <= reading.problems.keys()


@pytest.mark.parametrize(("name", "method"), [("queues", "WorkerStats"), ("sealing", "SectorsSummary")])
def test_an_answer_of_200_megabytes_is_refused_before_it_is_all_in_memory(
    lotus: Lotus, polled_of: PolledOf, name: str, method: str
) -> None:
    polled = polled_of(lotus)
    polled.state.sample()
    lotus.miner.faults = Faults(huge=200_000_000, only=frozenset({method}))
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match=f"{method} .* larger than {LARGEST_ANSWER} bytes"):
            getattr(polled, name).sample()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * LARGEST_ANSWER


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in an answer: of a list, the first entries."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, entry in inner:
        yield from places(entry, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: object) -> Any:
    """An answer with something else in a place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


_NONSENSE = st.one_of(
    st.sampled_from([None, True, 0, -1, 1.5, 2**63, -(2**70), 10**30, "", "x", "-5", "9" * 70, "<nil>", [], {}]),
    st.sampled_from([[None], [[]], {"x": None}, "0001-01-01T00:00:00Z", [1, 2, 3], "a\nb", "<empty>"]),
    st.text(max_size=5),
    st.integers(),
)


def test_whatever_stands_in_an_answer_the_rest_is_told_and_typed(fronts: Fronts, polled_of: PolledOf) -> None:
    polled_of(fronts.environment)()
    answers = {one.method: one.result for one in (*fronts.miner.asked, *fronts.full.asked)}

    @settings(max_examples=50, deadline=None)
    @given(method=st.sampled_from(sorted(answers)), place=st.integers(0, 1 << 20), nonsense=_NONSENSE)
    def poll(method: str, place: int, nonsense: object) -> None:
        where = list(places(answers[method]))
        wrong = replaced(answers[method], where[place % len(where)], nonsense)
        fronts.miner.answers = fronts.full.answers = {method: lambda _: wrong}
        told = polled_of(fronts.environment)()
        assert mistyped(MINER_INFO, told.values) == []
        for values in (told.hosts or {}).values():
            assert mistyped(WORKER_INFO, values) == []

    poll()


# --- workers that nobody told of


def make_a_worker_unknown(world: World) -> None:
    """Let a busy worker start anew: what it ran stays listed under the uuid that it had."""
    busy = next(job.worker for job in world.jobs if job.stage is Stage.RUNNING and job.worker is not None)
    world.restart_worker(busy.uuid)


def test_a_worker_that_is_not_told_of_is_asked_for_once_more_and_then_no_more(
    lotus: Lotus, polled_of: PolledOf
) -> None:
    change(lotus, make_a_worker_unknown)
    polled = polled_of(lotus)
    calls = []
    for _ in range(3):
        lotus.miner.forget_calls()
        polled.queues.sample()
        calls.append(lotus.miner.calls["WorkerStats"])
    assert calls == [2, 1, 1]


def test_a_worker_that_came_between_the_two_reads_is_told_of(fronts: Fronts, polled_of: PolledOf) -> None:
    fronts.miner.answers["WorkerStats"] = lambda _: {}

    def come(method: str) -> None:
        if method == "WorkerStats" and fronts.of("WorkerStats"):
            fronts.miner.answers.clear()

    fronts.miner.before = come
    hosts = polled_of(fronts.environment).queues.sample().hosts
    assert hosts is not None
    assert UNKNOWN_HOST not in hosts
    assert "seal01" in hosts


def test_jobs_of_a_worker_that_stays_unknown_are_at_an_unknown_host(lotus: Lotus, polled_of: PolledOf) -> None:
    change(lotus, make_a_worker_unknown)
    hosts = polled_of(lotus).queues.sample().hosts
    assert hosts is not None
    assert hosts[UNKNOWN_HOST]["runningTasks"] != 0


def test_jobs_of_a_worker_that_was_told_of_stay_at_its_host(lotus: Lotus, polled_of: PolledOf) -> None:
    polled = polled_of(lotus)
    polled()
    change(lotus, make_a_worker_unknown)
    told = polled()
    assert told.hosts is not None
    assert UNKNOWN_HOST not in told.hosts


# --- the log


def test_a_state_is_logged_when_it_changes(lotus: Lotus, polled_of: PolledOf, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "telemetry.sources.lotus.polls")
    state = polled_of(lotus).state
    for faults in (Faults(), Faults(), Faults(refuse=True), Faults(refuse=True), Faults()):
        lotus.full.faults = faults
        state.sample()
    assert [(record.levelname, record.getMessage()[:17]) for record in caplog.records] == [
        ("INFO", "lotus: ok"),
        ("WARNING", "lotus: full node:"),
        ("INFO", "lotus: ok"),
    ]
