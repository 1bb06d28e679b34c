"""Servers before the simulated Lotus, and what tests of its sources do to it."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from telemetry.simulate.faults import Faults
from telemetry.simulate.lotus import Endpoint, Lotus
from telemetry.simulate.protocol import METHOD_ERROR, RpcError
from telemetry.simulate.service import Reply, method_names
from telemetry.simulate.sockets import Server
from telemetry.simulate.world import World

START = 1_700_000_000.0
"""Unix seconds, when the worlds of these tests begin."""


class Asked(NamedTuple):
    """A request, and what was answered."""

    path: str
    method: str
    params: list[Any]
    result: Any


class Front:
    """A server before one role of a Lotus, as a proxy is: it keeps what it was asked, and may answer in its place.

    It has the faults of the role; `answers` gives what it says itself, by method: a result, or an RpcError raised.
    """

    def __init__(self, endpoint: Endpoint, paths: Sequence[str] = ("/rpc/v0", "/rpc/v1")) -> None:
        self.endpoint, self.paths = endpoint, paths
        self.asked: list[Asked] = []
        self.answers: dict[str, Callable[[list[Any]], object]] = {}
        self.before: Callable[[str], object] = lambda _: None
        self._server = Server(self, 0)
        self.api_info = f"{endpoint.token}:/ip4/127.0.0.1/tcp/{self._server.port}/http"

    @property
    def faults(self) -> Faults:
        return self.endpoint.faults

    def count(self, body: bytes) -> set[str]:
        return self.endpoint.count(body)

    def wait(self, seconds: float | None, until: Callable[[], bool]) -> None:
        self.endpoint.wait(seconds, until)

    def get(self, path: str) -> Reply:
        return self.endpoint.get(path)

    def post(self, path: str, token: str | None, body: bytes) -> Reply:
        [method] = method_names(body)
        request = json.loads(body)
        self.before(method)
        if path in self.paths:
            reply = self._own(method, request) if method in self.answers else self.endpoint.post(path, token, body)
        else:
            reply = Reply(status=404, body=b"404 page not found\n", content_type="text/plain; charset=utf-8")
        answer = json.loads(reply.body) if reply.content_type == "application/json" and reply.body else {}
        self.asked.append(Asked(path, method, request["params"], answer.get("result")))
        return reply

    def _own(self, method: str, request: Mapping[str, Any]) -> Reply:
        envelope = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            answer = {**envelope, "result": self.answers[method](request["params"])}
        except RpcError as error:
            answer = {**envelope, "error": {"code": error.code, "message": error.message}}
        return Reply(body=json.dumps(answer).encode())

    def close(self) -> None:
        self._server.end()


def fails(message: str) -> Callable[[list[Any]], object]:
    """An answer that is an error of the method."""

    def answer(_: list[Any]) -> object:
        raise RpcError(METHOD_ERROR, message)

    return answer


def change(lotus: Lotus, act: Callable[[World], object]) -> None:
    with lotus.changing() as world:
        act(world)
