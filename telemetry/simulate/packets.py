"""The few packets of MQTT 3.1.1 (OASIS, sections 2 and 3) that a simulated agent sends and receives, at QoS 1."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from telemetry.wire import Outgoing

CONNACK, PUBLISH, PUBACK, SUBACK = 2, 3, 4, 9

REFUSED = 0x80
"""The code of a SUBACK for a filter that is not allowed."""

_PUBACKS = re.compile(rb"(?:\x40\x02..)++", re.DOTALL)

_CLEAN_SESSION, _WILL, _WILL_QOS_1, _WILL_RETAIN = 0x02, 0x04, 0x08, 0x20


class Packet(NamedTuple):
    """A packet that came in: its type, the low bits of its first byte, and what follows its length."""

    kind: int
    flags: int
    body: bytes


class Message(NamedTuple):
    """What a PUBLISH holds; `mid` is 0 at QoS 0."""

    topic: str
    payload: bytes
    mid: int


def connect(client_id: str, will: Outgoing | None, keepalive: int) -> bytes:
    """CONNECT with a clean session, and a will if there is one."""
    flags, last = _CLEAN_SESSION, b""
    if will is not None:
        flags |= _WILL | _WILL_QOS_1 | (_WILL_RETAIN if will.retain else 0)
        last = text(will.topic) + _bytes(will.payload)
    head = text("MQTT") + bytes([4, flags]) + keepalive.to_bytes(2, "big")
    return _packet(0x10, head + text(client_id) + last)


def subscribe(mid: int, filters: Sequence[str]) -> bytes:
    """SUBSCRIBE at QoS 1."""
    return _packet(0x82, mid.to_bytes(2, "big") + b"".join(text(one) + b"\1" for one in filters))


def publish(mid: int, message: Outgoing) -> bytes:
    """PUBLISH at QoS 1."""
    return _packet(0x32 | message.retain, text(message.topic) + mid.to_bytes(2, "big") + message.payload)


def publish_to(topic: bytes, mid: int, payload: bytes) -> bytes:
    """PUBLISH at QoS 1 to a topic that is a `text` already: where many go to one, this is what each costs."""
    return b"\x32%b%b%b%b" % (_length(len(topic) + 2 + len(payload)), topic, mid.to_bytes(2, "big"), payload)


def puback(mid: int) -> bytes:
    """PUBACK."""
    return b"\x40\x02" + mid.to_bytes(2, "big")


def disconnect() -> bytes:
    """DISCONNECT, after which no will is sent."""
    return b"\xe0\0"


def read_message(packet: Packet) -> Message:
    """The message of a PUBLISH."""
    size = int.from_bytes(packet.body[:2], "big")
    topic, rest = packet.body[2 : 2 + size].decode(), packet.body[2 + size :]
    if packet.flags & 0x06:
        return Message(topic, rest[2:], int.from_bytes(rest[:2], "big"))
    return Message(topic, rest, 0)


def take_pubacks(buffer: bytearray) -> int:
    """How many PUBACKs the buffer begins with; they are taken out."""
    found = _PUBACKS.match(buffer)
    if found is None:
        return 0
    size = found.end()
    del buffer[:size]
    return size // 4


def take_packets(buffer: bytearray) -> Iterator[Packet]:
    """The packets that are whole, taken out of the buffer."""
    start = 0
    while (found := _whole(buffer, start)) is not None:
        body, end = found
        yield Packet(buffer[start] >> 4, buffer[start] & 0x0F, bytes(buffer[body:end]))
        start = end
    del buffer[:start]


def _whole(buffer: bytearray, start: int) -> tuple[int, int] | None:
    """Where the body of the packet at `start` begins and ends; None while it is not all there."""
    size, at = 0, start + 1
    while at < len(buffer):
        size |= (buffer[at] & 0x7F) << 7 * (at - start - 1)
        if not buffer[at] & 0x80:
            end = at + 1 + size
            return (at + 1, end) if end <= len(buffer) else None
        at += 1
    return None


def text(value: str) -> bytes:
    """A text as a packet holds it."""
    return _bytes(value.encode())


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + _length(len(body)) + body


@cache
def _length(size: int) -> bytes:
    length = bytearray()
    while True:
        size, low = divmod(size, 128)
        length.append(low | (0x80 if size else 0))
        if not size:
            return bytes(length)


def _bytes(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
