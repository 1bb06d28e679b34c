"""A connection to the broker that many simulated agents share: packets in the order given, joined to a few sends."""

import contextlib
import socket
from collections.abc import Sequence

from telemetry.simulate import packets
from telemetry.wire import Outgoing

_KEEPALIVE = 300
"""Seconds; every agent has a heartbeat each minute, so no ping is needed."""

_WINDOW = 4096
"""Messages that the broker has not taken yet: no mid comes again while it is on its way."""

_RECEIVED = 1 << 18


class LineError(Exception):
    """The connection is gone, or could not be made; the text says why."""


class Line:
    """One connection, without a will: a broker that loses it cannot tell which agents that concerns."""

    def __init__(self, address: tuple[str, int], client_id: str) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self._unsent = bytearray(packets.connect(client_id, None, _KEEPALIVE))
        self._waiting: list[bytes] = []
        self._on_the_way = 0
        self._mid = 0
        with contextlib.suppress(BlockingIOError):
            self.socket.connect(address)

    @property
    def waiting(self) -> int:
        """Messages that wait for the broker to take others first."""
        return len(self._waiting)

    @property
    def is_settled(self) -> bool:
        """Whether the broker has taken all messages."""
        return not (self._waiting or self._on_the_way)

    def subscribe(self, filters: Sequence[str]) -> int:
        """Subscribe; the mid of the SUBACK that answers."""
        self._unsent += packets.subscribe(self._next_mid(), filters)
        return self._mid

    def publish(self, topic: bytes, payload: bytes) -> None:
        """Hand over a message to a topic that is a `packets.text`."""
        self._waiting.append(packets.publish_to(topic, self._next_mid(), payload))

    def publish_outgoing(self, message: Outgoing) -> None:
        """Hand over a message."""
        self._waiting.append(packets.publish(self._next_mid(), message))

    def disconnect(self) -> None:
        """Say goodbye."""
        self._unsent += packets.disconnect()

    def close(self) -> None:
        """End the connection."""
        self.socket.close()

    def send(self) -> None:
        """Send what the window and the socket allow."""
        room = _WINDOW - self._on_the_way
        if self._waiting and room > 0:
            now, self._waiting = self._waiting[:room], self._waiting[room:]
            self._on_the_way += len(now)
            self._unsent += b"".join(now)
        try:
            while self._unsent:
                del self._unsent[: self.socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError as error:
            raise LineError(error.strerror or str(error)) from None

    def receive(self) -> list[packets.Packet]:
        """What came in but for the PUBACKs; messages are acknowledged with the next `send`."""
        try:
            data = self.socket.recv(_RECEIVED)
        except BlockingIOError:
            return []
        except OSError as error:
            raise LineError(error.strerror or str(error)) from None
        if not data:
            raise LineError("the broker closed the connection")
        self._received += data
        self._on_the_way -= packets.take_pubacks(self._received)
        return [packet for packet in packets.take_packets(self._received) if not self._is_puback(packet)]

    def acknowledge(self, message: packets.Message) -> None:
        """Tell the broker that a message has come."""
        if message.mid:
            self._unsent += packets.puback(message.mid)

    def _is_puback(self, packet: packets.Packet) -> bool:
        is_puback = packet.kind == packets.PUBACK
        self._on_the_way -= is_puback
        return is_puback

    def _next_mid(self) -> int:
        self._mid = self._mid % 65_535 + 1
        return self._mid
