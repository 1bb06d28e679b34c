"""What an agent keeps on disk between two runs: the name of its last log."""

import logging
from pathlib import Path

from telemetry.topics import AgentKey

_log = logging.getLogger(__name__)


class EpochFile:
    """The last epoch that an agent used, so that epochs grow even where the clock went back."""

    def __init__(self, directory: Path, key: AgentKey) -> None:
        self._path = directory / f"{key.client_id}.epoch"

    def begin(self, now: int) -> int:
        """A new epoch: `now` (Unix ms), or one above the last when the clock is behind it."""
        return self.keep(max(now, self._last() + 1))

    def keep(self, epoch: int) -> int:
        """Remember an epoch; a directory that cannot be written is said and lived with."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(".partial")
            partial.write_text(f"{epoch}\n")
            partial.replace(self._path)
        except OSError as error:
            _log.warning("state not kept in %s: %s", self._path.parent, error.strerror)
        return epoch

    def _last(self) -> int:
        try:
            return int(self._path.read_text())
        except (OSError, ValueError):
            return 0
