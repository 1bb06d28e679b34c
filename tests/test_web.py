"""The read API as a program meets it: it tells what the commands tell, and refuses what is hostile."""

import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.config import Web as WebSettings
from telemetry.config import read_settings
from telemetry.records import RECORDS
from telemetry.web.api import MOST_EVENTS, MOST_FIELDS, ROUTES
from telemetry.web.past import MOST_POINTS
from tests.parts import FAST, Broker, Process, own_port, wait_for
from tests.web import Web

MINER, HOST = "f01234", "seal01"
SAFE = {
    "content-security-policy", "cross-origin-opener-policy", "cross-origin-resource-policy", "referrer-policy",
    "x-content-type-options", "x-frame-options", "cache-control",
}  # fmt: skip


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """A page of three hosts that are simulated by real agents, and of their miner."""
    place = tmp_path_factory.mktemp("web")
    (place / "fast.toml").write_text(FAST)
    broker = Broker(place).start()
    common = ("--broker", broker.url, "--config", str(place / "fast.toml"), "--data", str(place))
    # In Lotus' own time no host joins while these tests run.
    fleet = ("simulate", *common, "--hosts", "3", "--speed", "1")
    parts = [Process(place, "aggregator", *common), Process(place, *fleet)]
    for part in parts:
        part.start()
    server = Web(place, *common).start()
    wait_for(lambda: _is_whole(server), seconds=60, what="the fleet is seen, and has a past")
    yield server
    server.end()
    for part in reversed(parts):
        part.end()
    broker.end()


def _is_whole(web: Web) -> bool:
    miners = web.get("/api/miners")["miners"]
    if not miners or miners[0]["record"] is None or "chainHeight" not in miners[0]["record"]:
        return False
    path = f"/api/miners/{MINER}/history"
    answers = [
        web.client.get(path, params={"field": "cpuLoad", "host": HOST}),
        web.client.get(path, params={"field": "chainHeight"}),
    ]
    return all(one.status_code == 200 and one.json()["series"][0]["points"] for one in answers)


