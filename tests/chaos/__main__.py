"""Runs many seeds; prints each, and by which line a failing one is done again. 0: all went well; 1: one did not."""

import argparse
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from tests.chaos.plan import KINDS
from tests.chaos.run import ChaosError, run

_MANY = 20
"""Seeds from which on every kind of fault has to come up."""

_IN_MEMORY = "spool in memory"
_KILLED_IN_MEMORY = "agents killed with a spool in memory"


def main() -> int:
    """Run the seeds that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    used: Counter[str] = Counter()
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    failed = [seed for seed in seeds if not _run_one(seed, used)]
    unused = [kind for kind in (*KINDS, _IN_MEMORY, _KILLED_IN_MEMORY) if not used[kind]]
    _say("in all: " + ", ".join(f"{kind} {number}" for kind, number in sorted(used.items())))
    if failed:
        _say(f"failed: {', '.join(map(str, failed))}")
    if unused and arguments.seeds >= _MANY:
        _say(f"never used: {', '.join(unused)}")
        return 1
    return 1 if failed else 0


def _run_one(seed: int, used: Counter[str]) -> bool:
    directory = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    try:
        report = run(directory, seed)
    except ChaosError as error:
        _say(f"seed {seed} FAILED: {error}")
    except KeyboardInterrupt:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    except Exception:  # noqa: BLE001  # the seeds after it are run all the same
        _say(f"seed {seed} FAILED: {traceback.format_exc()}")
    else:
        shutil.rmtree(directory)
        used.update(report.faults)
        used.update({_IN_MEMORY: report.in_memory, _KILLED_IN_MEMORY: report.excused})
        return True
    _say(f"again by: make chaos SEED={seed} SEEDS=1; what it left: {directory}")
    return False


def _interrupt(*_: object) -> None:
    """Once: what was started has to be ended before anything else."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
