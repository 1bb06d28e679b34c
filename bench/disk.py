"""How long the disk takes to have some bytes for good: what each commit waits for, whoever makes it."""

import os
import time
from pathlib import Path

_BYTES = 100_000
"""About what a commit of a thousand changes writes."""

_WRITES, _PAUSE = 100, 0.02


def seconds_to_sync(path: Path) -> list[float]:
    """Append to a file some times, and wait each time until the disk has it; how long that took."""
    taken = []
    with path.open("ab", buffering=0) as file:
        for _ in range(_WRITES):
            file.write(os.urandom(_BYTES))
            began = time.monotonic()
            os.fdatasync(file.fileno())
            taken.append(time.monotonic() - began)
            time.sleep(_PAUSE)
    return taken
