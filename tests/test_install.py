"""What is installed: the wheel holds every part of the package, and nothing beside it."""

import configparser
import json
import pkgutil
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import telemetry
from telemetry.processes import answers
from tests.parts import own_port, wait_for
from tests.wheels import build_wheel, pip

CHECKOUT = Path(__file__).parent.parent
NOT_SOURCE = shutil.ignore_patterns(".*", "*.egg-info", "*.pyc.*", "build", "dist", "telemetry-data")

RESOURCES = """
import json
from importlib.resources import files
schemas = {one.name: json.loads(one.read_text()) for one in files("telemetry.schemas").iterdir()
           if one.name.endswith(".json")}
broker = files("telemetry.broker")
conf = broker.joinpath("mosquitto.conf").read_text()
for path in ("prometheus/alerts.yml", "grafana/dashboards/telemetry-fleet.json",
             "grafana/provisioning/datasources/telemetry.yaml"):
    assert broker.joinpath(path).read_text()
import telemetry
print(json.dumps({"at": telemetry.__file__, "schemas": schemas, "conf": conf}))
"""


class Installed(NamedTuple):
    """A virtual environment in which telemetry is."""

    directory: Path

    def run(self, *command: str) -> str:
        """What a program of the environment prints, run away from the checkout."""
        program = self.directory / "bin" / command[0]
        done = subprocess.run(
            [program, *command[1:]], cwd=self.directory, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves things where it happens."""
    copy = tmp_path_factory.mktemp("source") / "checkout"
    shutil.copytree(CHECKOUT, copy, ignore=NOT_SOURCE)
    return build_wheel(copy, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A new environment with the wheel in it, and what it depends on borrowed from ours."""
    directory = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    python = directory / "bin" / "python"
    done = pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    assert done.returncode == 0, done.stderr
    # Ours comes last, and the .pth file of an editable install has no effect there.
    [packages] = directory.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(directory)


@pytest.fixture
def declared() -> configparser.ConfigParser:
    """setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(CHECKOUT / "setup.cfg")
    return parser


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _package_places(declared: configparser.ConfigParser) -> dict[str, Path]:
    """The packages that live elsewhere than below telemetry/, and where."""
    pairs = (line.split(" = ") for line in _lines(declared["options"]["package_dir"]))
    return {name: CHECKOUT / place for name, place in pairs}


# --- the wheel ---


def test_console_script_of_the_wheel_tells_its_version(installed: Installed) -> None:
    assert installed.run("telemetry", "--version") == f"telemetry {telemetry.__version__}\n"


def test_wheel_is_imported_away_from_the_checkout_with_its_resources(installed: Installed) -> None:
    found = json.loads(installed.run("python", "-c", RESOURCES))
    assert Path(found["at"]).is_relative_to(installed.directory)
    _assert_are_ours(found)


def test_wheel_prints_the_catalogue_of_fields(installed: Installed) -> None:
    catalogue = installed.run("telemetry", "fields", "--json")
    assert "cpuLoad" in catalogue
    assert json.loads(catalogue)


def test_broker_of_the_wheel_starts(installed: Installed, tmp_path: Path) -> None:
    port = own_port()
    broker = subprocess.Popen(
        [installed.directory / "bin" / "telemetry", "broker", "--data", tmp_path, "--port", str(port)],
        cwd=installed.directory,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: answers(port), seconds=15, what="broker answers")
        assert Path(f"/proc/{broker.pid}/cmdline").read_bytes().split(b"\0")[0].endswith(b"mosquitto")
    finally:
        broker.terminate()
        assert broker.wait(10) == 0


def test_wheel_has_no_top_level_name_but_telemetry(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [named] = [name for name in archive.namelist() if name.endswith("/top_level.txt")]
        assert archive.read(named).decode().split() == ["telemetry"]
        [record] = [name for name in archive.namelist() if name.endswith("/RECORD")]
        top = {line.split("/")[0] for line in archive.read(record).decode().splitlines()}
    assert top == {"telemetry", record.split("/")[0]}


def test_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path, declared: configparser.ConfigParser) -> None:
    places = {"telemetry": CHECKOUT / "telemetry", **_package_places(declared)}
    expected = {
        f"{name.replace('.', '/')}/{path.relative_to(place)}"
        for name, place in places.items()
        for path in place.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected


# --- the editable install ---


def test_editable_install_has_the_same_resources(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", RESOURCES], cwd=tmp_path, capture_output=True, text=True, check=True)
    _assert_are_ours(json.loads(done.stdout))


def _assert_are_ours(found: dict[str, object]) -> None:
    assert found["schemas"] == {path.name: json.loads(path.read_text()) for path in CHECKOUT.glob("schemas/*.json")}
    assert found["conf"] == (CHECKOUT / "broker" / "mosquitto.conf").read_text()


# --- what is declared ---


def test_every_package_is_declared_and_no_other(declared: configparser.ConfigParser) -> None:
    elsewhere = _package_places(declared)
    assert all((place / "__init__.py").exists() for place in elsewhere.values())
    walked = {found.name for found in pkgutil.walk_packages(telemetry.__path__, "telemetry.") if found.ispkg}
    assert set(_lines(declared["options"]["packages"])) == {"telemetry", *walked, *elsewhere}


@pytest.mark.parametrize("pin", ["paho-mqtt>=2.2,<2.3", "apscheduler>=3.11,<4"])
def test_library_is_pinned_to_the_versions_it_was_written_for(declared: configparser.ConfigParser, pin: str) -> None:
    assert pin in _lines(declared["options"]["install_requires"])


def test_nvml_comes_from_nvidia_and_not_from_its_forsaken_namesake(declared: configparser.ConfigParser) -> None:
    required = [re.split(r"[<>=~! ;\[]", line)[0] for line in _lines(declared["options"]["install_requires"])]
    assert "nvidia-ml-py" in required
    assert "pynvml" not in required
