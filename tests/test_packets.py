"""PUBLISH and PUBACK as bytes: however they are cut, and beside what paho makes of the same bytes."""

import threading
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.mqtt.outbox import MOST_WAITING, WINDOW, Outbox
from telemetry.mqtt.packets import Message, PacketReader, puback_packets, publish_packet
from telemetry.wire import Outgoing
from tests.parts import wait_for
from tests.scripted import cut, packet, publish

Parts = list[Message | bytes]

_payloads = st.binary(max_size=300) | st.integers(100, 40_000).map(lambda size: b"x" * size)
_publishes = st.builds(
    publish,
    st.sampled_from([b"t", b"miners/f01234/workers/h1", "名".encode(), b"x" * 200]),
    _payloads,
    flags=st.sampled_from([0, 1, 2, 3, 10, 11]),
    mid=st.integers(1, 65_535),
)
_others = st.builds(packet, st.sampled_from([0x20, 0x40, 0x90, 0xD0, 0xE0, 0x34]), st.binary(max_size=300))
_streams = st.lists(_publishes | _others, max_size=20).map(b"".join)


def read(pieces: Iterable[bytes], *, is_v5: bool = False) -> tuple[Parts, list[int]]:
    """All messages and packets that are found in pieces, and the acknowledged packet identifiers."""
    reader = PacketReader(is_v5=is_v5)
    parts: Parts = []
    for piece in pieces:
        for part in reader.feed(piece):
            if isinstance(part, bytes):
                parts.append(part)
            else:
                assert part
                parts.extend(part)
    return parts, reader.take_acknowledged()


@given(_streams, st.lists(st.integers(0), max_size=30), st.booleans())
def test_what_is_read_does_not_depend_on_where_the_stream_is_cut(stream: bytes, places: list[int], v5: bool) -> None:
    assert read(cut(stream, places), is_v5=v5) == read([stream], is_v5=v5)


@pytest.mark.parametrize("is_v5", [False, True])
def test_a_stream_may_be_cut_at_every_byte(is_v5: bool) -> None:
    properties = b"" if is_v5 else None
    stream = b"".join(
        (
            publish(b"a/b", b"first", properties=properties, mid=258),
            packet(0xD0, b""),
            publish(b"a/c", b"y" * 200, flags=1, properties=properties),
            packet(0x40, b"\x01\x02"),
            publish(b"a/b", b"z" * 20_000, flags=11, properties=properties, mid=65_535),
        )
    )
    expected: Parts = [
        Message("a/b", b"first", False, b"\x01\x02"),
        b"\xd0\x00",
        Message("a/c", b"y" * 200, True, b""),
        Message("a/b", b"z" * 20_000, True, b"\xff\xff"),
    ]
    assert read([stream], is_v5=is_v5) == (expected, [258])
    assert read((stream[at : at + 1] for at in range(len(stream))), is_v5=is_v5) == (expected, [258])
    for place in range(400):
        assert read(cut(stream, [place]), is_v5=is_v5) == (expected, [258])


@given(st.lists(st.binary(max_size=40), max_size=8), st.booleans())
def test_no_bytes_are_too_much_for_the_reader(pieces: list[bytes], v5: bool) -> None:
    read(pieces, is_v5=v5)


@pytest.mark.parametrize(
    "unusual",
    [
        packet(0x32, b""),
        packet(0x32, b"\x00"),
        packet(0x32, b"\x00\x01t"),
        packet(0x32, b"\x00\x01t\x00"),
        packet(0x30, b"\x00\x02t"),
        packet(0x30, b"\xff\xfft"),
        publish(b"", b"no topic"),
        publish(b"\xff", b"no text"),
        publish(b"t", b"", flags=4),
        publish(b"t", b"", flags=6),
        packet(0x40, b""),
        packet(0x40, b"\x00"),
    ],
)
def test_what_is_no_plain_publish_is_left_to_paho_whole(unusual: bytes) -> None:
    before, after = publish(b"a", b"1"), publish(b"a", b"2")
    messages = [Message("a", payload, False, b"\x00\x01") for payload in (b"1", b"2")]
    assert read([before + unusual + after])[0] == [messages[0], unusual, messages[1]]


def test_a_length_of_five_bytes_is_left_to_paho_with_all_five() -> None:
    parts, _ = read([b"\x32\xff\xff\xff\xff\x01rest"])
    assert parts[0] == b"\x32\xff\xff\xff\xff\x01"


def test_properties_are_left_to_paho() -> None:
    with_expiry = publish(b"a", b"1", properties=b"\x02\x00\x00\x00\x09")
    assert read([with_expiry], is_v5=True)[0] == [with_expiry]


