"""A call is one POST on a kept-alive connection; it gives the raw JSON of the result, or one error that says whose.

The deadline of a call holds for all of it, from dialling to the last byte; only the resolver keeps its own. No token
is in any text, not even where the other side repeats it.
"""
# ruff: noqa: N818  # the errors are named by what happened

import http.client
import io
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias
from urllib.parse import SplitResult, urlsplit

import msgspec
from urllib3 import BaseHTTPResponse
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from telemetry.errors import SourceError, UsageError
from telemetry.sources.lotus.endpoints import Endpoint

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"

LARGEST_ANSWER = 64 << 20
_PIECE = 1 << 16
_LONGEST_MESSAGE = 300
_SHORTEST_SECRET = 8

_BROKEN = (OSError, UnicodeError, http.client.HTTPException, HTTPError)


class LotusError(SourceError):
    """A call that gave no result."""


class Unreachable(LotusError):
    """Nobody answers: not started, still waiting for the chain, or the wrong address."""


class TooSlow(LotusError):
    """No whole answer came within the deadline."""


class Garbled(LotusError):
    """Something answered, but not as Lotus does; `status` is HTTP's, where there was one."""

    status: int | None = None


class Refused(LotusError):
    """The token is not one of this Lotus (HTTP 401)."""


class MissingPermission(LotusError):
    """The token is right and allows less than the method needs."""


class MethodAbsent(LotusError):
    """This Lotus does not have the method."""


class Panicked(LotusError):
    """The method crashed, as it does where the subsystem behind it does not run."""


class MethodError(LotusError):
    """The method ran and failed; its numbers changed from release to release, so tell cases by the message."""

    def __init__(self, text: str, *, code: int, message: str) -> None:
        super().__init__(text)
        self.code = code
        self.message = message


NO_ANSWER = (Unreachable, TooSlow, Garbled)
"""What another node may do better; the others are answers."""


