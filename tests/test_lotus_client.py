"""However a Lotus misbehaves, a call gives its result or one error that says what it was, in time and without token."""

import contextlib
import json
import os
import socket
import ssl
import struct
import subprocess
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.errors import SourceError, TelemetryError, UsageError
from telemetry.sources.lotus.client import (
    Garbled,
    Lotus,
    LotusError,
    MethodAbsent,
    MethodError,
    MissingPermission,
    Nodes,
    Panicked,
    Refused,
    TooSlow,
    Unreachable,
)
from telemetry.sources.lotus.endpoints import Endpoint, find_miner, find_nodes
from tests.parts import wait_for

TOKEN = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJBbGxvdyI6WyJyZWFkIl19.dGhlLXNlY3JldC1wYXJ0LW9mLWl0"
AMPLE = 20.0
SHORT = 0.3

Behaviour: TypeAlias = "Callable[[Peer], None]"


class Peer:
    """One connection as the server has it."""

    def __init__(self, end: socket.socket, server: "Server", number: int) -> None:
        self._file = end.makefile("rb")
        self.end = end
        self.server = server
        self.number = number

    def request(self) -> dict[str, Any] | None:
        """The next request's JSON, or None when the client has gone."""
        first = self._file.readline()
        if not first:
            return None
        headers = {"": first.decode().strip()}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body: dict[str, Any] = json.loads(self._file.read(int(headers["content-length"])))
        self.server.requests.append((self.number, headers, body))
        return body

    def requests(self) -> Iterator[dict[str, Any]]:
        while (request := self.request()) is not None:
            yield request

    def send(self, data: bytes) -> None:
        self.end.sendall(data)

    def hold(self) -> None:
        """Do nothing until the test ends."""
        self.server.ended.wait(60)

    def reset(self) -> None:
        """End the connection by RST."""
        self.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Server:
    """A server on loopback that does to each connection what it is told."""

    def __init__(self, behaviour: Behaviour, context: ssl.SSLContext | None = None) -> None:
        self._behaviour = behaviour
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self.requests: list[tuple[int, dict[str, str], dict[str, Any]]] = []
        self.finished: list[int] = []
        self.ended = threading.Event()
        self.place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        scheme = "http" if context is None else "https"
        self.endpoint = Endpoint(url=f"{scheme}://{self.place}/rpc/v1", token=TOKEN)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> int:
        return len(self._ends)

    def wait_for_end_of(self, number: int) -> None:
        wait_for(lambda: number in self.finished, seconds=AMPLE, what=f"end of connection {number}")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = self._listener.accept()
                self._ends.append(end)
                threading.Thread(target=self._serve, args=(end, len(self._ends)), daemon=True).start()

    def _serve(self, end: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), end:
            used = end if self._context is None else self._context.wrap_socket(end, server_side=True)
            peer = Peer(used, self, number)
            with used, peer._file:
                self._behaviour(peer)
        self.finished.append(number)

    def close(self) -> None:
        self.ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Made:
    """What a test opened, so that it ends with it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def server(self, behaviour: Behaviour, context: ssl.SSLContext | None = None) -> Server:
        server = Server(behaviour, context)
        self._stack.callback(server.close)
        return server

    def lotus(self, server: Server, **options: int) -> Lotus:
        return self._stack.enter_context(contextlib.closing(Lotus(server.endpoint, **options)))

    def nodes(self, *endpoints: Endpoint) -> Nodes:
        return self._stack.enter_context(contextlib.closing(Nodes(endpoints)))


@pytest.fixture
def made() -> Iterator[Made]:
    with contextlib.ExitStack() as stack:
        yield Made(stack)


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def result(request: Mapping[str, Any], value: object = "f01234") -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": value}).encode()


def fault(request: Mapping[str, Any], code: int, message: str) -> bytes:
    error = {"code": code, "message": message}
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode()


def well(peer: Peer) -> None:
    for request in peer.requests():
        peer.send(http(result(request)))


def always(answer: Callable[[dict[str, Any]], bytes]) -> Behaviour:
    def behave(peer: Peer) -> None:
        for request in peer.requests():
            peer.send(answer(request))

    return behave


def once(answer: Callable[[dict[str, Any]], bytes]) -> Behaviour:
    """Answer one request and end the connection."""

    def behave(peer: Peer) -> None:
        peer.send(answer(peer.request() or {}))

    return behave


def error_of(call: Callable[[], object]) -> LotusError:
    with pytest.raises(LotusError) as caught:
        call()
    shown = f"{caught.value!r} {vars(caught.value)} {''.join(traceback.format_exception(caught.value))}"
    assert TOKEN.rsplit(".", maxsplit=1)[-1] not in shown
    assert len(str(caught.value).splitlines()) == 1
    assert isinstance(caught.value, SourceError)
    return caught.value


def timed(call: Callable[[], object]) -> tuple[LotusError, float]:
    begun = time.monotonic()
    return error_of(call), time.monotonic() - begun


def test_a_call_gives_the_json_of_the_result(made: Made) -> None:
    server = made.server(always(lambda request: http(result(request, {"Cids": [{"/": "bafy"}], "Height": 5}))))
    assert json.loads(made.lotus(server).call("ChainHead", deadline=AMPLE)) == {"Cids": [{"/": "bafy"}], "Height": 5}


def test_a_request_is_the_envelope_that_lotus_takes(made: Made) -> None:
    server = made.server(well)
    made.lotus(server).call("StateMinerPower", "f01234", [{"/": "bafy"}], deadline=AMPLE)
    [(_, headers, body)] = server.requests
    assert headers[""] == "POST /rpc/v1 HTTP/1.1"
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["host"] == server.place
    params = ["f01234", [{"/": "bafy"}]]
    assert body == {"jsonrpc": "2.0", "id": 1, "method": "Filecoin.StateMinerPower", "params": params}


def test_without_token_there_is_no_authorization(made: Made) -> None:
    server = made.server(well)
    with contextlib.closing(Lotus(Endpoint(url=server.endpoint.url))) as lotus:
        lotus.call("ChainHead", deadline=AMPLE)
    assert "authorization" not in server.requests[0][1]


def test_a_result_that_is_left_out_is_null(made: Made) -> None:
    server = made.server(always(lambda request: http(json.dumps({"jsonrpc": "2.0", "id": request["id"]}).encode())))
    assert made.lotus(server).call("MinerGetBaseInfo", deadline=AMPLE) == b"null"


def test_calls_share_one_connection(made: Made) -> None:
    server = made.server(well)
    lotus = made.lotus(server)
    for _ in range(5):
        lotus.call("Session", deadline=AMPLE)
    assert [number for number, _, _ in server.requests] == [1] * 5
    assert server.connections == 1


def test_an_error_of_the_method_keeps_the_connection(made: Made) -> None:
    server = made.server(always(lambda request: http(fault(request, 1, "actor not found"))))
    lotus = made.lotus(server)
    for _ in range(3):
        error_of(lambda: lotus.call("StateGetActor", deadline=AMPLE))
    assert server.connections == 1


FAULTS = [
    ("200 OK", 1, "missing permission to invoke 'WorkerStats' (need 'admin')", MissingPermission),
    ("500 Internal Server Error", -32601, "method 'Filecoin.StartTime' not found", MethodAbsent),
    ("200 OK", 1, "method not supported in this mode (no in-process storage)", MethodAbsent),
    ("500 Internal Server Error", 0, "fatal error calling 'Filecoin.X': panic in rpc method 'Filecoin.X'", Panicked),
    ("500 Internal Server Error", -32602, "wrong param count (method 'Filecoin.X'): 1 != 2", MethodError),
    ("400 Bad Request", -32600, "Invalid request", MethodError),
    ("200 OK", 11, "actor not found", MethodError),
]


@pytest.mark.parametrize(("status", "code", "message", "kind"), FAULTS)
def test_what_lotus_says_went_wrong_is_told_apart(
    made: Made, status: str, code: int, message: str, kind: type[LotusError]
) -> None:
    server = made.server(always(lambda request: http(fault(request, code, message), status)))
    error = error_of(lambda: made.lotus(server).call("Some", deadline=AMPLE))
    assert type(error) is kind
    assert all(part in str(error) for part in ("Some", server.place, message))


def test_an_error_of_the_method_has_its_code_and_message(made: Made) -> None:
    server = made.server(always(lambda request: http(fault(request, 3, "actor\n not found"))))
    error = error_of(lambda: made.lotus(server).call("StateLookupID", deadline=AMPLE))
    assert isinstance(error, MethodError)
    assert (error.code, error.message) == (3, "actor not found")


def test_a_request_that_could_not_be_read_is_answered_without_id(made: Made) -> None:
    body = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"unmarshaling request"}}'
    server = made.server(always(lambda _: http(body, "500 Internal Server Error")))
    assert isinstance(error_of(lambda: made.lotus(server).call("Some", deadline=AMPLE)), MethodError)


def test_an_empty_401_is_a_wrong_token(made: Made) -> None:
    server = made.server(always(lambda _: http(b"", "401 Unauthorized")))
    assert isinstance(error_of(lambda: made.lotus(server).call("Version", deadline=AMPLE)), Refused)


def test_a_token_that_is_sent_back_is_in_no_error(made: Made) -> None:
    signature = TOKEN.rsplit(".", maxsplit=1)[-1]
    message = f"bad token {TOKEN} of signature {signature}\n\x1b[31m at Bearer {TOKEN}"
    server = made.server(always(lambda request: http(fault(request, 1, message))))
    error = error_of(lambda: made.lotus(server).call("AuthVerify", TOKEN, deadline=AMPLE))
    assert "bad token [token] of signature [token] [31m at Bearer [token] (code 1)" in str(error)


def test_a_long_message_is_cut_after_its_token_is_gone(made: Made) -> None:
    server = made.server(always(lambda request: http(fault(request, 1, "x" * 290 + TOKEN + "y" * 9_000))))
    error = error_of(lambda: made.lotus(server).call("Some", deadline=AMPLE))
    assert "x[token]yy" in str(error)
    assert "eyJ" not in str(error)
    assert len(str(error)) < 400


GARBAGE: Mapping[str, Callable[[dict[str, Any]], bytes]] = {
    "html": lambda _: http(b"<html><body>nginx</body></html>", "502 Bad Gateway", "Content-Type: text/html"),
    "html with status 200": lambda _: http(b"<html>login</html>"),
    "not found": lambda _: http(b"404 page not found\n", "404 Not Found"),
    "redirect": lambda _: http(b"", "307 Temporary Redirect", "Location: http://127.0.0.1:9/"),
    "empty": lambda _: http(b""),
    "half of the JSON": lambda request: http(result(request)[:-4]),
    "less than announced": lambda request: http(result(request) + b" " * 100)[:-50],
    "half of the headers": lambda request: http(result(request))[:20],
    "half of the status": lambda request: http(result(request))[:5],
    "chunks that end early": lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nabc",
    "chunks of less than nothing": lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n",
    "a chunk of all that ever comes": lambda request: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n" + result(request)
    ),
    "chunks of no size": lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    "no HTTP": lambda _: b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
    "no length": lambda _: http(b"", "200 OK", "Content-Length: many"),
    "wrong id": lambda request: http(result({"id": request["id"] + 1})),
    "no id": lambda _: http(b'{"jsonrpc":"2.0","result":"f01234"}'),
    "id of another type": lambda _: http(b'{"jsonrpc":"2.0","id":"1","result":"f01234"}'),
    "batch": lambda request: http(b"[" + result(request) + b"]"),
    "error of another form": lambda request: http(b'{"id":%d,"error":"no"}' % request["id"]),
    "compressed": lambda request: http(result(request), "200 OK", "Content-Encoding: gzip")[:-1] + b"\x1f",
    "not UTF-8": lambda request: http(b'{"id":%d,"error":{"message":"\xff"}}' % request["id"]),
    "nested deeply": lambda request: http(b'{"id":%d,"result":%s' % (request["id"], b"[" * 100_000)),
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_answer_of_a_lotus_is_garbled(made: Made, answer: Callable[[dict[str, Any]], bytes]) -> None:
    server = made.server(once(answer))
    error = error_of(lambda: made.lotus(server).call("ChainHead", deadline=AMPLE))
    assert type(error) is Garbled
    assert f"ChainHead at {server.place}" in str(error)


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
def test_after_a_garbled_answer_the_next_call_is_right(made: Made, answer: Callable[[dict[str, Any]], bytes]) -> None:
    server = made.server(lambda peer: (once(answer) if peer.number == 1 else well)(peer))
    lotus = made.lotus(server)
    error_of(lambda: lotus.call("ChainHead", deadline=AMPLE))
    assert lotus.call("ChainHead", deadline=AMPLE) == b'"f01234"'


def test_a_redirect_is_not_followed(made: Made) -> None:
    other = made.server(well)
    header = f"Location: {other.endpoint.url}"
    server = made.server(always(lambda _: http(b"", "308 Permanent Redirect", header)))
    error = error_of(lambda: made.lotus(server).call("ChainHead", deadline=AMPLE))
    assert "HTTP 308" in str(error)
    assert other.connections == 0


def silent(peer: Peer) -> None:
    peer.request()
    peer.hold()


def dripping(data: Callable[[dict[str, Any]], bytes]) -> Behaviour:
    def behave(peer: Peer) -> None:
        for byte in data(peer.request() or {}):
            peer.send(bytes([byte]))
            peer.server.ended.wait(0.1)

    return behave


def half(peer: Peer) -> None:
    peer.send(http(result(peer.request() or {}))[:-5])
    peer.hold()


def without_end(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + result(peer.request() or {}))
    peer.hold()


def continuing(peer: Peer) -> None:
    peer.request()
    while not peer.server.ended.is_set():
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")


SLOW: Mapping[str, Behaviour] = {
    "accepts and says nothing": Peer.hold,
    "never answers": silent,
    "drips": dripping(lambda request: http(result(request))),
    "drips its body": lambda peer: dripping(lambda _: b" " * 1000)(_after_headers(peer)),
    "stops half-way": half,
    "leaves the connection open": without_end,
    "continues for ever": continuing,
}


def _after_headers(peer: Peer) -> Peer:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    return peer


@pytest.mark.parametrize("behaviour", SLOW.values(), ids=SLOW)
def test_the_deadline_holds_whatever_the_server_does(made: Made, behaviour: Behaviour) -> None:
    lotus = made.lotus(made.server(behaviour))
    error, seconds = timed(lambda: lotus.call("ChainHead", deadline=SHORT))
    assert type(error) is TooSlow
    assert SHORT <= seconds < SHORT + 1


@pytest.mark.parametrize("behaviour", SLOW.values(), ids=SLOW)
def test_after_a_slow_answer_the_next_call_is_right(made: Made, behaviour: Behaviour) -> None:
    lotus = made.lotus(made.server(lambda peer: (behaviour if peer.number == 1 else well)(peer)))
    error_of(lambda: lotus.call("ChainHead", deadline=SHORT))
    assert lotus.call("ChainHead", deadline=AMPLE) == b'"f01234"'


def test_the_deadline_holds_on_a_kept_connection(made: Made) -> None:
    def slow_second(peer: Peer) -> None:
        peer.send(http(result(peer.request() or {})))
        silent(peer)

    lotus = made.lotus(made.server(slow_second))
    lotus.call("ChainHead", deadline=AMPLE)
    error, seconds = timed(lambda: lotus.call("ChainHead", deadline=SHORT))
    assert type(error) is TooSlow
    assert SHORT <= seconds < SHORT + 1


def test_a_deadline_that_is_over_asks_nobody(made: Made) -> None:
    server = made.server(well)
    assert type(error_of(lambda: made.lotus(server).call("ChainHead", deadline=0.0))) is TooSlow
    assert server.requests == []


def test_a_port_that_takes_no_more_connections_is_too_slow(made: Made) -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        nodes = made.nodes(Endpoint(url=f"http://127.0.0.1:{full.getsockname()[1]}/rpc/v1"))
        error, seconds = timed(lambda: nodes.call("ChainHead", deadline=SHORT))
    assert type(error) is TooSlow
    assert seconds < SHORT + 1


def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with contextlib.closing(Lotus(Endpoint(url=f"http://127.0.0.1:{port}/rpc/v0", token=TOKEN))) as lotus:
        error = error_of(lambda: lotus.call("Version", deadline=AMPLE))
    assert type(error) is Unreachable
    assert str(error) == f"Version at 127.0.0.1:{port} could not be asked: Connection refused"


def test_a_name_that_does_not_resolve_is_unreachable() -> None:
    lotus = Lotus(Endpoint(url="http://no-such-host.invalid:1234/rpc/v0"))
    assert type(error_of(lambda: lotus.call("Version", deadline=AMPLE))) is Unreachable


@pytest.mark.parametrize("behaviour", [lambda _: None, Peer.reset, Peer.request], ids=["closes", "resets", "hears"])
def test_a_new_connection_that_closes_at_once_is_unreachable_and_not_asked_again(
    made: Made, behaviour: Behaviour
) -> None:
    server = made.server(behaviour)
    assert type(error_of(lambda: made.lotus(server).call("Version", deadline=AMPLE))) is Unreachable
    assert server.connections == 1


def one_answer(peer: Peer) -> None:
    peer.send(http(result(peer.request() or {})))


def test_a_connection_that_was_closed_between_calls_is_opened_anew(made: Made) -> None:
    server = made.server(one_answer)
    lotus = made.lotus(server)
    for number in (1, 2, 3):
        assert lotus.call("Session", deadline=AMPLE) == b'"f01234"'
        server.wait_for_end_of(number)
    assert server.connections == 3


@pytest.mark.parametrize("last", [lambda _: None, Peer.reset], ids=["closes", "resets"])
def test_a_kept_connection_that_ends_before_the_answer_is_asked_again_once(made: Made, last: Behaviour) -> None:
    def hear_twice(peer: Peer) -> None:
        one_answer(peer)
        if peer.number == 1:
            peer.request()
            last(peer)
        else:
            peer.hold()

    server = made.server(hear_twice)
    lotus = made.lotus(server)
    assert [lotus.call("Session", deadline=AMPLE) for _ in range(2)] == [b'"f01234"'] * 2
    assert [number for number, _, _ in server.requests] == [1, 1, 2]


def test_it_is_asked_again_only_once(made: Made) -> None:
    def hear(peer: Peer) -> None:
        if peer.number == 1:
            one_answer(peer)
        peer.request()

    server = made.server(hear)
    lotus = made.lotus(server)
    lotus.call("Session", deadline=AMPLE)
    assert type(error_of(lambda: lotus.call("Session", deadline=AMPLE))) is Unreachable
    assert [number for number, _, _ in server.requests] == [1, 1, 2]


@pytest.mark.parametrize("last", [lambda _: None, Peer.reset], ids=["closes", "resets"])
def test_a_kept_connection_that_ends_within_the_answer_is_not_asked_again(made: Made, last: Behaviour) -> None:
    def answer_half(peer: Peer) -> None:
        one_answer(peer)
        peer.request()
        peer.send(b"H")
        last(peer)

    server = made.server(answer_half)
    lotus = made.lotus(server)
    lotus.call("Session", deadline=AMPLE)
    assert type(error_of(lambda: lotus.call("Session", deadline=AMPLE))) is Garbled
    assert server.connections == 1


def test_an_answer_that_is_the_last_of_its_connection_ends_it(made: Made) -> None:
    def last(peer: Peer) -> None:
        peer.send(http(result(peer.request() or {}), "200 OK", "Connection: close"))
        assert peer.request() is None

    server = made.server(last)
    lotus = made.lotus(server)
    for number in (1, 2):
        assert lotus.call("Session", deadline=AMPLE) == b'"f01234"'
        server.wait_for_end_of(number)


def test_close_ends_the_connection_and_the_next_call_opens_another(made: Made) -> None:
    server = made.server(well)
    lotus = made.lotus(server)
    lotus.call("Session", deadline=AMPLE)
    lotus.close()
    server.wait_for_end_of(1)
    lotus.call("Session", deadline=AMPLE)
    assert server.connections == 2


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_failures_leave_no_open_file(made: Made) -> None:
    lotus = made.lotus(made.server(lambda _: None))
    error_of(lambda: lotus.call("Session", deadline=AMPLE))
    before = _open_files()
    for _ in range(20):
        error_of(lambda: lotus.call("Session", deadline=AMPLE))
    wait_for(lambda: _open_files() <= before, seconds=AMPLE, what="all files closed")


STREAMS = {
    "announced": f"Content-Length: {200 << 20}",
    "in chunks": "Transfer-Encoding: chunked",
    "until the end": "Connection: close",
}


@pytest.mark.parametrize("header", STREAMS.values(), ids=STREAMS)
def test_an_answer_of_200_megabytes_is_refused_and_not_kept(made: Made, header: str) -> None:
    block = b"10000\r\n" + b" " * (1 << 16) + b"\r\n"

    def stream(peer: Peer) -> None:
        peer.request()
        peer.send(f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n".encode())
        for _ in range(200 << 4):
            peer.send(block)

    server = made.server(stream)
    lotus = made.lotus(server, limit=1 << 20)
    tracemalloc.start()
    try:
        error = error_of(lambda: lotus.call("StateMinerSectors", deadline=AMPLE))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(error) is Garbled
    assert "larger than 1048576 bytes" in str(error)
    assert peak < 8 << 20


def test_an_answer_of_32_megabytes_arrives_whole(made: Made) -> None:
    sectors = "s" * (32 << 20)
    server = made.server(always(lambda request: http(result(request, sectors))))
    assert len(made.lotus(server).call("StateMinerSectors", deadline=AMPLE)) == len(sectors) + 2


def test_an_answer_in_chunks_arrives_whole(made: Made) -> None:
    def chunked(request: dict[str, Any]) -> bytes:
        body = result(request)
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks

    server = made.server(always(chunked))
    lotus = made.lotus(server)
    assert [lotus.call("Session", deadline=AMPLE) for _ in range(2)] == [b'"f01234"'] * 2
    assert server.connections == 1


@given(body=st.binary() | st.text().map(str.encode) | st.builds(json.dumps, st.dictionaries(
    st.sampled_from(["id", "result", "error", "code"]), st.none() | st.integers() | st.text(max_size=5)
)).map(str.encode))  # fmt: skip
def test_no_answer_makes_anything_but_a_lotus_error(body: bytes) -> None:
    with contextlib.ExitStack() as stack:
        made = Made(stack)
        lotus = made.lotus(made.server(always(lambda _: http(body))))
        with contextlib.suppress(LotusError):
            assert isinstance(lotus.call("Some", deadline=AMPLE), bytes)


@given(data=st.binary(max_size=60))
def test_no_bytes_make_anything_but_a_lotus_error(data: bytes) -> None:
    with contextlib.ExitStack() as stack:
        made = Made(stack)
        lotus = made.lotus(made.server(once(lambda _: data)))
        error_of(lambda: lotus.call("Some", deadline=AMPLE))


# Several full nodes


def gone() -> Endpoint:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return Endpoint(url=f"http://127.0.0.1:{taken.getsockname()[1]}/rpc/v1", token=TOKEN)


@pytest.mark.parametrize("bad", [lambda _: None, silent, once(GARBAGE["html"])], ids=["closes", "slow", "garbled"])
def test_the_next_node_takes_over_and_keeps_the_place(made: Made, bad: Behaviour) -> None:
    first, second = made.server(bad), made.server(well)
    nodes = made.nodes(first.endpoint, second.endpoint)
    begun = time.monotonic()
    assert nodes.call("ChainHead", deadline=1.0) == b'"f01234"'
    assert time.monotonic() - begun < 1.0
    nodes.call("ChainHead", deadline=AMPLE)
    assert (first.connections, second.connections) == (1, 1)


def test_the_first_node_is_asked_again_when_the_second_goes(made: Made) -> None:
    first, second = made.server(well), made.server(one_answer)
    nodes = made.nodes(gone(), second.endpoint, first.endpoint)
    for _ in range(2):
        assert nodes.call("ChainHead", deadline=AMPLE) == b'"f01234"'
    second.close()
    assert nodes.call("ChainHead", deadline=AMPLE) == b'"f01234"'


def test_a_node_that_says_no_is_believed(made: Made) -> None:
    first, second = made.server(always(lambda request: http(fault(request, 1, "no")))), made.server(well)
    nodes = made.nodes(first.endpoint, second.endpoint)
    assert type(error_of(lambda: nodes.call("ChainHead", deadline=AMPLE))) is MethodError
    assert second.connections == 0


def test_when_no_node_answers_all_are_told(made: Made) -> None:
    endpoints = (gone(), gone())
    error = error_of(lambda: made.nodes(*endpoints).call("ChainHead", deadline=AMPLE))
    assert type(error) is Unreachable
    assert all(endpoint.url.split("/")[2] in str(error) for endpoint in endpoints)


def test_the_deadline_holds_for_all_nodes_together(made: Made) -> None:
    nodes = made.nodes(*(made.server(silent).endpoint for _ in range(3)))
    error, seconds = timed(lambda: nodes.call("ChainHead", deadline=SHORT))
    assert type(error) is TooSlow
    assert SHORT <= seconds < SHORT + 1


def test_no_node_at_all_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no full node"):
        Nodes(())


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, with its key in the same file."""
    file = tmp_path / "own.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", file, "-out", tmp_path / "c"],
        check=True, capture_output=True,
    )  # fmt: skip
    file.write_text(file.read_text() + (tmp_path / "c").read_text())
    return file


