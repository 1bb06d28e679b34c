"""Three ways to make inputs up, each for some seconds in a process of its own: `python -m tests.fuzz.engines ...`.

`hypothesis` makes what is nearly right; `atheris`, where it is installed, goes where the code has not been; `growth`
makes new inputs without end, and holds that the process does not grow with them.
"""

import gc
import os
import sys
import time
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, Phase, given, settings

WARM_UP = 0.4
"""Of the time: until then what is kept on purpose is full."""

MOST_GROWTH = 8 << 20
"""Bytes; an input that left only 100 of them behind would be far beyond in a minute."""

_EXAMPLES = 500
_LONGEST = 4096
FOUND = 1
"""The exit status of a process that found something."""


def with_hypothesis(target: str, seconds: float, directory: Path) -> None:
    """Try what is nearly right; what fails is made as small as it can be, and kept in the directory."""
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415  # after atheris, where that is to see it

    last = b""

    @settings(
        max_examples=_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.target, Phase.shrink],
    )  # fmt: skip
    @given(TARGETS[target].inputs)
    def holds(data: bytes) -> None:
        nonlocal last
        last = data
        TARGETS[target].check(data)

    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            holds()
    except BaseException:
        (directory / f"crash-{os.getpid()}").write_bytes(last)
        raise


def with_atheris(target: str, seconds: float, directory: Path) -> None:
    """Go where the code has not been; what leads there is put into the directory beside what is there already."""
    import atheris  # noqa: PLC0415  # where it installs

    with atheris.instrument_imports(include=["telemetry", "tomllib"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415
    found = directory.parent / f"{target}.crashes"
    found.mkdir(exist_ok=True)
    options = [f"-max_total_time={seconds:.0f}", f"-artifact_prefix={found}/", "-timeout=10", f"-max_len={_LONGEST}"]
    atheris.Setup(
        [sys.argv[0], str(directory), *options, "-print_final_stats=1", "-rss_limit_mb=1500"], TARGETS[target].check
    )
    atheris.Fuzz()


def growth(target: str, seconds: float, directory: Path) -> None:
    """Say by how many bytes the process has grown since it was warm."""
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415  # as above

    known = [path.read_bytes() for path in sorted(directory.iterdir())] or [b""]
    dice, check, began = Random(0), TARGETS[target].check, time.monotonic()  # a test's
    count, warm = 0, None
    data = b""
    try:
        while (passed := time.monotonic() - began) < seconds:
            for _ in range(50):
                data = _mutated(dice, known)
                check(data)
            count += 50
            if warm is None and passed > seconds * WARM_UP:
                warm = _resident()
    except BaseException:
        (directory / f"crash-{os.getpid()}").write_bytes(data)
        raise
    grown = _resident() - (warm or 0)
    print(f"{count} inputs, grown by {grown / 1024:.0f} KiB")
    if grown > MOST_GROWTH:
        sys.exit(FOUND)


def _mutated(dice: Random, known: list[bytes]) -> bytes:
    """One of those that are known, with something of another one, or a byte that is wrong."""
    data = bytearray(dice.choice(known))
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(4):
            case 0:
                data[at : at + dice.randrange(8)] = dice.randbytes(dice.randrange(8))
            case 1:
                data[at : at + 1] = bytes([dice.randrange(256)])
            case 2:
                other = dice.choice(known)
                start = dice.randrange(len(other) + 1)
                data[at:at] = other[start : start + dice.randrange(40)]
            case 3:
                # So that names and numbers are new ones.
                data[at:at] = str(dice.randrange(10**6)).encode()
    return bytes(data[:_LONGEST])


def _resident() -> int:
    """Bytes that this process has in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


ENGINES = {"hypothesis": with_hypothesis, "atheris": with_atheris, "growth": growth}

if __name__ == "__main__":
    ENGINES[sys.argv[1]](sys.argv[2], float(sys.argv[3]), Path(sys.argv[4]))
