"""Who may look at the page once it is reached by more than this machine: viewers of the broker, over TLS."""

import argparse
import asyncio
import base64
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from websockets.exceptions import InvalidStatus

from telemetry.cli import web as command
from telemetry.cli.options import chosen
from telemetry.mqtt import BrokerUrl
from telemetry.security.certificates import Authority, new_authority
from telemetry.security.registry import Registry
from telemetry.web.login import LASTS, MOST_LOGINS_OF_USER, TRIES, TRY_EVERY, Logins, TooManyTriesError, Tries, Viewer
from tests.parts import FAST, Broker, Process, wait_for
from tests.secured import Secured, read_bundle, telemetry
from tests.web import Web, browser

NAME = "telemetry.example"
ONE, OTHER, HOST = "f01234", "f05678", "seal01"


class Page:
    """A page for those who log in, of two miners with a host each; whoever asks comes from an address of its own."""

    def __init__(self, secured: Secured, web: Web, trust: ssl.SSLContext) -> None:
        self.secured, self.web, self.trust = secured, web, trust
        self._addresses = 0

    def client(self) -> httpx.Client:
        self._addresses += 1
        transport = httpx.HTTPTransport(verify=self.trust, local_address=f"127.1.0.{self._addresses}")
        return httpx.Client(base_url=self.web.url, transport=transport, timeout=30)

    def user(self, *words: str) -> dict[str, str]:
        """Enroll one; what is typed to log in."""
        broker = read_bundle(self.secured.enroll(*words))["broker"]
        return {"user": broker["username"], "password": broker["password"]}

    def logged_in(self, user: dict[str, str]) -> httpx.Client:
        client = self.client()
        answer = client.post("/login", json=user)
        assert answer.status_code == 200, answer.text
        return client

    def miners(self, client: httpx.Client) -> set[str]:
        return {one["minerId"] for one in client.get("/api/miners").json()["miners"]}


@pytest.fixture(scope="module")
def page(secured: Secured) -> Iterator[Page]:
    place = secured.place
    (place / "fast.toml").write_text(FAST)
    tls = _certified(place)
    common = ("--config", str(place / "fast.toml"))
    started = [Process(place, "aggregator", "--data", str(secured.data), *common).start()]
    for miner in (ONE, OTHER):
        bundle = secured.enroll(miner, HOST)
        started.append(Process(place, "agent", "--bundle", str(bundle), "--state", str(place / miner), *common).start())
    trust = ssl.create_default_context(cafile=str(place / "ca.crt"))
    web = Web(place, "--data", str(secured.data), "--names", NAME, *tls, scheme="https", verify=trust).start()
    page = Page(secured, web, trust)
    everyone = page.logged_in(page.user("--viewer", "everyone"))
    wait_for(lambda: page.miners(everyone) == {ONE, OTHER}, seconds=40, what="both miners are seen")
    yield page
    web.end()
    for process in reversed(started):
        process.end()


def _certified(place: Path) -> list[str]:
    """A certificate of a page, as options."""
    authority = new_authority("page")
    identity = Authority(authority).server([NAME, "127.0.0.1"])
    (place / "ca.crt").write_text(authority.certificate)
    (place / "web.crt").write_text(identity.certificate)
    (place / "web.key").write_text(identity.key)
    return ["--cert", str(place / "web.crt"), "--key", str(place / "web.key")]


# --- over the network ---


def test_who_is_not_logged_in_sees_the_page_and_nothing_of_the_fleet(page: Page) -> None:
    client = page.client()
    assert "<html" in client.get("/").text
    assert client.get("/page/index.html").status_code == 200
    assert client.get("/api/session").json() == {"login": True, "user": None}
    for path in (
        "/api/miners",
        f"/api/miners/{ONE}",
        "/api/events",
        "/api/fields",
        "/api/openapi.json",
        "/metrics",
        "/api/no",
        "/x",
    ):
        answer = client.get(path)
        assert answer.status_code == 401
        assert answer.json() == {"error": "log in first"}
    with pytest.raises(InvalidStatus) as refused:
        asyncio.run(_first_records(page, {}, ONE))
    assert refused.value.response.status_code == 401


