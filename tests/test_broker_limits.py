"""The broker takes as many connections, and as large messages, as are set and no more, and nobody else notices."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from telemetry.connection_limit import ConnectionLimit
from telemetry.simulate import packets
from telemetry.wire import LARGEST_PAYLOAD
from tests.conftest import StartPart
from tests.parts import Broker, Listener, Process, own_port, wait_for
from tests.secured import Secured, telemetry

LIMIT, ROUNDS = 50, 3

ALONE = 2
"""Sockets of a broker that listens on loopback only and has no clients: beside the listening one it keeps a spare."""


@pytest.fixture
def broker(data: Path) -> Iterator[Broker]:
    (data / "limit.toml").write_text(f"[broker]\nconnections = {LIMIT}\n")
    running = Broker(data, "--config", str(data / "limit.toml")).start()
    # Who looked whether it answers has to be gone.
    wait_for(lambda: _sockets(running.pid) == ALONE, seconds=10, what="nobody is in")
    yield running
    running.end()


def _sockets(pid: int) -> int:
    """How many sockets a process has."""
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += link.readlink().name.startswith("socket:")
    return found


def _come(port: int, number: int) -> list[socket.socket]:
    """So many clients, who all want to be in."""
    clients = []
    for client in range(number):
        one = socket.create_connection(("127.0.0.1", port), 10)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError):  # turned away already
            one.sendall(packets.connect(f"client{client}", None, 60))
        clients.append(one)
    return clients


def _is_in(client: socket.socket) -> bool:
    try:
        return client.recv(1)[:1] == bytes([packets.CONNACK << 4])
    except ConnectionResetError:
        return False


def _leave(clients: Sequence[socket.socket]) -> None:
    for client in clients:
        client.close()


def test_three_rounds_of_three_times_as_many_let_in_exactly_the_limit_and_disturb_nobody(
    broker: Broker, data: Path, start: StartPart
) -> None:
    friend = Listener(broker.url, "friend/#")
    agent = None
    for number in range(ROUNDS):
        clients = _come(broker.port, 3 * LIMIT)
        friend.publish("friend/amid", str(number).encode())
        inside = [client for client in clients if _is_in(client)]
        assert len(inside) == LIMIT - friend.connections
        assert _sockets(broker.pid) == ALONE + LIMIT
        if agent is None:
            agent = start("agent", "--data", str(data), "--broker", broker.url, "--miner", "f01", "--name", "late")
            told = f"not connected: {broker.url}: closed before it said a word: it may have as many connections as it"
            wait_for(lambda: told in agent.text, seconds=20, what=f"the refused is told: {agent.text}")  # noqa: B023  # waited for here
            agent.end()
        _is_saved(broker, data)
        for client in inside:
            client.sendall(packets.subscribe(1, [f"own/{number}"]) + b"\xc0\0")
        # A SUBACK and a PINGRESP.
        assert all(client.recv(64) for client in inside)
        friend.publish("friend/after", str(number).encode())
        _leave(clients)
        wait_for(lambda: _sockets(broker.pid) == ALONE + 1, seconds=10, what="all left")
    came = [message.payload for message in friend.messages]
    assert came == [str(number).encode() for number in range(ROUNDS) for _ in range(2)]
    assert friend.connections == 1
    friend.close()


def _is_saved(broker: Broker, data: Path) -> None:
    """The broker saves what it holds, also while all its connections are taken."""
    kept = data / "broker" / "mosquitto.db"
    before = kept.stat().st_mtime_ns if kept.exists() else 0
    os.kill(broker.pid, signal.SIGUSR1)
    wait_for(lambda: kept.exists() and kept.stat().st_mtime_ns > before, seconds=10, what="saved")


def test_who_was_turned_away_comes_in_by_itself_once_there_is_room(
    broker: Broker, data: Path, start: StartPart
) -> None:
    clients = _come(broker.port, LIMIT)
    assert all(map(_is_in, clients))
    (data / "soon.toml").write_text("[broker]\nretry_most = 0.5\nretry_first = 0.5\n")
    options = ("--data", str(data), "--broker", broker.url, "--config", str(data / "soon.toml"))
    agent = start("agent", *options, "--miner", "f01", "--name", "late")
    wait_for(lambda: "closed before it said a word" in agent.text, seconds=20, what=agent.text)
    _leave(clients)
    wait_for(lambda: "connected as f01.late" in agent.text, seconds=20, what=agent.text)


def test_while_all_connections_are_taken_users_come_and_go_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "limit.toml").write_text("[broker]\nconnections = 20\n")
    secured = Secured(tmp_path)
    process = Process(
        tmp_path, "broker", "--data", str(secured.data), "--port", str(secured.port), "--config",
        str(tmp_path / "limit.toml"),
    )  # fmt: skip
    secured.process = process
    secured.start()
    assert f"{secured.port} for this machine, with credentials; at most 20 connections" in process.text
    try:
        own = ALONE + 1
        wait_for(lambda: _sockets(process.pid) == own, seconds=10, what="nobody is in")
        operator = secured.listener()
        inside = secured.enroll("f01234", "inside")
        # They do not say who they are, for as long as the broker lets them.
        silent = [socket.create_connection((secured.address, secured.tls_port), 10) for _ in range(40)]
        wait_for(lambda: _sockets(process.pid) == own + 20, seconds=10, what="all taken")
        told = "REFUSED a connection beyond those that it takes"
        wait_for(lambda: told in process.text, seconds=10, what=process.text)
        assert "closed before it said a word" in telemetry("check", "--bundle", str(inside), status=1)
        new = secured.enroll("f01234", "new")
        telemetry("revoke", "f01234", "inside", "--data", str(secured.data))
        _leave(silent)
        wait_for(lambda: _sockets(process.pid) == own + 1, seconds=10, what="they left")
        assert "what is not its own is refused" in telemetry("check", "--bundle", str(new), "--data", str(tmp_path))
        assert "was renewed or revoked" in telemetry("check", "--bundle", str(inside), status=1)
        assert operator.connections == 1
        operator.close()
    finally:
        secured.end()


def test_a_message_is_as_large_as_the_protocol_allows_and_a_larger_one_is_swallowed(broker: Broker) -> None:
    listener = Listener(broker.url, "t/#")
    listener.publish("t/1", b"x" * LARGEST_PAYLOAD)
    listener.publish("t/2", b"x" * (LARGEST_PAYLOAD + 1))
    listener.publish("t/3", b"after")
    wait_for(lambda: listener.of("t/3"), seconds=10, what="what came after")
    assert [message.topic for message in listener.messages] == ["t/1", "t/3"]
    assert listener.connections == 1
    listener.close()


# --- what the kernel allows ---


def test_a_hard_limit_that_allows_less_is_told_with_what_to_do(tmp_path: Path) -> None:
    broker = [sys.executable, "-m", "telemetry", "broker", "--data", str(tmp_path), "--port", str(own_port())]
    limited = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", *broker]
    with subprocess.Popen(limited, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        process.terminate()
    assert "at most 248 connections instead of 12000: the hard limit of open files is 256" in told


@pytest.mark.parametrize(
    ("wanted", "hard", "connections"), [(12_000, None, 12_000), (12_000, 20_000, 12_000), (12_000, 1024, 1016)]
)
def test_so_many_are_taken_as_are_wanted_or_possible(wanted: int, hard: int | None, connections: int) -> None:
    limit = ConnectionLimit(wanted=wanted, own=8, hard=hard)
    assert limit.connections == connections
    assert str(limit).startswith(f"at most {connections} connections")


def test_no_connection_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.toml").write_text("[broker]\nconnections = 0\n")
    told = telemetry("broker", "--data", str(tmp_path), "--config", str(tmp_path / "none.toml"), status=2)
    assert "broker.connections = 0: expected 1 or more" in told