def _command(web: Web, *words: str) -> Any:
    """What a reading command prints, in JSON."""
    data = web.process._arguments[web.process._arguments.index("--data") + 1]
    done = subprocess.run(
        [sys.executable, "-m", "telemetry", *words, "--data", data, "--json"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --- what it tells ---


def test_records_are_those_that_commands_show(web: Web) -> None:
    for path, words in ((f"/api/miners/{MINER}", [MINER]), (f"/api/miners/{MINER}/workers/{HOST}", [MINER, HOST])):
        shown, told = _command(web, "show", *words), web.get(path)
        assert told.keys() - {"_whole"} == shown.keys() - {"_positions"}
        steady = [name for name in ("minerId", "hostName", "totalMemory", "netSince", "lotusVersion") if name in shown]
        assert [told[name] for name in steady] == [shown[name] for name in steady]
    workers = web.get(f"/api/miners/{MINER}/workers")["workers"]
    assert {one["hostName"] for one in workers} == {one["hostName"] for one in _command(web, "ls") if "hostName" in one}


def test_miners_are_told_with_their_hosts_by_state(web: Web) -> None:
    told = web.get("/api/miners")
    [miner] = told["miners"]
    assert miner["minerId"] == miner["record"]["minerId"] == MINER
    assert miner["hosts"] == len(web.get(f"/api/miners/{MINER}/workers")["workers"])
    # Hosts of which Lotus alone knows have no agent, and no state.
    assert miner["states"]["online"] == 3 < miner["hosts"]
    assert 0 <= told["time"] - miner["time"] < 60_000


def test_fields_are_those_that_are_declared(web: Web) -> None:
    told = web.get("/api/fields")
    for record in RECORDS:
        assert [one["name"] for one in told[record.name]] == list(record.by_name)
        assert all(one["en"] and one["zh"] for one in told[record.name])


def test_history_is_what_the_command_tells(web: Web) -> None:
    asked = {"field": ["cpuLoad", "useMemory"], "host": HOST, "since": "-10m", "step": 5, "agg": "max"}
    told = web.get(f"/api/miners/{MINER}/history", **asked)
    until = told["until"] // 5000 * 5000 - 5000
    rows = _command(
        web, "history", MINER, HOST, "cpuLoad", "useMemory", "--since", "-10m", "--step", "5s", "--agg", "max"
    )
    for series in told["series"]:
        expected = {row["_time"]: row[f"{series['field']}_max"] for row in rows if f"{series['field']}_max" in row}
        points = dict(map(tuple, series["points"]))
        assert points
        assert {time: value for time, value in points.items() if time < until} == {
            time: value for time, value in expected.items() if time < until
        }
    assert [one["unit"] for one in told["series"]] == ["%", "B"]


def test_history_has_as_many_points_as_a_plot_takes(web: Web) -> None:
    told = web.get(f"/api/miners/{MINER}/history", field="chainHeight", since="-30d")
    assert told["step"] == 3 * 3600
    told = web.get(f"/api/miners/{MINER}/history", field="lotusState", since="-1h")
    assert told["step"] == 15
    assert isinstance(told["series"][0]["points"][-1][1], str)


def test_events_are_those_of_the_command_the_newest_first(web: Web) -> None:
    events = web.get("/api/events", miner=MINER, limit=2)["events"]
    assert events == _command(web, "events", MINER)[: -2 - 1 : -1]
    assert web.get("/api/events", miner=MINER, host=HOST)["events"][0]["event"] == "online"


def test_quality_tells_of_each_agent(web: Web) -> None:
    agents = {one["agent"]: one for one in web.get(f"/api/miners/{MINER}/quality")["agents"]}
    assert {"_miner", HOST} <= agents.keys()
    assert agents[HOST]["isWhole"]
    assert agents[HOST]["lost"] == 0


def test_the_page_and_its_assets_are_served(web: Web) -> None:
    assert "<html" in web.client.get("/").text
    assert web.client.head("/").status_code == 200
    assert web.client.get("/page/index.html").status_code == 200
    assert web.get("/api/session") == {"login": False, "user": None}


# --- what it refuses ---


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/miners/f09", 404),
        (f"/api/miners/{MINER}/workers/nobody", 404),
        (f"/api/miners/{MINER}/workers/{'x' * 256}", 400),
        (f"/api/miners/{MINER}/workers/a/b", 404),
        (f"/api/miners/{MINER}/workers/%ff%fe", 404),
        (f"/api/miners/{MINER}/workers/%00", 404),
        (f"/api/miners/{MINER}/workers/", 400),
        ("/api/miners/x", 400),
        ("/api/miners/%00", 400),
        ("/api/miners/%2e%2e%2f%2e%2e", 404),
        (f"/api/miners/f0{'1' * 5000}", 400),
        ("/api/miners?no=1", 400),
        (f"/api/miners/{MINER}/history", 400),
        (f"/api/miners/{MINER}/history?field=cpuLoad", 400),
        (f"/api/miners/{MINER}/history?field=cpuLaod&host={HOST}", 400),
        (f"/api/miners/{MINER}/history?field=gpuInfo&host={HOST}", 400),
        (f"/api/miners/{MINER}/history?field=netState&host={HOST}", 400),
        (f"/api/miners/{MINER}/history?field=%00", 400),
        (f"/api/miners/{MINER}/history?field=chainHeight&field=%ff", 400),
        (f"/api/miners/{MINER}/history?{'field=chainHeight&' * (MOST_FIELDS + 1)}", 400),
        (f"/api/miners/{MINER}/history?field=chainHeight&host=nobody", 400),
        (f"/api/miners/{MINER}/history?field=cpuLoad&host=nobody", 404),
        (f"/api/miners/{MINER}/history?field=chainHeight&since=0001-01-01", 400),
        (f"/api/miners/{MINER}/history?field=chainHeight&since=now&until=-1h", 400),
        (f"/api/miners/{MINER}/history?field=chainHeight&since=2000-01-01&step=1", 400),
        (f"/api/miners/{MINER}/history?field=chainHeight&step={MOST_POINTS}&step=1", 400),
        (f"/api/miners/{MINER}/history?field=chainHeight&step=0", 400),
        (f"/api/miners/{MINER}/history?field=chainHeight&step=-1", 400),
        (f"/api/miners/{MINER}/history?field=chainHeight&step={'9' * 400}", 400),
        (f"/api/miners/{MINER}/history?field=chainHeight&step=%D9%A3", 400),
        (f"/api/miners/{MINER}/history?field=chainHeight&agg=sum", 400),
        (f"/api/miners/{MINER}/history?field=chainHeight&since={'9' * 600}", 400),
        ("/api/events?limit=0", 400),
        (f"/api/events?limit={MOST_EVENTS + 1}", 400),
        ("/api/events?limit=1e3", 400),
        (f"/api/events?host={HOST}", 400),
        ("/api/events?miner=f01&miner=f02", 400),
        ("/api/nothing", 404),
        ("/page/%2e%2e/app.py", 404),
        ("/page//etc/passwd", 404),
        ("/login", 404),
    ],
)
def test_hostile_input_is_refused_in_json(web: Web, path: str, status: int) -> None:
    answer = web.client.get(path)
    assert answer.status_code == status
    _assert_is_error(answer)


