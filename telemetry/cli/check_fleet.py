"""What `telemetry check` looks at of aggregators and agents: whether they answer, their versions and their clocks."""

import queue
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from telemetry import __version__, mqtt
from telemetry.access import Role, User
from telemetry.cli.findings import Finding
from telemetry.cli.health import MOST_CLOCK_OFFSET, AgentView, agent_views
from telemetry.cli.options import Chosen
from telemetry.cli.tables import count_of
from telemetry.errors import TelemetryError, WireError
from telemetry.health import AGGREGATOR_HEALTH
from telemetry.stores.reading import Reader
from telemetry.topics import RecordKey
from telemetry.units import format_age
from telemetry.wire import HealthReport, Outgoing, PresenceState, decode_health, decode_presence, encode_resubscribe

_ANSWER_TIMEOUT = 3.0
_CONNECT_TIMEOUT = 5.0
_MOST_NAMED = 3
_SET_CLOCK = "let NTP set it (`timedatectl set-ntp true`)"


class _Answer(NamedTuple):
    """What an aggregator said when it was asked, between two moments of our clock (Unix seconds)."""

    report: HealthReport
    asked: float
    heard: float

    @property
    def ahead(self) -> float:
        """Seconds by which our clock is ahead of the aggregator's, as near as can be told."""
        return (self.asked + self.heard) / 2 - self.report.time / 1000

    @property
    def is_wrong(self) -> bool:
        """Whether they differ by more than the answer's way explains."""
        return abs(self.ahead) - (self.heard - self.asked) / 2 > MOST_CLOCK_OFFSET


