"""Install a part as a service of systemd: its unit, its user, its settings, and the bundle it is given.

Done again it brings all up to date; settings that are there stay. `--print` shows the unit, and changes nothing.
"""

import argparse
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from string import Template

from telemetry.access import Role, User
from telemetry.cli.options import DEFAULT_BROKER
from telemetry.config import read_settings
from telemetry.errors import TelemetryError, UsageError
from telemetry.security.bundles import Bundle
from telemetry.security.files import write_private
from telemetry.security.registry import Registry

PARTS = ("agent", "aggregator", "broker", "web")

_USER, _BROKER_USER = "telemetry", "mosquitto"
_CONFIGURATION, _DATA = "etc/telemetry", "var/lib/telemetry"
_DEBIANS_OWN = "etc/systemd/system/multi-user.target.wants/mosquitto.service"
_HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108  # where services see nothing
_SETTINGS = "# Settings of this machine's telemetry: see docs/deployment.md. Passwords belong into bundles.\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("part", choices=PARTS, metavar="|".join(PARTS), help="what is to run as a service")
    parser.add_argument("--print", dest="is_shown", action="store_true", help="print the unit, and change nothing")
    parser.add_argument("--bundle", metavar="FILE", help="its credentials, as `telemetry enroll` gave them")
    parser.add_argument(
        "--root", metavar="DIR", type=Path, default=Path("/"), help="below DIR, such as an image's root"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the unit, or put everything in its place and say what to do next."""
    if arguments.part == "broker" and arguments.bundle:
        raise UsageError("--bundle: the broker has no credentials, it gives them: `telemetry broker init`")
    if arguments.is_shown:
        print(unit_of(arguments.part, has_bundle=arguments.bundle is not None), end="")
        return 0
    if os.geteuid() != 0 and arguments.root == Path("/"):
        raise UsageError("needs root: run it with sudo, or see the unit by --print")
    installation = _Installation(arguments.part, arguments.root)
    for told in installation.install(arguments.bundle):
        print(told)
    return 0


def unit_of(part: str, *, has_bundle: bool) -> str:
    """The text of a part's unit, which starts the `telemetry` that runs now."""
    place = files("telemetry.broker")
    return Template(place.joinpath(f"telemetry-{part}.service").read_text()).substitute(
        program=" ".join(map(_quoted, _program())),
        bundle=f" --bundle /{_CONFIGURATION}/{part}.toml" if has_bundle else "",
        sealed=place.joinpath("sealed.conf").read_text(),
        hardening=place.joinpath("hardening.conf").read_text().rstrip(),
    )


def _program() -> list[str]:
    # Not resolved: the interpreter of a virtual environment is a link to one without its packages.
    script = Path(sys.executable).parent / "telemetry"
    return [str(script)] if script.exists() else [sys.executable, "-P", "-m", "telemetry"]


def _quoted(word: str) -> str:
    text = word.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{text}"' if text != word or " " in word else word


class _Installation:
    """A part below a root directory: `/`, or that of an image."""

    def __init__(self, part: str, root: Path) -> None:
        self._part, self._root = part, root
        self._data, self._configuration = root / _DATA, root / _CONFIGURATION
        self._registry = Registry(self._data)
        self._bundle = self._configuration / f"{part}.toml"

    def install(self, bundle: str | None) -> Iterator[str]:
        """Do it; what was written, and what is to do next."""
        given = self._credentials(bundle)
        if self._root == Path("/"):
            _require_seen()
        yield from self._make_user()
        self._make_directory(self._configuration, mode=0o755)
        yield from self._write(self._configuration / "settings.toml", _SETTINGS, mode=0o640, replaces=False)
        self._give(self._configuration / "settings.toml", group=_USER)
        if given is not None:
            yield from self._write_bundle(given)
        if self._part != "agent":
            self._prepare_data()
        unit = unit_of(self._part, has_bundle=self._bundle.exists())
        yield from self._write(self._root / f"etc/systemd/system/telemetry-{self._part}.service", unit, mode=0o644)
        if self._part == "broker" and (self._root / _DEBIANS_OWN).is_symlink():
            yield "first: systemctl disable --now mosquitto: the distribution's own, which holds port 1883"
        if self._root == Path("/"):
            yield f"next: systemctl daemon-reload && systemctl enable --now telemetry-{self._part}"
            yield f"then: systemctl status telemetry-{self._part}; journalctl -u telemetry-{self._part}"

    def _credentials(self, bundle: str | None) -> str | None:
        """The text of the bundle that it gets; None where it has one, or needs none."""
        if bundle is not None:
            try:
                text = Path(bundle).read_text()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
                raise UsageError(f"{bundle}: {reason}") from None
            read_settings(bundle=text, bundle_file=bundle, environ={}, options={})
            return text
        if self._bundle.exists() or self._part in {"agent", "broker"} or not self._registry.exists:
            return None
        if self._part == "web":
            raise UsageError(
                f"--bundle: /{_DATA} has a broker with users: give what "
                f"`telemetry enroll --viewer web --data /{_DATA} --output web.toml` makes"
            )
        own, password = next(
            (user, password)
            for name, password in self._registry.local_passwords().items()
            if (user := User.parse(name)) is not None and user.role is Role.AGGREGATOR
        )
        settings = {"aggregator": {"name": own.name}}
        return Bundle(url=DEFAULT_BROKER, user=own, password=password, settings=settings).toml()

    def _make_user(self) -> Iterator[str]:
        """The user of all parts but the broker, whose own comes with Mosquitto."""
        if self._part == "broker":
            self._owner(_BROKER_USER)
        declared = self._root / "etc/sysusers.d/telemetry.conf"
        yield from self._write(
            declared, files("telemetry.broker").joinpath("telemetry.sysusers").read_text(), mode=0o644
        )
        if os.geteuid() != 0:
            return
        if shutil.which("systemd-sysusers") is None:
            raise TelemetryError("systemd-sysusers, of systemd, is not installed: there are no services here")
        done = subprocess.run(
            ["systemd-sysusers", f"--root={self._root.resolve()}", "telemetry.conf"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise TelemetryError(f"systemd-sysusers: {' '.join(done.stderr.split())}")

    def _write_bundle(self, text: str) -> Iterator[str]:
        before = self._bundle.read_text() if self._bundle.exists() else None
        write_private(self._bundle, text)
        self._give(self._bundle, user=_USER, group=_USER)
        if before != text:
            yield f"written: {self._bundle}"

    def _prepare_data(self) -> None:
        """Let the aggregator make files beside what belongs to the broker and to root, and touch nothing of theirs."""
        self._make_directory(self._data, mode=0o1775)
        self._give(self._data, group=_USER)
        if self._part == "broker":
            broker = self._data / "broker"
            if broker.is_symlink():
                raise TelemetryError(f"{broker}: a link, which somebody else may have made; remove it")
            self._make_directory(broker, mode=0o755)
            for path in (broker, *broker.iterdir()):
                self._give(path, user=_BROKER_USER, group=_BROKER_USER)
            if self._registry.exists:
                self._registry.write_broker_files()
        if self._part == "aggregator":
            for path in self._data.glob("telemetry.db*"):
                self._give(path, user=_USER, group=_USER)

    def _make_directory(self, path: Path, *, mode: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)

    def _write(self, path: Path, text: str, *, mode: int, replaces: bool = True) -> Iterator[str]:
        if path.exists() and (not replaces or path.read_text() == text):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.part")
        beside.write_text(text)
        beside.chmod(mode)
        beside.replace(path)
        yield f"written: {path}"

    def _give(self, path: Path, *, user: str = "root", group: str) -> None:
        if os.geteuid() == 0:
            os.chown(path, 0 if user == "root" else self._owner(user)[0], self._owner(group)[1], follow_symlinks=False)

    def _owner(self, name: str) -> tuple[int, int]:
        """The numbers of a user and its group."""
        if self._root == Path("/"):
            try:
                found = pwd.getpwnam(name)
            except KeyError:
                raise _no_user(name) from None
            return found.pw_uid, found.pw_gid
        passwd = self._root / "etc/passwd"
        for line in passwd.read_text().splitlines() if passwd.exists() else ():
            words = line.split(":")
            if words[0] == name:
                return int(words[2]), int(words[3])
        raise _no_user(name)


def _no_user(name: str) -> TelemetryError:
    remedy = ": apt-get install mosquitto makes it" if name == _BROKER_USER else ""
    return TelemetryError(f"no user {name}{remedy}")


def _require_seen() -> None:
    for program in (_program()[0], os.path.realpath(sys.executable)):
        if program.startswith(_HIDDEN):
            raise UsageError(f"{program}: services do not see it there; install telemetry in /opt, and run that one")