async def _first_records(page: Page, headers: dict[str, str], miner: str) -> tuple[dict[str, Any], list[str]]:
    """What a browser gets of a miner at once, and what it is told is wrong."""
    async with browser(page.web, ssl=page.trust, additional_headers=headers) as one:
        await one.subscribe(miner)
        await one.until(lambda: one.snapshots or one.errors)
        return one.records.get(miner, {}), one.errors


def _cookie(client: httpx.Client) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}


def test_a_viewer_of_all_logs_in_and_out(page: Page) -> None:
    user = page.user("--viewer", "anna")
    client = page.client()
    answer = client.post("/login", json=user)
    assert answer.json() == {"user": "viewer.all.anna"}
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-telemetry=")
    for part in ("HttpOnly", "SameSite=strict", "Secure", "Path=/"):
        assert part in cookie
    assert "Domain" not in cookie
    assert client.get("/api/session").json() == {"login": True, "user": "viewer.all.anna"}
    assert page.miners(client) == {ONE, OTHER}
    records, _ = asyncio.run(_first_records(page, _cookie(client), OTHER))
    assert HOST in records
    kept = _cookie(client)
    assert client.post("/logout").status_code == 200
    assert client.get("/api/miners").status_code == 401
    # Also where somebody kept the cookie.
    assert page.client().get("/api/miners", headers=kept).status_code == 401


def test_a_viewer_of_one_miner_learns_of_no_other(page: Page) -> None:
    client = page.logged_in(page.user("--viewer", "boris", ONE))
    assert page.miners(client) == {ONE}
    assert client.get(f"/api/miners/{ONE}/workers/{HOST}").status_code == 200
    hidden, unknown = (
        [
            client.get(path.format(miner))
            for path in (
                "/api/miners/{}/workers", "/api/miners/{}/workers/seal01", "/api/miners/{}/quality",
                "/api/miners/{}/history?field=cpuLoad&host=seal01", "/api/events?miner={}",
            )
        ]
        for miner in (OTHER, "f09999")
    )  # fmt: skip
    for one, other in zip(hidden, unknown, strict=True):
        assert one.status_code == other.status_code == 404
        assert one.text.replace(OTHER, "f09999") == other.text
    assert {one["minerId"] for one in client.get("/api/events").json()["events"]} == {ONE}
    records, errors = asyncio.run(_first_records(page, _cookie(client), OTHER))
    assert records == {}
    assert errors == [f"{OTHER}: no such miner"]


def test_metrics_are_scraped_with_a_viewers_credentials_and_of_what_is_theirs(page: Page) -> None:
    everyone, bob = (page.user("--viewer", *words) for words in (("scraper",), ("scraper", ONE)))
    for user, seen in ((everyone, {ONE, OTHER}), (bob, {ONE})):
        answer = page.client().get("/metrics", auth=(user["user"], user["password"]))
        assert answer.status_code == 200
        assert set(re.findall(r'miner="(\w+)"', answer.text)) == seen
        assert ("telemetry_aggregator_" in answer.text) == (user is everyone)


def test_a_wrong_password_and_who_is_no_viewer_are_refused_alike(page: Page) -> None:
    user, agent = page.user("--viewer", "carol"), page.user(ONE, "seal02")
    [operator] = [one for one in page.secured.registry.local_passwords().items() if one[0] == "operator.8"]
    for given in (
        user | {"password": "guess"},
        user | {"password": ""},
        user | {"user": "viewer.all.nobody"},
        user | {"user": "x" * 500},
        user | {"password": "p\0"},
        agent,
        {"user": operator[0], "password": operator[1]},
    ):
        answer = page.client().post("/login", json=given)
        assert answer.status_code == 401
        assert answer.json() == {"error": "wrong user or password; both are in a viewer's bundle"}
        assert "set-cookie" not in answer.headers


