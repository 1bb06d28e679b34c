"""What a full node answers."""

from collections.abc import Iterable, Mapping

from telemetry.simulate.accounts import COMMIT, MINER, OWNER, POST, ROBUST, SECTOR_BYTES, WORKER, balance, id_of, purse
from telemetry.simulate.protocol import METHOD_ERROR, Method, Parameters, RpcError, list_of, number_of, text_of
from telemetry.simulate.values import FIL, base64_bytes, bitfield, bits, cid, go_time
from telemetry.simulate.world import DEADLINE_EPOCHS, DEADLINES, EPOCH_SECONDS, GENESIS, PERIOD_EPOCHS, World

_PARTITION = 2349
_REMEMBERED = 900
_NETWORK_RAW = 6_527_841_559_083_967_488
_NETWORK_ADJUSTED = 26_171_318_154_575_425_536
_MIN_POWER = 10 << 40
_QUALITY = 10

Row = Mapping[str, object]


# --- chain ---


def _tipset_cid(height: int) -> Mapping[str, str]:
    return cid("block", height)


def _head(world: World, _: Parameters) -> Row:
    return _tipset(world, world.height)


def _tipset(world: World, height: int) -> Row:
    return {"Cids": [_tipset_cid(height)], "Blocks": [_block(world, height)], "Height": height}


def _block(world: World, height: int) -> Row:
    proof = {"VRFProof": base64_bytes(96, "ticket", height)}
    return {
        "Miner": "f01938223",
        "Ticket": proof,
        "ElectionProof": {"WinCount": 1, **proof},
        "BeaconEntries": [{"Round": height, "Data": base64_bytes(48, "beacon", height)}],
        "WinPoStProof": [{"PoStProof": 3, "ProofBytes": base64_bytes(192, "post", height)}],
        "Parents": [_tipset_cid(height - 1)],
        "ParentWeight": str(24_000 * height),
        "Height": height,
        "ParentStateRoot": cid("state", height),
        "ParentMessageReceipts": cid("receipts", height),
        "Messages": cid("messages", height),
        "BLSAggregate": {"Type": 2, "Data": base64_bytes(96, "aggregate", height)},
        "Timestamp": int(world.moment(height)),
        "BlockSig": {"Type": 2, "Data": base64_bytes(96, "signature", height)},
        "ForkSignaling": 0,
        "ParentBaseFee": str(100 + height % 1000),
    }


def _check_tipset(world: World, key: object) -> None:
    """Refuse a tipset that the node does not know; none is the heaviest one."""
    wanted = list_of(key)
    known = (_tipset_cid(height) for height in range(world.height, world.height - _REMEMBERED, -1))
    if wanted and not any(one == wanted[0] for one in known):
        raise RpcError(METHOD_ERROR, "loading tipset: get block: ipld: could not find block")


