import json
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from telemetry.fields import Value, fits
from telemetry.records import MINER_INFO
from telemetry.sources.lotus import answers, miner_info
from telemetry.sources.lotus.answers import AnswerError, Job, Request, WorkerStat, bits, count_bits
from telemetry.sources.lotus.miner_info import SummaryGuard, fil

OPENRPC = Path(__file__).parents[2] / "shared/lotus/openrpc.json"

ZERO = "00000000-0000-0000-0000-000000000000"
CALL = "fa36d8f1-c98f-4b3c-9d0e-1a2b3c4d5e6f"
WORKER = "c4d65451-07f8-4230-98ad-4f33dea2a8cc"

DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    "ActorAddress": answers.decode_actor_address,
    "ActorAddressConfig": answers.decode_actor_address_config,
    "ChainHead": answers.decode_chain_head,
    "SealingSchedDiag": answers.decode_sealing_sched_diag,
    "SectorsSummary": answers.decode_sectors_summary,
    "Session": answers.decode_session,
    "StartTime": answers.decode_start_time,
    "StateLookupID": answers.decode_state_lookup_id,
    "StateMinerAvailableBalance": answers.decode_state_miner_available_balance,
    "StateMinerDeadlines": answers.decode_state_miner_deadlines,
    "StateMinerInfo": answers.decode_state_miner_info,
    "StateMinerPartitions": answers.decode_state_miner_partitions,
    "StateMinerPower": answers.decode_state_miner_power,
    "StateMinerProvingDeadline": answers.decode_state_miner_proving_deadline,
    "StateMinerRecoveries": answers.decode_state_miner_recoveries,
    "StateMinerSectorCount": answers.decode_state_miner_sector_count,
    "StateReadState": answers.decode_state_read_state,
    "Version": answers.decode_version,
    "WalletBalance": answers.decode_wallet_balance,
    "WorkerJobs": answers.decode_worker_jobs,
    "WorkerStats": answers.decode_worker_stats,
}

