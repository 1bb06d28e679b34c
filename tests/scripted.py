"""A broker that says what a test makes it say, byte by byte, and keeps what it is told."""

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

CONNACK = {"3.1.1": b"\x20\x02\x00\x00", "5": b"\x20\x03\x00\x00\x00"}


class Peer:
    """The other end of one connection, once its CONNECT is read."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.connect = self.packet()

    def send(self, *pieces: bytes) -> None:
        """Send pieces one by one."""
        for piece in pieces:
            self.sock.sendall(piece)

    def packet(self) -> bytes:
        """The next packet, whole; nothing at the end."""
        head = self.sock.recv(1)
        if not head:
            return b""
        length, shift = 0, 0
        while True:
            byte = self._exactly(1)
            head += byte
            length |= (byte[0] & 127) << shift
            shift += 7
            if byte[0] < 128:
                return head + self._exactly(length)

    def packets(self, number: int) -> list[bytes]:
        """So many packets."""
        return [self.packet() for _ in range(number)]

    def finish(self) -> None:
        """Say that nothing more comes, and wait for the client to close."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        self.listen()

    def listen(self) -> None:
        """Read whatever comes, until the client closes."""
        with contextlib.suppress(ConnectionError):
            while self.sock.recv(65536):
                pass

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.sock.recv(size - len(data))
            if not piece:
                raise ConnectionError("closed within a packet")
            data += piece
        return data


class ScriptedBroker:
    """Plays a script to each connection, one after the other, and closes it."""

    def __init__(self, script: Callable[[Peer], None]) -> None:
        self._script = script
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "ScriptedBroker":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)
        if error is None and self.errors:
            raise self.errors[0]

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            with sock:
                sock.settimeout(20)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    self._script(Peer(sock))
                except ConnectionError:
                    continue  # the client ended it, as it may
                except (AssertionError, OSError) as error:
                    self.errors.append(error)


def packet(first: int, body: bytes) -> bytes:
    """A packet of any first byte and body."""
    length, written = len(body), bytearray()
    while length > 127:
        written.append(length & 127 | 128)
        length >>= 7
    written.append(length)
    return bytes([first]) + bytes(written) + body


def body(whole: bytes) -> bytes:
    """What follows the length of a packet."""
    return whole[next(at for at in range(1, 6) if whole[at] < 128) + 1 :]


def puback(published: bytes) -> bytes:
    """The PUBACK of a PUBLISH at QoS 1."""
    rest = body(published)
    after = 2 + int.from_bytes(rest[:2], "big")
    return packet(0x40, rest[after : after + 2])


def text(data: bytes) -> bytes:
    """A string as MQTT writes one."""
    return len(data).to_bytes(2, "big") + data


def publish(topic: bytes, payload: bytes, *, flags: int = 2, mid: int = 1, properties: bytes | None = None) -> bytes:
    """A PUBLISH. `properties` is None in 3.1.1."""
    number = mid.to_bytes(2, "big") if flags & 6 else b""
    told = b"" if properties is None else bytes([len(properties)]) + properties
    return packet(0x30 | flags, text(topic) + number + told + payload)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The data in pieces, cut at some places."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]
