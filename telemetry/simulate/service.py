"""JSON-RPC as go-jsonrpc speaks it: from the bytes of a request to those of its answer."""

import base64
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeGuard

import orjson

from telemetry.simulate import miner, node
from telemetry.simulate.faults import Faults
from telemetry.simulate.protocol import (
    INVALID_REQUEST,
    METHOD_ERROR,
    NO_METHOD,
    PERMISSIONS,
    STATUS,
    UNPARSABLE,
    WRONG_COUNT,
    Method,
    Parameters,
    RpcError,
    panic,
    text_of,
)
from telemetry.simulate.scenario import Role
from telemetry.simulate.values import go_time
from telemetry.simulate.world import EPOCH_SECONDS, World

_VERSION_1_5_0, _VERSION_2_3_0 = 66816, 131840

PATHS: Mapping[Role, Mapping[str, int]] = {
    "miner": {"/rpc/v0": _VERSION_1_5_0},
    "full": {"/rpc/v0": _VERSION_1_5_0, "/rpc/v1": _VERSION_2_3_0},
}
"""Where a role answers, and which version of its API it says it is."""

METHODS: Mapping[Role, Mapping[str, Method]] = {"miner": miner.METHODS, "full": node.METHODS}

_JWT_HEAD = b'{"alg":"HS256","typ":"JWT"}'
_Object = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer of HTTP."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"


class Tokens:
    """The tokens of a role, signed with its own secret as Lotus does."""

    def __init__(self, secret: str) -> None:
        self._secret = sha256(secret.encode()).digest()
        self._known = {self.token(allowed): PERMISSIONS[:allowed] for allowed in range(1, len(PERMISSIONS) + 1)}

    def token(self, allowed: int = len(PERMISSIONS)) -> str:
        """The token that allows the first so many permissions."""
        claims = orjson.dumps({"Allow": PERMISSIONS[:allowed]})
        signed = f"{_base64url(_JWT_HEAD)}.{_base64url(claims)}"
        return f"{signed}.{_base64url(hmac.digest(self._secret, signed.encode(), 'sha256'))}"

    def allowed(self, token: str) -> Sequence[str] | None:
        """What a token allows, None for one that is not ours."""
        return self._known.get(token)


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


class Service:
    """What a role answers from a world."""

    def __init__(self, role: Role, world: World, tokens: Tokens) -> None:
        self.role, self.world, self.tokens = role, world, tokens
        self.session, self.started = world.uuid(), world.origin - 20 * 86400

    def reply(self, path: str, allowed: Sequence[str], body: bytes, faults: Faults) -> Reply:
        """The answer to a request of somebody who has these permissions."""
        try:
            request = _parsed(body)
        except RpcError as error:
            return _failed(error)
        call = _Call(self, PATHS[self.role][path], allowed, faults)
        return self._batch(call, request) if isinstance(request, list) else _single(call, request)

    def _batch(self, call: "_Call", requests: list[object]) -> Reply:
        if not self.world.version.has("batch"):
            return _failed(RpcError(UNPARSABLE, "unmarshaling request: json: cannot unmarshal array into Go value"))
        if not requests:
            return _failed(RpcError(INVALID_REQUEST, "Invalid request"))
        return Reply(body=orjson.dumps([call.envelope(request) for request in requests]))

    def method(self, name: str, faults: Faults) -> Method:
        """A method by its name."""
        method = self._common().get(name) or METHODS[self.role].get(name)
        if method is None or name in faults.absent or not self.world.version.has(method.since):
            raise RpcError(NO_METHOD, f"method 'Filecoin.{name}' not found")
        return method

    def _common(self) -> Mapping[str, Method]:
        return {
            "Session": Method(answer=lambda world, _: world.session if self.role == "miner" else self.session),
            "StartTime": Method(answer=self._start_time, since="start time"),
            "AuthVerify": Method(answer=self._auth_verify, parameters=1),
            "LogAlerts": Method(answer=_alerts, permission="admin"),
        }

    def _start_time(self, world: World, _: Parameters) -> str:
        started = world.started if self.role == "miner" else self.started
        return go_time(world.told(started), world.zone_hours)

    def _auth_verify(self, _: World, parameters: Parameters) -> Sequence[str]:
        allowed = self.tokens.allowed(text_of(parameters[0]))
        if allowed is None:
            raise RpcError(METHOD_ERROR, "JWT Verification failed: jwt: HMAC verification failed")
        return allowed