# A real miner of July 2024, on Lotus v1.36's shapes.
MINER: dict[str, Any] = {
    "ActorAddress": "f01234",
    "ActorAddressConfig": {
        "PreCommitControl": ["f01236"], "CommitControl": ["f01236"], "TerminateControl": [],
        "DealPublishControl": None, "DisableOwnerFallback": True, "DisableWorkerFallback": False,
    },
    "ChainHead": {
        "Cids": [{"/": "bafy2bzacedo7hjsumaajt6sbor42qycvjyk6goqe4oi4o4ddsjxkdeqrqf42c"}],
        "Blocks": [
            {"Miner": "f01938223", "Height": 4863283, "Timestamp": 1744204890, "ParentBaseFee": "100"},
            {"Miner": "f01938224", "Height": 4863283, "Timestamp": 1744204891, "ParentBaseFee": "100"},
        ],
        "Height": 4863283,
    },
    "SealingSchedDiag": {
        "SchedInfo": {
            "Requests": [{
                "Sector": {"Miner": 1234, "Number": 4570}, "TaskType": "seal/v0/precommit/2", "Priority": 1024,
                "SchedId": "0f3c9a56-5b0e-4e0a-8f0a-1f2e3d4c5b6a",
            }],
            "OpenWindows": ["9ffca929-e969-4eaa-9537-b3726641a535"],
        },
        "ReturnedWork": None, "Waiting": ["seal/v0/commit/2(8e6d)"],
        "CallToWork": {f"1234-444-{CALL}": "seal/v0/commit/2(8e6d)"}, "EarlyRet": None,
    },
    "SectorsSummary": {
        "Proving": 34898, "AddPiece": 14, "PreCommit1": 474, "PreCommit2": 70, "PreCommitBatchWait": 6,
        "WaitSeed": 169, "Committing": 11, "CommitAggregateWait": 9, "FinalizeSector": 7, "Removed": 2,
    },
    "Session": "07070707-0707-0707-0707-070707070707",
    "StartTime": "2024-07-10T07:52:23.123456789+08:00",
    "StateLookupID": "f01235",
    "StateMinerAvailableBalance": "2864733000000000000000",
    "StateMinerDeadlines": [{"PostSubmissions": [0, 1], "DisputableProofCount": 1, "DailyFee": "0"}] * 48,
    "StateMinerInfo": {
        "Owner": "f0100", "Worker": "f0101", "NewWorker": "<empty>", "ControlAddresses": ["f01235", "f01236"],
        "WorkerChangeEpoch": -1, "PeerId": None, "Multiaddrs": None, "WindowPoStProofType": 8,
        "SectorSize": 34359738368, "WindowPoStPartitionSectors": 2349, "ConsensusFaultElapsed": -1,
        "PendingOwnerAddress": None, "Beneficiary": "f0100",
        "BeneficiaryTerm": {"Quota": "0", "UsedQuota": "0", "Expiration": 0}, "PendingBeneficiaryTerm": None,
    },
    "StateMinerPartitions": [
        {"AllSectors": [0, 2349], "FaultySectors": [5, 1], "RecoveringSectors": [5, 1], "LiveSectors": [0, 2349],
         "ActiveSectors": [0, 5, 1, 2343]},
        {"AllSectors": [2349, 2349], "FaultySectors": [0], "RecoveringSectors": [0], "LiveSectors": [0],
         "ActiveSectors": [0]},
    ],
    "StateMinerPower": {
        "MinerPower": {"RawBytePower": "1116004302192640", "QualityAdjPower": "11157668076810404"},
        "TotalPower": {"RawBytePower": "6527841559083967488", "QualityAdjPower": "26171318154575425536"},
        "HasMinPower": True,
    },
    "StateMinerProvingDeadline": {
        "CurrentEpoch": 860894, "PeriodStart": 860664, "Index": 4, "Open": 860904, "Close": 860964,
        "Challenge": 860884, "FaultCutoff": 860834, "WPoStPeriodDeadlines": 48, "WPoStProvingPeriod": 2880,
    },
    "StateMinerRecoveries": [5, 1],
    "StateMinerSectorCount": {"Live": 34832, "Active": 32480, "Faulty": 3},
    "StateReadState": {
        "Balance": "55398537000000000000000", "Code": {"/": "bafk"},
        "State": {
            "Info": {"/": "bafy"}, "PreCommitDeposits": "7056000000000000000",
            "LockedFunds": "155325000000000000000",
            "VestingFunds": {"Head": {"Epoch": 4100000, "Amount": "1000000000000000000"}, "Tail": {"/": "bafy"}},
            "FeeDebt": "0", "InitialPledge": "52371423000000000000000", "EarlyTerminations": [0],
            "ProvingPeriodStart": 4099000, "CurrentDeadline": 33, "DeadlineCronActive": True,
        },
    },
    "Version": {"Version": "1.36.1+mainnet+git.0123456789", "APIVersion": 66816, "BlockDelay": 30, "Agent": ""},
    "WalletBalance": "34359000000000000000",
    "WorkerJobs": {
        WORKER: [
            {"ID": {"Sector": {"Miner": 1234, "Number": 4562}, "ID": CALL},
             "Sector": {"Miner": 1234, "Number": 4562}, "Task": "seal/v0/precommit/1", "RunWait": 0,
             "Start": "2024-07-23T10:00:00.123456789+08:00"},
            {"ID": {"Sector": {"Miner": 0, "Number": 0}, "ID": ZERO},
             "Sector": {"Miner": 1234, "Number": 4554}, "Task": "seal/v0/precommit/2", "RunWait": 2,
             "Start": "2024-07-23T09:00:00.5+08:00"},
        ],
        ZERO: [
            {"ID": {"Sector": {"Miner": 1234, "Number": 444}, "ID": CALL},
             "Sector": {"Miner": 1234, "Number": 444}, "Task": "seal/v0/commit/2", "RunWait": -1,
             "Start": "1970-01-01T08:00:00+08:00", "Hostname": "seal02"},
        ],
    },
    "WorkerStats": {
        WORKER: {
            "Info": {
                "Hostname": "seal01", "IgnoreResources": False,
                "Resources": {
                    "MemPhysical": 1082331758592, "GPUs": ["NVIDIA GeForce RTX 3090"],
                    "Resources": {"seal/v0/precommit/1": {"8": {"MinMemory": 60129542144, "MaxConcurrent": 14}}},
                },
            },
            "Tasks": ["seal/v0/precommit/1", "seal/v0/addpiece"], "Enabled": True, "MemUsedMin": 240518168576,
            "GpuUsed": 0, "CpuUse": 4, "TaskCounts": {"8:seal/v0/precommit/1": 4, "8:": 0},
        },
    },
}  # fmt: skip


def decode(method: str, result: object) -> Any:
    return DECODERS[method](json.dumps(result).encode())


def changed(method: str, **members: object) -> Any:
    return decode(method, {**MINER[method], **members})


def values_of(results: Mapping[str, Any]) -> dict[str, Value]:
    """All that minerInfo has of a miner that answers so."""
    answer = {method: decode(method, result) for method, result in results.items()}
    info, current = answer["StateMinerInfo"], answer["StateMinerProvingDeadline"]
    post = miner_info.post_addresses(info, answer["ActorAddressConfig"].reserved)
    return {
        **miner_info.balances(answer["StateReadState"]),
        **miner_info.available(answer["StateMinerAvailableBalance"]),
        **miner_info.account_balances(info, post, dict.fromkeys([info.worker, *post], answer["WalletBalance"])),
        **miner_info.power(answer["StateMinerPower"]),
        **miner_info.sealing(answer["SectorsSummary"]),
        **miner_info.sectors(answer["StateMinerSectorCount"]),
        **miner_info.recoveries(answer["StateMinerRecoveries"]),
        **miner_info.deadline(current),
        **miner_info.partitions(answer["StateMinerPartitions"]),
        **miner_info.proofs(answer["StateMinerDeadlines"], current.index),
        **miner_info.chain(answer["ChainHead"], 1744204902.5),
    }


