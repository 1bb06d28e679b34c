"""No secret shows from `broker init` to `revoke`: in no process list, log, message, error or file for others."""

import contextlib
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.simulate.lotus import Lotus
from tests.parts import FAST, own_port, wait_for
from tests.secured import Secured, reachable_directory, telemetry

WITH_DEBUG = {"TELEMETRY_LOG_LEVEL": "debug", "TELEMETRY_LOG_FORMAT": "text"}
"""Has every part log all that it can."""


def _secrets_of(text: str) -> set[str]:
    """The passwords and the lines of private keys in a file."""
    keys = re.findall(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)\n-----END", text, re.DOTALL)
    return {
        *re.findall(r'(?:miner_)?password = "(.+)"', text),
        *(line for key in keys for line in key.split("\n") if len(line) > 20),
    }


class Processes:
    """What every process list has shown, and what stood in the environments of ours, for as long as it watches."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Processes":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(0.05):
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    command = (process / "cmdline").read_text(errors="replace")
                    is_new = command not in self.seen
                    self.seen.add(command)
                    if is_new and "telemetry" in command:
                        environment = (process / "environ").read_text(errors="replace").split("\0")
                        self.seen |= {one for one in environment if "API_INFO=" not in one}


@pytest.fixture
def place() -> Iterator[Path]:
    with reachable_directory() as directory:
        yield directory


def _readable_by_others(place: Path) -> Iterator[tuple[Path, str]]:
    """The files that somebody else could open, and what is in them."""
    for directory, names, files in os.walk(place):
        at = Path(directory)
        names[:] = [name for name in names if (at / name).stat().st_mode & stat.S_IXOTH]
        for path in (at / name for name in files):
            if path.stat().st_mode & (stat.S_IROTH | stat.S_IRGRP):
                yield path, path.read_bytes().decode("latin-1")


def _debug(place: Path, name: str, *words: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (place / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "telemetry", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, **WITH_DEBUG, **environment},
        )  # fmt: skip


class Chain:
    """All that is done from `broker init` to `revoke`, and all that it says."""

    def __init__(self, place: Path, lotus: Lotus, ends: contextlib.ExitStack) -> None:
        self.place, self._lotus, self._ends = place, lotus, ends
        (place / "fast.toml").write_text(FAST)
        (place / "tmp").mkdir()
        self.secured = Secured(place, "--client-certificates")
        ends.callback(self.secured.end)
        self.said = [self.secured.said]
        self.secrets = {token.rpartition(".")[2] for token in (lotus.miner.token, lotus.full.token)}
        self.bundle, self.eye = place / "host.toml", place / "eye.toml"
        self.own = ("--data", str(self.secured.data))

    def command(self, *words: str, status: int = 0) -> None:
        self.said.append(telemetry(*words, status=status, environment=self._environment))

    def start(self, name: str, *words: str) -> Path:
        """Start a part that logs all it can; its log."""
        log = self.place / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "telemetry", name, *words, "--config", str(self.place / "fast.toml")],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, **WITH_DEBUG, **self._environment},
            )  # fmt: skip
        self._ends.callback(process.wait, 20)
        self._ends.callback(process.terminate)
        return log

    def enroll(self) -> None:
        host = ("f01234", "host", "--miner-agent")
        self.command("enroll", *host, *self.own, "--output", str(self.bundle))
        self.command("enroll", "--viewer", "eye", *self.own, "--output", str(self.eye))
        self.command("enroll", "--viewer", "plain", *self.own, "--files", str(self.place / "files"))
        self.command("enroll", "--aggregator", "other", *self.own, "--output", str(self.place / "other.toml"))
        self._learn()

    def look(self) -> None:
        self.command("watch", "f01234", "host", "--bundle", str(self.eye), "--count", "1", "--json")
        self.command("resubscribe", "f01234", "--bundle", str(self.eye))
        self.command("check", "--bundle", str(self.bundle), "--data", str(self.place / "state"))
        self.command("check", *self.own, "--miner", "f01234", "--name", "host")
        self.command("ls", *self.own)
        self.command("verify", *self.own)

    def change(self) -> None:
        host = ("f01234", "host")
        self.command("rotate", *host, "--miner-agent", *self.own, "--output", str(self.bundle))
        self._learn()
        self.command("broker", "renew", *self.own)
        self._learn()
        self.command("revoke", *host, *self.own)
        self.command("forget", *host, *self.own)

    def err(self) -> None:
        """Give bundles that somebody has spoilt: what is wrong in a file with a password is told without it."""
        for number, (right, wrong) in enumerate(MISTAKES):
            spoilt = self.place / f"spoilt{number}.toml"
            spoilt.write_text(re.sub(right, wrong, self.eye.read_text()))
            spoilt.chmod(0o600)
            self.command("watch", "f01234", "--bundle", str(spoilt), "--count", "1", status=2)

    @property
    def _environment(self) -> dict[str, str]:
        return {"TMPDIR": str(self.place / "tmp"), **self._lotus.environment}

    def _learn(self) -> None:
        """Know the secrets that there are now."""
        self.secrets |= set(self.secured.registry.local_passwords().values())
        self.secrets.add((self.place / "files" / "password").read_text().strip())
        for path in self.place.rglob("*"):
            if path.suffix in {".toml", ".key"}:
                self.secrets |= _secrets_of(path.read_text())


MISTAKES = (
    (r'password = "(.*?)"', r'password = "\1'),
    (r'password = "(.*?)"', r'password = ["\1"]'),
    (r'password = "(.*?)"', r'passwort = "\1"'),
    (r'username = "(.*?)"', "username = 5"),
    ("mqtts://", "mqtt://"),
    ("-----END (.*?)PRIVATE KEY", r"-----END \1PUBLIC KEY"),
)
"""What is written in a bundle, and what somebody made of it."""


@pytest.mark.timeout(240)
def test_no_secret_shows_from_init_to_revoke(place: Path) -> None:
    with Processes() as processes, Lotus("busy") as lotus, contextlib.ExitStack() as ends:
        chain = Chain(place, lotus, ends)
        chain.enroll()
        chain.secured.start()
        listeners = [chain.secured.listener("telemetry/#", 7), chain.secured.listener("miners/#", 8)]
        for listener in listeners:
            ends.callback(listener.close)
        chain.start("aggregator", *chain.own)
        log = chain.start("agent", "--bundle", str(chain.bundle), "--data", str(place / "state"))
        wait_for(lambda: log.read_text().count("connected as") == 2, seconds=40, what=f"both: {log.read_text()}")
        reported = ("miners/f01234/workers/host/snapshot", "miners/f01234/snapshot")
        for topic in reported:
            wait_for(lambda: listeners[1].of(topic), seconds=40, what=topic)  # noqa: B023  # waited for here
        chain.look()
        port = ("--port", str(own_port(90)), "--miner", "f01234", "--name", "alone")
        alone = chain.start("up", "--data", str(place / "alone"), *port)
        wait_for(lambda: "connected as f01234._miner" in alone.read_text(), seconds=40, what=alone.read_text())
        chain.change()
        wait_for(lambda: log.read_text().count("get a new bundle") == 2, seconds=20, what="both are refused")
        chain.err()
        log_text = log.read_text()
        shown = {
            "a process list or an environment": processes.seen,
            "a message": {f"{one.topic} {one.payload!r}" for each in listeners for one in list(each.messages)},
            "what a command said": set(chain.said),
            "a log": {path.read_text(errors="replace") for path in place.rglob("*.log")},
        }
    assert len(chain.secrets) > 20
    assert len(shown["a message"]) > 20
    assert " agent INFO connected as" in log_text, "not as it was told to log"
    for where, texts in shown.items():
        for text in texts:
            found = [secret for secret in chain.secrets if secret in text]
            assert not found, f"{where} shows a secret: {text.replace(found[0], '<HERE>')[:2000]}"
    for path, text in _readable_by_others(place):
        assert not any(secret in text for secret in chain.secrets), f"others may read {path}"
    assert list((place / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    "url", ["mqtt://user:S3CRET@127.0.0.1:1", "mqtts://user:S3CRET@127.0.0.1:x", "http://user:S3CRET@127.0.0.1"]
)
def test_a_url_with_a_password_is_told_without_it(url: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(f'[broker]\nurl = "{url}"\n')
    own = ("check", "--data", str(tmp_path), "--miner", "f01")
    for words, environment in (
        ((*own, "--config", str(tmp_path / "own.toml")), {}),
        (own, {"TELEMETRY_BROKER_URL": url}),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "telemetry", *words], capture_output=True, text=True, check=False,
            env={**os.environ, **environment},
        )  # fmt: skip
        assert done.returncode != 0
        assert "broker" in done.stdout + done.stderr
        assert "S3CRET" not in done.stdout + done.stderr
