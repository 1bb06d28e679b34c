"""What Lotus answers, as values: each `decode_…` takes the `result` of one method, whatever version wrote it.

Only what is needed is declared, and msgspec builds nothing else. Null stands for an empty list or map, as Go has
it. What does not fit raises AnswerError. Shapes: api/*.go, chain/types and storage/sealer/storiface of Lotus.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec

from telemetry.errors import SourceError


class AnswerError(SourceError):
    """An answer of Lotus that is not what its method promises."""


Answer: TypeAlias = bytes | msgspec.Raw
"""The JSON text of a `result`; a result that an old Lotus left out is `null`."""

_T = TypeVar("_T")

_NO_ADDRESS = "<empty>"
_LONGEST_NAME = 100
_NO_UUID = "00000000-0000-0000-0000-000000000000"

# Sums over a whole answer still fit the 64 bits of a stored integer.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]

# Lotus numbers sectors up to 2**63 - 1, so that a run of unset bits may be as long.
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Runs: TypeAlias = list[_Number]

# Far more than there is FIL or power, and far from where text to int becomes slow and a float infinite.
_BIG = re.compile(r"-?[0-9]{1,60}")
_NIL = {None, "", "<nil>"}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BigInt(int):
    """An integer that Lotus writes as text: attoFIL or power. Go's nil is 0 (go-state-types big/int.go)."""


class Power(int):
    """Power of one miner in bytes, which fits the 64 bits of a stored integer; the network's does not."""


class _Time(int):
    """A moment in Unix milliseconds; 0 for Go's zero time and for 1970, which both stand for unknown."""


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """An object of Lotus, whose members are named in Go's way."""


class AddressConfig(_Wire, frozen=True):
    """Control addresses that are kept for something else than WindowPoSt (api.AddressConfig)."""

    pre_commit_control: list[str] | None = None
    commit_control: list[str] | None = None
    terminate_control: list[str] | None = None
    deal_publish_control: list[str] | None = None

    @property
    def reserved(self) -> tuple[str, ...]:
        """All of them, each once; they may be robust addresses, which StateLookupID resolves."""
        lists = (self.pre_commit_control, self.commit_control, self.terminate_control, self.deal_publish_control)
        return tuple(dict.fromkeys(address for each in lists for address in each or () if address != _NO_ADDRESS))


class _Block(_Wire, frozen=True):
    timestamp: _Count


class ChainHead(_Wire, frozen=True):
    """The head of the chain. `cids` is the tipset key that the State calls of the same poll take."""

    height: _Count
    cids: list[dict[str, str]] | None = None
    blocks: list[_Block] | None = None

    @property
    def timestamp(self) -> int | None:
        """Unix seconds of its earliest block."""
        return min((block.timestamp for block in self.blocks or ()), default=None)

    def age(self, now: float) -> float | None:
        """Seconds since its earliest block, at `now` in Unix seconds; None without a block."""
        return None if self.timestamp is None else now - self.timestamp


class MinerInfo(_Wire, frozen=True):
    """Who runs the miner actor: ID addresses (api.MinerInfo)."""

    owner: str
    worker: str
    control_addresses: list[str] | None = None
    consensus_fault_elapsed: _Int = -1
    sector_size: _Count = 0


class _MinerFunds(_Wire, frozen=True):
    initial_pledge: BigInt
    pre_commit_deposits: BigInt
    locked_funds: BigInt
    fee_debt: BigInt


class MinerState(_Wire, frozen=True):
    """Balance of the miner actor and what of it is bound, in attoFIL (go-state-types miner_state.go)."""

    balance: BigInt
    state: _MinerFunds


class Claim(_Wire, frozen=True):
    """What the miner has claimed: nothing at all is 0, and no error."""

    raw_byte_power: Power
    quality_adj_power: Power


class NetworkPower(_Wire, frozen=True):
    """Power of all miners above the minimum."""

    quality_adj_power: BigInt


class MinerPower(_Wire, frozen=True):
    """Power of the miner beside that of the network (api.MinerPower)."""

    miner_power: Claim
    total_power: NetworkPower
    has_min_power: bool = False


class SectorCount(_Wire, frozen=True):
    """Sectors on chain: active is live without faulty and unproven ones (api.MinerSectors)."""

    live: _Count
    active: _Count
    faulty: _Count


class ProvingDeadline(_Wire, frozen=True):
    """The current deadline, or before a proving period the first one to come (dline.Info)."""

    index: _Count
    open: _Int
    close: _Int


class Partition(_Wire, frozen=True):
    """Sectors of a partition, as bit fields (api.Partition)."""

    live_sectors: _Runs | None = None
    faulty_sectors: _Runs | None = None


class Deadline(_Wire, frozen=True):
    """The partitions that were proven in the current window, as a bit field (api.Deadline)."""

    post_submissions: _Runs | None = None