def mistyped(values: Mapping[str, Value]) -> list[str]:
    return [name for name, value in values.items() if not fits(MINER_INFO.by_name[name].type, value)]


def summary(**states: int) -> dict[str, Value]:
    return miner_info.sealing(decode("SectorsSummary", states))


# ---- the whole record


def test_the_miner_of_the_contract_has_these_values() -> None:
    values = values_of(MINER)
    assert mistyped(values) == []
    assert values.pop("sectorStates") == MINER["SectorsSummary"]
    assert values.pop("expectBlock") == pytest.approx(6.1327, abs=1e-4)
    assert values == {
        "minerBalance": 55398.537, "workerBalance": 34.359, "postBalance": 34.359, "pledgeBalance": 52371.423,
        "minerAvailable": 2864.733, "lockedFunds": 155.325, "preCommitDeposits": 7.056, "feeDebt": 0.0,
        "effectivePower": 11157668076810404, "rawPower": 1116004302192640,
        "totalSectors": 35658, "deletedSectors": 2, "failSectors": 0,
        "preCommit1": 474, "preCommit2": 70, "preCommitWait": 6, "waitSeed": 169, "committing": 11,
        "commitWait": 9, "finalizeSector": 7,
        "liveSectors": 34832, "effectiveSectors": 32480, "errorSectors": 3, "unprovenSectors": 2349,
        "recoverySectors": 1,
        "deadlineIndex": 4, "deadlineOpen": 860904, "deadlineClose": 860964, "deadlinePartitions": 1,
        "deadlineProven": 1, "deadlineFaults": 1,
        "chainHeight": 4863283, "chainLag": 12.5, "chainBehind": 0,
    }  # fmt: skip


def test_every_field_but_those_of_other_sources_is_produced() -> None:
    elsewhere = {
        *("minerId", "unassignedQueue", "unassignedTasks", "returnedTasks"),
        *("lotusState", "minerVersion", "nodeVersion", "minerStart", "netState", "netSince"),
    }
    assert set(values_of(MINER)) == set(MINER_INFO.by_name) - elsewhere


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: reordered(value[name]) for name in reversed(value)}
    return [reordered(entry) for entry in value] if isinstance(value, list) else value


def test_the_order_of_members_does_not_matter() -> None:
    assert values_of(reordered(MINER)) == values_of(MINER)


@given(st.permutations(sorted(MINER["SectorsSummary"])))
def test_the_order_of_states_does_not_matter(names: list[str]) -> None:
    states = {name: MINER["SectorsSummary"][name] for name in names}
    assert miner_info.sealing(states) == miner_info.sealing(MINER["SectorsSummary"])


# ---- FIL


def exact(atto: int) -> float:
    with localcontext(prec=200):
        return float((Decimal(atto) / 10**18).quantize(Decimal("1e-9"), rounding=ROUND_HALF_EVEN))


@given(st.integers(min_value=-(10**40), max_value=10**40))
@example(2864733000000000000000)
@example(1_234_567_890_123_456_789_500_000_000)
@example(10**28 + 5 * 10**8)
def test_fil_is_the_float_nearest_to_the_amount_rounded_to_9_decimals(atto: int) -> None:
    assert fil(atto) == exact(atto)


@pytest.mark.parametrize(
    ("atto", "shown"),
    [
        (0, "0.0"), (-1, "0.0"), (499_999_999, "0.0"), (500_000_001, "1e-09"), (-(10**18), "-1.0"),
        (1_000_000_001_499_999_999, "1.000000001"), (12_345_678_901_234_567_890, "12.345678901"),
    ],
)  # fmt: skip
def test_fil_reads_as_it_is_written(atto: int, shown: str) -> None:
    assert repr(fil(atto)) == shown


def test_the_balance_is_the_sum_of_its_parts() -> None:
    state = decode("StateReadState", MINER["StateReadState"])
    bound = state.state.pre_commit_deposits + state.state.initial_pledge + state.state.locked_funds
    unbound = decode("StateMinerAvailableBalance", MINER["StateMinerAvailableBalance"])
    assert state.balance == bound + unbound + state.state.fee_debt


def test_more_debt_than_funds_is_a_negative_balance() -> None:
    atto = decode("StateMinerAvailableBalance", "-12500000000000000000")
    assert miner_info.available(atto) == {"minerAvailable": -12.5}


@pytest.mark.parametrize("nil", [None, "", "<nil>", "0", "-0"])
def test_an_integer_that_is_nil_is_0(nil: str | None) -> None:
    assert decode("WalletBalance", nil) == 0


