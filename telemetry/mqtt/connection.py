"""The connection to the broker, which keeps itself. The only file that imports paho; its callbacks end here.

paho makes the connection, subscribes, pings and disconnects; messages and their acknowledgements go past it, because
there they cost five times as much. Each connection is a new paho client: nothing that an old one had queued can be
replayed behind newer messages. What is not acknowledged on a connection that ended is the caller's to send again.
"""

import contextlib
import random
import secrets
import select
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from telemetry.mqtt.link import Link
from telemetry.mqtt.outbox import WINDOW, Outbox
from telemetry.mqtt.packets import Message, PacketReader, puback_packets
from telemetry.mqtt.url import BrokerUrl
from telemetry.tls import explain
from telemetry.wire import Outgoing

PROTOCOLS: Final = {"3.1.1": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}

_CONNECT_TIMEOUT = 5.0  # a broker in a storm takes a connection and forgets it: try again soon
_SESSION_EXPIRY = 7 * 86400
_RECEIVE_MAXIMUM = 1000  # Mosquitto, by its own limits, drops what it counts as sent where more wait for the socket
_TURNED_AWAY = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)
_REST = 0.005
"""Seconds without reading after messages came in, so that those that follow come together: a round costs as much as 50
of them."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker took the connection and the subscriptions; `session` names this connection."""

    session: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection ended, or a try to make one failed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Messages:
    """Messages that came in together; give them back to `Connection.acknowledge` once what they say is safe."""

    session: str
    messages: Sequence[Message]


Event = Connected | Disconnected | Messages


class _Client(paho.Client):
    """A paho client on a link instead of a socket."""

    link: Link

    def _create_socket(self) -> "paho.SocketLike":
        # The one private part of paho that we rely on. For websockets it makes such an object here itself, so that what
        # paho expects of one is settled: recv, send, close, fileno and setblocking.
        sock = super()._create_socket()
        assert isinstance(sock, socket.socket)
        _tune(sock)
        self.link = Link(sock)
        return self.link


@dataclass(slots=True)
class _Session:
    """One connection: its paho client, what comes in and goes out beside it, and what is known of it."""

    client: _Client
    name: str
    reader: PacketReader
    outbox: Outbox
    answered: bool = False
    ready: bool = False
    rests: bool = False
    ended: str | None = None
    refused: str | None = None


Will = Callable[[str], Outgoing]
"""Makes the last will for the name of a session."""


