"""Where the aggregator keeps records and what happened. `Store` is the contract; one file a backend.

The aggregator is the only writer. Everything of one batch, the positions of the logs included, stands or falls
together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from telemetry.fields import Owner, Value
from telemetry.render.sql import SqlValue
from telemetry.topics import AgentKey, RecordKey
from telemetry.wire import Position


class Held(NamedTuple):
    """A field's value (None: known to be gone), who stated it, and at which position."""

    value: Value | None
    owner: Owner
    position: Position


RecordRow = tuple[SqlValue, ...]
"""A mirrored record as the row of its table, in the order of `render.sql.columns`: it is what its readers read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLog:
    """What is held of one log of an agent: see `follow.Follower`."""

    epoch: int
    position: int | None
    beyond: Sequence[tuple[int, int]]
    fulls: Mapping[str, int]
    floor: int
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAgent:
    """What is held of an agent's logs, and what is known of the agent. Times in Unix ms.

    `late`: how many of its messages came late, in a backlog.
    """

    log: StoredLog
    former: Sequence[StoredLog] = ()
    state: str
    since: int
    heard: int
    session: str
    version: str
    late: int = 0

    @property
    def lost(self) -> int:
        """Messages of all these logs that will never come."""
        return sum(log.lost for log in (self.log, *self.former))


class Moved(NamedTuple):
    """What every message moves of an agent: the position of its present log, and when it was heard (Unix ms)."""

    position: int
    heard: int


class HistoryRow(NamedTuple):
    """One change message as it came; `values` and `gone` as on the wire."""

    record: RecordKey
    owner: Owner
    position: Position
    time: int
    received: int
    full: bool
    values: Mapping[str, Value]
    gone: tuple[str, ...]


class EventRow(NamedTuple):
    """What happened to an agent: it turned (online, stale, stopped, lost), or missing, defect, violation, forgotten."""

    time: int
    agent: AgentKey
    event: str
    detail: str


class RejectedRow(NamedTuple):
    """A message, or a part of one, that could not be used."""

    time: int
    topic: str
    reason: str
    payload: bytes


class HealthRow(NamedTuple):
    """How a part was when it last told: its kind, its name, and what `wire.HealthReport` says. Times: Unix ms.

    The name is `<minerId>/<agent>` of an agent, that of an aggregator, empty for the broker.
    """

    kind: str
    name: str
    time: int
    version: str
    metrics: Mapping[str, float]
    received: int


class Violated(NamedTuple):
    """How often an agent stated what is not its to state at one topic, and when it last did (Unix ms)."""

    agent: AgentKey
    number: int
    time: int


@dataclass(slots=True)
class Batch:
    """What one transaction writes. None in `records` or `agents` forgets; `moved` has agents that are stored.

    `health` is by kind and name; `violations` adds to what is stored, by topic. An agent that is forgotten takes its
    own of both along. `is_behind`: what the history says since a batch that was not behind, `records` do not have yet.
    """

    records: dict[RecordKey, RecordRow | None] = field(default_factory=dict)
    agents: dict[AgentKey, StoredAgent | None] = field(default_factory=dict)
    moved: dict[AgentKey, Moved] = field(default_factory=dict)
    history: list[HistoryRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)
    health: dict[tuple[str, str], HealthRow] = field(default_factory=dict)
    violations: dict[str, Violated] = field(default_factory=dict)
    is_behind: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (
            self.records or self.agents or self.moved or self.history or self.events or self.rejected
            or self.health or self.violations
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a store holds when the aggregator starts. `behind`: the history that the records do not have yet."""

    records: Mapping[RecordKey, RecordRow]
    agents: Mapping[AgentKey, StoredAgent]
    behind: Sequence[HistoryRow] = ()


class Store(Protocol):
    """Where batches go. Used by one thread."""

    def load(self) -> Stored:
        """The mirror and the logs as the last commit left them."""

    def commit(self, batch: Batch) -> None:
        """Write a batch as one transaction. Raises StoreBusyError, having written nothing, when it may go later."""

    def maintain(self, time: int) -> bool:
        """Do some milliseconds of upkeep, at `time` (Unix ms); whether there is more to do at once."""

    def size(self) -> int:
        """Bytes that it takes up on disk."""

    def close(self) -> None:
        """End; everything committed stays."""
