"""Whatever is killed, stopped, cut off, filled or set wrong: all that was reported stands in the history once."""

from pathlib import Path

import pytest

from tests.chaos.checks import never_true, not_yet_true
from tests.chaos.oracle import Oracle
from tests.chaos.plan import KINDS, plan
from tests.chaos.run import run

KEPT = b'{"act":"try","host":"h","rows":[[1,1,"a"]]}\n{"act":"kept","host":"h","rows":[[1,1,"a"]]}'
IN_MEMORY = b'{"act":"try","host":"h","rows":[[2,2,"b"]]}\n{"act":"memory","host":"h","rows":[[2,2,"b"]]}'
HELD = b'{"act":"held","host":"h","values":{"diskR":5}}'
MIRROR = {"h": {"diskR": 5}}


def _oracle(*told: bytes) -> Oracle:
    oracle = Oracle(["h"])
    for lines in (*told, HELD):
        for line in lines.splitlines():
            oracle.take(line)
    return oracle


# A test that hangs is ended by a signal, so that what it started ends with it; the thread's way leaves it behind.
@pytest.mark.timeout(150, method="signal")
@pytest.mark.parametrize("seed", [20, 23])
def test_fifty_agents_lose_nothing_and_every_mirror_equals_its_host(seed: int, tmp_path: Path) -> None:
    assert run(tmp_path, seed).messages > 500


def test_the_short_form_uses_every_kind_of_fault() -> None:
    assert {fault.kind for seed in (20, 23) for fault in plan(seed, processes=10)} == KINDS.keys()


def test_a_seed_gives_the_same_faults_again() -> None:
    assert plan(3, processes=10) == plan(3, processes=10)
    assert plan(3, processes=10) != plan(4, processes=10)


def test_what_is_missing_or_differs_is_found() -> None:
    hosts = _oracle(KEPT).hosts()
    assert not_yet_true({"h": [((1, 1), "a")]}, MIRROR, hosts) == []
    assert "not in the history" in not_yet_true({}, MIRROR, hosts)[0]
    assert "differs in diskR" in not_yet_true({"h": [((1, 1), "a")]}, {"h": {"diskR": 6}}, hosts)[0]


def test_what_stands_twice_or_was_never_written_is_found() -> None:
    hosts = _oracle(KEPT).hosts()
    assert never_true({"h": [((1, 1), "a")]}, hosts) == []
    assert "stands 2 times" in never_true({"h": [((1, 1), "a"), ((1, 1), "a")]}, hosts)[0]
    assert "never written so" in never_true({"h": [((1, 1), "b")]}, hosts)[0]


def test_only_what_was_in_memory_alone_when_its_process_was_killed_may_be_lost() -> None:
    start, safe = b'{"act":"start","host":"h"}', b'{"act":"safe","host":"h"}'
    history = {"h": [((1, 1), "a")]}
    assert not_yet_true(history, MIRROR, _oracle(KEPT, IN_MEMORY, start).hosts()) == []
    assert not_yet_true(history, MIRROR, _oracle(KEPT, IN_MEMORY).hosts())
    assert not_yet_true(history, MIRROR, _oracle(KEPT, IN_MEMORY, safe, start).hosts())
