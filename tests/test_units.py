"""Services: what `telemetry install` writes, what systemd makes of it, and that a part runs under such limits."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.cli import COMMANDS
from telemetry.cli.install import PARTS, unit_of
from telemetry.processes import answers
from telemetry.security.registry import Registry
from tests.conftest import StartPart
from tests.parts import Broker, Listener, own_port, wait_for
from tests.secured import Secured, plain, reachable_directory, read_bundle, telemetry

MOST_EXPOSED = {"agent": 25, "aggregator": 20, "broker": 20, "web": 20}
"""Tenths of what `systemd-analyze security` calls exposure; a service without any of the options has 96."""

has_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def _options(part: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit_of(part, has_bundle=True).splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The root of an image with Mosquitto's user in it."""
    root = tmp_path / "image"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nmosquitto:x:102:105::/var/lib/mosquitto:/usr/sbin/nologin\n"
    )
    (root / "etc" / "group").write_text("root:x:0:\nmosquitto:x:105:\n")
    return root


@has_analyze
@pytest.mark.parametrize("part", PARTS)
def test_systemd_takes_the_unit_without_a_word_and_finds_it_closed(tmp_path: Path, part: str) -> None:
    unit = tmp_path / f"telemetry-{part}.service"
    unit.write_text(telemetry("install", part, "--print"))
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (verified.stdout + verified.stderr, verified.returncode) == ("", 0)
    looked = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={MOST_EXPOSED[part]}", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert looked.returncode == 0, looked.stdout


@pytest.mark.parametrize("part", PARTS)
def test_no_unit_is_root_and_none_can_become_it_or_write_the_system(part: str) -> None:
    options = _options(part)
    assert options["User"] == ["mosquitto" if part == "broker" else "telemetry"]
    assert options["NoNewPrivileges"] == ["yes"]
    assert options["CapabilityBoundingSet"] == options["AmbientCapabilities"] == [""]
    assert options["ProtectSystem"] == ["strict"]
    assert {"MemoryMax", "TasksMax", "LimitNOFILE", "SystemCallFilter", "RestrictAddressFamilies"} <= options.keys()
    assert options["Restart"] == ["on-failure"]


def test_the_agent_sees_what_it_states() -> None:
    options = _options("agent")
    hides = {
        "PrivateDevices",
        "DevicePolicy",
        "DeviceAllow",
        "ProtectClock",
        "ProcSubset",
        "PrivateNetwork",
        "PrivateMounts",
    }
    assert not hides & options.keys()
    assert options["ProtectHome"] == ["read-only"]


def test_no_part_but_the_broker_may_read_the_keys_of_the_authority() -> None:
    for part in ("aggregator", "broker", "web"):
        assert _options(part)["InaccessiblePaths"] == ["-/var/lib/telemetry/authority"]


@pytest.mark.parametrize("part", [part for part in PARTS if part in COMMANDS])
def test_the_command_of_a_unit_is_one_that_there_is(part: str) -> None:
    [command] = _options(part)["ExecStart"]
    words = command.split()
    words = words[words.index(part) :]
    # Up to the settings, which are not there: its options are known.
    said = telemetry(*words, status=2)
    assert re.search(r"/etc/telemetry/\S+\.toml: No such file", said), said


def test_a_program_in_an_odd_place_is_quoted() -> None:
    from telemetry.cli.install import _quoted  # noqa: PLC0415  # its own rule

    assert _quoted("/opt/telemetry/bin/telemetry") == "/opt/telemetry/bin/telemetry"
    assert _quoted('/a b/100%/$x"y\\z') == '"/a b/100%%/$$x\\"y\\\\z"'


# --- install ---


@as_root
@has_analyze
def test_an_agent_is_installed_with_its_bundle_and_again_without_a_change(image: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "f01234.seal01.toml"
    bundle.write_text(
        '[broker]\nurl = "mqtts://mqtt.example.lan:8883"\nusername = "f01234.seal01"\npassword = "hidden-5"\n'
    )
    told = telemetry("install", "agent", "--root", str(image), "--bundle", str(bundle))
    unit = (image / "etc/systemd/system/telemetry-agent.service").read_text()
    assert unit == unit_of("agent", has_bundle=True)
    assert "--bundle /etc/telemetry/agent.toml" in unit
    placed = image / "etc/telemetry/agent.toml"
    user = next(line for line in (image / "etc/passwd").read_text().splitlines() if line.startswith("telemetry:"))
    assert placed.read_text() == bundle.read_text()
    assert (placed.stat().st_mode & 0o777, str(placed.stat().st_uid)) == (0o600, user.split(":")[2])
    assert "hidden-5" not in told + unit

    settings = image / "etc/telemetry/settings.toml"
    assert settings.stat().st_mode & 0o007 == 0
    settings.write_text("[intervals]\nhost = 20\n")
    assert telemetry("install", "agent", "--root", str(image)) == "", "nothing is new, and its bundle stays"
    assert settings.read_text() == "[intervals]\nhost = 20\n"
    bundle.write_text(bundle.read_text().replace("hidden-5", "hidden-6"))
    assert telemetry("install", "agent", "--root", str(image), "--bundle", str(bundle)) == f"written: {placed}\n"
    assert "hidden-6" in placed.read_text()


@as_root
@has_analyze
def test_the_machine_in_the_middle_is_installed_so_that_each_part_has_its_own(image: Path) -> None:
    data = image / "var/lib/telemetry"
    telemetry("broker", "init", "--name", "mqtt.example.lan", "--data", str(data))
    (data / "telemetry.db").touch()
    telemetry("install", "broker", "--root", str(image))
    telemetry("install", "aggregator", "--root", str(image))
    ours = {line.split(":")[0]: int(line.split(":")[2]) for line in (image / "etc/passwd").read_text().splitlines()}
    assert (data.stat().st_uid, oct(data.stat().st_mode & 0o7777)) == (0, "0o1775")
    owners = {path.name: path.stat().st_uid for path in data.iterdir()}
    expected = {"authority": 0, "broker": ours["mosquitto"], "telemetry.db": ours["telemetry"]}
    assert {name: owners[name] for name in expected} == expected
    own = read_bundle(image / "etc/telemetry/aggregator.toml")["broker"]
    assert own["password"] == Registry(data).local_passwords()["telemetry.aggregator.main"]
    assert (own["url"], own["username"]) == ("mqtt://127.0.0.1:1883", "telemetry.aggregator.main")
    said = telemetry("install", "web", "--root", str(image), status=2)
    assert "telemetry enroll --viewer web --data /var/lib/telemetry --output web.toml" in said
    # Members of the group read; nobody else has the settings.
    assert (image / "etc/telemetry/settings.toml").stat().st_gid != 0


@as_root
@has_analyze
def test_what_would_be_in_the_way_of_a_broker_is_said(image: Path) -> None:
    wants = image / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "mosquitto.service").symlink_to("/lib/systemd/system/mosquitto.service")
    assert "first: systemctl disable --now mosquitto" in telemetry("install", "broker", "--root", str(image))
    (image / "var/lib/telemetry/broker").rmdir()
    (image / "var/lib/telemetry/broker").symlink_to("/etc")
    assert "broker: a link" in telemetry("install", "broker", "--root", str(image), status=1)


