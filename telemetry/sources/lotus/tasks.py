"""The task types of Lotus: their short names, their order, and how long each usually takes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

UNKNOWN = "UNK"
"""Short name of the task without a name, and of those that a newer Lotus added."""

SHORT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "seal/v0/datacid": "DC",
        "seal/v0/addpiece": "AP",
        "seal/v0/precommit/1": "PC1",
        "seal/v0/precommit/2": "PC2",
        "seal/v0/commit/1": "C1",
        "seal/v0/commit/2": "C2",
        "seal/v0/finalize": "FIN",
        "seal/v0/finalizeunsealed": "FUS",
        "seal/v0/fetch": "GET",
        "seal/v0/unseal": "UNS",
        "seal/v0/unsealread": "RD",
        "seal/v0/replicaupdate": "RU",
        "seal/v0/provereplicaupdate/1": "PR1",
        "seal/v0/provereplicaupdate/2": "PR2",
        "seal/v0/regensectorkey": "GSK",
        "seal/v0/finalize/replicaupdate": "FRU",
        "seal/v0/download/sector": "DL",
        "post/v0/windowproof": "WDP",
        "post/v0/winningproof": "WNP",
    }
)
"""Short names by task type, in the order in which they are listed."""

_ORDER = {short: place for place, short in enumerate((*SHORT_NAMES.values(), UNKNOWN))}

_GIB = 1024**3
_MINUTE, _HOUR = 60.0, 3600.0

USUAL_SECONDS: Mapping[str, float] = MappingProxyType(
    {
        "AP": 5 * _MINUTE,
        "PC1": 5 * _HOUR,
        "PC2": 15 * _MINUTE,
        "C1": 1 * _MINUTE,
        "C2": 30 * _MINUTE,
        "GET": 5 * _MINUTE,
    }
)
"""By short name, how long a task of a 32 GiB sector takes at most when all is well; others have no limit."""

_TIMES_AS_LONG = {64 * _GIB: 2}


def short_name(task: str) -> str:
    """The short name of a task type."""
    return SHORT_NAMES.get(task, UNKNOWN)


def overdue_seconds(sector_size: int, configured: Mapping[str, float] = MappingProxyType({})) -> dict[str, float]:
    """By short name, after how many seconds a task is overdue; `configured` ones are taken as they are."""
    times = _TIMES_AS_LONG.get(sector_size, 1)
    return {short: times * seconds for short, seconds in USUAL_SECONDS.items()} | dict(configured)


def counts_by_short_name(task_counts: Mapping[str, int]) -> Counter[str]:
    """The TaskCounts of a worker (`8:seal/v0/fetch`) by short name.

    The unknown ones are left out: a task that waits for resources is counted under no name.
    """
    counts: Counter[str] = Counter()
    for proof_and_task, count in task_counts.items():
        counts[short_name(proof_and_task.rpartition(":")[2])] += count
    del counts[UNKNOWN]
    return counts


def in_order(short_names: Iterable[str]) -> list[str]:
    """Short names in the order in which they are listed."""
    return sorted(short_names, key=lambda short: (_ORDER.get(short, len(_ORDER)), short))
