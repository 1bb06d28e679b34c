"""A look at a broker by a few packets of MQTT 5, which says of each message whether it was allowed: 3.1.1 does not."""

import secrets
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from telemetry.errors import TelemetryError
from telemetry.mqtt import BrokerUrl
from telemetry.tls import explain

NOT_AUTHORIZED = 0x87
"""The reason code of what is refused."""

_TIMEOUT = 5.0
_CONNACK, _PUBACK = 2, 4
_CLEAN_START, _PASSWORD, _USERNAME = 0x02, 0x40, 0x80
_KEEPALIVE = b"\0\x3c"
_NO_PROPERTIES = b"\0"
_DISCONNECT = b"\xe0\0"
_BAD_PASSWORD = {4, 5, 0x86, NOT_AUTHORIZED}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a broker showed: when its certificate ends (Unix seconds), and which messages it refused, by topic.

    None where there is no TLS, or where it did not speak MQTT 5, or was not asked.
    """

    expires: float | None
    refused: dict[str, bool] | None = None


def admits(url: BrokerUrl) -> bool:
    """Whether the broker takes the user and password of the URL; TelemetryError when it cannot be asked.

    As the user's connection it ends another one of the same user, where the broker holds to one.
    """
    with _explaining(url), _connected(url) as sock:
        code = _greet(sock, url)
        if code in _BAD_PASSWORD:
            return False
        if code:
            raise TelemetryError(f"{url}: it does not speak MQTT 5 ({code}); upgrade the broker")
        sock.sendall(_DISCONNECT)
        return True


def look_at(url: BrokerUrl, topics: Sequence[str]) -> Seen:
    """Connect, and publish nothing to each of these topics, to see where it may; without any only the TLS is looked at.

    TelemetryError says why not.
    """
    with _explaining(url), _connected(url) as sock:
        expires = _expiry(sock)
        return Seen(expires, _try(sock, url, topics) if topics else None)


@contextmanager
def _explaining(url: BrokerUrl) -> Iterator[None]:
    """Say what an error means."""
    try:
        yield
    except (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
        raise TelemetryError(f"{url}: {url.turned_away}") from None
    except ssl.SSLError as error:
        raise TelemetryError(f"{url}: {explain(error)}") from None
    except TimeoutError:
        raise TelemetryError(f"{url}: no answer; does the broker run?") from None
    except OSError as error:
        raise TelemetryError(f"{url}: {error.strerror or error}; does the broker run?") from None


def _connected(url: BrokerUrl) -> socket.socket:
    sock = socket.create_connection((url.host, url.port), _TIMEOUT)
    if not url.tls:
        return sock
    try:
        return url.trust.context().wrap_socket(sock, server_hostname=url.host)
    except BaseException:
        sock.close()
        raise


def _expiry(sock: socket.socket) -> float | None:
    certificate = sock.getpeercert() if isinstance(sock, ssl.SSLSocket) else None
    return ssl.cert_time_to_seconds(str(certificate["notAfter"])) if certificate else None


def _try(sock: socket.socket, url: BrokerUrl, topics: Sequence[str]) -> dict[str, bool] | None:
    """Whether a message to each topic is refused; None where the broker does not speak MQTT 5."""
    code = _greet(sock, url)
    if code in _BAD_PASSWORD:
        raise TelemetryError(f"{url}: refused{url.advice(NOT_AUTHORIZED)}")
    if code:
        return None
    refused = {}
    for number, topic in enumerate(topics, start=1):
        sock.sendall(_packet(0x32, _text(topic) + number.to_bytes(2, "big") + _NO_PROPERTIES))
        answer = _receive(sock, _PUBACK)
        refused[topic] = len(answer) > 2 and answer[2] == NOT_AUTHORIZED
    sock.sendall(_DISCONNECT)
    return refused


def _greet(sock: socket.socket, url: BrokerUrl) -> int:
    """Connect as the user of the URL; the broker's reason code."""
    sock.sendall(_connect(url))
    return _receive(sock, _CONNACK)[1]


def _connect(url: BrokerUrl) -> bytes:
    flags, payload = _CLEAN_START, _text(f"telemetry.check.{secrets.token_hex(6)}")
    if url.username is not None:
        flags |= _USERNAME | _PASSWORD
        payload += _text(url.username) + _text(url.password or "")
    return _packet(0x10, _text("MQTT") + bytes([5, flags]) + _KEEPALIVE + _NO_PROPERTIES + payload)


def _receive(sock: socket.socket, kind: int) -> bytes:
    head = _exactly(sock, 2)
    # What is waited for is short: its length is one byte.
    if head[0] >> 4 != kind or head[1] > 127:
        raise TelemetryError("the broker did not answer as MQTT does; is it one?")
    return _exactly(sock, head[1])


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := sock.recv(size - len(data))):
            raise ConnectionResetError
        data += more
    return data


def _packet(first: int, body: bytes) -> bytes:
    size, length = len(body), bytearray()
    while True:
        size, low = divmod(size, 128)
        length.append(low | (0x80 if size else 0))
        if not size:
            return bytes([first]) + bytes(length) + body


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data
