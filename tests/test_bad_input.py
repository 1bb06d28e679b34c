"""Bad messages to a real aggregator, and bad usage of the commands: told in one line, and nothing stops."""

import json
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from telemetry.cli import exchange, main
from telemetry.processes import free_port
from telemetry.stores.history.reading import open_history
from telemetry.topics import RecordKey
from tests.conftest import StartPart
from tests.parts import Broker, Listener, Process, wait_for

HOST = "miners/f01234/workers/seal01"
BACKLOG = "telemetry/agents/f01234/seal01/backlog"
PRESENCE = f"{HOST}/presence"


class Fleet:
    """A running aggregator, and a plain client that says to it what it likes."""

    def __init__(self, aggregator: Process, listener: Listener, database: Path) -> None:
        self.aggregator, self.listener, self.database = aggregator, listener, database
        self._seq = 0
        self.publish(BACKLOG, b'{"epoch":7,"first":1,"next":1,"messages":[]}')

    def publish(self, topic: str, payload: bytes | dict[str, Any], *, retain: bool = False) -> None:
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.listener.publish(topic, raw, retain=retain)

    def publish_change(self, **values: Any) -> int:
        """A good message of the host's log; its number."""
        self._seq += 1
        self.publish(HOST, {"_epoch": 7, "_seq": self._seq, "_time": self._seq, **values})
        return self._seq

    def require_good(self) -> None:
        """Good messages still arrive, nothing was printed that is not for a person, and no snapshot has null."""
        self.publish(HOST, {"_epoch": 7, "_seq": self._seq + 1, "_time": 1, "_full": True, "diskR": self._seq + 1})
        self._seq += 1
        wait_for(lambda: self.snapshot().get("diskR") == self._seq, seconds=10, what=f"good: {self.aggregator.text}")
        assert self.aggregator.is_running
        assert "Traceback" not in self.aggregator.text
        topics = {message.topic for message in self.listener.messages if message.topic.endswith("/snapshot")}
        for topic in topics:
            assert not _has_null(json.loads(self.listener.of(topic)[-1].payload))

    def snapshot(self) -> dict[str, Any]:
        found = [message for message in self.listener.of(f"{HOST}/snapshot") if message.payload]
        snapshot: dict[str, Any] = json.loads(found[-1].payload) if found else {}
        return snapshot

    def rejected(self, topic: str) -> list[str]:
        """The reasons for which something on the topic was rejected."""
        return [row[0] for row in self.query("SELECT reason FROM rejected WHERE topic = ? ORDER BY id", topic)]

    def query(self, query: str, *parameters: object) -> list[Any]:
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            return connection.execute(query, parameters).fetchall()


def _has_null(value: object) -> bool:
    if isinstance(value, dict):
        return any(_has_null(entry) for entry in value.values())
    return any(_has_null(entry) for entry in value) if isinstance(value, list) else value is None


def _start_aggregator(start: StartPart, data: Path, url: str) -> Process:
    aggregator = start("aggregator", "--data", str(data), "--broker", url, "--config", str(data / "fast.toml"))
    wait_for(lambda: "connected as" in aggregator.text, seconds=15, what="aggregator connected")
    return aggregator


@pytest.fixture
def fleet(data: Path, broker: Broker, start: StartPart, listen: Callable[..., Listener]) -> Fleet:
    return Fleet(_start_aggregator(start, data, broker.url), listen(), data / "telemetry.db")


ENVELOPE = {"_epoch": 7, "_seq": 500, "_time": 1}

