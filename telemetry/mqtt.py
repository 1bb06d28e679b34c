"""The connection to the broker, which keeps itself. The only file that imports paho; its callbacks end here.

Each connection is a new paho client: nothing that an old one had queued can be replayed behind newer messages, and a
message of an old connection is told by its session. What is not acknowledged then is the caller's to send again.
"""

import contextlib
import random
import secrets
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from telemetry.errors import UsageError
from telemetry.tls import Trust, explain, explain_alert
from telemetry.wire import Outgoing

PROTOCOLS: Final = {"3.1.1": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}

_CONNECT_TIMEOUT = 5.0  # a broker in a storm takes a connection and forgets it: try again soon
_SESSION_EXPIRY = 7 * 86400
_RECEIVE_MAXIMUM = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUrl:
    """Where a broker is, `mqtt://` or `mqtts://user:password@host:port`. Its text never shows the password."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    trust: Trust = field(default_factory=Trust)

    @classmethod
    def parse(cls, text: str) -> "BrokerUrl":
        """Read a URL, or raise UsageError."""
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
            parts = urlsplit("")
        if parts.scheme not in {"mqtt", "mqtts"} or not host:
            raise UsageError("broker URL: expected mqtt://HOST[:PORT] or mqtts://USER:PASSWORD@HOST[:PORT]")
        tls = parts.scheme == "mqtts"
        return cls(
            host=host,
            port=port or (8883 if tls else 1883),
            tls=tls,
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )

    def advice(self, code: int) -> str:
        """What to do about a CONNACK of this code, by MQTT 5's numbers."""
        if code not in {0x86, 0x87}:
            return ""
        if self.username is None:
            return ": the broker wants a user name and password: give --bundle"
        return ": its password is wrong, was renewed or revoked: get a new bundle (`telemetry rotate` or `enroll`)"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker took the connection and the subscriptions; `session` names this connection."""

    session: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection ended, or a try to make one failed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message that came in; give it back to `Connection.acknowledge` once what it says is safe."""

    topic: str
    payload: bytes
    retained: bool
    session: str
    mid: int


Event = Connected | Disconnected | Message


@dataclass(slots=True)
class _Session:
    """One connection: its paho client, and what is known of it."""

    client: paho.Client
    name: str
    ready: bool = False
    unacknowledged: int = 0
    ended: str | None = None
    refused: str | None = None


Will = Callable[[str], Outgoing]
"""Makes the last will for the name of a session."""