def _context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_https_is_kept_alive_too(made: Made, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(certificate))
    server = made.server(well, _context(certificate))
    lotus = made.lotus(server)
    assert [lotus.call("ChainHead", deadline=AMPLE) for _ in range(3)] == [b'"f01234"'] * 3
    assert server.connections == 1


def test_https_closed_between_calls_is_opened_anew(
    made: Made, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(certificate))
    server = made.server(one_answer, _context(certificate))
    lotus = made.lotus(server)
    lotus.call("ChainHead", deadline=AMPLE)
    server.wait_for_end_of(1)
    assert lotus.call("ChainHead", deadline=AMPLE) == b'"f01234"'


def test_the_deadline_holds_for_https(made: Made, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(certificate))
    server = made.server(SLOW["drips"], _context(certificate))
    error, seconds = timed(lambda: made.lotus(server).call("ChainHead", deadline=SHORT))
    assert type(error) is TooSlow
    assert seconds < SHORT + 1


def test_a_certificate_for_which_nobody_vouches_gets_no_token(made: Made, certificate: Path) -> None:
    server = made.server(well, _context(certificate))
    error = error_of(lambda: made.lotus(server).call("ChainHead", deadline=AMPLE))
    assert type(error) is Unreachable
    assert "certificate verify failed" in str(error)
    assert server.requests == []


