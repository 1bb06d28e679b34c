"""The connection against a real broker: what it keeps, what comes again, and how it comes back."""

import queue
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.errors import UsageError
from telemetry.mqtt import BrokerUrl, Connected, Connection, Disconnected, Event, Message, retry_delay
from telemetry.processes import free_port
from telemetry.wire import Outgoing
from tests.parts import Broker, Listener, wait_for

Open = Callable[..., "Peer"]


class Peer:
    """A connection and the events that it delivered."""

    def __init__(self, url: str, client_id: str, *, filters: tuple[str, ...], protocol: str, keep: bool) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._passed_over: list[Event] = []
        self.connection = Connection(
            BrokerUrl.parse(url),
            client_id=client_id,
            deliver=self.events.put,
            filters=filters,
            will=lambda session: Outgoing(topic=f"will/{client_id}", payload=session.encode()),
            protocol=protocol,
            keep_session=keep,
            manual_ack=keep,
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

    def next_message(self) -> Message:
        message = self.next(Message)
        assert isinstance(message, Message)
        return message


@pytest.fixture(params=["3.1.1", "5"])
def open_peer(request: pytest.FixtureRequest, broker: Broker) -> Iterator[Open]:
    opened: list[Peer] = []

    def open_one(client_id: str, *filters: str, keep: bool = False) -> Peer:
        opened.append(Peer(broker.url, client_id, filters=filters, protocol=request.param, keep=keep))
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
    # Another connection of the name takes the place of the first, as after its death.
    second = open_peer("reader", "t/#", keep=True)
    assert [second.next_message().payload for _ in range(2)] == [b"1", b"2"]
    # What an old connection delivered can no longer be acknowledged on the new one: it comes once more.
    second.connection.acknowledge(received[1])
    third = open_peer("reader", "t/#", keep=True)
    assert [third.next_message().payload for _ in range(2)] == [b"1", b"2"]


def test_a_kept_session_queues_while_its_owner_is_away(open_peer: Open) -> None:
    reader = open_peer("reader", "t/#", keep=True)
    reader.connection.close()
    writer = open_peer("writer")
    writer.connection.publish(Outgoing(topic="t/x", payload=b"meanwhile"))
    assert writer.connection.flush(10)
    assert open_peer("reader", "t/#", keep=True).next_message().payload == b"meanwhile"


def test_a_connection_comes_back_after_the_broker_did(open_peer: Open, broker: Broker) -> None:
    peer = open_peer("reader", "t/#")
    broker.kill()
    lost = peer.next(Disconnected)
    assert isinstance(lost, Disconnected)
    assert not peer.connection.publish(Outgoing(topic="t/x", payload=b"")), "nothing is queued while there is none"
    broker.start()
    peer.next(Connected)
    assert peer.connection.publish(Outgoing(topic="t/x", payload=b"again"))
    assert peer.next_message().payload == b"again"


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
    port = free_port(23_000)
    peer = Peer(f"mqtt://user:secret@127.0.0.1:{port}", "x", filters=(), protocol="3.1.1", keep=False)
    first, second = peer.next(Disconnected), peer.next(Disconnected)
    peer.connection.close()
    assert isinstance(first, Disconnected)
    assert first == second
    assert first.reason == f"mqtt://127.0.0.1:{port}: Connection refused"


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


def test_a_flush_without_a_connection_does_not_succeed() -> None:
    connection = Connection(BrokerUrl.parse("mqtt://127.0.0.1:1"), client_id="x", deliver=lambda _: None)
    assert not connection.flush(0.1)


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
