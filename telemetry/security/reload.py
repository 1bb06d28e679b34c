"""Telling the broker that its files changed: SIGHUP, to the process that holds the data directory and no other.

With 10,000 users a reload keeps Mosquitto busy for seconds. Those who ask within 2 s share one.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from telemetry.errors import TelemetryError
from telemetry.security.registry import Registry

SPACING = 2.0
"""Seconds between two reloads."""

_READY_TIMEOUT = 30.0
_LOCK_FLAG = "FLOCK  ADVISORY  WRITE"


def holder(directory: Path) -> int | None:
    """The pid of the process that holds a directory by flock, as the broker does; None when there is none.

    /proc/locks names the process that asked for the lock, which has become the broker; its descriptors prove it.
    """
    try:
        inode = directory.stat().st_ino
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for line in locks:
        words = line.split()
        if words[1:4] == ["FLOCK", "ADVISORY", "WRITE"] and words[5].endswith(f":{inode}"):
            pid = int(words[4])
            if pid > 0 and _holds(pid, directory):
                return pid
    return None


def _holds(pid: int, directory: Path) -> bool:
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            # A descriptor may be closed meanwhile.
            with contextlib.suppress(OSError):
                if link.samefile(directory) and _has_lock(pid, link.name):
                    return True
    return False


def _has_lock(pid: int, descriptor: str) -> bool:
    return _LOCK_FLAG in Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text()


def reload_broker(registry: Registry) -> bool:
    """Have the broker of the directory read its files again; False when none runs. Waits for those just before."""
    asked = registry.generation
    with registry.held("reload.lock"):
        done, when = _last(registry)
        if asked <= done:
            # A reload that others asked for came after our change.
            return holder(registry.broker) is not None
        wait = when + SPACING - time.monotonic()
        if 0 < wait <= SPACING:
            time.sleep(wait)
        now = registry.generation
        if not _signal(registry.broker):
            return False
        registry.write("reloaded", f"{now} {time.monotonic()}")
    return True


def _last(registry: Registry) -> tuple[int, float]:
    """The generation of the last reload, and when that was."""
    with contextlib.suppress(OSError, ValueError):
        generation, when = (registry.directory / "reloaded").read_text().split()
        return int(generation), float(when)
    return 0, 0.0


def _signal(directory: Path) -> bool:
    pid = holder(directory)
    if pid is None:
        return False
    try:
        with _opened(pid) as process:
            # It is the same one still: a pid that was given to another process since holds no such lock.
            if holder(directory) != pid:
                return False
            _wait_until_it_listens(pid, directory)
            signal.pidfd_send_signal(process, signal.SIGHUP)
    except ProcessLookupError:
        return False
    except PermissionError:
        text = f"{directory}: the broker, process {pid}, runs as another user: run this as root, or `kill -HUP {pid}`"
        raise TelemetryError(text) from None
    return True


@contextlib.contextmanager
def _opened(pid: int) -> Iterator[int]:
    process = os.pidfd_open(pid)
    try:
        yield process
    finally:
        os.close(process)


def _wait_until_it_listens(pid: int, directory: Path) -> None:
    """Before Mosquitto has read its files it ignores the signal, which then would be lost."""
    deadline = time.monotonic() + _READY_TIMEOUT
    while not _catches_sighup(pid):
        if time.monotonic() > deadline:
            raise TelemetryError(f"{directory}: the broker, process {pid}, takes no reload; start it again")
        time.sleep(0.05)


def _catches_sighup(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        raise ProcessLookupError from None
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (signal.SIGHUP - 1) & 1)
