"""An agent of a large simulated fleet: a real publisher over a log that holds what a message is made from, no bytes.

What it says on connecting, when asked, when acknowledged and every 15 minutes is the publisher's. Its changes, nearly
all that a fleet says, are made from a table and only numbered by the publisher: that costs 2 µs instead of 30.
"""

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from random import Random

import orjson

from telemetry.config import Intervals
from telemetry.fields import Owner, Value
from telemetry.publish import Dice, Publisher
from telemetry.records import WORKER_INFO
from telemetry.spooling import MOST_ROWS, Row, batch_of
from telemetry.topics import AgentKey, Topics
from telemetry.wire import Outgoing, without_epoch

CHANGED_FIELDS = 5
"""Of each change."""

_MIB = 1 << 20

_WALKS: Sequence[Mapping[str, tuple[float, float, float]]] = (
    {
        "cpuLoad": (0.0, 100.0, 0.1),
        "useMemory": (8 << 30, 256 << 30, _MIB),
        "diskR": (0, 2 << 30, 512),
        "diskW": (0, 2 << 30, 512),
        "cpuTemper": (40.0, 85.0, 0.5),
    },
    {
        "gpuLoad": (0.0, 100.0, 0.5),
        "gpuMemory": (0, 24 << 30, _MIB),
        "netRx": (0, 1 << 30, 64),
        "netTx": (0, 1 << 30, 64),
        "gpuTemper": (30, 90, 1),
    },
)
"""What changes together: each field with its bounds and its resolution. A host's changes take these in turn."""

_CONSTANT: Mapping[str, Value] = {
    "totalMemory": 256 << 30,
    "diskUsedPercent": 61.4,
    "gpuInfo": [{"index": 0, "name": "NVIDIA GeForce RTX 3090", "load": 35, "temper": 61, "totalMemory": 24 << 30}],
    "useDisk": [
        {"mount": "/", "device": "/dev/md0", "filesystem": "ext4", "total": 480 << 30, "used": 70 << 30},
        {"mount": "/seal", "device": "/dev/md1", "filesystem": "xfs", "total": 14 << 40, "used": 8 << 40},
    ],
    "netIO": [{"interface": "bond0", "rx": 10 << 20, "tx": 4 << 20}],
}


class Course:
    """The values of all hosts, as a ring of changes: what a host's message says follows from its number alone."""

    _STEPS = 256

    def __init__(self, seed: int) -> None:
        dice = Random(seed)  # noqa: S311  # values of a simulation
        walks = [list(itertools.islice(_walk(walk, dice), self._STEPS)) for walk in _WALKS]
        # There and back again: so each differs from the one before also where the ring closes.
        rings = [walk + walk[-2:0:-1] for walk in walks]
        self._values: Sequence[Mapping[str, Value]] = [values for step in zip(*rings, strict=True) for values in step]
        self._texts = [orjson.dumps(values)[1:] for values in self._values]

    def text(self, at: int) -> bytes:
        """The fields of a change as they stand in its message, behind the reserved keys."""
        return self._texts[at % len(self._texts)]

    def change(self, at: int) -> Mapping[str, Value]:
        """The fields of a change."""
        return self._values[at % len(self._values)]

    def values(self, stated: Sequence[int]) -> dict[str, Value]:
        """All fields of a host after some changes, the last one of each kind."""
        values = dict(_CONSTANT)
        for at in stated:
            values |= self.change(at)
        return values


def _walk(bounds: Mapping[str, tuple[float, float, float]], dice: Random) -> Iterator[dict[str, Value]]:
    """Values of which each differs from the one before."""
    held = {name: dice.uniform(low, high) for name, (low, high, _) in bounds.items()}
    while True:
        for name, (low, high, resolution) in bounds.items():
            moved = dice.choice((1, -1)) * dice.uniform(2 * resolution, (high - low) / 20)
            held[name] += moved if low <= held[name] + moved <= high else -moved
        yield {name: _rounded(held[name], *bound) for name, bound in bounds.items()}


def _rounded(value: float, low: float, _high: float, resolution: float) -> float:
    steps = round(value / resolution)
    return round(steps * resolution, 1) if isinstance(low, float) else int(steps * resolution)