def _assert_is_error(answer: httpx.Response) -> None:
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert "\n" not in answer.json()["error"]
    assert "Traceback" not in answer.text
    assert answer.headers.keys() >= SAFE


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_nothing_can_be_written(web: Web, method: str) -> None:
    for path in ("/", "/api/miners", f"/api/miners/{MINER}/workers/{HOST}", "/page/index.html", "/api/openapi.json"):
        answer = web.client.request(method, path)
        assert answer.status_code == 405
        _assert_is_error(answer)


def test_every_answer_says_what_a_browser_keeps_to(web: Web) -> None:
    for path in ("/", "/api/miners", "/page/index.html"):
        answer = web.client.get(path)
        assert answer.headers.keys() >= SAFE
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert "server" not in answer.headers
    assert web.client.get("/api/miners").headers["cache-control"] == "no-store"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "0", "localhost@evil.example"])
def test_another_sites_name_that_leads_here_is_refused(web: Web, host: str) -> None:
    answer = web.client.get("/api/miners", headers={"Host": host})
    assert answer.status_code == 403
    _assert_is_error(answer)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:80", "LOCALHOST"])
def test_this_machines_own_names_are_known(web: Web, host: str) -> None:
    assert web.client.get("/api/miners", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/api/miners/..", "/api/miners/../../etc/passwd", "/page/../app.py", "/..", "//", "x"]
)
def test_a_path_that_leads_elsewhere_is_refused(web: Web, path: str) -> None:
    # As it stands: a client would take `..` out of it.
    status, answer = _sent(web, path.encode())
    assert status in {400, 404}
    assert b"application/json" in answer


def _sent(web: Web, path: bytes) -> tuple[int, bytes]:
    with socket.create_connection(("127.0.0.1", web.port), 10) as sock:
        sock.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    return int(answer.split()[1]), answer


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.binary(min_size=0, max_size=60), query=st.binary(max_size=60))
def test_whatever_bytes_are_asked_for_the_server_answers_in_json_and_goes_on(
    web: Web, path: bytes, query: bytes
) -> None:
    taken = bytes(byte for byte in b"/api/miners/" + path + b"?" + query if 0x20 < byte != 0x7F)
    status, answer = _sent(web, taken)
    assert status in {200, 400, 404}
    if max(taken) < 0x80:
        assert b"application/json" in answer


