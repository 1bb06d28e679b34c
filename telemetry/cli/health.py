"""How the parts of telemetry themselves are, the worst first: `telemetry ls --self`."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from telemetry.cli.tables import Cell, Styled, count_of, print_line, print_table, state_text
from telemetry.health import AGENT_HEALTH, AGGREGATOR_HEALTH, BROKER_HEALTH
from telemetry.stores import HealthRow
from telemetry.stores.reading import Reader, Violations
from telemetry.topics import AgentKey
from telemetry.units import Unit, format_age, format_number

MOST_CLOCK_OFFSET = 5.0
"""Seconds by which a clock may be off before it is called wrong."""

_LONGEST_UNACKNOWLEDGED = 300.0
_LONGEST_WAKE = 5.0
_MOST_VIOLATIONS = 10
_BAD, _POOR = "bold red", "yellow"
_STATES = ("online", "stopped", "unknown", "stale", "lost")
"""From the best to the worst."""


class AgentView(NamedTuple):
    """An agent as it was last heard of; `health` is None where it never told, as one of an older version."""

    key: AgentKey
    state: str
    since: int
    version: str
    health: HealthRow | None

    @property
    def metrics(self) -> Mapping[str, float]:
        """What it told."""
        return self.health.metrics if self.health else {}

    @property
    def clock_offset(self) -> float | None:
        """Seconds by which its clock was ahead of the aggregator's."""
        return (self.health.time - self.health.received) / 1000 if self.health else None

    @property
    def has_wrong_clock(self) -> bool:
        """Whether its clock is off by more than the way of a message explains."""
        return abs(self.clock_offset or 0.0) > MOST_CLOCK_OFFSET

    @property
    def badness(self) -> tuple[float, ...]:
        """By which the worst comes first: what is lost, who is away, what is late, what cannot be read."""
        told = self.metrics
        return (
            told.get("dropped", 0),
            _STATES.index(self.state),
            self.has_wrong_clock,
            max(0.0, told.get("spoolOldestSeconds", 0.0) - _LONGEST_UNACKNOWLEDGED),
            max(0.0, told.get("wakeLateSeconds", 0.0) - _LONGEST_WAKE),
            told.get("sourcesFailing", 0),
        )


def agent_views(reader: Reader) -> list[AgentView]:
    """All agents, the worst first."""
    health = {row.name: row for row in reader.health() if row.kind == AGENT_HEALTH.name}
    views = [
        AgentView(key, one.state, one.since, one.version, health.get(str(key))) for key, one in reader.agents().items()
    ]
    return sorted(views, key=lambda view: (*(-part for part in view.badness), view.key))


def print_json(reader: Reader) -> None:
    """Print all metrics: one flat object a part, and one a topic where somebody says what is not his to say."""
    rows = [_flat(row) for row in reader.health() if row.kind != AGENT_HEALTH.name]
    for view in agent_views(reader):
        head = {"kind": AGENT_HEALTH.name, "name": str(view.key), "state": view.state, "since": view.since}
        told = _flat(view.health) | {"clockOffsetSeconds": view.clock_offset} if view.health else {}
        rows.append(head | {"version": view.version} | told)
    rows += [{"kind": "violation"} | one._asdict() for one in reader.violations()]
    print(orjson.dumps(rows).decode())


def _flat(row: HealthRow) -> dict[str, Any]:
    return {name: value for name, value in row._asdict().items() if name != "metrics"} | dict(row.metrics)


def print_health(reader: Reader) -> None:
    """Print aggregators, broker and agents for a person."""
    now = time.time()
    told = {kind: [row for row in reader.health() if row.kind == kind] for kind in ("aggregator", "broker")}
    for row in told[AGGREGATOR_HEALTH.name]:
        _print_part(f"aggregator {row.name}", row, now, _aggregator_lines(row.metrics))
    for row in told[BROKER_HEALTH.name]:
        _print_part("broker", row, now, _broker_lines(row.metrics))
    if not told[AGGREGATOR_HEALTH.name]:
        print("no aggregator has told how it is: one of this version does so every minute\n")
    views = agent_views(reader)
    if views:
        _print_agents(views, now)
    _print_violations(reader.violations(), now)


def _print_part(name: str, row: HealthRow, now: float, lines: Iterator[tuple[str, list[Cell]]]) -> None:
    age = now - row.received / 1000
    told = f"told {format_age(age)} ago"
    up = f"  up {format_age(row.metrics['uptimeSeconds'])}  " if "uptimeSeconds" in row.metrics else "  "
    print_line(
        Styled(name, "bold"), f"  {row.version}{up}", Styled(told, _BAD if age > _LONGEST_UNACKNOWLEDGED else "")
    )
    for title, cells in lines:
        print_line(f"  {title:<10}", *cells)
    print()


def _aggregator_lines(told: Mapping[str, float]) -> Iterator[tuple[str, list[Cell]]]:
    yield "messages", _counted(told, messages="in", committed="committed", late="late", duplicates="known already")
    yield "faults", _faults(told, lost="lost", rejected="rejected", violations="not theirs to say", defects="defects")
    yield "commit", [_spread(told, "commit")]
    yield "lag", [_spread(told, "lag"), " from sample to commit"]
    yield "waiting", _counted(told, queueMessages="messages", queueMaxMessages="at most", dirtyRecords="records")
    yield "agents", _counted(
        told, agentsOnline="online", agentsStale="stale", agentsStopped="stopped", agentsLost="lost",
        agentsUnmended="incomplete",
    )  # fmt: skip
    yield "uses", [_used(told), *_bytes(told, "databaseBytes", "database")]


