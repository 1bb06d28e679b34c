"""What was, from the database: read-only, and never more than a page can show."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from telemetry.errors import StoreError, UsageError
from telemetry.fields import Scalar
from telemetry.records import declared
from telemetry.stores import HealthRow, StoredAgent
from telemetry.stores.history.reading import History, open_history
from telemetry.stores.history.series import Column, Part, parts, require_field, stepped
from telemetry.stores.reading import Reader, open_reader
from telemetry.topics import AgentKey, RecordKey, Topics
from telemetry.web.routes import NotFoundError, UnavailableError

_log = logging.getLogger(__name__)

USUAL_POINTS, MOST_POINTS = 300, 5000
"""Of one field: what a range is divided into where no step is asked for, and what may be asked for."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_STEPS = (
    1, 2, 5, 10, 15, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE,
    _HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY,
)  # fmt: skip
"""Seconds; from five minutes on they are multiples of what summaries are kept of."""

Answer = dict[str, Any]


class Past:
    """The database of a fleet, of which this machine may have none."""

    def __init__(self, database: Path, topics: Topics) -> None:
        self._database, self._topics = database, topics

    def history(
        self, key: RecordKey, fields: Sequence[str], since: int, until: int, step: int | None, aggregate: str
    ) -> Answer:
        """What fields were in each step (s) of a range (Unix ms). A `null` stands where one was not known."""
        step = _step(until - since) if step is None else step
        if (until - since) // (1000 * step) > MOST_POINTS:
            raise UsageError(f"step: more than {MOST_POINTS} in this range; take a longer one, or a shorter range")
        with self._history() as history:
            for name in fields:
                _require_series(history, key, name)
            kept = history.kept_since(key)
            if not kept:
                raise NotFoundError(f"{key}: no history of it")
            ranges = parts(kept, since, until, 1000 * step)
            columns = stepped(history, key, fields, ranges, [aggregate])
            damaged = len(history.damaged)
        series = [
            {"field": one.field, "unit": one.unit.value.symbol, "points": list(_points(one, ranges))}
            for one in columns
        ]  # fmt: skip
        told = key.fields | {"since": since, "until": until, "step": step, "series": series}
        return told | {"damaged": damaged} if damaged else told

    def events(self, key: RecordKey | None, since: int, until: int, most: int) -> Answer:
        """What happened to agents, the newest first."""
        miner, agent = (None, None) if key is None else (key.minerId, key.hostName and AgentKey.of(key).agent)
        with self._reader() as reader:
            return {"events": [event.flat for event in reader.events(since, until, miner, agent, most)[::-1]]}

    def quality(self, miner: str) -> Answer:
        """How whole what is held of a miner's agents is."""
        with self._reader() as reader:
            agents = reader.agents(miner)
            rejected: Counter[AgentKey] = Counter()
            for topic, number in reader.rejected_by_topic().items():
                if (address := self._topics.parse(topic)) is not None:
                    rejected[address.agent] += number
        return {"agents": [_quality(key, agent, rejected[key]) for key, agent in agents.items()]}

    def health(self) -> list[HealthRow]:
        """What the parts told of themselves last; nothing where there is no database."""
        try:
            with self._reader() as reader:
                return reader.health()
        except UnavailableError:
            return []

    @contextmanager
    def _history(self) -> Iterator[History]:
        with self._readable(), open_history(self._database) as history:
            yield history

    @contextmanager
    def _reader(self) -> Iterator[Reader]:
        with self._readable(), open_reader(self._database) as reader:
            yield reader

    @contextmanager
    def _readable(self) -> Iterator[None]:
        if not self._database.exists():
            raise UnavailableError("no database on this machine: what was is known where the aggregator runs")
        try:
            yield
        except StoreError as error:
            _log.warning("%s", error)
            raise UnavailableError("the database cannot be read: see the server's log") from None


def _step(milliseconds: int) -> int:
    """The step, in seconds, that divides a range into no more than the usual number of points."""
    return next((step for step in _STEPS if 1000 * step * USUAL_POINTS >= milliseconds), _STEPS[-1])


def _require_series(history: History, key: RecordKey, name: str) -> None:
    require_field(history, key, name)
    field = declared(name)
    if field is not None and not isinstance(field.type, Scalar):
        raise UsageError(f"field: {name} is no single value; `/api/fields` tells the types")


def _points(column: Column, ranges: Sequence[Part]) -> Iterator[tuple[int, Any]]:
    """The values in order, with a null where steps are missing."""
    values = iter(sorted(column.values.items(), key=lambda one: one[0]))
    following = next(values, None)
    expected: int | None = None
    for part in ranges:
        while following is not None and following[0] < part.until:
            time, value = following
            if expected is not None and time > expected:
                yield expected, None
            yield time, round(value, 3) if isinstance(value, float) and column.aggregate == "mean" else value
            expected = time + part.step
            following = next(values, None)


def _quality(key: AgentKey, agent: StoredAgent, rejected: int) -> Answer:
    log = agent.log
    named = {"agent": key.agent, "state": agent.state, "since": agent.since, "heard": agent.heard}
    counted = {"epoch": log.epoch, "lost": agent.lost, "late": agent.late, "rejected": rejected}
    told = named | counted | {"isWhole": _is_whole(agent), "version": agent.version}
    return told if log.position is None else told | {"position": log.position}


def _is_whole(agent: StoredAgent) -> bool:
    log = agent.log
    return log.position is not None and not log.beyond and all(full > log.floor for full in log.fulls.values())
