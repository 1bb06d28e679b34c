"""What an agent states of a record, and what it tells its operator about what it cannot read."""

import logging
from collections.abc import Mapping

from telemetry.agent.sampler import Sampled
from telemetry.fields import Deadband, Field
from telemetry.flagged import FlaggedValues
from telemetry.sources import Reading, Source

_log = logging.getLogger(__name__)


class Report:
    """The part of a record that an agent states: its values, flagged where they have to be sent."""

    def __init__(self, topic: str, fields: Mapping[str, Field], deadbands: Mapping[str, Deadband]) -> None:
        self.topic = topic
        self.values = FlaggedValues(fields, deadbands)
        self.time = 0

    def update(self, sampled: Sampled) -> None:
        """Take in what a source gave; what it did not give cannot be read."""
        self.values.update(sampled.reading.values)
        self.values.lose(name for name in sampled.source.fields if name not in sampled.reading.values)
        self.time = sampled.time


class ProblemLog:
    """Why fields cannot be read, told once: when a reason begins or changes, and when it ends."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def tell(self, source: Source, reading: Reading) -> None:
        """Log what a reading has changed."""
        changed: dict[str | None, list[str]] = {}
        for name in source.fields:
            reason = reading.problems.get(name)
            if self._reasons.get(name) != reason:
                changed.setdefault(reason, []).append(name)
        for reason, names in changed.items():
            self._tell_one(source.name, names, reason)

    def _tell_one(self, source: str, names: list[str], reason: str | None) -> None:
        listed = ", ".join(names)
        if reason is None:
            _log.info("%s: reads %s again", source, listed)
            for name in names:
                del self._reasons[name]
        else:
            _log.warning("%s: cannot read %s: %s", source, listed, reason)
            self._reasons |= dict.fromkeys(names, reason)
