"""What a thief can do with a bundle, by plain mosquitto_pub and mosquitto_sub: nothing beyond its own, and it shows."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import orjson
import pytest

from telemetry.security.refusals import REFUSED
from tests.parts import Listener, wait_for
from tests.secured import Running, Secured, plain, read_bundle

FOREIGN = {
    "host": (
        "miners/f01234", "miners/f01234/presence", "miners/f01234/snapshot", "miners/f01234/resubscribe",
        "miners/f01234/workers/seal02", "miners/f01234/workers/seal02/presence",
        "miners/f01234/workers/seal01/tasks", "miners/f01234/workers/seal01/snapshot",
        "miners/f09999/workers/seal01", "telemetry/agents/f01234/seal02/backlog",
        "telemetry/agents/f01234/seal02/request", "telemetry/agents/f01234/seal01/request",
        "telemetry/agents/f01234/seal02/ack/main", "telemetry/agents/f01234/seal01/ack/main",
        "telemetry/agents/f01234/seal02/health", "telemetry/agents/f09999/seal01/health", "telemetry/broker/health",
        "telemetry/aggregators/main", "telemetry/aggregators/main/health", "elsewhere",
    ),
    "miner": (
        "miners/f01234/workers/seal02", "miners/f01234/workers/seal02/presence", "miners/f09999",
        "miners/f09999/workers/seal01/tasks", "miners/f01234/snapshot", "telemetry/agents/f01234/seal02/backlog",
    ),
    "viewer": (
        "miners/f01234", "miners/f01234/presence", "miners/f01234/snapshot", "miners/f09999/resubscribe",
        "miners/f01234/workers/seal02/presence", "telemetry/agents/f01234/seal02/request",
    ),
}  # fmt: skip
"""What each may not write. All of it is tried as a retained message, and as a will."""

OVERHEARD = {
    "host": (
        "telemetry/agents/f01234/seal02/request",
        "miners/f01234/workers/seal02/presence",
        "miners/#",
        "#",
        "+/+/#",
    ),
    "miner": ("telemetry/agents/f01234/seal02/request", "miners/f01234/#", "#"),
    "viewer": ("miners/f09999/#", "miners/#", "telemetry/#", "#"),
}
"""What each may not read."""

OWN = {
    "host": "telemetry/agents/f01234/seal01/request",
    "miner": "telemetry/agents/f01234/_miner/request",
    "viewer": "miners/f01234/presence",
}
"""What each may read."""

ACTS = [(who, topic) for who, topics in FOREIGN.items() for topic in topics]
EARS = [(who, wanted) for who, filters in OVERHEARD.items() for wanted in filters]


@pytest.fixture(scope="module")
def bundles(secured: Secured) -> dict[str, Path]:
    return {
        "host": secured.enroll("f01234", "seal01"),
        "victim": secured.enroll("f01234", "seal02"),
        "miner": secured.enroll("f01234", "_miner"),
        "viewer": secured.enroll("--viewer", "eye", "f01234"),
    }


@pytest.fixture(scope="module")
def records(secured: Secured) -> Iterator[Listener]:
    listener = secured.listener("miners/#", 8)
    yield listener
    listener.close()


@pytest.fixture(scope="module")
def control(secured: Secured) -> Iterator[Listener]:
    listener = secured.listener("telemetry/#", 7)
    yield listener
    listener.close()


def _total(secured: Secured) -> int:
    """How many acts were refused, as `telemetry check` reads it."""
    kept = secured.data / "broker" / REFUSED
    wait_for(kept.exists, seconds=10, what="what was refused is kept")
    total = orjson.loads(kept.read_text())["total"]
    assert isinstance(total, int)
    return total


def _is_told(secured: Secured, act: str, before: int) -> None:
    """Operations see it: counted, and in the broker's log, where it may stand since a minute."""
    wait_for(lambda: _total(secured) > before, seconds=10, what=f"counted: {act}")
    wait_for(
        lambda: f"REFUSED {act}" in secured.process.text, seconds=10, what=f"{act}: {secured.process.text[-2000:]}"
    )


def _has(listener: Listener, payload: bytes) -> bool:
    return any(message.payload == payload for message in list(listener.messages))


def _nothing_came(secured: Secured, records: Listener, control: Listener, evil: bytes) -> None:
    """What an operator publishes after the act has come, and nothing of the act before it."""
    after = f"after {evil.decode()}".encode()
    records.publish("miners/f01234/resubscribe", after)
    control.publish("telemetry/agents/f01234/seal99/request", after)
    for listener in (records, control):
        wait_for(partial(_has, listener, after), seconds=10, what="what came after")
        assert not _has(listener, evil)
    assert secured.process.is_running


@pytest.mark.parametrize(("who", "topic"), ACTS)
@pytest.mark.parametrize("protocol", ["311", "5"])
def test_no_bundle_publishes_beyond_its_own(
    who: str,
    topic: str,
    protocol: str,
    secured: Secured,
    bundles: dict[str, Path],
    records: Listener,
    control: Listener,
) -> None:
    evil, before = f"evil {who} {topic} {protocol}", _total(secured)
    plain("mosquitto_pub", secured.thief(bundles[who], "-V", protocol, "-q", "1", "-r", "-t", topic, "-m", evil))
    _nothing_came(secured, records, control, evil.encode())
    _is_told(secured, f"{_user(bundles[who])} publishes to {topic}", before)


