"""Wheels built from a directory, where setuptools or a package index allows it."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def build_wheel(source: Path, into: Path) -> Path:
    """The wheel of a copy of the checkout: a build leaves things where it happens."""
    isolation = ["--no-build-isolation"] if _can_build_wheels() else []
    done = pip("wheel", str(source), "--no-deps", "--retries", "1", "--timeout", "10", "-w", str(into), *isolation)
    if "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("no package index can be reached to build the wheel with")
    assert done.returncode == 0, done.stderr
    [found] = into.glob("*.whl")
    return found


def _can_build_wheels() -> bool:
    """Whether the setuptools that is installed builds wheels by itself, and needs no index."""
    try:
        found = re.findall(r"\d+", version("setuptools"))
    except PackageNotFoundError:
        return False
    return (int(found[0]), int(found[1])) >= (70, 1)
