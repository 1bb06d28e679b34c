"""How a fleet is deployed, as the README and docs/deploy.md say it: every command of them is run, in their order."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from telemetry.processes import answers
from tests.parts import own_port, wait_for
from tests.secured import reachable_directory

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SERVERS = ("telemetry broker --data", "telemetry aggregator", "telemetry agent")


def _commands(page: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


class Deployment:
    """A machine in the middle, and hosts, each with a directory and a loopback address of its own."""

    def __init__(self, place: Path, number: int) -> None:
        self.place = place
        self.address = f"127.0.0.{number}"
        self.port, self.tls_port = own_port(), own_port(25)
        self._environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
        self._started: list[subprocess.Popen[bytes]] = []
        self._log = place / "log"

    def run(self, command: str) -> str:
        """Run one command; a server goes on."""
        if command.startswith("telemetry install") and os.geteuid() == 0 and not shutil.which("systemd-sysusers"):
            return "not tried: systemd is not installed"
        real = self._real(command)
        if not command.startswith(SERVERS):
            done = subprocess.run(
                ["bash", "-c", real], cwd=self.place, env=self._environment, capture_output=True, text=True, timeout=60,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{real}: {done.stdout}{done.stderr}{self.log}"
            return done.stdout
        with self._log.open("ab") as output:
            self._started.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec {real}"], cwd=self.place, env=self._environment, stdout=output, stderr=output
                )
            )
        if command.startswith("telemetry broker"):
            wait_for(lambda: answers(self.port), seconds=15, what=self.log)
        return ""

    def _real(self, command: str) -> str:
        """The command with this test's ports, addresses and directories in place of the page's."""
        command = command.replace("mqtt.example.lan", self.address)
        bundle = re.search(r"--bundle f01234\.(\w+)\.toml", command)
        command = command.replace("/var/lib/telemetry-agent", f"{self.place}/{bundle[1] if bundle else ''}")
        is_host = command.startswith("telemetry agent")
        command = command.replace("/var/lib/telemetry", f"{self.place}/{'host' if is_host else 'centre'}")
        if command.startswith("telemetry install"):
            return f"{command} --root {self._image()}"
        if " broker init" in command:
            command += f" --listen {self.address} --port {self.tls_port}"
        if " broker --data" in command:
            command += f" --port {self.port}"
        return command

    def _image(self) -> Path:
        """Where services are installed: a root with Mosquitto's user, and the data of the machine in the middle."""
        image = self.place / "image"
        if not image.exists():
            (image / "etc").mkdir(parents=True)
            (image / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\nmosquitto:x:102:105::/:/bin/false\n")
            (image / "etc" / "group").write_text("root:x:0:\nmosquitto:x:105:\n")
            (image / "var" / "lib").mkdir(parents=True)
            (image / "var" / "lib" / "telemetry").symlink_to(self.place / "centre")
        return image

    def shows(self, host: str) -> bool:
        command = f"telemetry show f01234 {host} --data {self.place}/centre"
        done = subprocess.run(["bash", "-c", command], env=self._environment, capture_output=True, check=False)
        return done.returncode == 0 and b"cpuLoad" in done.stdout

    def end_agent(self) -> None:
        """End the server that was started last."""
        process = self._started.pop()
        process.terminate()
        assert process.wait(15) == 0

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def end(self) -> None:
        for process in reversed(self._started):
            process.terminate()
            assert process.wait(15) == 0


@pytest.fixture
def deployment(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    with reachable_directory() as place:
        made = Deployment(place, request.param)
        yield made
        made.end()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("deployment", [211], indirect=True)
def test_three_hosts_are_deployed_over_tls_by_the_commands_of_the_page(deployment: Deployment) -> None:
    commands = _commands("docs/deploy.md")
    agents = [command for command in commands if command.startswith("telemetry agent")]
    assert len(agents) == 3
    for command in commands:
        if command.startswith("telemetry ls"):
            for host in ("seal01", "seal02", "miner01"):
                wait_for(partial(deployment.shows, host), seconds=30, what=f"{host}: {deployment.log}")
        if command.startswith("telemetry forget"):
            wait_for(lambda: "get a new bundle" in deployment.log, seconds=15, what=deployment.log)
        # Its agent still runs, and is out.
        told = deployment.run(command + " --force" if command.startswith("telemetry forget") else command)
        assert told or command.startswith(SERVERS), command
    assert "Traceback" not in deployment.log
    assert not deployment.shows("seal01")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("deployment", [212], indirect=True)
def test_the_commands_of_the_readme_for_a_fleet_work_together(deployment: Deployment) -> None:
    fleet = ("telemetry broker", "telemetry aggregator", "telemetry agent", "telemetry enroll")
    for command in [line for line in _commands("README.md") if line.startswith(fleet)]:
        deployment.run(command)
    wait_for(lambda: deployment.shows("seal01"), seconds=20, what=deployment.log)
    deployment.end_agent()
    [forget] = [line for line in _commands("README.md") if line.startswith("telemetry forget")]
    assert "revoked f01234.seal01" in deployment.run(f"{forget} --data {deployment.place}/centre")
    assert not deployment.shows("seal01")


def test_every_sh_line_of_the_page_is_a_command_that_the_test_knows() -> None:
    assert all(command.startswith("telemetry ") for command in _commands("docs/deploy.md"))