class Version(_Wire, frozen=True):
    """Version of a Lotus process and of its API."""

    version: Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[ -~]*$")]
    api_version: _Count = msgspec.field(name="APIVersion", default=0)

    @property
    def api_major(self) -> int:
        """The first of the three numbers of the API's version, which stand in 8 bits each."""
        return self.api_version >> 16

    @property
    def number(self) -> tuple[int, ...]:
        """The release's three numbers, comparable; fewer where the text has fewer."""
        return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", self.version.partition("+")[0])[:3])

    @property
    def words(self) -> frozenset[str]:
        """What follows the release in the text: the network it was built for is among it."""
        return frozenset(self.version.split("+")[1:])


class _AlertType(_Wire, frozen=True):
    system: str
    subsystem: str


class _Alert(_Wire, frozen=True):
    type: _AlertType
    active: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStat:
    """A worker as WorkerStats has it. `tasks` is None when it did not answer, or Lotus is older than v1.15.2."""

    hostname: str
    enabled: bool
    tasks: tuple[str, ...] | None
    task_counts: Mapping[str, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A row of WorkerJobs. `start_ms` is None when unknown; `call_id` is None for the zero UUID."""

    sector: int
    miner: int
    task: str
    run_wait: int
    start_ms: int | None
    hostname: str
    call_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A task that the scheduler has given to no worker yet."""

    sector: int
    miner: int
    task: str
    priority: int | None


class _WorkerInfo(_Wire, frozen=True):
    hostname: str = ""


class _WorkerStat(_Wire, frozen=True):
    info: _WorkerInfo = _WorkerInfo()
    enabled: bool = True
    tasks: tuple[str, ...] | None = None
    task_counts: dict[str, _Int] | None = None

    def value(self) -> WorkerStat:
        return WorkerStat(
            hostname=self.info.hostname, enabled=self.enabled, tasks=self.tasks, task_counts=self.task_counts
        )


class _Sector(_Wire, frozen=True):
    miner: _Number
    number: _Number


class _Call(_Wire, frozen=True):
    id: str = msgspec.field(name="ID", default=_NO_UUID)


class _Job(_Wire, frozen=True):
    sector: _Sector
    task: str
    run_wait: _Int
    call: _Call = msgspec.field(name="ID", default=_Call())
    start: _Time = _Time(0)
    hostname: str = ""

    def value(self) -> Job:
        return Job(
            sector=self.sector.number, miner=self.sector.miner, task=self.task, run_wait=self.run_wait,
            start_ms=int(self.start) or None, hostname=self.hostname,
            call_id=None if self.call.id == _NO_UUID else self.call.id,
        )  # fmt: skip


class _Request(_Wire, frozen=True):
    sector: _Sector
    task_type: str
    priority: _Int | None = None

    def value(self) -> Request:
        return Request(sector=self.sector.number, miner=self.sector.miner, task=self.task_type, priority=self.priority)


class _SchedInfo(_Wire, frozen=True):
    requests: list[_Request] | None = None


class _SchedDiag(_Wire, frozen=True):
    sched_info: _SchedInfo | None = None


def bits(runs: Sequence[int] | None) -> Iterator[int]:
    """Give the set bits of a bit field: runs of unset and set bits in turn (go-bitfield rle/rleplus.go)."""
    offset = 0
    for number, length in enumerate(runs or ()):
        if number % 2:
            yield from range(offset, offset + length)
        offset += length


def count_bits(runs: Sequence[int] | None) -> int:
    """Count the set bits of a bit field; a last run of unset bits may stand or not."""
    return sum((runs or ())[1::2])


def _big_int(value: object) -> BigInt:
    if isinstance(value, str | None) and value in _NIL:
        return BigInt(0)
    if not isinstance(value, str) or _BIG.fullmatch(value) is None:
        raise ValueError("Expected a decimal integer as text")
    return BigInt(value)


def _power(value: object) -> Power:
    power = Power(_big_int(value))
    if not 0 <= power < 2**63:
        raise ValueError("Expected a power of at most 63 bits")
    return power


def _time(value: object) -> _Time:
    try:
        moment = msgspec.convert(value, datetime | None)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    if moment is None or moment.year <= 1970:
        return _Time(0)
    if moment.tzinfo is None:
        raise ValueError("Expected a time with its zone")
    return _Time((moment - _EPOCH) // timedelta(milliseconds=1))


_FROM_TEXT = {BigInt: _big_int, Power: _power, _Time: _time}


def _decode(method: str, shape: Any, raw: Answer) -> Any:  # noqa: ANN401  # mypy has no type for a union
    try:
        return _decoder(shape).decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(f"{method}: {error}") from error


@cache
def _decoder(shape: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401
    return msgspec.json.Decoder(shape, dec_hook=lambda kind, value: _FROM_TEXT[kind](value))


def _one(method: str, shape: type[_T]) -> Callable[[Answer], _T]:
    def decode(raw: Answer) -> _T:
        answer: _T = _decode(method, shape, raw)
        return answer

    return decode


def _many(method: str, shape: Any, empty: Callable[[], _T]) -> Callable[[Answer], _T]:  # noqa: ANN401
    """Decode a list or map, which Go writes as null when it is nil."""

    def decode(raw: Answer) -> _T:
        answer: _T | None = _decode(method, shape | None, raw)
        return empty() if answer is None else answer

    return decode


def _name(method: str, what: str = "address") -> Callable[[Answer], str]:
    """Decode an address or a name, which is shown to people."""
    decode_text = _one(method, str)

    def decode(raw: Answer) -> str:
        name = decode_text(raw)
        if name in {"", _NO_ADDRESS} or len(name) > _LONGEST_NAME or not name.isprintable():
            raise AnswerError(f"{method}: no {what}")
        return name

    return decode


decode_actor_address = _name("ActorAddress")
decode_actor_address_config = _one("ActorAddressConfig", AddressConfig)
_States = Annotated[dict[Annotated[str, msgspec.Meta(max_length=64)], _Count], msgspec.Meta(max_length=256)]
decode_sectors_summary: Callable[[Answer], dict[str, int]] = _many("SectorsSummary", _States, dict)
"""Sectors by sealing state."""

decode_version = _one("Version", Version)
decode_session = _one("Session", str)
decode_auth_verify: Callable[[Answer], list[str]] = _many("AuthVerify", list[str], list)
"""The permissions that a token has."""

decode_runtime_subsystems: Callable[[Answer], list[str]] = _many("RuntimeSubsystems", list[str], list)
decode_state_network_name = _name("StateNetworkName", "name")

decode_chain_head = _one("ChainHead", ChainHead)
decode_state_lookup_id = _name("StateLookupID")
decode_state_miner_info = _one("StateMinerInfo", MinerInfo)
decode_state_read_state = _one("StateReadState", MinerState)
decode_state_miner_available_balance = _one("StateMinerAvailableBalance", BigInt)
decode_wallet_balance = _one("WalletBalance", BigInt)
"""AttoFIL; 0 also for an address that no actor has."""

decode_state_miner_power = _one("StateMinerPower", MinerPower)
decode_state_miner_sector_count = _one("StateMinerSectorCount", SectorCount)
decode_state_miner_recoveries: Callable[[Answer], list[int]] = _many("StateMinerRecoveries", _Runs, list)
"""Sectors declared as recovering, as the runs of a bit field."""

decode_state_miner_proving_deadline = _one("StateMinerProvingDeadline", ProvingDeadline)
decode_state_miner_partitions: Callable[[Answer], list[Partition]] = _many(
    "StateMinerPartitions", list[Partition], list
)
decode_state_miner_deadlines: Callable[[Answer], list[Deadline]] = _many("StateMinerDeadlines", list[Deadline], list)

_decode_start_time = _one("StartTime", _Time)
_decode_log_alerts: Callable[[Answer], list[_Alert]] = _many("LogAlerts", list[_Alert], list)
_decode_worker_stats: Callable[[Answer], dict[str, _WorkerStat]] = _many("WorkerStats", dict[str, _WorkerStat], dict)
_decode_worker_jobs: Callable[[Answer], dict[str, list[_Job] | None]] = _many(
    "WorkerJobs", dict[str, list[_Job] | None], dict
)
_decode_sealing_sched_diag = _one("SealingSchedDiag", _SchedDiag)


def decode_start_time(raw: Answer) -> int | None:
    """Start of the process in Unix milliseconds; None when it does not know."""
    return int(_decode_start_time(raw)) or None


def decode_log_alerts(raw: Answer) -> list[str]:
    """The alerts that are active, as `system:subsystem`."""
    return [f"{one.type.system}:{one.type.subsystem}" for one in _decode_log_alerts(raw) if one.active]


def decode_worker_stats(raw: Answer) -> dict[str, WorkerStat]:
    """Workers by session UUID. Their tables of resources, most of the text, are skipped."""
    return {uuid: stat.value() for uuid, stat in _decode_worker_stats(raw).items()}


def decode_worker_jobs(raw: Answer) -> dict[str, tuple[Job, ...]]:
    """Jobs by the session UUID of their worker."""
    return {uuid: tuple(job.value() for job in rows or ()) for uuid, rows in _decode_worker_jobs(raw).items()}


def decode_sealing_sched_diag(raw: Answer) -> tuple[Request, ...]:
    """The requests that no worker has yet."""
    info = _decode_sealing_sched_diag(raw).sched_info or _SchedInfo()
    return tuple(request.value() for request in info.requests or ())
