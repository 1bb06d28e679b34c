"""What an agent states of its records, and what it tells its operator about what it cannot read."""

import logging
from collections.abc import Iterable, Iterator, Mapping

from telemetry.agent.sampler import Sampled
from telemetry.fields import Deadband, Field, Owner, Value
from telemetry.flagged import FlaggedValues
from telemetry.sources import Reading, Source
from telemetry.topics import AgentKey, RecordKey, Topics, is_worker_host

_log = logging.getLogger(__name__)


class Report:
    """The part of a record that an agent states: its values, flagged where they have to be sent.

    `is_known` once it was sampled: before that nothing is published of it. `has_ended` when there is no such record
    any more: one last report says so. Times are seconds of the monotonic clock, but `time`, Unix milliseconds.
    """

    def __init__(self, topic: str, fields: Mapping[str, Field], deadbands: Mapping[str, Deadband]) -> None:
        self.topic = topic
        self.values = FlaggedValues(fields, {name: one for name, one in deadbands.items() if name in fields})
        self.time = 0
        self.is_known = self.has_ended = False
        self.pushed = self.full_due = 0.0

    def update(self, values: Mapping[str, Value], names: Iterable[str], time: int) -> None:
        """Take in what was read of the fields `names`; what has no value cannot be read."""
        self.values.update(values)
        self.values.lose(name for name in names if name not in values)
        self.time, self.is_known, self.has_ended = time, True, False

    def end(self, names: Iterable[str], time: int) -> None:
        """Take in that there is no such record any more."""
        self.update({}, names, time)
        self.has_ended, self.full_due = True, 0.0


class Reports:
    """All that an agent states: its part of its own record, and its part of each worker host's.

    `known_hosts` are those of an earlier run: what was told of them then has to be told anew, or taken back.
    """

    def __init__(
        self,
        key: AgentKey,
        *,
        owner: Owner,
        topics: Topics,
        deadbands: Mapping[str, float],
        known_hosts: Iterable[str] = (),
    ) -> None:
        self._key, self._topics = key, topics
        self._deadbands = {name: Deadband(absolute=value) for name, value in deadbands.items()}
        self.own = self._report(key.record, owner)
        self._hosts = {host: self._host_report(host) for host in known_hosts}
        self._unnamed: set[str] = set()

    def __iter__(self) -> Iterator[Report]:
        yield self.own
        yield from self._hosts.values()

    @property
    def hosts(self) -> list[str]:
        """The worker hosts of which something is stated."""
        return sorted(self._hosts)

    def take_in(self, sampled: Sampled) -> None:
        """Take in what a source gave; what it did not give cannot be read."""
        source, reading = sampled.source, sampled.reading
        self.own.update(reading.values, source.fields, sampled.time)
        if not source.host_fields:
            return
        if reading.hosts is None:
            for report in self._hosts.values():
                report.update({}, source.host_fields, sampled.time)
        else:
            self._take_in_hosts(reading.hosts, source.host_fields, sampled.time)

    def drop_ended(self, report: Report) -> None:
        """Forget a report that has ended, once that was told."""
        if report.has_ended:
            self._hosts = {host: one for host, one in self._hosts.items() if one is not report}

    def _take_in_hosts(self, hosts: Mapping[str, Mapping[str, Value]], names: tuple[str, ...], time: int) -> None:
        for host, values in hosts.items():
            if not is_worker_host(host):
                self._tell_unnamed(host)
                continue
            if host not in self._hosts:
                self._hosts[host] = self._host_report(host)
            self._hosts[host].update(values, names, time)
        for host in self._hosts.keys() - hosts.keys():
            self._hosts[host].end(names, time)

    def _tell_unnamed(self, host: str) -> None:
        if host[:64] not in self._unnamed:
            self._unnamed.add(host[:64])
            _log.warning("a worker's name of %d characters is too long for a topic: %s…", len(host), host[:64])

    def _host_report(self, host: str) -> Report:
        return self._report(RecordKey(self._key.minerId, host), Owner.TASKS)

    def _report(self, record: RecordKey, owner: Owner) -> Report:
        return Report(self._topics.change(record, owner), record.record.owned_by(owner), self._deadbands)


class ProblemLog:
    """Why fields cannot be read, told once: when a reason begins or changes, and when it ends."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def tell(self, source: Source, reading: Reading) -> None:
        """Log what a reading has changed."""
        changed: dict[str | None, list[str]] = {}
        for name in (*source.fields, *source.host_fields):
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