@pytest.mark.parametrize("text", ["1.5", "1e18", "0x10", "１２", " 1", "1 FIL", "9" * 61, "1_0", 1.5, True, ["1"]])
def test_an_integer_that_is_none_is_told(text: object) -> None:
    with pytest.raises(AnswerError, match=r"^WalletBalance: Expected a decimal integer as text"):
        decode("WalletBalance", text)


# ---- accounts


@pytest.mark.parametrize(
    ("control", "reserved", "payers"),
    [
        (["f01235", "f01236"], ["f01236"], ("f01235",)),
        (["f01237", "f01235", "f01237"], [], ("f01237", "f01235")),
        (["f0100", "f0101", "f01235"], [], ("f01235",)),
        (["f01236"], ["f01236"], ("f0101",)),
        (["f0100", "<empty>"], [], ("f0101",)),
        ([], ["f01236"], ("f0101",)),
        (None, [], ("f0101",)),
    ],
)
def test_post_is_paid_by_control_addresses_without_another_use_else_by_the_worker(
    control: list[str] | None, reserved: list[str], payers: tuple[str, ...]
) -> None:
    info = changed("StateMinerInfo", ControlAddresses=control)
    assert miner_info.post_addresses(info, reserved) == payers


def test_the_reserved_addresses_are_those_of_all_four_lists() -> None:
    config = changed(
        "ActorAddressConfig", CommitControl=["f3abc"], TerminateControl=["f04", "<empty>"], DealPublishControl=["f05"]
    )
    assert config.reserved == ("f01236", "f3abc", "f04", "f05")
    assert decode("ActorAddressConfig", {}).reserved == ()


def test_post_balance_is_the_sum_of_its_addresses() -> None:
    info = decode("StateMinerInfo", MINER["StateMinerInfo"])
    wallet = {"f0101": 5 * 10**18, "f01235": 10**18, "f01237": 2 * 10**18}
    balances = miner_info.account_balances(info, ("f01235", "f01237"), wallet)
    assert balances == {"workerBalance": 5.0, "postBalance": 3.0}


def test_a_balance_that_could_not_be_read_costs_only_what_it_is_part_of() -> None:
    info = decode("StateMinerInfo", MINER["StateMinerInfo"])
    assert miner_info.account_balances(info, ("f01235", "f01237"), {"f0101": 0, "f01235": 1}) == {"workerBalance": 0.0}
    assert miner_info.account_balances(info, ("f01235",), {"f01235": 10**18}) == {"postBalance": 1.0}


@pytest.mark.parametrize("method", ["ActorAddress", "StateLookupID"])
@pytest.mark.parametrize("text", ["<empty>", ""])
def test_an_address_that_is_none_is_told(method: str, text: str) -> None:
    with pytest.raises(AnswerError, match=f"^{method}: no address$"):
        decode(method, text)


# ---- power


def wins(quality: int, network: int, *, has_min_power: bool = True, eligible: bool = True) -> Value:
    claim = {"RawBytePower": "1", "QualityAdjPower": str(quality)}
    total = {"RawBytePower": "1", "QualityAdjPower": str(network)}
    answer = decode("StateMinerPower", {"MinerPower": claim, "TotalPower": total, "HasMinPower": has_min_power})
    return miner_info.power(answer, eligible=eligible)["expectBlock"]


@pytest.mark.parametrize(
    ("share_of_million", "a_day"), [(1_000_000, 2860.5947), (427, 6.1422), (1000, 14.3641), (100_000, 1133.1917)]
)
def test_expected_wins_agree_with_the_check_values(share_of_million: int, a_day: float) -> None:
    assert wins(share_of_million * 10**10, 10**16) == pytest.approx(a_day, abs=5e-5)


def test_expected_wins_of_a_tiny_share_are_not_lost_in_rounding() -> None:
    assert wins(1, 10**19) == pytest.approx(2880 * 5e-19, rel=1e-12)


def test_who_is_not_eligible_wins_nothing() -> None:
    assert wins(10**15, 10**19, has_min_power=False) == 0.0
    assert wins(10**15, 10**19, eligible=False) == 0.0
    assert repr(wins(0, 10**19)) == "0.0"
    assert wins(1, 0) == 0.0


def test_a_miner_without_a_claim_has_no_power() -> None:
    none = {"RawBytePower": "0", "QualityAdjPower": "0"}
    answer = decode("StateMinerPower", {"MinerPower": none, "TotalPower": none, "HasMinPower": False})
    assert miner_info.power(answer) == {"effectivePower": 0, "rawPower": 0, "expectBlock": 0.0}


def test_a_power_that_no_miner_can_have_is_told() -> None:
    claim = {"RawBytePower": "0", "QualityAdjPower": str(2**63)}
    with pytest.raises(AnswerError, match=r"StateMinerPower: Expected a power of at most 63 bits - at `\$.MinerPower"):
        changed("StateMinerPower", MinerPower=claim)