REJECTED: list[tuple[str, bytes | dict[str, Any], str]] = [
    (HOST, b"not json", "not JSON"),
    (HOST, b"", "not JSON"),
    (HOST, b"\xff\xfe\x00", "not JSON"),
    (HOST, b"[1,2]", "not a JSON object"),
    (HOST, b"null", "not a JSON object"),
    (HOST, b'{"_epoch":7,"_seq":500,"_time":1,"cpuLoad":NaN}', "not JSON"),
    (HOST, b'{"_epoch":7,"_seq":500,"_time":1,"cpuLoad":1e999}', "not JSON"),
    (HOST, b'{"x":' * 50_000, "not JSON"),
    (HOST, b"[" * 50_000, "not JSON"),
    (HOST, {"cpuLoad": 1}, "_seq"),
    (HOST, ENVELOPE | {"_seq": -1}, "_seq"),
    (HOST, ENVELOPE | {"_seq": 10**30}, "_seq"),
    (HOST, ENVELOPE | {"_epoch": None}, "_epoch"),
    (HOST, ENVELOPE | {"_epoch": 2**63}, "_epoch"),
    (HOST, ENVELOPE | {"_time": "now"}, "_time"),
    (HOST, ENVELOPE | {"_gone": [1]}, "_gone"),
    ("miners/x01", ENVELOPE, "no miner, host or agent"),
    ("miners/f0", ENVELOPE, "no miner, host or agent"),
    ("miners/f01234/workers/-bad", ENVELOPE, "no miner, host or agent"),
    ("miners/f01234/workers/_miner", ENVELOPE, "no miner, host or agent"),
    (f"miners/f01234/workers/{'x' * 64}", ENVELOPE, "no miner, host or agent"),
    (PRESENCE, b"online", "not JSON"),
    (PRESENCE, {"state": "asleep", "session": "s", "time": 1, "version": "1"}, "state"),
    (PRESENCE, {"state": "lost", "session": None, "time": 1, "version": "1"}, "session"),
    (PRESENCE, {"state": "lost", "session": "s", "time": -1, "version": "1"}, "time"),
    (BACKLOG, b"garbage", "not JSON"),
    (BACKLOG, {"epoch": 7, "first": 1, "next": 1}, "messages"),
    (BACKLOG, {"epoch": 7, "first": 9, "next": 1, "messages": []}, "next: below first"),
    (BACKLOG, {"epoch": 7, "first": 1, "next": 2, "messages": [[HOST]]}, "pairs"),
    ("telemetry/agents/f01234/-/backlog", {"epoch": 7}, "no miner, host or agent"),
    ("miners/f01234/resubscribe", b"please", "not JSON"),
    ("miners/f01234/resubscribe", {"hosts": "seal01"}, "hosts"),
    ("miners/f01234/resubscribe", {"hosts": [None]}, "hosts"),
]


def test_a_message_that_cannot_be_used_is_kept_with_its_reason_and_the_rest_goes_on(fleet: Fleet) -> None:
    for topic, payload, _ in REJECTED:
        fleet.publish(topic, payload)
    fleet.require_good()
    kept = fleet.query("SELECT topic, reason, payload FROM rejected ORDER BY id")
    assert [(topic, len(payload) <= 1024) for topic, _, payload in kept] == [(topic, True) for topic, *_ in REJECTED]
    for (_, reason, _), (_, _, expected) in zip(kept, REJECTED, strict=True):
        assert expected in reason


@pytest.mark.parametrize("retain", [False, True])
def test_a_payload_that_the_broker_swallows_breaks_nothing(fleet: Fleet, retain: bool) -> None:
    fleet.publish(HOST, b'{"x":"' + b"x" * 1_000_000 + b'"}', retain=retain)
    fleet.require_good()
    assert fleet.rejected(HOST) == []


def test_values_of_the_wrong_type_or_owner_are_refused_alone(fleet: Fleet) -> None:
    refused: dict[str, Any] = {
        "cpuLoad": "37", "cpuTemper": None, "totalMemory": 1.5, "useMemory": 2**63, "diskW": 10**30, "netIO": [None],
        "useDisk": [{"mount": "/"}], "netState": "online", "taskState": "enabled", "hostName": "other", "a b": 1,
        "newNull": None, "newDeepNull": {"a": [None]},
    }  # fmt: skip
    fleet.publish_change(**refused, gpuLoad=-1e300, netRx=-(2**63))
    fleet.require_good()
    assert [reason.split(":")[0] for reason in fleet.rejected(HOST)] == list(refused)
    with open_history(fleet.database) as history:
        values = next(history.statements(RecordKey("f01234", "seal01")))[1].values
    assert values == {"gpuLoad": -1e300, "netRx": -(2**63)}


def test_a_field_of_a_newer_agent_is_kept_and_told_once(fleet: Fleet) -> None:
    for speed in range(900, 920):
        fleet.publish_change(fanSpeed=speed, huge=2**64 - 1)
    fleet.publish(HOST, {**ENVELOPE, "_seq": 21, "_full": True, "fanSpeed": 950, "huge": 1e308})
    wait_for(lambda: fleet.snapshot().get("fanSpeed") == 950, seconds=10, what="the unknown field in the snapshot")
    assert fleet.aggregator.text.count("unknown field fanSpeed") == 1
    assert fleet.rejected(HOST) == []


