"""What is wanted of the figures: for each a limit, which has to hold, and an aim; and how the measured ones stand."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.measurement import Report
from bench.table import number


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A figure that is wanted; more of it is worse, unless `is_floor`."""

    key: str
    title: str
    limit: float
    aim: float
    is_floor: bool = False

    def verdict(self, value: float | None) -> str:
        """How a measured value stands."""
        if value is None:
            return "not measured"
        if not self._holds(value, self.limit):
            return "missed"
        return "ok, aim reached" if self._holds(value, self.aim) else "ok"

    def _holds(self, value: float, bound: float) -> bool:
        return value >= bound if self.is_floor else value <= bound


TARGETS = (
    Target(key="ingest_ratio", title="ingest / the broker's ceiling", limit=0.5, aim=0.85, is_floor=True),
    Target(key="commit_p99_ms", title="written to committed at half the rate, p99 ms", limit=130, aim=60),
    Target(key="lost", title="lost at twice the rate", limit=0, aim=0),
    Target(key="join_10k_s", title="a subscriber joins 10,000 hosts, s", limit=1, aim=0.3),
    Target(key="raw_bytes", title="bytes a field sample, raw", limit=15, aim=8),
    Target(key="block_bytes", title="bytes a field sample, in blocks", limit=4, aim=3),
    Target(key="ls_10k_s", title="ls and show of 10,000 hosts, the slower, s", limit=0.5, aim=0.25),
    Target(key="history_day_s", title="history of a field over a day, s", limit=0.3, aim=0.15),
    Target(key="upkeep_step_ms", title="the longest that upkeep holds up a commit, ms", limit=50, aim=25),
    Target(key="scrape_10k_s", title="Prometheus scrapes 10,000 hosts, s", limit=5, aim=2),
    Target(key="aggregator_rss_mb", title="aggregator at 10,000 hosts, RSS MiB", limit=250, aim=120),
    Target(key="cost_growth", title="aggregator's CPU a change, 10,000 hosts / 100", limit=1.5, aim=1.0),
    Target(key="agent_cpu_s_h", title="agent, CPU s/h", limit=1.5, aim=1.0),
    Target(key="agent_rss_mb", title="agent, RSS MiB", limit=32, aim=30),
    Target(key="agent_wire_kb_h", title="agent, wire kB/h", limit=130, aim=100),
)


def summary(figures: Mapping[str, float]) -> Report:
    """All that is wanted, beside what was measured."""
    heading = ["", "measured", "limit", "aim", "", "key"]
    rows = [heading, *(_row(target, figures.get(target.key)) for target in TARGETS)]
    ceiling = figures.get("ceiling_msgs_s")
    notes = [] if ceiling is None else [f"the broker's ceiling: {number(ceiling)} messages/s at QoS 1"]
    return Report(title="What is wanted", rows=rows, figures={}, notes=notes)


def _row(target: Target, value: float | None) -> list[str]:
    return [
        target.title, number(value), _bound(target, target.limit), _bound(target, target.aim), target.verdict(value),
        target.key,
    ]  # fmt: skip


def _bound(target: Target, bound: float) -> str:
    return f"{'>=' if target.is_floor else '<='} {bound:g}"
