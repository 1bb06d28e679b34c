"""The image and its compose files, as far as they can be tried where no container runs."""

import argparse
import fnmatch
import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from telemetry.cli import COMMANDS
from telemetry.cli.install import PARTS
from tests.wheels import build_wheel

CHECKOUT = Path(__file__).parents[1]
DOCKERFILE = (CHECKOUT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = {path.name: yaml.safe_load(path.read_text()) for path in sorted(CHECKOUT.glob("compose*.yaml"))}
SERVICES = [(file, name) for file, compose in COMPOSE.items() for name in compose["services"]]


def _instructions(word: str) -> list[str]:
    return re.findall(rf"^{word} +(.*)$", DOCKERFILE, re.MULTILINE)


def _service(file: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = COMPOSE[file]["services"][name]
    return found


def _require_parsed(words: list[str]) -> None:
    """Fail where `telemetry` does not know an option, by its own parser."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    import_module(f"telemetry.cli.{words[0]}").add_arguments(parser)
    parser.parse_args(words[1:])


def _copied() -> Iterator[str]:
    for instruction in _instructions("COPY"):
        *sources, _ = instruction.split()
        if not sources[0].startswith("--from"):
            yield from sources


def test_every_part_runs_in_a_container() -> None:
    assert sorted(name for _, name in SERVICES) == sorted(PARTS)


@pytest.mark.parametrize(("file", "name"), SERVICES)
def test_a_container_runs_a_command_that_there_is_and_is_looked_after(file: str, name: str) -> None:
    service = _service(file, name)
    [entry] = _instructions("ENTRYPOINT")
    assert json.loads(entry) == ["telemetry"]
    assert service["command"][0] == name
    health = service["healthcheck"]["test"]
    assert health[0] == "CMD"
    for words in (service["command"], health[2:] if health[1] == "telemetry" else None):
        if words is not None and words[0] in COMMANDS:
            _require_parsed(words)


@pytest.mark.parametrize(("file", "name"), SERVICES)
def test_a_container_is_closed_but_for_what_it_needs(file: str, name: str) -> None:
    service = _service(file, name)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "user" not in service, "that of the image"
    for volume in service["volumes"]:
        source, target, *mode = volume.split(":")
        assert mode or source in COMPOSE[file]["volumes"], f"{target} of the machine can be written"
    secret = json.dumps(COMPOSE[file]).lower()
    assert "password" not in secret


def test_the_image_runs_as_a_user_that_may_write_its_directories_and_nothing_else() -> None:
    [user] = _instructions("USER")
    # By number, so that who runs the image sees that it is not root.
    assert f"--uid {user} " in DOCKERFILE.split("useradd", 1)[1].splitlines()[0]
    [made] = re.findall(r"install -d -o telemetry -g telemetry (.*)$", DOCKERFILE, re.MULTILINE)
    targets = [
        volume.split(":")[1]
        for file, name in SERVICES
        for volume in _service(file, name)["volumes"]
        if volume.count(":") == 1
    ]
    assert set(targets) == set(made.split())
    assert DOCKERFILE.index("\nUSER ") < DOCKERFILE.index("\nENTRYPOINT ")


def test_both_stages_are_of_one_base_whose_python_is_new_enough() -> None:
    bases = {instruction.split()[0] for instruction in _instructions("FROM")}
    assert len(bases) == 1, "an environment that is copied needs the interpreter that made it"
    found = re.fullmatch(r"python:3\.(\d+)-slim-[a-z]+", bases.pop())
    assert found is not None
    assert int(found[1]) >= 11


def test_what_is_copied_into_the_image_makes_the_whole_package(tmp_path: Path) -> None:
    ignore = (CHECKOUT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignore if line.startswith("!")}
    assert set(_copied()) == kept
    for source in _copied():
        path = CHECKOUT / source
        if path.is_dir():
            shutil.copytree(path, tmp_path / "source" / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (tmp_path / "source").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "source")
    wheel = build_wheel(tmp_path / "source", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for pattern in (
        "telemetry/broker/mosquitto.conf",
        "telemetry/broker/telemetry-*.service",
        "telemetry/schemas/*.json",
    ):
        assert fnmatch.filter(names, pattern), pattern