class _Fault(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Envelope(msgspec.Struct):
    """Lotus before v1.27.1 leaves out a result that is null."""

    id: int | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Fault | None = None


_ENVELOPE = msgspec.json.Decoder(_Envelope)

_Row: TypeAlias = tuple[Callable[[_Fault], bool], type[LotusError], str]
_FAULTS: tuple[_Row, ...] = (
    (lambda fault: fault.code == -32601, MethodAbsent, "is not known to this Lotus"),
    (lambda fault: "method not supported" in fault.message, MethodAbsent, "is not known to this Lotus"),
    (lambda fault: fault.message.startswith("missing permission"), MissingPermission, "is not allowed by the token"),
    (lambda fault: "panic in rpc method" in fault.message, Panicked, "crashed there"),
)


class Lotus:
    """One API of Lotus, used by one thread at a time."""

    def __init__(self, endpoint: Endpoint, *, limit: int = LARGEST_ANSWER) -> None:
        self._url = urlsplit(endpoint.url)
        self._place = self._url.netloc.rpartition("@")[2]
        self._token = endpoint.token
        self._limit = limit
        self._numbers = itertools.count(1)
        self._line: _Line | None = None

    def call(self, method: str, *params: JsonValue, deadline: float) -> bytes:
        """The JSON of the result of `Filecoin.<method>`, within so many seconds; raises a LotusError."""
        until = time.monotonic() + deadline
        number = next(self._numbers)
        envelope = {"jsonrpc": "2.0", "id": number, "method": f"Filecoin.{method}", "params": params}
        try:
            status, answer = self._exchange(method, msgspec.json.encode(envelope), until)
            return self._result(method, number, status, answer)
        except NO_ANSWER:
            self.close()
            raise

    def close(self) -> None:
        """End the connection; the next call opens another."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _exchange(self, method: str, request: bytes, until: float) -> tuple[int, bytes]:
        try:
            line = self._reach(request, until)
        except _BROKEN as error:
            raise self._lost(Unreachable, method, error, until) from None
        try:
            return line.receive(self._limit, until)
        except _BROKEN as error:
            raise self._lost(Garbled, method, error, until) from None

    def _reach(self, request: bytes, until: float) -> "_Line":
        """The connection on which an answer to the request has begun."""
        if self._line is not None and self._line.is_open:
            # A server may end an idle connection while the request is on its way; as nothing of an answer came,
            # it can be asked again.
            with suppress(ConnectionError):
                self._line.send(request, self._headers(), until)
                return self._line
        self.close()
        self._line = _Line(self._url, until)
        self._line.send(request, self._headers(), until)
        return self._line

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "storage-telemetry"}
        return headers if self._token is None else {**headers, "Authorization": f"Bearer {self._token}"}

    def _result(self, method: str, number: int, status: int, answer: bytes) -> bytes:
        if status == 401:
            raise self._error(Refused, method, "was refused: the token is not one of this Lotus (HTTP 401)")
        try:
            envelope = _ENVELOPE.decode(answer)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            garbled = Garbled(f"{method} at {self._place} got no JSON-RPC answer (HTTP {status})")
            garbled.status = status
            raise garbled from None
        # What could not be read as a request is answered without an id.
        if envelope.error is not None and envelope.id in {number, None}:
            raise self._fault(method, envelope.error)
        if envelope.id != number:
            raise self._error(Garbled, method, "got the answer to something else")
        return bytes(envelope.result)

    def _fault(self, method: str, fault: _Fault) -> LotusError:
        message = self._tidy(fault.message)
        for applies, kind, what in _FAULTS:
            if applies(fault):
                return self._error(kind, method, f"{what}: {message}")
        text = f"{method} at {self._place} failed: {message} (code {fault.code})"
        return MethodError(text, code=fault.code, message=message)

    def _lost(self, kind: type[LotusError], method: str, error: Exception, until: float) -> LotusError:
        if isinstance(error, TimeoutError) or time.monotonic() >= until:
            return self._error(TooSlow, method, "gave no whole answer within its deadline")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        what = "could not be asked" if kind is Unreachable else "got no whole answer"
        return self._error(kind, method, f"{what}: {self._tidy(reason)}")

    def _error(self, kind: type[LotusError], method: str, what: str) -> LotusError:
        return kind(f"{method} at {self._place} {what}")

    def _tidy(self, text: str) -> str:
        """One line of printable text without the token, and without a part of it that is as good as all of it."""
        for secret in _secrets(self._token):
            text = text.replace(secret, "[token]")
        line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
        return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}…"


class Nodes:
    """Full nodes of which one is asked; the next takes over when it gives no answer, and keeps the place."""

    def __init__(self, endpoints: Sequence[Endpoint], *, limit: int = LARGEST_ANSWER) -> None:
        if not endpoints:
            raise UsageError("no full node is known: set FULLNODE_API_INFO or LOTUS_PATH")
        self._nodes = [Lotus(endpoint, limit=limit) for endpoint in endpoints]
        self._older = [_older(endpoint, limit) for endpoint in endpoints]
        self._asked = 0

    def call(self, method: str, *params: JsonValue, deadline: float) -> bytes:
        """As `Lotus.call`; nodes that are still to be tried share what is left of the deadline equally."""
        until = time.monotonic() + deadline
        failures: list[LotusError] = []
        for left in range(len(self._nodes), 0, -1):
            try:
                share = (until - time.monotonic()) / left
                return self._ask(self._asked, method, params, time.monotonic() + share)
            except NO_ANSWER as error:
                failures.append(error)
                self._asked = (self._asked + 1) % len(self._nodes)
        raise type(failures[-1])("; ".join(map(str, failures)))

    def _ask(self, which: int, method: str, params: Sequence[JsonValue], until: float) -> bytes:
        """Ask a node; one that has no such path, nor a proxy before it, is asked in the version before."""
        try:
            return self._nodes[which].call(method, *params, deadline=until - time.monotonic())
        except Garbled as error:
            older = self._older[which]
            if error.status != 404 or older is None:
                raise
            with suppress(*NO_ANSWER):
                answer = older.call(method, *params, deadline=until - time.monotonic())
                self._nodes[which], self._older[which] = older, None
                return answer
            older.close()
            raise

    def close(self) -> None:
        """End all connections."""
        for node in self._nodes:
            node.close()


def _older(endpoint: Endpoint, limit: int) -> Lotus | None:
    older = endpoint.older
    return None if older is None else Lotus(older, limit=limit)


class _Reader(io.BufferedReader):
    """Reads no more than it is told to: a chunk of length -1 would be all that ever comes."""

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes at most."""
        if size is None or size < 0:
            raise http.client.HTTPException(f"a part of it has no length but {size}")
        return super().read(size)


class _Response(http.client.HTTPResponse):
    """A response on such a reader."""

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401  # as the base takes them
        super().__init__(*arguments, **named)
        self.fp = _Reader(self.fp.detach())


class _Line:
    """A kept-alive connection, and a second hold on its socket by which the deadline can end it."""

    def __init__(self, url: SplitResult, until: float) -> None:
        host, secure = url.hostname or "", url.scheme == "https"
        self._path = f"{url.path}?{url.query}" if url.query else url.path
        self._connection = (HTTPSConnection if secure else HTTPConnection)(host, url.port or (443 if secure else 80))
        self._connection.response_class = _Response
        # Left to itself it would dial without a deadline.
        self._connection.auto_open = 0
        plain = _dial(host, self._connection.port, until)
        self._hold = plain.dup()
        try:
            self._connection.sock = self._secured(plain, host, until) if secure else plain
        except BaseException:
            plain.close()
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether it can be used again: nobody ended it, and nothing unasked came."""
        return self._connection.is_connected

    def _secured(self, plain: socket.socket, host: str, until: float) -> ssl.SSLSocket:
        plain.settimeout(_left(until))
        with self._ended_at(until):
            return ssl.create_default_context().wrap_socket(plain, server_hostname=host)

    def send(self, request: bytes, headers: Mapping[str, str], until: float) -> None:
        """Send a request and wait for the first byte of an answer; raises when the other side ended before it."""
        with self._ended_at(until):
            self._connection.request("POST", self._path, request, headers, preload_content=False, decode_content=False)
            if not self._hold.recv(1, socket.MSG_PEEK):
                raise ConnectionResetError("the connection was closed without an answer")

    def receive(self, limit: int, until: float) -> tuple[int, bytes]:
        """The status and the body of the answer that has begun."""
        with self._ended_at(until):
            response = self._connection.getresponse()
            body = b"".join(_pieces(response, limit))
        if self._connection.sock is None:
            # The answer said that it is the last one.
            self.close()
        return response.status, body

    def close(self) -> None:
        """Give both holds back."""
        self._connection.close()
        self._hold.close()

    @contextmanager
    def _ended_at(self, until: float) -> Iterator[None]:
        """Shut the socket down at the deadline, because a time-out of the socket begins anew with each byte."""
        left = _left(until)
        self._connection.timeout = left
        for end in (self._hold, self._connection.sock):
            if end is not None:
                end.settimeout(left)
        timer = threading.Timer(left, _shut_down, (self._hold,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        _left(until)


def _dial(host: str, port: int, until: float) -> socket.socket:
    """A connection to the first address that takes one; addresses share the time that is left equally."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failed: OSError = OSError("the name has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        end = socket.socket(family, kind, protocol)
        try:
            end.settimeout(_left(until) / (len(addresses) - tried))
            end.connect(address)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            end.close()
            failed = error
        else:
            return end
    raise failed


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _shut_down(end: socket.socket) -> None:
    # It may have ended in the meantime.
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _pieces(response: BaseHTTPResponse, limit: int) -> Iterator[bytes]:
    """The body, piece by piece; raises once it is larger than the limit."""
    size, announced = 0, response.length_remaining or 0
    while max(size, announced) <= limit:
        piece = response.read(_PIECE)
        if not piece:
            return
        size += len(piece)
        yield piece
    raise HTTPError(f"it is larger than {limit} bytes")


def _secrets(token: str | None) -> Iterator[str]:
    """The token and the parts of a JWT: by the last one a thief who knows the claims has all of it."""
    if token is not None:
        yield token
        yield from (part for part in token.split(".") if len(part) >= _SHORTEST_SECRET)
