"""How long the aggregator gathers: soon committed where little comes, and not in vain where a broker holds back."""

import contextlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from telemetry.aggregator.run import LARGEST_BATCH, LINGER, Aggregator
from telemetry.config import Intervals
from telemetry.mqtt import BrokerUrl, Connection
from telemetry.stores.sqlite import SqliteStore
from telemetry.topics import Topics
from tests.scripted import CONNACK, Peer, ScriptedBroker, body, packet, puback, publish
from tests.secured import telemetry

ROUNDS = 30


class Held:
    """A broker that sends so many messages at once, and no more before all are acknowledged."""

    def __init__(self, window: int, done: Callable[[], None]) -> None:
        self._window, self._done = window, done
        self.rounds: list[float] = []

    def __call__(self, peer: Peer) -> None:
        try:
            peer.send(CONNACK["3.1.1"])
            peer.send(packet(0x90, body(peer.packet())[:2] + b"\x01"))
            for _ in range(ROUNDS):
                self._send_a_windowful(peer)
        finally:
            self._done()
        while peer.packet():
            pass

    def _send_a_windowful(self, peer: Peer) -> None:
        began = time.monotonic()
        peer.send(b"".join(publish(b"miners/f01234/x", b"{}", mid=mid) for mid in range(1, self._window + 1)))
        left = self._window
        while left:
            heard = peer.packet()
            if heard[0] == 0x40:
                left -= 1
            else:
                peer.send(puback(heard))
        self.rounds.append(time.monotonic() - began)


def rounds(window: int, database: Path) -> list[float]:
    """Seconds from the first message that was sent until all were committed and acknowledged, each time."""
    with contextlib.closing(SqliteStore(database)) as store:
        aggregator = Aggregator(name="main", topics=Topics(), intervals=Intervals(), store=store)
        held = Held(window, aggregator.stop)
        with ScriptedBroker(held) as broker:
            link = Connection(
                BrokerUrl.parse(broker.url), client_id="main", deliver=aggregator.deliver, filters=aggregator.filters,
                keep_session=True, manual_ack=True,
            )  # fmt: skip
            aggregator.run(link)
    return held.rounds


def test_a_lone_message_waits_for_no_other_longer_than_it_lingers(tmp_path: Path) -> None:
    assert statistics.median(rounds(1, tmp_path / "telemetry.db")) < LINGER + 0.05


def test_where_a_broker_sends_20_at_once_nobody_waits_in_vain(tmp_path: Path) -> None:
    assert min(rounds(20, tmp_path / "telemetry.db")) < LINGER


def test_a_full_batch_does_not_linger(tmp_path: Path) -> None:
    """More than a batch at once is acknowledged too, in as many commits as it takes."""
    assert len(rounds(LARGEST_BATCH + 500, tmp_path / "telemetry.db")) == ROUNDS


def test_a_rate_at_which_no_agent_could_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "slow.toml").write_text("[aggregator]\nrate = 0\n")
    told = telemetry("aggregator", "--data", str(tmp_path), "--config", str(tmp_path / "slow.toml"), status=2)
    assert "aggregator.rate = 0: expected 4096 bytes a second or more" in told