class Connection:
    """A connection that comes back by itself, with jitter, until it is closed.

    Events go to `deliver` from the network thread, which therefore must not block; with `manual_ack` a message
    is the broker's until it is acknowledged, and comes again on the next connection if it never was. `will` makes
    the last will for a session's name. With `keep_session` the broker queues for us while we are away, but not what
    `unqueued` filters match: that is subscribed to at QoS 0, and missed where the broker does not grant it.
    """

    def __init__(
        self,
        url: BrokerUrl,
        *,
        client_id: str,
        deliver: Callable[[Event], None],
        filters: Sequence[str] = (),
        unqueued: Sequence[str] = (),
        will: Will | None = None,
        protocol: str = "3.1.1",
        keep_session: bool = False,
        manual_ack: bool = False,
        retry: tuple[float, float] = (3.0, 30.0),
        keepalive: tuple[int, int] = (50, 70),
    ) -> None:
        self._url, self._client_id, self._deliver = url, client_id, deliver
        self._tls = url.trust.context() if url.tls else None
        self._filters, self._unqueued, self._will = tuple(filters), tuple(unqueued), will
        self._protocol = PROTOCOLS[protocol]
        self._keep_session, self._manual_ack, self._retry = keep_session, manual_ack, retry
        self._keepalive = keepalive
        self._session: _Session | None = None
        self._has_subscribed = False
        self._stopping = threading.Event()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._woken = select.poll()
        self._woken.register(self._wake_receiver, select.POLLIN)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    def publish(self, message: Outgoing) -> bool:
        """Hand a message to the current connection; False when there is none. It may wait, so not from `deliver`."""
        return self.publish_all((message,))

    def publish_all(self, messages: Sequence[Outgoing]) -> bool:
        """Hand several at once."""
        session = self._session
        return session is not None and session.ready and session.outbox.publish(messages)

    def acknowledge(self, messages: Messages) -> None:
        """Tell the broker that messages are safe. Those of an ended connection come again by themselves."""
        session = self._session
        if session is not None and session.name == messages.session:
            _acknowledge(session, messages.messages)

    def flush(self, timeout: float) -> bool:
        """Wait until the broker has acknowledged all that was published; False when it did not, or went away."""
        session = self._session
        return session is not None and session.ready and session.outbox.settle(timeout)

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
            session.outbox.close()
            if self._stopping.is_set():
                return
            if was_ready:
                since = time.monotonic()
            self._deliver(Disconnected(reason))
            self._stopping.wait(retry_delay(time.monotonic() - since, *self._retry))

    def _new_session(self) -> _Session:
        is_v5 = self._protocol == MQTTProtocolVersion.MQTTv5
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=None if is_v5 else not self._keep_session,
            protocol=self._protocol,
            # What paho reads is acknowledged like all the rest.
            manual_ack=True,
            # Else paho connects again by itself when the protocol's version is refused, below our selector.
            reconnect_on_failure=False,
        )
        session = _Session(client, secrets.token_hex(4), PacketReader(is_v5=is_v5), Outbox(self._wake, is_v5=is_v5))
        client.user_data_set(session)
        client.connect_timeout = _CONNECT_TIMEOUT
        if self._url.username is not None:
            client.username_pw_set(self._url.username, self._url.password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if self._will is not None:
            will = self._will(session.name)
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = _on_disconnect
        client.on_message = self._on_message
        return session

    def _open(self, session: _Session) -> str | None:
        """Connect; the reason when that failed."""
        # Keepalives differ so that agents that came together do not ping together.
        keepalive = random.randint(*self._keepalive)  # noqa: S311  # spreading load is no secret
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
            return f"{self._url}: {self._url.turned_away if isinstance(error, _TURNED_AWAY) else _cause(error)}"
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
        link = session.client.link
        deadline = time.monotonic() + _CONNECT_TIMEOUT
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_receiver, selectors.EVENT_READ)
            selector.register(link, selectors.EVENT_READ)
            watched = selectors.EVENT_READ
            while not link.is_closed and not self._stopping.is_set():
                if not session.ready and time.monotonic() > deadline:
                    break
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if link.is_blocked else 0)
                if wanted != watched:
                    selector.modify(link, wanted)
                    watched = wanted
                self._step(selector, session, idle=session.client.keepalive / 4 if session.ready else 1.0)
        return self._end(session)

    def _step(self, selector: selectors.BaseSelector, session: _Session, *, idle: float) -> None:
        for key, ready in selector.select(idle):
            if key.fileobj is self._wake_receiver:
                _drain(self._wake_receiver)
            elif ready & selectors.EVENT_READ:
                self._receive(session)
        _send(session)
        session.client.loop_misc()
        if session.rests:
            session.rests = False
            self._rest(session)

    def _rest(self, session: _Session) -> None:
        """Read nothing for a moment, but send what there is."""
        until = time.monotonic() + _REST
        while (left := until - time.monotonic()) > 0 and self._woken.poll(1000 * left):
            _drain(self._wake_receiver)
            _send(session)

    def _receive(self, session: _Session) -> None:
        link, reader = session.client.link, session.reader
        for part in reader.feed(link.receive()):
            if isinstance(part, bytes):
                link.hand(part)
                _let_paho_read(session)
            else:
                self._take_in(session, part)
            if link.is_closed:
                return
        if mids := reader.take_acknowledged():
            session.rests |= session.outbox.acknowledged(mids)
        _let_paho_read(session)

    def _take_in(self, session: _Session, messages: Sequence[Message]) -> None:
        self._deliver(Messages(session.name, messages))
        session.rests = True
        if not self._manual_ack:
            _acknowledge(session, messages)

    def _end(self, session: _Session) -> str:
        if not session.client.link.is_closed:
            timed_out = not session.ready and not self._stopping.is_set()
            _send(session)
            session.client.disconnect()
            if timed_out:
                return f"{self._url}: no answer for {_CONNECT_TIMEOUT:.0f} s"
        alert = session.client.link.alert
        told = explain(alert) if alert is not None and not session.ready else None
        broken = "connection lost" if session.answered else self._url.turned_away
        return f"{self._url}: {session.refused or told or session.ended or broken}"

    def _wake(self) -> None:
        # The network thread looks by itself after all that it does. A full pipe already wakes it.
        if threading.get_ident() != self._thread.ident:
            with contextlib.suppress(BlockingIOError, OSError):
                self._wake_sender.send(b"\0")

    def _on_connect(
        self, client: paho.Client, session: _Session, flags: paho.ConnectFlags, code: ReasonCode, properties: object
    ) -> None:
        session.answered = True
        session.outbox.allow(getattr(properties, "ReceiveMaximum", WINDOW))
        if code.is_failure:
            session.refused = f"refused: {code}{self._url.advice(code.value)}"
        elif not self._filters or (flags.session_present and self._has_subscribed):
            # In a session that was kept, subscribing again would send every retained message again.
            self._get_ready(session)
        else:
            client.subscribe([*((one, 1) for one in self._filters), *((one, 0) for one in self._unqueued)])

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
        self._deliver(Connected(session.name))

    def _on_message(self, _client: paho.Client, session: _Session, message: paho.MQTTMessage) -> None:
        """Take in what the reader left to paho: a message with properties, or none at all."""
        mid = message.mid.to_bytes(2, "big") if message.qos == 1 else b""
        try:
            topic = message.topic
        except UnicodeDecodeError as error:
            raise MalformedPacket(str(error)) from error
        self._take_in(session, [Message(topic, bytes(message.payload), message.retain, mid)])


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
    session.ended = None if code.getName() == "Unspecified error" else str(code)


def _tune(sock: socket.socket) -> None:
    # Without TCP_NODELAY on both ends a QoS 1 exchange waits 40 ms for a delayed acknowledgement. With
    # TCP_USER_TIMEOUT a connection that the network swallowed ends when nothing sent is acknowledged for 20 s.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)


def _let_paho_read(session: _Session) -> None:
    """Let paho read what was handed to it, and answer."""
    client = session.client
    while client.link.has_handed:
        client.loop_read()
    if client.want_write():
        client.loop_write()


def _acknowledge(session: _Session, messages: Sequence[Message]) -> None:
    if pubacks := puback_packets([message.mid for message in messages if message.mid]):
        session.outbox.acknowledge(pubacks)


def _send(session: _Session) -> None:
    """Send what there is, as much as the network takes and may be on its way."""
    link = session.client.link
    link.transmit()
    while not link.is_blocked and (packets := session.outbox.take()):
        link.send(packets)


def _drain(receiver: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        receiver.recv(4096)


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ssl.SSLError):
        return explain(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
