"""Alerting rules for Prometheus: one for each threshold of the declaration, and those that say more than one number.

What is written is YAML, for which JSON's strings and Prometheus' durations are enough.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from telemetry.fields import Field, Record
from telemetry.health import AGENT_HEALTH, AGGREGATOR_HEALTH, BROKER_HEALTH, Health
from telemetry.records import MINER_INFO, RECORDS, WORKER_INFO
from telemetry.render.prometheus import age_name, by_path, divisor_of, health_age_name, health_name
from telemetry.units import Unit

_EPOCHS_TO_PROVE = 20
"""Epochs of 30 s: what is not proven so shortly before its deadline closes is in danger."""

_HUMANIZED = {Unit.PERCENT: " | humanizePercentage", Unit.SECONDS: " | humanizeDuration"}
"""How a value is written for people."""

_LAG_SECONDS = 30
_CLOCK_SECONDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A rule: `expr` has to hold for `lasting` before anyone is told."""

    name: str
    expr: str
    lasting: str
    severity: str
    summary: str


def alerts_file() -> str:
    """The file of rules."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Written by `make generate`; do not edit. Thresholds stand in telemetry/records.py."
    yield "groups:"
    yield "  - name: telemetry"
    yield "    rules:"
    for alert in alerts():
        yield f"      - alert: {alert.name}"
        yield f"        expr: {_quoted(alert.expr)}"
        yield f"        for: {alert.lasting}"
        yield "        labels:"
        yield f"          severity: {alert.severity}"
        yield "        annotations:"
        yield f"          summary: {_quoted(alert.summary)}"


def _quoted(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def alerts() -> Iterator[Alert]:
    """All rules."""
    yield from _of_presence()
    yield from _of_mining()
    for record in RECORDS:
        for field in record.fields:
            yield from _of_thresholds(record, field)
    yield from _of_telemetry()


def _of_presence() -> Iterator[Alert]:
    yield Alert(
        name="TelemetryDown", expr='up{job="telemetry"} == 0', lasting="2m", severity="critical",
        summary="telemetry web cannot be scraped.",
    )  # fmt: skip
    for record, who, severity in ((MINER_INFO, "Miner", "critical"), (WORKER_INFO, "Host", "warning")):
        state = _metric(record, "netState")
        for name, lasting, what in (("lost", "2m", "died"), ("stale", "5m", "is silent")):
            yield Alert(
                name=f"{who}{name.capitalize()}", expr=f'{state}{{state="{name}"}} == 1', lasting=lasting,
                severity=severity, summary=f"{_whose(record)}: the agent {what}.",
            )  # fmt: skip
    online = f'{_metric(WORKER_INFO, "netState")}{{state="online"}}'
    yield Alert(
        name="HostClockWrong",
        expr=f"abs({age_name(WORKER_INFO)}) > {_CLOCK_SECONDS} and on (miner, host) {online}",
        lasting="10m", severity="warning",
        summary=f"{_whose(WORKER_INFO)}: its clock differs by {{{{ $value | humanizeDuration }}}}.",
    )  # fmt: skip


def _of_mining() -> Iterator[Alert]:
    lotus, wins, power = (_metric(MINER_INFO, name) for name in ("lotusState", "expectBlock", "effectivePower"))
    close, height, partitions, proven = (
        _metric(MINER_INFO, name) for name in ("deadlineClose", "chainHeight", "deadlinePartitions", "deadlineProven")
    )
    whose = _whose(MINER_INFO)
    yield Alert(
        name="LotusUnusable", expr=f'{lotus}{{state!="ok"}} == 1', lasting="5m", severity="critical",
        summary=f"{whose}: Lotus cannot be used: {{{{ $labels.state }}}}.",
    )  # fmt: skip
    yield Alert(
        name="DeadlineAtRisk", expr=f"{partitions} - {proven} > 0 and {close} - {height} < {_EPOCHS_TO_PROVE}",
        lasting="1m", severity="critical",
        summary=f"{whose}: {{{{ $value }}}} partitions are not proven, and the deadline closes within 10 minutes.",
    )  # fmt: skip
    yield Alert(
        name="NotEligible", expr=f"{wins} == 0 and {power} > 0", lasting="30m", severity="critical",
        summary=f"{whose}: has power and cannot win blocks.",
    )  # fmt: skip
    yield Alert(
        name="TasksOverdue",
        expr=f"sum by (miner, host, task) ({_metric(WORKER_INFO, 'currentQueue.overdue')}) > 0",
        lasting="10m", severity="warning",
        summary=f"{_whose(WORKER_INFO)}: {{{{ $value }}}} tasks {{{{ $labels.task }}}} take longer than usual.",
    )  # fmt: skip


def _of_thresholds(record: Record, field: Field) -> Iterator[Alert]:
    if field.thresholds is None:
        return
    name, metric = field.name[:1].upper() + field.name[1:], _metric(record, field.name)
    divisor, shown = divisor_of(field.unit), _HUMANIZED.get(field.unit, "")
    for severity, bound in (("warning", field.thresholds.warning), ("critical", field.thresholds.critical)):
        if bound is not None:
            yield Alert(
                name=f"{name}{severity.capitalize()}", expr=f"{metric} >= {bound / divisor:g}", lasting="5m",
                severity=severity, summary=f"{_whose(record)}: {{{{ $value{shown} }}}}. {field.english}",
            )  # fmt: skip


def _of_telemetry() -> Iterator[Alert]:
    yield Alert(
        name="AggregatorSilent", expr=f"{health_age_name(AGGREGATOR_HEALTH)} > 300", lasting="1m", severity="critical",
        summary="The aggregator {{ $labels.aggregator }} does not tell how it is.",
    )  # fmt: skip
    yield Alert(
        name="AggregatorLag", expr=f"{_told(AGGREGATOR_HEALTH, 'lagP99Seconds')} > {_LAG_SECONDS}", lasting="10m",
        severity="warning", summary="From sample to commit it takes {{ $value | humanizeDuration }}.",
    )  # fmt: skip
    for name, health, metric, severity, what in (
        ("MessagesLost", AGGREGATOR_HEALTH, "lost", "warning", "messages of agents are lost"),
        ("MessagesRejected", AGGREGATOR_HEALTH, "rejected", "warning", "messages, or values in them, are rejected"),
        ("MirrorDefect", AGGREGATOR_HEALTH, "defects", "warning", "full reports differed from the mirror"),
        ("BrokerDrops", BROKER_HEALTH, "messagesDropped", "critical", "messages were dropped by the broker"),
        ("SpoolDrops", AGENT_HEALTH, "dropped", "critical", "messages were dropped from a full spool"),
    ):  # fmt: skip
        yield Alert(
            name=name, expr=f"increase({_told(health, metric)}[15m]) > 0", lasting="0m", severity=severity,
            summary=f"{{{{ $value }}}} {what}.",
        )  # fmt: skip


def _metric(record: Record, path: str) -> str:
    return by_path(record)[path].name


def _told(health: Health, name: str) -> str:
    return health_name(health, health.by_name[name])


def _whose(record: Record) -> str:
    return "{{ $labels.miner }}/{{ $labels.host }}" if record is WORKER_INFO else "{{ $labels.miner }}"
