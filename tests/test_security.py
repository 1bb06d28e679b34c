"""A fleet beyond loopback: enrolled, renewed, revoked and forgotten, over TLS, on a real broker."""

import fcntl
import json
import os
import pwd
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from telemetry.errors import TelemetryError, UsageError
from telemetry.mqtt import BrokerUrl, Connected, Connection, Disconnected, Event
from telemetry.processes import answers, free_port
from telemetry.security import certificates
from telemetry.security.certificates import Authority, Identity, new_authority
from telemetry.security.expiry import near_ends
from telemetry.security.registry import Account, Registry, Served
from telemetry.security.reload import holder, reload_broker
from telemetry.tls import Trust
from tests.conftest import StartPart
from tests.parts import FAST, Process, wait_for
from tests.secured import Secured, plain, read_bundle, telemetry

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def aggregator(secured: Secured, data: Path, start: StartPart) -> Process:
    return start("aggregator", "--data", str(secured.data), "--config", str(data / "fast.toml"))


def _agent(start: StartPart, data: Path, bundle: Path, state: str = "one") -> Process:
    return start(
        "agent", "--bundle", str(bundle), "--config", str(data / "fast.toml"), "--data", str(data / state)
    )  # fmt: skip


def _is_shown(secured: Secured, host: str) -> bool:
    done = subprocess.run(
        [sys.executable, "-m", "telemetry", "show", "f01234", host, "--data", str(secured.data), "--json"],
        capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode == 0 and "cpuLoad" in json.loads(done.stdout)


def _secrets(secured: Secured, *bundles: Path) -> set[str]:
    found = {read_bundle(bundle)["broker"]["password"] for bundle in bundles}
    return found | set(secured.registry.local_passwords().values())


# --- what init makes ---


def test_what_init_makes_is_for_its_owner_only(secured: Secured) -> None:
    for path in [*secured.registry.directory.iterdir(), *(secured.data / "broker").iterdir()]:
        is_secret = path.name in {"passwords", "acl", "server.key", "ca.key", "local.json", "accounts.json"}
        assert path.stat().st_mode & 0o077 == 0 or not is_secret, path
    assert secured.registry.directory.stat().st_mode & 0o077 == 0
    assert not any(password in secured.said for password in _secrets(secured))
    again = telemetry("broker", "init", "--name", "other", "--data", str(secured.data), status=1)
    assert "made already" in again


@needs_root
def test_the_brokers_files_belong_to_its_user_and_the_keys_of_the_authority_do_not(secured: Secured) -> None:
    mosquitto = pwd.getpwnam("mosquitto").pw_uid
    assert Path(f"/proc/{secured.process.pid}").stat().st_uid == mosquitto
    assert {path.stat().st_uid for path in (secured.data / "broker").iterdir() if path.name != "url"} == {mosquitto}
    assert {path.stat().st_uid for path in secured.registry.directory.iterdir()} == {0}


@pytest.mark.parametrize("name", ["a b", "", "x/y", "mqtt.example.lan:8883/", '"', "ü.lan"])
def test_a_name_that_no_host_can_use_is_refused(name: str, tmp_path: Path) -> None:
    assert "--name" in telemetry("broker", "init", "--name", name, "--data", str(tmp_path), status=2)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_served_beyond_loopback_without_tls_unless_told_so(tmp_path: Path) -> None:
    port, address = free_port(25_000), "127.0.0.3"
    options = ("broker", "--data", str(tmp_path), "--port", str(port), "--open-to", address)
    assert "could read and write everything" in telemetry(*options, status=2)
    assert plain("mosquitto_pub", ["-h", address, "-p", str(port), "-t", "x", "-m", "y"]).returncode != 0
    process = Process(tmp_path, *options, "--without-tls-and-credentials").start()
    try:
        wait_for(lambda: answers(port), seconds=10, what=process.text)
        assert plain("mosquitto_pub", ["-h", address, "-p", str(port), "-t", "x", "-m", "y"]).returncode == 0
        assert "WITHOUT TLS AND CREDENTIALS" in process.text
    finally:
        process.end()


def test_up_leaves_a_directory_alone_that_was_made_for_a_fleet(secured: Secured) -> None:
    assert "made for a fleet" in telemetry("up", "--data", str(secured.data), status=1)


# --- the life of a bundle ---


def test_an_enrolled_host_is_seen_by_its_aggregator_and_by_a_viewer(
    secured: Secured, data: Path, start: StartPart, aggregator: Process
) -> None:
    bundle, eye = secured.enroll("f01234", "seal01"), secured.enroll("--viewer", "eye", "f01234")
    assert bundle.stat().st_mode & 0o777 == 0o600
    agent = _agent(start, data, bundle)
    wait_for(lambda: _is_shown(secured, "seal01"), seconds=20, what=agent.text + aggregator.text)
    watched = telemetry("watch", "f01234", "seal01", "--bundle", str(eye), "--count", "1", "--json")
    assert '"hostName":"seal01"' in watched
    assert "1 equal" in telemetry("verify", "--data", str(secured.data))
    assert "published again" in telemetry("resubscribe", "f01234", "seal01", "--bundle", str(eye))
    for text in (agent.text, aggregator.text, secured.process.text, watched, _processes()):
        assert not any(password in text for password in _secrets(secured, bundle, eye))
    assert agent.terminate() == 0
    forgotten = telemetry("forget", "f01234", "seal01", "--data", str(secured.data))
    assert "revoked f01234.seal01: the broker has it" in forgotten
    assert "forgot f01234/seal01" in forgotten


def _processes() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_who_is_revoked_is_dropped_and_says_what_to_do(secured: Secured, data: Path, start: StartPart) -> None:
    bundle = secured.enroll("f01234", "seal03")
    agent = _agent(start, data, bundle)
    wait_for(lambda: "connected as" in agent.text, seconds=20, what=agent.text)
    assert "the broker has it" in telemetry("revoke", "f01234", "seal03", "--data", str(secured.data))
    told = "refused: Not authorized: its password is wrong, was renewed or revoked: get a new bundle"
    wait_for(lambda: told in agent.text, seconds=10, what=agent.text)
    assert agent.is_running
    assert "Traceback" not in agent.text
    assert "not enrolled" in telemetry("revoke", "f01234", "seal03", "--data", str(secured.data), status=1)


def test_new_credentials_end_the_old_ones(secured: Secured, data: Path, start: StartPart) -> None:
    bundle = secured.enroll("f01234", "seal04")
    old = bundle.read_text()
    agent = _agent(start, data, bundle)
    wait_for(lambda: "connected as" in agent.text, seconds=20, what=agent.text)
    telemetry("rotate", "f01234", "seal04", "--data", str(secured.data), "--output", str(bundle))
    wait_for(lambda: "get a new bundle" in agent.text, seconds=10, what=agent.text)
    assert agent.terminate() == 0
    assert bundle.read_text() != old
    again = _agent(start, data, bundle)
    wait_for(lambda: "connected as" in again.text.rpartition("get a new bundle")[2], seconds=20, what=again.text)


def test_a_whole_miner_is_revoked_at_once(secured: Secured) -> None:
    secured.enroll("f07", "a", "--miner-agent")
    secured.enroll("f07", "b")
    assert "revoked 3 users" in telemetry("revoke", "f07", "--data", str(secured.data))


def test_who_is_enrolled_is_not_enrolled_again_and_no_file_is_overwritten(secured: Secured, tmp_path: Path) -> None:
    bundle = secured.enroll("f01234", "seal05")
    before = bundle.read_text()
    options = ("--data", str(secured.data), "--output", str(bundle))
    assert "there already" in telemetry("enroll", "f01234", "seal06", *options, status=1)
    assert bundle.read_text() == before
    twice = telemetry("enroll", "f01234", "seal05", *options[:2], "--output", str(tmp_path / "x"), status=1)
    assert "enrolled already" in twice
    assert "f01234.seal06" not in secured.registry.accounts()


@pytest.mark.parametrize("words", [("x1", "seal01"), ("f01", "a b"), ("f01",), ("--viewer", "a", "--list", "x"), ()])
def test_what_cannot_be_enrolled_is_refused_in_one_line(words: tuple[str, ...], secured: Secured) -> None:
    told = telemetry("enroll", *words, "--data", str(secured.data), status=2)
    assert told.startswith("telemetry: ")
    assert told.count("\n") == 1


def test_a_thousand_hosts_are_enrolled_in_seconds_and_revoked(secured: Secured, tmp_path: Path) -> None:
    hosts = "".join(f"f05 bulk{number}\n" for number in range(1000))
    began = time.monotonic()
    told = telemetry(
        "enroll", "--list", "-", "--output", str(tmp_path / "all"), "--data", str(secured.data), given=hosts
    )
    assert time.monotonic() - began < 40
    assert "1000 bundles" in told
    assert len(list((tmp_path / "all").iterdir())) == 1000
    one = tmp_path / "all" / "f05.bulk999.toml"
    assert plain("mosquitto_pub", secured.thief(one, "-t", "miners/f05/workers/bulk999", "-m", "x")).returncode == 0
    assert "revoked 1000 users" in telemetry("revoke", "f05", "--data", str(secured.data))
    assert plain("mosquitto_pub", secured.thief(one, "-t", "miners/f05/workers/bulk999", "-m", "x")).returncode != 0


def test_a_line_of_a_list_that_names_no_host_is_told_by_its_number(secured: Secured) -> None:
    told = telemetry("enroll", "--list", "-", "--data", str(secured.data), given="f01 a\nf01\n", status=2)
    assert "line 2: expected MINER HOST" in told


def test_other_clients_get_the_same_as_files(secured: Secured, tmp_path: Path) -> None:
    telemetry("enroll", "--viewer", "plain", "--data", str(secured.data), "--files", str(tmp_path / "own"))
    named = {path.name: path.read_text().strip() for path in (tmp_path / "own").iterdir()}
    assert named.keys() == {"ca.crt", "url", "username", "password"}
    options = ["-h", secured.address, "-p", str(secured.tls_port), "--cafile", str(tmp_path / "own" / "ca.crt")]
    options += ["-u", named["username"], "-P", named["password"], "-t", "miners/f01/resubscribe", "-n"]
    assert plain("mosquitto_pub", options).returncode == 0


def test_the_bundle_of_another_agent_is_refused_before_anything_is_published(
    secured: Secured, data: Path, start: StartPart
) -> None:
    bundle = secured.enroll("f01234", "seal08")
    agent = start("agent", "--bundle", str(bundle), "--name", "seal09", "--data", str(data))
    wait_for(lambda: not agent.is_running, seconds=15, what=agent.text)
    assert "the credentials are for f01234.seal08, and this agent is f01234.seal09" in agent.text
    viewer = secured.enroll("--viewer", "nobody")
    agent = start("agent", "--bundle", str(viewer), "--miner", "f01", "--name", "x", "--data", str(data))
    wait_for(lambda: "viewer.all.nobody" in agent.text, seconds=15, what=agent.text)


@pytest.mark.timeout(240)
def test_two_agents_of_one_bundle_both_say_so_and_the_later_one_waits(
    secured: Secured, data: Path, start: StartPart, aggregator: Process
) -> None:
    bundle = secured.enroll("f01234", "twin")
    (data / "fast.toml").write_text(FAST.replace("stale = 4.0", "stale = 20.0"))
    first = _agent(start, data, bundle)
    wait_for(lambda: _is_shown(secured, "twin"), seconds=20, what=first.text)
    (data / "second").mkdir()
    options = ("--bundle", str(bundle), "--config", str(data / "fast.toml"), "--data", str(data / "two"))
    other = Process(data / "second", "agent", *options).start()
    try:
        wait_for(lambda: "this one waits" in other.text, seconds=40, what=f"the later one waits: {other.text}")
        wait_for(lambda: "that one has to wait" in first.text, seconds=40, what=f"the first says so: {first.text}")
        assert first.terminate() == 0
        told = "looking whether the other agent is gone; taking its place"
        wait_for(lambda: told in other.text, seconds=60, what=other.text)
        wait_for(lambda: "connected as f01234.twin" in other.text.splitlines()[-1], seconds=20, what=other.text)
    finally:
        other.end()
    assert aggregator.is_running


def test_the_broker_queues_for_an_aggregator_that_is_away(tmp_path: Path) -> None:
    secured = Secured(tmp_path).start()
    try:
        bundle, other = secured.enroll("f01234", "seal01"), secured.enroll("--aggregator", "other")
        options = secured.thief(other, "-q", "1", "-c", "-i", "x", "-t", "miners/+/workers/+", "-v")
        assert plain("mosquitto_sub", [*options, "-E"]).returncode == 0
        topic = "miners/f01234/workers/seal01"
        assert plain("mosquitto_pub", secured.thief(bundle, "-q", "1", "-t", topic, "-m", "meanwhile")).returncode == 0
        assert plain("mosquitto_sub", [*options, "-C", "1", "-W", "5"]).stdout == f"{topic} meanwhile\n"
    finally:
        secured.end()


# --- reloads ---


def test_the_broker_is_told_by_the_pid_that_holds_its_directory(secured: Secured, tmp_path: Path) -> None:
    assert holder(secured.data / "broker") == secured.process.pid
    (tmp_path / "broker").mkdir()
    assert holder(tmp_path / "broker") is None


_HOLDS = """
import fcntl, os, signal, sys, time
count = 0
def reload(*_):
    global count
    count += 1
    open(sys.argv[2], "w").write(str(count))
descriptor = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(descriptor, fcntl.LOCK_EX)
signal.signal(signal.SIGHUP, reload)
print("ready", flush=True)
while True:
    time.sleep(60)
"""


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Callable[[], int]]:
    """A process that holds a broker's directory, and counts how often it is told to reload."""
    (tmp_path / "broker").mkdir()
    Registry(tmp_path).begin(Served(names=("x",), port=1), "main")
    counter = tmp_path / "counter"
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(tmp_path / "broker"), str(counter)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield lambda: int(counter.read_text() or 0) if counter.exists() else 0
    process.kill()
    process.wait()


