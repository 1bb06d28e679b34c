"""Topics, built and parsed in one place. The topic names the sender; no payload claims it.

A host's level of a topic is its name, percent-encoded where the name of a worker has other characters than a level may.
"""

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote

from telemetry.errors import UsageError
from telemetry.fields import Owner, Record
from telemetry.records import MINER_INFO, WORKER_INFO

MINER_AGENT = "_miner"
"""The name of a miner's agent; no host can have it."""

LONGEST_GRAFANA_TOPIC = 72
"""Characters: Grafana Live refuses channels above 160, and the topic is base64 in one."""

_MINER_ID = re.compile(r"[ft]0[0-9]{1,19}")
_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST_LEVEL = re.compile(r"(?:[A-Za-z0-9]|%[0-9A-F]{2})(?:[A-Za-z0-9._-]|%[0-9A-F]{2})*")
_LONGEST_HOST_LEVEL = 255
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")


class RecordKey(NamedTuple):
    """One record: a miner's (`hostName` None) or a host's."""

    minerId: str  # noqa: N815  # the field's name
    hostName: str | None = None  # noqa: N815  # the field's name

    @property
    def record(self) -> Record:
        """The kind of the record."""
        return MINER_INFO if self.hostName is None else WORKER_INFO

    @property
    def fields(self) -> dict[str, str]:
        """The key as fields of the record."""
        named = {"minerId": self.minerId}
        return named if self.hostName is None else named | {"hostName": self.hostName}

    def __str__(self) -> str:
        return self.minerId if self.hostName is None else f"{self.minerId}/{self.hostName}"


class AgentKey(NamedTuple):
    """One agent: the host agent of a host, named as the host's level of a topic, or the miner agent, MINER_AGENT."""

    minerId: str  # noqa: N815  # the field's name
    agent: str

    @classmethod
    def of(cls, record: RecordKey) -> "AgentKey":
        """The agent whose presence tells of a record."""
        return cls(record.minerId, MINER_AGENT if record.hostName is None else host_level(record.hostName))

    @property
    def client_id(self) -> str:
        """The MQTT client id, fixed so that a second agent of the name takes the first one's place."""
        return f"{self.minerId}.{self.agent}"

    @property
    def record(self) -> RecordKey:
        """The record whose presence is this agent's."""
        return RecordKey(self.minerId, None if self.agent == MINER_AGENT else unquote(self.agent))

    def __str__(self) -> str:
        return f"{self.minerId}/{self.agent}"


class Channel(Enum):
    """What a topic carries."""

    CHANGE = "change"
    SNAPSHOT = "snapshot"
    PRESENCE = "presence"
    RESUBSCRIBE = "resubscribe"
    BACKLOG = "backlog"
    REQUEST = "request"
    ACK = "ack"
    HEALTH = "health"