def _sync_state(world: World, _: Parameters) -> Row:
    target = int((world.now - GENESIS) // EPOCH_SECONDS)
    start = world.moment(world.height)
    sync = {
        "WorkerID": 1,
        "Base": _tipset(world, world.height - 1),
        "Target": _tipset(world, target),
        "Stage": 3 if world.behind else 4,
        "Height": world.height,
        "Start": go_time(start, world.zone_hours),
        "End": "0001-01-01T00:00:00Z" if world.behind else go_time(start + 0.8, world.zone_hours),
        "Message": "",
    }
    return {"ActiveSyncs": [sync], "VMApplied": world.height * 300}


def _node_status(world: World, _: Parameters) -> Row:
    return {
        "SyncStatus": {"Epoch": world.height, "Behind": world.behind},
        "PeerStatus": {"PeersToPublishMsgs": 0, "PeersToPublishBlocks": 0},
        "ChainStatus": {"BlocksPerTipsetLast100": 0, "BlocksPerTipsetLastFinality": 0},
    }


# fmt: off
_UPGRADES = (
    "Smoke", "Breeze", "Ignition", "Liftoff", "Assembly", "Refuel", "Tape", "Kumquat", "Calico", "Persian",
    "Orange", "Claus", "Trust", "Norwegian", "Turbo", "Hyperdrive", "Chocolate", "OhSnap", "Skyr", "Shark",
    "Hygge", "Lightning", "Thunder", "Watermelon", "Dragon", "Phoenix", "Waffle", "Tuktuk", "Teep", "Tock",
    "GoldenWeek", "FireHorse", "Xx",
)
# fmt: on


def _network_params(world: World, _: Parameters) -> Row:
    heights: Mapping[str, int] = {f"Upgrade{name}Height": 100_000 * at for at, name in enumerate(_UPGRADES)}
    return {
        "NetworkName": world.network,
        "BlockDelaySecs": EPOCH_SECONDS,
        "ConsensusMinerMinPower": str(_MIN_POWER),
        "PreCommitChallengeDelay": 150,
        "ForkUpgradeParams": {**heights, "BreezeGasTampingDuration": 120},
        "Eip155ChainID": 314,
        "GenesisTimestamp": GENESIS,
    }


# --- accounts ---


def _require_actor(world: World, address: object, code: int = METHOD_ERROR) -> str:
    found = id_of(text_of(address))
    if found is None:
        raise RpcError(code, f"failed to load state tree at height {world.height}: actor not found")
    return found


def _lookup_code(world: World) -> int:
    codes = {"actor error 11": 11, "actor error 3": 3}
    return next((code for feature, code in codes.items() if world.version.has(feature)), METHOD_ERROR)


def _actor(world: World, parameters: Parameters) -> Row:
    address = _require_actor(world, parameters[0])
    return {
        "Code": cid("code", address == MINER),
        "Head": cid("head", address, world.height),
        "Nonce": 0 if address == MINER else world.messages,
        "Balance": str(balance(world, address)),
        "DelegatedAddress": None,
    }


def _lookup_id(world: World, parameters: Parameters) -> str:
    return _require_actor(world, parameters[0], _lookup_code(world))


def _account_key(world: World, parameters: Parameters) -> str:
    address = _require_actor(world, parameters[0])
    if address == MINER:
        raise RpcError(METHOD_ERROR, "failed to get account actor state for f01234: unknown actor code")
    return ROBUST[address]


def _info(world: World, parameters: Parameters) -> Row:
    _require_miner(world, parameters[0])
    return {
        "Owner": OWNER,
        "Worker": WORKER,
        "NewWorker": "<empty>",
        "ControlAddresses": [POST, COMMIT],
        "WorkerChangeEpoch": -1,
        "PeerId": "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf",
        "Multiaddrs": None,
        "WindowPoStProofType": 8,
        "SectorSize": SECTOR_BYTES,
        "WindowPoStPartitionSectors": _PARTITION,
        "ConsensusFaultElapsed": -1,
        "PendingOwnerAddress": None,
        "Beneficiary": OWNER,
        "BeneficiaryTerm": {"Quota": "0", "UsedQuota": "0", "Expiration": 0},
        "PendingBeneficiaryTerm": None,
    }


def _require_miner(world: World, address: object) -> None:
    if _require_actor(world, address) != MINER:
        raise RpcError(METHOD_ERROR, "failed to load miner actor state: unknown actor code")


def _state(world: World, parameters: Parameters) -> Row:
    _require_miner(world, parameters[0])
    owned = purse(world)
    return {"Balance": str(owned.balance), "Code": cid("code", 1), "State": _miner_state(world)}


def _miner_state(world: World) -> Row:
    owned, parts = purse(world), ("PreCommittedSectors", "PreCommittedSectorsCleanUp", "AllocatedSectors", "Sectors")
    period = _deadline(world, ())
    return {
        "Info": cid("info"),
        "PreCommitDeposits": str(owned.deposits),
        "LockedFunds": str(owned.vesting),
        "VestingFunds": _vesting_funds(world),
        "FeeDebt": str(owned.debt),
        "InitialPledge": str(owned.pledge),
        **{part: cid(part, world.height) for part in parts},
        "ProvingPeriodStart": period["PeriodStart"],
        "CurrentDeadline": period["Index"],
        "Deadlines": cid("deadlines", world.height),
        "EarlyTerminations": [0],
        "DeadlineCronActive": True,
    }


def _vesting_funds(world: World) -> Row:
    if not world.version.has("vesting inline"):
        return cid("vesting", world.height)
    return {"Head": {"Epoch": world.height + PERIOD_EPOCHS, "Amount": str(FIL)}, "Tail": cid("vesting", world.height)}


def _available(world: World, parameters: Parameters) -> str:
    _require_miner(world, parameters[0])
    owned = purse(world)
    return str(owned.available + owned.vested)


# --- power ---


def _raw(world: World) -> int:
    return len(_active(world)) * SECTOR_BYTES


def _power(world: World, parameters: Parameters) -> Row:
    address = id_of(text_of(parameters[0]))
    raw = _raw(world) if address == MINER else 0
    return {
        "MinerPower": {"RawBytePower": str(raw), "QualityAdjPower": str(raw * _QUALITY)},
        "TotalPower": {"RawBytePower": str(_NETWORK_RAW), "QualityAdjPower": str(_NETWORK_ADJUSTED)},
        "HasMinPower": raw >= _MIN_POWER,
    }


def _base_info(world: World, parameters: Parameters) -> Row | None:
    _require_miner(world, parameters[0])
    height, active = number_of(parameters[1]), sorted(_active(world))
    if not active:
        return None
    beacon = {"Round": height, "Data": base64_bytes(48, "beacon", height)}
    number = active[height % len(active)]
    sector = {"SealProof": 8, "SectorNumber": number, "SectorKey": None, "SealedCID": cid("R", number)}
    return {
        "MinerPower": str(_raw(world) * _QUALITY),
        "NetworkPower": str(_NETWORK_ADJUSTED),
        "Sectors": [sector],
        "WorkerKey": ROBUST[WORKER],
        "SectorSize": SECTOR_BYTES,
        "PrevBeaconEntry": beacon,
        "BeaconEntries": [beacon],
        "EligibleForMining": _raw(world) >= _MIN_POWER and not world.fee_debt,
    }


# --- sectors ---


def _active(world: World) -> set[int]:
    return world.live - world.faulty - world.unproven


def _counts(world: World, parameters: Parameters) -> Row:
    _require_miner(world, parameters[0])
    return {"Live": len(world.live), "Active": len(_active(world)), "Faulty": len(world.faulty)}


def _faults(world: World, parameters: Parameters) -> list[int]:
    _require_miner(world, parameters[0])
    return bitfield(world.faulty)


def _recoveries(world: World, parameters: Parameters) -> list[int]:
    _require_miner(world, parameters[0])
    return bitfield(world.recovering)


def _allocated(world: World, parameters: Parameters) -> list[int]:
    _require_miner(world, parameters[0])
    return bitfield({*world.settled, *world.sectors})


def _of_deadline(world: World, index: int) -> list[int]:
    return sorted(number for number in world.live if number % DEADLINES == index)


def _partitions(world: World, parameters: Parameters) -> list[Row] | None:
    _require_miner(world, parameters[0])
    index = number_of(parameters[1])
    if not 0 <= index < DEADLINES:
        raise RpcError(METHOD_ERROR, f"failed to load the deadline: invalid deadline {index}")
    numbers = _of_deadline(world, index)
    return [_partition(world, numbers[at : at + _PARTITION]) for at in range(0, len(numbers), _PARTITION)] or None


def _partition(world: World, numbers: Iterable[int]) -> Row:
    live = set(numbers)
    return {
        "AllSectors": bitfield(live),
        "FaultySectors": bitfield(live & world.faulty),
        "RecoveringSectors": bitfield(live & world.recovering),
        "LiveSectors": bitfield(live),
        "ActiveSectors": bitfield(live & _active(world)),
    }


def _deadlines(world: World, parameters: Parameters) -> list[Row]:
    _require_miner(world, parameters[0])
    current = world.height % PERIOD_EPOCHS // DEADLINE_EPOCHS
    done = world.height % DEADLINE_EPOCHS >= 20
    return [_deadline_row(world, index, proven=done and index == current) for index in range(DEADLINES)]


def _deadline_row(world: World, index: int, *, proven: bool) -> Row:
    numbers = _of_deadline(world, index)
    partitions = -(-len(numbers) // _PARTITION)
    row = {"PostSubmissions": bitfield(range(partitions) if proven else ()), "DisputableProofCount": partitions}
    return {**row, "DailyFee": str(len(numbers) * 10**12)} if world.version.has("daily fee") else row


def _deadline(world: World, _: Parameters) -> Mapping[str, int]:
    height = world.height
    start = height - height % PERIOD_EPOCHS
    index = (height - start) // DEADLINE_EPOCHS
    opened = start + index * DEADLINE_EPOCHS
    return {
        "CurrentEpoch": height,
        "PeriodStart": start,
        "Index": index,
        "Open": opened,
        "Close": opened + DEADLINE_EPOCHS,
        "Challenge": opened - 20,
        "FaultCutoff": opened - 70,
        "WPoStPeriodDeadlines": DEADLINES,
        "WPoStProvingPeriod": PERIOD_EPOCHS,
        "WPoStChallengeWindow": DEADLINE_EPOCHS,
        "WPoStChallengeLookback": 20,
        "FaultDeclarationCutoff": 70,
    }


def _sectors(world: World, parameters: Parameters) -> list[Row] | None:
    _require_miner(world, parameters[0])
    if parameters[1] is None:
        return _on_chain(world, world.live)
    runs = [number_of(run) for run in list_of(parameters[1])]
    return _on_chain(world, world.live.intersection(bits(runs)))


def _active_sectors(world: World, parameters: Parameters) -> list[Row] | None:
    _require_miner(world, parameters[0])
    return _on_chain(world, _active(world))


def _on_chain(world: World, numbers: Iterable[int]) -> list[Row] | None:
    return [_sector(world, number) for number in sorted(numbers)] or None


def _sector(world: World, number: int) -> Row:
    row = {
        "SectorNumber": number,
        "SealProof": 8,
        "SealedCID": cid("R", number),
        "Activation": 4_000_000,
        "Expiration": 5_500_000,
        "DealWeight": "0",
        "VerifiedDealWeight": str(SECTOR_BYTES * 1_500_000),
        "InitialPledge": str(FIL * 15 // 100),
        "ExpectedDayReward": "0",
        "ExpectedStoragePledge": "0",
        "PowerBaseEpoch": 4_000_000,
        "ReplacedDayReward": "0",
        "SectorKeyCID": None,
        "Flags": 0,
    }
    return {**row, "DailyFee": str(10**12)} if world.version.has("daily fee") else row


_PER_ACTOR = {
    "StateGetActor": _actor,
    "StateMinerInfo": _info,
    "StateMinerPower": _power,
    "StateMinerSectorCount": _counts,
    "StateMinerAvailableBalance": _available,
    "StateReadState": _state,
    "StateMarketBalance": lambda _world, _: {"Escrow": str(255 * FIL), "Locked": str(231_440 * FIL // 1000)},
    "StateLookupID": _lookup_id,
    "StateAccountKey": _account_key,
    "StateMinerRecoveries": _recoveries,
    "StateMinerFaults": _faults,
    "StateMinerDeadlines": _deadlines,
    "StateMinerProvingDeadline": _deadline,
    "StateMinerAllocated": _allocated,
    "StateMinerActiveSectors": _active_sectors,
}
"""Methods whose parameters are an address and a tipset."""


def _at_tipset(method: Method) -> Method:
    """A method whose last parameter is a tipset that must be known."""

    def answer(world: World, parameters: Parameters) -> object:
        _check_tipset(world, parameters[-1])
        return method.answer(world, parameters)

    return Method(answer=answer, parameters=method.parameters)


METHODS: Mapping[str, Method] = {
    "ChainHead": Method(answer=_head),
    "SyncState": Method(answer=_sync_state),
    "NodeStatus": Method(answer=_node_status, parameters=1),
    "StateNetworkName": Method(answer=lambda world, _: world.network),
    "StateNetworkVersion": _at_tipset(Method(answer=lambda world, _: world.version.network, parameters=1)),
    "StateGetNetworkParams": Method(answer=_network_params),
    "WalletBalance": Method(answer=lambda world, given: str(balance(world, text_of(given[0]))), parameters=1),
    **{name: _at_tipset(Method(answer=answer, parameters=2)) for name, answer in _PER_ACTOR.items()},
    "StateMinerPartitions": _at_tipset(Method(answer=_partitions, parameters=3)),
    "StateMinerSectors": _at_tipset(Method(answer=_sectors, parameters=3)),
    "MinerGetBaseInfo": _at_tipset(Method(answer=_base_info, parameters=3)),
}
