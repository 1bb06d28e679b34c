"""The simulated Lotus answers in the shapes of the real one, fails as it does, and lives a life that can be."""

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from http.client import BadStatusLine, HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from telemetry.simulate import miner, node
from telemetry.simulate.accounts import ROBUST
from telemetry.simulate.faults import Faults
from telemetry.simulate.lotus import Endpoint, Lotus, SteppedClock
from telemetry.simulate.scenario import SCENARIOS
from telemetry.simulate.sealing import FITTING, GET, TASKS
from telemetry.simulate.values import ZERO_UUID, bitfield, bits, go_time
from telemetry.simulate.versions import VERSIONS
from telemetry.simulate.world import Size, Stage, World

START = 1_700_000_000.0
_PLACES = (Path(__file__).parents[2] / "shared", Path(os.environ.get("SHARED_DIRECTORY", "/nowhere")))
SHARED = next((place for place in _PLACES if (place / "lotus" / "openrpc.json").exists()), None)

needs_shared = pytest.mark.skipif(SHARED is None, reason="shared/lotus/openrpc.json is not beside this checkout")


# --- a client ---


def connect(endpoint: Endpoint, timeout: float = 5) -> HTTPConnection:
    return HTTPConnection("127.0.0.1", endpoint.port, timeout=timeout)


def post(
    endpoint: Endpoint, body: bytes, *, token: str | None = None, path: str = "", timeout: float = 5
) -> tuple[HTTPResponse, bytes]:
    connection = connect(endpoint, timeout)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    connection.request("POST", path or "/rpc/" + endpoint.url.rsplit("/", 1)[1], body, headers)
    response = connection.getresponse()
    read = response.read()
    connection.close()
    return response, read


def request(method: str, *parameters: object) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": f"Filecoin.{method}", "params": parameters})


def answer(endpoint: Endpoint, method: str, *parameters: object) -> Any:
    _, body = post(endpoint, request(method, *parameters), token=endpoint.token)
    return orjson.loads(body)


def result(endpoint: Endpoint, method: str, *parameters: object) -> Any:
    answered = answer(endpoint, method, *parameters)
    assert "error" not in answered, answered
    return answered.get("result")


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock(START)


@pytest.fixture
def lotus(clock: SteppedClock) -> Iterator[Lotus]:
    with Lotus("busy", clock=clock) as running:
        yield running


@pytest.fixture
def start(clock: SteppedClock) -> Iterator[Callable[..., Lotus]]:
    """Start one with a scenario, a version, ...; it ends with the test."""
    started: list[Lotus] = []

    def start_lotus(scenario: str = "busy", **arguments: Any) -> Lotus:
        started.append(Lotus(scenario, clock=clock, **arguments))
        return started[-1]

    yield start_lotus
    for running in started:
        running.close()


# --- the shapes of the contract ---

