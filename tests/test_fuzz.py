"""What was ever found is held, and each target of `make fuzz` is tried anew for a while."""

import os

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.corpus import DIRECTORY, kept
from tests.fuzz.targets import TARGETS

SECONDS = float(os.environ.get("TELEMETRY_FUZZ_SECONDS", "20"))


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_kept_is_read_without_a_crash(target: str) -> None:
    inputs = kept(target)
    assert len(inputs) > 5
    for one in inputs:
        TARGETS[target].check(one)


def test_each_file_of_the_corpus_is_of_a_target() -> None:
    assert {path.stem for path in DIRECTORY.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_made_up_crashes_nothing_and_leaves_nothing_behind(target: str) -> None:
    found = fuzz(target, SECONDS)
    assert found is None, found