@pytest.mark.parametrize(
    ("debt", "fault", "height", "eligible"),
    [
        (0, -1, 100, True), (None, None, None, True), (1, -1, 100, False), (0, 100, 100, False),
        (0, 100, 101, True), (0, 100, None, True), (None, 101, 100, False),
    ],
)  # fmt: skip
def test_debt_and_a_consensus_fault_bar_from_winning(
    debt: int | None, fault: int | None, height: int | None, eligible: bool
) -> None:  # fmt: skip
    assert miner_info.is_eligible(fee_debt=debt, fault_elapsed=fault, height=height) is eligible


# ---- sealing


@pytest.mark.parametrize(
    ("states", "pre_commit_wait", "commit_wait"),
    [
        ({"PreCommitting": 1, "PreCommitWait": 2, "SubmitCommit": 3, "CommitWait": 4}, 3, 7),
        ({"SubmitPreCommitBatch": 1, "PreCommitBatchWait": 2, "SubmitCommit": 3, "CommitWait": 4}, 3, 7),
        ({"SubmitPreCommitBatch": 1, "PreCommitBatchWait": 2, "SubmitCommitAggregate": 3, "CommitAggregateWait": 4},
         3, 7),
        ({"PreCommitBatchWait": 2, "PreCommitWait": 1, "CommitAggregateWait": 4, "CommitWait": 1}, 3, 5),
        ({"Proving": 9}, 0, 0),
    ],
    ids=["v1.13", "v1.25", "v1.36", "retried", "idle"],
)  # fmt: skip
def test_states_that_wait_for_one_message_count_together(
    states: dict[str, int], pre_commit_wait: int, commit_wait: int
) -> None:
    values = summary(**states)
    assert (values["preCommitWait"], values["commitWait"]) == (pre_commit_wait, commit_wait)


RED = (
    "FailedUnrecoverable", "AddPieceFailed", "SealPreCommit1Failed", "SealPreCommit2Failed", "PreCommitFailed",
    "ComputeProofFailed", "RemoteCommitFailed", "CommitFailed", "CommitFinalizeFailed", "PackingFailed",
    "FinalizeFailed", "RemoveFailed", "DealsExpired", "RecoverDealIDs", "SnapDealsAddPieceFailed",
    "SnapDealsDealsExpired", "ReplicaUpdateFailed", "ReleaseSectorKeyFailed", "FinalizeReplicaUpdateFailed",
    "SnapDealsRecoverDealIDs", "TerminateFailed",
)  # fmt: skip

NOT_FAILED = (
    "Empty", "WaitDeals", "AddPiece", "Packing", "GetTicket", "PreCommit1", "PreCommit2", "PreCommitting",
    "PreCommitWait", "SubmitPreCommitBatch", "PreCommitBatchWait", "WaitSeed", "Committing", "CommitFinalize",
    "SubmitCommit", "CommitWait", "SubmitCommitAggregate", "CommitAggregateWait", "FinalizeSector", "Proving",
    "Available", "SnapDealsWaitDeals", "SnapDealsAddPiece", "SnapDealsPacking", "UpdateReplica",
    "ProveReplicaUpdate", "SubmitReplicaUpdate", "WaitMutable", "ReplicaUpdateWait", "FinalizeReplicaUpdate",
    "UpdateActivating", "ReleaseSectorKey", "ReceiveSector", "Faulty", "FaultReported", "FaultedFinal",
    "Terminating", "TerminateWait", "TerminateFinality", "Removing", "Removed", "AbortUpgrade",
)  # fmt: skip


@pytest.mark.parametrize("state", [*RED, "", "SomethingNewFailed"])
def test_a_failed_state_is_counted_as_failed(state: str) -> None:
    assert summary(**{state: 3, "Proving": 5})["failSectors"] == 3


@pytest.mark.parametrize("state", [*NOT_FAILED, "SomethingNew"])
def test_no_other_state_is_counted_as_failed(state: str) -> None:
    assert summary(**{state: 3})["failSectors"] == 0


def test_the_states_of_lotus_are_all_sorted() -> None:
    assert len({*RED, *NOT_FAILED}) == len(RED) + len(NOT_FAILED) == 63


def test_removed_sectors_are_not_held_and_those_being_removed_are() -> None:
    values = summary(Proving=10, Removing=2, Removed=3, RemoveFailed=1, Terminating=4)
    assert (values["totalSectors"], values["deletedSectors"]) == (17, 5)


def test_a_state_that_nobody_knows_is_in_the_total_and_in_the_map() -> None:
    values = summary(Proving=1, Dreaming=2)
    assert (values["totalSectors"], values["sectorStates"]) == (3, {"Proving": 1, "Dreaming": 2})


@pytest.mark.parametrize("empty", [None, {}])
def test_a_miner_without_sectors_has_0_in_each_count(empty: object) -> None:
    values = miner_info.sealing(decode("SectorsSummary", empty))
    assert values.pop("sectorStates") == {}
    assert set(values.values()) == {0}


# ---- a summary that is being filled


