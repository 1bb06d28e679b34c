"""What agents, aggregators and brokers tell of themselves: one declaration, from which all that knows a metric is made.

A metric is a number. Base units travel, and stand in the name where there is one. A counter grows from the start of
its process, unless it says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from telemetry.fields import Scalar
from telemetry.units import Unit


class Kind(Enum):
    """Whether a metric only grows, or says how something is now."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number: `name` is its name on the wire and everywhere."""

    name: str
    kind: Kind
    english: str
    chinese: str
    unit: Unit = Unit.COUNT
    type: Scalar = Scalar.INTEGER


@dataclass(frozen=True, kw_only=True, eq=False)
class Health:
    """What one kind of part tells of itself: its name (`an`: with its article), and its metrics as they are shown.

    `told`: where and when, for a person.
    """

    name: str
    an: str
    told: str
    metrics: tuple[Metric, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Metric]:
        """The metrics by name."""
        return {metric.name: metric for metric in self.metrics}


def _counted(name: str, english: str, chinese: str, unit: Unit = Unit.COUNT) -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, english=english, chinese=chinese, unit=unit)


def _gauge(name: str, english: str, chinese: str, unit: Unit = Unit.COUNT) -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, english=english, chinese=chinese, unit=unit)


def _seconds(name: str, english: str, chinese: str, kind: Kind = Kind.GAUGE) -> Metric:
    return Metric(name=name, kind=kind, english=english, chinese=chinese, unit=Unit.SECONDS, type=Scalar.NUMBER)


_PROCESS = (
    _seconds("uptimeSeconds", "Since the process began.", "进程已运行的时间"),
    _seconds("cpuSeconds", "CPU time of the process, of all its threads.", "进程所有线程消耗的 CPU 时间", Kind.COUNTER),
    _gauge("rssBytes", "Memory of the process that is in RAM.", "进程占用的物理内存", Unit.BYTES),
)

AGENT_HEALTH = Health(
    name="agent",
    an="an agent",
    told="Published on `telemetry/agents/<minerId>/<agent>/health`, not retained, when it connects and then every "
    "`intervals.health`. It is no part of the agent's log; the aggregator keeps the last one.",
    metrics=(
        *_PROCESS,
        _counted("samples", "Samples of sources.", "数据源采样次数"),
        _counted("deadlinesMissed", "Samples that took longer than they may.", "超时的采样次数"),
        _gauge("sourcesFailing", "Sources of which some field cannot be read.", "有字段无法读取的数据源数"),
        _seconds("wakeLateSeconds", "The latest it woke for what was due, since it last told.",
                 "上次上报以来的最大唤醒延迟"),
        _counted("messages", "Messages that its log has gained.", "日志新增的消息数"),
        _counted("resent", "Messages sent again, or late, in a backlog.", "在积压批次中重发或迟发的消息数"),
        _gauge("spoolMessages", "Messages that an aggregator has not acknowledged.", "尚未被聚合器确认的消息数"),
        _gauge("spoolBytes", "Size of the spool.", "缓冲占用的字节数", Unit.BYTES),
        _seconds("spoolOldestSeconds", "Age of the oldest of them.", "最旧的未确认消息的时长"),
        _counted("dropped", "Messages that had to go unacknowledged, since the spool began.",
                 "缓冲建立以来未确认即丢弃的消息数"),
        _counted("connections", "Connections made to the broker.", "与代理建立的连接次数"),
    ),
)  # fmt: skip