class Address(NamedTuple):
    """What a topic says: its channel, the record that it is about, and the agent and part that state it."""

    channel: Channel
    record: RecordKey
    agent: AgentKey
    owner: Owner | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """The topic tree below its two prefixes."""

    records: str = "miners"
    control: str = "telemetry"

    def change(self, record: RecordKey, owner: Owner) -> str:
        """Where the changes of a record's part are published."""
        return self._record(record, "tasks") if owner is Owner.TASKS else self._record(record)

    def snapshot(self, record: RecordKey) -> str:
        """Where the aggregator retains the full record."""
        return self._record(record, "snapshot")

    def presence(self, record: RecordKey) -> str:
        """Where the record's agent retains whether it is there."""
        return self._record(record, "presence")

    def resubscribe(self, miner_id: str) -> str:
        """Where anyone asks for a miner's snapshots again."""
        return self._record(RecordKey(miner_id), "resubscribe")

    def backlog(self, agent: AgentKey) -> str:
        """Where an agent publishes what it sends late."""
        return self._agent(agent, "backlog")

    def request(self, agent: AgentKey) -> str:
        """Where an agent is asked."""
        return self._agent(agent, "request")

    def ack(self, agent: AgentKey, aggregator: str) -> str:
        """Where an aggregator retains what it has committed of an agent's log."""
        return self._agent(agent, f"ack/{aggregator}")

    def aggregator(self, name: str) -> str:
        """Where an aggregator retains its presence."""
        return f"{self.control}/aggregators/{name}"

    def agent_health(self, agent: AgentKey) -> str:
        """Where an agent tells how it is."""
        return self._agent(agent, "health")

    def aggregator_health(self, name: str) -> str:
        """Where an aggregator retains how it is."""
        return f"{self.aggregator(name)}/health"

    @property
    def broker_health(self) -> str:
        """Where an aggregator retains how the broker is."""
        return f"{self.control}/broker/health"

    @property
    def ingested(self) -> tuple[str, ...]:
        """The filters of an aggregator. None overlaps another: a broker may send one copy a filter."""
        return (
            f"{self.records}/+",
            f"{self.records}/+/presence",
            f"{self.records}/+/resubscribe",
            f"{self.records}/+/workers/+",
            f"{self.records}/+/workers/+/presence",
            f"{self.records}/+/workers/+/tasks",
            f"{self.control}/agents/+/+/backlog",
        )

    @property
    def of_the_moment(self) -> tuple[str, ...]:
        """The filters of what an aggregator hears while it is there: how agents are, and how the broker is."""
        from telemetry.health import BROKER_STORED, BROKER_TOPICS, BROKER_VERSION  # noqa: PLC0415  # memory: no agent's

        return (f"{self.control}/agents/+/+/health", *BROKER_TOPICS, BROKER_STORED, BROKER_VERSION)

    def written_by(self, agent: AgentKey) -> tuple[str, ...]:
        """The filters of what an agent publishes. Tasks have a wildcard: all are their miner's agent's to state."""
        is_miner = agent.agent == MINER_AGENT
        tasks = (f"{self.records}/{agent.minerId}/workers/+/tasks",) if is_miner else ()
        stated = self.change(agent.record, Owner.MINER if is_miner else Owner.HARDWARE)
        return (stated, *tasks, self.presence(agent.record), self.backlog(agent), self.agent_health(agent))

    def read_by(self, agent: AgentKey) -> tuple[str, ...]:
        """The filters of an agent: what is asked of it, what is acknowledged, what is said of it."""
        return (self.request(agent), self.ack(agent, "+"), self.presence(agent.record))

    def written_by_aggregator(self, name: str) -> tuple[str, ...]:
        """The filters of what an aggregator publishes."""
        return (
            f"{self.records}/+/snapshot",
            f"{self.records}/+/workers/+/snapshot",
            f"{self.control}/agents/+/+/request",
            f"{self.control}/agents/+/+/ack/{name}",
            self.aggregator(name),
            self.aggregator_health(name),
            self.broker_health,
        )

    @property
    def written_by_operators(self) -> tuple[str, ...]:
        """The filters of what is published to ask for snapshots, to forget a record, and to verify one."""
        return (
            f"{self.records}/+/resubscribe",
            f"{self.records}/+/presence",
            f"{self.records}/+/workers/+/presence",
            f"{self.control}/agents/+/+/request",
        )

    @property
    def told_of_aggregators(self) -> tuple[str, ...]:
        """The filters of what aggregators retain of themselves and of the broker."""
        return (self.aggregator("+"), self.aggregator_health("+"), self.broker_health)

    def followed(self, record: RecordKey | None) -> tuple[str, ...]:
        """The filters of a subscriber: of all miners, one miner with its hosts, or one host."""
        if record is None:
            return (f"{self.records}/#",)
        return (f"{self._record(record)}/#",)

    def parse(self, topic: str) -> Address | None:
        """What a topic says; None when it is none of ours."""
        for prefix, parse in ((self.records, _parse_record), (self.control, _parse_agent)):
            if topic.startswith(f"{prefix}/"):
                address = parse(topic[len(prefix) + 1 :].split("/"))
                if address is not None:
                    return address
        return None

    def _record(self, record: RecordKey, last: str = "") -> str:
        middle = "" if record.hostName is None else f"/workers/{host_level(record.hostName)}"
        return f"{self.records}/{record.minerId}{middle}" + (f"/{last}" if last else "")

    def _agent(self, agent: AgentKey, last: str) -> str:
        return f"{self.control}/agents/{agent.minerId}/{agent.agent}/{last}"


_RECORD_CHANNELS = {"snapshot": Channel.SNAPSHOT, "presence": Channel.PRESENCE}
_AGENT_CHANNELS = {"backlog": Channel.BACKLOG, "request": Channel.REQUEST, "health": Channel.HEALTH}


