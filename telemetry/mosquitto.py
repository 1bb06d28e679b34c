"""The Mosquitto that is installed, run by our rules: found, configured, and become.

Started as root it runs as its own user, to whom its files belong.
"""

import fcntl
import logging
import os
import pwd
import shutil
import signal
import subprocess
from importlib.resources import files
from pathlib import Path
from string import Template

from telemetry.connection_limit import ConnectionLimit
from telemetry.errors import TelemetryError
from telemetry.processes import become, require_free
from telemetry.security.refusals import log_types, watch_own_errors
from telemetry.security.registry import (
    ACL,
    CLIENT_AUTHORITY,
    PASSWORDS,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    Registry,
    Served,
)

_log = logging.getLogger(__name__)

_DIRECTORIES = "/usr/sbin:/usr/local/sbin:/sbin:/opt/homebrew/sbin"
_USER = "mosquitto"


def find_mosquitto() -> str:
    """The path of Mosquitto; a plain user's PATH lacks /usr/sbin."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:{_DIRECTORIES}")
    if found is None:
        raise TelemetryError("mosquitto is not installed: apt-get install mosquitto")
    return found


def url_file(data: Path) -> Path:
    """Where the broker of a data directory leaves its URL, for those who do not name one."""
    return data / "broker" / "url"


def connection_limit(data: Path, *, port: int, wanted: int, open_to: str = "") -> ConnectionLimit:
    """How many connections the broker of a data directory will take, where `wanted` are set."""
    registry = Registry(data)
    listened = [("127.0.0.1", port)]
    if registry.exists:
        served = registry.served()
        listened.append((served.listen, served.port))
    elif open_to:
        listened.append((open_to, port))
    return ConnectionLimit.of(wanted, listened)


def run_mosquitto(data: Path, *, port: int, limit: ConnectionLimit, open_to: str = "") -> None:
    """Replace this process by Mosquitto, on loopback, and beyond it as `broker init` decided. Never returns.

    `open_to` is an address at which it listens to everybody, without TLS and credentials.
    """
    program = find_mosquitto()
    require_free(port)
    directory, registry = data / "broker", Registry(data)
    # Ignored until Mosquitto takes it: one that came before would end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = _hold(directory)
        served = _served(registry)
        user = _prepare_for_user(directory)
        configuration = directory / "mosquitto.conf"
        stays_root = os.geteuid() == 0 and user is None
        configuration.write_text(configuration_of(directory, served, port=port, open_to=open_to, stays_root=stays_root))
        if user is not None:
            os.chown(configuration, user.pw_uid, user.pw_gid)  # a umask may hide it from all but its owner
        url_file(data).write_text(f"mqtt://127.0.0.1:{port}\n")
    except OSError as error:
        raise TelemetryError(f"{directory}: {error.strerror}; give a --data that can be written") from None
    if os.geteuid() == 0 and user is None:
        _log.warning("runs as root: no user %s that could write %s", _USER, directory)

    def give_up_root() -> None:
        if user is not None:
            become(user.pw_uid, user.pw_gid)

    if served is not None:
        watch_own_errors(directory, served.topics, give_up_root)
    give_up_root()
    limit.hold(lock)
    os.execv(program, [program, "-c", str(configuration)])  # noqa: S606  # a fixed program, no shell


def prepare_directory(data: Path) -> None:
    """Make the broker's directory, owned by the user that the broker will run as."""
    directory = data / "broker"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _prepare_for_user(directory)
    except OSError as error:
        raise TelemetryError(f"{directory}: {error.strerror}; give a --data that can be written") from None


def _hold(directory: Path) -> int:
    """Keep every other broker off the directory for as long as this process runs, as Mosquitto too; by a descriptor."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TelemetryError(f"{directory}: another broker is using it; end that one first") from None
    os.set_inheritable(descriptor, True)
    return descriptor


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


def _served(registry: Registry) -> Served | None:
    """How it serves beyond loopback; what it reads for that is written anew, in case that a change was broken off.

    Mosquitto's own user, as a service, goes by what root has written.
    """
    if not registry.exists:
        return None
    served = registry.served()
    if registry.is_readable:
        registry.write_broker_files()
    require_free(served.port, served.listen or "0.0.0.0")  # noqa: S104  # every address is what was chosen
    return served


def configuration_of(directory: Path, served: Served | None, *, port: int, open_to: str, stays_root: bool) -> str:
    """The text of the configuration: `served` has the credentials, without which it is open."""
    template = Template(files("telemetry.broker").joinpath("mosquitto.conf").read_text())
    place = directory.resolve()
    return template.substitute(
        port=port,
        directory=place,
        user="user root" if stays_root else "",
        log_types="" if served is None else log_types(),
        messages="false" if served is None else "true",
        access=_open_access(port, open_to) if served is None else _access(place, served),
    )


def _open_access(port: int, open_to: str) -> str:
    return "allow_anonymous true" + (f"\n\nlistener {port} {open_to}" if open_to else "")


def _access(directory: Path, served: Served) -> str:
    lines = [
        "# A user's name is the client id of its one connection: nobody takes the place of another.",
        "use_username_as_clientid true",
        "allow_anonymous false",
        f"password_file {directory / PASSWORDS}",
        f"acl_file {directory / ACL}",
        "",
        f"listener {served.port} {served.listen}".rstrip(),
        f"certfile {directory / SERVER_CERTIFICATE}",
        f"keyfile {directory / SERVER_KEY}",
        "tls_version tlsv1.2",
        "use_username_as_clientid true",
    ]
    if served.requires_certificates:
        lines += [f"cafile {directory / CLIENT_AUTHORITY}", "require_certificate true"]
    return "\n".join(lines)
