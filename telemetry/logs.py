"""The log of a part that runs: one line an event, to standard error, in the form that its reader takes.

A person at a terminal reads text, journald takes a priority before each line, other programs one JSON object a line.
"""

import logging
import os
import sys
import time

import orjson

from telemetry.config import Log

_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""Those of syslog, as sd-daemon(3) has them before a line."""


def start_logging(part: str, chosen: Log) -> None:
    """Let `part` log from now on by the settings; again after these changed. `debug` is of its libraries too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(part, chosen))
    others = logging.DEBUG if chosen.level == "debug" else logging.WARNING
    logging.basicConfig(handlers=[handler], level=others, force=True)
    logging.getLogger("telemetry").setLevel(chosen.level.upper())
    # Its warning of a job that still runs is our missed deadline, told once and in our words.
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)


def tell_end(error: Exception) -> None:
    """Say why this process ends: in its log where it has one that a program reads, else as a person reads it."""
    if any(isinstance(handler.formatter, _Json | _Journal) for handler in logging.root.handlers):
        logging.getLogger("telemetry").error("%s", error)
    else:
        sys.stderr.write(f"telemetry: {error}\n")


def _formatter(part: str, chosen: Log) -> logging.Formatter:
    match chosen.format if chosen.format != "auto" else _form_of_reader():
        case "text":
            return _Text(part)
        case "journal":
            return _Journal()
        case _:
            return _Json(part)


def _form_of_reader() -> str:
    if sys.stderr.isatty():
        return "text"
    try:
        stream = os.fstat(sys.stderr.fileno())
    except OSError:
        # No file: whoever has replaced it looks at it himself.
        return "text"
    # systemd says where it has connected standard error to; a child whose own goes elsewhere has inherited that.
    return "journal" if os.environ.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}" else "json"


class _Text(logging.Formatter):
    def __init__(self, part: str) -> None:
        super().__init__(f"%(asctime)s {part} %(levelname)s %(message)s", datefmt="%H:%M:%S")


class _Journal(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        priority = _PRIORITIES.get(record.levelno, 6)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


class _Json(logging.Formatter):
    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "part": self._part,
            "logger": record.name,
            # A mount point, say, need not be UTF-8.
            "message": super().format(record).encode("utf-8", "replace").decode(),
        }
        return orjson.dumps(line).decode()