class _Log:
    """Messages that follow each other, each as the time of a change or as what is kept of any other."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.messages: deque[int | bytes] = deque()

    @property
    def first(self) -> int:
        """The number of the oldest message."""
        return self.end - len(self.messages)


class LightSpool:
    """A spool in memory of one topic, in which a change takes up the room of a reference: its number says the rest.

    It is bounded by who writes: a fleet writes nothing while too much of it is not acknowledged.
    """

    def __init__(self, epoch: int, topic: str, course: Course, offset: int) -> None:
        self.epoch, self.lost = epoch, 0
        self._topic, self._course, self._offset = topic, course, offset
        self._log = _Log(1)
        self._logs = {epoch: self._log}

    @property
    def next(self) -> int:
        """The number of the next message."""
        return self._log.end

    def __len__(self) -> int:
        return sum(len(log.messages) for log in self._logs.values())

    def begin(self, epoch: int) -> None:
        """Go on in a new log."""
        self.epoch, self._log = epoch, _Log(self._log.end)
        self._logs = {known: log for known, log in self._logs.items() if log.messages} | {epoch: self._log}

    def keep_change(self, seq: int, time: int) -> bytes:
        """Keep the next message, a change; its payload."""
        self._log.messages.append(time)
        self._log.end = seq + 1
        return b'{"_epoch":%d,"_seq":%d,"_time":%d,%b' % (self.epoch, seq, time, self._course.text(seq + self._offset))

    def append(self, rows: Sequence[Row]) -> bool:
        """Keep rows; always true."""
        self._log.messages.extend(row.kept for row in rows)
        self._log.end = rows[-1].seq + 1
        return True

    def delete(self, epoch: int, through: int) -> None:
        """Let the messages of a log go, up to a number."""
        log = self._logs[epoch]
        for _ in range(min(through + 1 - log.first, len(log.messages))):
            log.messages.popleft()

    def epochs(self) -> Sequence[int]:
        """The logs of which there are messages."""
        return [epoch for epoch, log in self._logs.items() if log.messages]

    def oldest(self, epoch: int) -> int | None:
        """The lowest number of a log's messages."""
        log = self._logs.get(epoch)
        return log.first if log is not None and log.messages else None

    def read(self, after: int, below: int) -> list[Row]:
        """The first messages in a range of numbers, of one log, as many as make a batch."""
        for epoch, log in self._logs.items():
            start, end = max(after + 1, log.first), min(below, log.end)
            if start < end:
                last = min(end, start + MOST_ROWS)
                messages = itertools.islice(log.messages, start - log.first, last - log.first)
                return batch_of([self._row(epoch, seq, message) for seq, message in enumerate(messages, start)])
        return []

    def oldest_time(self) -> int | None:
        """When the oldest change that stands first in a log was sampled, Unix ms; None where there is none."""
        first = [log.messages[0] for log in self._logs.values() if log.messages]
        return min((time for time in first if isinstance(time, int)), default=None)

    def _row(self, epoch: int, seq: int, message: int | bytes) -> Row:
        if isinstance(message, int):
            text = self._course.text(seq + self._offset)
            message = without_epoch(b'{"_epoch":0,"_seq":%d,"_time":%d,%b' % (seq, message, text))
        return Row(epoch, seq, self._topic, message)


class LightAgent:
    """One host agent. `now` is the monotonic clock in seconds, `time` Unix milliseconds."""

    def __init__(
        self,
        key: AgentKey,
        *,
        course: Course,
        offset: int,
        topics: Topics,
        intervals: Intervals,
        aggregators: Sequence[str],
        dice: Dice,
        process: str,
        now: float,
        time: int,
    ) -> None:
        self.key = key
        self._course, self._offset = course, offset
        self._request = topics.request(key)
        topic = topics.change(key.record, Owner.HARDWARE)
        self.spool = LightSpool(time, topic, course, offset)
        self.publisher = Publisher(
            key,
            owner=Owner.HARDWARE,
            topics=topics,
            intervals=intervals,
            spool=self.spool,
            now=now,
            dice=dice,
            deadbands=_EXACT,
            aggregators=aggregators,
            process=process,
            since=time,
        )
        self._stated = [offset - one for one in range(len(_WALKS))]
        self._stated.sort(key=lambda at: at % len(_WALKS))
        self._time = time

    @property
    def values(self) -> dict[str, Value]:
        """All that it states."""
        return self._course.values(self._stated)

    @property
    def is_reporting(self) -> bool:
        """Whether its first full report is written, after which changes may follow."""
        return self.publisher.own.was_full

    def change(self, now: float, time: int) -> bytes:
        """Write a change; its payload, to be published if the publisher is online."""
        seq = self.publisher.number(now)
        at = seq + self._offset
        self._stated[at % len(_WALKS)] = at
        self._time = time
        return self.spool.keep_change(seq, time)

    def receive(self, topic: str, payload: bytes, now: float, time: int) -> None:
        """Take in a message of one of the publisher's filters."""
        if topic == self._request:
            self._tell()  # the answer may be what is stated
        self.publisher.receive(topic, payload, now=now, time=time)

    def work(self, now: float, time: int) -> list[Outgoing]:
        """Do what is due; what has to be published."""
        due = self.publisher.next_due()
        if due is None or due <= now:
            self._tell()
            self.publisher.tick(now=now, time=time)
        return self.publisher.take_outgoing()

    def _tell(self) -> None:
        """Let the publisher know what the changes have said meanwhile: full reports are its own."""
        own = self.publisher.own
        own.update(values := self.values, values.keys(), self._time)
        if own.was_full:
            own.values.take()


_EXACT = dict.fromkeys(WORKER_INFO.owned_by(Owner.HARDWARE), 0.0)