def test_what_is_no_login_is_refused(page: Page) -> None:
    client = page.client()
    for body, status in ((b"", 400), (b"[]", 400), (b'{"user":1}', 400), (b"\xff", 400), (b"x" * 10_000, 413)):
        answer = client.post("/login", content=body)
        assert answer.status_code == status
        assert list(answer.json()) == ["error"]
    assert client.get("/login").status_code == 405
    elsewhere = {"Origin": "https://evil.example"}
    assert client.post("/login", json={"user": "x", "password": "x"}, headers=elsewhere).status_code == 403
    assert client.post("/login", headers={"Host": "evil.example"}).status_code == 403


def test_who_tries_too_often_has_to_wait_and_nobody_else(page: Page) -> None:
    user, guesser = page.user("--viewer", "dave"), page.client()
    answers = [guesser.post("/login", json=user | {"password": f"guess{number}"}) for number in range(int(TRIES) + 2)]
    assert {one.status_code for one in answers[: int(TRIES)]} == {401}
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) > 0
    assert guesser.post("/login", json=user).status_code == 429
    assert page.logged_in(user)


def test_a_program_sends_its_credentials_along(page: Page) -> None:
    user = page.user("--viewer", "prometheus")
    client = page.client()
    for _ in range(int(2 * TRIES)):
        assert client.get("/api/miners", auth=(user["user"], user["password"])).status_code == 200
    assert "set-cookie" not in client.get("/api/miners", auth=(user["user"], user["password"])).headers
    assert client.get("/api/miners", auth=(user["user"], "guess")).status_code == 401
    for header in ("Basic", "Basic ###", "Basic " + base64.b64encode(b"\xff:x").decode(), "Bearer x"):
        assert client.get("/api/miners", headers={"Authorization": header}).status_code == 401


def test_who_is_revoked_sees_nothing_more(page: Page) -> None:
    client = page.logged_in(page.user("--viewer", "eve"))

    async def look() -> int:
        async with browser(page.web, ssl=page.trust, additional_headers=_cookie(client)) as one:
            await one.subscribe(ONE)
            await one.until(lambda: one.snapshots)
            telemetry("revoke", "--viewer", "eve", "--data", str(page.secured.data))
            return await one.closed()

    assert asyncio.run(look()) == 1008
    assert client.get("/api/miners").status_code == 401


def test_no_password_is_in_its_output_or_its_words(page: Page) -> None:
    user = page.user("--viewer", "frank")
    page.logged_in(user)
    words = Path(f"/proc/{page.web.process.pid}/cmdline").read_text()
    assert user["password"] not in page.web.process.text + words
    assert f"https://{NAME}:{page.web.port}/, for viewers" in page.web.process.text


def test_the_commands_of_the_document_serve_a_page_that_asks_who_one_is(page: Page, tmp_path: Path) -> None:
    document = (Path(__file__).parents[1] / "docs" / "web.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", document, re.DOTALL)
    served = []
    for line in [line for block in blocks for line in block.splitlines() if not line.startswith("curl ")]:
        program, *words = line.replace("/var/lib/telemetry", str(page.secured.data)).split()
        assert program == "telemetry"
        words = [str(tmp_path / word) if word.endswith(".toml") else word for word in words]
        if words[0] == "enroll":
            user = ".".join(["viewer", words[3] if words[3].startswith("f0") else "all", words[2]])
            telemetry(*words, "--output", str(tmp_path / f"{user}.toml"))
        else:
            # Tests stay on this machine.
            words = ["127.0.0.1" if word == "0.0.0.0" else word for word in words]
            web = Web(tmp_path, *words[1:]).start()
            served.append(web.client.get("/api/miners").status_code)
            web.end()
    assert served == [200, 401]


