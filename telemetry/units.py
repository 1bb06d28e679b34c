"""Units of fields, and how a person reads a value in them. Base units travel; prefixes are for display only."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitStyle:
    """How a unit is written: `symbol` behind the value (UCUM where it has one), `step` between its prefixes."""

    symbol: str
    step: int | None = None


class Unit(Enum):
    """The unit of a number."""

    NONE = UnitStyle(symbol="")
    COUNT = UnitStyle(symbol="1")
    BYTES = UnitStyle(symbol="B", step=1024)
    BYTES_PER_SECOND = UnitStyle(symbol="B/s", step=1024)
    CELSIUS = UnitStyle(symbol="°C")
    PERCENT = UnitStyle(symbol="%")
    WATTS = UnitStyle(symbol="W")
    FIL = UnitStyle(symbol="FIL")
    SECONDS = UnitStyle(symbol="s")
    WINS_PER_DAY = UnitStyle(symbol="wins/d")
    UNIX_MILLISECONDS = UnitStyle(symbol="ms")


_PREFIXES = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi")


def format_number(value: float, unit: Unit) -> str:
    """A number with its unit as people write it: `1.5 GiB`, `37.5 %`, `12`."""
    return number_formatter(unit)(value)


@cache
def number_formatter(unit: Unit) -> Callable[[float], str]:
    """What writes numbers of a unit: made once for the many of a table."""
    style = unit.value
    if style.step is not None:
        return _prefixed(style.symbol, style.step)
    # What has no unit is a number by name, such as a sector's.
    return _plain("," if style.symbol else "", "" if style.symbol in {"", "1"} else f" {style.symbol}")


def _prefixed(symbol: str, step: int) -> Callable[[float], str]:
    endings = [f" {prefix}{symbol}" for prefix in _PREFIXES]
    most = len(endings) - 1

    def write(value: float) -> str:
        scaled, power = value, 0
        while not -step < scaled < step and power < most:
            scaled /= step
            power += 1
        digits = 1 if power and -100 < scaled < 100 else 0
        return f"{scaled:.{digits}f}{endings[power]}"

    return write


def _plain(grouped: str, ending: str) -> Callable[[float], str]:
    def write(value: float) -> str:
        if isinstance(value, int):
            return f"{value:{grouped}}{ending}"
        return f"{value:,.9f}".rstrip("0").rstrip(".") + ending

    return write


def format_age(seconds: float) -> str:
    """How long ago, in the two largest units: `4 s`, `3 min`, `2 h 05 min`, `6 d 1 h`."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60:02} min"
    return f"{days} d {hours % 24} h"
