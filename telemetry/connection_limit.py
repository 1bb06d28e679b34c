"""How many connections the broker takes: as many as the descriptors that are left for them.

Mosquitto's own limits do not hold: max_connections counts wrongly up to 2.0.11, is forgotten at a reload in 2.0.21, and
holds for each listener by itself. The kernel's limit holds in all of them, from 2.0.11 to 2.1.2.
"""

import os
import resource
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from telemetry.errors import TelemetryError, UsageError

_STANDARD_STREAMS, _DIRECTORY_LOCK, _EVENT_QUEUE, _SPARE_SOCKET = 3, 1, 1, 1
_FILE = 1
"""For the file that it saves or reads again, one after the other. While it looks at a new connection, a Mosquitto with
libwrap (Debian's, Ubuntu's) opens one too: so no connection can take that place. One without takes one more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimit:
    """The connections at once, over all listeners. `own`: descriptors that the broker has without any.

    `hard`: how many the kernel lets us have; None for any number.
    """

    wanted: int
    own: int
    hard: int | None

    @classmethod
    def of(cls, wanted: int, listened: Sequence[tuple[str, int]]) -> "ConnectionLimit":
        """The limit of a broker that listens at addresses (empty: all) and ports."""
        if wanted < 1:
            raise UsageError(f"broker.connections = {wanted}: expected 1 or more")
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        sockets = sum(_sockets(address, port) for address, port in listened)
        own = _STANDARD_STREAMS + _DIRECTORY_LOCK + _EVENT_QUEUE + _SPARE_SOCKET + _FILE + sockets
        limit = cls(wanted=wanted, own=own, hard=None if hard == resource.RLIM_INFINITY else hard)
        if limit.connections < 1:
            raise TelemetryError(f"broker.connections: {limit}")
        return limit

    @property
    def connections(self) -> int:
        """So many are taken."""
        return self.wanted if self.hard is None else min(self.wanted, self.hard - self.own)

    def __str__(self) -> str:
        if self.connections == self.wanted:
            return f"at most {self.wanted} connections"
        return (
            f"at most {max(0, self.connections)} connections instead of {self.wanted}: the hard limit of open files is "
            f"{self.hard}; raise it (LimitNOFILE, ulimit -Hn), or lower broker.connections"
        )

    def hold(self, lock: int) -> None:
        """Let this process and what it becomes have so many descriptors: its standard streams, `lock`, and its own."""
        for descriptor in Path("/proc/self/fd").iterdir():
            if (number := int(descriptor.name)) > 2 and number != lock:
                # Whoever started us may have left some open; the one that lists them is closed already.
                with suppress(OSError):
                    os.set_inheritable(number, False)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.own + self.connections, hard))


def _sockets(address: str, port: int) -> int:
    """How many sockets Mosquitto opens to listen there: one a family that the machine has."""
    try:
        found = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return 1  # Mosquitto says what is wrong with it
    return sum(_has_family(family) for family, *_ in found)


def _has_family(family: int) -> bool:
    with suppress(OSError), socket.socket(family):
        return True
    return False