def test_a_batch_cannot_speak_for_another_agent(fleet: Fleet) -> None:
    foreign = {"_epoch": 7, "_seq": 99, "_time": 1, "diskR": 666}
    topics = ("miners/f01234/workers/seal02", f"{HOST}/tasks", "miners/f01234", PRESENCE, "elsewhere")
    messages = [[topic, foreign] for topic in topics]
    fleet.publish(BACKLOG, {"epoch": 7, "first": 1, "next": 1, "messages": messages})
    fleet.require_good()
    assert [fleet.rejected(topic) for topic in topics] == [["no topic of f01234/seal01"]] * len(topics)
    assert fleet.query("SELECT hostName FROM workerInfo") == [("seal01",)]


def test_what_is_retained_by_mistake_comes_again_after_a_restart_and_is_rejected_again(
    fleet: Fleet, data: Path, broker: Broker, start: StartPart
) -> None:
    fleet.require_good()
    for topic in (HOST, PRESENCE, BACKLOG, "miners/f01234/resubscribe", "miners/bad/workers/x"):
        fleet.publish(topic, b"poison", retain=True)
    fleet.require_good()
    assert fleet.aggregator.terminate() == 0
    fleet.aggregator = _start_aggregator(start, data, broker.url)
    wait_for(lambda: len(fleet.rejected(HOST)) > 1, seconds=10, what="the retained poison came again")
    fleet.require_good()


def test_a_value_nested_too_deeply_does_not_end_the_aggregator(fleet: Fleet) -> None:
    deep: list[Any] = []
    for _ in range(600):
        deep = [deep]
    fleet.publish_change(new=deep)
    wait_for(lambda: fleet.rejected(HOST) or not fleet.aggregator.is_running, seconds=10, what="rejected, or the end")
    assert fleet.aggregator.is_running
    fleet.require_good()


