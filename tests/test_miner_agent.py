"""The miner's agent as a process: what a Lotus tells arrives at any subscriber, and what it does not tell is said."""

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from telemetry.fields import Owner, fits
from telemetry.records import MINER_INFO, WORKER_INFO
from telemetry.simulate.accounts import MINER, balance, purse
from telemetry.simulate.faults import Faults
from telemetry.simulate.lotus import Lotus
from telemetry.simulate.values import FIL
from telemetry.simulate.versions import VERSIONS, Version
from telemetry.topics import MINER_AGENT, AgentKey, RecordKey, Topics
from tests.conftest import StartPart
from tests.parts import FAST, Broker, Listener, Process, wait_for

TOPICS = Topics()
MINER_KEY = RecordKey(MINER)
HOST = RecordKey(MINER, "miner01")
SETTINGS = (
    FAST.replace("[intervals]", "[intervals]\nqueues = 0.4\nminer = 0.4\nchain = 0.4")
    + """
[sources.lotus]
deadline = 1
[sources.queues]
deadline = 1
[sources.sectors]
deadline = 1
[sources.miner]
deadline = 1
[sources.chain]
deadline = 1
"""
)
PRECOMMIT_WAIT = ("PreCommitWait", "PreCommitBatchWait", "SubmitPreCommitBatch", "PreCommitting")
COMMIT_WAIT = ("CommitWait", "CommitAggregateWait", "SubmitCommitAggregate", "SubmitCommit")
RECOVERY = 30.0
"""Seconds: what a source that was slow for its deadline rests, and more."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "fast.toml").write_text(SETTINGS)
    return tmp_path


@pytest.fixture
def lotus() -> Iterator[Lotus]:
    with Lotus("quiet") as running:
        yield running


@pytest.fixture
def aggregator(broker: Broker, data: Path, start: StartPart) -> Process:
    return start("aggregator", *_common(broker, data))


def _common(broker: Broker, data: Path) -> tuple[str, ...]:
    return ("--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))


def _start_agent(
    start: StartPart, broker: Broker, data: Path, environment: Mapping[str, str], *options: str
) -> Process:
    # A Lotus of the machine that runs the tests is none of theirs.
    nobody = dict.fromkeys(("MINER_API_INFO", "FULLNODE_API_INFO", "LOTUS_MINER_PATH", "LOTUS_PATH"), "")
    home = {"HOME": str(data / "home")}
    common = _common(broker, data)
    return start("agent", *common, "--name", "miner01", *options, environment={**nobody, **home, **environment})


def _snapshot(listener: Listener, key: RecordKey) -> dict[str, Any]:
    found = listener.of(TOPICS.snapshot(key))
    return json.loads(found[-1].payload) if found and found[-1].payload else {}


def _hosts_of(lotus: Lotus) -> set[str]:
    return {worker.hostname for worker in lotus.world.workers.values()}


# ---- everything arrives


class Subscriber:
    """`mosquitto_sub`, and what it printed."""

    def __init__(self, port: int, directory: Path) -> None:
        self.path = directory / "mosquitto_sub.txt"
        with self.path.open("wb") as output:
            self.process = subprocess.Popen(
                ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-t", "miners/#", "-v"], stdout=output
            )

    def records(self) -> dict[str, dict[str, Any]]:
        """The last snapshot of each topic."""
        lines = [line.partition(" ") for line in self.path.read_text().splitlines()]
        return {topic: json.loads(payload) for topic, _, payload in lines if topic.endswith("/snapshot") and payload}

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_arrives_typed_and_with_the_values_of_its_lotus(
    version: str, broker: Broker, data: Path, start: StartPart, aggregator: Process
) -> None:
    with Lotus("quiet", version=version) as lotus, contextlib.closing(Subscriber(broker.port, data)) as subscriber:
        agent = _start_agent(start, broker, data, lotus.environment)
        absent = {"minerStart"} if not Version(version).has("start time") else set[str]()
        all_fields = set(MINER_INFO.by_name) - absent

        def miner() -> dict[str, Any]:
            return subscriber.records().get(TOPICS.snapshot(MINER_KEY), {})

        wait_for(lambda: miner().keys() >= all_fields, seconds=30, what=f"all of minerInfo: {agent.text}")
        wait_for(lambda: _implied(lotus).items() <= miner().items(), seconds=30, what=f"{_implied(lotus)} in {miner()}")
        for name in all_fields:
            assert fits(MINER_INFO.by_name[name].type, miner()[name]), name
        stated = set(WORKER_INFO.owned_by(Owner.TASKS)) - (set() if Version(version).has("tasks") else {"taskType"})

        def hosts() -> list[dict[str, Any]]:
            records = subscriber.records()
            return [records.get(TOPICS.snapshot(RecordKey(MINER, host)), {}) for host in _hosts_of(lotus)]

        wanted = {*stated, "minerId", "hostName"}
        wait_for(lambda: all(one.keys() >= wanted for one in hosts()), seconds=30, what=f"all hosts: {agent.text}")
        for record in hosts():
            for name in stated:
                assert fits(WORKER_INFO.by_name[name].type, record[name]), name
        assert aggregator.is_running
        assert _rejected(data) == []


def _implied(lotus: Lotus) -> dict[str, Any]:
    """What a world says of itself, in the words of minerInfo."""
    with lotus.changing() as world:
        owned, states = purse(world), world.states
        return {
            "minerId": MINER,
            "lotusState": "ok",
            "pledgeBalance": owned.pledge / FIL,
            "feeDebt": owned.debt / FIL,
            "workerBalance": balance(world, "f0101") / FIL,
            "totalSectors": sum(states.values()) - states["Removed"],
            "deletedSectors": states["Removed"] + states["Removing"],
            "preCommit1": states["PreCommit1"],
            "preCommit2": states["PreCommit2"],
            "waitSeed": states["WaitSeed"],
            "preCommitWait": sum(
                states[name]
                for name in ("PreCommitWait", "PreCommitBatchWait", "SubmitPreCommitBatch", "PreCommitting")
            ),
            "commitWait": sum(
                states[name] for name in ("CommitWait", "CommitAggregateWait", "SubmitCommitAggregate", "SubmitCommit")
            ),
            "liveSectors": len(world.live),
            "effectiveSectors": len(world.live - world.faulty - world.unproven),
            "errorSectors": len(world.faulty),
            "recoverySectors": len(world.recovering),
            "unassignedTasks": len(list(world.requests)),
            "chainHeight": world.height,
        }


def _rejected(data: Path) -> list[Any]:
    with contextlib.closing(sqlite3.connect(data / "telemetry.db")) as connection:
        return connection.execute("SELECT topic, reason FROM rejected").fetchall()


# ---- what a Lotus does wrong

FAULTS = {
    "refuses": Faults(refuse=True),
    "hangs": Faults(hang=True),
    "answers garbage": Faults(garbage=True),
    "answers a proxy's page": Faults(html=True),
    "cuts its answers": Faults(half=True),
    "answers 200 MB": Faults(huge=200_000_000),
    "knows no token": Faults(unauthorized=True),
}


@pytest.mark.timeout(400)
def test_hardware_keeps_its_rhythm_whatever_lotus_does_and_all_recovers_alone(
    broker: Broker, data: Path, start: StartPart, aggregator: Process, lotus: Lotus
) -> None:
    listener = Listener(broker.url, "miners/#")
    agent = _start_agent(start, broker, data, lotus.environment)

    def well() -> bool:
        miner, host = _snapshot(listener, MINER_KEY), _snapshot(listener, RecordKey(MINER, "seal01"))
        return (
            miner.get("lotusState") == "ok"
            and {"minerBalance", "totalSectors", "liveSectors", "unassignedQueue"} <= miner.keys()
            and {"currentQueue", "taskState"} <= host.keys()
        )

    def said(fault: str) -> str | None:
        state = _snapshot(listener, MINER_KEY).get("lotusState")
        return None if state in {None, "ok"} else f"{fault}: {state}"

    with contextlib.closing(listener):
        wait_for(well, seconds=30, what=f"well at first: {agent.text}")
        for fault, faults in FAULTS.items():
            lotus.miner.faults = lotus.full.faults = faults
            wait_for(lambda name=fault: said(name), seconds=20, what=f"a state that says that Lotus {fault}")  # type: ignore[misc]
            gone = {"minerBalance", "unassignedQueue", "totalSectors"}
            wait_for(
                lambda fields=gone: not fields & _snapshot(listener, MINER_KEY).keys(),  # type: ignore[misc]
                seconds=20, what=f"the fields are gone when Lotus {fault}",
            )  # fmt: skip
            before = len(listener.of(TOPICS.change(HOST, Owner.HARDWARE)))
            wait_for(
                lambda count=before: len(listener.of(TOPICS.change(HOST, Owner.HARDWARE))) > count + 5,  # type: ignore[misc]
                seconds=6, what=f"hardware goes on while Lotus {fault}",
            )  # fmt: skip
            lotus.miner.heal()
            lotus.full.heal()
            wait_for(well, seconds=RECOVERY, what=f"well after Lotus {fault}: {agent.text[-2000:]}")
        assert agent.is_running
        assert "Traceback" not in agent.text
        _require_no_token(lotus, agent, aggregator, listener)


def _require_no_token(lotus: Lotus, agent: Process, aggregator: Process, listener: Listener) -> None:
    seen = agent.text + aggregator.text + "".join(f"{one.topic} {one.payload!r}" for one in listener.messages)
    for endpoint in (lotus.miner, lotus.full):
        for secret in (endpoint.token, *endpoint.token.split(".")):
            assert secret not in seen


def test_no_token_is_in_what_check_prints(data: Path, lotus: Lotus) -> None:
    lotus.miner.faults = Faults(unauthorized=True)
    environment = {**os.environ, **lotus.environment, "HOME": str(data)}
    command = [sys.executable, "-m", "telemetry", "check", "--data", str(data), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    found = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert found["lotus-miner"]["status"] == "fail"
    assert "MINER_API_INFO" in found["lotus-miner"]["text"]
    assert found["chain"]["status"] == "ok"
    for endpoint in (lotus.miner, lotus.full):
        assert endpoint.token.split(".")[2] not in done.stdout + done.stderr


# ---- who the miner is


def test_a_lotus_that_is_down_is_waited_for_and_nothing_is_published_meanwhile(
    broker: Broker, data: Path, start: StartPart, lotus: Lotus
) -> None:
    lotus.miner.faults = Faults(refuse=True)
    with contextlib.closing(Listener(broker.url, "#")) as listener:
        agent = _start_agent(start, broker, data, lotus.environment)
        wait_for(lambda: "waiting for it to tell the miner's id" in agent.text, seconds=15, what="that it waits")
        assert listener.messages == []
        lotus.miner.heal()
        wait_for(lambda: listener.of(TOPICS.change(HOST, Owner.HARDWARE)), seconds=20, what=f"data: {agent.text}")
        topics = {message.topic for message in listener.messages}
        assert {topic.split("/")[1] for topic in topics if topic.startswith("miners/")} == {MINER}
        assert agent.terminate() == 0


def test_an_agent_that_waits_for_its_miner_ends_at_once_when_asked(
    broker: Broker, data: Path, start: StartPart, lotus: Lotus
) -> None:
    lotus.miner.faults = Faults(refuse=True)
    agent = _start_agent(start, broker, data, lotus.environment)
    wait_for(lambda: "waiting for it" in agent.text, seconds=15, what="that it waits")
    assert agent.terminate(5) == 0


def test_the_miner_that_lotus_told_is_kept_for_when_it_is_down(
    broker: Broker, data: Path, start: StartPart, lotus: Lotus
) -> None:
    with contextlib.closing(Listener(broker.url, "miners/#")) as listener:
        first = _start_agent(start, broker, data, lotus.environment)
        wait_for(lambda: listener.of(TOPICS.change(MINER_KEY, Owner.MINER)), seconds=20, what=f"data: {first.text}")
        assert first.terminate() == 0
        lotus.miner.faults = lotus.full.faults = Faults(refuse=True)
        seen = len(listener.messages)
        _start_agent(start, broker, data, lotus.environment)

        def told() -> bool:
            later = [one for one in listener.messages[seen:] if one.topic == TOPICS.change(MINER_KEY, Owner.MINER)]
            return any("lotus-miner" in json.loads(one.payload).get("lotusState", "") for one in later)

        wait_for(told, seconds=20, what="the state of the miner under its id")


def test_a_host_without_lotus_has_one_agent_of_the_miner_without_a_name(
    broker: Broker, data: Path, start: StartPart
) -> None:
    with contextlib.closing(Listener(broker.url, "#")) as listener:
        _start_agent(start, broker, data, {})
        topic = TOPICS.change(RecordKey("f00", "miner01"), Owner.HARDWARE)
        wait_for(lambda: listener.of(topic), seconds=15, what="data of f00")
        assert not any(MINER_AGENT in message.topic for message in listener.messages)


def test_a_sealing_host_that_names_the_api_of_its_miner_is_not_the_miners_agent(
    broker: Broker, data: Path, start: StartPart
) -> None:
    # 192.0.2.0/24 is nobody's: asked it is not, for the id is given.
    elsewhere = {"MINER_API_INFO": "aaaa.bbbb.cccc:/ip4/192.0.2.1/tcp/2345/http"}
    with contextlib.closing(Listener(broker.url, "#")) as listener:
        _start_agent(start, broker, data, elsewhere, "--miner", MINER)
        wait_for(lambda: listener.of(TOPICS.change(HOST, Owner.HARDWARE)), seconds=15, what="data")
        assert not any(MINER_AGENT in message.topic for message in listener.messages)


def test_another_miners_lotus_is_said_and_nothing_of_it_is_told(
    broker: Broker, data: Path, start: StartPart, lotus: Lotus
) -> None:
    other = RecordKey("f09999")
    with contextlib.closing(Listener(broker.url, "miners/#")) as listener:
        agent = _start_agent(start, broker, data, lotus.environment, "--miner", "f09999")

        def states() -> list[str]:
            told = [json.loads(one.payload) for one in listener.of(TOPICS.change(other, Owner.MINER))]
            return [one["lotusState"] for one in told if "lotusState" in one]

        wait_for(states, seconds=20, what=f"its state: {agent.text}")
        assert f"this lotus-miner is {MINER}, not f09999" in states()[-1]
        topic = TOPICS.change(RecordKey("f09999", "miner01"), Owner.HARDWARE)
        before = len(listener.of(topic))
        wait_for(lambda: len(listener.of(topic)) > before + 5, seconds=10, what="hardware goes on")
        assert not any(message.topic.endswith("/tasks") for message in listener.messages)


# ---- worker hosts


def test_each_workers_host_appears_under_its_true_name(
    broker: Broker, data: Path, start: StartPart, aggregator: Process, lotus: Lotus
) -> None:
    names = ("10.0.0.5:3456", "机器 1", "_miner")
    with lotus.changing() as world:
        for name in names:
            world.join(name, "pc1")
    with contextlib.closing(Listener(broker.url, "miners/#")) as listener:
        agent = _start_agent(start, broker, data, lotus.environment)
        for name in names:
            key = RecordKey(MINER, name)
            wait_for(lambda key=key: _snapshot(listener, key), seconds=20, what=f"{name}: {agent.text}")  # type: ignore[misc]
            assert _snapshot(listener, key)["hostName"] == name
            assert re.fullmatch(r"miners/f01234/workers/[A-Za-z0-9._%-]+/snapshot", TOPICS.snapshot(key))
        command = [sys.executable, "-m", "telemetry", "show", MINER, names[0], "--data", str(data), "--json"]
        shown = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout)
        assert shown["hostName"] == names[0]
        assert "taskState" in shown
    assert aggregator.is_running


def test_hardware_and_queues_of_a_host_meet_in_one_record(
    broker: Broker, data: Path, start: StartPart, aggregator: Process, lotus: Lotus
) -> None:
    (data / "fast.toml").write_text(SETTINGS + '\n[hosts]\n"worker-7" = "miner01"\n')
    with lotus.changing() as world:
        world.join("worker-7", "pc1")
        of_both = {worker.uuid for worker in world.workers.values() if worker.hostname in {"miner01", "worker-7"}}
        types = {task for uuid in of_both for task in world.workers[uuid].kind.tasks}
    with contextlib.closing(Listener(broker.url, "miners/#")) as listener:
        agent = _start_agent(start, broker, data, lotus.environment)
        wanted = {"cpuLoad", "useMemory", "currentQueue", "taskState", "netState"}
        wait_for(lambda: _snapshot(listener, HOST).keys() >= wanted, seconds=20, what=f"both parts: {agent.text}")
        assert set(_snapshot(listener, HOST)["taskType"]) == types
        assert not listener.of(TOPICS.change(RecordKey(MINER, "worker-7"), Owner.TASKS))
        # Each part moves on by itself, and the other stays.
        before = _snapshot(listener, HOST)["_positions"]
        wait_for(
            lambda: _snapshot(listener, HOST)["_positions"]["hardware"] > before["hardware"], seconds=10, what="changes"
        )
        assert _snapshot(listener, HOST).keys() >= wanted
    assert aggregator.is_running


def test_what_was_told_of_a_host_that_left_while_the_agent_was_down_is_taken_back(
    broker: Broker, data: Path, start: StartPart, aggregator: Process, lotus: Lotus
) -> None:
    leaving = RecordKey(MINER, "seal02")
    with contextlib.closing(Listener(broker.url, "miners/#")) as listener:
        agent = _start_agent(start, broker, data, lotus.environment)
        wait_for(lambda: "taskState" in _snapshot(listener, leaving), seconds=20, what=f"the host: {agent.text}")
        assert agent.terminate() == 0
        with lotus.changing() as world:
            for uuid in world.of_host("seal02"):
                world.drop(uuid)
            # What it ran stays listed until it is aborted.
            world.advance(world.now + 2000)
        second = _start_agent(start, broker, data, lotus.environment)
        wait_for(lambda: "taskState" not in _snapshot(listener, leaving), seconds=20, what=f"taken back: {second.text}")
        assert _snapshot(listener, leaving)["hostName"] == "seal02"
    assert aggregator.is_running


def test_only_the_hosts_whose_queues_changed_are_published(
    broker: Broker, data: Path, start: StartPart, lotus: Lotus
) -> None:
    (data / "fast.toml").write_text(SETTINGS.replace("full = 30", "full = 3000"))
    with contextlib.closing(Listener(broker.url, f"miners/{MINER}/workers/+/tasks")) as listener:
        agent = _start_agent(start, broker, data, lotus.environment)
        hosts = _hosts_of(lotus)
        wait_for(lambda: len({one.topic for one in listener.messages}) == len(hosts), seconds=20, what=agent.text)

        def polls() -> int:
            return lotus.miner.calls["WorkerJobs"]

        with lotus.changing() as world:
            joined = world.join("new01", "pc1")
        topic = TOPICS.change(RecordKey(MINER, "new01"), Owner.TASKS)
        wait_for(lambda: listener.of(topic), seconds=10, what="the new host")
        seen, polled = len(listener.messages), polls()
        with lotus.changing() as world:
            world.lose(joined)
        wait_for(lambda: polls() > polled + 5, seconds=10, what="more polls")
        told = [json.loads(one.payload) for one in listener.of(topic) if one in listener.messages[seen:]]
        assert any("disabled" in one.get("taskState", "") for one in told)
        # At the pace of the world little else happens in these seconds: far less than a message a host and poll.
        assert len(listener.messages) - seen < 5 * len(hosts)


def test_the_miners_agent_says_goodbye_when_it_is_stopped(
    broker: Broker, data: Path, start: StartPart, lotus: Lotus
) -> None:
    with contextlib.closing(Listener(broker.url, "#")) as listener:
        agent = _start_agent(start, broker, data, lotus.environment)
        presences = [TOPICS.presence(MINER_KEY), TOPICS.presence(HOST)]
        wait_for(lambda: all(listener.of(topic) for topic in presences), seconds=20, what=f"online: {agent.text}")
        assert agent.terminate() == 0
        for topic in presences:
            assert json.loads(listener.of(topic)[-1].payload)["state"] == "stopped"
        assert listener.of(TOPICS.backlog(AgentKey(MINER, MINER_AGENT)))