def test_the_deadline_holds_for_a_handshake_that_drips(made: Made) -> None:
    def drip(peer: Peer) -> None:
        for byte in b"\x16\x03\x03\x40\x00" + b"\x02" * 1000:
            peer.send(bytes([byte]))
            peer.server.ended.wait(0.1)

    place = made.server(drip).place
    lotus = Lotus(Endpoint(url=f"https://{place}/rpc/v1", token=TOKEN))
    error, seconds = timed(lambda: lotus.call("ChainHead", deadline=SHORT))
    assert type(error) is TooSlow
    assert seconds < SHORT + 1


# Where the APIs are

URLS = [
    ("/ip4/127.0.0.1/tcp/2345/http", "http://127.0.0.1:2345"),
    ("/ip4/127.0.0.1/tcp/2345", "http://127.0.0.1:2345"),
    ("/dns4/miner.lan/tcp/2345/http", "http://miner.lan:2345"),
    ("/dns6/miner.lan/tcp/2345/http", "http://miner.lan:2345"),
    ("/dns/miner.lan/tcp/2345/ws", "http://miner.lan:2345"),
    ("/ip6/::1/tcp/2345/http", "http://[::1]:2345"),
    ("/ip4/0.0.0.0/tcp/2345/http", "http://127.0.0.1:2345"),
    ("/ip6/::/tcp/2345/http", "http://[::1]:2345"),
    ("/ip6/0:0::0/tcp/2345/http", "http://[::1]:2345"),
    ("/dns4/api.x.io/tcp/443/https", "https://api.x.io:443"),
    ("/dns4/api.x.io/tcp/443/wss", "https://api.x.io:443"),
    ("/dns4/api.x.io/tcp/443/tls/ws", "https://api.x.io:443"),
    ("http://10.0.0.1:1234", "http://10.0.0.1:1234"),
    ("ws://10.0.0.1:1234", "http://10.0.0.1:1234"),
    ("http://0.0.0.0:1234/", "http://127.0.0.1:1234"),
    ("http://[::]:1234", "http://[::1]:1234"),
    ("https://h", "https://h"),
    ("wss://api.x.io/lotus", "https://api.x.io/lotus"),
    ("https://gw/x", "https://gw/x"),
]


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize(("address", "base"), URLS)
def test_an_address_becomes_the_url_for_posts(address: str, base: str, token: str | None, tmp_path: Path) -> None:
    text = address if token is None else f"{token}:{address}"
    expected = Endpoint(url=f"{base}/rpc/v0", token=token)
    assert find_miner({"MINER_API_INFO": text}, tmp_path) == expected
    expected = Endpoint(url=f"{base}/rpc/v1", token=token)
    assert find_nodes({"FULLNODE_API_INFO": text}, tmp_path) == (expected,)