def method_names(body: bytes) -> list[str]:
    """The methods that a request calls, without their prefix."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        return []
    requests = request if isinstance(request, list) else [request]
    return [_name(one) for one in requests if _is_object(one) and isinstance(one.get("method"), str)]


class _Call:
    """What the requests in one body have in common."""

    def __init__(self, service: Service, api_version: int, allowed: Sequence[str], faults: Faults) -> None:
        self.service, self.api_version, self.allowed, self.faults = service, api_version, allowed, faults

    def envelope(self, request: object) -> _Object:
        try:
            return self._with_result(request)
        except RpcError as error:
            return _error(error, request)

    def _with_result(self, request: object) -> _Object:
        result = self.result(request)
        envelope = {"jsonrpc": "2.0", "id": request.get("id") if _is_object(request) else None}
        if result is None and not self.service.world.version.has("result always"):
            return envelope
        return {**envelope, "result": result}

    def result(self, request: object) -> object:
        if not _is_object(request) or not isinstance(request.get("method"), str):
            raise RpcError(INVALID_REQUEST, "Invalid request")
        name, parameters = _name(request), _parameters(request)
        if name == "Version":
            return self._version()
        method = self.service.method(name, self.faults)
        self._check(name, method, parameters)
        answer = method.answer(self.service.world, parameters)
        return self.allowed if name == "AuthVerify" and self.faults.no_admin else answer

    def _check(self, name: str, method: Method, parameters: Parameters) -> None:
        if len(parameters) != method.parameters:
            counts = f"{len(parameters)} != {method.parameters}"
            raise RpcError(WRONG_COUNT, f"wrong param count (method 'Filecoin.{name}'): {counts}")
        if method.permission not in self.allowed:
            text = f"missing permission to invoke '{name}' (need '{method.permission}')"
            raise RpcError(METHOD_ERROR, text)
        absent = method.subsystem and method.subsystem not in self.service.world.subsystems
        if absent or name in self.faults.panic:
            raise panic(name)

    def _version(self) -> _Object:
        world = self.service.world
        text = f"{world.version.text}+{world.network}+git.0123456789"
        version = {"Version": text, "APIVersion": self.api_version, "BlockDelay": EPOCH_SECONDS}
        return {**version, "Agent": ""} if world.version.has("agent") else version


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _name(request: _Object) -> str:
    return str(request["method"]).removeprefix("Filecoin.")


def _parameters(request: _Object) -> Parameters:
    parameters = request.get("params") or []
    if not isinstance(parameters, list):
        raise RpcError(INVALID_REQUEST, "params must be an array")
    return parameters


def _parsed(body: bytes) -> object:
    if not body.strip():
        raise RpcError(INVALID_REQUEST, "Invalid request")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RpcError(UNPARSABLE, f"unmarshaling request: {error}") from error


def _single(call: _Call, request: object) -> Reply:
    if _is_object(request) and request.get("id") is None and "method" in request:
        return Reply()
    envelope = call.envelope(request)
    error = envelope.get("error")
    status = STATUS.get(int(str(error["code"])), 200) if _is_object(error) else 200
    return Reply(status=status, body=orjson.dumps(envelope) + b"\n")


def _failed(error: RpcError) -> Reply:
    return Reply(status=STATUS[error.code], body=orjson.dumps(_error(error, None)) + b"\n")


def _error(error: RpcError, request: object) -> _Object:
    number = request.get("id") if _is_object(request) else None
    return {"jsonrpc": "2.0", "id": number, "error": {"code": error.code, "message": error.message}}


def _alerts(world: World, _: Parameters) -> Sequence[_Object]:
    return [_alert(world, *kind, active, since) for kind, (active, since) in world.alerts.items()]


def _alert(world: World, system: str, subsystem: str, active: bool, since: float) -> _Object:
    told = {"Type": "raised", "Message": {"message": subsystem}, "Time": go_time(world.told(since), world.zone_hours)}
    resolved = None if active else {**told, "Type": "resolved"}
    return {
        "Type": {"System": system, "Subsystem": subsystem},
        "Active": active,
        "LastActive": told,
        "LastResolved": resolved,
    }
