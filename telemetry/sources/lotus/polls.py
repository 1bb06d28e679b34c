"""The sources that ask Lotus, each at its own interval: one that is slow or fails costs its own fields only.

The calls of a poll are a fixed number, whatever the number of sectors; only that of the addresses that pay varies.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from telemetry.errors import SourceError
from telemetry.fields import Value
from telemetry.sources import Reading
from telemetry.sources.lotus import miner_info
from telemetry.sources.lotus.answers import (
    AddressConfig,
    ChainHead,
    MinerInfo,
    Request,
    decode_actor_address_config,
    decode_chain_head,
    decode_sealing_sched_diag,
    decode_sectors_summary,
    decode_session,
    decode_state_lookup_id,
    decode_state_miner_available_balance,
    decode_state_miner_deadlines,
    decode_state_miner_info,
    decode_state_miner_partitions,
    decode_state_miner_power,
    decode_state_miner_proving_deadline,
    decode_state_miner_recoveries,
    decode_state_miner_sector_count,
    decode_state_read_state,
    decode_wallet_balance,
    decode_worker_jobs,
    decode_worker_stats,
)
from telemetry.sources.lotus.calls import Calls
from telemetry.sources.lotus.environment import DEADLINE, Environment, Verdict
from telemetry.sources.lotus.queues import Queues
from telemetry.sources.lotus.tasks import overdue_seconds

_log = logging.getLogger(__name__)

_STATE_DEADLINE = 30.0
_WORKERS_DEADLINE = 60.0
_WALK_DEADLINE = 180.0
_SETTLED_SECONDS = 600.0
"""A lotus-miner that runs longer has long counted its sectors."""

_T = TypeVar("_T")


class _Poll:
    """What one poll gave so far; a step that fails costs its own fields."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.problems: dict[str, str] = {}

    def take(self, fields: Iterable[str], step: Callable[[], Mapping[str, Value]]) -> None:
        """Add the values of a step, or why its fields cannot be read."""
        try:
            self.values |= step()
        except SourceError as error:
            self.problems |= dict.fromkeys(fields, str(error))

    def ask(self, fields: Iterable[str], step: Callable[[], _T]) -> _T | None:
        """The answer of a step on which fields depend; None, with the reason noted, where it fails."""
        try:
            return step()
        except SourceError as error:
            self.problems |= dict.fromkeys(fields, str(error))
            return None

    def reading(self, hosts: Mapping[str, Mapping[str, Value]] | None = None) -> Reading:
        """What it gave."""
        return Reading(values=self.values, problems=self.problems, hosts=hosts)


class State:
    """Whether the Lotus can be used, what it is, and where its chain stands."""

    name = "lotus"
    fields = ("lotusState", "minerVersion", "minerStart", "nodeVersion", "chainHeight", "chainLag", "chainBehind")
    host_fields = ()

    def __init__(self, environment: Environment, clock: Callable[[], float] = time.time) -> None:
        self._environment, self._clock = environment, clock
        self._told = ""

    def sample(self) -> Reading:
        """Look at the environment."""
        verdict = self._environment.look()
        self._tell(verdict.state)
        values: dict[str, Value] = {"lotusState": verdict.state}
        if verdict.miner is not None:
            values["minerVersion"] = verdict.miner.version.version
            if verdict.miner.start is not None:
                values["minerStart"] = verdict.miner.start
        if verdict.node is not None:
            values["nodeVersion"] = verdict.node.version.version
            values |= miner_info.chain(verdict.node.head, self._clock())
        return Reading(values=values)

    def _tell(self, state: str) -> None:
        if state != self._told:
            _log.log(logging.INFO if state == "ok" else logging.WARNING, "lotus: %s", state)
        self._told = state