class _Aggregators:
    """The aggregators, as the broker and they themselves tell of them."""

    def __init__(self, choice: Chosen) -> None:
        self._topics = choice.topics
        self._events: queue.SimpleQueue[mqtt.Event] = queue.SimpleQueue()
        self.states: dict[str, PresenceState] = {}
        self.answers: dict[str, _Answer] = {}
        self._link = mqtt.Connection(
            choice.broker, client_id=f"telemetry.check.{secrets.token_hex(6)}", deliver=self._events.put,
            filters=self._topics.told_of_aggregators, protocol=choice.settings.broker.protocol,
        )  # fmt: skip

    def ask(self, key: RecordKey) -> None:
        """Hear what is retained, ask for the snapshot of one record, and wait for who answers with how it is."""
        self._link.start()
        try:
            self._hear(_CONNECT_TIMEOUT, asked=None)
            asked = time.time()
            payload = encode_resubscribe([key.hostName] if key.hostName else [])
            self._link.publish(Outgoing(topic=self._topics.resubscribe(key.minerId), payload=payload))
            self._hear(_ANSWER_TIMEOUT, asked=asked)
        finally:
            self._link.close()

    def _hear(self, seconds: float, *, asked: float | None) -> None:
        """Take in what comes: before we ask until the connection stands, then until all that are there answered."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not (asked and self._have_all_answered):
            try:
                event = self._events.get(timeout=left)
            except queue.Empty:
                return
            if isinstance(event, mqtt.Connected) and asked is None:
                return
            if isinstance(event, mqtt.Disconnected):
                raise TelemetryError(event.reason)
            if isinstance(event, mqtt.Messages):
                for message in event.messages:
                    self._take(message, asked)

    @property
    def _have_all_answered(self) -> bool:
        online = {name for name, state in self.states.items() if state is PresenceState.ONLINE}
        return bool(online) and online <= self.answers.keys()

    def _take(self, message: mqtt.Message, asked: float | None) -> None:
        name, is_aggregator = self._name(message.topic)
        try:
            if is_aggregator and not message.topic.endswith("/health"):
                self.states[name] = decode_presence(message.payload).state
            elif is_aggregator and asked is not None and not message.retained:
                report = decode_health(AGGREGATOR_HEALTH, message.payload)
                self.answers.setdefault(name, _Answer(report, asked, time.time()))
        except WireError:
            return

    def _name(self, topic: str) -> tuple[str, bool]:
        start = self._topics.aggregator("")
        return topic.removeprefix(start).removesuffix("/health"), topic.startswith(start)


def look_at_aggregators(choice: Chosen, key: RecordKey) -> Iterator[Finding]:
    """Whether one answers, its version, and how far our clock is from its own."""
    user = User.parse(choice.broker.username or "")
    if user is not None and (user.role in {Role.AGENT, Role.AGGREGATOR} or user.miner is not None):
        text = f"not told to {user}: `telemetry check` on the aggregator's machine compares the clocks of all hosts"
        yield Finding("ok", "clock", text)
        return
    found = _Aggregators(choice)
    try:
        found.ask(key)
    except TelemetryError as error:
        yield Finding("warn", "clock", f"could not tell: {error}")
        return
    if not found.states and not found.answers:
        or_else = f", unless {choice.broker.username} may not hear it" if choice.broker.username else ""
        yield Finding("warn", "aggregator", f"the broker knows of none: start `telemetry aggregator`{or_else}")
    for name in sorted(found.states.keys() | found.answers.keys()):
        yield from _look_at_answer(name, found.states.get(name), found.answers.get(name))


def _look_at_answer(name: str, state: PresenceState | None, answer: _Answer | None) -> Iterator[Finding]:
    if answer is None:
        if state is PresenceState.ONLINE:
            yield Finding("warn", "aggregator", f"{name} is online, and did not answer: busy, or of an older version")
            yield Finding("warn", "clock", f"could not tell: {name} did not answer")
        else:
            said = state.value if state else "unknown"
            yield Finding("fail", "aggregator", f"{name} is {said}: start `telemetry aggregator`, or look at its log")
        return
    version = answer.report.version
    if version == __version__:
        yield Finding("ok", "aggregator", f"{name} answers, telemetry {version}")
    else:
        text = f"{name} has telemetry {version}, this machine {__version__}: bring both to one version"
        yield Finding("warn", "aggregator", text)
    way = f"{_seconds(answer.ahead)} {'ahead of' if answer.ahead >= 0 else 'behind'} that of aggregator {name}"
    yield Finding("warn", "clock", f"{way}: {_SET_CLOCK}") if answer.is_wrong else Finding("ok", "clock", way)


def _seconds(offset: float) -> str:
    return f"{abs(offset):.1f} s" if abs(offset) < 60 else format_age(abs(offset))


def look_at_agents(reader: Reader) -> Iterator[Finding]:
    """What the database knows of the agents: who is away, whose clock is wrong, and whose version is another."""
    views = agent_views(reader)
    if not views:
        return
    states = Counter(view.state for view in views)
    told = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    is_well = states.keys() <= {"online", "stopped"}
    yield Finding("ok" if is_well else "warn", "agents", told if is_well else f"{told}: `telemetry ls --self`")
    known = [view for view in views if view.health is not None]
    wrong = [view for view in known if view.has_wrong_clock]
    if wrong:
        named = _named([f"{view.key} {_offset(view)}" for view in wrong])
        yield Finding("warn", "clocks", f"{named}: {_SET_CLOCK}")
    elif known:
        yield Finding("ok", "clocks", f"those of {count_of(len(known), 'agent')} are within {MOST_CLOCK_OFFSET:g} s")
    others = Counter(view.version for view in views if view.version != __version__)
    if others:
        named = ", ".join(f"{count_of(number, 'agent')} of {version}" for version, number in others.most_common())
        yield Finding("warn", "versions", f"{named}, this is {__version__}: bring them to one version")
    violations = reader.violations()
    if violations:
        most = violations[0]
        text = f"{most.agent} stated {most.number} times what is not its to state, at {most.topic}"
        yield Finding("warn", "violations", f"{text}: find out who has its credentials; `telemetry ls --self`")


def _offset(view: AgentView) -> str:
    offset = view.clock_offset or 0.0
    return f"{_seconds(offset)} {'ahead' if offset > 0 else 'behind'}"


def _named(texts: list[str]) -> str:
    more = f" and {len(texts) - _MOST_NAMED} more" if len(texts) > _MOST_NAMED else ""
    return ", ".join(texts[:_MOST_NAMED]) + more