class Connection:
    """A connection that comes back by itself, with jitter, until it is closed.

    Events go to `deliver` from the network thread, which therefore must not block; with `manual_ack` a message
    is the broker's until it is acknowledged, and comes again on the next connection if it never was. `will` makes
    the last will for a session's name. With `keep_session` the broker queues for us while we are away.
    """

    def __init__(
        self,
        url: BrokerUrl,
        *,
        client_id: str,
        deliver: Callable[[Event], None],
        filters: Sequence[str] = (),
        will: Will | None = None,
        protocol: str = "3.1.1",
        keep_session: bool = False,
        manual_ack: bool = False,
        retry: tuple[float, float] = (3.0, 30.0),
    ) -> None:
        self._url, self._client_id, self._deliver = url, client_id, deliver
        self._tls = url.trust.context() if url.tls else None
        self._filters, self._will = tuple(filters), will
        self._protocol = PROTOCOLS[protocol]
        self._keep_session, self._manual_ack, self._retry = keep_session, manual_ack, retry
        self._session: _Session | None = None
        self._has_subscribed = False
        self._stopping = threading.Event()
        self._settled = threading.Condition()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    def publish(self, message: Outgoing) -> bool:
        """Hand a message to the current connection; False when there is none."""
        session = self._session
        if session is None or not session.ready:
            return False
        with self._settled:
            session.unacknowledged += 1
        info = session.client.publish(message.topic, message.payload, qos=1, retain=message.retain)
        self._wake()
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._on_publish(session.client, session)
        return info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def acknowledge(self, message: Message) -> None:
        """Tell the broker that a message is safe. One of an ended connection comes again by itself."""
        session = self._session
        if session is not None and session.name == message.session and message.mid:
            session.client.ack(message.mid, 1)
            self._wake()

    def flush(self, timeout: float) -> bool:
        """Wait until the broker has acknowledged all that was published; False when it did not, or went away."""
        session = self._session
        if session is None or not session.ready:
            return False
        with self._settled:
            self._settled.wait_for(lambda: session.unacknowledged == 0 or self._session is not session, timeout)
            return session.unacknowledged == 0

    def close(self, timeout: float = 2.0) -> None:
        """Send what is published already, disconnect cleanly (so that no will is sent) and end the thread."""
        self.flush(timeout)
        self._stopping.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        since = time.monotonic()
        while not self._stopping.is_set():
            session = self._new_session()
            reason = self._open(session) or self._serve(session)
            was_ready, self._session = session.ready, None
            with self._settled:
                self._settled.notify_all()
            if self._stopping.is_set():
                return
            if was_ready:
                since = time.monotonic()
            self._deliver(Disconnected(reason))
            self._stopping.wait(retry_delay(time.monotonic() - since, *self._retry))

    def _new_session(self) -> _Session:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=None if self._protocol == MQTTProtocolVersion.MQTTv5 else not self._keep_session,
            protocol=self._protocol,
            manual_ack=self._manual_ack,
            # Else paho connects again by itself when the protocol's version is refused, below our selector.
            reconnect_on_failure=False,
        )
        session = _Session(client, secrets.token_hex(4))
        client.user_data_set(session)
        client.connect_timeout = _CONNECT_TIMEOUT
        if self._url.username is not None:
            client.username_pw_set(self._url.username, self._url.password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if self._will is not None:
            will = self._will(session.name)
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        self._set_callbacks(client)
        return session

    def _set_callbacks(self, client: paho.Client) -> None:
        client.on_socket_open = _tune_socket
        # Set, so that paho leaves the writing to our thread. It tells of the first packet in its queue only, and not
        # reliably: who hands over a packet wakes the thread.
        client.on_socket_register_write = lambda *_: None
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = _on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        if self._tls is not None:
            # An alert that ends TLS 1.3 after our part of the handshake is told to no other callback.
            client.on_log = _on_log

    def _open(self, session: _Session) -> str | None:
        """Connect; the reason when that failed."""
        # Keepalives differ so that agents that came together do not ping together.
        keepalive = random.randint(50, 70)  # noqa: S311  # spreading load is no secret
        try:
            if self._protocol == MQTTProtocolVersion.MQTTv5:
                session.client.connect(
                    self._url.host,
                    self._url.port,
                    keepalive,
                    clean_start=not self._keep_session,
                    properties=self._connect_properties(),
                )
            else:
                session.client.connect(self._url.host, self._url.port, keepalive)
        except (OSError, ValueError) as error:
            no_tls = "; is it the port of mqtts://?" if self._tls and isinstance(error, ConnectionResetError) else ""
            return f"{self._url}: {_cause(error)}{no_tls}"
        self._session = session
        return None

    def _connect_properties(self) -> Properties:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's is not annotated
        properties.ReceiveMaximum = _RECEIVE_MAXIMUM
        if self._keep_session:
            properties.SessionExpiryInterval = _SESSION_EXPIRY
        return properties

    def _serve(self, session: _Session) -> str:
        """Move packets until the connection ends; the reason why it did."""
        client = session.client
        deadline = time.monotonic() + _CONNECT_TIMEOUT
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_receiver, selectors.EVENT_READ)
            sock = client.socket()
            if sock is not None:
                selector.register(sock, selectors.EVENT_READ)
            while client.socket() is not None and not self._stopping.is_set():
                if not session.ready and time.monotonic() > deadline:
                    break
                self._step(selector, client, idle=15.0 if session.ready else 1.0)
        return self._end(session)

    def _step(self, selector: selectors.BaseSelector, client: paho.Client, *, idle: float) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0)
        if (sock := client.socket()) is not None:
            selector.modify(sock, events)
        for key, ready in selector.select(idle):
            if key.fileobj is self._wake_receiver:
                _drain(self._wake_receiver)
            elif ready & selectors.EVENT_READ:
                _read_all(client)
        if client.want_write():
            client.loop_write()
        client.loop_misc()

    def _end(self, session: _Session) -> str:
        if session.client.socket() is not None:
            timed_out = not session.ready and not self._stopping.is_set()
            session.client.disconnect()
            if session.client.want_write():
                session.client.loop_write()
            if timed_out:
                return f"{self._url}: no answer for {_CONNECT_TIMEOUT:.0f} s"
        return f"{self._url}: {session.refused or session.ended or 'connection closed'}"

    def _wake(self) -> None:
        # A full pipe already wakes the thread.
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_sender.send(b"\0")

    def _on_connect(
        self, client: paho.Client, session: _Session, flags: paho.ConnectFlags, code: ReasonCode, _properties: object
    ) -> None:
        if code.is_failure:
            session.refused = f"refused: {code}{self._url.advice(code.value)}"
        elif not self._filters or (flags.session_present and self._has_subscribed):
            # In a session that was kept, subscribing again would send every retained message again.
            self._get_ready(session)
        else:
            client.subscribe([(one, 1) for one in self._filters])

    def _on_subscribe(
        self, client: paho.Client, session: _Session, _mid: int, codes: list[ReasonCode], _properties: object
    ) -> None:
        refused = [topic for topic, code in zip(self._filters, codes, strict=False) if code.is_failure]
        if refused:
            session.refused = f"may not subscribe to {refused[0]}"
            client.disconnect()
        else:
            self._get_ready(session)

    def _get_ready(self, session: _Session) -> None:
        session.ready = self._has_subscribed = True
        session.client.on_log = None  # a line a packet is too much
        self._deliver(Connected(session.name))

    def _on_message(self, _client: paho.Client, session: _Session, message: paho.MQTTMessage) -> None:
        mid = message.mid if message.qos else 0
        self._deliver(Message(message.topic, bytes(message.payload), message.retain, session.name, mid))

    def _on_publish(self, _client: paho.Client, session: _Session, *_: object) -> None:
        with self._settled:
            session.unacknowledged -= 1
            if session.unacknowledged == 0:
                self._settled.notify_all()


