"""What commands that read the history say of a name that is not known: the nearest that is."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from telemetry.cli.tables import format_moment
from telemetry.config import nearest
from telemetry.errors import TelemetryError, UsageError
from telemetry.stores.history import Tier
from telemetry.stores.history.reading import FOR_EVER, Damage, History, open_history
from telemetry.stores.history.rows import SAVE
from telemetry.stores.history.series import AGGREGATES
from telemetry.topics import RecordKey

_MOST_TOLD = 5

TIERS = {
    Tier.MESSAGES: "every message",
    Tier.FIVE_MINUTES: "the summaries of five minutes",
    Tier.HOURS: "the summaries of an hour",
}


def require_record(history: History, key: RecordKey) -> dict[Tier, int]:
    """From when on each tier holds anything of a record; TelemetryError when none does."""
    kept = history.kept_since(key)
    if kept:
        return kept
    records = history.records()
    hosts = [one for one in records if one.minerId == key.minerId and one.hostName is not None]
    if key.hostName is None and hosts:
        raise TelemetryError(f"{key}: no history of the miner itself, but of its hosts, such as {hosts[0]}")
    known = [str(one) for one in (hosts if key.hostName is not None else records) or records]
    raise TelemetryError(f"{key}: no history of it{nearest(str(key), known)}")


def aggregates_of(text: str | None, step: int) -> list[str]:
    """The aggregates that `--agg` names, for steps of so many milliseconds."""
    if text is None:
        return ["mean"]
    if not step:
        raise UsageError("--agg: of what lengths? give --step too, such as --step 5m")
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in AGGREGATES:
            raise UsageError(f"--agg {name}: expected {', '.join(AGGREGATES)}, or several with commas")
    if not names:
        raise UsageError(f"--agg: expected {', '.join(AGGREGATES)}, or several with commas")
    return names


@contextmanager
def opened(database: Path) -> Iterator[History]:
    """The history of a database; what of it was found damaged is told in the end."""
    with open_history(database) as history:
        try:
            yield history
        finally:
            damaged = sorted(history.damaged, key=str)
            for damage in damaged[:_MOST_TOLD]:
                what = f"{damage.record}: {_part(damage)}" if damage.record else _part(damage)
                _tell_once(f"database {database}: {what} damaged and left out ({damage.reason}); {SAVE}")
            if len(damaged) > _MOST_TOLD:
                _tell_once(f"database {database}: and {len(damaged) - _MOST_TOLD} more: `telemetry check --db` has all")


def _part(damage: Damage) -> str:
    if damage.until == FOR_EVER:
        return "some of the newest messages are"
    verb = "is" if damage.tier is Tier.MESSAGES else "are"
    return f"{TIERS[damage.tier]} from {format_moment(damage.since)} to {format_moment(damage.until)} {verb}"


def tell(text: str) -> None:
    """A line beside the answer, for a person."""
    print(f"telemetry: {text}", file=sys.stderr)


_tell_once = cache(tell)