@pytest.mark.parametrize("query", ["token={}", "key=1&token={}", "token={}&key=1", "%74oken={}", "token=&token={}"])
def test_a_token_in_a_url_leaves_it(query: str, tmp_path: Path) -> None:
    found = find_miner({"MINER_API_INFO": f"wss://h/path?{query.format(TOKEN)}"}, tmp_path)
    assert found is not None
    assert found.token == TOKEN
    assert found.url.removesuffix("?key=1") == "https://h/path/rpc/v0"
    assert ("key=1" in query) == ("key=1" in found.url)


def test_several_nodes_keep_their_order(tmp_path: Path) -> None:
    text = f"{TOKEN}:/ip4/10.0.0.1/tcp/1234/http, https://gw/x"
    assert find_nodes({"FULLNODE_API_INFO": text}, tmp_path) == (
        Endpoint(url="http://10.0.0.1:1234/rpc/v1", token=TOKEN),
        Endpoint(url="https://gw/x/rpc/v1", token=None),
    )


def repository(directory: Path, port: int = 2345, token: str | None = TOKEN) -> Path:
    directory.mkdir(parents=True)
    (directory / "api").write_text(f"/ip4/0.0.0.0/tcp/{port}/http\n")
    if token is not None:
        (directory / "token").write_text(f"  {token}\n\n")
    return directory