class TaskQueues:
    """Who works on what: the queues of all worker hosts, and what no worker has yet."""

    name = "queues"
    fields = ("unassignedQueue", "unassignedTasks", "returnedTasks")
    host_fields = ("currentQueue", "pendingQueue", "taskState", "taskType", "runningTasks", "pendingTasks")

    def __init__(
        self,
        environment: Environment,
        *,
        deadline: float,
        host_names: Mapping[str, str] = MappingProxyType({}),
        overdue: Mapping[str, float] = MappingProxyType({}),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._environment, self._deadline, self._overdue, self._clock = environment, deadline, overdue, clock
        self._calls, self._queues = Calls(), Queues(host_names)

    def sample(self) -> Reading:
        """Read the jobs, then the workers, then what waits."""
        ask = partial(self._calls.miner, deadline=_WORKERS_DEADLINE)
        with self._calls.within(self._deadline):
            session, verdict = _session(self._environment, self._calls)
            now_ms = round(self._clock() * 1000)
            jobs = decode_worker_jobs(ask("WorkerJobs"))
            stats = decode_worker_stats(ask("WorkerStats"))
            if self._queues.lacks_workers(stats, jobs):
                stats = decode_worker_stats(ask("WorkerStats"))
            poll = _Poll()
            requests: tuple[Request, ...] | None = poll.ask(
                ("unassignedQueue", "unassignedTasks"),
                # true would make the scheduler do a round.
                lambda: decode_sealing_sched_diag(ask("SealingSchedDiag", False)),
            )
        queues = self._queues.poll(
            stats, jobs, requests, now_ms, session,
            has_prepared=verdict.has_prepared, overdue_seconds=overdue_seconds(verdict.sector_size, self._overdue),
        )  # fmt: skip
        poll.values |= {**queues.unassigned, "returnedTasks": queues.returned}
        return poll.reading(queues.hosts)


class Sealing:
    """Sectors by what the sealing does with them."""

    name = "sectors"
    fields = (*miner_info.SEALING_FIELDS,)
    host_fields = ()

    def __init__(self, environment: Environment, *, deadline: float, clock: Callable[[], float] = time.time) -> None:
        self._environment, self._deadline, self._clock = environment, deadline, clock
        self._calls, self._guard = Calls(), miner_info.SummaryGuard()
        self._told: dict[str, Value] = {}

    def sample(self) -> Reading:
        """Read the summary; while a new lotus-miner still counts, what was told before stands."""
        with self._calls.within(self._deadline):
            session, verdict = _session(self._environment, self._calls)
            summary = decode_sectors_summary(self._calls.miner("SectorsSummary", deadline=_STATE_DEADLINE))
        if self._guard.admits(session, summary, settled=self._is_settled(verdict)):
            self._told = miner_info.sealing(summary)
        waiting = (
            {} if self._told else dict.fromkeys(self.fields, "lotus-miner has just started and counts its sectors")
        )
        return Reading(values=self._told, problems=waiting)

    def _is_settled(self, verdict: Verdict) -> bool:
        start = verdict.miner.start if verdict.miner is not None else None
        return start is not None and self._clock() - start / 1000 > _SETTLED_SECONDS


class Balances:
    """What the miner owns and is worth on chain: all State calls of a poll on the tipset of its ChainHead."""

    name = "miner"
    _STATE = ("minerBalance", "pledgeBalance", "lockedFunds", "preCommitDeposits", "feeDebt")
    _ACCOUNTS = ("workerBalance", "postBalance")
    _POWER = ("effectivePower", "rawPower", "expectBlock")
    _DEADLINE = ("deadlineIndex", "deadlineOpen", "deadlineClose")
    _PARTITIONS = ("deadlinePartitions", "deadlineFaults")
    _PROOFS = ("deadlineProven",)
    fields = (*_STATE, *_ACCOUNTS, *_POWER, "minerAvailable", *_DEADLINE, *_PARTITIONS, *_PROOFS)
    host_fields = ()

    def __init__(self, environment: Environment, miner: str, *, deadline: float) -> None:
        self._environment, self._miner, self._deadline = environment, miner, deadline
        self._calls = Calls()
        self._ids: dict[str, str] = {}
        self._config: tuple[str, AddressConfig] | None = None

    def sample(self) -> Reading:
        """Ask the full node, and lotus-miner for the uses of the control addresses."""
        poll = _Poll()
        with _at_head(self._environment, self._calls, self._deadline) as (verdict, head):
            ask = partial(self._state, head.cids or [])
            info = poll.ask(self._ACCOUNTS, lambda: decode_state_miner_info(ask("StateMinerInfo")))
            state = poll.ask(self._STATE, lambda: decode_state_read_state(ask("StateReadState")))
            if state is not None:
                poll.values |= miner_info.balances(state)
            eligible = miner_info.is_eligible(
                fee_debt=None if state is None else state.state.fee_debt,
                fault_elapsed=None if info is None else info.consensus_fault_elapsed,
                height=head.height,
            )
            poll.take(
                self._POWER,
                lambda: miner_info.power(decode_state_miner_power(ask("StateMinerPower")), eligible=eligible),
            )
            poll.take(
                ("minerAvailable",),
                lambda: miner_info.available(decode_state_miner_available_balance(ask("StateMinerAvailableBalance"))),
            )
            self._take_deadline(poll, ask)
            if info is not None:
                self._take_accounts(poll, info, verdict)
        return poll.reading()

    def _state(self, tipset: list[dict[str, str]], method: str, *more: int) -> bytes:
        return self._calls.node(method, self._miner, *more, tipset, deadline=_STATE_DEADLINE)

    def _take_deadline(self, poll: _Poll, ask: Callable[..., bytes]) -> None:
        current = poll.ask(
            (*self._DEADLINE, *self._PARTITIONS, *self._PROOFS),
            lambda: decode_state_miner_proving_deadline(ask("StateMinerProvingDeadline")),
        )
        if current is None:
            return
        index = current.index
        poll.values |= miner_info.deadline(current)
        poll.take(
            self._PARTITIONS,
            lambda: miner_info.partitions(decode_state_miner_partitions(ask("StateMinerPartitions", index))),
        )
        poll.take(
            self._PROOFS,
            lambda: miner_info.proofs(decode_state_miner_deadlines(ask("StateMinerDeadlines")), index),
        )

    def _take_accounts(self, poll: _Poll, info: MinerInfo, verdict: Verdict) -> None:
        post = poll.ask(("postBalance",), lambda: miner_info.post_addresses(info, self._reserved(verdict))) or ()
        wallet = {
            address: poll.ask(self._ACCOUNTS, partial(self._balance, address)) for address in {info.worker, *post}
        }
        known = {address: balance for address, balance in wallet.items() if balance is not None}
        told = miner_info.account_balances(info, post, known)
        if not post:
            told.pop("postBalance", None)
        for name in told:
            poll.problems.pop(name, None)
        poll.values |= told

    def _balance(self, address: str) -> int:
        return decode_wallet_balance(self._calls.node("WalletBalance", address, deadline=_STATE_DEADLINE))

    def _reserved(self, verdict: Verdict) -> list[str]:
        """The control addresses with another use than WindowPoSt, as ID addresses. They change with a restart only."""
        if verdict.miner_problem is not None or verdict.miner is None:
            if self._config is None:
                raise SourceError(verdict.miner_problem or "lotus-miner was not asked yet")
        elif self._config is None or self._config[0] != verdict.miner.session:
            answer = self._calls.miner("ActorAddressConfig", deadline=DEADLINE)
            self._config = (verdict.miner.session, decode_actor_address_config(answer))
        return [self._id_of(address) for address in self._config[1].reserved]

    def _id_of(self, address: str) -> str:
        """The ID address of an address, asked for once: it stays for ever."""
        if address[1:2] == "0":
            return address
        if address not in self._ids:
            self._ids[address] = decode_state_lookup_id(
                self._calls.node("StateLookupID", address, [], deadline=_STATE_DEADLINE)
            )
        return self._ids[address]


class Walk:
    """What the full node walks through all partitions for: a heavy poll at a slow interval."""

    name = "chain"
    _COUNTS = ("liveSectors", "effectiveSectors", "errorSectors", "unprovenSectors")
    fields = (*_COUNTS, "recoverySectors")
    host_fields = ()

    def __init__(self, environment: Environment, miner: str, *, deadline: float) -> None:
        self._environment, self._miner, self._deadline = environment, miner, deadline
        self._calls = Calls()

    def sample(self) -> Reading:
        """Ask the full node, on one tipset."""
        poll = _Poll()
        with _at_head(self._environment, self._calls, self._deadline) as (_, head):
            ask = partial(self._state, head.cids or [])
            poll.take(
                self._COUNTS,
                lambda: miner_info.sectors(decode_state_miner_sector_count(ask("StateMinerSectorCount"))),
            )
            poll.take(
                ("recoverySectors",),
                lambda: miner_info.recoveries(decode_state_miner_recoveries(ask("StateMinerRecoveries"))),
            )
        return poll.reading()

    def _state(self, tipset: list[dict[str, str]], method: str) -> bytes:
        return self._calls.node(method, self._miner, tipset, deadline=_WALK_DEADLINE)


@contextmanager
def _at_head(environment: Environment, calls: Calls, deadline: float) -> Iterator[tuple[Verdict, ChainHead]]:
    """Calls to the full node within a deadline, and the head of its chain, on whose tipset they all are."""
    verdict = environment.require_node()
    calls.aim(verdict.endpoint, verdict.nodes)
    with calls.within(deadline):
        yield verdict, decode_chain_head(calls.node("ChainHead", deadline=DEADLINE))


def _session(environment: Environment, calls: Calls) -> tuple[str, Verdict]:
    """The session of lotus-miner now, by which a restart amid the polls shows, and what is known of it."""
    verdict = environment.require_miner()
    calls.aim(verdict.endpoint, verdict.nodes)
    session = decode_session(calls.miner("Session", deadline=DEADLINE))
    return session, environment.require_miner(session)