@pytest.mark.parametrize(("who", "topic"), ACTS)
def test_no_bundle_leaves_a_will_beyond_its_own(
    who: str, topic: str, secured: Secured, bundles: dict[str, Path], records: Listener, control: Listener
) -> None:
    evil, before = f"will {who} {topic}", _total(secured)
    will = ["--will-topic", topic, "--will-payload", evil, "--will-retain", "--will-qos", "1"]
    with Running("mosquitto_sub", secured.thief(bundles[who], "-t", OWN[who], *will)):
        _is_told(secured, f"{_user(bundles[who])} leaves a will on {topic}", before)
    _nothing_came(secured, records, control, evil.encode())


@pytest.mark.parametrize(("who", "wanted"), EARS)
@pytest.mark.parametrize("protocol", ["311", "5"])
def test_no_bundle_hears_beyond_its_own(
    who: str, wanted: str, protocol: str, secured: Secured, bundles: dict[str, Path], records: Listener
) -> None:
    user = _user(bundles[who])
    both, before = ["-t", wanted, "-t", OWN[who], "-v"], _total(secured)
    with Running("mosquitto_sub", secured.thief(bundles[who], "-V", protocol, "-q", "1", *both)) as ear:
        _wait_until_there(ear, records, OWN[who])
        for topic in ("telemetry/agents/f01234/seal02/request", "miners/f09999/workers/seal02/presence"):
            records.publish(topic, b"secret")
        # In the order in which it was published: what is its own comes last.
        records.publish(OWN[who], b"last")
        wait_for(lambda: "last" in ear.text, seconds=10, what="its own")
        assert "secret" not in ear.text
    _is_told(secured, f"{user} subscribes to {wanted}", before)


def test_nobody_takes_the_place_of_another(secured: Secured, bundles: dict[str, Path], records: Listener) -> None:
    request = "telemetry/agents/f01234/seal02/request"
    with Running("mosquitto_sub", secured.thief(bundles["victim"], "-i", "f01234.seal02", "-t", request)) as victim:
        _wait_until_there(victim, records, request)
        for bundle in (bundles["host"], bundles["viewer"]):
            for claimed in ("f01234.seal02", "telemetry.aggregator.main", "operator.8", "operator.7"):
                before = _total(secured)
                plain("mosquitto_pub", secured.thief(bundle, "-i", claimed, "-q", "1", "-t", "x", "-m", "y"))
                # It was let in, in its own place: there is nothing that it may publish to x.
                _is_told(secured, f"{_user(bundle)} publishes to x", before)
        assert records.connections == 1
        records.publish(request, b"still there")
        wait_for(lambda: "still there" in victim.text, seconds=10, what="the victim hears")
    assert "f01234.seal02: another connection" not in secured.process.text


def _wait_until_there(client: Running, records: Listener, topic: str) -> None:
    """Wait until a plain client hears what is published now; before that it is on its way to subscribe."""

    def hears() -> bool:
        records.publish(topic, b"hello")
        return "hello" in client.text

    wait_for(hears, seconds=10, what="the client subscribed")


def test_a_thief_in_the_place_of_its_victim_shows(
    secured: Secured, bundles: dict[str, Path], records: Listener
) -> None:
    request = "telemetry/agents/f01234/seal01/request"
    with Running("mosquitto_sub", secured.thief(bundles["host"], "-t", request)) as victim:
        _wait_until_there(victim, records, request)
        plain("mosquitto_pub", secured.thief(bundles["host"], "-t", "x", "-m", "y"))
        told = "f01234.seal01: another connection of this user took the place of the first"
        wait_for(lambda: told in secured.process.text, seconds=10, what=told)


@pytest.mark.parametrize("change", ["no credentials", "another password", "another user"])
@pytest.mark.parametrize("where", ["TLS", "loopback"])
def test_nobody_comes_in_without_its_own_credentials(
    change: str, where: str, secured: Secured, bundles: dict[str, Path]
) -> None:
    own = read_bundle(bundles["host"])["broker"]
    given = {
        "no credentials": [],
        "another password": ["-u", own["username"], "-P", "guessed"],
        "another user": ["-u", "f01234.seal02", "-P", own["password"]],
    }[change]
    options = secured.thief(bundles["host"])
    place = options[: options.index("-u")] if where == "TLS" else ["-h", "127.0.0.1", "-p", str(secured.port)]
    before = _total(secured)
    done = plain("mosquitto_pub", [*place, *given, "-t", "miners/f01234/workers/seal01", "-m", "x"])
    assert done.returncode != 0
    assert "not authorised" in done.stderr
    wait_for(lambda: _total(secured) > before, seconds=10, what="counted")
    assert "connects with a wrong user name or password" in secured.process.text


def test_what_is_not_tls_gets_nothing_beyond_loopback(secured: Secured, bundles: dict[str, Path]) -> None:
    options = secured.thief(bundles["host"], "-t", "x", "-m", "y")
    at = options.index("--cafile")
    done = plain("mosquitto_pub", [*options[:at], *options[at + 2 :]])
    assert done.returncode != 0


def test_what_is_refused_is_told_also_after_the_reader_of_the_log_died(
    secured: Secured, bundles: dict[str, Path]
) -> None:
    [watcher] = _children(secured.process.pid)
    [reader] = _children(watcher)
    os.kill(reader, signal.SIGKILL)
    wait_for(lambda: "another one goes on" in secured.process.text, seconds=10, what="that it died")
    wait_for(lambda: _children(watcher) not in ([], [reader]), seconds=10, what="another one")
    before = _total(secured)
    plain("mosquitto_pub", secured.thief(bundles["host"], "-q", "1", "-t", "after/death", "-m", "x"))
    _is_told(secured, "f01234.seal01 publishes to after/death", before)


def _children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def _user(bundle: Path) -> str:
    name = read_bundle(bundle)["broker"]["username"]
    assert isinstance(name, str)
    return name