def miner_port(environ: Mapping[str, str], home: Path) -> str:
    found = find_miner(environ, home)
    assert found is not None
    return found.url.split("/")[2].rpartition(":")[2]


def test_the_miner_is_looked_for_in_the_order_of_lotus(tmp_path: Path) -> None:
    home = tmp_path / "home"
    environ = {
        "MINER_API_INFO": "/ip4/127.0.0.1/tcp/1/http",
        "STORAGE_API_INFO": "/ip4/127.0.0.1/tcp/2/http",
        "LOTUS_MINER_PATH": str(repository(tmp_path / "miner", 3)),
        "LOTUS_STORAGE_PATH": str(repository(tmp_path / "storage", 4)),
    }
    repository(home / ".lotusminer", 5)
    repository(home / ".lotusstorage", 6)
    for port, name in enumerate(tuple(environ), 1):
        assert miner_port(environ, home) == str(port)
        environ[name] = " "
    assert miner_port(environ, home) == "5"
    (home / ".lotusminer").rename(home / "away")
    assert miner_port(environ, home) == "6"


def test_the_node_is_looked_for_in_the_order_of_lotus(tmp_path: Path) -> None:
    named = repository(tmp_path / "named", 3)
    repository(tmp_path / ".lotus", 4)
    expected = Endpoint(url="http://127.0.0.1:3/rpc/v1", token=TOKEN)
    assert find_nodes({"LOTUS_PATH": str(named)}, tmp_path) == (expected,)
    assert find_nodes({"LOTUS_PATH": "~/named"}, tmp_path) == (expected,)
    assert find_nodes({}, tmp_path) == (Endpoint(url="http://127.0.0.1:4/rpc/v1", token=TOKEN),)


