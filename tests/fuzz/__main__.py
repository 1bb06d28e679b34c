"""`python -m tests.fuzz [--seconds 600] [--keep] [TARGET...]`: fuzz, say what was found, keep what leads to new places.

Status 1 where something crashed or grew: the input is in the target's corpus then, so that `make test` fails as well.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.corpus import keep, kept
from tests.fuzz.targets import TARGETS

SHARES = {"hypothesis": 0.25, "atheris": 0.5, "growth": 0.25}
"""Of the time of a target."""

_GRACE = 60.0
_MOST_KEPT = 200


def fuzz(target: str, seconds: float, *, keeps: bool = False) -> str | None:
    """Fuzz a target for so long; what was found, None where all is well."""
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{target}.") as place:
        directory = Path(place) / target
        directory.mkdir()
        before = kept(target)
        for number, one in enumerate(before):
            (directory / f"kept-{number:05}").write_bytes(one)
        found = None
        for engine, time in _engines(seconds):
            found = _run(engine, target, time, directory)
            if found is not None:
                break
        crashes = [path.read_bytes() for path in Path(place).rglob("crash-*")]
        crashes += [path.read_bytes() for path in Path(place).rglob("timeout-*")]
        if crashes and found is None:
            found = "a crash"
        if keeps or crashes:
            new = [path.read_bytes() for path in directory.iterdir()] if keeps else before
            room = max(0, _MOST_KEPT - len(before))
            fresh = sorted(set(new) - set(before) - set(crashes), key=len)[:room]
            keep(target, [*before, *crashes, *fresh])
        return found if not crashes else f"{found}\non the input {crashes[0]!r}"


def _engines(seconds: float) -> list[tuple[str, float]]:
    """Those that there are, and their time: without atheris hypothesis has its share too."""
    shares = dict(SHARES)
    if importlib.util.find_spec("atheris") is None:
        shares["hypothesis"] += shares.pop("atheris")
    return [(engine, share * seconds) for engine, share in shares.items()]


def _run(engine: str, target: str, seconds: float, directory: Path) -> str | None:
    command = [sys.executable, "-m", "tests.fuzz.engines", engine, target, f"{seconds:g}", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + _GRACE)
    said = (done.stdout + done.stderr).strip()
    print(f"{target:9} {engine:11} {_last_line(engine, said)}", flush=True)
    return None if done.returncode == 0 else f"{engine} ended with status {done.returncode}:\n{said[-3000:]}"


def _last_line(engine: str, said: str) -> str:
    if engine == "atheris":
        return ", ".join(line.removeprefix("stat::") for line in said.splitlines() if line.startswith("stat::"))
    return said.splitlines()[-1] if said else "nothing found"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=600.0, help="for each target (default: %(default)g)")
    parser.add_argument("--keep", action="store_true", help="add what leads to new places to the corpus")
    arguments = parser.parse_args()
    found = {target: fuzz(target, arguments.seconds, keeps=arguments.keep) for target in arguments.targets or TARGETS}
    for target, what in found.items():
        if what is not None:
            print(f"{target}: {what}")
    return any(what is not None for what in found.values())


if __name__ == "__main__":
    sys.exit(main())
