"""What `telemetry check` finds of a fleet and of this machine, each with what to do, and an exit status to match."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from telemetry import __version__
from telemetry.processes import free_port
from telemetry.security.registry import ACL
from telemetry.security.reload import reload_broker
from telemetry.topics import AgentKey, Topics
from telemetry.wire import (
    HealthReport,
    Presence,
    PresenceState,
    encode_health,
    encode_presence,
)
from tests.conftest import StartPart
from tests.parts import Broker, Listener, Process, wait_for
from tests.secured import Secured, telemetry

TOPICS = Topics()
HOUR = 3_600_000


def _now() -> int:
    return time.time_ns() // 1_000_000


def _check(data: Path, *options: str, status: int = 0) -> dict[str, tuple[str, str]]:
    """Status and text, by subject."""
    words = ("check", "--data", str(data), "--config", str(data / "fast.toml"), "--miner", "f01234", "--json")
    found = json.loads(telemetry(*words, *options, status=status))
    return {one["subject"]: (one["status"], one["text"]) for one in found}


@pytest.fixture
def aggregator(start: StartPart, broker: Broker, data: Path) -> Process:
    process = start("aggregator", "--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))
    wait_for(lambda: "connected as" in process.text, seconds=15, what=process.text)
    return process


def test_where_all_is_well_each_part_is_named_and_the_status_is_0(
    aggregator: Process, start: StartPart, broker: Broker, data: Path
) -> None:
    agent = start("agent", "--data", str(data), "--broker", broker.url, "--miner", "f01234", "--name", "seal01")
    wait_for(lambda: "1 online" in _check(data).get("agents", ("", ""))[1], seconds=30, what=agent.text)
    found = _check(data)
    for subject in ("versions", "settings", "topic", "mosquitto", "broker", "tls", "access", "aggregator", "clock",
                    "disk", "database", "growth", "connections", "agents", "clocks", "system", "disks"):  # fmt: skip
        assert found[subject][0] == "ok", found[subject]
    assert found["aggregator"][1] == f"main answers, telemetry {__version__}"
    assert found["clocks"][1] == "those of 1 agent are within 5 s"
    assert aggregator.is_running


def test_agents_that_are_away_or_whose_clock_is_wrong_are_named(
    aggregator: Process, data: Path, listen: Callable[..., Listener]
) -> None:
    listener = listen(TOPICS.aggregator_health("main"))
    for name, ahead in (("seal01", HOUR), ("seal02", 0), ("seal03", -HOUR)):
        agent = AgentKey("f01234", name)
        presence = Presence(state=PresenceState.ONLINE, session="x", time=_now(), version="0.0.1", epoch=_now(), next=1)
        listener.publish(TOPICS.presence(agent.record), encode_presence(presence), retain=True)
        listener.publish(TOPICS.agent_health(agent), encode_health(HealthReport(_now() + ahead, "0.0.1", {})))
    wait_for(lambda: "clocks" in _check(data), seconds=20, what=aggregator.text)
    found = _check(data)
    status, told = found["clocks"]
    assert status == "warn"
    assert re.search(r"f01234/seal01 (59 min|1 h 00 min) ahead, f01234/seal03 (59 min|1 h 00 min) behind", told)
    assert "seal02" not in told
    assert found["versions"] == ("warn", f"3 agents of 0.0.1, this is {__version__}: bring them to one version")
    wait_for(lambda: _check(data)["agents"] == ("warn", "3 stale: `telemetry ls --self`"), seconds=20, what="stale")


def _answer_as_another(listener: Listener, *, version: str, ahead: int) -> None:
    """Be an aggregator that tells how it is when it is asked, by a clock of its own."""
    wait_for(lambda: listener.messages, seconds=20, what="a question")
    report = HealthReport(_now() + ahead, version, {})
    listener.publish(TOPICS.aggregator_health("other"), encode_health(report))


def test_a_clock_that_is_not_the_aggregators_and_another_version_are_told(
    data: Path, broker: Broker, listen: Callable[..., Listener]
) -> None:
    listener = listen(TOPICS.resubscribe("f01234"))
    presence = Presence(state=PresenceState.ONLINE, session="x", time=_now(), version="9.9.9")
    listener.publish(TOPICS.aggregator("other"), encode_presence(presence), retain=True)
    found = _check(data, "--broker", broker.url)
    assert found["clock"] == ("warn", "could not tell: other did not answer")
    listener.messages.clear()
    answer = threading.Thread(target=_answer_as_another, args=(listener,), kwargs={"version": "9.9.9", "ahead": HOUR})
    answer.start()
    found = _check(data, "--broker", broker.url)
    answer.join(30)
    assert found["aggregator"][0] == "warn"
    assert "other has telemetry 9.9.9" in found["aggregator"][1]
    assert found["clock"][0] == "warn"
    assert re.match(r"(59 min|1 h 00 min) behind that of aggregator other: let NTP", found["clock"][1])
    assert found["access"][0] == "ok"


def test_an_aggregator_that_is_gone_fails_the_check(aggregator: Process, data: Path) -> None:
    assert _check(data)["aggregator"][0] == "ok"
    aggregator.terminate()
    found = _check(data, status=1)
    assert found["aggregator"][0] == "fail"
    assert found["aggregator"][1].startswith("main is stopped: start")


def test_a_broker_that_is_not_there_fails_the_check_and_the_rest_is_looked_at(data: Path) -> None:
    found = _check(data, "--broker", f"mqtt://127.0.0.1:{free_port(27_000)}", status=1)
    assert found["broker"][0] == "fail"
    assert "does the broker run?" in found["broker"][1]
    assert "aggregator" not in found
    assert found["system"][0] == "ok"


def test_a_database_that_may_outgrow_its_disk_is_told(aggregator: Process, data: Path) -> None:
    with (data / "fast.toml").open("a") as settings:
        settings.write(f"\n[history]\nbytes = {2**52}\n[spool]\nbytes = {2**52}\n")
    found = _check(data)
    assert found["growth"][0] == found["disk"][0] == "warn", aggregator.text
    assert "set history.bytes lower" in found["growth"][1]
    assert "set spool.bytes lower" in found["disk"][1]


def test_an_acl_that_gives_too_much_fails_the_check_and_its_own_tries_do_not_count(secured: Secured) -> None:
    bundle = secured.enroll("f01234", "seal77")
    place = secured.place / "elsewhere"
    place.mkdir()
    (place / "fast.toml").write_text("")
    asked = ("--bundle", str(bundle), "--name", "seal77")
    found = _check(place, *asked)
    assert found["access"] == ("ok", "f01234.seal77: what is not its own is refused (6 topics tried)")
    assert found["clock"][1].startswith("not told to f01234.seal77: ")
    wait_for(lambda: "f01234.seal77 tries what it may not" in secured.process.text, seconds=10, what="it is logged")
    (secured.data / "fast.toml").write_text("")
    assert _check(secured.data)["refused"] == ("ok", "nothing since the broker started")
    registry = secured.registry
    acl = (registry.broker / ACL).read_text()
    with registry.changing():
        pass  # for the broker there is something to read anew
    registry.write_for_broker(ACL, acl.replace("user f01234.seal77\n", "user f01234.seal77\ntopic write telemetry/#\n"))
    assert reload_broker(registry)
    wait_for(lambda: "may publish to telemetry/" in _access_of(place, asked), seconds=20, what="found")


def _access_of(place: Path, asked: tuple[str, ...]) -> str:
    words = ("check", "--data", str(place), "--json", *asked)
    done = subprocess.run([sys.executable, "-m", "telemetry", *words], capture_output=True, text=True, check=False)
    return next(str(one["text"]) for one in json.loads(done.stdout) if one["subject"] == "access")