def test_nothing_there_is_no_error(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    assert find_miner({}, tmp_path) is None
    assert find_nodes({}, tmp_path) == ()
    assert find_miner({"LOTUS_MINER_PATH": absent, "MINER_API_INFO": ""}, tmp_path) is None
    assert find_nodes({"LOTUS_PATH": absent}, tmp_path) == ()


def test_a_lotus_that_was_stopped_has_no_api_file(tmp_path: Path) -> None:
    (repository(tmp_path / ".lotusminer") / "api").unlink()
    assert find_miner({}, tmp_path) is None


@pytest.mark.parametrize("token", [None, "", "\n"])
def test_a_repository_without_token_is_used_without(token: str | None, tmp_path: Path) -> None:
    repository(tmp_path / ".lotus", token=token)
    assert find_nodes({}, tmp_path) == (Endpoint(url="http://127.0.0.1:2345/rpc/v1", token=None),)


def test_a_token_that_cannot_be_read_hinders_only_the_miner(tmp_path: Path) -> None:
    for name in (".lotusminer", ".lotus"):
        (repository(tmp_path / name, token=None) / "token").mkdir()
    assert find_nodes({}, tmp_path) == (Endpoint(url="http://127.0.0.1:2345/rpc/v1", token=None),)
    with pytest.raises(UsageError, match=r"lotusminer/token: cannot be read: Is a directory"):
        find_miner({}, tmp_path)


WRONG = [
    "host:1234",
    "localhost:1234/rpc/v0",
    "127.0.0.1:1234",
    "host",
    TOKEN,
    f"{TOKEN}:",
    f"{TOKEN}:10.0.0.1:1234",
    f"{TOKEN} /ip4/127.0.0.1/tcp/1234/http",
    f"Bearer {TOKEN}:/ip4/127.0.0.1/tcp/1234/http",
    f"http://{TOKEN}@host:1234",
    f"http://user:{TOKEN}@host:1234",
    f"ftp://host/?token={TOKEN}",
    f"/ip4/127.0.0.1/tcp/{TOKEN}",
    f"/ip4/127.0.0.1/tcp/1234/{TOKEN}",
    f"/{TOKEN}",
    "/ip4/127.0.0.1/udp/1234",
    "/ip4/127.0.0.1/tcp/0/http",
    "/ip4/127.0.0.1/tcp/65536/http",
    "/ip4/127.0.0.256/tcp/1234/http",
    "/ip4/::1/tcp/1234/http",
    "/ip6/127.0.0.1/tcp/1234/http",
    "/ip6/fe80::1%eth0/tcp/1234/http",
    "/dns4/a..b/tcp/1234/http",
    "/unix/lotus.sock",
    "/",
    "http://",
    "http://host:port",
    "http://[::1",
    "http://[::1]x:1234",
    "http://host/?token=a%20b",
    "http://a,",
    ",",
]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_address_is_told_by_its_variable_and_without_its_text(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^MINER_API_INFO: ") as caught:
        find_miner({"MINER_API_INFO": text}, tmp_path)
    assert TOKEN not in f"{caught.value} {caught.value!r}"
    assert len(str(caught.value).splitlines()) == 1


def test_a_bare_host_and_port_is_told_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"FULLNODE_API_INFO: .* write TOKEN:/ip4/.* or http://HOST:PORT"):
        find_nodes({"FULLNODE_API_INFO": "host:1234"}, tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("api", b""), ("api", b"host:1234"), ("api", b"\xff"), ("token", TOKEN.encode() + b"\n" + TOKEN.encode())],
)
def test_a_wrong_file_is_told_by_its_path_and_without_its_text(name: str, content: bytes, tmp_path: Path) -> None:
    file = repository(tmp_path / ".lotusminer") / name
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        find_miner({}, tmp_path)
    assert str(caught.value).startswith(f"{file}: ")
    assert TOKEN not in str(caught.value)


