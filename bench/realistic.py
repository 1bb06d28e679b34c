"""Twenty hosts for six hours: change messages as real hosts have them, the same in each run.

Of each host 15 fields, sampled every 10 s: 6 shares that walk at random, 4 noisy rates, 3 temperatures and 2 that
hardly ever change, some 10.4 of which are in a message; and a full report every 15 minutes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from telemetry.fields import Owner, Value
from telemetry.stores import HistoryRow
from telemetry.topics import RecordKey
from telemetry.wire import Position

HOSTS, HOURS, INTERVAL = 20, 6, 10.0
SAMPLES_A_HOST = int(HOURS * 3600 / INTERVAL)

_MINER = "f01234"
_BEGAN = 1_763_900_000_000
_FULL = 900.0
_JITTER = 3


class _Series(NamedTuple):
    """A field: bounds, the deviation of a step, the resolution, and whether it is noise around a level or a walk."""

    name: str
    low: float
    high: float
    deviation: float
    resolution: float
    is_noise: bool = False


# Eleven are declared. The others a newer agent might state: the aggregator keeps those too.
_SERIES = (
    *(_Series(name, 0, 100, 0.35, 0.1) for name in ("cpuLoad", "gpuLoad", "diskUsedPercent")),
    *(_Series(name, 0, 100, 0.35, 0.1) for name in ("gpuMemoryLoad", "ioWait", "swapLoad")),
    *(_Series(name, 0, 800 << 20, 30 << 20, 1, is_noise=True) for name in ("diskR", "diskW", "netRx", "netTx")),
    *(_Series(name, 25, 95, 0.45, 1) for name in ("cpuTemper", "gpuTemper", "diskTemper")),
    *(_Series(name, 0, 256 << 30, 8 << 20, 1 << 28) for name in ("useMemory", "gpuMemory")),
)


@dataclass(slots=True)
class _Walk:
    """A field on its way."""

    series: _Series
    level: float

    def step(self, dice: Random) -> Value:
        """The next value."""
        low, high = self.series.low, self.series.high
        value = min(high, max(low, dice.gauss(self.level, self.series.deviation)))
        if not self.series.is_noise:
            self.level = value
        steps = round(value / self.series.resolution)
        is_whole = self.series.resolution >= 1
        return int(steps * self.series.resolution) if is_whole else round(steps * self.series.resolution, 1)


def rows() -> Iterator[HistoryRow]:
    """All messages, in the order of time."""
    hosts = [_host(number) for number in range(HOSTS)]
    for messages in zip(*hosts, strict=True):
        for one in messages:
            yield from one


def samples(messages: Sequence[HistoryRow]) -> int:
    """How many values changed: what a full report repeats is none."""
    return sum(len(row.values) for row in messages if not row.full)


def _host(number: int) -> Iterator[list[HistoryRow]]:
    """What a host says at each sample."""
    dice = Random(number)
    walks = [_Walk(one, one.low + dice.uniform(0.3, 0.7) * (one.high - one.low)) for one in _SERIES]
    key = RecordKey(_MINER, f"seal{number + 1:02}")
    held: dict[str, Value] = {}
    seq, full_due = 0, 0.0
    for sample in range(SAMPLES_A_HOST):
        passed = sample * INTERVAL + number * INTERVAL / HOSTS
        time = _BEGAN + int(passed * 1000) + dice.randint(-_JITTER, _JITTER)
        values = {walk.series.name: walk.step(dice) for walk in walks}
        changed = {name: value for name, value in values.items() if held.get(name) != value}
        held |= changed
        said = [(changed, False)] if sample and changed else []
        if passed >= full_due:
            full_due = passed + _FULL * dice.uniform(0.8, 1.2)
            said.append((dict(held), True))
        yield [
            HistoryRow(
                key, Owner.HARDWARE, Position(_BEGAN, seq + at), time, time + dice.randint(20, 80), full, told, ()
            )
            for at, (told, full) in enumerate(said, 1)
        ]
        seq += len(said)