def test_reloads_asked_for_together_are_one(tmp_path: Path, counted: Callable[[], int]) -> None:
    registry = Registry(tmp_path)
    assert reload_broker(registry)
    wait_for(lambda: counted() == 1, seconds=5, what="the first")

    def change(number: int) -> None:
        with registry.changing() as accounts:
            accounts[f"f01.host{number}"] = Account(hash="$7$x")
        assert reload_broker(registry)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(20)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry.accounts()) == 29
    wait_for(lambda: counted() >= 2, seconds=5, what="the second")
    # All that changed while the second was waited for is in it; who came later than that shares a third.
    assert counted() <= 3
    assert time.monotonic() - began > 1


def test_without_a_broker_nothing_is_signalled(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    registry = Registry(tmp_path)
    registry.begin(Served(names=("x",), port=1), "main")
    assert not reload_broker(registry)
    with (tmp_path / "broker").joinpath("lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert not reload_broker(registry)


# --- TLS, and what its errors say ---


def _first_word(url: BrokerUrl) -> Event:
    """What a connection says first."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    connection = Connection(url, client_id="x", deliver=events.put)
    connection.start()
    try:
        return events.get(timeout=10)
    finally:
        connection.close()


def _refusal(url: BrokerUrl) -> str:
    event = _first_word(url)
    assert isinstance(event, Disconnected), event
    assert "\n" not in event.reason
    return event.reason


def _url(secured: Secured, bundle: Path, **changed: object) -> BrokerUrl:
    stolen = read_bundle(bundle)
    named = {"host": secured.address, "port": secured.tls_port, "tls": True, "trust": Trust(ca=stolen["tls"]["ca"])}
    named |= {"username": stolen["broker"]["username"], "password": stolen["broker"]["password"]}
    return BrokerUrl(**{**named, **changed})  # type: ignore[arg-type]  # fields by name


def test_a_bundle_is_let_in_and_who_has_another_authority_is_told(secured: Secured) -> None:
    bundle = secured.enroll("f01234", "tls1")
    assert isinstance(_first_word(_url(secured, bundle)), Connected)
    foreign = Trust(ca=new_authority("other").certificate)
    assert "signed by another authority than tls.ca" in _refusal(_url(secured, bundle, trust=foreign))
    assert "signed by another authority" in _refusal(_url(secured, bundle, trust=Trust()))
    assert "for another name than the URL's" in _refusal(_url(secured, bundle, host=_other_name(secured)))
    assert "refused: Not authorized" in _refusal(_url(secured, bundle, password="wrong"))
    assert "give --bundle" in _refusal(_url(secured, bundle, username=None))


def _other_name(secured: Secured) -> str:
    # The same address by a name that its certificate does not have.
    return f"::ffff:{secured.address}"


def test_a_port_without_tls_is_told(secured: Secured) -> None:
    bundle = secured.enroll("f01234", "tls2")
    told = _refusal(_url(secured, bundle, host="127.0.0.1", port=secured.port))
    assert "is it not the port of mqtts://?" in told


def test_a_certificate_that_has_expired_is_told_and_shown(tmp_path: Path) -> None:
    authority = new_authority("mine")
    made = Secured(tmp_path, *_own_pki(tmp_path, authority, days=-1)).start()
    try:
        bundle = made.enroll("f01234", "seal01")
        assert "the broker's certificate has expired: `telemetry broker renew`" in _refusal(_url(made, bundle))
        found = telemetry("check", "--data", str(made.data), "--miner", "f01234", status=0)
        assert "the broker's certificate ended on" in found
        # Another one, of the same authority, is taken up by the broker that runs.
        telemetry("broker", "renew", "--data", str(made.data), *_own_pki(tmp_path, authority, days=90))
        wait_for(lambda: isinstance(_first_word(_url(made, bundle)), Connected), seconds=10, what="let in")
    finally:
        made.end()


def _own_pki(place: Path, authority: Identity, *, days: int) -> list[str]:
    """The options for a server's certificate of one's own, for all of 127.0.0.0/8 that a test may use."""
    issued = Authority(authority).server([f"127.0.0.{number}" for number in range(2, 255)])
    files = {"cert": _ending_in(issued, authority, days), "key": issued.key, "ca": authority.certificate}
    for name, text in files.items():
        (place / f"own.{name}").write_text(text)
    return [word for name in files for word in (f"--{name}", str(place / f"own.{name}"))]


def _ending_in(issued: Identity, authority: Identity, days: int) -> str:
    old = x509.load_pem_x509_certificate(issued.certificate.encode())
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        old.issuer,
        old.subject,
        old.public_key(),
        old.serial_number,
        now - timedelta(days=400),
        now + timedelta(days=days),
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    signer = serialization.load_pem_private_key(authority.key.encode(), None)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()  # type: ignore[arg-type]


def test_a_broker_that_wants_certificates_takes_those_of_its_bundles_only(tmp_path: Path) -> None:
    secured = Secured(tmp_path, "--client-certificates").start()
    try:
        bundle = secured.enroll("f01234", "seal01")
        own = read_bundle(bundle)["tls"]
        with_certificate = _url(secured, bundle, trust=Trust(**own))
        assert isinstance(_first_word(with_certificate), Connected)
        assert "the broker wants a client's certificate" in _refusal(_url(secured, bundle))
        foreign = Authority(new_authority("x")).client("f01234.seal01")
        stranger = Trust(ca=own["ca"], cert=foreign.certificate, key=foreign.key)
        assert "does not know who signed" in _refusal(_url(secured, bundle, trust=stranger))
        assert secured.registry.accounts()["f01234.seal01"].expires is not None
        # It is the password that is revoked, beside the certificate.
        telemetry("revoke", "f01234", "seal01", "--data", str(secured.data))
        assert "refused: Not authorized" in _refusal(with_certificate)
    finally:
        secured.end()


@pytest.mark.parametrize(
    ("trust", "told"),
    [
        (Trust(ca="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "tls.ca: not a certificate"),
        (Trust(ca="/nowhere/ca.crt"), "tls.ca: neither PEM nor a file that can be read: No such file"),
        (Trust(cert="-----BEGIN X-----", key="-----BEGIN Y----- SECRET"), "tls.cert, tls.key: not a certificate"),
    ],
)
def test_what_is_no_pem_is_a_usage_error_without_its_text(trust: Trust, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        trust.context()
    assert "SECRET" not in str(caught.value) + repr(trust)


def test_nothing_of_a_key_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    authority = new_authority("x")
    own = Authority(authority).client("f01.a")
    Trust(ca=authority.certificate, cert=own.certificate, key=own.key).context()
    assert list(tmp_path.iterdir()) == []


def test_settings_for_tls_need_a_url_of_tls(secured: Secured, tmp_path: Path) -> None:
    bundle = secured.enroll("f01234", "plain")
    text = bundle.read_text().replace("mqtts://", "mqtt://")
    (tmp_path / "b.toml").write_text(text)
    told = telemetry("watch", "f01234", "--bundle", str(tmp_path / "b.toml"), status=2)
    assert "needs mqtts://" in told
    assert read_bundle(bundle)["broker"]["password"] not in told


# --- what check shows ---


def test_check_tries_the_forbidden_and_shows_when_things_end(
    secured: Secured, data: Path, start: StartPart, tmp_path: Path, aggregator: Process
) -> None:
    bundle = secured.enroll("f01234", "checked")
    state = str(tmp_path / "state")
    found = telemetry("check", "--bundle", str(bundle), "--data", state)
    assert "verified, the broker's certificate ends on" in found
    assert "f01234.checked: what is not its own is refused" in found
    agent = start("agent", "--bundle", str(bundle), "--data", state, "--config", str(data / "fast.toml"))
    wait_for(lambda: "connected as" in agent.text, seconds=20, what=agent.text)
    assert "not tried beside it" in telemetry("check", "--bundle", str(bundle), "--data", state)
    assert "connection lost" not in agent.text
    bundle.chmod(0o644)
    assert "chmod 600" in telemetry("check", "--bundle", str(bundle), "--data", state)
    wait_for(lambda: "connected as" in aggregator.text, seconds=20, what=aggregator.text)
    own = telemetry("check", "--data", str(secured.data), "--miner", "f01234")
    assert "operator.1: what is not its own is refused" in own
    assert "no certificate ends soon" in own
    plain("mosquitto_pub", secured.thief(bundle, "-t", "elsewhere", "-m", "x"))
    wait_for(lambda: "REFUSED f01234.checked publishes to elsewhere" in secured.process.text, seconds=10, what="told")
    own = telemetry("check", "--data", str(secured.data), "--miner", "f01234")
    assert re.search(r"warn refused +\d+ acts? since the broker started", own)


def test_a_broker_without_an_acl_fails_the_check_unless_it_is_on_this_machine(tmp_path: Path) -> None:
    port, address = free_port(26_000), "127.0.0.1"
    process = Process(tmp_path, "broker", "--data", str(tmp_path), "--port", str(port)).start()
    try:
        wait_for(lambda: answers(port), seconds=10, what=process.text)
        asked = ("check", "--data", str(tmp_path / "other"), "--miner", "f01234")
        assert "no credentials: whoever is on this machine" in telemetry(*asked, "--broker", f"mqtt://{address}:{port}")
        told = telemetry(*asked, "--broker", f"mqtt://someone:pw@{address}:{port}", status=1)
        assert "someone may publish anywhere" in told
        assert "pw" not in told.replace("pwd", "")
    finally:
        process.end()


def test_what_ends_soon_is_listed_with_what_to_do() -> None:
    now, day = 1_800_000_000.0, 86_400
    served = Served(names=("x",), port=1, server_expires=int(now) + 5 * day, authority_expires=int(now) + 900 * day)
    accounts = {"f01.a": Account(hash="x", expires=int(now) - day), "f01.b": Account(hash="x")}
    told = list(near_ends(served, accounts, now))
    assert [line.partition(":")[0].rpartition(" on ")[0] for line in told] == [
        "the broker's certificate ends", "the certificate of f01.a ended",
    ]  # fmt: skip


def test_an_authority_is_read_by_its_owner_only(tmp_path: Path) -> None:
    with pytest.raises(TelemetryError, match="telemetry broker init"):
        Registry(tmp_path).served()


def test_the_certificates_are_what_they_should_be() -> None:
    authority = new_authority("mqtt.example.lan")
    server = Authority(authority).server(["mqtt.example.lan", "10.0.0.1"])
    loaded = x509.load_pem_x509_certificate(server.certificate.encode())
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mqtt.example.lan"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    days = (loaded.not_valid_after_utc - datetime.now(UTC)).days
    assert days in {certificates.CERTIFICATE_DAYS, certificates.CERTIFICATE_DAYS - 1}
    assert "PRIVATE" not in repr(server)
