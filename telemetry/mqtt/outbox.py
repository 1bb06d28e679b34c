"""What goes to the broker on one connection: acknowledgements, and messages of which so many are on their way at once.

Any thread puts in, the network thread takes out.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from telemetry.mqtt.packets import publish_packet
from telemetry.wire import Outgoing

WINDOW: Final = 1000
"""Messages on their way at once, where the broker allows as many."""

MOST_WAITING: Final = 10_000
"""Messages that wait for their turn. Who publishes more has to wait as well."""

_OURS: Final = 0x8000
"""The first of our packet identifiers: paho counts its own from 1, for one SUBSCRIBE a connection."""


class Outbox:
    """The way out of one connection; `wake` tells the network thread that there is something to take."""

    def __init__(self, wake: Callable[[], None], *, is_v5: bool) -> None:
        self._wake, self._is_v5 = wake, is_v5
        self._changed = threading.Condition()
        self._acknowledgements: list[bytes] = []
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._on_the_way: set[int] = set()
        self._window = WINDOW
        self._mid = 0
        self._is_told = self._is_closed = False

    def allow(self, most: int) -> None:
        """Keep to what the broker allows on its way to it."""
        self._window = min(WINDOW, most)

    def publish(self, messages: Sequence[Outgoing]) -> bool:
        """Put messages in, and wait first where too many are in already; False when the connection ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or len(self._waiting) < MOST_WAITING)
            if self._is_closed:
                return False
            for message in messages:
                mid = self._next_mid()
                packet = publish_packet(message.topic, message.payload, mid, retain=message.retain, is_v5=self._is_v5)
                self._waiting.append((mid, packet))
            is_news = not self._is_told and len(self._on_the_way) < self._window
            self._is_told |= is_news
        if is_news:
            self._wake()
        return True

    def acknowledge(self, pubacks: bytes) -> None:
        """Put PUBACKs in."""
        with self._changed:
            self._acknowledgements.append(pubacks)
            is_news, self._is_told = not self._is_told, True
        if is_news:
            self._wake()

    def take(self) -> bytes:
        """The packets that may be sent now."""
        with self._changed:
            self._is_told = False
            packets, self._acknowledgements = self._acknowledgements, []
            while self._waiting and len(self._on_the_way) < self._window:
                mid, packet = self._waiting.popleft()
                self._on_the_way.add(mid)
                packets.append(packet)
            if packets:
                self._changed.notify_all()
        return b"".join(packets)

    def acknowledged(self, mids: Iterable[int]) -> bool:
        """The broker has these; whether others are on the way still."""
        with self._changed:
            self._on_the_way.difference_update(mids)
            self._changed.notify_all()
            return bool(self._on_the_way)

    def settle(self, timeout: float) -> bool:
        """Wait until the broker has all; False when it did not within the time, or the connection ended before."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._is_settled(), timeout)
            return self._is_settled()

    def close(self) -> None:
        """The connection ended: nobody has to wait any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _next_mid(self) -> int:
        while True:
            self._mid = (self._mid + 1) % _OURS
            if (mid := _OURS + self._mid) not in self._on_the_way:
                return mid

    def _is_settled(self) -> bool:
        return not self._waiting and not self._on_the_way