def admitted(guard: SummaryGuard, session: str, *totals: int) -> list[bool]:
    return [guard.admits(session, {"Proving": total}) for total in totals]


def test_the_first_summary_of_a_session_waits_for_a_second_that_is_the_same() -> None:
    assert admitted(SummaryGuard(), "a", 10, 10, 11) == [False, True, True]
    assert admitted(SummaryGuard(), "a", 10, 200, 3000, 3000, 2999) == [False, False, False, True, True]


def test_after_a_restart_a_summary_as_large_as_before_passes_at_once() -> None:
    guard = SummaryGuard()
    admitted(guard, "a", 35_000, 35_000)
    assert admitted(guard, "b", 12_000, 34_964, 34_965, 34_000) == [False, False, True, True]
    assert admitted(guard, "c", 36_000) == [True]


def test_after_a_restart_a_smaller_summary_passes_when_it_stays() -> None:
    guard = SummaryGuard()
    admitted(guard, "a", 100, 100)
    assert admitted(guard, "b", 60, 60) == [False, True]
    assert admitted(guard, "c", 60) == [True]


def test_what_was_held_back_is_no_measure_for_the_next_session() -> None:
    guard = SummaryGuard()
    admitted(guard, "a", 100, 100)
    admitted(guard, "b", 5)
    assert admitted(guard, "c", 5, 99, 100) == [False, False, True]


def test_sectors_that_change_state_do_not_hold_the_summary_back() -> None:
    guard = SummaryGuard()
    assert guard.admits("a", {"PreCommit1": 5, "Proving": 5}) is False
    assert guard.admits("a", {"PreCommit2": 5, "Proving": 5}) is True


# ---- sectors on chain, deadline, head


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([0], []), ([5, 1], [5]), ([0, 3, 2, 1], [0, 1, 2, 5]), ([320, 1], [320]), ([], []), (None, []),
        ([2, 1, 7], [2]), ([0, 2, 0, 1], [0, 1, 2]),
    ],
)  # fmt: skip
def test_a_bit_field_is_runs_of_unset_and_set_bits(runs: list[int] | None, expected: list[int]) -> None:
    assert list(bits(runs)) == expected
    assert count_bits(runs) == len(expected)


@given(st.sets(st.integers(min_value=0, max_value=200)))
def test_bits_come_back_from_their_runs(wanted: set[int]) -> None:
    runs, on = [0], False
    for bit in range(202):
        if (bit in wanted) is not on:
            runs.append(0)
            on = not on
        runs[-1] += 1
    assert set(bits(runs)) == wanted
    assert count_bits(runs) == len(wanted)


def test_no_recoveries_are_0() -> None:
    assert miner_info.recoveries(decode("StateMinerRecoveries", None)) == {"recoverySectors": 0}
    assert miner_info.recoveries(decode("StateMinerRecoveries", [0])) == {"recoverySectors": 0}


def test_a_sector_may_have_the_greatest_number() -> None:
    runs = decode("StateMinerRecoveries", [2**63 - 1, 1])
    assert list(bits(runs)) == [2**63 - 1]
    assert miner_info.recoveries(runs) == {"recoverySectors": 1}


def test_the_dummy_counts_of_openrpc_make_no_negative_count() -> None:
    count = decode("StateMinerSectorCount", {"Live": 42, "Active": 42, "Faulty": 42})
    assert miner_info.sectors(count)["unprovenSectors"] == 0


def test_a_deadline_without_partitions_is_null() -> None:
    assert miner_info.partitions(decode("StateMinerPartitions", None)) == {
        "deadlinePartitions": 0,
        "deadlineFaults": 0,
    }


def test_proofs_are_those_of_the_current_deadline() -> None:
    deadlines = decode("StateMinerDeadlines", [{"PostSubmissions": [0]}, {"PostSubmissions": [0, 2, 1, 1]}, {}])
    assert [miner_info.proofs(deadlines, index) for index in range(4)] == [
        {"deadlineProven": 0},
        {"deadlineProven": 3},
        {"deadlineProven": 0},
        {},
    ]


def test_a_head_without_blocks_has_a_height_but_no_age() -> None:
    head = decode("ChainHead", {"Cids": None, "Blocks": None, "Height": 0})
    assert miner_info.chain(head, 1.0) == {"chainHeight": 0}


def test_the_tipset_key_goes_back_as_it_came() -> None:
    assert decode("ChainHead", MINER["ChainHead"]).cids == MINER["ChainHead"]["Cids"]


# ---- workers


