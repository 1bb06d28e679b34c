"""What each dashboard of Grafana shows.

The live ones read snapshots by MQTT, and have no automatic refresh: after one Grafana shows nothing until the next
message comes. The others read Prometheus; the one of jobs and events reads the database.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from telemetry.fields import Record
from telemetry.health import AGENT_HEALTH, AGGREGATOR_HEALTH, BROKER_HEALTH, Health, Kind
from telemetry.records import MINER_INFO, RECORDS, WORKER_INFO
from telemetry.render.grafana import (
    ELIGIBILITY,
    Dashboard,
    Json,
    Panel,
    Query,
    Row,
    database_variable,
    found,
    history,
    label_variable,
    live,
    present,
    selector,
    series,
    table,
    unit_in_prometheus,
)
from telemetry.render.prometheus import AGE_HELP, age_name, by_path, health_name
from telemetry.topics import RecordKey, Topics

_MINER_TOPIC = Topics().snapshot(RecordKey("$miner"))
_HOST_TOPIC = _MINER_TOPIC.replace("/snapshot", "/workers/$host/snapshot")

_AGES = f'{{__name__=~"{"|".join(age_name(record) for record in RECORDS)}"}}'
_OF_ALL = {"miner": "~$miner"}
_OF_MINER = {"miner": "$miner"}
_OF_HOST = {"miner": "$miner", "host": "$host"}

_NET_STATE = WORKER_INFO.by_name["netState"]

_REFRESH = "30s"

_LIVE_SINCE = "now-5m"
"""What a plot of messages shows at most: only what comes while it is looked at."""

_BALANCES = ("minerBalance", "minerAvailable", "pledgeBalance", "lockedFunds", "preCommitDeposits", "workerBalance",
             "postBalance", "feeDebt")  # fmt: skip
_SECTORS = ("totalSectors", "liveSectors", "effectiveSectors", "unprovenSectors", "errorSectors", "recoverySectors",
            "failSectors", "deletedSectors")  # fmt: skip
_PIPELINE = ("preCommit1", "preCommit2", "preCommitWait", "waitSeed", "committing", "commitWait", "finalizeSector")
_DEADLINE = ("deadlineIndex", "deadlineOpen", "deadlineClose", "deadlinePartitions", "deadlineProven", "deadlineFaults")
_CHAIN = ("lotusState", "chainHeight", "chainLag", "chainBehind")


def dashboards() -> tuple[Dashboard, ...]:
    """All dashboards."""
    return (
        _live_fleet(), _live_miner(), _live_host(), _fleet(), _miner(), _host(), _health(), _jobs(),
    )  # fmt: skip


# --- live ---


def _live_fleet() -> Dashboard:
    of_miner = partial(_live_panel, MINER_INFO)
    panels = (
        of_miner("stat", "Power and wins", ("effectivePower", "rawPower", "expectBlock"), width=10),
        of_miner("stat", "Faults and recoveries", ("errorSectors", "recoverySectors", "failSectors"), width=8),
        of_miner("stat", "State", ("netState", "lotusState"), width=6),
        of_miner("stat", "Balances", ("minerBalance", "minerAvailable", "workerBalance", "postBalance"), width=10),
        of_miner("stat", "Sealing", ("preCommit1", "preCommit2", "committing", "unassignedTasks"), width=8),
        of_miner("stat", "Chain", ("chainLag", "chainBehind"), width=6),
    )
    return Dashboard(
        uid="telemetry-live-fleet", title="Fleet, live", sources=("mqtt", "prometheus"), since=_LIVE_SINCE,
        description="Each miner as its snapshots tell, from the moment at which this is opened.",
        variables=(label_variable("miner", "Miner", f"label_values({_AGES}, miner)", multi=True),),
        rows=(Row(title="$miner", panels=panels, repeat="miner"),),
    )  # fmt: skip


def _live_miner() -> Dashboard:
    of_miner = partial(_live_panel, MINER_INFO)
    of_host = partial(_live_panel, WORKER_INFO)
    hosts = of_host("stat", "$host", ("netState", "cpuLoad", "cpuTemper", "gpuLoad", "gpuTemper", "runningTasks"),
                    width=6, height=6, repeat="host", repeatDirection="h", maxPerRow=4)  # fmt: skip
    panels = (
        of_miner("stat", "Power", ("effectivePower", "rawPower"), width=6),
        of_miner("stat", "Eligibility", ("expectBlock",), width=4, mappings={"expectBlock": ELIGIBILITY}),
        of_miner("stat", "Expected wins", ("expectBlock",), width=4),
        of_miner("stat", "Chain", _CHAIN, width=10),
        of_miner("stat", "Balances", _BALANCES, width=24),
        of_miner("stat", "Sectors", _SECTORS, width=24),
        of_miner("bargauge", "Sealing pipeline", _PIPELINE, width=10, height=8),
        of_miner("stat", "Proving deadline", _DEADLINE, width=14),
        of_miner("stat", "Queue", ("unassignedTasks", "returnedTasks"), width=6),
        of_miner("stat", "Agent and versions", ("netState", "minerVersion", "nodeVersion"), width=8),
    )
    return Dashboard(
        uid="telemetry-live-miner", title="Miner, live", sources=("mqtt", "prometheus"), since=_LIVE_SINCE,
        description="A miner as its snapshots tell, and its hosts, from the moment at which this is opened.",
        variables=(_miner_variable(), _host_variable(multi=True)),
        rows=(
            Row(title="Miner", panels=panels),
            Row(title="Hosts", panels=(hosts,), collapsed=True),
        ),
    )  # fmt: skip


def _live_host() -> Dashboard:
    of_host = partial(_live_panel, WORKER_INFO)
    panels = (
        of_host("stat", "State", ("netState", "taskState"), width=8),
        of_host("stat", "Tasks", ("runningTasks", "pendingTasks"), width=6),
        of_host("stat", "CPU", ("cpuLoad", "cpuTemper"), width=5),
        of_host("stat", "GPU", ("gpuLoad", "gpuTemper"), width=5),
        of_host("stat", "Memory", ("useMemory", "totalMemory", "gpuMemory"), width=8),
        of_host("stat", "Fullest disk", ("diskUsedPercent",), width=4),
        of_host("stat", "Disks and network", ("diskR", "diskW", "netRx", "netTx"), width=12),
        of_host("timeseries", "Load", ("cpuLoad", "gpuLoad"), width=12, height=8),
        of_host("timeseries", "Temperature", ("cpuTemper", "gpuTemper"), width=12, height=8),
        of_host("timeseries", "Disks", ("diskR", "diskW"), width=12, height=8),
        of_host("timeseries", "Network", ("netRx", "netTx"), width=12, height=8),
    )
    return Dashboard(
        uid="telemetry-live-host", title="Host, live", sources=("mqtt", "prometheus"), since=_LIVE_SINCE,
        description="A host as its snapshots tell, from the moment at which this is opened.",
        variables=(_miner_variable(), _host_variable()),
        rows=(Row(title="$host", panels=panels),),
    )  # fmt: skip


def _live_panel(
    record: Record,
    kind: str,
    title: str,
    names: Sequence[str],
    *,
    width: int,
    height: int = 4,
    mappings: Mapping[str, Sequence[Json]] | None = None,
    **more: str | int,
) -> Panel:
    topic = _HOST_TOPIC if record is WORKER_INFO else _MINER_TOPIC
    return live(kind, title, topic, record, names, width=width, height=height, mappings=mappings, more=more)


# --- what was, from Prometheus ---


def _fleet() -> Dashboard:
    states = Query(f"sum by (state) ({series(WORKER_INFO, 'netState', **_OF_ALL)})", "{{state}}", _NET_STATE)
    miners = table(
        "Miners", {"miner": "telemetry-miner"},
        (
            _column(MINER_INFO, "effectivePower", _OF_ALL), _column(MINER_INFO, "rawPower", _OF_ALL),
            _column(MINER_INFO, "expectBlock", _OF_ALL), _column(MINER_INFO, "minerAvailable", _OF_ALL),
            _column(MINER_INFO, "errorSectors", _OF_ALL), _column(MINER_INFO, "recoverySectors", _OF_ALL),
            _column(MINER_INFO, "failSectors", _OF_ALL), _column(MINER_INFO, "chainLag", _OF_ALL),
        ),
        width=24, height=7,
    )  # fmt: skip
    now = (
        present("stat", "Hosts by state", (states,), width=8),
        _total("Quality-adjusted power", "effectivePower", width=4),
        _total("Raw power", "rawPower", width=4),
        _total("Expected wins", "expectBlock", width=4),
        _total("Faulty sectors", "errorSectors", width=4),
        miners,
        _workers(_OF_ALL),
    )
    was = (
        history("Hosts by state", (states,), width=12, stacked=True),
        history("Quality-adjusted power", (_of_each(MINER_INFO, "effectivePower", _OF_ALL, "{{miner}}"),), width=12),
        history("Expected wins", (_of_each(MINER_INFO, "expectBlock", _OF_ALL, "{{miner}}"),), width=12),
        history("Faulty sectors", (_of_each(MINER_INFO, "errorSectors", _OF_ALL, "{{miner}}"),), width=12),
        history("Running tasks by type", (_running(_OF_ALL),), width=12, stacked=True),
        history("CPU and GPU load, mean", (_mean("cpuLoad"), _mean("gpuLoad")), width=12),
        history("Hottest GPUs", (_top("gpuTemper", _OF_ALL),), width=12),
        history("Fullest disks", (_top("diskUsedPercent", _OF_ALL),), width=12),
    )
    return Dashboard(
        uid="telemetry-fleet", title="Fleet", sources=("prometheus",), refresh=_REFRESH,
        description="All miners and hosts, now and as they were.",
        variables=(label_variable("miner", "Miner", f"label_values({_AGES}, miner)", multi=True),),
        rows=(Row(title="Now", panels=now), Row(title="History", panels=was)),
    )  # fmt: skip


def _miner() -> Dashboard:
    of_miner = partial(_several, MINER_INFO, _OF_MINER)
    states = _of_each(MINER_INFO, "sectorStates", _OF_MINER, "{{state}}")
    eligible = Query(
        f"{series(MINER_INFO, 'expectBlock', **_OF_MINER)} > bool 0",
        "eligible",
        MINER_INFO.by_name["expectBlock"],
        "short",
    )
    overdue = Query(
        f"sum by (task) ({series(WORKER_INFO, 'currentQueue.overdue', **_OF_MINER)})", "{{task}}",
        WORKER_INFO.by_name["currentQueue"],
    )  # fmt: skip
    waiting = (_waiting("pendingQueue", "on a host"), _waiting("unassignedQueue", "unassigned"))
    chain = (
        history("Power", of_miner("effectivePower", "rawPower"), width=12),
        history("Expected wins", of_miner("expectBlock"), width=6),
        history("Eligibility", (eligible,), width=6, description="1 while the miner can win blocks."),
        history("Balances", of_miner(*_BALANCES), width=12),
        history("Sectors", of_miner("liveSectors", "effectiveSectors", "unprovenSectors"), width=12),
        history("Faults and recoveries", of_miner("errorSectors", "recoverySectors", "failSectors"), width=12),
        history("Chain", of_miner("chainLag"), width=6),
        history("Epochs behind", of_miner("chainBehind"), width=6),
        history("Proving deadline", of_miner("deadlinePartitions", "deadlineProven", "deadlineFaults"), width=12),
    )  # fmt: skip
    jobs = (
        present("bargauge", "Sectors by state", (states,), width=8, height=16),
        history("Sectors by state", (states,), width=16, stacked=True),
        history("Running tasks by type", (_running(_OF_MINER),), width=8, stacked=True),
        history("Idle hosts by task type", (_idle(),), width=8,
                description="Hosts that take a type and run none of it."),
        history("Longest running task by type", (_longest("currentQueue", state="running"),), width=8),
        history("Longest waiting task by type", (_longest("pendingQueue"),), width=8),
        history("Waiting tasks by type", waiting, width=8, stacked=True),
        history("Overdue tasks by type", (overdue,), width=8,
                description="Tasks that run longer than their kind usually takes."),
        history("Results not taken", of_miner("returnedTasks"), width=8),
    )  # fmt: skip
    hosts = (
        _workers(_OF_MINER),
        history("CPU load, highest hosts", (_top("cpuLoad", _OF_MINER),), width=12),
        history("GPU load, highest hosts", (_top("gpuLoad", _OF_MINER),), width=12),
        history("Memory in use, highest hosts", (_top("useMemory", _OF_MINER),), width=12),
        history("Fullest disk, highest hosts", (_top("diskUsedPercent", _OF_MINER),), width=12),
    )
    return Dashboard(
        uid="telemetry-miner", title="Miner", sources=("prometheus",), refresh=_REFRESH,
        description="A miner's power, money, sectors, sealing and hosts, now and as they were.",
        variables=(_miner_variable(),),
        rows=(
            Row(title="On chain", panels=chain),
            Row(title="Sealing", panels=jobs),
            Row(title="Hosts", panels=hosts),
        ),
    )  # fmt: skip


def _host() -> Dashboard:
    of_host = partial(_several, WORKER_INFO, _OF_HOST)
    each = partial(_of_each, WORKER_INFO)
    tasks = (
        history("Running tasks by type", (_running(_OF_HOST),), width=8, stacked=True),
        history("Longest running task by type", (_longest("currentQueue", state="running", host="$host"),), width=8),
        history("Tasks", of_host("runningTasks", "pendingTasks"), width=8),
    )  # fmt: skip
    hardware = (
        history("Load", of_host("cpuLoad", "gpuLoad"), width=12),
        history("Temperature", of_host("cpuTemper", "gpuTemper"), width=12),
        history("Memory", of_host("useMemory", "totalMemory"), width=12),
        history("Fullest disk", of_host("diskUsedPercent"), width=12),
        history("Disks", of_host("diskR", "diskW"), width=12),
        history("Network", of_host("netRx", "netTx"), width=12),
        history("GPU load", (each("gpuInfo.load", _OF_HOST, "GPU {{gpu}}"),), width=8),
        history("GPU temperature", (each("gpuInfo.temper", _OF_HOST, "GPU {{gpu}}"),), width=8),
        history("GPU power", (each("gpuInfo.power", _OF_HOST, "GPU {{gpu}}"),), width=8),
        history("GPU memory", (each("gpuInfo.useMemory", _OF_HOST, "GPU {{gpu}}"),), width=8),
        history("Storage used", (_storage(),), width=8),
        history("Network by interface", (each("netIO.rx", _OF_HOST, "{{interface}} received"),
                                         each("netIO.tx", _OF_HOST, "{{interface}} sent")), width=8),
    )  # fmt: skip
    age = Query(selector(age_name(WORKER_INFO), **_OF_HOST), "age", unit="s")
    agent = (
        present("stat", "State", (_of_each(WORKER_INFO, "netState", _OF_HOST, "{{state}}"),), width=6, is_info=True),
        present("stat", "Age of the record", (age,), width=6, description=AGE_HELP),
    )  # fmt: skip
    return Dashboard(
        uid="telemetry-host", title="Host", sources=("prometheus",), refresh=_REFRESH,
        description="A host's tasks and hardware, now and as they were.",
        variables=(_miner_variable(), _host_variable()),
        rows=(
            Row(title="Agent", panels=agent),
            Row(title="Tasks", panels=tasks),
            Row(title="Hardware", panels=hardware),
        ),
    )  # fmt: skip


def _health() -> Dashboard:
    data = (
        _told("Agents by state", AGGREGATOR_HEALTH, ("agentsOnline", "agentsStale", "agentsStopped", "agentsLost")),
        _told("Messages", AGGREGATOR_HEALTH, ("messages", "changes", "late", "duplicates")),
        _told("What went wrong", AGGREGATOR_HEALTH, ("lost", "rejected", "violations", "defects")),
        _told("Agents with something missing", AGGREGATOR_HEALTH, ("agentsUnmended",)),
        _told("From sample to commit", AGGREGATOR_HEALTH, ("lagP50Seconds", "lagP99Seconds", "lagMaxSeconds")),
        _told("Commits", AGGREGATOR_HEALTH, ("commitP50Seconds", "commitP99Seconds", "commitMaxSeconds")),
        _told("Not committed yet", AGGREGATOR_HEALTH, ("queueMessages", "queueMaxMessages")),
        _told("Database", AGGREGATOR_HEALTH, ("databaseBytes",)),
        _told("Aggregator's processor", AGGREGATOR_HEALTH, ("cpuSeconds",)),
        _told("Aggregator's memory", AGGREGATOR_HEALTH, ("rssBytes",)),
    )
    broker = (
        _told("Clients", BROKER_HEALTH, ("clientsConnected", "clientsDisconnected")),
        _told("Messages", BROKER_HEALTH, ("messagesReceived", "messagesSent", "messagesDropped")),
        _told("Bytes", BROKER_HEALTH, ("bytesReceived", "bytesSent")),
        _told("Retained and queued", BROKER_HEALTH, ("retainedMessages", "queueMessages")),
        _told("Broker's processor", BROKER_HEALTH, ("cpuSeconds",)),
        _told("Broker's memory", BROKER_HEALTH, ("rssBytes",)),
    )
    agents = (
        _worst("Not acknowledged", "spoolMessages"),
        _worst("Oldest not acknowledged", "spoolOldestSeconds"),
        _worst("Dropped", "dropped"),
        _worst("Sources that fail", "sourcesFailing"),
        _worst("Processor", "cpuSeconds"),
        _worst("Memory", "rssBytes"),
    )
    return Dashboard(
        uid="telemetry-health", title="Telemetry itself", sources=("prometheus",), refresh=_REFRESH,
        description="Whether what is shown can be trusted: aggregator, broker and agents.",
        rows=(
            Row(title="Aggregator", panels=data),
            Row(title="Broker", panels=broker),
            Row(title="Agents, the ten worst", panels=agents),
        ),
    )  # fmt: skip


def _total(title: str, name: str, *, width: int) -> Panel:
    declared = MINER_INFO.by_name[name]
    return present("stat", title, (Query(f"sum({series(MINER_INFO, name, **_OF_ALL)})", name, declared),), width=width)


def _workers(matchers: Mapping[str, str]) -> Panel:
    memory = f"{series(WORKER_INFO, 'useMemory', **matchers)} / {series(WORKER_INFO, 'totalMemory', **matchers)}"
    age = selector(age_name(WORKER_INFO), **matchers)
    names = ("cpuLoad", "cpuTemper", "gpuLoad", "gpuTemper", "diskUsedPercent", "runningTasks", "pendingTasks")
    return table(
        "Hosts", {"miner": "telemetry-miner", "host": "telemetry-host", "state": ""},
        (
            Query(f"max by (miner, host, state) ({series(WORKER_INFO, 'netState', **matchers)})", ""),
            *(_column(WORKER_INFO, name, matchers) for name in names),
            Query(f"max by (miner, host) ({memory})", "memory", unit="percentunit"),
            Query(f"max by (miner, host) ({age})", "age", unit="s"),
        ),
        width=24, height=12,
    )  # fmt: skip


def _column(record: Record, name: str, matchers: Mapping[str, str]) -> Query:
    labels = "miner, host" if record is WORKER_INFO else "miner"
    return Query(f"max by ({labels}) ({series(record, name, **matchers)})", name, record.by_name[name])


def _several(record: Record, matchers: Mapping[str, str], *names: str) -> tuple[Query, ...]:
    return tuple(Query(series(record, name, **matchers), name, record.by_name[name]) for name in names)


def _of_each(record: Record, path: str, matchers: Mapping[str, str], legend: str) -> Query:
    family = by_path(record)[path]
    # Of a list the unit is that of the member.
    unit = "" if path == family.field.name else unit_in_prometheus(family.unit)
    return Query(series(record, path, **matchers), legend, family.field, unit)


def _mean(name: str) -> Query:
    return Query(f"avg({series(WORKER_INFO, name, **_OF_ALL)})", name, WORKER_INFO.by_name[name])


def _top(name: str, matchers: Mapping[str, str]) -> Query:
    return Query(f"topk(10, {series(WORKER_INFO, name, **matchers)})", "{{miner}}/{{host}}", WORKER_INFO.by_name[name])


def _running(matchers: Mapping[str, str]) -> Query:
    expr = f"sum by (task) ({series(WORKER_INFO, 'currentQueue', **matchers, state='running')})"
    return Query(expr, "{{task}}", WORKER_INFO.by_name["currentQueue"])


def _idle() -> Query:
    running = series(WORKER_INFO, "currentQueue", **_OF_MINER, state="running")
    takes = series(WORKER_INFO, "taskType", **_OF_MINER)
    return Query(
        f"count by (task) ({takes} unless on (miner, host, task) {running} > 0)",
        "{{task}}",
        WORKER_INFO.by_name["taskType"],
    )


def _waiting(name: str, where: str) -> Query:
    record = MINER_INFO if name in MINER_INFO.by_name else WORKER_INFO
    return Query(f"sum by (task) ({series(record, name, **_OF_MINER)})", f"{{{{task}}}} {where}", record.by_name[name])


def _longest(name: str, **matchers: str) -> Query:
    begun = series(WORKER_INFO, f"{name}.start", **_OF_MINER, **matchers)
    return Query(f"max by (task) (time() - {begun})", "{{task}}", WORKER_INFO.by_name[name], "s")


def _storage() -> Query:
    used, total = (series(WORKER_INFO, f"useDisk.{name}", **_OF_HOST) for name in ("used", "total"))
    return Query(f"{used} / {total}", "{{mount}}", WORKER_INFO.by_name["useDisk"], "percentunit")


def _told(title: str, health: Health, names: Sequence[str]) -> Panel:
    """What a part tells of itself; of what it counts, how much a second."""
    return history(title, tuple(_of_health(health, name) for name in names), width=8)


def _of_health(health: Health, name: str) -> Query:
    metric = health.by_name[name]
    told = health_name(health, metric)
    return Query(f"rate({told}[$__rate_interval])" if metric.kind is Kind.COUNTER else told, name, metric)


def _worst(title: str, name: str) -> Panel:
    query = _of_health(AGENT_HEALTH, name)
    return history(title, (Query(f"topk(10, {query.expr})", "{{miner}}/{{agent}}", query.about),), width=8)


# --- what is no number, from the database ---


def _jobs() -> Dashboard:
    miner = "minerId = ${miner:sqlstring}"
    running = (
        f"SELECT hostName, {_member('taskShort')} AS task, {_member('sector')} AS sector, {_member('state')} AS state,"
        f" {_member('start')} / 1000 AS start, {_member('overdue')} AS overdue"
        f" FROM workerInfo, json_each(currentQueue) AS job WHERE {miner} ORDER BY start"
    )
    waiting = (
        f"SELECT hostName, {_member('taskShort')} AS task, {_member('sector')} AS sector"
        f" FROM workerInfo, json_each(pendingQueue) AS job WHERE {miner}"
        f" UNION ALL SELECT '(unassigned)', {_member('taskShort')}, {_member('sector')}"
        f" FROM minerInfo, json_each(unassignedQueue) AS job WHERE {miner}"
    )
    events = (
        f"SELECT time / 1000 AS time, agent, event, detail FROM events"
        f" WHERE {miner} AND time >= $__from AND time < $__to ORDER BY id DESC LIMIT 1000"
    )
    agents = (
        f"SELECT agent, state, since / 1000 AS since, heard / 1000 AS heard, lost, late, version"
        f" FROM agents JOIN positions USING (id) WHERE {miner} ORDER BY agent"
    )
    rejected = (
        "SELECT time / 1000 AS time, topic, reason FROM rejected"
        " WHERE time >= $__from AND time < $__to ORDER BY id DESC LIMIT 1000"
    )
    miners = "SELECT minerId FROM minerInfo UNION SELECT minerId FROM workerInfo ORDER BY minerId"
    tables = (
        found("Running tasks", running, width=12, height=12, times=("start",),
              description="What each host runs, the oldest first."),
        found("Waiting tasks", waiting, width=12, height=12,
              description="What waits on a host, and what no host has yet."),
        found("Events", events, width=12, height=10, times=("time",),
              description="Which agent went away, came back, or missed something."),
        found("Agents", agents, width=12, height=10, times=("since", "heard"),
              description="Each agent's state, what of it was lost, and what came late."),
        found("Rejected", rejected, width=24, height=8, times=("time",),
              description="Messages, or values of them, that could not be used."),
    )  # fmt: skip
    return Dashboard(
        uid="telemetry-jobs", title="Jobs and events", sources=("sqlite",), refresh=_REFRESH,
        description="Each task with its sector, and what happened, from the database.",
        variables=(database_variable("miner", "Miner", miners),),
        rows=(Row(title="$miner", panels=tables),),
    )  # fmt: skip


def _member(name: str) -> str:
    return f"json_extract(job.value, '$.{name}')"


# --- variables ---


def _miner_variable() -> Json:
    return label_variable("miner", "Miner", f"label_values({_AGES}, miner)")


def _host_variable(*, multi: bool = False) -> Json:
    ages = selector(age_name(WORKER_INFO), miner="$miner")
    return label_variable("host", "Host", f"label_values({ages}, host)", multi=multi)
