"""The connection against a real broker: what it keeps, what comes again, and how it comes back."""

import contextlib
import os
import queue
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from telemetry.errors import UsageError
from telemetry.mosquitto import find_mosquitto
from telemetry.mqtt import (
    PROTOCOLS,
    BrokerUrl,
    Connected,
    Connection,
    Disconnected,
    Event,
    Messages,
    retry_delay,
)
from telemetry.mqtt.link import Link
from telemetry.mqtt.outbox import WINDOW
from telemetry.processes import answers
from telemetry.wire import Outgoing
from tests import scripted
from tests.parts import Broker, Listener, own_port, wait_for
from tests.scripted import CONNACK, ScriptedBroker, body, packet, puback, publish

Open = Callable[..., "Peer"]


class Peer:
    """A connection and the events that it delivered."""

    def __init__(
        self,
        url: str,
        client_id: str,
        *,
        filters: tuple[str, ...] = (),
        unqueued: tuple[str, ...] = (),
        protocol: str = "3.1.1",
        keep: bool = False,
        keepalive: tuple[int, int] = (50, 70),
    ) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._passed_over: list[Event] = []
        self._unread: list[Messages] = []
        self.connection = Connection(
            BrokerUrl.parse(url),
            client_id=client_id,
            deliver=self.events.put,
            filters=filters,
            unqueued=unqueued,
            will=lambda session: Outgoing(topic=f"will/{client_id}", payload=session.encode()),
            protocol=protocol,
            keep_session=keep,
            manual_ack=keep,
            keepalive=keepalive,
        )
        self.connection.start()

    def next(self, kind: type[Event]) -> Event:
        """The next event of a kind; those of others stay for later."""
        for event in self._passed_over:
            if isinstance(event, kind):
                self._passed_over.remove(event)
                return event
        while not isinstance(event := self.events.get(timeout=15), kind):
            self._passed_over.append(event)
        return event

    def next_message(self) -> Messages:
        """The next message, alone: one by one they can be acknowledged, too."""
        if not self._unread:
            came = self.next(Messages)
            assert isinstance(came, Messages)
            self._unread = [Messages(came.session, [message]) for message in came.messages]
        return self._unread.pop(0)

    def next_payload(self) -> bytes:
        return self.next_message().messages[0].payload


@pytest.fixture(params=["3.1.1", "5"])
def open_peer(request: pytest.FixtureRequest, broker: Broker) -> Iterator[Open]:
    opened: list[Peer] = []

    def open_one(client_id: str, *filters: str, keep: bool = False, unqueued: tuple[str, ...] = ()) -> Peer:
        opened.append(
            Peer(broker.url, client_id, filters=filters, protocol=request.param, keep=keep, unqueued=unqueued)
        )
        opened[-1].next(Connected)
        return opened[-1]

    yield open_one
    for peer in opened:
        peer.connection.close()


def test_what_was_not_acknowledged_comes_again_on_the_next_connection(open_peer: Open) -> None:
    first = open_peer("reader", "t/#", keep=True)
    writer = open_peer("writer")
    for number in range(3):
        assert writer.connection.publish(Outgoing(topic="t/x", payload=str(number).encode()))
    received = [first.next_message() for _ in range(3)]
    first.connection.acknowledge(received[0])
    # What is published after it has arrived after it.
    first.connection.publish(Outgoing(topic="elsewhere", payload=b""))
    assert first.connection.flush(10)
    # Another connection of the name takes the place of the first, as after its death.
    second = open_peer("reader", "t/#", keep=True)
    assert [second.next_payload() for _ in range(2)] == [b"1", b"2"]
    # What an old connection delivered can no longer be acknowledged on the new one: it comes once more.
    second.connection.acknowledge(received[1])
    third = open_peer("reader", "t/#", keep=True)
    assert [third.next_payload() for _ in range(2)] == [b"1", b"2"]


