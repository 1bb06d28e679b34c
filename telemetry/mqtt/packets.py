"""PUBLISH and PUBACK as bytes, the two packets that come by the thousand. No I/O; every other packet is paho's.

What is the least unusual about one of them is not judged here: it is left to paho, whole, which reads or refuses it.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from telemetry.wire import new_tuple

_PUBLISH: Final = 0x30
_TYPE_AND_QOS_2: Final = 0xF4
_QOS_1: Final = 0x02
_RETAIN: Final = 0x01
_PUBACK: Final = 0x40
_NO_TYPE: Final = 0
_TAKEN: Final = (0x00, 0x10)
"""Success, and success without a subscriber: why a PUBLISH was acknowledged, as MQTT 5 says."""

_LONGEST_TOPIC: Final = 65_535
_LONGEST_BODY: Final = 268_435_455
_MOST_TOPICS: Final = 65_536
"""Known by their bytes; some MB. A fleet's topics repeat, a stranger's need not."""


class Message(NamedTuple):
    """A message that came in. `mid` is the packet identifier by which it is acknowledged, empty at QoS 0."""

    topic: str
    payload: bytes
    retained: bool
    mid: bytes


class PacketReader:
    """Cuts the bytes of a connection into packets, however they are cut themselves."""

    def __init__(self, *, is_v5: bool) -> None:
        self._is_v5 = is_v5
        self._pieces: list[bytes] = []
        self._held = self._needed = 0
        self._topics: dict[bytes, str] = {}
        self._acknowledged: list[int] = []

    def feed(self, piece: bytes) -> Iterator[list[Message] | bytes]:
        """What is complete with this piece, in order: messages that follow one another, and packets for paho."""
        # A large packet is put together once, not with each of its pieces.
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held < self._needed:
            return
        data = b"".join(self._pieces)
        messages: list[Message] = []
        at, end, needed = 0, len(data), 2
        while (at := self._read_messages(data, at, messages)) + 1 < end:
            first, length, body = _header(data, at)
            stop = body + length
            if stop > end:
                needed = stop - at
                break
            if first != _PUBACK or not self._is_puback(data, body, stop):
                if messages:
                    yield messages
                    messages = []
                yield data[at:stop]
            at = stop
        self._pieces, self._held, self._needed = [data[at:]] if at < end else [], end - at, needed
        if messages:
            yield messages

    def take_acknowledged(self) -> list[int]:
        """The packet identifiers that PUBACKs named since the last call."""
        acknowledged, self._acknowledged = self._acknowledged, []
        return acknowledged

    def _read_messages(self, data: bytes, at: int, messages: list[Message]) -> int:
        """Take in the PUBLISHes from there on; where the packet begins that is another, or unusual, or not complete.

        One loop without a call: of all that a message costs until it is delivered, this is half.
        """
        end, is_v5, topics = len(data), self._is_v5, self._topics
        while at + 2 < end:
            first, length, body = data[at], data[at + 1], at + 2
            if length > 127:
                if data[body] > 127:
                    first, length, body = _header(data, at)
                else:
                    length += (data[body] << 7) - 128
                    body += 1
            stop = body + length
            if first & _TYPE_AND_QOS_2 != _PUBLISH or stop > end or length < 2:
                break
            after = body + 2 + (data[body] << 8 | data[body + 1])
            name, mid = data[body + 2 : after], b""
            if first & _QOS_1:
                mid = data[after : after + 2]
                after += 2
            if is_v5:
                if data[after : after + 1] != b"\0":
                    break  # it has properties
                after += 1
            topic = topics.get(name) or self._decode(name)
            if after > stop or topic is None:
                break
            messages.append(new_tuple(Message, (topic, data[after:stop], first & _RETAIN == _RETAIN, mid)))
            at = stop
        return at

    def _decode(self, name: bytes) -> str | None:
        """A topic that is not known yet; None where there is none, or it is no text."""
        try:
            topic = name.decode()
        except UnicodeDecodeError:
            return None
        if not topic:
            return None
        if len(self._topics) >= _MOST_TOPICS:
            self._topics.clear()
        self._topics[name] = topic
        return topic

    def _is_puback(self, data: bytes, body: int, stop: int) -> bool:
        """Take in a PUBACK; whether it is one that needs no second look."""
        length = stop - body
        if length < 2:
            return False
        self._acknowledged.append(data[body] << 8 | data[body + 1])
        return length == 2 or (self._is_v5 and length == 3 and data[body + 2] in _TAKEN)


def puback_packets(mids: Iterable[bytes]) -> bytes:
    """The PUBACKs of packet identifiers as they came, one after the other."""
    start = b"\x40\x02"
    joined = start.join(mids)
    return start + joined if joined else b""


def publish_packet(topic: str, payload: bytes, mid: int, *, retain: bool, is_v5: bool) -> bytes:
    """The PUBLISH of a message at QoS 1."""
    name = topic.encode()
    length = len(name) + len(payload) + (5 if is_v5 else 4)
    if not 0 < len(name) <= _LONGEST_TOPIC or "+" in topic or "#" in topic:
        raise ValueError("a topic has no wildcard, and 1 to 65,535 bytes")
    if length > _LONGEST_BODY:
        raise ValueError("a message has 256 MiB at most")
    parts = (
        b"\x33" if retain else b"\x32",
        _length_bytes(length),
        len(name).to_bytes(2, "big"),
        name,
        mid.to_bytes(2, "big"),
        b"\0" if is_v5 else b"",
        payload,
    )
    return b"".join(parts)


def _length_bytes(length: int) -> bytes:
    written = bytearray()
    while length > 127:
        written.append(length & 127 | 128)
        length >>= 7
    written.append(length)
    return bytes(written)


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """A packet's first byte, its length, and where its body begins."""
    length = 0
    for index in range(4):
        where = at + 1 + index
        if where == len(data):
            return data[at], 1, where  # one more byte, at least
        length |= (data[where] & 127) << 7 * index
        if data[where] < 128:
            return data[at], length, where + 1
    # There is no such length. Of no type, and with a byte more than a length can have, it is paho that refuses it.
    return _NO_TYPE, 1, at + 5