_CID = {"type": "object", "properties": {"/": {"type": "string"}}, "required": ["/"], "additionalProperties": False}
_UUID = {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_OPTIONAL = {"Hostname", "SectorFileType"}


def mended(name: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema of Lotus without what its generator gets wrong.

    It knows the Go types and not how they write themselves: addresses, numbers as strings and content ids are
    "objects", UUIDs lists of numbers; nil slices and pointers are not null; a list of any length is one of one.
    """
    return _TEXTS if name == "Filecoin.RuntimeSubsystems" else _mended(schema)


def _mended(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = schema.get("type", [])
    kinds = {kind} if isinstance(kind, str) else set(kind)
    if schema.get("title") == "Content Identifier":
        return {"anyOf": [_CID, {"type": "null"}]}
    if schema.get("minItems") == 16:
        return _UUID
    if "array" in kinds:
        items = schema["items"]
        return {"type": ["array", "null"], "items": _mended(items[0] if isinstance(items, list) else items)}
    if "object" in kinds:
        return _mended_object(schema)
    return {key: value for key, value in schema.items() if key in {"type", "format"}}


def _unmendable(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Members that a schema tells wrongly or not at all: bytes as a list of numbers, a struct inside a struct."""
    if schema["properties"].keys() == {"Epoch", "Value"}:
        return {"Value": {"type": ["string", "null"]}}
    return {"SectorFileType": {"type": "number"}} if schema["properties"].keys() == {"Miner", "Number"} else {}


def _mended_object(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "patternProperties" in schema:
        [(pattern, value)] = schema["patternProperties"].items()
        return {"type": ["object", "null"], "patternProperties": {pattern: _mended(value)}}
    if "properties" not in schema:
        return {}
    properties = {name: _mended(value) for name, value in schema["properties"].items()} | _unmendable(schema)
    required = sorted(properties.keys() - _OPTIONAL)
    return {"type": ["object", "null"], "properties": properties, "required": required, "additionalProperties": False}


def _of_shared(role: str) -> Mapping[str, Any]:
    if SHARED is None:
        return {}
    methods = json.loads((SHARED / "lotus" / "openrpc.json").read_text())[role]
    return {method["name"].removeprefix("Filecoin."): method for method in methods}


def contract_samples() -> Sequence[Any]:
    if SHARED is None:
        return ()
    lines = (SHARED / "lotus" / "contract.md").read_text().splitlines()
    found = (re.match(r"- ([MF]) `(\{.*\})` → `(\{.*\})` ?\[", line) for line in lines)
    return [(one[1], json.loads(one[2]), json.loads(one[3])) for one in found if one]


SCHEMAS = {"miner": _of_shared("miner"), "full": _of_shared("full")}
DESCRIBED = [(role, name) for role, methods in SCHEMAS.items() for name in methods]
PARAMETERS: Mapping[str, Sequence[object]] = {
    "ActorSectorSize": ["f01234"],
    "SectorsListInStates": [["Proving", "PreCommit1"]],
    "SectorsStatus": [1, True],
    "SealingSchedDiag": [False],
    "StorageStat": ["76f1988b-ef30-4d7e-b3ec-9a627f4ba5a8"],
    "StorageInfo": ["76f1988b-ef30-4d7e-b3ec-9a627f4ba5a8"],
    "NodeStatus": [False],
    "StateNetworkVersion": [[]],
    "WalletBalance": ["f0101"],
    "StateAccountKey": ["f0101", None],
    "StateMinerPartitions": ["f01234", 3, []],
    "StateMinerSectors": ["f01234", [0, 20], None],
    "MinerGetBaseInfo": ["f01234", 100, []],
}


def parameters_of(role: str, name: str) -> Sequence[object]:
    usual = [] if role == "miner" or node.METHODS[name].parameters == 0 else ["f01234", []]
    return PARAMETERS.get(name, usual)


@needs_shared
@pytest.mark.parametrize(("role", "name"), DESCRIBED)
def test_example_of_lotus_itself_fits_the_mended_schema(role: str, name: str) -> None:
    schema = SCHEMAS[role][name]["result"]["schema"]
    Draft202012Validator(mended(f"Filecoin.{name}", schema)).validate(schema["examples"][0])


@pytest.fixture(scope="module")
def lived() -> Iterator[Lotus]:
    """One whose world is some hours old, with all that can be in it."""
    clock = SteppedClock(START)
    with Lotus("busy", clock=clock) as running:
        clock.advance(20_000)
        with running.changing() as world:
            world.fault(30)
            world.declare_recovered(10)
            world.stop_chain()
        clock.advance(300)
        yield running


@needs_shared
@pytest.mark.parametrize(("role", "name"), DESCRIBED)
def test_answer_fits_the_schema_of_its_method(lived: Lotus, role: str, name: str) -> None:
    endpoint = lived.miner if role == "miner" else lived.full
    answered = result(endpoint, name, *parameters_of(role, name))
    schema = mended(f"Filecoin.{name}", SCHEMAS[role][name]["result"]["schema"])
    Draft202012Validator(schema).validate(answered)


@needs_shared
def test_chain_head_has_all_members_of_the_real_one(lived: Lotus) -> None:
    real, ours = SCHEMAS["full"]["ChainHead"]["result"]["schema"]["examples"][0], result(lived.full, "ChainHead")
    assert alike(real, ours)
    assert ours["Blocks"][0].keys() == real["Blocks"][0].keys()


@needs_shared
@pytest.mark.parametrize("role", ["miner", "full"])
def test_common_group_answers_in_the_shape_of_its_documentation(lived: Lotus, role: str) -> None:
    assert SHARED is not None
    documented = json.loads((SHARED / "lotus" / "openrpc.json").read_text())["not_in_openrpc"]["methods"]
    endpoint = lived.miner if role == "miner" else lived.full
    for method in documented:
        name = method["name"].removeprefix("Filecoin.")
        parameters = [endpoint.token] if name == "AuthVerify" else []
        assert alike(method["result_example"], result(endpoint, name, *parameters)), name


OPEN = {"Params", "SectorsSummary", "WorkerJobs", "CallToWork"}


def alike(sample: Any, ours: Any, name: str = "") -> bool:
    """Whether two values are of one shape; null and an empty list stand for any."""
    if sample in (None, []) or ours in (None, []):
        return True
    if isinstance(sample, dict) and isinstance(ours, dict):
        if name in OPEN:
            return all(alike(next(iter(sample.values())), value) for value in ours.values())
        optional = _OPTIONAL | {"Message"}
        same = sample.keys() - optional == ours.keys() - optional
        return same and all(alike(sample[key], ours[key], key) for key in sample.keys() & ours.keys() - {"Message"})
    if isinstance(sample, list) and isinstance(ours, list):
        return all(alike(sample[0], one) for one in ours)
    numbers = (int, float)
    return type(sample) is type(ours) or (isinstance(sample, numbers) and isinstance(ours, numbers))


@needs_shared
@pytest.mark.parametrize(
    ("role", "asked", "told"), [pytest.param(*one, id=one[1]["method"]) for one in contract_samples()]
)
def test_answer_has_the_shape_of_the_contracts_sample(lived: Lotus, role: str, asked: Any, told: Any) -> None:
    endpoint = lived.miner if role == "M" else lived.full
    name = asked["method"].removeprefix("Filecoin.")
    parameters = [[] if isinstance(one, list) else one for one in asked["params"]]
    if name in {"AuthVerify", "StateLookupID"}:
        parameters[0] = endpoint.token if name == "AuthVerify" else ROBUST["f01235"]
    answered = answer(endpoint, name, *parameters)
    assert answered.keys() == told.keys()
    assert alike(told["result"], answered["result"], name)


@needs_shared
def test_every_sample_of_the_contract_is_read() -> None:
    assert len(contract_samples()) >= 24


def test_go_writes_a_moment_in_its_zone_with_the_digits_it_needs() -> None:
    assert go_time(0, 0) == "1970-01-01T00:00:00Z"
    assert go_time(0.5, 0).startswith("1970-01-01T00:00:00.5")
    assert go_time(0, 8) == "1970-01-01T08:00:00+08:00"
    assert go_time(0, -5) == "1969-12-31T19:00:00-05:00"


@pytest.mark.parametrize(
    ("numbers", "runs"), [((), [0]), ((5,), [5, 1]), ((0, 1, 2, 5), [0, 3, 2, 1]), ((320,), [320, 1])]
)
def test_bitfield_is_runs_of_unset_and_set(numbers: tuple[int, ...], runs: list[int]) -> None:
    assert bitfield(numbers) == runs


@given(st.sets(st.integers(0, 500)))
def test_bitfield_can_be_read_back(numbers: set[int]) -> None:
    assert set(bits(bitfield(numbers))) == numbers


# --- who may what ---


def test_wrong_token_gets_401_and_nothing_else(lotus: Lotus) -> None:
    response, body = post(lotus.miner, request("Version"), token="x.y.z")
    assert (response.status, body) == (401, b"")


def test_token_of_the_other_role_is_a_wrong_one(lotus: Lotus) -> None:
    assert post(lotus.miner, request("Version"), token=lotus.full.token)[0].status == 401
    assert post(lotus.full, request("Version"), token=lotus.miner.token)[0].status == 401


def test_header_without_bearer_is_a_wrong_token(lotus: Lotus) -> None:
    connection = connect(lotus.miner)
    connection.request("POST", "/rpc/v0", request("Version"), {"Authorization": lotus.miner.token})
    assert connection.getresponse().status == 401
    connection.close()


def test_token_may_stand_in_the_query(lotus: Lotus) -> None:
    response, body = post(lotus.miner, request("WorkerJobs"), path=f"/rpc/v0?token={lotus.miner.token}")
    assert response.status == 200
    assert "result" in orjson.loads(body)


@pytest.mark.parametrize("with_token", [False, True])
def test_who_may_only_read_is_told_so_with_status_200(lotus: Lotus, with_token: bool) -> None:
    token = lotus.miner.read_token if with_token else None
    response, body = post(lotus.miner, request("WorkerStats"), token=token)
    message = "missing permission to invoke 'WorkerStats' (need 'admin')"
    assert response.status == 200
    assert orjson.loads(body) == {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": message}}
    assert "result" in orjson.loads(post(lotus.miner, request("SectorsSummary"), token=token)[1])


def test_auth_verify_tells_what_a_token_allows(lotus: Lotus) -> None:
    assert result(lotus.miner, "AuthVerify", lotus.miner.token) == ["read", "write", "sign", "admin"]
    assert result(lotus.miner, "AuthVerify", lotus.miner.read_token) == ["read"]
    assert answer(lotus.miner, "AuthVerify", "x")["error"]["code"] == 1


# --- errors ---


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (request("Foo"), 500, -32601),
        (request("SectorsSummary", 1), 500, -32602),
        (request("SealingSchedDiag"), 500, -32602),
        (b"{", 500, -32700),
        (b"", 400, -32600),
        (b"[]", 400, -32600),
        (request("SectorsStatus", 10**9, False), 200, 1),
    ],
)
def test_error_has_its_code_and_its_status(lotus: Lotus, body: bytes, status: int, code: int) -> None:
    response, read = post(lotus.miner, body, token=lotus.miner.token)
    assert (response.status, orjson.loads(read)["error"]["code"]) == (status, code)


def test_messages_of_errors_are_those_of_lotus(lotus: Lotus) -> None:
    assert answer(lotus.miner, "Foo")["error"]["message"] == "method 'Filecoin.Foo' not found"
    wrong = "wrong param count (method 'Filecoin.SectorsSummary'): 1 != 0"
    assert answer(lotus.miner, "SectorsSummary", 1)["error"]["message"] == wrong


def test_unknown_actor_is_not_found_but_owns_nothing(lotus: Lotus) -> None:
    error = answer(lotus.full, "StateGetActor", "f099", [])["error"]
    assert error["code"] == 1
    assert error["message"].endswith("actor not found")
    assert result(lotus.full, "WalletBalance", "f099") == "0"
    assert result(lotus.full, "StateMinerPower", "f099", [])["HasMinPower"] is False


@pytest.mark.parametrize(("version", "code"), [("1.36.1", 11), ("1.32.1", 3), ("1.28.0", 3), ("1.26.0", 1)])
def test_code_of_an_unknown_actor_differs_by_version(start: Callable[..., Lotus], version: str, code: int) -> None:
    assert answer(start(version=version).full, "StateLookupID", "f099", [])["error"]["code"] == code


def test_miner_without_storage_panics(lotus: Lotus) -> None:
    with lotus.changing() as world:
        world.subsystems = ("Mining",)
    response, body = post(lotus.miner, request("WorkerStats"), token=lotus.miner.token)
    error = orjson.loads(body)["error"]
    assert (response.status, error["code"]) == (500, 0)
    assert error["message"].startswith("fatal error calling 'Filecoin.WorkerStats': panic in rpc method")


def test_miner_has_no_other_path_than_v0(lotus: Lotus) -> None:
    assert post(lotus.miner, request("Version"), path="/rpc/v1")[0].status == 404
    assert post(lotus.full, request("Version"), path="/rpc/v0")[0].status == 200


def test_api_version_is_that_of_the_path(lotus: Lotus) -> None:
    of_path = {
        path: orjson.loads(post(lotus.full, request("Version"), path=path)[1]) for path in ("/rpc/v0", "/rpc/v1")
    }
    assert [one["result"]["APIVersion"] for one in of_path.values()] == [66816, 131840]


def test_requests_in_a_batch_are_answered_in_a_batch(lotus: Lotus) -> None:
    calls = b"[" + b",".join([request("Session"), request("Foo")]) + b"]"
    response, body = post(lotus.miner, calls)
    first, second = orjson.loads(body)
    assert response.status == 200
    assert "result" in first
    assert second["error"]["code"] == -32601


def test_before_batches_a_batch_is_an_error(start: Callable[..., Lotus]) -> None:
    response, body = post(start(version="1.17.0").miner, b"[" + request("Session") + b"]")
    assert (response.status, orjson.loads(body)["error"]["code"]) == (500, -32700)


def test_request_without_id_gets_no_answer(lotus: Lotus) -> None:
    response, body = post(lotus.miner, b'{"jsonrpc":"2.0","method":"Filecoin.Session","params":[]}')
    assert (response.status, body) == (200, b"")


@pytest.mark.parametrize(("version", "has_result"), [("1.26.0", False), ("1.36.1", True)])
def test_null_result_is_left_out_before_v1_27_1(start: Callable[..., Lotus], version: str, has_result: bool) -> None:
    answered = answer(start(version=version).miner, "SectorTerminatePending")
    assert ("result" in answered) is has_result
    assert answered.get("result") is None


def test_unknown_tipset_is_refused_and_the_head_is_known(lotus: Lotus, clock: SteppedClock) -> None:
    head = result(lotus.full, "ChainHead")
    clock.advance(60)
    assert result(lotus.full, "StateMinerSectorCount", "f01234", head["Cids"])["Live"] > 0
    assert "error" in answer(lotus.full, "StateMinerSectorCount", "f01234", [{"/": "bafy2bzaceno"}])


def test_health_of_the_full_node_says_whether_it_is_synced(lotus: Lotus, clock: SteppedClock) -> None:
    def ready() -> int:
        connection = connect(lotus.full)
        connection.request("GET", "/health/readyz")
        response = connection.getresponse()
        connection.close()
        return response.status

    assert ready() == 200
    with lotus.changing() as world:
        world.stop_chain()
    clock.advance(600)
    assert ready() == 503


# --- faults ---


def test_hanging_lotus_never_answers_until_healed(lotus: Lotus) -> None:
    lotus.miner.faults = Faults(hang=True)
    with pytest.raises(TimeoutError):
        post(lotus.miner, request("Session"), timeout=0.2)
    lotus.miner.heal()
    assert result(lotus.miner, "Session")


def test_fault_can_befall_one_method_alone(lotus: Lotus) -> None:
    lotus.miner.faults = Faults(hang=True, only=frozenset({"WorkerStats"}))
    assert result(lotus.miner, "Session")
    with pytest.raises(TimeoutError):
        post(lotus.miner, request("WorkerStats"), token=lotus.miner.token, timeout=0.2)


def test_refusing_lotus_cuts_connections_and_listens_again_at_its_port(lotus: Lotus) -> None:
    port, kept = lotus.miner.port, connect(lotus.miner)
    kept.request("POST", "/rpc/v0", request("Session"))
    kept.getresponse().read()
    lotus.miner.faults = Faults(refuse=True)
    with pytest.raises(ConnectionRefusedError):
        post(lotus.miner, request("Session"))
    assert kept.sock is not None
    assert kept.sock.recv(1) == b""
    kept.close()
    lotus.miner.heal()
    assert lotus.miner.port == port
    assert result(lotus.miner, "Session")
    assert result(lotus.full, "Session")


def test_slow_lotus_answers_late(lotus: Lotus) -> None:
    lotus.miner.faults = Faults(slow=0.3)
    began = time.monotonic()
    assert result(lotus.miner, "Session")
    assert time.monotonic() - began >= 0.3


def test_garbage_is_no_json(lotus: Lotus) -> None:
    lotus.miner.faults = Faults(garbage=True)
    response, body = post(lotus.miner, request("Session"))
    assert response.status == 200
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(body)


def test_page_of_a_proxy_is_html(lotus: Lotus) -> None:
    lotus.full.faults = Faults(html=True)
    response, body = post(lotus.full, request("Session"))
    assert (response.status, response.headers["Content-Type"]) == (502, "text/html")
    assert body.startswith(b"<html>")


def test_half_an_answer_ends_too_early(lotus: Lotus) -> None:
    lotus.miner.faults = Faults(half=True)
    with pytest.raises(IncompleteRead):
        post(lotus.miner, request("SectorsSummary"))


def test_huge_answer_is_as_large_as_told_and_says_no_length(lotus: Lotus) -> None:
    lotus.miner.faults = Faults(huge=200_000_000)
    connection = connect(lotus.miner)
    connection.request("POST", "/rpc/v0", request("Session"))
    response = connection.getresponse()
    read = 0
    while chunk := response.read(1 << 20):
        read += len(chunk)
    connection.close()
    assert response.headers["Content-Length"] is None
    assert 200_000_000 < read < 200_000_100


def test_client_may_go_away_amid_a_huge_answer(lotus: Lotus) -> None:
    lotus.miner.faults = Faults(huge=200_000_000)
    connection = connect(lotus.miner)
    connection.request("POST", "/rpc/v0", request("Session"))
    connection.getresponse().read(1000)
    connection.close()
    lotus.miner.heal()
    assert result(lotus.miner, "Session")


def test_tokens_can_become_unknown_and_lose_admin(lotus: Lotus) -> None:
    lotus.miner.faults = Faults(unauthorized=True)
    assert post(lotus.miner, request("Session"), token=lotus.miner.token)[0].status == 401
    lotus.miner.faults = Faults(no_admin=True)
    assert answer(lotus.miner, "WorkerJobs")["error"]["code"] == 1
    assert result(lotus.miner, "SectorsSummary")


def test_methods_can_be_absent_or_panic(lotus: Lotus) -> None:
    lotus.miner.faults = Faults(absent=frozenset({"StartTime"}), panic=frozenset({"WorkerStats"}))
    assert answer(lotus.miner, "StartTime")["error"]["code"] == -32601
    assert answer(lotus.miner, "WorkerStats")["error"]["code"] == 0
    assert result(lotus.miner, "WorkerJobs")


def test_restarted_miner_has_a_new_session_at_its_old_port(lotus: Lotus, clock: SteppedClock) -> None:
    before = result(lotus.miner, "Session"), result(lotus.full, "Session")
    clock.advance(60)
    lotus.miner.restart()
    assert result(lotus.miner, "Session") != before[0]
    assert result(lotus.full, "Session") == before[1]


def test_lotus_closes_while_somebody_waits_for_an_answer(lotus: Lotus) -> None:
    lotus.miner.faults = Faults(hang=True)
    connection = connect(lotus.miner)
    connection.request("POST", "/rpc/v0", request("Session"))
    lotus.close()
    with pytest.raises((ConnectionError, BadStatusLine)):
        connection.getresponse()
    connection.close()


def test_calls_are_counted_by_method(lotus: Lotus) -> None:
    for method in ("Session", "Session", "Foo"):
        answer(lotus.miner, method)
    assert lotus.miner.calls == Counter(Session=2, Foo=1)
    assert lotus.full.calls == Counter()
    lotus.miner.forget_calls()
    assert lotus.miner.calls == Counter()


def test_repos_and_variables_name_both(lotus: Lotus, tmp_path: Path) -> None:
    variables = lotus.write_repos(tmp_path)
    repo = Path(variables["LOTUS_MINER_PATH"])
    assert (repo / "api").read_text() == f"/ip4/127.0.0.1/tcp/{lotus.miner.port}/http"
    assert lotus.environment["MINER_API_INFO"] == f"{(repo / 'token').read_text()}:{(repo / 'api').read_text()}"
    assert (Path(variables["LOTUS_PATH"]) / "token").read_text() == lotus.full.token


# --- versions ---


def first_worker(lotus: Lotus) -> Mapping[str, Any]:
    stats: Mapping[str, Mapping[str, Any]] = result(lotus.miner, "WorkerStats")
    return next(worker for worker in stats.values() if worker["Info"]["Hostname"] == "seal01")


@pytest.mark.parametrize(
    ("version", "members"),
    [
        ("1.13.0", set[str]()),
        ("1.15.2", {"Tasks"}),
        ("1.17.0", {"Tasks", "TaskCounts"}),
        ("1.36.1", {"Tasks", "TaskCounts"}),
    ],
)
def test_worker_has_tasks_and_counts_since_their_release(
    start: Callable[..., Lotus], version: str, members: set[str]
) -> None:
    assert first_worker(start(version=version)).keys() & {"Tasks", "TaskCounts"} == members


def test_before_v1_13_2_resources_are_fewer_and_gpu_is_used_or_not(start: Callable[..., Lotus]) -> None:
    worker = first_worker(start(version="1.13.0"))
    assert isinstance(worker["GpuUsed"], bool)
    assert worker["Info"]["Resources"].keys() == {"MemPhysical", "MemSwap", "MemReserved", "CPUs", "GPUs"}


@pytest.mark.parametrize(("version", "first"), [("1.13.0", 1), ("1.13.1", 2)])
def test_run_wait_of_what_is_assigned_begins_at(start: Callable[..., Lotus], version: str, first: int) -> None:
    jobs = result(start("restart", version=version).miner, "WorkerJobs")
    waits = {job["RunWait"] for rows in jobs.values() for job in rows}
    assert min(wait for wait in waits if wait > 0) == first


@pytest.mark.parametrize(
    ("method", "version", "is_there"),
    [
        ("StartTime", "1.18.2", False),
        ("StartTime", "1.19.0", True),
        ("RuntimeSubsystems", "1.11.0", False),
        ("RuntimeSubsystems", "1.12.0", True),
    ],
)
def test_method_is_there_since_its_release(
    start: Callable[..., Lotus], method: str, version: str, is_there: bool
) -> None:
    assert ("result" in answer(start("quiet", version=version).miner, method)) is is_there


OLD = {"PreCommitting", "PreCommitWait"}, {"SubmitCommit", "CommitWait"}
NEW = {"SubmitPreCommitBatch", "PreCommitBatchWait"}, {"SubmitCommitAggregate", "CommitAggregateWait"}


@pytest.mark.parametrize(
    ("version", "precommit", "commit"),
    [("1.13.0", OLD, OLD), ("1.23.3", OLD, OLD), ("1.24.0", NEW, OLD), ("1.26.0", NEW, NEW), ("1.36.1", NEW, NEW)],
)
def test_states_have_the_names_of_the_release(
    version: str, precommit: tuple[set[str], set[str]], commit: tuple[set[str], set[str]]
) -> None:
    world = World(start=START, version=version, size=Size(sealing=400))
    seen = {state for state, number in world.states.items() if number}
    assert seen & {*OLD[0], *NEW[0]} == precommit[0]
    assert seen & {*OLD[1], *NEW[1]} == commit[1]


@pytest.mark.parametrize(("version", "is_partial"), [("1.23.3", False), ("1.36.1", True)])
def test_summary_fills_up_after_a_start_since_it_is_in_memory(
    start: Callable[..., Lotus], clock: SteppedClock, version: str, is_partial: bool
) -> None:
    lotus = start(version=version)
    whole = sum(result(lotus.miner, "SectorsSummary").values())
    with lotus.changing() as world:
        world.restart_miner()
    clock.advance(20)
    assert (sum(result(lotus.miner, "SectorsSummary").values()) < whole * 0.6) is is_partial
    clock.advance(60)
    assert sum(result(lotus.miner, "SectorsSummary").values()) == pytest.approx(whole, abs=10)


# --- the life of a world ---


def rows_of(world: World) -> Sequence[tuple[str, Mapping[str, Any]]]:
    jobs: Mapping[str, Any] = miner.METHODS["WorkerJobs"].answer(world, ())  # type: ignore[assignment]  # an object
    return [(uuid, row) for uuid, rows in jobs.items() for row in rows]


def stats_of(world: World) -> Mapping[str, Any]:
    stats: Mapping[str, Any] = miner.METHODS["WorkerStats"].answer(world, ())  # type: ignore[assignment]  # an object
    return stats


def test_same_seed_gives_the_same_world_in_any_steps() -> None:
    at_once, in_steps = (SCENARIOS["trouble"].world(start=START, seed=7) for _ in range(2))
    at_once.advance(START + 5000)
    for step in range(1, 501):
        in_steps.advance(START + step * 10)
    assert rows_of(at_once) == rows_of(in_steps)
    assert at_once.states == in_steps.states
    assert rows_of(SCENARIOS["trouble"].world(start=START, seed=8)) != rows_of(
        SCENARIOS["trouble"].world(start=START, seed=7)
    )


def test_a_faster_world_comes_as_far_in_less_of_our_time() -> None:
    slow, fast = World(start=START), World(start=START, speed=60)
    slow.advance(START + 6000)
    fast.advance(START + 100)
    assert slow.states == fast.states
    assert fast.moment(fast.height) <= START + 100


def test_head_moves_every_thirty_seconds_and_is_never_of_the_future(lotus: Lotus, clock: SteppedClock) -> None:
    first = result(lotus.full, "ChainHead")
    clock.advance(30)
    second = result(lotus.full, "ChainHead")
    assert second["Height"] == first["Height"] + 1
    assert second["Cids"] != first["Cids"]
    assert 0 <= clock.now - second["Blocks"][0]["Timestamp"] < 30


def test_stopped_chain_falls_behind_and_catches_up(lotus: Lotus, clock: SteppedClock) -> None:
    with lotus.changing() as world:
        world.stop_chain()
    clock.advance(300)
    assert result(lotus.full, "NodeStatus", False)["SyncStatus"]["Behind"] == 10
    assert [alert["Active"] for alert in result(lotus.miner, "LogAlerts")] == [False, True]
    with lotus.changing() as world:
        world.resume_chain()
    assert result(lotus.full, "NodeStatus", False)["SyncStatus"]["Behind"] == 0


def test_faulty_sector_that_is_declared_recovered_is_active_within_a_day(lotus: Lotus, clock: SteppedClock) -> None:
    count = partial(result, lotus.full, "StateMinerSectorCount", "f01234", [])
    power = partial(result, lotus.full, "StateMinerPower", "f01234", [])
    before = int(power()["MinerPower"]["RawBytePower"])
    with lotus.changing() as world:
        world.fault(30)
        world.declare_recovered(10)
    assert count()["Faulty"] == 30
    assert sum(result(lotus.full, "StateMinerRecoveries", "f01234", [])[1::2]) == 10
    assert before - int(power()["MinerPower"]["RawBytePower"]) == 30 * (32 << 30)
    clock.advance(86_400)
    assert count()["Faulty"] == 20
    assert result(lotus.full, "StateMinerRecoveries", "f01234", []) == [0]


def test_partitions_together_are_the_sector_count(lived: Lotus) -> None:
    seen: Counter[str] = Counter()
    for index in range(48):
        for partition in result(lived.full, "StateMinerPartitions", "f01234", index, []) or []:
            seen.update({name: sum(runs[1::2]) for name, runs in partition.items()})
    count = result(lived.full, "StateMinerSectorCount", "f01234", [])
    assert (seen["LiveSectors"], seen["ActiveSectors"], seen["FaultySectors"]) == tuple(count.values())
    recovering = result(lived.full, "StateMinerRecoveries", "f01234", [])
    assert seen["RecoveringSectors"] == sum(recovering[1::2])


def test_balance_is_the_sum_of_its_parts(lived: Lotus) -> None:
    state = result(lived.full, "StateReadState", "f01234", [])
    parts = ("PreCommitDeposits", "LockedFunds", "InitialPledge", "FeeDebt")
    held = sum(int(state["State"][part]) for part in parts)
    available = int(result(lived.full, "StateMinerAvailableBalance", "f01234", []))
    assert 0 <= held + available - int(state["Balance"]) < 10**16
    assert result(lived.full, "StateGetActor", "f01234", [])["Balance"] == state["Balance"]


def test_after_a_restart_busy_hosts_are_absent_and_their_jobs_have_no_worker() -> None:
    world = World(start=START)
    busy = {
        job.worker.uuid for job in world.jobs if job.worker and job.stage is Stage.RUNNING and job.ends > START + 60
    }
    world.restart_miner()
    world.advance(START + 30)
    rows = rows_of(world)
    assert busy
    assert not busy & stats_of(world).keys()
    zero = [row for uuid, row in rows if uuid == ZERO_UUID]
    assert {row["RunWait"] for row in zero} >= {-1}
    assert all(row["Hostname"] for row in zero)
    world.advance(START + 6 * 3600)
    assert len(stats_of(world)) == 11


def test_call_kept_over_a_restart_is_returned_then_done() -> None:
    world = World(start=START)
    world.restart_miner()
    seen = set()
    for step in range(600):
        world.advance(START + step * 10)
        seen |= {row["RunWait"] for uuid, row in rows_of(world) if uuid == ZERO_UUID}
    assert seen == {-1, -2, -3}


def test_every_kind_of_row_comes_to_be() -> None:
    world = World(start=START, size=Size(sealing=120))
    seen, unassigned = set(), 0
    for step in range(200):
        world.advance(START + step * 20)
        seen |= {row["RunWait"] for _, row in rows_of(world)}
        unassigned += len(list(world.requests))
    assert {-1, 0, 1, 2, 3} <= seen
    assert unassigned


def test_lost_worker_keeps_what_it_runs_and_gives_back_the_rest() -> None:
    world = World(start=START, size=Size(sealing=120))
    [uuid] = [worker.uuid for worker in world.workers.values() if worker.hostname == "seal01" and worker.name == "pc1"]
    ran = [row for key, row in rows_of(world) if key == uuid and row["RunWait"] == 0]
    world.lose(uuid)
    world.advance(START + 7 * 3600)
    assert [row for key, row in rows_of(world) if key == uuid] == ran
    assert (stats_of(world)[uuid]["Enabled"], stats_of(world)[uuid]["Tasks"]) == (False, None)
    world.find(uuid)
    world.advance(START + 14 * 3600)
    assert stats_of(world)[uuid]["Enabled"]
    assert not {row["ID"]["ID"] for row in ran} & {row["ID"]["ID"] for _, row in rows_of(world)}


def test_worker_that_starts_anew_has_another_uuid_and_leaves_its_jobs_under_the_old_one() -> None:
    world = World(start=START)
    old = next(uuid for uuid, row in rows_of(world) if row["RunWait"] == 0 and world.workers[uuid].name == "pc1")
    new = world.restart_worker(old)
    assert new in stats_of(world)
    assert old not in stats_of(world)
    assert old in {uuid for uuid, _ in rows_of(world)}
    world.advance(START + 3600)
    assert old not in {uuid for uuid, _ in rows_of(world)}


def test_failed_task_puts_its_sector_into_a_failed_state_for_a_minute() -> None:
    world = World(start=START)
    world.fail_sealing(5)
    assert sum(number for state, number in world.states.items() if state.endswith("Failed")) == 5
    world.advance(START + 61)
    assert sum(number for state, number in world.states.items() if state.endswith("Failed")) == 0


def test_removed_sector_goes_from_chain_and_stays_in_the_summary() -> None:
    world = World(start=START)
    live = len(world.live)
    world.remove(3)
    assert (world.states["Removing"], len(world.live)) == (3, live - 3)
    world.advance(START + 61)
    assert (world.states["Removing"], world.states["Removed"]) == (0, 5)


def find_all(world: World) -> None:
    for worker in world.workers.values():
        if not worker.enabled:
            world.find(worker.uuid)


ACTIONS: Mapping[str, Callable[[World], object]] = {
    "restart the miner": World.restart_miner,
    "fail": lambda world: world.fail_sealing(2),
    "fault": lambda world: world.fault(5),
    "recover": lambda world: world.declare_recovered(3),
    "remove": lambda world: world.remove(1),
    "lose": lambda world: world.lose(next(iter(world.workers))),
    "find": find_all,
    "drop": lambda world: world.drop(list(world.workers)[-1]) if len(world.workers) > 4 else None,
    "restart a worker": lambda world: world.restart_worker(list(world.workers)[-1]),
    "join": lambda world: world.join("seal09", "pc2"),
    "stop": World.stop_chain,
    "resume": World.resume_chain,
}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    version=st.sampled_from(VERSIONS),
    story=st.lists(st.tuples(st.sampled_from(sorted(ACTIONS)), st.integers(1, 20_000)), max_size=12),
)
def test_whatever_happens_the_world_can_be(seed: int, version: str, story: list[tuple[str, int]]) -> None:
    world = World(
        start=START, seed=seed, version=version, size=Size(hosts=2, sectors=60, sealing=40), failure_rate=0.05
    )
    now = START
    assert_possible(world)
    for action, seconds in story:
        ACTIONS[action](world)
        assert_possible(world)
        now += seconds
        world.advance(now)
        assert_possible(world)


def assert_possible(world: World) -> None:
    assert_sectors_are_possible(world)
    assert_jobs_are_possible(world)
    if world.version.has("task counts"):
        assert_counts_are_those_of_the_rows(world)


def assert_sectors_are_possible(world: World) -> None:
    assert not world.settled.keys() & world.sectors.keys()
    states = Counter(world.settled.values()) + Counter(sector.state for sector in world.sectors.values())
    assert +world.states == states
    assert len(world.sectors) == world.size.sealing
    assert world.recovering <= world.faulty <= world.live
    assert world.unproven <= world.live


def assert_jobs_are_possible(world: World) -> None:
    rows = rows_of(world)
    for job in world.jobs:
        assert world.sectors[job.sector.number] is job.sector
        assert job.sector.state in FITTING[job.task]
    whose = [(row["Sector"]["Number"], row["Task"]) for _, row in rows]
    calls = [row["ID"]["ID"] for _, row in rows if row["ID"]["ID"] != ZERO_UUID]
    requests = [(job.sector.number, job.task) for job in world.requests]
    assert len({*whose, *requests}) == len(whose) + len(requests)
    assert len(set(calls)) == len(calls)
    for uuid, row in rows:
        assert (row["RunWait"] < 0) == (uuid == ZERO_UUID)
        assert (row["RunWait"] > 0) == (row["ID"]["ID"] == ZERO_UUID)


def assert_counts_are_those_of_the_rows(world: World) -> None:
    rows = rows_of(world)
    for uuid, worker in stats_of(world).items():
        own = [row for key, row in rows if key == uuid]
        expected = Counter(f"8:{row['Task']}" for row in own if row["RunWait"] == 0)
        prepared = [row for row in own if row["RunWait"] == 1]
        expected.update(f"8:{GET if TASKS[row['Task']].fetches else ''}" for row in prepared)
        told = Counter(worker["TaskCounts"])
        unlisted = {"8:seal/v0/download/sector", "8:post/v0/windowproof", "8:post/v0/winningproof"}
        assert {task: number for task, number in (+told).items() if task not in unlisted} == expected


# --- scenarios and sizes ---


@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - {"large"}))
@pytest.mark.parametrize("version", VERSIONS)
def test_scenario_goes_on_for_a_day(name: str, version: str) -> None:
    world = SCENARIOS[name].world(start=START, version=version)
    for hour in range(1, 25):
        world.advance(START + hour * 3600)
    assert_possible(world)
    assert world.messages > 0


def test_outages_of_a_scenario_come_and_go_with_the_clock(start: Callable[..., Lotus], clock: SteppedClock) -> None:
    lotus = start("trouble")
    clock.advance(490)
    assert post(lotus.full, request("Session"))[0].status == 502
    clock.advance(100)
    assert post(lotus.full, request("Session"))[0].status == 200
    clock.advance(415)
    wait_until(partial(is_refused, lotus.full))
    clock.advance(60)
    wait_until(lambda: not is_refused(lotus.full))


def is_refused(endpoint: Endpoint) -> bool:
    try:
        post(endpoint, request("Session"))
    except (OSError, HTTPException):
        return True
    return False


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_large_world_answers_as_large_as_it_is(start: Callable[..., Lotus]) -> None:
    lotus = start("large")
    _, stats = post(lotus.miner, request("WorkerStats"), token=lotus.miner.token, timeout=60)
    jobs = result(lotus.miner, "WorkerJobs")
    summary = result(lotus.miner, "SectorsSummary")
    assert len(stats) > 32_000_000
    assert len(orjson.loads(stats)["result"]) == 1003
    assert sum(len(rows) for rows in jobs.values()) > 19_000
    assert sum(summary.values()) > 100_000
