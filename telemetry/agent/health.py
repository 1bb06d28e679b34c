"""How an agent itself is: told when it connects and from time to time, beside its log, because it is of the moment."""

import time

from telemetry import __version__
from telemetry.agent.report import ProblemLog
from telemetry.agent.sampler import Sampler
from telemetry.agent.spool import SpoolFile
from telemetry.config import Intervals
from telemetry.processes import usage
from telemetry.publish import Publisher
from telemetry.wire import HealthReport, Outgoing, decode_change, encode_health, with_epoch


class AgentHealth:
    """Counts what nobody else counts, and says how things are. `now`: seconds, monotonic."""

    def __init__(
        self, publisher: Publisher, spool: SpoolFile, sampler: Sampler, problems: ProblemLog, *, interval: float
    ) -> None:
        self._publisher, self._spool, self._sampler, self._problems = publisher, spool, sampler, problems
        self._interval = interval
        self._began = self._due = time.monotonic()
        self._before = publisher.position.seq
        self._latest_wake = 0.0
        self._samples = self._connections = 0

    def retune(self, intervals: Intervals, now: float) -> None:
        """Go by another interval from now on."""
        self._interval = intervals.health
        self._due = min(self._due, now + intervals.health)

    def sampled(self) -> None:
        """A source was sampled."""
        self._samples += 1

    def connected(self, now: float) -> None:
        """There is a connection: how we are is told anew."""
        self._connections += 1
        self._due = now

    def woke(self, late: float) -> None:
        """The agent's thread went on, so many seconds after something was due."""
        self._latest_wake = max(self._latest_wake, late)

    def next_due(self) -> float | None:
        """When it has to be told; None while nobody can hear it."""
        return self._due if self._publisher.is_online else None

    def take_message(self, now: float, time_ms: int) -> Outgoing | None:
        """The message, when it is due."""
        if not self._publisher.is_online or now < self._due:
            return None
        self._due = now + self._interval
        report = HealthReport(time_ms, __version__, self._metrics(now, time_ms))
        self._latest_wake = 0.0
        topic = self._publisher.topics.agent_health(self._publisher.key)
        return Outgoing(topic=topic, payload=encode_health(report))

    def _metrics(self, now: float, time_ms: int) -> dict[str, float]:
        spool = self._spool
        return {
            "uptimeSeconds": round(now - self._began, 1),
            **usage(),
            "samples": self._samples,
            "deadlinesMissed": self._sampler.missed,
            "sourcesFailing": self._problems.failing,
            "wakeLateSeconds": round(self._latest_wake, 3),
            "messages": self._publisher.position.seq - self._before,
            "resent": self._publisher.resent,
            "spoolMessages": spool.messages,
            "spoolBytes": spool.bytes,
            "spoolOldestSeconds": max(0.0, (time_ms - self._oldest(time_ms)) / 1000),
            "dropped": spool.lost,
            "connections": self._connections,
        }

    def _oldest(self, time_ms: int) -> int:
        """When the values of the oldest message in the spool were sampled; now, where there is none."""
        rows = self._spool.read(0, self._spool.next) if self._spool.messages else []
        return decode_change(with_epoch(rows[0].epoch, rows[0].kept)).time if rows else time_ms
