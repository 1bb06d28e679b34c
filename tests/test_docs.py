"""What the documents say is run: each command of the README, its Python, each setting, each link."""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from telemetry.cli import COMMANDS
from telemetry.cli.install import PARTS
from telemetry.config import read_settings
from telemetry.processes import answers
from tests.parts import own_port, wait_for

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text() + "\n"
BIN = Path(sys.executable).parent

ENDS_WITH = {
    "mosquitto_sub -h 127.0.0.1 -p 1883 -t 'miners/#' -v": " -C 1 -W 20",
    "telemetry watch f00": " --count 1",
}
"""Commands that go on for ever, and how they end in a test."""

FLEET = ("telemetry broker", "telemetry aggregator", "telemetry agent", "telemetry enroll", "telemetry forget")
"""Commands that tests/test_deploy.py runs."""

BY_CI = {"make test"}


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def _commands(text: str) -> list[str]:
    return [line for block in _blocks(text, "sh") for line in block.splitlines()]


READING = [line for line in _commands(README) if not line.startswith((*FLEET, "make "))]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """The directory in which `make run` was started, as the README says, and the broker's port."""
    place = tmp_path_factory.mktemp("newcomer")
    port = own_port()
    (place / ".venv").symlink_to(BIN.parent)
    command = ["make", "-C", str(ROOT), "run", f"ARGS=--data '{place}/telemetry-data' --port {port}"]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    wait_for(lambda: "totalMemory" in (place / "log").read_text(), seconds=60, what=(place / "log").read_text())
    yield place, port
    os.killpg(process.pid, signal.SIGINT)
    process.wait(30)
    wait_for(lambda: not answers(port), seconds=10, what="the broker ended")


def _real(command: str, port: int, place: Path) -> str:
    """The command with this test's port and directory in place of the README's."""
    command += ENDS_WITH.get(command, "")
    # What runs here has just begun.
    command = command.replace("telemetry at -10m", "telemetry at now")
    return command.replace("-p 1883", f"-p {port}").replace("/var/lib/telemetry", str(place / "var"))


@pytest.mark.parametrize("command", READING)
def test_a_command_of_the_readme_does_what_it_says(command: str, running: tuple[Path, int]) -> None:
    place, port = running
    program = command.split(maxsplit=1)[0]
    if program == "sqlite3" and shutil.which(program) is None:
        pytest.skip("sqlite3, the command-line program, is not installed")
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", _real(command, port, place)],
        cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout or program == "."
    assert "Traceback" not in done.stderr


def test_the_python_of_the_readme_runs(running: tuple[Path, int]) -> None:
    _, port = running
    [example] = _blocks(README, "python")
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", example.replace(":1883", f":{port}")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    process.wait(10)
    assert line.startswith("f00/")


def test_every_command_of_the_readme_is_run_here_or_by_ci() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    rest = [line for line in _commands(README) if line not in READING and not line.startswith(FLEET)]
    assert set(rest) == {"make run", "make demo", *BY_CI}
    assert all(command in ci for command in BY_CI)


def test_every_setting_of_the_documentation_is_known_and_at_its_default() -> None:
    [example] = _blocks(DEPLOYMENT, "toml")
    settings = read_settings(text=example, environ={}, options={})
    for name, value in tomllib.loads(example)["intervals"].items():
        assert getattr(settings.intervals, name) == value
    default = read_settings(environ={}, options={})
    assert (settings.intervals, settings.topics) == (default.intervals, default.topics)


def _known(command: str) -> bool:
    """Whether a command line of the page is one that the program, the services or the containers know."""
    words = shlex.split(command)
    if words[0] == "telemetry":
        return _is_parsed(words[1:])
    if words[0] in {"systemctl", "journalctl"}:
        units = [word for word in words if word.startswith("telemetry-")]
        return all(unit.removeprefix("telemetry-") in PARTS for unit in units)
    assert words[:2] == ["docker", "compose"], command
    file = words[words.index("-f") + 1] if "-f" in words else "compose.yaml"
    services = yaml.safe_load((ROOT / file).read_text())["services"]
    named = next((at for at, word in enumerate(words) if word.partition(":")[0] in services), None)
    if named is None or words[named + 1 :] == [] or ":" in words[named]:
        return True
    rest = words[named + 1 :]
    return _is_parsed(rest if words[2] == "run" else rest[1:])


def _is_parsed(words: list[str]) -> bool:
    if words[0] in PARTS and words[0] not in COMMANDS:
        return True
    parser = argparse.ArgumentParser(exit_on_error=False)
    import_module(f"telemetry.cli.{words[0]}").add_arguments(parser)
    parser.parse_args(words[1:])
    return True


@pytest.mark.parametrize("command", _commands(DEPLOYMENT))
def test_a_command_of_the_deployment_page_is_one_that_there_is(command: str) -> None:
    assert _known(command)


def _statements() -> list[str]:
    return re.findall(r"^\*\*P-\d+\*\*.*?(?=\n\n)", PROTOCOL, re.DOTALL | re.MULTILINE)


def test_the_statements_of_the_protocol_are_numbered_in_turn() -> None:
    numbers = [int(number) for number in re.findall(r"^\*\*P-(\d+)\*\*", PROTOCOL, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(_statements()) == len(numbers)


def test_each_statement_of_the_protocol_names_tests_that_there_are() -> None:
    written = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    for statement in _statements():
        named = re.findall(r"`(test_\w+)`", statement)
        assert named, statement
        assert set(named) <= written, statement


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))])
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