def test_rows_of_the_workers_are_read() -> None:
    assert decode("WorkerStats", MINER["WorkerStats"]) == {
        WORKER: WorkerStat(
            hostname="seal01",
            enabled=True,
            tasks=("seal/v0/precommit/1", "seal/v0/addpiece"),
            task_counts={"8:seal/v0/precommit/1": 4, "8:": 0},
        )
    }
    jobs = decode("WorkerJobs", MINER["WorkerJobs"])
    assert jobs[WORKER] == (
        Job(sector=4562, miner=1234, task="seal/v0/precommit/1", run_wait=0, start_ms=1721700000123, hostname="",
            call_id=CALL),
        Job(sector=4554, miner=1234, task="seal/v0/precommit/2", run_wait=2, start_ms=1721696400500, hostname="",
            call_id=None),
    )  # fmt: skip
    assert jobs[ZERO][0] == Job(
        sector=444, miner=1234, task="seal/v0/commit/2", run_wait=-1, start_ms=None, hostname="seal02", call_id=CALL
    )
    assert decode("SealingSchedDiag", MINER["SealingSchedDiag"]) == (
        Request(sector=4570, miner=1234, task="seal/v0/precommit/2", priority=1024),
    )


@pytest.mark.parametrize(
    "diag", [{}, {"SchedInfo": None}, {"SchedInfo": {"Requests": None, "OpenWindows": None}, "Waiting": None}]
)
def test_no_requests_are_none(diag: object) -> None:
    assert decode("SealingSchedDiag", diag) == ()


def test_no_workers_and_no_jobs_are_none() -> None:
    assert decode("WorkerStats", None) == decode("WorkerStats", {}) == {}
    assert decode("WorkerJobs", None) == decode("WorkerJobs", {}) == {}
    assert decode("WorkerJobs", {WORKER: None}) == {WORKER: ()}


def test_the_tables_of_resources_are_skipped_whatever_they_are() -> None:
    stat = {**MINER["WorkerStats"][WORKER], "Info": {"Hostname": "h", "Resources": [[{"a": 1.5}], "b"]}, "GpuUsed": 0.5}
    assert decode("WorkerStats", {WORKER: stat})[WORKER].hostname == "h"


# ---- times


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("2024-07-10T07:52:23.123456789+08:00", 1720569143123), ("2024-07-09T23:52:23Z", 1720569143000),
        ("2024-07-09T23:52:23.1Z", 1720569143100), ("2024-07-09T18:22:23.12-05:30", 1720569143120),
        ("0001-01-01T00:00:00Z", None), ("0001-01-01T08:05:43+08:05", None), ("1970-01-01T00:00:00Z", None),
        ("1969-12-31T19:00:00-05:00", None), ("1970-01-01T08:00:00+08:00", None), (None, None),
        ("9999-12-31T23:59:59-12:00", 253402343999000),
    ],
)  # fmt: skip
def test_a_time_is_unix_milliseconds_or_unknown(text: str | None, start: int | None) -> None:
    assert decode("StartTime", text) == start


@pytest.mark.parametrize("text", ["", "now", "2024-07-10", "2024-07-10T07:52:23", "2024-13-01T00:00:00Z", 5, {}])
def test_a_time_that_is_none_is_told(text: object) -> None:
    with pytest.raises(AnswerError, match=r"^StartTime: "):
        decode("StartTime", text)


# ---- versions


def _v1_13_worker() -> dict[str, Any]:
    stat = dict(MINER["WorkerStats"][WORKER], GpuUsed=False)
    del stat["Tasks"], stat["TaskCounts"]
    return {WORKER: stat}


def test_workers_before_v1_15_tell_neither_tasks_nor_counts() -> None:
    stat = decode("WorkerStats", _v1_13_worker())[WORKER]
    assert (stat.hostname, stat.enabled, stat.tasks, stat.task_counts) == ("seal01", True, None, None)


def test_workers_of_v1_15_tell_tasks_without_counts() -> None:
    stat = dict(MINER["WorkerStats"][WORKER])
    del stat["TaskCounts"]
    decoded = decode("WorkerStats", {WORKER: stat})[WORKER]
    assert decoded.tasks is not None
    assert decoded.task_counts is None


def test_a_worker_that_does_not_answer_has_null_tasks() -> None:
    stat = {**MINER["WorkerStats"][WORKER], "Tasks": None, "TaskCounts": {}, "Enabled": False}
    assert decode("WorkerStats", {WORKER: stat})[WORKER] == WorkerStat(
        hostname="seal01", enabled=False, tasks=None, task_counts={}
    )


def test_requests_before_v1_17_have_no_id_and_may_have_no_priority() -> None:
    request = {"Sector": {"Miner": 1, "Number": 2}, "TaskType": "seal/v0/commit/1"}
    diag = decode("SealingSchedDiag", {"SchedInfo": {"Requests": [request]}})
    assert diag == (Request(sector=2, miner=1, task="seal/v0/commit/1", priority=None),)


BEFORE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "v1.13": {
        "StateMinerInfo": ("PendingOwnerAddress", "Beneficiary", "BeneficiaryTerm", "PendingBeneficiaryTerm"),
        "Version": ("Agent",),
        "ActorAddressConfig": ("DealPublishControl",),
    },
    "v1.17": {"StateMinerInfo": ("PendingOwnerAddress",), "Version": ("Agent",)},
    "v1.23": {"StateMinerInfo": ("PendingOwnerAddress",), "Version": ("Agent",)},
    "v1.26": {"Version": ("Agent",)},
    "v1.36": {},
}
"""Members that a version does not have yet."""


