"""Which faults a run has, when, where and for how long, is a function of its seed."""

from collections import defaultdict
from dataclasses import dataclass
from random import Random

SECONDS = 10.0
"""In which the faults of a run begin."""

_REST = 0.4


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: what it acts on, for how long, and how often it comes beside the others.

    Two faults that act on the same thing do not overlap; all others may.
    """

    target: str
    shortest: float
    longest: float
    weight: int = 2


KINDS = {
    "agents killed": Kind("process", 0.1, 2.0, 4),
    "agents stopped": Kind("process", 0.5, 5.0, 3),
    "broker killed": Kind("broker", 0.1, 1.5),
    "broker stopped": Kind("broker", 0.5, 3.0),
    "broker's store lost": Kind("broker", 0.1, 1.5),
    "aggregator killed": Kind("aggregator", 0.1, 2.0),
    "aggregator stopped": Kind("aggregator", 0.5, 4.0),
    "network cut": Kind("gate", 0.1, 3.0, 3),
    "network frozen": Kind("gate", 0.3, 3.0, 3),
    "network frozen, then cut": Kind("gate", 0.3, 3.0, 3),
    "clock stepped": Kind("clock", 0.0, 0.0, 3),
    "disk filled": Kind("disk", 1.0, 6.0, 3),
    "writes refused": Kind("disk", 1.0, 6.0, 3),
}

ALL = -1
"""Of gates: the whole network."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """A fault: `at` seconds from the start, on number `index` of its targets, healed after `lasts` seconds."""

    at: float
    kind: str
    index: int
    lasts: float
    amount: float = 0.0


def plan(seed: int, *, processes: int, seconds: float = SECONDS) -> list[Fault]:
    """The faults of a run, in the order in which they begin."""
    dice = Random(seed)
    targets = {"process": processes, "clock": processes, "disk": processes, "gate": processes + 1}
    free_at: dict[tuple[str, int], float] = defaultdict(float)
    faults: list[Fault] = []
    for _ in range(dice.randint(26, 40)):
        name = dice.choices(list(KINDS), [kind.weight for kind in KINDS.values()])[0]
        kind = KINDS[name]
        index = dice.randrange(targets.get(kind.target, 1))
        if kind.target == "gate" and dice.random() < 0.3:
            index = ALL
        at, lasts = dice.uniform(0, seconds), dice.uniform(kind.shortest, kind.longest)
        amount = dice.choice([-21_600, -3600, -2, 2, 3600, 21_600]) + dice.uniform(-1, 1)
        faults.append(Fault(round(at, 2), name, index, round(lasts, 2), round(amount, 2)))
    kept = []
    for fault in sorted(faults):
        place = (KINDS[fault.kind].target, fault.index)
        busy = [place, (place[0], ALL)] if fault.index != ALL else [one for one in free_at if one[0] == place[0]]
        if all(fault.at >= free_at[one] for one in busy):
            free_at[place] = fault.at + fault.lasts + _REST
            kept.append(fault)
    return kept
