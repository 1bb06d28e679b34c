"""SIGHUP: the settings are read anew, and those that can change while a part runs are taken up."""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

from telemetry.cli.options import Chosen, chosen
from telemetry.config import Settings, differences
from telemetry.errors import UsageError
from telemetry.logs import start_logging

_log = logging.getLogger(__name__)


class Reload:
    """Reads the settings of `part` anew at each SIGHUP, which `main` has blocked since before there were threads.

    `require` raises UsageError where they name what there is not.
    """

    def __init__(
        self, part: str, arguments: argparse.Namespace, choice: Chosen, require: Callable[[Settings], None]
    ) -> None:
        self._part, self._arguments, self._require = part, arguments, require
        self._at_start = self._settings = choice.settings
        self._take_up: Callable[[Settings], None] = lambda _: None
        self._lock = threading.Lock()
        # The terminal's end is a SIGHUP too.
        self._has_terminal = sys.stderr.isatty()
        threading.Thread(target=self._wait, name="reload", daemon=True).start()

    def hand_to(self, take_up: Callable[[Settings], None]) -> None:
        """Give what is read from now on, and what was read before, to who goes by it."""
        with self._lock:
            self._take_up = take_up
            if self._settings is not self._at_start:
                take_up(self._settings)

    def _wait(self) -> None:
        while True:
            signal.sigwait({signal.SIGHUP})
            if self._has_terminal and not sys.stderr.isatty():
                os.kill(os.getpid(), signal.SIGTERM)
                return
            try:
                self._read()
            except UsageError as error:
                _log.error("settings not taken up: %s; those of before stay", error)

    def _read(self) -> None:
        settings = chosen(self._arguments).settings
        self._require(settings)
        with self._lock:
            taken, _ = differences(self._settings, settings)
            _, left = differences(self._at_start, settings)
            self._settings = settings
            start_logging(self._part, settings.log)
            self._take_up(settings)
        if left:
            _log.warning("settings that need a new start to be taken up: %s", ", ".join(left))
        _log.info("settings read anew: %s", f"taken up {', '.join(taken)}" if taken else "nothing to take up")
