"""What browsers see live: the records of each miner, and sessions that follow some. No I/O; one event loop's thread.

A change is encoded once a miner, whoever follows it. A session holds no messages but a place in its miners' feeds: one
that falls behind what a feed keeps gets the records anew, so that a slow browser costs nothing.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import orjson

from telemetry.client import Update
from telemetry.errors import UsageError
from telemetry.topics import RecordKey, require_miner_id
from telemetry.web.following import News, Sampled

TICK = 5.0
"""Seconds between two messages by which a browser sees that the connection lives, and what time it is."""

MOST_CHANGES, MOST_BYTES = 40, 1 << 20
"""What a feed keeps for those who lag: some ten seconds, in no more bytes than a large miner's records."""

PART = 100
"""Records in one message of a snapshot: a slow browser has one part of it on the way."""

MOST_FOLLOWED = 500
"""Miners that a session can follow."""

_MOST_ERRORS = 8

Line = dict[str, Any]
"""What is told of one record: its fields, and reserved names that begin with `_`."""


class ShownRecord:
    """A record as it is shown: its fields with its key, when it was sampled (Unix ms), whether no change is missing."""

    __slots__ = ("fields", "is_whole", "time")

    def __init__(self, update: Update) -> None:
        self.fields = update.fields
        self.time, self.is_whole = update.time, update.is_whole

    @property
    def flat(self) -> Line:
        """The record as JSON."""
        return {**self.fields, "_time": self.time, "_whole": self.is_whole}


class Feed:
    """One miner: its records as they are, those who follow it, and the changes of the last seconds, numbered.

    `next` is the number of the next change.
    """

    def __init__(self, miner: str) -> None:
        self.miner = miner
        self.records: dict[RecordKey, ShownRecord] = {}
        self.followers: set[Session] = set()
        self.next = 0
        self._changes: deque[str] = deque()
        self._size = 0
        self._parts: dict[tuple[int, int, tuple[RecordKey, ...]], str] = {}

    @property
    def first(self) -> int:
        """The number of the oldest change that is kept."""
        return self.next - len(self._changes)

    def change(self, number: int) -> str:
        """A change that is kept, encoded."""
        return self._changes[number - self.first]

    def part(self, number: int, parts: int, keys: tuple[RecordKey, ...], now: int) -> str:
        """Some records as they are, encoded: a part of a snapshot."""
        named = number, parts, keys
        if named not in self._parts:
            records = [self.records[key].flat for key in keys if key in self.records]
            head = {"snapshot": self.miner, "time": now, "part": number, "parts": parts}
            self._parts[named] = encoded(head | {"records": records})
        return self._parts[named]

    def take(self, lines: Sequence[Line]) -> None:
        """Number a change, and keep it for those who follow."""
        self.next += 1
        self._parts.clear()
        if not self.followers:
            self._changes.clear()
            self._size = 0
            return
        self._changes.append(encoded({"change": self.miner, "records": lines}))
        self._size += len(self._changes[-1])
        while len(self._changes) > MOST_CHANGES or self._size > MOST_BYTES:
            self._size -= len(self._changes.popleft())
        for session in self.followers:
            session.wake(self.miner)

    def update(self, update: Update) -> Line | None:
        """Take in what changed of a record; what is told of it."""
        key, fields = update.key, update.fields
        if not fields:
            return _named(key, {"_forgotten": True}) if self.records.pop(key, None) else None
        before, now = self.records.get(key), ShownRecord(update)
        self.records[key] = now
        if before is None:
            return now.flat
        changed = {name: fields[name] for name in update.changed if name in fields}
        gone = [name for name in update.changed if name not in fields]
        told = changed | _moved(before, Sampled(update.time, update.is_whole))
        return _named(key, told | {"_gone": gone} if gone else told)

    def sample(self, key: RecordKey, sampled: Sampled) -> Line | None:
        """Take in that a record was sampled again; what is told of it."""
        record = self.records.get(key)
        if record is None or (record.time, record.is_whole) == sampled:
            return None
        told = _moved(record, sampled)
        record.time, record.is_whole = sampled
        return _named(key, told)


def _named(key: RecordKey, told: Line) -> Line:
    return told if key.hostName is None else {"hostName": key.hostName} | told


def _moved(before: ShownRecord, now: Sampled) -> Line:
    whole = {} if now.is_whole == before.is_whole else {"_whole": now.is_whole}
    return {"_time": now.time} | whole


def encoded(message: Line) -> str:
    """A message as it is sent."""
    return orjson.dumps(message).decode()


