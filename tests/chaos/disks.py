"""Disks that can be filled: a small tmpfs where we may mount one, else a limit on how far a process may write."""

import contextlib
import errno
import os
import resource
import subprocess
from pathlib import Path

_SIZE = "3m"
_WRITE_LIMIT = 64
"""Bytes: what agents write in place is shorter, each line of a spool is longer."""


class Disk:
    """The state directory of a process; on a filesystem of its own as root."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ballast = directory / "ballast"
        directory.mkdir()
        self.is_mounted = os.geteuid() == 0 and _run("mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", directory)

    def fill(self) -> None:
        """Leave no room on it."""
        with self._ballast.open("wb", buffering=0) as ballast:
            for size in (1 << 16, 1 << 12, 1):
                _write_until_full(ballast.fileno(), bytes(size))

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Take the filesystem away."""
        if self.is_mounted:
            self.is_mounted = not _run("umount", "-l", self.directory)


def limit_writes(pid: int) -> None:
    """Let a process write no file beyond its beginning."""
    _limit(pid, _WRITE_LIMIT)


def unlimit_writes(pid: int) -> None:
    """Let it write as before."""
    _limit(pid, resource.RLIM_INFINITY)


def _limit(pid: int, most: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most if most >= 0 else hard, hard))


def _write_until_full(descriptor: int, block: bytes) -> None:
    while True:
        try:
            os.write(descriptor, block)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return


def _run(*command: str | Path) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