def test_a_kept_session_queues_while_its_owner_is_away(open_peer: Open) -> None:
    reader = open_peer("reader", "t/#", keep=True)
    reader.connection.close()
    writer = open_peer("writer")
    writer.connection.publish(Outgoing(topic="t/x", payload=b"meanwhile"))
    assert writer.connection.flush(10)
    assert open_peer("reader", "t/#", keep=True).next_payload() == b"meanwhile"


def test_what_is_of_the_moment_is_heard_and_not_queued(open_peer: Open) -> None:
    first = open_peer("reader", "t/x", keep=True, unqueued=("now/x", "$SYS/broker/retained messages/count"))
    writer = open_peer("writer")
    for topic in ("now/x", "t/x"):
        assert writer.connection.publish(Outgoing(topic=topic, payload=topic.encode()))
    assert {first.next_message().messages[0].topic for _ in range(3)} == {
        "now/x", "t/x", "$SYS/broker/retained messages/count",
    }  # fmt: skip
    first.connection.close()
    for topic in ("now/x", "t/x"):
        assert writer.connection.publish(Outgoing(topic=topic, payload=b"while away"))
    assert writer.connection.flush(10)
    second = open_peer("reader", "t/x", keep=True, unqueued=("now/x",))
    again: list[str] = []
    assert writer.connection.publish(Outgoing(topic="t/x", payload=b"last"))
    while (came := second.next_message().messages[0]).payload != b"last":
        again.append(came.topic)
    assert "now/x" not in again


def test_a_broker_that_does_not_grant_what_is_of_the_moment_is_good_enough() -> None:
    def refuse_the_second(peer: scripted.Peer) -> None:
        peer.send(CONNACK["3.1.1"])
        subscribe = peer.packet()
        assert subscribe.endswith(b"\x00\x05mo/me\x00")
        peer.send(packet(0x90, body(subscribe)[:2] + b"\x01\x80"))
        peer.listen()

    with ScriptedBroker(refuse_the_second) as broker:
        peer = Peer(broker.url, "reader", filters=("t/x",), unqueued=("mo/me",))
        peer.next(Connected)
        peer.connection.close()


def test_a_connection_comes_back_after_the_broker_did(open_peer: Open, broker: Broker) -> None:
    peer = open_peer("reader", "t/#")
    broker.kill()
    lost = peer.next(Disconnected)
    assert isinstance(lost, Disconnected)
    assert not peer.connection.publish(Outgoing(topic="t/x", payload=b"")), "nothing is queued while there is none"
    broker.start()
    peer.next(Connected)
    assert peer.connection.publish(Outgoing(topic="t/x", payload=b"again"))
    assert peer.next_payload() == b"again"


def test_a_clean_close_sends_no_will_and_a_takeover_sends_the_old_one(
    open_peer: Open, listen: Callable[..., Listener]
) -> None:
    listener = listen("will/#")
    open_peer("quiet").connection.close()
    first = open_peer("taken")
    open_peer("taken")
    wait_for(lambda: listener.of("will/taken"), seconds=10, what="the will of the old connection")
    first.next(Disconnected)
    assert listener.of("will/quiet") == []


def test_a_flush_waits_for_the_broker(open_peer: Open, listen: Callable[..., Listener]) -> None:
    listener = listen("t/#")
    writer = open_peer("writer")
    for number in range(500):
        writer.connection.publish(Outgoing(topic="t/x", payload=str(number).encode()))
    assert writer.connection.flush(20)
    wait_for(lambda: len(listener.messages) == 500, seconds=10, what="all messages")
    assert [message.payload for message in listener.messages] == [str(number).encode() for number in range(500)]


def test_a_broker_that_refuses_is_told_and_tried_again() -> None:
    port = own_port()
    peer = Peer(f"mqtt://user:secret@127.0.0.1:{port}", "x")
    first, second = peer.next(Disconnected), peer.next(Disconnected)
    peer.connection.close()
    assert isinstance(first, Disconnected)
    assert first == second
    assert first.reason == f"mqtt://127.0.0.1:{port}: Connection refused"


