"""Whether every mirror equals its host: agents are asked for digests, and for all of it where these differ.

Exit status 1 where a record differs, or an agent that is there does not answer.
"""

import argparse
import queue
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from telemetry.aggregator.mirror import MirroredRecord
from telemetry.cli.exchange import TIMEOUT
from telemetry.cli.options import Chosen, add_broker, add_common, add_database, add_json, chosen, record_of
from telemetry.cli.tables import count_of, print_table
from telemetry.errors import TelemetryError, WireError
from telemetry.mqtt import Connected, Connection, Disconnected, Event, Message, Messages
from telemetry.stores import Held, StoredAgent
from telemetry.stores.reading import open_reader
from telemetry.topics import AgentKey, Channel, RecordKey, Topics
from telemetry.wire import Change, Digests, Outgoing, Request, decode_backlog, decode_change, digest, encode_request

_ROUNDS = 8
_SPACING = 0.001
"""Seconds between two requests: a thousand a second are no burden."""

_COMMIT = 1.5
"""Seconds in which what an agent stated has come into the database."""

_ANSWER = 5.0
_REPAIR = 40.0
"""Seconds: an agent does its connect routine every 30 s at most."""

_GONE = {"stopped", "lost"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was found of a part of a record: `equal`, `differs`, `no answer`, or `not there` as its agent is."""

    record: str
    part: str
    result: str
    detail: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("miner", metavar="MINER", nargs="?", help="a miner's id (default: all miners)")
    parser.add_argument("host", metavar="HOST", nargs="?", help="a host of it")
    add_common(parser)
    add_broker(parser)
    add_database(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ask, compare, and print what is not equal."""
    choice = chosen(arguments)
    only = record_of(arguments) if arguments.miner else None
    with _Verifier(choice, only) as verifier:
        results = list(verifier.results())
    wrong = [one for one in results if one.result in {"differs", "no answer"}]
    if arguments.json:
        print(orjson.dumps([asdict(one) for one in results]).decode())
    else:
        _print(results)
    return 1 if wrong else 0


def _print(results: list[Result]) -> None:
    shown = [(one.record, one.part, one.result, one.detail) for one in results if one.result != "equal"]
    if shown:
        print_table(("RECORD", "PART", "RESULT", "DETAIL"), shown, folds="DETAIL")
        print()
    found = [one.result for one in results]
    counts = ", ".join(f"{found.count(result)} {result}" for result in sorted(set(found)))
    print(f"{count_of(len(results), 'part')} of records: {counts or 'none'}")


class _Verifier:
    """Compares what agents say of themselves with what the database holds of them."""

    def __init__(self, choice: Chosen, only: RecordKey | None) -> None:
        self._database, self._topics, self._only = choice.database, choice.topics, only
        self._mirror = _Mirror(choice.database, choice.topics)
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._heard: dict[str, list[Change]] = {}
        self._answers: dict[AgentKey, dict[str, str]] = {}
        miner = only.minerId if only else "+"
        self._connection = Connection(
            choice.broker,
            client_id=f"telemetry.verify.{secrets.token_hex(6)}",
            deliver=self._inbox.put,
            filters=(
                f"{self._topics.control}/agents/{miner}/+/backlog",
                f"{self._topics.records}/{miner}",
                f"{self._topics.records}/{miner}/workers/+",
                f"{self._topics.records}/{miner}/workers/+/tasks",
            ),
            protocol=choice.settings.broker.protocol,
        )

    def __enter__(self) -> "_Verifier":
        self._connection.start()
        event = self._next(TIMEOUT)
        if not isinstance(event, Connected):
            reason = event.reason if isinstance(event, Disconnected) else "no answer"
            raise TelemetryError(f"not connected: {reason}; does the broker run?")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def results(self) -> Iterator[Result]:
        """What was found of every part of every record, by agent."""
        agents = {key: agent for key, agent in self._mirror.agents().items() if self._is_asked_of(key)}
        there = {key for key, agent in agents.items() if agent.state not in _GONE}
        differing = self._narrow(there)
        for key in sorted(agents):
            if key not in there:
                yield Result(record=str(key.record), part=key.agent, result="not there", detail=agents[key].state)
            elif key not in self._answers:
                yield Result(record=str(key.record), part=key.agent, result="no answer")
            else:
                yield from self._told(key, differing.get(key, {}))

    def _is_asked_of(self, key: AgentKey) -> bool:
        if self._only is None:
            return True
        # The queues of a host are its miner's agent's to tell.
        is_its_own = self._only.hostName is None or key.record == self._only or key.record.hostName is None
        return key.minerId == self._only.minerId and is_its_own

    def _told(self, key: AgentKey, differing: Mapping[str, str]) -> Iterator[Result]:
        for topic in sorted(self._answers[key]):
            address = self._topics.parse(topic)
            if address is None or address.owner is None or not self._is_shown(address.record):
                continue
            found = "differs" if topic in differing else "equal"
            yield Result(
                record=str(address.record), part=address.owner.value, result=found, detail=differing.get(topic, "")
            )

    def _is_shown(self, record: RecordKey) -> bool:
        return self._only is None or self._only.hostName is None or record == self._only

    def _narrow(self, there: set[AgentKey]) -> dict[AgentKey, dict[str, str]]:
        """Ask again and again those that differ: they may have changed between their answer and our look."""
        left = set(there)
        for _ in range(_ROUNDS):
            self._ask(left, Request.DIGEST)
            self._hear(left, _ANSWER)
            self._listen(_COMMIT)
            left = {key for key in left if key not in self._answers or self._differing(key)}
            if not left:
                return {}
        return self._explain({key for key in left if key in self._answers})

    def _explain(self, differing: set[AgentKey]) -> dict[AgentKey, dict[str, str]]:
        """Have those that may differ report in full, which repairs the mirror, and say what was different before.

        What was changed meanwhile is no difference: such changes are heard here too.
        """
        self._heard.clear()
        self._listen(_COMMIT)
        before = {key: {topic: self._mirror.part(topic) for topic in self._differing(key)} for key in differing}
        self._ask(differing, Request.ROUTINE)
        wanted = {topic for topics in before.values() for topic in topics}
        deadline = time.monotonic() + _REPAIR
        while any(self._full(topic) is None for topic in wanted) and time.monotonic() < deadline:
            self._listen(0.2)
        told = {
            key: {topic: self._difference(topic, held) for topic, held in topics.items()}
            for key, topics in before.items()
        }
        return {key: {topic: names for topic, names in topics.items() if names} for key, topics in told.items()}

    def _full(self, topic: str) -> Change | None:
        return next((change for change in self._heard.get(topic, ()) if change.full), None)

    def _difference(self, topic: str, held: Mapping[str, Held]) -> str:
        full = self._full(topic)
        if full is None:
            return "it did not report in full"
        stated = {name: one.value for name, one in held.items() if one.value is not None}
        names = [
            name for name in sorted(stated.keys() | full.values.keys()) if stated.get(name) != full.values.get(name)
        ]
        return ", ".join(name for name in names if not self._has_changed(topic, name, held.get(name), full))

    def _has_changed(self, topic: str, name: str, held: Held | None, full: Change) -> bool:
        """Whether a field was stated anew between our look at the mirror and the full report."""
        return any(
            (held is None or change.position > held.position) and (name in change.values or name in change.gone)
            for change in self._heard[topic]
            if not change.full and change.position < full.position
        )

    def _differing(self, key: AgentKey) -> list[str]:
        return [topic for topic, told in self._answers[key].items() if self._mirror.digest(topic) != told]

    # --- the broker ---

    def _ask(self, keys: Iterable[AgentKey], request: Request) -> None:
        for key in sorted(keys):
            if request is Request.DIGEST:
                self._answers.pop(key, None)
            self._connection.publish(Outgoing(topic=self._topics.request(key), payload=encode_request(request)))
            time.sleep(_SPACING)

    def _hear(self, keys: set[AgentKey], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not keys <= self._answers.keys() and time.monotonic() < deadline:
            self._listen(0.1)

    def _listen(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            event = self._next(left)
            if isinstance(event, Messages):
                for message in event.messages:
                    self._take(message)

    def _next(self, seconds: float) -> Event | None:
        try:
            return self._inbox.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None

    def _take(self, message: Message) -> None:
        address = self._topics.parse(message.topic)
        try:
            match address.channel if address else None:
                case Channel.BACKLOG:
                    answer = decode_backlog(message.payload)
                    if isinstance(answer, Digests) and address is not None:
                        self._answers.setdefault(address.agent, {}).update(answer.digests)
                case Channel.CHANGE:
                    self._heard.setdefault(message.topic, []).append(decode_change(message.payload))
        except WireError:
            return


class _Mirror:
    """What the database holds, read anew at each look."""

    def __init__(self, database: Path, topics: Topics) -> None:
        self._database, self._topics = database, topics

    def agents(self) -> dict[AgentKey, StoredAgent]:
        """All agents."""
        with open_reader(self._database) as reader:
            return reader.agents()

    def digest(self, topic: str) -> str | None:
        """The digest of what is held of a part; None where there is no such record."""
        address = self._topics.parse(topic)
        if address is None:
            return None
        held = self.part(topic)
        return digest(address.record.record, {name: one.value for name, one in held.items() if one.value is not None})

    def part(self, topic: str) -> dict[str, Held]:
        """What is held of the fields of a part, those that are gone too."""
        address = self._topics.parse(topic)
        if address is None:
            return {}
        with open_reader(self._database) as reader:
            stored = reader.record(address.record)
        if stored is None or address.owner is None:
            return {}
        return MirroredRecord(address.record, stored).held(address.owner)
