"""Tables of sealing: the tasks, the ways of a sector through its states, and the kinds of workers."""

from collections.abc import Mapping
from dataclasses import dataclass

from telemetry.simulate.versions import Version

DC, AP = "seal/v0/datacid", "seal/v0/addpiece"
PC1, PC2 = "seal/v0/precommit/1", "seal/v0/precommit/2"
C1, C2 = "seal/v0/commit/1", "seal/v0/commit/2"
FIN, FUS, GET, UNS = "seal/v0/finalize", "seal/v0/finalizeunsealed", "seal/v0/fetch", "seal/v0/unseal"
RU, PR1, PR2 = "seal/v0/replicaupdate", "seal/v0/provereplicaupdate/1", "seal/v0/provereplicaupdate/2"
GSK, FRU, DL = "seal/v0/regensectorkey", "seal/v0/finalize/replicaupdate", "seal/v0/download/sector"
WDP, WNP = "post/v0/windowproof", "post/v0/winningproof"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """How long a task takes, and how Lotus keeps it."""

    seconds: float
    fetches: bool = False
    """Its inputs are fetched first; the others have nothing to prepare."""
    survives: bool = False
    """Its call is in the miner's store, and so outlives the miner."""
    tracked: bool = True
    """Its call is listed under its worker."""
    cpus: int = 1
    memory_bytes: int = 1 << 30
    gpus: int = 0


TASKS: Mapping[str, Task] = {
    FIN: Task(seconds=600, fetches=True),
    DL: Task(seconds=2400, survives=True, tracked=False),
    FRU: Task(seconds=300, fetches=True),
    C1: Task(seconds=60, fetches=True, survives=True),
    C2: Task(seconds=1500, survives=True, gpus=1, cpus=16, memory_bytes=190 << 30),
    PC2: Task(seconds=1200, fetches=True, survives=True, gpus=1, cpus=8, memory_bytes=30 << 30),
    PC1: Task(seconds=10800, fetches=True, survives=True, memory_bytes=60 << 30),
    PR1: Task(seconds=90, fetches=True, survives=True),
    PR2: Task(seconds=1500, survives=True, gpus=1, cpus=16, memory_bytes=190 << 30),
    RU: Task(seconds=1800, fetches=True, survives=True, gpus=1, cpus=8, memory_bytes=30 << 30),
    AP: Task(seconds=300),
}
"""In the order in which the scheduler prefers them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A state of a sector: the tasks done in it one after the other, or else the time spent in it."""

    state: str
    tasks: tuple[str, ...] = ()
    seconds: float = 0.0
    weight: int = 1
    """How many sectors are in it when the world begins, compared with the other steps."""
    message: bool = False
    """It ends with a message on chain."""
    commits: bool = False
    """It ends with the sector on chain."""


def ways(version: Version) -> Mapping[str, tuple[Step, ...]]:
    """The ways of a sector to Proving in a release."""
    found = {"seal": _seal(version)}
    if version.has("snap"):
        found["snap"] = _SNAP
    if version.has("import"):
        found["import"] = (Step(state="ReceiveSector", tasks=(DL,)),)
    return found


WAY_WEIGHTS = {"seal": 16, "snap": 3, "import": 1}

_PRECOMMIT = {False: ("PreCommitting", "PreCommitWait"), True: ("SubmitPreCommitBatch", "PreCommitBatchWait")}
_COMMIT = {False: ("SubmitCommit", "CommitWait"), True: ("SubmitCommitAggregate", "CommitAggregateWait")}

DEPOSITED = ("WaitSeed", "Committing", *_COMMIT[False], *_COMMIT[True])
"""States in which the pre-commit is on chain and the sector is not."""


def _seal(version: Version) -> tuple[Step, ...]:
    submit_precommit, await_precommit = _PRECOMMIT[version.has("precommit batch")]
    submit_commit, await_commit = _COMMIT[version.has("commit aggregate")]
    return (
        Step(state="WaitDeals", seconds=900),
        Step(state="AddPiece", tasks=(AP,)),
        Step(state="Packing", seconds=2),
        Step(state="GetTicket", seconds=5),
        Step(state="PreCommit1", tasks=(PC1,), weight=10),
        Step(state="PreCommit2", tasks=(PC2,), weight=4),
        Step(state=submit_precommit, seconds=30, message=True),
        Step(state=await_precommit, seconds=1200, weight=2),
        Step(state="WaitSeed", seconds=4500, weight=4),
        Step(state="Committing", tasks=(C1, C2), weight=6),
        Step(state=submit_commit, seconds=30, message=True),
        Step(state=await_commit, seconds=1200, weight=2, commits=True),
        Step(state="FinalizeSector", tasks=(FIN,)),
    )


_SNAP = (
    Step(state="SnapDealsWaitDeals", seconds=900),
    Step(state="SnapDealsAddPiece", tasks=(AP,)),
    Step(state="SnapDealsPacking", seconds=2),
    Step(state="UpdateReplica", tasks=(RU,), weight=4),
    Step(state="ProveReplicaUpdate", tasks=(PR1, PR2), weight=3),
    Step(state="SubmitReplicaUpdate", seconds=30, message=True),
    Step(state="ReplicaUpdateWait", seconds=300),
    Step(state="FinalizeReplicaUpdate", tasks=(FRU,)),
    Step(state="UpdateActivating", seconds=900),
)

FITTING: Mapping[str, tuple[str, ...]] = {
    AP: ("AddPiece", "SnapDealsAddPiece"),
    PC1: ("PreCommit1",),
    PC2: ("PreCommit2",),
    C1: ("Committing",),
    C2: ("Committing",),
    FIN: ("FinalizeSector",),
    RU: ("UpdateReplica",),
    PR1: ("ProveReplicaUpdate",),
    PR2: ("ProveReplicaUpdate",),
    FRU: ("FinalizeReplicaUpdate",),
    DL: ("ReceiveSector",),
}
"""The states of a sector in which a task is done for it."""

FAILED: Mapping[str, str] = {
    "AddPiece": "AddPieceFailed",
    "PreCommit1": "SealPreCommit1Failed",
    "PreCommit2": "SealPreCommit2Failed",
    "Committing": "ComputeProofFailed",
    "FinalizeSector": "FinalizeFailed",
    "UpdateReplica": "ReplicaUpdateFailed",
    "ProveReplicaUpdate": "ReplicaUpdateFailed",
}
"""Where a sector goes whose task fails; it is tried again a minute later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of worker."""

    tasks: tuple[str, ...]
    slots: int
    memory_bytes: int = 1 << 40
    cpus: int = 128
    gpus: tuple[str, ...] = ()

    @property
    def seals(self) -> bool:
        """Whether the scheduler gives it sealing tasks."""
        return WDP not in self.tasks and WNP not in self.tasks


_CARD = "NVIDIA GeForce RTX 3090"
KINDS: Mapping[str, Kind] = {
    "pc1": Kind(tasks=(AP, DC, PC1, GET, FIN, DL), slots=8),
    "pc2": Kind(tasks=(PC2, C1, C2, RU, PR1, PR2, FRU, GET, FIN), slots=4, gpus=(_CARD, _CARD), cpus=64),
    "local": Kind(tasks=(*TASKS, GET, UNS, FUS, DC, GSK), slots=2, memory_bytes=256 << 30, cpus=64, gpus=(_CARD,)),
    "windowpost": Kind(tasks=(WDP,), slots=1, gpus=(_CARD,), cpus=32),
    "winningpost": Kind(tasks=(WNP,), slots=1, gpus=(_CARD,), cpus=32),
}
