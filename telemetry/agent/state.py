"""What an agent keeps on disk between two runs: the name of its last log, of its miner, and of the hosts it told of.

A directory that cannot be written is said and lived with.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import orjson

from telemetry.publish import LAST_EPOCH
from telemetry.topics import AgentKey, is_miner_id, is_worker_host

_log = logging.getLogger(__name__)


class MinerFile:
    """The id of the miner that this machine's Lotus said it is, for when it is down."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "miner"

    def keep(self, miner: str) -> None:
        """Remember it."""
        if miner != self.last():
            _write(self._path, miner)

    def last(self) -> str | None:
        """What was kept last."""
        text = _read(self._path).strip()
        return text if is_miner_id(text) else None


class HostFile:
    """The worker hosts of which a miner's agent has told something, and so has to take it back when they are gone."""

    def __init__(self, directory: Path, key: AgentKey) -> None:
        self._path = directory / f"{key.client_id}.hosts"
        self._kept = self.last()

    def keep(self, hosts: Sequence[str]) -> None:
        """Remember them."""
        if list(hosts) != self._kept:
            self._kept = list(hosts)
            _write(self._path, orjson.dumps(self._kept).decode())

    def last(self) -> list[str]:
        """What was kept last."""
        try:
            hosts = orjson.loads(_read(self._path))
        except orjson.JSONDecodeError:
            return []
        named = hosts if isinstance(hosts, list) else []
        return [host for host in named if isinstance(host, str) and is_worker_host(host)]


class EpochFile:
    """The last epoch that an agent used, so that epochs grow even where the clock went back.

    It is written in place, which a full disk allows.
    """

    _LENGTH = 24

    def __init__(self, directory: Path, key: AgentKey) -> None:
        self._path = directory / f"{key.client_id}.epoch"

    def keep(self, epoch: int, *, is_told: bool = False) -> int:
        """Remember an epoch; `is_told`: that the directory cannot be written was said already."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.pwrite(descriptor, f"{epoch}\n".ljust(self._LENGTH).encode(), 0)
                os.ftruncate(descriptor, self._LENGTH)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            level = logging.DEBUG if is_told else logging.WARNING
            _log.log(level, "state not kept in %s: %s", self._path.parent, error.strerror)
        return epoch

    def last(self) -> int:
        """What was kept last; 0 where nothing was, or what was never an epoch."""
        try:
            epoch = int(_read(self._path))
        except ValueError:
            return 0
        return epoch if 0 < epoch < LAST_EPOCH else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _write(path: Path, text: str) -> None:
    """Replace a file's text, or leave it as it was."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(f"{text}\n")
        partial.replace(path)
    except OSError as error:
        _log.warning("state not kept in %s: %s", path.parent, error.strerror)