# --- where it refuses to serve ---


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--listen", "192.0.2.1"), ("--cert", "--without-tls-and-login")),
        (("--names", NAME), ("takes any password", "broker init", "--without-tls-and-login")),
        (("--cert", "x"), ("web.cert, web.key: expected both",)),
        (("--cert", "x", "--key", "y"), ("web.cert, web.key",)),
    ],
)
def test_what_would_be_open_to_all_is_refused_in_one_line(
    broker: Broker, tmp_path: Path, options: tuple[str, ...], said: tuple[str, ...]
) -> None:
    place = tmp_path / "web"
    place.mkdir()
    process = Process(place, "web", "--broker", broker.url, "--data", str(place), *options).start()
    assert process.process is not None
    assert process.process.wait(20) == 2
    assert process.text.count("\n") == 1
    assert all(one in process.text for one in said)


def test_a_page_that_is_said_to_be_open_asks_nobody(broker: Broker, data: Path) -> None:
    web = Web(data, "--broker", broker.url, "--data", str(data), "--names", NAME, "--without-tls-and-login").start()
    try:
        assert web.client.get("/api/miners", headers={"Host": NAME}).status_code == 200
        assert web.get("/api/session") == {"login": False, "user": None}
    finally:
        web.end()


def test_beside_its_broker_it_gets_a_certificate_of_the_same_authority(secured: Secured) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    given = ["--data", str(secured.data), "--listen", "192.0.2.1", "--names", NAME]
    context = command._tls(chosen(parser.parse_args(given)), is_open=False)
    authority = secured.registry.directory / "ca.crt"
    server, client = ssl.MemoryBIO(), ssl.MemoryBIO()
    assert context is not None
    served = context.wrap_bio(client, server, server_side=True)
    trusting = ssl.create_default_context(cafile=str(authority)).wrap_bio(server, client, server_hostname=NAME)
    _shake_hands(trusting, served)
    shown = x509.load_der_x509_certificate(trusting.getpeercert(binary_form=True) or b"")
    assert shown.issuer == x509.load_pem_x509_certificate(authority.read_bytes()).subject


def _shake_hands(client: ssl.SSLObject, server: ssl.SSLObject) -> None:
    ends = [client, server]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                pass


# --- what is held ---


def test_tries_come_back_with_time_and_a_network_of_ipv6_is_one_who_tries() -> None:
    tries = Tries()

    def may(address: str, now: float) -> bool:
        try:
            tries.take(address, now)
        except TooManyTriesError:
            return False
        return True

    assert sum(may("192.0.2.1", 0.0) for _ in range(100)) == TRIES
    assert may("192.0.2.2", 0.0)
    assert [may("192.0.2.1", TRY_EVERY), may("192.0.2.1", TRY_EVERY)] == [True, False]
    assert sum(may(f"2001:db8::{number:x}", 0.0) for number in range(100)) == TRIES
    assert sum(may("192.0.2.1", 1e6) for _ in range(100)) == TRIES


def test_what_is_held_of_tries_and_logins_is_bounded(tmp_path: Path) -> None:
    tries = Tries()
    for number in range(30_000):
        tries.take(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0.0)
    assert len(tries._full_at) == 10_000
    logins = Logins(BrokerUrl.parse("mqtt://127.0.0.1"), Registry(tmp_path))
    viewer = Viewer("viewer.all.alice")
    tokens = [logins.begin(viewer, 0.0) for _ in range(MOST_LOGINS_OF_USER + 5)]
    found = [logins.by_token(token, 0.0) for token in tokens]
    assert found[:5] == [None] * 5
    assert all(found[5:])
    assert logins.by_token(tokens[-1], LASTS) is None
    assert logins.by_token("", 0.0) is None


def test_a_secret_is_not_held(tmp_path: Path) -> None:
    logins = Logins(BrokerUrl.parse("mqtt://127.0.0.1"), Registry(tmp_path))
    token = logins.begin(Viewer("viewer.all.alice"), time.monotonic())
    logins.begin_of_program("viewer.all.alice", "secret", Viewer("viewer.all.alice"), time.monotonic())
    held = repr(logins._logins)
    assert token not in held
    assert "secret" not in held