def retry_delay(outage: float, first: float = 3.0, most: float = 30.0) -> float:
    """Seconds to wait before the next try, when the last connection ended `outage` seconds ago.

    Evenly random up to a third of the outage, within `first` and `most`: after a short outage all are back at once,
    after a long one 10,000 agents come spread over half a minute.
    """
    return random.uniform(0, min(most, max(first, outage / 3)))  # noqa: S311  # spreading load is no secret


def _on_disconnect(
    _client: paho.Client, session: _Session, _flags: object, code: ReasonCode, _properties: object
) -> None:
    # paho's "Unspecified error" is a connection that broke without a word.
    session.ended = "connection lost" if code.getName() == "Unspecified error" else str(code)


def _on_log(_client: paho.Client, session: _Session, level: int, text: str) -> None:
    if level == LogLevel.MQTT_LOG_ERR and "alert" in text:
        session.refused = explain_alert(text.rpartition("alert ")[2].partition(" (")[0])


def _tune_socket(_client: paho.Client, _session: _Session, sock: object) -> None:
    # Without TCP_NODELAY on both ends a QoS 1 exchange waits 40 ms for a delayed acknowledgement. With
    # TCP_USER_TIMEOUT a connection that the network swallowed ends when nothing sent is acknowledged for 20 s.
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)


def _read_all(client: paho.Client) -> None:
    client.loop_read()
    sock = client.socket()
    # TLS may hold decrypted bytes that select does not see.
    while sock is not None and getattr(sock, "pending", int)():
        client.loop_read()
        sock = client.socket()


def _drain(receiver: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while receiver.recv(4096):
            pass


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ssl.SSLError):
        return explain(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