Told = Callable[..., str]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Run a command that has to fail with a status, and give the one line that it says."""

    def run(status: int, *arguments: str) -> str:
        try:
            found = main(list(arguments))
        except SystemExit as ended:
            found = int(str(ended.code))
        said = capsys.readouterr()
        assert found == status, said.err
        assert said.out == ""
        assert "Traceback" not in said.err
        return said.err.strip()

    return run


def _one_line(text: str) -> str:
    assert text.startswith("telemetry: ")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("miner", ["1234", "f0", "f1abc", "f0123,f0124", "", "f01234\n", "F01234"])
@pytest.mark.parametrize("command", ["show", "watch", "resubscribe", "forget"])
def test_a_miner_id_that_is_none_is_shown(told: Told, command: str, miner: str) -> None:
    assert repr(miner) in _one_line(told(2, command, miner))


@pytest.mark.parametrize("host", ["-seal", "a/b", "#", "x" * 64, "_miner"])
def test_a_host_name_that_is_none_is_shown(told: Told, host: str) -> None:
    assert repr(host) in _one_line(told(2, "agent", f"--name={host}"))


@pytest.mark.parametrize("host", ["", "x" * 300])
def test_a_host_that_no_worker_can_name_is_shown(told: Told, host: str) -> None:
    assert repr(host[:80]) in _one_line(told(2, "show", "f01234", "--", host))


@pytest.mark.parametrize("command", [("ls",), ("show", "f01234")])
def test_a_missing_database_is_told_with_what_to_do(told: Told, tmp_path: Path, command: tuple[str, ...]) -> None:
    text = _one_line(told(2, *command, "--data", str(tmp_path)))
    assert str(tmp_path / "telemetry.db") in text
    assert "telemetry up" in text


@pytest.mark.parametrize("command", [("ls",), ("show", "f01234")])
def test_a_file_that_is_no_database_is_told(told: Told, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "telemetry.db").write_text("not a database\n" * 1000)
    assert str(tmp_path) in _one_line(told(1, *command, "--data", str(tmp_path)))


def test_an_unknown_miner_and_an_unknown_host_are_answered_with_1(told: Told, fleet: Fleet, data: Path) -> None:
    fleet.require_good()
    for arguments in (("f09999",), ("f01234", "seal99")):
        assert "/".join(arguments) in _one_line(told(1, "show", *arguments, "--data", str(data)))


def test_an_unknown_command_is_told_with_those_there_are(told: Told) -> None:
    text = told(2, "shwo")
    assert "'shwo'" in text
    assert "show" in text


def test_a_broker_that_refuses_is_told_with_the_cause(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "TIMEOUT", 0.5)  # a time, not a behaviour
    url = f"mqtt://127.0.0.1:{free_port(40_000)}"
    text = _one_line(told(1, "resubscribe", "f01234", "--broker", url))
    assert f"{url}: Connection refused" in text


@pytest.mark.parametrize("command", [("resubscribe", "f01234"), ("agent",), ("watch", "f01234"), ("aggregator",)])
@pytest.mark.parametrize(
    "url", ["http://me:secret@far", "mqtt://me:sec#secret@far:x", "mqtts://me:secret@:1", "secret"]
)
def test_a_broker_url_that_is_none_is_told_without_its_password(
    told: Told, tmp_path: Path, command: tuple[str, ...], url: str
) -> None:
    text = _one_line(told(2, *command, "--broker", url, "--data", str(tmp_path)))
    assert "secret" not in text
    assert "mqtt://HOST" in text


def test_the_password_of_a_broker_that_does_not_answer_is_not_told(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "TIMEOUT", 0.5)  # a time, not a behaviour
    url = f"mqtt://me:secret@127.0.0.1:{free_port(40_000)}"
    assert "secret" not in _one_line(told(1, "resubscribe", "f01234", "--broker", url))


def test_the_password_of_a_broker_is_not_told_by_a_command_that_needs_none(told: Told) -> None:
    assert "secret" not in told(2, "ls", "--broker", "mqtts://me:secret@far")


def test_a_config_file_that_cannot_be_read_is_named(told: Told, tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    for path, cause in (
        (tmp_path / "none.toml", "No such file"), (tmp_path, "Is a directory"), (binary, "not UTF-8"),
    ):  # fmt: skip
        text = _one_line(told(2, "ls", "--config", str(path)))
        assert str(path) in text
        assert cause in text


def test_an_unknown_setting_ends_every_part_with_the_nearest_name(told: Told, tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    for text, nearest in (
        ("[broker]\nurll = 'x'", "broker.url"),
        ("[sources.gpus]\ninterval = 1", "sources.gpu"),
        ("[deadbands]\ncpuLoda = 1", "deadbands.cpuLoad"),
    ):
        config.write_text(text)
        line = _one_line(told(2, "agent", "--config", str(config), "--data", str(tmp_path)))
        assert f"did you mean {nearest}?" in line


def test_an_aggregator_with_a_database_that_is_none_ends_with_one_line(start: StartPart, data: Path) -> None:
    (data / "telemetry.db").write_text("not a database\n" * 1000)
    aggregator = start("aggregator", "--data", str(data))
    assert aggregator.process is not None
    assert aggregator.process.wait(15) == 1
    [line] = aggregator.text.splitlines()
    assert json.loads(line)["message"].startswith(f"database {data / 'telemetry.db'}: ")


class Refusing:
    """A broker that answers each connection with `not authorized`, and counts them."""

    def __init__(self) -> None:
        self.refused = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                connection.recv(1024)
                connection.sendall(b"\x20\x02\x00\x05")
                self.refused += 1

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)


@pytest.fixture
def refusing() -> Iterator[Refusing]:
    server = Refusing()
    yield server
    server.close()


def test_parts_that_a_broker_refuses_keep_running_and_say_it_once(
    refusing: Refusing, start: StartPart, data: Path
) -> None:
    common = ("--data", str(data), "--broker", refusing.url, "--config", str(data / "fast.toml"))
    parts = [start("agent", *common), start("aggregator", *common)]
    wait_for(lambda: refusing.refused >= 6, seconds=30, what="several tries")
    for part in parts:
        assert part.text.count("not connected: ") == 1
        assert "refused: Not authorized" in part.text
        assert "Traceback" not in part.text
        assert part.terminate() == 0


def test_an_agent_that_cannot_keep_its_state_says_so_in_one_line_and_reports(
    broker: Broker, start: StartPart, data: Path, listen: Callable[..., Listener]
) -> None:
    listener = listen()
    config = ("--broker", broker.url, "--config", str(data / "fast.toml"))
    agent = start("agent", "--miner", "f01234", "--name", "seal01", "--state", "/proc/nowhere", *config)
    wait_for(lambda: listener.of(HOST), seconds=15, what="reports all the same")
    assert agent.text.count("/proc/nowhere") == 1
    assert "Traceback" not in agent.text
    assert agent.terminate() == 0