@as_root
@has_analyze
def test_a_broker_without_mosquitto_is_not_installed(image: Path) -> None:
    (image / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    assert "no user mosquitto: apt-get install mosquitto makes it" in telemetry(
        "install", "broker", "--root", str(image), status=1
    )
    assert not (image / "etc/systemd").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[broker\n", "bundle.toml: "),
        ('[broker]\nuser = "x"\n', "unknown setting broker.user; did you mean broker.username?"),
    ],
)
def test_a_bundle_that_is_none_is_not_installed(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "bundle.toml").write_text(text)
    said = telemetry(
        "install", "agent", "--root", str(tmp_path / "root"), "--bundle", str(tmp_path / "bundle.toml"), status=2
    )
    assert reason in said
    assert not (tmp_path / "root").exists()


def test_a_broker_is_given_no_bundle_and_nothing_is_installed_by_another_than_root(tmp_path: Path) -> None:
    assert "--bundle: the broker has no credentials" in telemetry(
        "install", "broker", "--bundle", str(tmp_path / "x"), status=2
    )
    if os.geteuid() != 0:
        assert "needs root" in telemetry("install", "agent", status=2)


# --- what the options mean where they can be tried ---


def test_a_broker_that_cannot_read_the_authority_goes_by_what_was_written_for_it() -> None:
    with reachable_directory() as place:
        secured = Secured(place)
        operator = secured.operator()
        bundle = secured.enroll("f01234", "seal01")
        secured.registry.directory.rename(place / "out-of-reach")
        try:
            secured.start()
            Listener(operator).close()
            published = plain("mosquitto_pub", secured.thief(bundle, "-t", "miners/f01234/workers/seal01", "-m", "{}"))
            assert published.returncode == 0, published.stderr
        finally:
            secured.end()


def test_an_agent_runs_within_the_limits_of_its_unit(start: StartPart, broker: Broker, data: Path) -> None:
    options = _options("agent")
    agent = start("agent", "--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))
    files = int(options["LimitNOFILE"][0])
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (files, files))
    wait_for(lambda: "connected as" in agent.text, seconds=15, what=agent.text)
    megabytes = int(options["MemoryMax"][0].removesuffix("M"))
    status = Path(f"/proc/{agent.pid}/status").read_text()
    used = re.search(r"VmRSS:\s+(\d+) kB", status)
    threads = re.search(r"Threads:\s+(\d+)", status)
    assert used is not None
    assert threads is not None
    assert int(used[1]) < megabytes * 1024 / 4
    assert int(threads[1]) < int(options["TasksMax"][0]) / 4
    assert len(list(Path(f"/proc/{agent.pid}/fd").iterdir())) < files / 4


def test_the_limit_of_the_brokers_unit_leaves_room_for_what_the_settings_may_say() -> None:
    # `telemetry broker` lowers it to what broker.connections needs.
    assert int(_options("broker")["LimitNOFILE"][0]) > 50_000


@as_root
@pytest.mark.parametrize("part", ["agent", "aggregator", "broker"])
def test_a_part_that_is_process_1_ends_at_sigterm_with_status_0(data: Path, part: str) -> None:
    # As in a container, where the kernel gives the first process no signal that it does not handle.
    port = own_port()
    there = ["--port", str(port)] if part == "broker" else ["--broker", "mqtt://127.0.0.1:1"]
    log = data / "log"
    with log.open("wb") as stream:
        outside = subprocess.Popen(
            ["unshare", "--pid", "--fork", sys.executable, "-m", "telemetry", part, "--data", str(data), *there],
            stderr=stream,
        )
    children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
    wait_for(
        lambda: answers(port) if part == "broker" else "trying again" in log.read_text() or outside.poll() is not None,
        seconds=15, what="that it runs",
    )  # fmt: skip
    if outside.poll() is not None:
        pytest.skip("there are no namespaces here")
    os.kill(int(children.read_text().split()[0]), signal.SIGTERM)
    assert outside.wait(15) == 0, log.read_text()