def _parse_record(levels: list[str]) -> Address | None:
    match levels:
        case [miner] if is_miner_id(miner):
            return Address(Channel.CHANGE, RecordKey(miner), AgentKey(miner, MINER_AGENT), Owner.MINER)
        case [miner, "resubscribe"] if is_miner_id(miner):
            return Address(Channel.RESUBSCRIBE, RecordKey(miner), AgentKey(miner, MINER_AGENT))
        case [miner, last] if is_miner_id(miner) and last in _RECORD_CHANNELS:
            return Address(_RECORD_CHANNELS[last], RecordKey(miner), AgentKey(miner, MINER_AGENT))
        case [miner, "workers", level, *rest] if is_miner_id(miner) and _is_host_level(level):
            host = unquote(level) if "%" in level else level
            return _parse_worker(RecordKey(miner, host), AgentKey(miner, level), rest)
    return None


def _parse_worker(record: RecordKey, agent: AgentKey, rest: list[str]) -> Address | None:
    match rest:
        case []:
            return Address(Channel.CHANGE, record, agent, Owner.HARDWARE)
        case ["tasks"]:
            return Address(Channel.CHANGE, record, AgentKey(record.minerId, MINER_AGENT), Owner.TASKS)
        case [last] if last in _RECORD_CHANNELS:
            return Address(_RECORD_CHANNELS[last], record, agent)
    return None


def _parse_agent(levels: list[str]) -> Address | None:
    match levels:
        case ["agents", miner, agent, last, *rest] if is_miner_id(miner) and _is_agent_name(agent):
            key = AgentKey(miner, agent)
            if last in _AGENT_CHANNELS and not rest:
                return Address(_AGENT_CHANNELS[last], key.record, key)
            if last == "ack" and len(rest) == 1:
                return Address(Channel.ACK, key.record, key)
    return None


def sender_of(record: RecordKey, owner: Owner) -> AgentKey:
    """The agent that states a part of a record."""
    return AgentKey.of(record) if owner is Owner.HARDWARE else AgentKey(record.minerId, MINER_AGENT)


def is_miner_id(text: str) -> bool:
    """Whether the text is a miner's ID address."""
    return _MINER_ID.fullmatch(text) is not None


def is_host_name(text: str) -> bool:
    """Whether the text can be the name of a host with an agent: it is a level of a topic as it stands."""
    return _HOST_NAME.fullmatch(text) is not None


def is_worker_host(text: str) -> bool:
    """Whether a host that a worker names can have a record: any name, unless it is absurdly long."""
    try:
        return bool(text) and len(host_level(text)) <= _LONGEST_HOST_LEVEL
    except UnicodeEncodeError:
        return False


@lru_cache(maxsize=2**15)
def host_level(name: str) -> str:
    """A host's level of a topic: its name, percent-encoded as UTF-8 (RFC 3986) but for A-Z a-z 0-9 . _ -

    The first character is encoded also where it is . _ or - so that no host is taken for MINER_AGENT, and where the
    name is longer than an agent's may be: what has no % is the name of a host with an agent.
    """
    if is_host_name(name):
        return name
    level = _percent_encoded(name)
    if "%" in level[:1] or (name[0].isalnum() and "%" in level):
        return level
    return f"%{ord(name[0]):02X}{level[1:]}"


def _percent_encoded(text: str) -> str:
    return quote(text, safe="").replace("~", "%7E")


def _is_host_level(text: str) -> bool:
    """Whether a level is a host's, in its one form: another would be a second record of the same host."""
    if is_host_name(text):
        return True
    if len(text) > _LONGEST_HOST_LEVEL or _HOST_LEVEL.fullmatch(text) is None:
        return False
    try:
        return host_level(unquote(text, errors="strict")) == text
    except UnicodeDecodeError:
        return False


def _is_agent_name(text: str) -> bool:
    return text == MINER_AGENT or _is_host_level(text)


def require_miner_id(text: str) -> str:
    """The text, or UsageError when it is no miner id."""
    if not is_miner_id(text):
        raise UsageError(f"miner id {text!r}: expected f0 or t0 and digits, such as f01234")
    return text


def require_host_name(text: str) -> str:
    """The text, or UsageError when it is no host name."""
    if not is_host_name(text):
        raise UsageError(
            f"host name {text!r}: expected 1 to 63 of A-Z a-z 0-9 . _ - beginning with a letter or digit; set --name"
        )
    return text


def require_record_host(text: str) -> str:
    """The text, or UsageError when no record can be of such a host."""
    if not is_worker_host(text):
        raise UsageError(f"host name {text[:80]!r}: expected the name of a host, as `telemetry ls` lists it")
    return text


def require_prefix(text: str) -> str:
    """The text, or UsageError when it cannot begin a topic."""
    if not _PREFIX.fullmatch(text):
        raise UsageError(f"topic prefix {text!r}: expected levels of A-Z a-z 0-9 . _ - joined by /")
    return text
