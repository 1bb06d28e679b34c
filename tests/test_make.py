"""`make` shows what there is, and the set-up says nothing when all is there."""

import os
import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
STAMP = CHECKOUT / ".venv" / "setup-stamp"


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    # `make test` started these tests: what make tells its children is not for the make that is looked at.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def _phony() -> list[str]:
    found = re.search(r"^\.PHONY: (.*)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    assert found
    return found.group(1).split()


def test_make_alone_lists_the_targets() -> None:
    done = _run("make")
    assert done.returncode == 0
    assert done.stderr == ""
    listed = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    # `help` is what make alone does, and a set-up is done by those that need it.
    assert listed == [target for target in _phony() if target != "help" and not target.startswith("setup")]


def test_make_says_of_each_target_what_it_does() -> None:
    for line in _run("make").stdout.splitlines()[1:]:
        assert len(line.split(maxsplit=1)[1]) > 10, line


def test_every_target_is_phony() -> None:
    targets = re.findall(r"^([a-z_]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    assert sorted(targets) == sorted(_phony())


@pytest.mark.skipif(not STAMP.exists(), reason="this checkout was not set up by `make`")
def test_setup_run_again_says_nothing_and_changes_nothing() -> None:
    # The first brings what a setup.cfg changed since then asks for.
    assert _run("bash", ".ci/setup").returncode == 0
    stamped = STAMP.stat().st_mtime_ns
    again = _run("bash", ".ci/setup")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert STAMP.stat().st_mtime_ns == stamped