@pytest.mark.parametrize("version", BEFORE)
def test_members_that_a_version_does_not_have_are_not_missed(version: str) -> None:
    state = MINER["StateReadState"]
    old = {
        **MINER,
        "StateReadState": {**state, "State": {**state["State"], "VestingFunds": {"/": "bafy"}}},
        "StateMinerDeadlines": [{"PostSubmissions": [0, 1], "DisputableProofCount": 1}] * 48,
        **{
            method: {name: value for name, value in MINER[method].items() if name not in absent}
            for method, absent in BEFORE[version].items()
        },
    }
    assert values_of(old) == values_of(MINER)


def test_vesting_funds_may_be_null() -> None:
    state = MINER["StateReadState"]
    assert changed("StateReadState", State={**state["State"], "VestingFunds": None}).balance == int(state["Balance"])


# ---- answers that do not fit


@pytest.mark.parametrize(
    ("method", "result", "text"),
    [
        ("SectorsSummary", {"Proving": "5"}, "Expected `int`, got `str` - at `$[...]`"),
        ("SectorsSummary", [], "Expected `object | null`, got `array`"),
        ("StateMinerSectorCount", {"Live": 1, "Active": 1}, "Object missing required field `Faulty`"),
        ("StateMinerSectorCount", {"Live": 1, "Active": 1, "Faulty": -1}, "Expected `int` >= 0 - at `$.Faulty`"),
        ("StateReadState", {"Balance": "0", "State": {}},
         "Object missing required field `InitialPledge` - at `$.State`"),
        ("StateMinerPower", None, "Expected `object`, got `null`"),
        ("WorkerJobs", {WORKER: [{}]}, "Object missing required field `Sector` - at `$[...][0]`"),
    ],
)  # fmt: skip
def test_the_error_names_the_method_and_the_place(method: str, result: object, text: str) -> None:
    with pytest.raises(AnswerError) as raised:
        decode(method, result)
    assert str(raised.value) == f"{method}: {text}"


def attempt(method: str, raw: bytes) -> None:
    try:
        DECODERS[method](raw)
    except AnswerError as error:
        assert str(error).startswith(f"{method}: ")
        assert "\n" not in str(error)


@given(st.sampled_from(sorted(DECODERS)), st.one_of(st.binary(), st.text().map(str.encode)))
@example("WorkerStats", b'{"a":' * 100_000)
@example("WorkerStats", b'{"a":{"x":' + b"[" * 100_000)
@example("SectorsSummary", b"[" * 100_000)
@example("SectorsSummary", b'{"Proving":1' + b"0" * 30 + b"}")
@example("StateMinerRecoveries", b"[1" + b"0" * 5000 + b"]")
@example("Session", b'"\xff"')
@example("WalletBalance", b'"' + b"9" * 100_000 + b'"')
def test_no_text_raises_anything_but_an_answer_error(method: str, raw: bytes) -> None:
    attempt(method, raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("1"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """Right answers, of which one has a member, at any depth, replaced by anything."""
    method = draw(st.sampled_from(sorted(MINER)))
    return {**MINER, method: _replaced(draw, MINER[method])}


def _replaced(draw: st.DrawFn, value: Any) -> Any:
    if not value or not isinstance(value, dict | list) or draw(st.integers(0, 3)) == 0:
        return draw(JSON)
    if isinstance(value, list):
        return [_replaced(draw, value[0]), *value[1:]]
    name = draw(st.sampled_from(sorted(value)))
    return {**value, name: _replaced(draw, value[name])}


@given(damaged())
def test_what_is_accepted_fits_the_declaration(results: dict[str, Any]) -> None:
    try:
        values = values_of(results)
    except AnswerError:
        return
    assert mistyped(values) == []
    json.dumps(values, allow_nan=False)


# ---- the examples of Lotus itself


def _examples() -> dict[str, Any]:
    if not OPENRPC.exists():
        return {}
    document = json.loads(OPENRPC.read_text())
    found = {}
    for method in (*document["miner"], *document["full"]):
        found[method["name"].removeprefix("Filecoin.")] = method["result"]["schema"]["examples"][0]
    for method in document["not_in_openrpc"]["methods"]:
        found[method["name"].removeprefix("Filecoin.")] = method["result_example"]
    return found


@pytest.mark.parametrize("method", DECODERS)
def test_the_example_of_lotus_is_read(method: str) -> None:
    examples = _examples()
    if method not in examples:
        pytest.skip(f"{OPENRPC} is not there")
    if method == "StateReadState":
        with pytest.raises(AnswerError, match="missing required field"):  # its State is an empty dummy
            decode(method, examples[method])
        return
    decode(method, examples[method])
