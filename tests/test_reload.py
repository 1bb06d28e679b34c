"""SIGHUP: what changed in the settings is effective at once; log, connection and session go on as they were."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telemetry.config import differences, read_settings
from telemetry.fields import Owner
from telemetry.topics import AgentKey, RecordKey, Topics
from tests.conftest import StartPart
from tests.parts import FAST, Broker, Listener, Process, wait_for

KEY = RecordKey("f01234", "seal01")
TOPICS = Topics()
CHANGES = TOPICS.change(KEY, Owner.HARDWARE)
SNAPSHOT = TOPICS.snapshot(KEY)
SLOW = FAST.replace("host = 0.2", "host = 30").replace("heartbeat = 1.0", "heartbeat = 0.5")


def _agent(start: StartPart, broker: Broker, data: Path) -> Process:
    options = ("--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))
    return start("agent", *options, "--miner", "f01234", "--name", "seal01")


def _messages(listener: Listener) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in listener.of(CHANGES)]


def _changes(listener: Listener) -> list[dict[str, Any]]:
    """Messages that state something: neither heartbeats nor full reports."""
    return [one for one in _messages(listener) if not one.get("_full") and "_gone" not in one and len(one) > 3]


def _presences(listener: Listener) -> list[dict[str, Any]]:
    return [json.loads(one.payload) for one in listener.of(TOPICS.presence(KEY))]


def _reread(process: Process, settings: Path, text: str, told: str = "settings read anew") -> None:
    """Give a part other settings, and wait until it has said so."""
    before = process.text.count(told)
    settings.write_text(text)
    os.kill(process.pid, signal.SIGHUP)
    wait_for(lambda: process.text.count(told) > before, seconds=15, what=f"{told}: {process.text}")


def test_an_agent_goes_by_another_interval_in_the_same_log_and_session(
    start: StartPart, broker: Broker, data: Path, listen: Callable[..., Listener]
) -> None:
    settings = data / "fast.toml"
    settings.write_text(SLOW)
    listener = listen("miners/#")
    agent = _agent(start, broker, data)
    # The second sample comes after one second; the next is half a minute away.
    wait_for(lambda: any("netRx" in one for one in _messages(listener)), seconds=15, what=f"rates: {agent.text}")
    heard = len(_messages(listener))
    wait_for(lambda: len(_messages(listener)) > heard + 2, seconds=15, what="heartbeats")
    before = len(_changes(listener))

    _reread(agent, settings, FAST)
    assert "taken up intervals.heartbeat, intervals.host" in agent.text
    wait_for(lambda: len(_changes(listener)) > before + 10, seconds=15, what=f"many samples: {agent.text}")
    assert agent.terminate() == 0

    messages = _messages(listener)
    assert len({one["_epoch"] for one in messages}) == 1
    numbers = [one["_seq"] for one in messages]
    assert numbers == list(range(1, len(numbers) + 1)), "no gap, and nothing twice"
    # The only full report is that of the connection; it says goodbye as the session that it began as.
    assert sum(bool(one.get("_full")) for one in messages) == 1
    states = [(one["state"], one["session"]) for one in _presences(listener)]
    assert [state for state, _ in states] == ["online", "stopped"]
    assert len({session for _, session in states}) == 1
    assert agent.text.count("connected as") == 1


def test_an_agent_goes_by_another_deadband_also_for_what_it_holds_already(
    start: StartPart, broker: Broker, data: Path, listen: Callable[..., Listener]
) -> None:
    settings = data / "fast.toml"
    deaf = FAST.replace("useMemory = 0", f"useMemory = {9.9e8}")
    settings.write_text(deaf)
    listener = listen("miners/#")
    agent = _agent(start, broker, data)
    wait_for(lambda: len(_messages(listener)) > 5, seconds=20, what=f"it runs: {agent.text}")
    assert not any("useMemory" in one for one in _changes(listener)[1:])

    _reread(agent, settings, FAST)
    assert "taken up deadbands.useMemory" in agent.text
    wait_for(lambda: sum("useMemory" in one for one in _changes(listener)) > 3, seconds=20, what="memory is told of")
    _reread(agent, settings, deaf)
    before = len(_messages(listener))
    wait_for(lambda: len(_messages(listener)) > before + 5, seconds=20, what="that it goes on")
    # What was on its way when it said so may be one more.
    assert not any("useMemory" in one for one in _messages(listener)[before + 1 :])


def test_settings_that_are_wrong_are_said_in_one_line_and_those_of_before_stay(
    start: StartPart, broker: Broker, data: Path, listen: Callable[..., Listener]
) -> None:
    listener = listen("miners/#")
    agent = _agent(start, broker, data)
    settings = data / "fast.toml"
    wait_for(lambda: len(_changes(listener)) > 2, seconds=15, what=f"it runs: {agent.text}")
    for text, reason in (
        (FAST + "[interval]\nhost = 1\n", "unknown setting interval; did you mean intervals?"),
        (FAST + "cpuLod = 1\n", "unknown setting deadbands.cpuLod; did you mean deadbands.cpuLoad?"),
        ("[intervals]\nhost = -1\n", "intervals.host = -1: expected a number of 0 or more"),
        ("[intervals", "fast.toml: "),
    ):
        before = len(agent.text.splitlines())
        _reread(agent, settings, text, "those of before stay")
        told = agent.text.splitlines()[before:]
        assert len(told) == 1
        assert json.loads(told[0])["level"] == "error"
        assert reason in json.loads(told[0])["message"]
    settings.unlink()
    os.kill(agent.pid, signal.SIGHUP)
    wait_for(lambda: "fast.toml: No such file" in agent.text, seconds=15, what=agent.text)
    before = len(_changes(listener))
    wait_for(lambda: len(_changes(listener)) > before + 3, seconds=15, what="it goes on as before")


def test_settings_that_need_a_new_start_are_named_and_no_secret_is_told(
    start: StartPart, broker: Broker, data: Path, listen: Callable[..., Listener]
) -> None:
    listener = listen("miners/#")
    agent = _agent(start, broker, data)
    wait_for(lambda: _changes(listener), seconds=15, what=f"it runs: {agent.text}")
    other = (
        FAST + '\n[broker]\nusername = "x"\npassword = "hidden-7"\n[spool]\nbytes = 1000000\n[log]\nlevel = "warning"\n'
    )
    _reread(agent, data / "fast.toml", other, "settings that need a new start")
    assert "to be taken up: broker.password, broker.username, spool.bytes" in agent.text
    assert "settings read anew" not in agent.text, "the new level is effective"
    assert "hidden-7" not in agent.text


def test_an_aggregator_goes_by_other_intervals_on_the_same_connection(
    start: StartPart, broker: Broker, data: Path, listen: Callable[..., Listener]
) -> None:
    slow = FAST.replace("refresh = 2.0", "refresh = 300").replace("snapshot = 0.1", "snapshot = 300")
    (data / "aggregator.toml").write_text(slow)
    listener = listen("#")
    options = ("--data", str(data), "--broker", broker.url, "--config", str(data / "aggregator.toml"))
    aggregator = start("aggregator", *options)
    wait_for(lambda: "connected as" in aggregator.text, seconds=15, what=aggregator.text)
    _agent(start, broker, data)
    wait_for(lambda: listener.of(SNAPSHOT), seconds=15, what="a first snapshot")
    before = len(_changes(listener))
    wait_for(lambda: len(_changes(listener)) > before + 5, seconds=15, what="changes")
    assert len(listener.of(SNAPSHOT)) < 3
    _reread(aggregator, data / "aggregator.toml", FAST)
    assert "taken up intervals.refresh, intervals.snapshot" in aggregator.text
    wait_for(lambda: len(listener.of(SNAPSHOT)) > 10, seconds=15, what=f"snapshots: {aggregator.text}")
    assert aggregator.text.count("connected as") == 1
    states = [json.loads(one.payload)["state"] for one in listener.of(TOPICS.aggregator("main"))]
    assert states == ["online"]
    assert not listener.of(TOPICS.request(AgentKey.of(KEY))), "nothing had to be asked for anew"


@pytest.mark.parametrize("part", ["agent", "aggregator"])
def test_a_part_whose_terminal_is_closed_ends(tmp_path: Path, part: str) -> None:
    log = tmp_path / "log"
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv(
            sys.executable,
            [sys.executable, "-m", "telemetry", part, "--data", str(tmp_path), "--broker", "mqtt://127.0.0.1:1"],
        )

    def is_told() -> bool:
        with log.open("ab") as copy:
            copy.write(os.read(terminal, 4096))
        return b"trying again" in log.read_bytes()

    wait_for(is_told, seconds=15, what="that it runs")
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("part", ["agent", "aggregator"])
def test_a_reload_before_a_part_has_begun_does_not_end_it(tmp_path: Path, part: str) -> None:
    # It inherits that the signal waits until the part itself has come so far.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "telemetry", part, "--data", str(tmp_path), "--broker", "mqtt://127.0.0.1:1"],
            stderr=subprocess.PIPE,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    process.send_signal(signal.SIGHUP)
    assert process.stderr is not None
    seen = b""
    while b"settings read anew" not in seen:
        line = process.stderr.readline()
        assert line, f"it ended: {seen!r}"
        seen += line
    process.terminate()
    assert process.wait(15) == 0
    process.stderr.close()


def test_differences_are_named_by_whether_a_part_that_runs_takes_them_up() -> None:
    before = read_settings(text='[sources.disks]\ninterval = 60\n[hosts]\n"a:1" = "b"\n', environ={}, options={})
    after = read_settings(
        text="[sources.disks]\ndeadline = 3\n[sources.gpu]\ninterval = 2\n[deadbands]\ncpuLoad = 5\n",
        environ={"TELEMETRY_LOG_LEVEL": "debug"},
        options={"agent": {"miner": "f01"}, "intervals": {"host": 1}},
    )
    taken, left = differences(before, after)
    assert taken == [
        "deadbands.cpuLoad",
        "intervals.host",
        "log.level",
        "sources.disks.interval",
        "sources.gpu.interval",
    ]
    assert left == ["agent.miner", "hosts.a:1", "sources.disks.deadline", "sources.gpu.deadline"]
