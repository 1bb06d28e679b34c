"""kill -9 at any point of a commit or of the upkeep: the history is what was committed."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.stores.history import Tier
from telemetry.stores.history.reading import History, open_history
from telemetry.stores.sqlite import SqliteStore
from tests.history_child import SENDERS, batch_of
from tests.history_oracle import PlainList, fields_of

DATABASES = max(1, int(os.environ.get("TELEMETRY_FUZZ_RUNS", "25")) // 100)
KILLS = 8
"""Of a database: what it holds is compared after each."""


def _run_and_kill(path: Path, seed: int, number: int, batches: int) -> int:
    """Start at a batch, kill after some; the last batch that was said to be committed."""
    command = [sys.executable, "-m", "tests.history_child", str(path), str(seed), str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        told = [int(child.stdout.readline()) for _ in range(batches)]
        child.kill()
        told += [int(line) for line in child.stdout]
    return told[-1]


def _committed(history: History) -> int:
    return sum(1 for key in history.records() for _ in history.statements(key))


@pytest.mark.parametrize("database", range(DATABASES))
def test_a_process_that_is_killed_loses_nothing_and_keeps_nothing_twice(tmp_path: Path, database: int) -> None:
    path, seed = tmp_path / f"{database}.db", random.randrange(10**6)
    plain, number = PlainList(), 0
    for _ in range(KILLS):
        last = _run_and_kill(path, seed, number, random.randint(1, 30))
        for one in range(number, last + 1):
            plain.rows += batch_of(seed, one)
        number = last + 1
        with open_history(path) as history:
            following = batch_of(seed, number)
            if _committed(history) == len(plain.rows) + len(following):
                # Committed, and killed before it could say so.
                plain.rows += following
                number += 1
            _compare(history, plain, seed)
    SqliteStore(path).close()
    with open_history(path) as history:
        _compare(history, plain, seed)
        assert all(Tier.HOURS in history.kept_since(key) for key in history.records()), "nothing was packed"


def _compare(history: History, plain: PlainList, seed: int) -> None:
    for key in sorted({key for key, _ in SENDERS}, key=str):
        found = [(owner, one.epoch, one.seq, one.time, one.values) for owner, one in history.statements(key)]
        rows = plain.of(key)
        assert found == [(row.owner, *row.position, row.time, row.values) for row in rows], seed
        for name, owner in fields_of(rows)[:1]:
            for hour in sorted({row.time // Tier.HOURS * Tier.HOURS for row in rows}):
                summary = next(iter(history.summaries(key, name, hour, hour + 1, Tier.HOURS)), None)
                expected = plain.summary(key, name, owner, hour, hour + Tier.HOURS)
                assert (summary and summary.counted) == (expected and expected["counted"]), seed
    assert not history.damaged