@pytest.mark.parametrize("sizes", [(1, 127, 128, 16_383, 16_384, 200_000) * 8])
def test_payloads_of_all_sizes_come_as_they_went(open_peer: Open, sizes: tuple[int, ...]) -> None:
    reader, writer = open_peer("reader", "t/#", keep=True), open_peer("writer")
    sent = [number.to_bytes(2, "big") * (size // 2 + 1) for number, size in enumerate(sizes)]
    for payload in sent:
        assert writer.connection.publish(Outgoing(topic="t/x", payload=payload))
    assert [reader.next_payload() for _ in sent] == sent


def test_a_burst_loses_nothing_while_messages_come_in(open_peer: Open) -> None:
    """More than may be on their way, by a connection that receives all of them, too."""
    peer = open_peer("both", "t/#")
    sent = [str(number).encode() for number in range(5 * WINDOW)]
    for payload in sent:
        assert peer.connection.publish(Outgoing(topic="t/x", payload=payload))
    assert [peer.next_payload() for _ in sent] == sent
    assert peer.connection.flush(20)


def test_no_packet_waits_for_the_next_one(open_peer: Open) -> None:
    """However threads are switched, what is handed over is sent at once, not when something else comes in."""
    writer = open_peer("writer")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(2000):
            assert writer.connection.publish(Outgoing(topic="t/x", payload=str(number).encode()))
            assert writer.connection.flush(5)
    finally:
        sys.setswitchinterval(before)


def test_a_connection_that_only_receives_stays(broker: Broker, listen: Callable[..., Listener]) -> None:
    """Mosquitto ends one from which it has heard nothing for one and a half keepalives."""
    peer, writer = Peer(broker.url, "x", filters=("t/#",), keepalive=(1, 1)), listen("none")
    peer.next(Connected)
    numbers = iter(range(1000))
    with contextlib.closing(peer.connection):
        for _ in range(5):
            payload = str(next(numbers)).encode()
            writer.publish("t/x", payload)
            assert peer.next_payload() == payload
            with pytest.raises(queue.Empty):
                peer.events.get(timeout=1)


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_a_broker_that_falls_silent_is_left(protocol: str) -> None:
    pings = []

    def say_no_more(peer: scripted.Peer) -> None:
        peer.send(CONNACK[protocol])
        pings.append(peer.packet())
        peer.listen()

    with ScriptedBroker(say_no_more) as broker:
        peer = Peer(broker.url, "x", protocol=protocol, keepalive=(1, 1))
        lost = peer.next(Disconnected)
        peer.connection.close()
    assert isinstance(lost, Disconnected)
    assert lost.reason.endswith("Keep alive timeout")
    assert pings[0] == b"\xc0\x00"


def test_a_flush_without_a_connection_does_not_succeed() -> None:
    connection = Connection(BrokerUrl.parse("mqtt://127.0.0.1:1"), client_id="x", deliver=lambda _: None)
    assert not connection.flush(0.1)


# --- a broker that says what we want ---


def test_what_is_acknowledged_together_goes_out_in_the_order_in_which_it_came() -> None:
    mids = [*range(1, 400), 7, 65_535, 300]
    acknowledged = []

    def send_and_hear(peer: scripted.Peer) -> None:
        peer.send(CONNACK["3.1.1"], b"".join(publish(b"t", b"x", mid=mid) for mid in mids))
        acknowledged.extend(peer.packets(len(mids)))
        peer.listen()

    with ScriptedBroker(send_and_hear) as broker:
        peer = Peer(broker.url, "x", keep=True)
        came = [peer.next_message() for _ in mids]
        assert acknowledged == [], "nothing was said to be safe"
        for one in came:
            peer.connection.acknowledge(one)
        wait_for(lambda: len(acknowledged) == len(mids), seconds=10, what="all acknowledgements")
        peer.connection.close()
    assert acknowledged == [packet(0x40, mid.to_bytes(2, "big")) for mid in mids]


def test_what_the_network_takes_slowly_goes_out_whole_and_in_order() -> None:
    payloads = [bytes([number]) * 150_000 for number in range(60)]
    heard = []

    def hear_late(peer: scripted.Peer) -> None:
        peer.send(CONNACK["3.1.1"], publish(b"t", b"x", mid=9))
        heard.append(b"ready")
        for _ in range(len(payloads) + 1):
            heard.append(peer.packet())
            if heard[-1][0] == 0x32:
                peer.send(puback(heard[-1]))
        peer.listen()

    with ScriptedBroker(hear_late) as broker:
        peer = Peer(broker.url, "x", keep=True)
        came = peer.next_message()
        for payload in payloads:
            assert peer.connection.publish(Outgoing(topic="t", payload=payload))
        peer.connection.acknowledge(came)
        assert peer.connection.flush(20)
        peer.connection.close()
    assert [body(one)[5:] for one in heard if one[0] == 0x32] == payloads
    assert b"\x40\x02\x00\x09" in heard


def test_what_no_broker_acknowledged_is_not_flushed_and_not_sent_again_by_itself() -> None:
    connections = []

    def forget(peer: scripted.Peer) -> None:
        peer.send(CONNACK["3.1.1"])
        connections.append(peer.packet())

    with ScriptedBroker(forget) as broker:
        peer = Peer(broker.url, "x")
        for _ in range(2):
            peer.next(Connected)
            assert peer.connection.publish(Outgoing(topic="t", payload=str(len(connections)).encode()))
            assert not peer.connection.flush(20), "the connection ended first"
            peer.next(Disconnected)
        peer.connection.close()
    assert [one[-1:] for one in connections[:2]] == [b"0", b"1"]


def test_a_broker_is_sent_no_more_at_once_than_it_allows() -> None:
    heard = []

    def allow_three(peer: scripted.Peer) -> None:
        peer.send(b"\x20\x06\x00\x00\x03\x21\x00\x03")
        heard.extend(peer.packets(3))
        peer.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            peer.packet()
        peer.sock.settimeout(20)
        for _ in range(7):
            peer.send(puback(heard[-3]))
            heard.append(peer.packet())
        peer.send(*map(puback, heard[-3:]))
        peer.listen()

    with ScriptedBroker(allow_three) as broker:
        peer = Peer(broker.url, "x", protocol="5")
        peer.next(Connected)
        for number in range(10):
            assert peer.connection.publish(Outgoing(topic="t", payload=bytes([number])))
        assert peer.connection.flush(20)
        peer.connection.close()
    assert [one[-1] for one in heard] == list(range(10))


def test_what_is_sent_while_the_network_is_full_goes_out_behind_what_waits() -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    link, sent = Link(near), [b"a" * 3_000_000, b"b" * 10, b"c" * 3_000_000]
    for data in sent:
        assert link.send(data) == len(data)
    assert link.is_blocked
    heard = bytearray()
    while len(heard) < sum(map(len, sent)):
        heard += far.recv(1 << 20)
        link.transmit()
    assert heard == b"".join(sent)
    link.close()
    far.close()


# --- beside plain paho ---

Told = list[tuple[str, bytes, bool, int]]


def told_to_paho(port: int, protocol: str) -> Told:
    """What plain paho makes of a connection, until it ends."""
    told: Told = []
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id="x", protocol=PROTOCOLS[protocol], reconnect_on_failure=False
    )

    def take(_client: paho.Client, _data: object, one: paho.MQTTMessage) -> None:
        # We acknowledge at QoS 1 only, for which we ask; paho goes on with what somebody sends at QoS 2.
        told.append((one.topic, bytes(one.payload), one.retain, one.mid if one.qos == 1 else 0))

    client.on_message = take
    client.connect("127.0.0.1", port)
    client.loop_forever()
    return told


def told_to_us(url: str, protocol: str) -> Told:
    """What ours makes of it."""
    peer = Peer(url, "x", protocol=protocol)
    told: Told = []
    while not isinstance(event := peer.events.get(timeout=15), Disconnected):
        if isinstance(event, Messages):
            told += [(one.topic, one.payload, one.retained, int.from_bytes(one.mid, "big")) for one in event.messages]
    peer.connection.close()
    return told


NOISE = st.lists(st.builds(packet, st.integers(0, 255), st.binary(max_size=12))).map(b"".join)
PROPERTIES = [b"", b"\x02\x00\x00\x00\x09", b"\x26\x00\x01a\x00\x01b", b"\x02\x00", b"\xff"]


@st.composite
def streams(draw: st.DrawFn, protocol: str) -> bytes:
    """Messages of all kinds among other packets, some of which are none."""
    usual = st.builds(
        publish,
        st.sampled_from([b"t", b"a/b", "名".encode()]),
        st.binary(max_size=200) | st.integers(100, 20_000).map(bytes),
        flags=st.sampled_from([0, 1, 2, 2, 2, 3, 10]),
        mid=st.integers(1, 65_535),
        properties=st.sampled_from(PROPERTIES[:3]) if protocol == "5" else st.none(),
    )
    unusual = st.sampled_from(
        [
            packet(0xD0, b""), packet(0xD0, b"\x00"), packet(0xE0, b""), packet(0x00, b"x"), b"\x32", b"\x32\x80\x00",
            packet(0x40, b"\x00\x01"), packet(0x40, b"\x00"), packet(0x40, b"\x00\x01\x10"),
            packet(0x40, b"\x00\x01\x11"), packet(0x90, b"\x00\x01\x00"), b"\x32\xff\xff\xff\xff\xff",
            packet(0x34, b"\x00\x01t\x00\x05\x00later"), packet(0x62, b"\x00\x05"), packet(0x36, b"\x00\x01t\x00\x01"),
            packet(0x30, b""), packet(0x32, b"\x00\x05t"), packet(0x32, b"\x00\x00\x00\x01"),
            packet(0x32, b"\x00\x01t\x00\x01\x02\x00"), packet(0x30, b"\x00\x01t\xff"),
        ]
    )  # fmt: skip
    return b"".join(draw(st.lists(usual | usual | unusual, max_size=12)))


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@settings(max_examples=60, deadline=None)
@given(data=st.data(), places=st.lists(st.integers(0), max_size=6))
def test_the_same_bytes_are_the_same_messages_as_to_plain_paho(
    protocol: str, data: st.DataObject, places: list[int]
) -> None:
    pieces = scripted.cut(data.draw(streams(protocol)), places)

    def say_all(peer: scripted.Peer) -> None:
        peer.send(CONNACK[protocol], *pieces)
        peer.finish()

    with ScriptedBroker(say_all) as broker:
        expected = told_to_paho(broker.port, protocol)
        assert told_to_us(broker.url, protocol) == expected


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
@settings(max_examples=60, deadline=None)
@given(noise=st.binary(max_size=60) | NOISE)
def test_whatever_a_broker_says_ends_the_connection_at_worst(protocol: str, noise: bytes) -> None:
    def say_it(peer: scripted.Peer) -> None:
        peer.send(CONNACK[protocol], noise)
        peer.finish()

    with ScriptedBroker(say_it) as broker:
        told_to_us(broker.url, protocol)


def test_a_topic_that_is_no_text_ends_the_connection() -> None:
    """Plain paho raises from its `topic` then, and a thread would end."""

    def say_it(peer: scripted.Peer) -> None:
        peer.send(CONNACK["3.1.1"], publish(b"t", b"good"), publish(b"\xff", b"bad"), publish(b"t", b"late"))
        peer.listen()

    with ScriptedBroker(say_it) as broker:
        peer = Peer(broker.url, "x", keep=True)
        assert peer.next_payload() == b"good"
        ended = peer.next(Disconnected)
        assert isinstance(ended, Disconnected)
        assert ended.reason.endswith("Protocol error")
        peer.connection.close()


# --- TLS ---


@pytest.fixture(params=["3.1.1", "5"])
def open_tls_peer(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Connections to a Mosquitto with TLS, whose authority only this test trusts."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, *name, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    port = own_port()
    user = "user root\n" if os.geteuid() == 0 else ""
    (tmp_path / "tls.conf").write_text(
        f"{user}listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 1000\n"
        f"max_queued_messages 100000\ncertfile {certificate}\nkeyfile {key}\n"
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    process = subprocess.Popen([find_mosquitto(), "-c", tmp_path / "tls.conf"], stderr=subprocess.DEVNULL)
    opened: list[Peer] = []

    def open_one(client_id: str, *filters: str, keep: bool = False) -> Peer:
        url = f"mqtts://127.0.0.1:{port}"
        opened.append(Peer(url, client_id, filters=filters, protocol=request.param, keep=keep))
        opened[-1].next(Connected)
        return opened[-1]

    try:
        wait_for(lambda: answers(port), seconds=15, what="the broker answers")
        yield open_one
    finally:
        for peer in opened:
            peer.connection.close()
        process.terminate()
        process.wait(10)


def test_tls_carries_the_same(open_tls_peer: Open) -> None:
    reader, writer = open_tls_peer("reader", "t/#", keep=True), open_tls_peer("writer")
    sent = [number.to_bytes(2, "big") * size for number in range(400) for size in (5, 500, 4500)]
    for payload in sent:
        assert writer.connection.publish(Outgoing(topic="t/x", payload=payload))
    assert writer.connection.flush(20)
    for payload in sent:
        came = reader.next_message()
        assert came.messages[0].payload == payload
        reader.connection.acknowledge(came)


def test_tls_brings_again_what_was_not_acknowledged(open_tls_peer: Open) -> None:
    reader, writer = open_tls_peer("reader", "t/#", keep=True), open_tls_peer("writer")
    for number in range(2):
        writer.connection.publish(Outgoing(topic="t/x", payload=str(number).encode()))
    reader.connection.acknowledge(reader.next_message())
    assert reader.next_payload() == b"1"
    assert open_tls_peer("reader", "t/#", keep=True).next_payload() == b"1"


def test_a_certificate_that_nobody_trusts_is_told(open_tls_peer: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(open_tls_peer("one").connection._url)
    monkeypatch.delenv("SSL_CERT_FILE")
    peer = Peer(url, "two")
    refused = peer.next(Disconnected)
    peer.connection.close()
    assert isinstance(refused, Disconnected)
    assert "signed by another authority than tls.ca" in refused.reason


# --- its parts ---


@given(st.floats(0, 1e9))
def test_a_retry_never_waits_longer_than_a_third_of_the_outage_or_the_bounds(outage: float) -> None:
    delay = retry_delay(outage)
    assert 0 <= delay <= 30
    assert delay <= max(3.0, outage / 3)


def test_after_an_outage_of_ten_seconds_the_next_try_comes_within_four() -> None:
    assert max(retry_delay(10) for _ in range(1000)) < 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mqtt://host", ("host", 1883, False, None, None)),
        ("mqtts://host", ("host", 8883, True, None, None)),
        ("mqtts://u:p%40ss@h.lan:99", ("h.lan", 99, True, "u", "p@ss")),
        ("mqtt://[::1]:5", ("::1", 5, False, None, None)),
    ],
)
def test_a_url_is_read_as_written(text: str, expected: tuple[object, ...]) -> None:
    url = BrokerUrl.parse(text)
    assert (url.host, url.port, url.tls, url.username, url.password) == expected


@given(st.text())
def test_what_is_no_url_is_a_usage_error_without_its_text(text: str) -> None:
    try:
        BrokerUrl.parse(text)
    except UsageError as error:
        assert str(error).startswith("broker URL: expected")


def test_no_text_of_a_url_shows_the_password() -> None:
    url = BrokerUrl.parse("mqtts://user:secret@host")
    assert "secret" not in str(url) + repr(url)
