"""The few packets of MQTT 3.1.1 (OASIS, sections 2 and 3) that a simulated agent sends and receives, at QoS 1."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from telemetry.wire import Outgoing

CONNACK, PUBLISH, PUBACK, SUBACK = 2, 3, 4, 9

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


def connect(client_id: str, will: Outgoing, keepalive: int) -> bytes:
    """CONNECT with a clean session and a will."""
    flags = _CLEAN_SESSION | _WILL | _WILL_QOS_1 | (_WILL_RETAIN if will.retain else 0)
    head = _text("MQTT") + bytes([4, flags]) + keepalive.to_bytes(2, "big")
    return _packet(0x10, head + _text(client_id) + _text(will.topic) + _bytes(will.payload))


def subscribe(mid: int, filters: Sequence[str]) -> bytes:
    """SUBSCRIBE at QoS 1."""
    return _packet(0x82, mid.to_bytes(2, "big") + b"".join(_text(one) + b"\1" for one in filters))


def publish(mid: int, message: Outgoing) -> bytes:
    """PUBLISH at QoS 1."""
    return _packet(0x32 | message.retain, _text(message.topic) + mid.to_bytes(2, "big") + message.payload)


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


def _packet(first: int, body: bytes) -> bytes:
    size, length = len(body), bytearray()
    while True:
        size, low = divmod(size, 128)
        length.append(low | (0x80 if size else 0))
        if not size:
            return bytes([first]) + bytes(length) + body


def _text(text: str) -> bytes:
    return _bytes(text.encode())


def _bytes(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