AGGREGATOR_HEALTH = Health(
    name="aggregator",
    an="an aggregator",
    told="Retained on `telemetry/aggregators/<name>/health`, every `intervals.refresh`.",
    metrics=(
        *_PROCESS,
        _counted("connections", "Connections made to the broker.", "与代理建立的连接次数"),
        _counted("messages", "Messages that came in.", "收到的消息数"),
        _counted("committed", "Those of them that are in the database.", "内容已提交到数据库的消息数"),
        _counted("changes", "Changes that entered the history.", "写入历史的变更数"),
        _counted("late", "Messages that came late, in a backlog.", "在积压批次中迟到的消息数"),
        _counted("duplicates", "Messages that were known already.", "重复的消息数"),
        _counted("lost", "Messages that will never come.", "确认丢失的消息数"),
        _counted("rejected", "Messages, or values of them, that could not be used.", "无法使用而被拒绝的消息或值"),
        _counted("violations", "Statements that are another's to make.", "越权陈述的次数"),
        _counted("limited", "Messages left for later, because their agent states too much.",
                 "因代理程序发送过多而推迟处理的消息数"),
        _counted("requests", "Requests sent to agents for what is missing.", "向代理程序请求缺失数据的次数"),
        _counted("defects", "Full reports that differ from the mirror.", "与镜像不一致的完整报告数"),
        _counted("snapshots", "Snapshots published.", "已发布的快照数"),
        _counted("commits", "Transactions committed.", "已提交的事务数"),
        _seconds("commitP50Seconds", "Time of a commit, the median since it last told.",
                 "上次上报以来提交耗时的中位数"),
        _seconds("commitP99Seconds", "The same, of which 99 in 100 took less.",
                 "上次上报以来提交耗时的第 99 百分位"),
        _seconds("commitMaxSeconds", "The same, the longest.", "上次上报以来最长的提交耗时"),
        _seconds("lagP50Seconds", "From sample to commit, of one message a batch: the median since it last told.",
                 "从采样到提交的延迟（每批一条）的中位数"),
        _seconds("lagP99Seconds", "The same, of which 99 in 100 took less.", "从采样到提交的延迟的第 99 百分位"),
        _seconds("lagMaxSeconds", "The same, the longest.", "从采样到提交的最长延迟"),
        _gauge("queueMessages", "Messages that came in and are not committed yet.", "已收到但尚未提交的消息数"),
        _gauge("queueMaxMessages", "The same, the most since it last told.", "上次上报以来未提交消息数的最大值"),
        _gauge("records", "Records held.", "持有的记录数"),
        _gauge("dirtyRecords", "Records that changed and are not in their table yet.",
               "已变更但尚未写入表的记录数"),
        _gauge("databaseBytes", "Size of the database with its write-ahead log.",
               "数据库及其预写日志的大小", Unit.BYTES),
        _gauge("agentsOnline", "Agents that are online.", "在线的代理程序数"),
        _gauge("agentsStale", "Agents that are silent.", "无消息的代理程序数"),
        _gauge("agentsStopped", "Agents that said goodbye.", "正常停止的代理程序数"),
        _gauge("agentsLost", "Agents whose connection died.", "连接中断的代理程序数"),
        _gauge("agentsUnknown", "Agents that did not say yet how they are.", "状态未知的代理程序数"),
        _gauge("agentsLimited", "Agents that state more than is taken from one.", "因发送过多而受限的代理程序数"),
        _gauge("agentsUnmended", "Agents of which something is missing.", "数据尚不完整的代理程序数"),
    ),
)  # fmt: skip

BROKER_HEALTH = Health(
    name="broker",
    an="the broker",
    told="Retained on `telemetry/broker/health`, every `intervals.refresh`, by the aggregator, from what the broker "
    "publishes under `$SYS`. Where it publishes nothing there, there is none.",
    metrics=(
        *_PROCESS,
        _gauge("clientsConnected", "Clients that are connected.", "已连接的客户端数"),
        _gauge("clientsMaximum", "The most that were, since it began.", "启动以来的最大连接数"),
        _gauge("clientsDisconnected", "Sessions that are kept for clients that are away.",
               "为离线客户端保留的会话数"),
        _gauge("subscriptions", "Subscriptions.", "订阅数"),
        _counted("messagesReceived", "Messages that clients published.", "客户端发布的消息数"),
        _counted("messagesSent", "Messages delivered to clients.", "投递给客户端的消息数"),
        _counted("messagesDropped", "Messages dropped because a client's queue was full.",
                 "因客户端队列已满而丢弃的消息数"),
        _counted("bytesReceived", "Bytes that came in.", "收到的字节数", Unit.BYTES),
        _counted("bytesSent", "Bytes that went out.", "发出的字节数", Unit.BYTES),
        _gauge("retainedMessages", "Messages retained.", "保留的消息数"),
        _gauge("queueMessages", "Messages that wait for a client, or are on their way to it.",
               "等待投递或正在投递的消息数"),
        _gauge("storedBytes", "Payloads of all that is retained or waits.",
               "所有保留或等待的消息的负载大小", Unit.BYTES),
        _gauge("heapBytes", "Memory that the broker says it uses.", "代理自报的内存用量", Unit.BYTES),
    ),
)  # fmt: skip
"""As Mosquitto tells it; another broker may tell less. The process is known where it runs beside the aggregator."""

BROKER_TOPICS = {
    "$SYS/broker/uptime": "uptimeSeconds",
    "$SYS/broker/clients/connected": "clientsConnected",
    "$SYS/broker/clients/maximum": "clientsMaximum",
    "$SYS/broker/clients/disconnected": "clientsDisconnected",
    "$SYS/broker/subscriptions/count": "subscriptions",
    "$SYS/broker/publish/messages/received": "messagesReceived",
    "$SYS/broker/publish/messages/sent": "messagesSent",
    "$SYS/broker/publish/messages/dropped": "messagesDropped",
    "$SYS/broker/bytes/received": "bytesReceived",
    "$SYS/broker/bytes/sent": "bytesSent",
    "$SYS/broker/retained messages/count": "retainedMessages",
    "$SYS/broker/store/messages/bytes": "storedBytes",
    "$SYS/broker/heap/current": "heapBytes",
}
"""Where Mosquitto tells which metric (mosquitto(8)). `queueMessages` is what is stored and not retained."""

BROKER_STORED, BROKER_VERSION = "$SYS/broker/store/messages/count", "$SYS/broker/version"

HEALTHS = (AGENT_HEALTH, AGGREGATOR_HEALTH, BROKER_HEALTH)