def _broker_lines(told: Mapping[str, float]) -> Iterator[tuple[str, list[Cell]]]:
    yield "clients", _counted(told, clientsConnected="connected", clientsMaximum="at most", clientsDisconnected="away")
    yield "messages", _counted(told, messagesReceived="in", messagesSent="out", queueMessages="waiting")
    yield "faults", _faults(told, messagesDropped="dropped")
    yield "uses", [_used(told), *_bytes(told, "heapBytes", "heap"), *_bytes(told, "storedBytes", "stored")]


def _counted(told: Mapping[str, float], **titles: str) -> list[Cell]:
    return [", ".join(f"{told[name]:,.0f} {title}" for name, title in titles.items() if name in told)]


def _faults(told: Mapping[str, float], **titles: str) -> list[Cell]:
    """Counts of which each had better be 0."""
    cells: list[Cell] = []
    for name, title in titles.items():
        if name in told:
            cells.append(Styled(f"{told[name]:,.0f} {title}", _BAD if told[name] else ""))
            cells.append(", ")
    return cells[:-1]


def _spread(told: Mapping[str, float], name: str) -> str:
    if f"{name}MaxSeconds" not in told:
        return "none since it last told"
    p50, p99, most = (_duration(told[f"{name}{part}Seconds"]) for part in ("P50", "P99", "Max"))
    return f"{p50}, 99 % within {p99}, at most {most}"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else format_age(seconds)


def _used(told: Mapping[str, float]) -> str:
    """CPU as a share of one core, since the start."""
    memory = format_number(told["rssBytes"], Unit.BYTES) + " RSS" if "rssBytes" in told else ""
    return ", ".join(filter(None, (memory, _cpu(told) and f"{_cpu(told)} CPU"))) or "not on this machine"


def _cpu(told: Mapping[str, float]) -> str:
    if "cpuSeconds" not in told or not told.get("uptimeSeconds"):
        return ""
    return f"{100 * told['cpuSeconds'] / told['uptimeSeconds']:.1f} %"


def _bytes(told: Mapping[str, float], name: str, title: str) -> list[Cell]:
    return [f", {title} {format_number(told[name], Unit.BYTES)}"] if name in told else []


def _print_agents(views: list[AgentView], now: float) -> None:
    headings = ("AGENT", "STATE", "SPOOL", "OLDEST", "DROPPED", "FAILING", "CLOCK", "WAKES", "RSS", "CPU", "TOLD")
    spare = ("OLDEST", "DROPPED", "FAILING", "CLOCK", "SPOOL", "TOLD", "RSS", "CPU", "WAKES")
    print_table(headings, [_agent_row(view, now) for view in views], right=frozenset(headings[2:]), spare=spare)
    silent = sum(view.health is None for view in views)
    older = f", {silent} of a version that does not tell how it is" if silent else ""
    print(f"\n{count_of(len(views), 'agent')}{older}")


def _agent_row(view: AgentView, now: float) -> list[Cell]:
    told, state = view.metrics, state_text(view.state)
    if view.state != "online" and view.since:
        state = state._replace(text=f"{state.text} {format_age(now - view.since / 1000)}")
    if view.health is None:
        return [str(view.key), state, *("-" for _ in range(9))]
    offset = view.clock_offset or 0.0
    clock = f"{offset:+.1f} s" if abs(offset) < 60 else ("+" if offset > 0 else "-") + format_age(abs(offset))
    oldest, late = told.get("spoolOldestSeconds", 0.0), told.get("wakeLateSeconds", 0.0)
    return [
        str(view.key),
        state,
        f"{told.get('spoolMessages', 0):,}",
        Styled(_duration(oldest), _POOR if oldest > _LONGEST_UNACKNOWLEDGED else ""),
        Styled(f"{told.get('dropped', 0):,}", _BAD if told.get("dropped") else ""),
        Styled(str(told.get("sourcesFailing", 0)), _POOR if told.get("sourcesFailing") else ""),
        Styled(clock, _BAD if view.has_wrong_clock else ""),
        Styled(_duration(late), _POOR if late > _LONGEST_WAKE else ""),
        format_number(told["rssBytes"], Unit.BYTES) if "rssBytes" in told else "-",
        _cpu(told) or "-",
        format_age(now - view.health.received / 1000),
    ]


def _print_violations(violations: list[Violations], now: float) -> None:
    if not violations:
        return
    print("\nstated by who has no say in it:\n")
    rows = [
        (one.topic, one.agent, f"{one.number:,}", format_age(now - one.time / 1000))
        for one in violations[:_MOST_VIOLATIONS]
    ]
    print_table(("TOPIC", "AGENT", "TIMES", "LAST"), rows, right=frozenset({"TIMES", "LAST"}), folds="TOPIC")
    if len(violations) > _MOST_VIOLATIONS:
        print(f"\nand {count_of(len(violations) - _MOST_VIOLATIONS, 'topic')} more, in the table violations")
