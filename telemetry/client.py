"""A live copy of one miner's records, or of all, from snapshots and the changes after them.

from telemetry.client import Fleet

with Fleet("mqtt://127.0.0.1:1883", miner="f01234") as fleet:
    for update in fleet.updates():
        print(update.key, {name: update.fields.get(name) for name in sorted(update.changed)})
"""

import gc
import logging
import queue
import secrets
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import NamedTuple

from telemetry.admission import admission, admit_snapshot
from telemetry.errors import WireError
from telemetry.fields import Owner, Value
from telemetry.follow import RecordCopy
from telemetry.mqtt import BrokerUrl, Connected, Connection, Disconnected, Event, Message, Messages
from telemetry.topics import Channel, RecordKey, Topics
from telemetry.wire import (
    Outgoing,
    PresenceState,
    Snapshot,
    decode_change,
    decode_presence,
    decode_snapshot,
    encode_resubscribe,
)

_log = logging.getLogger(__name__)

FIRST_ASK, LAST_ASK = 5.0, 60.0
"""Seconds until snapshots are asked for, doubling from the first to the last; most gaps heal before the first."""

_MOST_HOSTS_ASKED = 50


class Update(NamedTuple):
    """A record that changed: all its fields as they are now, and the names of those that are different.

    `fields` is empty when the record was forgotten. `is_whole` is False while changes are known to be missing.
    """

    key: RecordKey
    fields: Mapping[str, Value]
    changed: Set[str]
    time: int
    is_whole: bool


@contextmanager
def _collector_resting() -> Iterator[None]:
    """Keep Python's collector from looking through all copies again and again while thousands are made of snapshots."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Fleet:
    """Follows one miner (and there one host), or all. Use it as a context manager, from one thread."""

    def __init__(
        self,
        broker: str | BrokerUrl = "mqtt://127.0.0.1:1883",
        *,
        miner: str | None = None,
        host: str | None = None,
        topics: Topics | None = None,
        protocol: str = "3.1.1",
    ) -> None:
        self._topics = topics or Topics()
        self._copies: dict[RecordKey, RecordCopy] = {}
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._asks: dict[RecordKey, tuple[float, float]] = {}
        self._missing: set[RecordKey] = set()
        self._presences: dict[RecordKey, PresenceState] = {}
        self._snapshots = 0
        self._is_connected = False
        self._outage: str | None = None
        self._connection = Connection(
            BrokerUrl.parse(broker) if isinstance(broker, str) else broker,
            client_id=f"telemetry.reader.{secrets.token_hex(6)}",
            deliver=self._inbox.put,
            filters=self._topics.followed(RecordKey(miner, host) if miner else None),
            protocol=protocol,
        )

    def __enter__(self) -> "Fleet":
        self._connection.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    @property
    def records(self) -> Mapping[RecordKey, RecordCopy]:
        """The copies as of the last poll, those with a snapshot; `is_whole` tells whether one can be trusted."""
        return {key: copy for key, copy in self._copies.items() if copy.has_snapshot}

    @property
    def presences(self) -> Mapping[RecordKey, PresenceState]:
        """What the agents, or their wills, said last of themselves."""
        return self._presences

    @property
    def snapshots(self) -> int:
        """How many snapshots came in."""
        return self._snapshots

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._is_connected

    @property
    def outage(self) -> str | None:
        """Why the last connection ended or could not be made; None while there is one, or none was tried."""
        return self._outage

    def updates(self) -> Iterator[Update]:
        """What changes, without end."""
        while True:
            yield from self.poll(1.0)

    def poll(self, timeout: float) -> list[Update]:
        """Wait up to `timeout` seconds for news, and take in all there are."""
        updates: list[Update] = []
        with suppress(queue.Empty):
            event = self._inbox.get(timeout=timeout)
            with _collector_resting():
                self._take_in(event, updates)
                while True:
                    self._take_in(self._inbox.get_nowait(), updates)
        self._ask_for_what_is_missing(time.monotonic())
        return updates

    def resubscribe(self, miner: str, hosts: tuple[str, ...] = ()) -> bool:
        """Ask for a miner's snapshots, of all its records or of some hosts; False when there is no connection."""
        topic = self._topics.resubscribe(miner)
        return self._connection.publish(Outgoing(topic=topic, payload=encode_resubscribe(hosts)))

    def forget(self, key: RecordKey) -> bool:
        """Ask that a record be removed, by clearing its agent's presence; False when there is no connection."""
        return self._connection.publish(Outgoing(topic=self._topics.presence(key), payload=b"", retain=True))

    def flush(self, timeout: float) -> bool:
        """Wait until the broker has taken what was asked."""
        return self._connection.flush(timeout)

    def _take_in(self, event: Event, updates: list[Update]) -> None:
        match event:
            case Messages():
                for message in event.messages:
                    update = self._message(message)
                    if update is not None:
                        updates.append(update)
            case Connected():
                self._is_connected, self._outage = True, None
            case Disconnected():
                self._is_connected, self._outage = False, event.reason

    def _message(self, message: Message) -> Update | None:
        address = self._topics.parse(message.topic)
        if address is None:
            return None
        channel, key, _, owner = address
        try:
            if channel is Channel.PRESENCE and message.payload:
                self._presences[key] = decode_presence(message.payload).state
            elif channel is Channel.SNAPSHOT:
                return self._snapshot(key, message.payload) if message.payload else self._forget(key)
            elif channel is Channel.CHANGE and owner is not None:
                return self._change(key, owner, message.payload)
        except WireError as error:
            _log.debug("%s: %s", message.topic, error)
        return None

    def _snapshot(self, key: RecordKey, payload: bytes) -> Update | None:
        copy = self._copy(key)
        self._snapshots += 1
        values, time_, positions = decode_snapshot(payload)
        admitted = admit_snapshot(key.record, values)
        return self._update(key, copy, copy.apply_snapshot(Snapshot(admitted, time_, positions)))

    def _change(self, key: RecordKey, owner: Owner, payload: bytes) -> Update | None:
        copy = self._copy(key)
        change = decode_change(payload)
        admitted = admission(key.record, owner).admit(change.values)
        return self._update(key, copy, copy.apply_change(owner, change._replace(values=admitted.values)))

    def _copy(self, key: RecordKey) -> RecordCopy:
        copy = self._copies.get(key)
        if copy is None:
            copy = self._copies[key] = RecordCopy(key.record)
        return copy

    def _forget(self, key: RecordKey) -> Update | None:
        self._missing.discard(key)
        copy = self._copies.pop(key, None)
        if copy is None:
            return None
        return Update(key, {}, copy.fields.keys(), copy.time, is_whole=True)

    def _update(self, key: RecordKey, copy: RecordCopy, changed: Set[str]) -> Update | None:
        is_whole = copy.is_whole
        if is_whole:
            self._missing.discard(key)
        else:
            self._missing.add(key)
        return Update(key, copy.fields, changed, copy.time, is_whole) if changed else None

    def _ask_for_what_is_missing(self, now: float) -> None:
        self._asks = {key: self._asks.get(key, (now + FIRST_ASK, FIRST_ASK)) for key in self._missing}
        due = [key for key, (when, _) in self._asks.items() if now >= when]
        for key in due:
            wait = min(2 * self._asks[key][1], LAST_ASK)
            self._asks[key] = (now + wait, wait)
        for miner in {key.minerId for key in due}:
            hosts = [key.hostName for key in due if key.minerId == miner]
            named = tuple(host for host in hosts if host is not None)
            whole_miner = None in hosts or len(named) > _MOST_HOSTS_ASKED
            self.resubscribe(miner, () if whole_miner else named)
