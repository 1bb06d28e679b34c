"""The sockets of a simulated Lotus, and the answers on them that are wrong on purpose."""

import socket
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock, Thread
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from telemetry.simulate.faults import Faults
from telemetry.simulate.service import Reply

_POLL_SECONDS = 0.05
_CHUNK = b"x" * (1 << 20)
_PAGE = Reply(
    status=502,
    body=b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n",
    content_type="text/html",
)
_GARBAGE = Reply(body=b"\x00\xff{]garbage")


class Site(Protocol):
    """What the sockets answer from."""

    @property
    def faults(self) -> Faults:
        """What it does wrong now."""

    def count(self, body: bytes) -> set[str]:
        """Count the methods that a request calls, and name them."""

    def post(self, path: str, token: str | None, body: bytes) -> Reply:
        """The right answer."""

    def get(self, path: str) -> Reply:
        """The answer to a GET."""

    def wait(self, seconds: float | None, until: Callable[[], bool]) -> None:
        """Wait for a change of the faults, so long at most; also for the end."""


class Server(ThreadingMixIn, TCPServer):
    """A listening socket on the loopback interface, and the connections made to it."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, site: Site, port: int) -> None:
        self.site = site
        self._connections: set[socket.socket] = set()
        self._lock, self._ended = Lock(), False
        super().__init__(("127.0.0.1", port), _Connection)
        Thread(target=self.serve_forever, args=(_POLL_SECONDS,), name="lotus", daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def finish_request(self, request: object, client_address: object) -> None:
        """Serve a connection, known while it lasts."""
        assert isinstance(request, socket.socket)
        with self._lock:
            if self._ended:
                return
            self._connections.add(request)
        try:
            super().finish_request(request, client_address)
        finally:
            with self._lock:
                self._connections.discard(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that goes away amid an answer is what the tests are about."""

    def end(self) -> None:
        """Listen no more, and cut all connections."""
        self.shutdown()
        self.server_close()
        with self._lock:
            self._ended = True
            for connection in self._connections:
                _cut(connection)


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side was first
        return


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    @property
    def _site(self) -> Site:
        assert isinstance(self.server, Server)
        return self.server.site

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 -- the base's name
        """Say nothing."""

    def do_GET(self) -> None:
        self._send(self._site.get(urlsplit(self.path).path))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        names = self._site.count(body)
        if self._site.faults.strike(names):
            self._site.wait(self._site.faults.slow, lambda: not self._site.faults.slow)
            if not self._answer_wrongly(self._site.faults, body):
                self._send(self._reply(body))
        else:
            self._send(self._reply(body))

    def _answer_wrongly(self, faults: Faults, body: bytes) -> bool:
        wrong: Mapping[str, Callable[[], None]] = {
            "hang": self._hang,
            "huge": self._send_much,
            "half": lambda: self._send_half(self._reply(body)),
            "html": lambda: self._send(_PAGE),
            "garbage": lambda: self._send(_GARBAGE),
        }
        name = next((name for name in wrong if getattr(faults, name)), None)
        if name is not None:
            wrong[name]()
        return name is not None

    def _reply(self, body: bytes) -> Reply:
        url = urlsplit(self.path)
        return self._site.post(url.path, self._token(url.query), body)

    def _token(self, query: str) -> str | None:
        """What the client says it may; a header that is no bearer's is a wrong token."""
        header = self.headers.get("Authorization")
        if header is None:
            return next(iter(parse_qs(query).get("token", [])), None)
        return header.removeprefix("Bearer ") if header.startswith("Bearer ") else ""

    def _send(self, reply: Reply) -> None:
        self._head(reply.status, reply.content_type, "Content-Length", str(len(reply.body)))
        self.wfile.write(reply.body)

    def _head(self, status: int, content_type: str, name: str, value: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header(name, value)
        self.end_headers()

    def _hang(self) -> None:
        self._site.wait(None, lambda: not self._site.faults.hang)
        self.close_connection = True

    def _send_half(self, reply: Reply) -> None:
        self._head(reply.status, reply.content_type, "Content-Length", str(len(reply.body)))
        self.wfile.write(reply.body[: len(reply.body) // 2])
        self.close_connection = True

    def _send_much(self) -> None:
        self._head(200, "application/json", "Transfer-Encoding", "chunked")
        self._send_chunk(b'{"jsonrpc":"2.0","id":1,"result":"')
        left = self._site.faults.huge
        while left > 0:
            self._send_chunk(_CHUNK[:left])
            left -= len(_CHUNK)
        self._send_chunk(b'"}')
        self._send_chunk(b"")

    def _send_chunk(self, chunk: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
