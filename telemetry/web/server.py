"""The server that carries the application. The only file that imports uvicorn."""

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Callable, Generator

import uvicorn

from telemetry.errors import TelemetryError, UsageError
from telemetry.web.app import MOST_SESSIONS, Site

_SEND_TIMEOUT_MS = 30_000
"""A browser that takes in nothing for so long is cut off, by the kernel."""

_MOST_UNSENT = 128 << 10
_LARGEST_MESSAGE = 4096
_LARGEST_HEAD = 16_384
_STOP_TIMEOUT = 2
_MOST_CONNECTIONS = MOST_SESSIONS + 500
_SPARE_DESCRIPTORS = 100


def listening_socket(address: str, port: int) -> socket.socket:
    """A socket that listens; UsageError when it cannot."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit all of it: the kernel ends those whose browser has gone, or takes in nothing, and keeps
        # little for a slow one, to which all that waits there is old when it arrives.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SEND_TIMEOUT_MS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MOST_UNSENT)
        sock.bind((address, port))
    except (OSError, OverflowError) as error:
        sock.close()
        reason = error.strerror if isinstance(error, OSError) else "expected 1 to 65535"
        raise UsageError(f"web page at {address}, port {port}: {reason}; give another --port or --listen") from None
    return sock


def serve(site: Site, sock: socket.socket, tls: ssl.SSLContext | None, is_stopped: Callable[[], bool]) -> None:
    """Serve until stopped; the browsers are told. TelemetryError when it ended by a defect."""
    _allow_connections()
    config = uvicorn.Config(
        site.app(),
        http="h11",
        # The one of uvicorn's that waits for a slow browser, and can refuse with a status: see docs/decisions.md.
        ws="websockets-sansio",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_LARGEST_HEAD,
        ws_max_size=_LARGEST_MESSAGE,
        # What is sent is shared by all browsers, and a compressor for each takes 300 kB.
        ws_per_message_deflate=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_STOP_TIMEOUT,
    )
    config.load()
    config.ssl = tls
    asyncio.run(_Server(config, site, is_stopped).serve([sock]))
    if site.has_failed:
        raise TelemetryError("the page cannot follow the fleet any more: a defect, told above")


def _allow_connections() -> None:
    """Descriptors for the connections, as far as the hard limit lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_CONNECTIONS + _SPARE_DESCRIPTORS
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(uvicorn.Server):
    """uvicorn's, ended by the one who asked for it."""

    def __init__(self, config: uvicorn.Config, site: Site, is_stopped: Callable[[], bool]) -> None:
        super().__init__(config)
        self._site, self._is_stopped = site, is_stopped

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        return self._is_stopped() or self._site.has_failed or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._site.end()
        await asyncio.sleep(0.1)
        await super().shutdown(sockets)