PIECES = st.sampled_from(
    [TOKEN, ":", "/", "//", "http", "wss", "://", "ip4", "ip6", "tcp", "127.0.0.1", "::1", "1234", "[", "]", "@", "?",
     "token=", "&", "%", "#", ",", " ", "\n", "\0", "é", "host"]
)  # fmt: skip


@given(text=st.text() | st.lists(PIECES, max_size=12).map("".join))
def test_no_text_makes_anything_but_a_usage_error_without_token(text: str) -> None:
    try:
        find_nodes({"FULLNODE_API_INFO": text}, Path("/nonexistent"))
    except UsageError as error:
        assert TOKEN not in f"{error} {error!r}"


@given(before=st.lists(PIECES, max_size=3).map("".join), address=st.sampled_from([address for address, _ in URLS]))
def test_a_token_in_its_place_is_in_no_repr(before: str, address: str) -> None:
    texts = (f"{TOKEN}{before}:{address}", f"http://host/?{before.replace('#', '')}&token={TOKEN}")
    for text in texts:
        with contextlib.suppress(TelemetryError):
            found = find_nodes({"FULLNODE_API_INFO": text}, Path("/nonexistent"))
            assert before.count(TOKEN) or TOKEN not in repr(found)


@given(path=st.text(max_size=20))
def test_no_path_makes_anything_but_a_usage_error(path: str) -> None:
    with contextlib.suppress(UsageError):
        find_miner({"LOTUS_MINER_PATH": f"/nonexistent/{path}"}, Path("/nonexistent"))


def test_an_endpoint_shows_no_token_and_takes_none_that_ends_a_header() -> None:
    assert TOKEN not in f"{Endpoint(url='http://h', token=TOKEN)!r} {Endpoint(url='http://h', token=TOKEN)}"
    with pytest.raises(UsageError) as caught:
        Endpoint(url="http://h", token=f"{TOKEN}\r\nX: y")
    assert TOKEN not in str(caught.value)
