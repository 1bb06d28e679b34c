"""A process that commits and keeps up by a fast clock, and says which batch is committed: to be killed at any point."""

import random
import sys
from pathlib import Path

from telemetry.fields import Owner
from telemetry.stores import Batch, HistoryRow
from telemetry.stores.history import HOUR
from telemetry.stores.sqlite import SqliteStore
from telemetry.topics import RecordKey
from telemetry.wire import Position

START = 1_795_000_000_000 // (24 * HOUR) * (24 * HOUR)
SENDERS = [
    (RecordKey("f01234", f"seal{number:02}"), owner) for number in range(6) for owner in (Owner.HARDWARE, Owner.TASKS)
]
_PACE = HOUR // 10


def batch_of(seed: int, number: int) -> list[HistoryRow]:
    """The messages of one batch."""
    chosen = random.Random(f"{seed} {number}")
    now = START + number * _PACE
    return [
        HistoryRow(
            *sender,
            Position(7, number * 100 + at + 1),
            now - chosen.choice((0, 0, 0, 1000, HOUR, 5 * HOUR)),
            now + at,
            chosen.random() < 0.1,
            {f"{name}_{sender[1].value}": chosen.randint(0, 100) for name in chosen.sample("abcdefgh", 3)},
            (),
        )
        for at, sender in enumerate(chosen.choices(SENDERS, k=chosen.randint(1, 40)))
    ]


def main(path: Path, seed: int, number: int) -> None:
    """Go on from a batch."""
    chosen = random.Random()
    store = SqliteStore(path)
    while True:
        store.commit(Batch(history=batch_of(seed, number)))
        print(number, flush=True)  # noqa: T201  # whoever kills it reads that
        for _ in range(chosen.randint(0, 12)):
            store.maintain(START + number * _PACE)
        number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