def test_what_is_no_http_is_refused(web: Web) -> None:
    for sent in (b"\x16\x03\x01\x00\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"GET /" + b"x" * 100_000):
        with socket.create_connection(("127.0.0.1", web.port), 10) as sock:
            sock.sendall(sent)
            assert sock.recv(100).startswith(b"HTTP/1.1 4")
    assert web.client.get("/").status_code == 200


def test_it_keeps_to_its_own_description(web: Web) -> None:
    # What a description cannot say is refused too, such as a host without its miner.
    done = subprocess.run(
        [
            Path(sys.executable).parent / "schemathesis", "run", f"{web.url}/api/openapi.json", "--no-color",
            "--exclude-checks", "positive_data_acceptance", "--phases", "examples,fuzzing", "--max-examples", "20",
        ],
        cwd=web.process.log.parent, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


# --- what its document says ---

DOCUMENT = (Path(__file__).parents[1] / "docs" / "web.md").read_text()
ASKING = re.findall(r"^curl .*", DOCUMENT, re.MULTILINE)


@pytest.mark.parametrize("command", ASKING)
def test_a_question_of_the_document_is_answered(web: Web, command: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    real = command.replace("http://127.0.0.1:8585", web.url)
    done = subprocess.run(["bash", "-c", real], capture_output=True, check=True, timeout=30)
    assert "error" not in json.loads(done.stdout)


def test_the_document_tells_of_every_route() -> None:
    told = {re.sub(r"\?.*", "", path) for path in re.findall(r"`(/api/[^`]*)`", DOCUMENT)}
    told = {path.replace(MINER, "{miner}").replace(HOST, "{host:path}") for path in told}
    assert {route.path for route in ROUTES} | {"/api/live"} == told


def test_every_setting_of_the_document_is_known_and_at_its_default() -> None:
    proxied, every = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert read_settings(text=every, environ={}, options={}) == read_settings(environ={}, options={})
    assert read_settings(text=proxied, environ={}, options={}).web.names
    assert tomllib.loads(every)["web"].keys() == {one.name for one in dataclasses.fields(WebSettings)}


# --- where something is missing ---


def test_without_a_database_it_tells_what_is(tmp_path: Path) -> None:
    server = Web(tmp_path, "--broker", f"mqtt://127.0.0.1:{own_port()}", "--data", str(tmp_path / "none")).start()
    try:
        assert server.get("/api/miners")["miners"] == []
        assert "process_resident_memory_bytes" in server.client.get("/metrics").text
        for path in ("/api/events", f"/api/miners/{MINER}/quality", f"/api/miners/{MINER}/history?field=chainHeight"):
            answer = server.client.get(path)
            assert answer.status_code == 503
            _assert_is_error(answer)
            assert str(tmp_path) not in answer.text
    finally:
        server.end()


def test_a_damaged_database_is_told_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "telemetry.db").write_bytes(b"no database" * 1000)
    server = Web(tmp_path, "--broker", f"mqtt://127.0.0.1:{own_port()}", "--data", str(tmp_path)).start()
    try:
        answer = server.client.get("/api/events")
        assert answer.status_code == 503
        assert str(tmp_path) not in answer.text
        assert str(tmp_path) in server.process.text
    finally:
        server.end()


def test_a_port_that_is_taken_is_told_in_one_line(web: Web, tmp_path: Path) -> None:
    process = Process(tmp_path, "web", "--port", str(web.port), "--data", str(tmp_path)).start()
    assert process.process is not None
    assert process.process.wait(20) == 2
    assert process.text.count("\n") == 1
    assert f"port {web.port}" in process.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_status_0(tmp_path: Path, number: signal.Signals) -> None:
    server = Web(tmp_path, "--broker", f"mqtt://127.0.0.1:{own_port()}", "--data", str(tmp_path)).start()
    os.kill(server.process.pid, number)
    assert server.process.process is not None
    assert server.process.process.wait(15) == 0
    assert "Traceback" not in server.process.text
    server.end()
