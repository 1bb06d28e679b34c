"""Times and spans as a person writes them: one grammar for all commands. Times are Unix milliseconds."""

import re
from datetime import datetime

from telemetry.errors import UsageError

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|[smhdw])")
_SPAN = re.compile(f"(?:{_PART.pattern})+")
_LATEST = 221_845_392_000_000  # the year 9000, which every calendar still knows

TIME_HELP = "-1h, now, 2026-11-23 or 2026-11-23T10:00+08:00; local time where no offset is given"


def parse_span(text: str) -> int:
    """A length of time in milliseconds: `30s`, `5m`, `1h30m`, `2d`, `1w`."""
    found = _span(text.strip())
    if not found:
        raise UsageError(f"{text.strip()!r} is no length of time: expected one such as 30s, 5m, 1h30m, 2d or 1w")
    return found


def parse_time(text: str, now: int) -> int:
    """A time: `now`, a length of time before it (`-1h`), a date (its first moment) or a date with a time of day."""
    word = text.strip()
    if word == "now":
        return now
    found = now - span if word.startswith("-") and (span := _span(word[1:])) else _calendar(word)
    if found is None or not 0 <= found <= _LATEST:
        raise UsageError(f"{word!r} is no time: expected one such as {TIME_HELP}")
    return found


def is_time(text: str, now: int) -> bool:
    """Whether the text is a time."""
    try:
        parse_time(text, now)
    except UsageError:
        return False
    return True


def _span(text: str) -> int:
    if not _SPAN.fullmatch(text):
        return 0
    return round(sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)))


def _calendar(text: str) -> int | None:
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return None
