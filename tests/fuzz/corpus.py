"""The inputs that are kept: of each target a file, with a bytes literal a line, the shortest first."""

import ast
from collections.abc import Iterable
from pathlib import Path

DIRECTORY = Path(__file__).parent / "corpus"


def kept(target: str) -> list[bytes]:
    """The inputs of a target."""
    file = DIRECTORY / f"{target}.txt"
    return [ast.literal_eval(line) for line in file.read_text().splitlines()] if file.exists() else []


def keep(target: str, inputs: Iterable[bytes]) -> None:
    """Write a target's inputs."""
    ordered = sorted(set(inputs), key=lambda one: (len(one), one))
    (DIRECTORY / f"{target}.txt").write_text("".join(f"{one!r}\n" for one in ordered))