class Live:
    """All miners' feeds, the sessions, and whether there is a connection to the broker. `now` gives Unix ms."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.now = now
        self.feeds: dict[str, Feed] = {}
        self.sessions: set[Session] = set()
        self.is_connected = False
        self.outage: str | None = None

    def take(self, news: News) -> None:
        """Take in what happened, and wake the sessions that it is for."""
        lines: dict[str, list[Line]] = {}
        for update in news.updates.values():
            self._add(lines, update.key, self.feed(update.key.minerId).update(update))
        for key, sampled in news.sampled.items():
            if key.minerId in self.feeds:
                self._add(lines, key, self.feeds[key.minerId].sample(key, sampled))
        for miner, told in lines.items():
            self.feeds[miner].take(told)
            self.drop_if_empty(miner)
        if (news.is_connected, news.outage) != (self.is_connected, self.outage):
            self.is_connected, self.outage = news.is_connected, news.outage
            for session in self.sessions:
                session.tell_broker()

    def tick(self) -> None:
        """Have all sessions tell the time."""
        for session in self.sessions:
            session.tick()

    @property
    def broker(self) -> Line:
        """What is told of the connection to the broker."""
        told: Line = {"broker": "connected" if self.is_connected else "lost", "time": self.now()}
        return told if self.outage is None else told | {"reason": self.outage}

    def feed(self, miner: str) -> Feed:
        """A miner's feed, whether or not anything is known of the miner."""
        return self.feeds.setdefault(miner, Feed(miner))

    def drop_if_empty(self, miner: str) -> None:
        """Forget a miner of which nothing is known and that nobody follows."""
        feed = self.feeds[miner]
        if not feed.records and not feed.followers:
            del self.feeds[miner]

    @staticmethod
    def _add(lines: dict[str, list[Line]], key: RecordKey, line: Line | None) -> None:
        if line is not None:
            lines.setdefault(key.minerId, []).append(line)


class _Place:
    """Where a session is in a feed: what is still to be sent of a snapshot, and then the next change."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._next = -1
        self._parts: Iterator[tuple[int, int, tuple[RecordKey, ...]]] = iter(())

    def message(self, now: int) -> str | None:
        """The next message; None when all is sent."""
        if self._next < self._feed.first:
            self._next, self._parts = self._feed.next, _parts(tuple(self._feed.records))
        for number, parts, keys in self._parts:
            return self._feed.part(number, parts, keys, now)
        if self._next == self._feed.next:
            return None
        self._next += 1
        return self._feed.change(self._next - 1)


def _parts(keys: tuple[RecordKey, ...]) -> Iterator[tuple[int, int, tuple[RecordKey, ...]]]:
    starts = range(0, max(len(keys), 1), PART)
    for number, start in enumerate(starts):
        yield number, len(starts), keys[start : start + PART]


class Session:
    """One browser, as a context manager: it follows miners that it may see, as long as its login, if any, stands."""

    def __init__(self, live: Live, sees: Callable[[str], bool], login: str | None = None) -> None:
        self._live, self._sees = live, sees
        self.login = login
        self._places: dict[str, _Place] = {}
        self._due: dict[str, None] = {}
        self._errors: deque[str] = deque(maxlen=_MOST_ERRORS)
        self._woken = asyncio.Event()
        self._tells_broker = self._ticks = False
        self.ended: int | None = None

    def __enter__(self) -> "Session":
        self._live.sessions.add(self)
        self.tell_broker()
        self.tick()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.sessions.discard(self)
        for miner in list(self._places):
            self._unfollow(miner)

    async def messages(self) -> AsyncIterator[str]:
        """What is to be sent, one at a time, until the session is ended."""
        while self.ended is None:
            await self._woken.wait()
            self._woken.clear()
            while self.ended is None and (message := self._message()) is not None:
                yield message

    def end(self, code: int) -> None:
        """Have the connection closed with a code of RFC 6455."""
        self.ended = code
        self._woken.set()

    def receive(self, text: str) -> None:
        """Take in what the browser sent."""
        try:
            act, miner = _read(text)
            if act == "unsubscribe":
                self._unfollow(miner)
            else:
                self._follow(miner)
        except UsageError as error:
            self._errors.append(encoded({"error": str(error)}))
            self._woken.set()

    def wake(self, miner: str) -> None:
        """There is something of a miner to be sent."""
        self._due[miner] = None
        self._woken.set()

    def tell_broker(self) -> None:
        """The connection to the broker is to be told."""
        self._tells_broker = True
        self._woken.set()

    def tick(self) -> None:
        """The time is to be told."""
        self._ticks = True
        self._woken.set()

    def _message(self) -> str | None:
        if self._errors:
            return self._errors.popleft()
        if self._tells_broker:
            self._tells_broker = False
            return encoded(self._live.broker)
        if self._ticks:
            self._ticks = False
            return encoded({"tick": self._live.now()})
        while self._due:
            miner = next(iter(self._due))
            message = self._places[miner].message(self._live.now())
            if message is not None:
                return message
            del self._due[miner]
        return None

    def _follow(self, miner: str) -> None:
        if not self._sees(miner):
            raise UsageError(f"{miner}: no such miner")
        if miner not in self._places and len(self._places) >= MOST_FOLLOWED:
            raise UsageError(f"{miner}: {MOST_FOLLOWED} miners are followed already; unsubscribe from one")
        feed = self._live.feed(miner)
        feed.followers.add(self)
        self._places[miner] = _Place(feed)
        self.wake(miner)

    def _unfollow(self, miner: str) -> None:
        if self._places.pop(miner, None) is not None:
            self._due.pop(miner, None)
            self._live.feeds[miner].followers.discard(self)
            self._live.drop_if_empty(miner)


_EXPECTED = 'expected {"subscribe": "f01234"} or {"unsubscribe": "f01234"}'


def _read(text: str) -> tuple[str, str]:
    """The act and the miner of a browser's message; UsageError where it is none."""
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise UsageError(f"not JSON: {_EXPECTED}") from None
    match message:
        case {"subscribe": str(miner), **rest} if not rest:
            return "subscribe", require_miner_id(miner)
        case {"unsubscribe": str(miner), **rest} if not rest:
            return "unsubscribe", require_miner_id(miner)
    raise UsageError(_EXPECTED)
