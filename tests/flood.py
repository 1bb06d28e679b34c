"""A mad agent: a stolen bundle's own topics, on a plain socket, as fast as the broker takes it. Ends with its parent.

python -m tests.flood PORT KIND MINER HOST
"""

import select
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping

from telemetry.simulate import packets
from telemetry.topics import AgentKey, Topics
from telemetry.wire import LARGEST_PAYLOAD, Backlog, Outgoing, Presence, PresenceState, encode_backlog, encode_presence

TOPICS = Topics()
_AT_ONCE = 1 << 16
"""Bytes made at once, at least."""


def _changes(key: AgentKey) -> Iterator[Outgoing]:
    topic, epoch, seq = f"miners/{key.minerId}/workers/{key.agent}", time.time_ns() // 1_000_000, 0
    while seq := seq + 1:
        yield Outgoing(topic, b'{"_epoch":%d,"_seq":%d,"_time":%d,"cpuLoad":%d}' % (epoch, seq, epoch, seq % 100))


def _large(key: AgentKey) -> Iterator[Outgoing]:
    rest = b'"junk":"%b"}' % (b"x" * (LARGEST_PAYLOAD - 200))
    for change in _changes(key):
        yield Outgoing(change.topic, change.payload[:-1] + b"," + rest)


def _rubbish(key: AgentKey) -> Iterator[Outgoing]:
    topic = f"miners/{key.minerId}/workers/{key.agent}"
    while True:
        yield Outgoing(topic, b"rubbish")


def _epochs(key: AgentKey) -> Iterator[Outgoing]:
    topic, epoch = f"miners/{key.minerId}/workers/{key.agent}", time.time_ns() // 1_000_000
    while epoch := epoch + 1:
        yield Outgoing(topic, b'{"_epoch":%d,"_seq":1,"_time":1,"_full":true,"cpuLoad":1}' % epoch)


def _presences(key: AgentKey) -> Iterator[Outgoing]:
    while True:
        for state in (PresenceState.ONLINE, PresenceState.STOPPED):
            presence = Presence(state=state, session="x", time=1, version="", epoch=1, next=1)
            yield Outgoing(TOPICS.presence(key.record), encode_presence(presence), retain=True)


def _batches(key: AgentKey) -> Iterator[Outgoing]:
    first = 1
    for change in _changes(key):
        after = first + 50
        epoch = int(change.payload[10:23])
        messages = [
            (change.topic, b'{"_epoch":%d,"_seq":%d,"_time":1,"cpuLoad":%d}' % (epoch, seq, seq % 100))
            for seq in range(first, after)
        ]
        batch = Backlog(epoch=epoch, first=first, next=after, messages=tuple(messages))
        yield Outgoing(TOPICS.backlog(key), encode_backlog(batch))
        first = after


KINDS: Mapping[str, Callable[[AgentKey], Iterator[Outgoing]]] = {
    "changes": _changes, "large": _large, "rubbish": _rubbish, "epochs": _epochs, "presences": _presences,
    "batches": _batches,
}  # fmt: skip
"""What it floods with."""


def flood(port: int, kind: str, key: AgentKey) -> None:
    """Publish until killed; acknowledgements are read and forgotten."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(packets.connect(key.client_id, None, 60))
    messages, mid, unsent = KINDS[kind](key), 0, b""
    sock.setblocking(False)
    while True:
        if not unsent:
            made = bytearray()
            while len(made) < _AT_ONCE:
                mid = mid % 65_535 + 1
                made += packets.publish(mid, next(messages))
            unsent = bytes(made)
        readable, writable, _ = select.select([sock], [sock], [])
        if readable and not sock.recv(1 << 16):
            return
        if writable:
            unsent = unsent[sock.send(unsent) :]


if __name__ == "__main__":
    flood(int(sys.argv[1]), sys.argv[2], AgentKey(sys.argv[3], sys.argv[4]))
