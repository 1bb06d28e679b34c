"""`telemetry up` as a user meets it: what it says, how it ends, and what it survives. Real processes throughout."""

import contextlib
import itertools
import json
import os
import pty
import pwd
import re
import select
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.parts import FAST, Broker, Listener, own_port, wait_for

CHECKOUT = Path(__file__).parent.parent
PLAIN_USER = 65534
IS_ROOT = os.geteuid() == 0
COMMAND = [sys.executable, "-m", "telemetry"]
MINER, HOST = "f01234", "worker-1"
PARTS = ("broker", "aggregator", "agent", "web")

needs_root = pytest.mark.skipif(not IS_ROOT, reason="needs root")


class Up:
    """A `telemetry up` with its parts; its output is kept in a file."""

    def __init__(self, place: Path, data: Path, *arguments: str, command: list[str] = COMMAND, **started: Any) -> None:
        self.data = data
        self._log = Path(tempfile.mkstemp(prefix="up.", dir=place)[1])
        named = ["--data", str(data), "--miner", MINER, "--name", HOST]
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "up", *named, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **started,
            )

    @property
    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def said(self, pattern: str, *, seconds: float = 30.0) -> str:
        """What it says that matches the pattern, once it does."""

        def find() -> re.Match[str] | None:
            found = re.search(pattern, self.text, re.MULTILINE)
            assert found or self.process.poll() is None, f"ended before {pattern!r}: {self.text}"
            return found

        return wait_for(find, seconds=seconds, what=f"{pattern!r} from up").group()

    def shows_host(self) -> "Up":
        """Wait until it shows this host: then all its parts work."""
        self.said(r"^ ?cpuLoad .*%", seconds=60)
        return self

    @property
    def port(self) -> int:
        return int(self.said(r"^broker .*").split(",")[0].rsplit(":", 1)[1])

    def part(self, name: str) -> int:
        """The pid of a part."""
        return {_part_name(pid): pid for pid in _children(self.process.pid)}[name]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()


StartUp = Callable[..., Up]

_APART = itertools.count(20)
"""For web pages: the port of one that is killed is free only until it is started again."""


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _children(parent: int) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _stat(pid)[1:2] == [str(parent)]]


def _family(parent: int) -> set[int]:
    """The processes below one."""
    children = _children(parent)
    return set(children).union(*(_family(child) for child in children))


def _part_name(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return "broker" if words[0].endswith("mosquitto") else "".join(words[6:7])


def _user_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def _are_gone(pids: set[int]) -> bool:
    return all(_stat(pid)[:1] in ([], ["Z"]) for pid in pids)


def _rows(data: Path, table: str) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(data / "telemetry.db", timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]


def _unused_port() -> int:
    return own_port()


def _run_up(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an `up` that is expected to refuse."""
    return subprocess.run(
        [*COMMAND, "up", *arguments], capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL
    )


def _assert_is_one_line(text: str, *parts: str) -> None:
    assert text.count("\n") == 1, text
    for part in ("telemetry: ", *parts):
        assert part in text


@contextlib.contextmanager
def _taken(port: int) -> Iterator[None]:
    """Something listens on the port: we, unless another keeps it, as a second run of these tests does not."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: _listens(server, port), seconds=5, what=f"port {port}")
        yield


def _listens(server: socket.socket, port: int) -> bool:
    try:
        server.bind(("127.0.0.1", port))
        server.listen()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _open_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="telemetry."))
    directory.chmod(0o755)
    (directory / "fast.toml").write_text(FAST)
    yield directory
    shutil.rmtree(directory)


