"""The whole way on this host's real data: agent, Mosquitto, aggregator, SQLite, subscriber."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from telemetry.client import Fleet
from telemetry.fields import Owner, fits
from telemetry.records import WORKER_INFO
from telemetry.render.json_schema import change_schema_name
from telemetry.stores.history.reading import open_history
from telemetry.topics import Channel, RecordKey, Topics
from tests.conftest import StartPart
from tests.parts import Broker, Listener, Process, wait_for

KEY = RecordKey("f01234", "seal01")
TOPICS = Topics()
CHANGES = TOPICS.change(KEY, Owner.HARDWARE)
SNAPSHOT = TOPICS.snapshot(KEY)
PRESENCE = TOPICS.presence(KEY)
RESTART = 15.0
"""Seconds: three times what may pass from a restart to flowing data."""


@pytest.fixture
def aggregator(broker: Broker, data: Path, start: StartPart) -> Process:
    return start("aggregator", *_common(broker, data))


@pytest.fixture
def agent(broker: Broker, data: Path, start: StartPart, aggregator: Process) -> Process:
    del aggregator
    return start("agent", *_common(broker, data), "--miner", "f01234", "--name", "seal01")


def _common(broker: Broker, data: Path) -> tuple[str, ...]:
    return ("--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))


def _row(data: Path) -> dict[str, Any] | None:
    with sqlite3.connect(data / "telemetry.db") as connection:
        connection.row_factory = sqlite3.Row
        try:
            row = connection.execute("SELECT * FROM workerInfo").fetchone()
        except sqlite3.OperationalError:
            return None
    return dict(row) if row else None


def _sampled_row(data: Path) -> dict[str, Any] | None:
    """The row once the second sample gave its rates."""
    row = _row(data)
    return row if row and row["cpuLoad"] is not None else None


def _snapshot(listener: Listener) -> dict[str, Any] | None:
    found = listener.of(SNAPSHOT)
    return json.loads(found[-1].payload) if found else None


def _net_state(listener: Listener) -> str | None:
    snapshot = _snapshot(listener)
    return snapshot.get("netState") if snapshot else None


def _validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads(files("telemetry.schemas").joinpath(f"{name}.schema.json").read_text())
    return jsonschema.Draft202012Validator(schema)


def _schema_of(topic: str) -> str:
    address = TOPICS.parse(topic)
    if address is None:
        told = {
            TOPICS.aggregator("main"): "presence",
            TOPICS.aggregator_health("main"): "health.aggregator",
            TOPICS.broker_health: "health.broker",
        }
        return told[topic]
    if address.channel is Channel.HEALTH:
        return "health.agent"
    if address.channel is Channel.CHANGE:
        assert address.owner is not None
        return change_schema_name(address.record.record, address.owner)
    if address.channel is Channel.SNAPSHOT:
        return f"{address.record.record.name}.snapshot"
    name: str = address.channel.value
    return name


def test_every_message_of_a_live_run_is_what_its_schema_says(agent: Process, listen: Callable[..., Listener]) -> None:
    listener = listen("#")
    wait_for(lambda: len(listener.of(CHANGES)) > 20, seconds=30, what=f"changes: {agent.text}")
    listener.publish(TOPICS.resubscribe("f01234"), b"")
    wait_for(lambda: listener.of(TOPICS.ack(_agent_key(), "main")), seconds=10, what="ack")
    agent.terminate()
    wait_for(lambda: _net_state(listener) == "stopped", seconds=10, what="stopped")
    validators: dict[str, jsonschema.Draft202012Validator] = {}
    types: dict[str, type] = {}
    seen = set()
    for message in listener.messages:
        name = _schema_of(message.topic)
        seen.add(name)
        validator = validators.setdefault(name, _validator(name))
        if message.payload:
            content = json.loads(message.payload)
            validator.validate(content)
            _require_one_type_a_key(types, name, content)
    assert seen >= {"health.agent", "health.aggregator", "workerInfo.hardware", "workerInfo.snapshot"}
    assert seen >= {"presence", "ack", "backlog", "resubscribe"}
    assert b"null" not in b"".join(message.payload for message in listener.messages)


def _agent_key() -> Any:
    address = TOPICS.parse(PRESENCE)
    assert address is not None
    return address.agent


def _require_one_type_a_key(types: dict[str, type], name: str, content: dict[str, Any]) -> None:
    for key, value in content.items():
        kind = float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)
        assert types.setdefault(f"{name}.{key}", kind) is kind, f"{name}.{key}"


def test_mosquitto_sub_begins_with_a_retained_snapshot_and_goes_on_with_changed_fields_only(
    agent: Process, data: Path, broker: Broker
) -> None:
    del agent
    wait_for(lambda: _sampled_row(data), seconds=15, what="a record with rates")
    command = ["mosquitto_sub", "-p", str(broker.port), "-t", "miners/#", "-v", "-C", "12", "-W", "20"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = [line.split(" ", 1) for line in lines]
    snapshots = [json.loads(payload) for topic, payload in pairs if topic == SNAPSHOT]
    first_change = [topic for topic, _ in pairs].index(CHANGES)
    assert SNAPSHOT in [topic for topic, _ in pairs[:first_change]]
    assert snapshots[0].keys() >= {"minerId", "hostName", "cpuLoad", "totalMemory", "netState", "_positions"}
    changes = [json.loads(payload) for topic, payload in pairs if topic == CHANGES]
    assert not any("totalMemory" in change for change in changes if not change.get("_full"))


def test_the_database_shows_the_host_as_columns(agent: Process, data: Path) -> None:
    del agent
    row = wait_for(lambda: _sampled_row(data), seconds=15, what="a row with rates")
    assert (row["minerId"], row["hostName"], row["netState"]) == ("f01234", "seal01", "online")
    assert row["totalMemory"] > 0
    assert json.loads(row["useDisk"])[0]["mount"] == "/"
    assert fits(WORKER_INFO.by_name["useDisk"].type, json.loads(row["useDisk"]))


def test_a_resubscription_brings_the_snapshot_again(
    agent: Process, listen: Callable[..., Listener], data: Path
) -> None:
    del agent
    wait_for(lambda: _row(data), seconds=15, what="a record")
    listener = listen(TOPICS.snapshot(KEY))
    before = len(listener.messages)
    listener.publish(TOPICS.resubscribe("f01234"), b'{"hosts":["seal01"]}')
    wait_for(lambda: len(listener.messages) > before, seconds=6, what="a snapshot")


@pytest.mark.parametrize("victim", ["broker", "aggregator", "agent"])
def test_after_a_kill_and_an_outage_data_flows_again(
    victim: str, agent: Process, aggregator: Process, broker: Broker, listen: Callable[..., Listener], data: Path
) -> None:
    wait_for(lambda: _row(data), seconds=15, what="a record")
    parts: dict[str, Process | Broker] = {"broker": broker, "aggregator": aggregator, "agent": agent}
    parts[victim].kill()
    parts[victim].start()
    listener = listen("miners/#")
    before = wait_for(lambda: _row(data), seconds=1, what="a row")["_time"]

    def flows() -> bool:
        row = _row(data)
        return bool(row and row["_time"] > before and _net_state(listener) == "online" and listener.of(CHANGES))

    wait_for(flows, seconds=RESTART, what=f"data after {victim}: {aggregator.text} {agent.text}")
    assert aggregator.is_running
    assert agent.is_running
    assert "Traceback" not in aggregator.text + agent.text


def test_after_ten_seconds_without_a_broker_data_flows_again(
    agent: Process, aggregator: Process, broker: Broker, data: Path
) -> None:
    wait_for(lambda: _row(data), seconds=15, what="a record")
    broker.kill()
    up_again = time.monotonic() + 10
    wait_for(lambda: time.monotonic() > up_again, seconds=15, what="ten seconds without a broker")
    broker.start()
    before = wait_for(lambda: _row(data), seconds=1, what="a row")["_time"]
    wait_for(
        lambda: (_row(data) or {})["_time"] > before, seconds=RESTART, what=f"data: {aggregator.text} {agent.text}"
    )


def test_a_killed_agent_turns_lost_and_a_stopped_one_stopped(agent: Process, listen: Callable[..., Listener]) -> None:
    listener = listen(SNAPSHOT)
    wait_for(lambda: _net_state(listener) == "online", seconds=15, what="online")
    agent.kill()
    wait_for(lambda: _net_state(listener) == "lost", seconds=10, what="lost")
    agent.start()
    wait_for(lambda: _net_state(listener) == "online", seconds=10, what="online again")
    assert agent.terminate() == 0
    wait_for(lambda: _net_state(listener) == "stopped", seconds=10, what="stopped")


def test_a_silent_agent_turns_stale_and_recovers(agent: Process, listen: Callable[..., Listener]) -> None:
    listener = listen(SNAPSHOT)
    wait_for(lambda: _net_state(listener) == "online", seconds=15, what="online")
    os.kill(agent.pid, signal.SIGSTOP)
    wait_for(lambda: _net_state(listener) == "stale", seconds=20, what="stale")
    os.kill(agent.pid, signal.SIGCONT)
    wait_for(lambda: _net_state(listener) == "online", seconds=10, what="online again")


def test_an_agent_whose_clock_went_back_is_told_and_heard(
    agent: Process, listen: Callable[..., Listener], data: Path
) -> None:
    listener = listen("#")
    wait_for(lambda: listener.of(TOPICS.ack(_agent_key(), "main")), seconds=15, what="an ack")
    agent.terminate()
    last = json.loads(listener.of(CHANGES)[-1].payload)
    known, ack = last["_epoch"], TOPICS.ack(_agent_key(), "main")
    # The aggregator has said all that it will: it does not overwrite what follows.
    wait_for(lambda: json.loads(listener.of(ack)[-1].payload)["seq"] >= last["_seq"], seconds=10, what="the last ack")
    (data / "agent" / "f01234.seal01.epoch").unlink()
    # What a newer log of this agent, now forgotten, would have left behind.
    ahead = json.dumps({"epoch": known + 86_400_000, "seq": 5}).encode()
    listener.publish(ack, ahead, retain=True)
    agent.start()

    def newest_epoch() -> int:
        epoch: int = json.loads(listener.of(CHANGES)[-1].payload)["_epoch"]
        return epoch

    wait_for(lambda: newest_epoch() > known + 86_400_000, seconds=10, what="a renamed log")


def test_forget_removes_the_host_and_keeps_its_history(
    agent: Process, broker: Broker, data: Path, listen: Callable[..., Listener]
) -> None:
    wait_for(lambda: _row(data), seconds=15, what="a record")
    refused = _run("forget", "f01234", "seal01", "--broker", broker.url)
    assert refused.returncode == 1
    assert "still online" in refused.stderr
    agent.terminate()
    forgotten = _run("forget", "f01234", "seal01", "--broker", broker.url)
    assert (forgotten.returncode, forgotten.stdout) == (0, "forgot f01234/seal01\n")
    assert _row(data) is None
    with open_history(data / "telemetry.db") as history:
        assert list(history.statements(RecordKey("f01234", "seal01")))
    assert not listen("miners/#").messages


def test_forget_deletes_the_history_too_if_it_is_asked_to(agent: Process, broker: Broker, data: Path) -> None:
    wait_for(lambda: _row(data), seconds=15, what="a record")
    agent.terminate()
    words = ("forget", "f01234", "seal01", "--broker", broker.url, "--history", "--data", str(data))
    forgotten = _run(*words)
    assert forgotten.returncode == 0, forgotten.stderr
    assert "deleted the history of 1 record\n" in forgotten.stdout
    with open_history(data / "telemetry.db") as history:
        assert not list(history.statements(RecordKey("f01234", "seal01")))
    assert "no database" in _run(*words[:-1], str(data / "nowhere"), "--force").stderr


def test_the_reading_commands_agree_with_each_other(agent: Process, data: Path) -> None:
    del agent
    wait_for(lambda: _sampled_row(data), seconds=15, what="a record with rates")
    shown = json.loads(_run("show", "f01234", "seal01", "--data", str(data), "--json").stdout)
    listed = json.loads(_run("ls", "--data", str(data), "--json").stdout)
    assert [(row["minerId"], row["hostName"]) for row in listed] == [("f01234", "seal01")]
    assert shown["totalMemory"] == wait_for(lambda: _row(data), seconds=1, what="row")["totalMemory"]
    human = _run("show", "f01234", "seal01", "--data", str(data)).stdout
    assert re.search(r"totalMemory +[0-9.]+ GiB", human)
    assert "1 host: 1 online" in _run("ls", "--data", str(data)).stdout


def test_watch_follows_live_without_a_database(agent: Process, broker: Broker, tmp_path: Path) -> None:
    del agent
    elsewhere = str(tmp_path / "elsewhere")
    watched = _run("watch", "f01234", "--broker", broker.url, "--data", elsewhere, "--json", "--count", "5")
    lines = [json.loads(line) for line in watched.stdout.splitlines()]
    assert len(lines) == 5
    assert {line["hostName"] for line in lines} == {"seal01"}
    assert "totalMemory" not in lines[-1]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "telemetry", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def fleet(broker: Broker) -> Iterator[Fleet]:
    with Fleet(broker.url, miner="f01234") as joined:
        yield joined


def test_the_client_library_follows_in_ten_lines(agent: Process, fleet: Fleet) -> None:
    del agent
    updates = (update for update in fleet.updates() if "cpuLoad" in update.changed)
    update = next(updates)
    assert update.key == KEY
    assert update.fields["hostName"] == "seal01"
    assert update.is_whole


def test_mqtt_5_works_the_same(broker: Broker, data: Path, start: StartPart, listen: Callable[..., Listener]) -> None:
    (data / "five.toml").write_text('[broker]\nprotocol = "5"\n' + (data / "fast.toml").read_text())
    five = ("--data", str(data), "--broker", broker.url, "--config", str(data / "five.toml"))
    aggregator = start("aggregator", *five)
    agent = start("agent", *five, "--miner", "f01234", "--name", "seal01")
    listener = listen(SNAPSHOT)
    wait_for(lambda: _net_state(listener) == "online", seconds=15, what=f"online {aggregator.text} {agent.text}")
    aggregator.kill()
    aggregator.start()
    before = len(listener.messages)
    wait_for(lambda: len(listener.messages) > before + 3, seconds=RESTART, what="snapshots")
