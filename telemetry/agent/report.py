"""What the sources gave becomes what an agent states, and what it cannot read is told its operator."""

import logging
from collections.abc import Mapping

from telemetry.agent.sampler import Sampled
from telemetry.fields import Value
from telemetry.publish import Publisher
from telemetry.sources import Reading, Source
from telemetry.topics import is_worker_host

_log = logging.getLogger(__name__)


class Intake:
    """Hands readings to the publisher; what a source did not give cannot be read."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._unnamed: set[str] = set()

    def take_in(self, sampled: Sampled) -> None:
        """Take in what a source gave."""
        source, reading = sampled.source, sampled.reading
        self._publisher.own.update(reading.values, source.fields, sampled.time)
        if not source.host_fields:
            return
        if reading.hosts is None:
            for report in self._publisher.host_reports().values():
                report.update({}, source.host_fields, sampled.time)
        else:
            self._take_in_hosts(reading.hosts, source.host_fields, sampled.time)

    def _take_in_hosts(self, hosts: Mapping[str, Mapping[str, Value]], names: tuple[str, ...], time: int) -> None:
        for host, values in hosts.items():
            if is_worker_host(host):
                self._publisher.host_report(host).update(values, names, time)
            else:
                self._tell_unnamed(host)
        for host, report in self._publisher.host_reports().items():
            if host not in hosts:
                report.end(names, time)

    def _tell_unnamed(self, host: str) -> None:
        if host[:64] not in self._unnamed:
            self._unnamed.add(host[:64])
            _log.warning("a worker's name of %d characters is too long for a topic: %s…", len(host), host[:64])


class ProblemLog:
    """Why fields cannot be read, told once: when a reason begins or changes, and when it ends."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._failing: set[str] = set()

    @property
    def failing(self) -> int:
        """How many sources have fields that cannot be read."""
        return len(self._failing)

    def tell(self, source: Source, reading: Reading) -> None:
        """Log what a reading has changed."""
        changed: dict[str | None, list[str]] = {}
        for name in (*source.fields, *source.host_fields):
            reason = reading.problems.get(name)
            if self._reasons.get(name) != reason:
                changed.setdefault(reason, []).append(name)
        for reason, names in changed.items():
            self._tell_one(source.name, names, reason)
        if reading.problems:
            self._failing.add(source.name)
        else:
            self._failing.discard(source.name)

    def _tell_one(self, source: str, names: list[str], reason: str | None) -> None:
        listed = ", ".join(names)
        if reason is None:
            _log.info("%s: reads %s again", source, listed)
            for name in names:
                del self._reasons[name]
        else:
            _log.warning("%s: cannot read %s: %s", source, listed, reason)
            self._reasons |= dict.fromkeys(names, reason)