@contextlib.contextmanager
def _ups(place: Path) -> Iterator[StartUp]:
    started: list[Up] = []

    def start(*, data: Path | None = None, is_fast: bool = True, names_port: bool = True, **options: Any) -> Up:
        settings = ["--config", str(place / "fast.toml")] if is_fast else []
        port = ["--port", str(_unused_port()), "--web-port", str(own_port(next(_APART)))] if names_port else []
        started.append(Up(place, data or place / "data", *settings, *port, **options))
        return started[-1]

    try:
        yield start
    finally:
        for up in started:
            if up.process.poll() is None:
                up.end()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can reach, as those of pytest are not: started by root, Mosquitto is another."""
    with _open_directory() as directory:
        yield directory


@pytest.fixture
def start_up(place: Path) -> Iterator[StartUp]:
    """Start `telemetry up`, fast and on an unused port unless told otherwise; it ends with the test."""
    with _ups(place) as start:
        yield start


@pytest.fixture(scope="module")
def running() -> Iterator[Up]:
    """One that runs already, for tests after which it still does."""
    with _open_directory() as directory, _ups(directory) as start:
        yield start().shows_host()


# --- what it says ---


def test_first_run_shows_this_host_within_a_minute(start_up: StartUp) -> None:
    up = start_up(is_fast=False).shows_host()
    assert f"{MINER}/{HOST}  online" in up.text


def test_command_that_it_names_prints_a_snapshot_which_is_retained(running: Up, place: Path) -> None:
    line = running.said(r"mosquitto_sub .*")
    snapshot = f"miners/{MINER}/workers/{HOST}/snapshot {{"
    printed = place / "printed"
    with printed.open("wb") as output:
        follower = subprocess.Popen(shlex.split(line), stdout=output)
    try:
        wait_for(lambda: snapshot in printed.read_text(), seconds=10, what=f"a snapshot by {line}")
    finally:
        follower.terminate()
        follower.wait(10)
    words = [*shlex.split(line), "--retained-only", "-C", "2", "-W", "10"]
    assert snapshot in subprocess.run(words, capture_output=True, text=True, timeout=20, check=False).stdout


def test_the_page_that_it_names_shows_this_host(running: Up) -> None:
    url = running.said(r"^web page .*").split()[-1]

    def miners() -> list[Any]:
        with urllib.request.urlopen(f"{url}api/miners", timeout=10) as answer:
            found: list[Any] = json.load(answer)["miners"]
            return found

    [miner] = wait_for(miners, seconds=20, what=f"the miner on {url}")
    assert (miner["minerId"], miner["hosts"]) == (MINER, 1)


def test_without_the_libraries_of_the_page_it_runs_and_says_so(start_up: StartUp, place: Path) -> None:
    (place / "sitecustomize.py").write_text("import sys\nsys.modules['starlette'] = None\n")
    up = start_up(env={**os.environ, "PYTHONPATH": str(place)}).shows_host()
    assert "pip install 'storage-telemetry[web]'" in up.said(r"^web page .*")
    assert {_part_name(pid) for pid in _children(up.process.pid)} == {"broker", "aggregator", "agent"}
    done = subprocess.run(
        [*COMMAND, "web"], capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(place)}
    )
    assert done.returncode == 1
    _assert_is_one_line(done.stderr, "pip install 'storage-telemetry[web]'")


def test_a_page_that_cannot_be_served_is_told_and_the_rest_goes_on(start_up: StartUp, place: Path) -> None:
    (place / "fast.toml").write_text(f"{FAST}\n[web]\nlisten = '192.0.2.1'\n")
    up = start_up()
    assert "the rest goes on" in up.said(r"^the web cannot run.*")
    up.shows_host()
    assert up.end() == 0


def test_shows_this_host_live_on_a_terminal_and_ends_with_ctrl_c(place: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        settings = ["--config", str(place / "fast.toml"), "--port", str(_unused_port())]
        os.execv(COMMAND[0], [*COMMAND, "up", "--data", str(place / "data"), "--name", HOST, *settings])
    shown = bytearray()

    def shows_host() -> bool:
        if select.select([terminal], [], [], 0.1)[0]:
            shown.extend(os.read(terminal, 65536))
        return b"cpuLoad" in shown

    wait_for(shows_host, seconds=60, what="this host on the terminal")
    family = _family(pid)
    assert len(family) >= len(PARTS)
    os.write(terminal, b"\x03")
    with contextlib.suppress(OSError):  # the end of a terminal
        while os.read(terminal, 65536):
            pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert _are_gone(family)


# --- how it ends ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_with_status_0_and_leaves_no_process(start_up: StartUp, number: signal.Signals) -> None:
    up = start_up().shows_host()
    family = _family(up.process.pid)
    assert {_part_name(pid) for pid in _children(up.process.pid)} == set(PARTS)
    assert up.end(number) == 0
    assert _are_gone(family)
    assert "Traceback" not in up.text


def test_signal_while_it_starts_ends_it_too(start_up: StartUp) -> None:
    up = start_up()
    family = wait_for(lambda: _family(up.process.pid), seconds=10, what="a first part")
    assert up.end() == 0
    assert _are_gone(family)
    assert "Traceback" not in up.text


def test_agent_ends_before_the_aggregator_and_that_before_the_broker(start_up: StartUp) -> None:
    up = start_up().shows_host()
    up.end()
    shown = subprocess.run(
        [*COMMAND, "show", MINER, HOST, "--json", "--data", str(up.data)], capture_output=True, check=True
    )
    # The aggregator heard the agent's goodbye,
    assert json.loads(shown.stdout)["netState"] == "stopped"
    retained = _retained(up.data)
    # and the broker, which kept the aggregator's, got its last snapshot.
    assert retained["telemetry/aggregators/main"]["state"] == "stopped"
    assert retained[f"miners/{MINER}/workers/{HOST}/presence"]["state"] == "stopped"
    assert retained[f"miners/{MINER}/workers/{HOST}/snapshot"]["netState"] == "stopped"


def _retained(data: Path) -> dict[str, Any]:
    """What the broker of a data directory kept."""
    broker = Broker(data).start()
    try:
        listener = Listener(broker.url)
        wait_for(lambda: len(listener.messages) >= 3, seconds=10, what="retained messages")
        listener.close()
        return {message.topic: json.loads(message.payload) for message in listener.messages if message.payload}
    finally:
        broker.end()


def test_killed_it_takes_all_its_parts_with_it(start_up: StartUp) -> None:
    up = start_up().shows_host()
    family = _family(up.process.pid)
    if IS_ROOT:
        assert _user_of(up.part("broker")) == pwd.getpwnam("mosquitto").pw_uid
    up.process.kill()
    up.process.wait(10)
    wait_for(lambda: _are_gone(family), seconds=15, what="parts gone")


# --- ports ---


def test_takes_another_port_than_1883_when_that_is_taken_and_says_so(start_up: StartUp) -> None:
    with _taken(1883):
        up = start_up(names_port=False).shows_host()
    assert up.port != 1883
    assert f"port 1883 is in use: the broker takes {up.port}" in up.text
    assert f"-p {up.port} " in up.said("mosquitto_sub .*")


def test_port_that_was_asked_for_and_is_taken_is_refused(place: Path) -> None:
    port = _unused_port()
    with _taken(port):
        done = _run_up("--data", str(place / "data"), "--port", str(port))
    assert done.returncode == 2
    assert done.stdout == ""
    _assert_is_one_line(done.stderr, f"port {port} is in use", "--port")


@pytest.mark.parametrize("port", ["0", "-1", "65536"])
def test_number_that_is_no_port_is_refused(place: Path, port: str) -> None:
    done = _run_up("--data", str(place / "data"), "--port", port)
    assert done.returncode == 2
    _assert_is_one_line(done.stderr, f"port {port}: expected 1 to 65535")


# --- what it survives ---


@pytest.mark.parametrize("name", PARTS)
def test_part_that_was_killed_starts_again_and_data_flows_again(running: Up, name: str) -> None:
    killed = running.part(name)
    os.kill(killed, signal.SIGKILL)
    running.said(rf"^{name} ended \(signal 9\); starting it again in ", seconds=10)
    wait_for(lambda: name in map(_part_name, _children(running.process.pid)), seconds=10, what=f"a new {name}")
    assert running.part(name) != killed
    restarted = time.time_ns() // 1_000_000

    def flows() -> bool:
        [agent] = _rows(running.data, "agents JOIN positions USING (id)")
        return bool(agent["state"] == "online" and agent["heard"] > restarted)

    wait_for(flows, seconds=30, what=f"data after the {name} was killed: {running.text}")


def test_second_run_keeps_the_history_in_a_directory_with_spaces(start_up: StartUp, place: Path) -> None:
    data = place / "a data directory"
    start_up(data=data).shows_host().end()
    before = _rows(data, "history")
    assert before
    start_up(data=data).shows_host().end()
    after = _rows(data, "history")
    assert after[: len(before)] == before
    assert len(after) > len(before)


def test_second_one_at_the_same_time_in_the_same_directory_is_refused(running: Up) -> None:
    url = (running.data / "broker" / "url").read_text()
    second = _run_up("--data", str(running.data), "--port", str(_unused_port()))
    assert second.returncode == 1
    assert "`telemetry up` runs there already" in second.stderr
    assert "Traceback" not in second.stderr
    assert (running.data / "broker" / "url").read_text() == url


# --- what it cannot use ---


def test_data_directory_below_a_file_is_refused_in_one_line(place: Path) -> None:
    (place / "file").touch()
    done = _run_up("--data", str(place / "file" / "data"))
    assert done.returncode == 1
    _assert_is_one_line(done.stderr, str(place / "file"), "--data")


@needs_root
@pytest.mark.parametrize("made_before", [False, True])
def test_data_directory_on_a_read_only_file_system_is_refused_in_one_line(place: Path, made_before: bool) -> None:
    mounted = place / "mounted"
    mounted.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", mounted], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        if made_before:
            (mounted / "data").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
        done = _run_up("--data", str(mounted / "data"))
    finally:
        subprocess.run(["umount", mounted], check=True)
    assert done.returncode == 1
    _assert_is_one_line(done.stderr, str(mounted / "data"), "--data")


def test_name_that_cannot_be_a_host_name_is_refused_in_one_line(place: Path) -> None:
    done = _run_up("--data", str(place / "data"), "--name", "bad name")
    assert done.returncode == 2
    _assert_is_one_line(done.stderr, "'bad name'", "--name")
    assert not (place / "data").exists()


# --- users ---


def _plain_user_command(place: Path) -> tuple[list[str], Mapping[str, str]]:
    """A Python that the plain user can run, with our packages; skips where there is none."""
    packages = place / "packages"
    packages.mkdir()
    # Unlike PYTHONPATH, addsitedir also takes in an editable install.
    (packages / "sitecustomize.py").write_text(
        f"import site\nsite.addsitedir({sysconfig.get_path('purelib')!r})\nsite.addsitedir({str(CHECKOUT)!r})\n"
    )
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(place), "PYTHONPATH": str(packages)}
    probe = "import psutil, orjson, telemetry.schemas"
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            done = subprocess.run(
                [python, "-P", "-c", probe],
                user=PLAIN_USER,
                group=PLAIN_USER,
                extra_groups=[],
                env=environment,
                cwd=place,
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                return [python, "-P", "-m", "telemetry"], environment
    pytest.skip("no Python with our packages that a plain user can run")


@needs_root
def test_plain_user_runs_all_of_it_with_no_sbin_in_the_path(start_up: StartUp, place: Path) -> None:
    command, environment = _plain_user_command(place)
    home = place / "home"
    home.mkdir()
    os.chown(home, PLAIN_USER, PLAIN_USER)
    up = start_up(
        data=home / "data",
        command=command,
        env={**environment, "HOME": str(home)},
        cwd=home,
        user=PLAIN_USER,
        group=PLAIN_USER,
        extra_groups=[],
    ).shows_host()
    assert {_user_of(pid) for pid in _family(up.process.pid)} == {PLAIN_USER}
    assert _part_name(up.part("broker")) == "broker"
    assert up.end() == 0


@needs_root
def test_root_that_hides_its_files_still_starts_the_broker(start_up: StartUp, place: Path) -> None:
    data = place / "data"
    data.mkdir()
    up = start_up(data=data, umask=0o077).shows_host()
    assert _user_of(up.part("broker")) == pwd.getpwnam("mosquitto").pw_uid


@needs_root
def test_broker_stays_root_where_only_root_and_its_group_can_reach(start_up: StartUp, place: Path) -> None:
    hidden = place / "hidden"
    hidden.mkdir(mode=0o750)
    up = start_up(data=hidden / "data", extra_groups=[0]).shows_host()
    assert _user_of(up.part("broker")) == 0
