"""`python -m bench.pair ROLE PORT COUNTS` is one end of a pair that shows what a broker can do: raw sockets, or paho.

All packets are of one size, so that an end does as little as can be: the publisher sends them as they were made
beforehand, the subscriber finds their mids in strides. `Counts` is what the ends share.
"""

import contextlib
import itertools
import mmap
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from telemetry.simulate import packets

PAYLOAD, TOPICS, LAG = 150, 1000, 4000
"""Bytes of a message, topics, and messages by which the subscriber may be behind the publisher."""

FILTER = "miners/+/workers/+"

_MIDS = 60_000
_JOINED = 100
_PAUSE = 0.0005
"""Seconds in which packets gather: who is woken by each of them does nothing else."""


class Counts:
    """How many messages the subscriber has received, and whether it has subscribed, in a file that is shared."""

    _LAYOUT = struct.Struct("<qq")

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(self._LAYOUT.size))
        with path.open("r+b") as file:
            self._counts = memoryview(mmap.mmap(file.fileno(), self._LAYOUT.size)).cast("q")

    @property
    def received(self) -> int:
        """How many messages were received."""
        return self._counts[0]

    @property
    def is_ready(self) -> bool:
        """Whether the subscriber has subscribed."""
        return self._counts[1] == 1

    def receive(self, count: int) -> None:
        """Note that so many more were received."""
        self._counts[0] += count

    def get_ready(self) -> None:
        """Note that the subscription stands."""
        self._counts[1] = 1


def _packet(number: int) -> bytes:
    topic = packets.text(f"miners/f01234/workers/seal{number % TOPICS:05}")
    return packets.publish_to(topic, number % _MIDS + 1, b"x" * PAYLOAD)


_SIZE = len(_packet(0))
_MID_AT = _SIZE - PAYLOAD - 2


def _publish(port: int, counts: Counts) -> None:
    """Publish for ever, the lag within its bound."""
    joined = [b"".join(map(_packet, range(start, start + _JOINED))) for start in range(0, _MIDS, _JOINED)]
    with _connected(port, "publisher") as broker:
        broker.setblocking(False)
        for sent, block in zip(itertools.count(_JOINED, _JOINED), itertools.cycle(joined), strict=False):
            while sent - counts.received > LAG:
                _drain(broker)
                time.sleep(_PAUSE)
            _send(broker, memoryview(block))


def _send(broker: socket.socket, data: memoryview) -> None:
    while data:
        # The broker takes no more until its PUBACKs are read.
        _drain(broker)
        try:
            data = data[broker.send(data) :]
        except BlockingIOError:
            select.select([broker], [broker], [])


def _drain(broker: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        broker.recv(1 << 18)


def _receive_resting(port: int, counts: Counts) -> None:
    """The same, but let packets gather after each look."""
    _receive(port, counts, rest=_PAUSE)


def _receive(port: int, counts: Counts, *, rest: float = 0.0) -> None:
    """Acknowledge all that comes, at once."""
    with _connected(port, "subscriber") as broker:
        broker.sendall(packets.subscribe(1, [FILTER]))
        broker.recv(5, socket.MSG_WAITALL)
        counts.get_ready()
        received = bytearray()
        while data := broker.recv(1 << 20):
            received += data
            whole = len(received) // _SIZE * _SIZE
            acknowledged = bytearray(b"\x40\x02\0\0" * (whole // _SIZE))
            acknowledged[2::4] = received[_MID_AT:whole:_SIZE]
            acknowledged[3::4] = received[_MID_AT + 1 : whole : _SIZE]
            broker.sendall(acknowledged)
            counts.receive(whole // _SIZE)
            del received[:whole]
            if rest:
                time.sleep(rest)


def _receive_with_paho(port: int, counts: Counts) -> None:
    """Receive as who uses paho as it stands does."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="subscriber")

    def subscribe(*_: object) -> None:
        client.subscribe(FILTER, 1)

    client.on_connect = subscribe
    client.on_subscribe = lambda *_: counts.get_ready()
    client.on_message = lambda *_: counts.receive(1)
    client.connect("127.0.0.1", port)
    client.loop_forever()


@contextlib.contextmanager
def _connected(port: int, name: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port)) as broker:
        broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        broker.sendall(packets.connect(name, None, 300))
        broker.recv(4, socket.MSG_WAITALL)
        yield broker


ROLES = {"publish": _publish, "receive": _receive, "rest": _receive_resting, "paho": _receive_with_paho}

if __name__ == "__main__":
    ROLES[sys.argv[1]](int(sys.argv[2]), Counts(Path(sys.argv[3])))
