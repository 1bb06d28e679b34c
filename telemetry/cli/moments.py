"""A record as it was at a time: its fields from the history, its agent's state from the events."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from telemetry.cli.known import TIERS, opened, require_record, tell
from telemetry.cli.tables import format_moment
from telemetry.errors import TelemetryError, UsageError
from telemetry.fields import Value
from telemetry.stores.history import Tier
from telemetry.stores.history.reading import FOR_EVER, Stated
from telemetry.stores.reading import open_reader
from telemetry.topics import AgentKey, RecordKey

_MOST_AHEAD = 86_400_000
"""Milliseconds by which a time may be after now: a host's clock may be ahead."""


class Moment(NamedTuple):
    """A record at a time (Unix ms): its fields in order, and the state of its agent with since when, if known."""

    time: int
    held: dict[str, Stated]
    state: tuple[str, int] | None

    @property
    def values(self) -> dict[str, Value]:
        """The record as its snapshot was then, without its key."""
        values = {name: one.value for name, one in self.held.items()}
        if self.state is not None:
            values["netState"], values["netSince"] = self.state
        return values


def moments(database: Path, key: RecordKey, times: Sequence[int], now: int) -> list[Moment]:
    """A record at some times (Unix ms); TelemetryError when nothing is known of it at any."""
    for time in times:
        if time > now + _MOST_AHEAD:
            raise UsageError(f"{format_moment(time)} is still to come: `telemetry show` has what is now")
    with opened(database) as history, open_reader(database) as reader:
        kept = require_record(history, key)
        agent = AgentKey.of(key)
        found = [Moment(time, in_order(key, history.at(key, time)), reader.state_at(agent, time)) for time in times]
    if not any(moment.held for moment in found):
        when = " or ".join(map(format_moment, times))
        since = format_moment(min(kept.values()))
        raise TelemetryError(f"{key}: nothing known of it at {when} (there is history since {since})")
    messages = kept.get(Tier.MESSAGES)
    summarized = [one.time for one in found if one.held and (messages is None or one.time < messages)]
    if summarized:
        tier = Tier.FIVE_MINUTES if kept.get(Tier.FIVE_MINUTES, FOR_EVER) <= min(summarized) else Tier.HOURS
        tell(f"messages of {format_moment(min(summarized))} are not kept any more: it is told by {TIERS[tier]}")
    return found


def in_order(key: RecordKey, held: dict[str, Stated]) -> dict[str, Stated]:
    """Fields as they are declared, then those that a newer agent added."""
    declared = key.record.by_name
    names = [*(name for name in declared if name in held), *(name for name in held if name not in declared)]
    return {name: held[name] for name in names}
