"""The Mosquitto that is installed, run by our rules: found, configured, and become.

Started as root it runs as its own user, to whom its files belong.
"""

import fcntl
import os
import pwd
import resource
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from string import Template

from telemetry.errors import TelemetryError
from telemetry.processes import become, require_free

_DIRECTORIES = "/usr/sbin:/usr/local/sbin:/sbin:/opt/homebrew/sbin"
_USER = "mosquitto"
_SPARE_DESCRIPTORS = 64


def find_mosquitto() -> str:
    """The path of Mosquitto; a plain user's PATH lacks /usr/sbin."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:{_DIRECTORIES}")
    if found is None:
        raise TelemetryError("mosquitto is not installed: apt-get install mosquitto")
    return found


def url_file(data: Path) -> Path:
    """Where the broker of a data directory leaves its URL, for those who do not name one."""
    return data / "broker" / "url"


def run_mosquitto(data: Path, *, port: int, connections: int) -> None:
    """Replace this process by Mosquitto, listening on loopback without credentials. Never returns."""
    program = find_mosquitto()
    require_free(port)
    directory = data / "broker"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _hold(directory)
        user = _prepare_for_user(directory)
        configuration = directory / "mosquitto.conf"
        configuration.write_text(_render(directory, port=port, stays_root=os.geteuid() == 0 and user is None))
        if user is not None:
            os.chown(configuration, user.pw_uid, user.pw_gid)  # a umask may hide it from all but its owner
        url_file(data).write_text(f"mqtt://127.0.0.1:{port}\n")
    except OSError as error:
        raise TelemetryError(f"{directory}: {error.strerror}; give a --data that can be written") from None
    _allow_connections(connections)
    if os.geteuid() == 0 and user is None:
        sys.stderr.write(f"broker: runs as root: no user {_USER} that could write {directory}\n")
    if user is not None:
        become(user.pw_uid, user.pw_gid)
    os.execv(program, [program, "-c", str(configuration)])  # noqa: S606  # a fixed program, no shell


def _hold(directory: Path) -> None:
    """Keep every other broker off the directory for as long as this process runs, as Mosquitto too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TelemetryError(f"{directory}: another broker is using it; end that one first") from None
    os.set_inheritable(descriptor, True)


def _prepare_for_user(directory: Path) -> pwd.struct_passwd | None:
    """As root: Mosquitto's own user, made the owner of its directory. None where it cannot be or need not be."""
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(_USER)
    except KeyError:
        return None
    for path in (directory, *directory.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    # A directory below /root, say, is out of reach for everyone else, whoever owns it.
    reachable = subprocess.run(
        ["test", "-w", directory], user=user.pw_uid, group=user.pw_gid, extra_groups=[], check=False
    )
    return user if reachable.returncode == 0 else None


def _render(directory: Path, *, port: int, stays_root: bool) -> str:
    template = Template(files("telemetry.broker").joinpath("mosquitto.conf").read_text())
    return template.substitute(port=port, directory=directory.resolve(), user="user root" if stays_root else "")


def _allow_connections(connections: int) -> None:
    """Descriptors for the connections, as far as the hard limit lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE_DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
