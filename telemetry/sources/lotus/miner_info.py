"""From what Lotus answered to the values of minerInfo: one function for each call, so that one failing costs no other.

Names of functions and files in the docstrings are those of Lotus v1.36, from which a formula comes.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Context, Decimal

from telemetry.fields import Value
from telemetry.sources.lotus.answers import (
    ChainHead,
    Deadline,
    MinerInfo,
    MinerPower,
    MinerState,
    Partition,
    ProvingDeadline,
    SectorCount,
    count_bits,
)

_EXACT = Context(prec=100)
_NANO_FIL = Decimal("1e-9")

_EPOCHS_IN_DAY = 2880
_EPOCH_SECONDS = 30
_BLOCKS_PER_EPOCH = 5

# A state keeps its name for ever, but the path through them was changed by v1.24 and v1.26: those that wait for the
# same message count together, and a name that the running Lotus does not have counts 0.
_STATES_BY_FIELD = {
    "deletedSectors": ("Removed", "Removing"),
    "preCommit1": ("PreCommit1",),
    "preCommit2": ("PreCommit2",),
    "preCommitWait": ("PreCommitWait", "PreCommitBatchWait", "SubmitPreCommitBatch", "PreCommitting"),
    "waitSeed": ("WaitSeed",),
    "committing": ("Committing",),
    "commitWait": ("CommitWait", "CommitAggregateWait", "SubmitCommitAggregate", "SubmitCommit"),
    "finalizeSector": ("FinalizeSector", "CommitFinalize"),
}

SEALING_FIELDS = (*_STATES_BY_FIELD, "totalSectors", "failSectors", "sectorStates")

_FAILED_BY_OTHER_NAMES = {
    *("FailedUnrecoverable", "DealsExpired", "RecoverDealIDs", "SnapDealsDealsExpired", "SnapDealsRecoverDealIDs"),
    "",
}


def fil(atto: int) -> float:
    """FIL of an amount in attoFIL, rounded to 9 decimals before it becomes a binary number."""
    rounded = _EXACT.quantize(_EXACT.scaleb(Decimal(atto), -18), _NANO_FIL)
    return float(rounded) + 0.0  # there is no -0.0


def balances(state: MinerState) -> dict[str, Value]:
    """Balance of the miner and what of it is bound (StateReadState; miner_state.go of the actors)."""
    amounts = {
        "minerBalance": state.balance,
        "pledgeBalance": state.state.initial_pledge,
        "lockedFunds": state.state.locked_funds,
        "preCommitDeposits": state.state.pre_commit_deposits,
        "feeDebt": state.state.fee_debt,
    }
    return {name: fil(atto) for name, atto in amounts.items()}


def available(atto: int) -> dict[str, Value]:
    """What can be withdrawn (StateMinerAvailableBalance): vested rewards are in it, unlike in `lotus-miner info`."""
    return {"minerAvailable": fil(atto)}


def post_addresses(info: MinerInfo, reserved: Collection[str]) -> tuple[str, ...]:
    """Give the addresses that pay for WindowPoSt: the control addresses without another use, else the worker.

    `reserved` are the addresses of AddressConfig, as ID addresses. From AddressSelector.AddressFor
    (storage/ctladdr/addresses.go).
    """
    others = {*reserved, info.owner, info.worker, "<empty>"}
    dedicated = dict.fromkeys(address for address in info.control_addresses or () if address not in others)
    return tuple(dedicated) or (info.worker,)


def account_balances(info: MinerInfo, post: Collection[str], wallet: Mapping[str, int]) -> dict[str, Value]:
    """Balance of the worker and sum of the `post` addresses; `wallet` has the balances that could be read."""
    wanted = {"workerBalance": {info.worker}, "postBalance": set(post)}
    return {
        name: fil(sum(wallet[address] for address in addresses))
        for name, addresses in wanted.items()
        if addresses <= wallet.keys()
    }


def is_eligible(*, fee_debt: int | None, fault_elapsed: int | None, height: int | None) -> bool:
    """Whether neither debt nor a consensus fault bars the miner from winning; None is not known and bars nothing.

    From MinerEligibleToMine (chain/stmgr/actors.go).
    """
    in_debt = fee_debt is not None and fee_debt > 0
    at_fault = fault_elapsed is not None and height is not None and height <= fault_elapsed
    return not in_debt and not at_fault


def power(answer: MinerPower, *, eligible: bool = True) -> dict[str, Value]:
    """Power of the miner, and the epochs with a won block that it can expect a day (StateMinerPower)."""
    return {
        "effectivePower": int(answer.miner_power.quality_adj_power),
        "rawPower": int(answer.miner_power.raw_byte_power),
        "expectBlock": _wins_per_day(answer) if eligible else 0.0,
    }


def _wins_per_day(answer: MinerPower) -> float:
    """Follow handleMiningInfo (cli/miner/info.go, since v1.11), which gives the same for a week."""
    if not answer.has_min_power or answer.total_power.quality_adj_power <= 0:
        return 0.0
    share = answer.miner_power.quality_adj_power / answer.total_power.quality_adj_power
    return _EPOCHS_IN_DAY * -math.expm1(-_BLOCKS_PER_EPOCH * share)


def sealing(summary: Mapping[str, int]) -> dict[str, Value]:
    """Sectors by what the sealing does with them (SectorsSummary; storage/pipeline/sector_state.go)."""
    counts = {name: _sum_of(summary, states) for name, states in _STATES_BY_FIELD.items()}
    return {
        **counts,
        "totalSectors": sum(summary.values()) - summary.get("Removed", 0),
        "failSectors": _sum_of(summary, filter(_is_failed, summary)),
        "sectorStates": dict(summary),
    }


def _is_failed(state: str) -> bool:
    """Whether a state is red in `lotus-miner info` (cli/spcli/statemeta.go), or fails by its name.

    Faulty ones are not: the chain counts them, in errorSectors.
    """
    return state.endswith("Failed") or state in _FAILED_BY_OTHER_NAMES


def _sum_of(summary: Mapping[str, int], states: Iterable[str]) -> int:
    return sum(summary.get(state, 0) for state in states)


def sectors(count: SectorCount) -> dict[str, Value]:
    """Sectors on chain (StateMinerSectorCount; node/impl/full/state.go)."""
    return {
        "liveSectors": count.live,
        "effectiveSectors": count.active,
        "errorSectors": count.faulty,
        "unprovenSectors": max(0, count.live - count.active - count.faulty),
    }


def recoveries(runs: Sequence[int]) -> dict[str, Value]:
    """Sectors that are declared as recovering (StateMinerRecoveries)."""
    return {"recoverySectors": count_bits(runs)}


def deadline(current: ProvingDeadline) -> dict[str, Value]:
    """The current deadline (StateMinerProvingDeadline)."""
    return {"deadlineIndex": current.index, "deadlineOpen": current.open, "deadlineClose": current.close}


def partitions(of_deadline: Iterable[Partition]) -> dict[str, Value]:
    """Partitions of the current deadline, counted as `lotus-miner proving deadlines` does (StateMinerPartitions)."""
    listed = list(of_deadline)
    return {
        "deadlinePartitions": sum(count_bits(partition.live_sectors) > 0 for partition in listed),
        "deadlineFaults": sum(count_bits(partition.faulty_sectors) for partition in listed),
    }


def proofs(deadlines: Sequence[Deadline], index: int) -> dict[str, Value]:
    """Partitions of deadline `index` that are proven in its window; none if it is not there (StateMinerDeadlines)."""
    here = deadlines[index : index + 1]
    return {"deadlineProven": count_bits(here[0].post_submissions)} if here else {}


def chain(head: ChainHead, now: float) -> dict[str, Value]:
    """Height and age of the chain's head (ChainHead); `now` in Unix seconds.

    Epochs behind are counted as NodeStatus does (node/impl/node.go).
    """
    age = head.age(now)
    if age is None:
        return {"chainHeight": head.height}
    behind = max(0, int(age)) // _EPOCH_SECONDS
    return {"chainHeight": head.height, "chainLag": round(age, 3), "chainBehind": behind}


class SummaryGuard:
    """Holds back the counts of a lotus-miner that was just started: it fills its summary for up to minutes.

    Such a summary is let pass once it is about as large as the last one of before, or did not grow between two
    polls. (storage/pipeline/stats.go, since v1.25.2.)
    """

    _MISSING_SHARE = 1000

    def __init__(self) -> None:
        self._session: str | None = None
        self._trusted = False
        self._polled: int | None = None
        self._known: int | None = None

    def admits(self, session: str, summary: Mapping[str, int], *, settled: bool = False) -> bool:
        """Take a poll; whether its counts can be told. `session` is what the method Session answered in it.

        `settled`: that session began long ago.
        """
        if session != self._session:
            self._session, self._trusted, self._polled = session, False, None
        total = sum(summary.values())
        self._trusted = self._trusted or settled or total == self._polled or self._is_whole(total)
        self._polled = total
        if self._trusted:
            self._known = total
        return self._trusted

    def _is_whole(self, total: int) -> bool:
        return self._known is not None and total >= self._known - self._known // self._MISSING_SHARE