@pytest.mark.parametrize(
    ("puback", "is_v5", "left"),
    [(b"\x00\x07", False, 0), (b"\x00\x07", True, 0), (b"\x00\x07\x10", True, 0), (b"\x00\x07\x10", False, 1),
     (b"\x00\x07\x87", True, 1), (b"\x00\x07\x10\x00", True, 1)],
)  # fmt: skip
def test_every_puback_counts_and_an_unusual_one_is_left_to_paho_too(puback: bytes, is_v5: bool, left: int) -> None:
    parts, acknowledged = read([packet(0x40, puback)], is_v5=is_v5)
    assert acknowledged == [7]
    assert parts == [packet(0x40, puback)][:left]


def test_a_stranger_cannot_fill_the_memory_with_topics() -> None:
    reader = PacketReader(is_v5=False)
    for number in range(70_000):
        assert [*reader.feed(publish(str(number).encode(), b""))]
    assert len(reader._topics) <= 65_536


@given(
    topic=st.text(st.characters(exclude_characters="+#", exclude_categories=["Cs"]), min_size=1, max_size=300),
    payload=_payloads,
    mid=st.integers(1, 65_535),
    retain=st.booleans(),
    is_v5=st.booleans(),
)
def test_what_is_written_is_read_again(topic: str, payload: bytes, mid: int, retain: bool, is_v5: bool) -> None:
    written = publish_packet(topic, payload, mid, retain=retain, is_v5=is_v5)
    assert read([written], is_v5=is_v5)[0] == [Message(topic, payload, retain, mid.to_bytes(2, "big"))]


@pytest.mark.parametrize("topic", ["", "a/+", "#", "x" * 65_536])
def test_what_is_no_topic_is_not_written(topic: str) -> None:
    with pytest.raises(ValueError, match="a topic has"):
        publish_packet(topic, b"", 1, retain=False, is_v5=False)


def test_acknowledgements_keep_their_order() -> None:
    assert (
        puback_packets([b"\x00\x02", b"\xff\xff", b"\x00\x01"]) == b"\x40\x02\x00\x02\x40\x02\xff\xff\x40\x02\x00\x01"
    )
    assert puback_packets([]) == b""


# --- the way out ---

SOMETHING = Outgoing(topic="t", payload=b"")


def mids_of(data: bytes) -> list[int]:
    return [int.from_bytes(part.mid, "big") for part in read([data])[0] if isinstance(part, Message)]


def test_no_more_messages_are_on_their_way_than_the_window_has_room_for() -> None:
    outbox = Outbox(lambda: None, is_v5=False)
    for _ in range(WINDOW + 500):
        assert outbox.publish([SOMETHING])
    first = mids_of(outbox.take())
    assert len(first) == WINDOW
    assert outbox.take() == b""
    outbox.acknowledged(first[:200])
    assert len(mids_of(outbox.take())) == 200
    outbox.acknowledged(first[200:])
    assert not outbox.settle(0)
    assert len(mids_of(outbox.take())) == 300


def test_a_broker_may_allow_less() -> None:
    outbox = Outbox(lambda: None, is_v5=True)
    outbox.allow(3)
    for _ in range(5):
        outbox.publish([SOMETHING])
    assert outbox.take().count(b"\x32") == 3


def test_packet_identifiers_are_given_again_only_when_free_and_are_never_pahos() -> None:
    outbox = Outbox(lambda: None, is_v5=False)
    stuck: set[int] = set()
    for number in range(100_000):
        outbox.publish([SOMETHING])
        (mid,) = mids_of(outbox.take())
        assert mid not in stuck
        assert 0x8000 <= mid <= 0xFFFF
        if number % 1000:
            outbox.acknowledged([mid])
        else:
            stuck.add(mid)


def test_acknowledgements_go_before_messages_whatever_the_window() -> None:
    outbox = Outbox(lambda: None, is_v5=False)
    outbox.allow(0)
    outbox.publish([SOMETHING])
    outbox.acknowledge(b"\x40\x02\x00\x07")
    assert outbox.take() == b"\x40\x02\x00\x07"


def test_the_network_thread_is_woken_once_for_what_it_has_not_taken_yet() -> None:
    wakes: list[None] = []
    outbox = Outbox(lambda: wakes.append(None), is_v5=False)
    for _ in range(10):
        outbox.publish([SOMETHING])
        outbox.acknowledge(b"\x40\x02\x00\x07")
    outbox.take()
    outbox.publish([SOMETHING])
    assert len(wakes) == 2


def test_who_publishes_too_much_waits_until_there_is_room_or_the_connection_ends() -> None:
    outbox = Outbox(lambda: None, is_v5=False)
    for _ in range(MOST_WAITING):
        outbox.publish([SOMETHING])
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.extend(outbox.publish([SOMETHING]) for _ in range(WINDOW + 1)))
    thread.start()
    outbox.take()
    wait_for(lambda: len(results) == WINDOW, seconds=10, what="what there was room for")
    outbox.close()
    thread.join(10)
    assert results == [True] * WINDOW + [False]
