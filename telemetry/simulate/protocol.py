"""What a method of Lotus is, and the errors that it answers with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from telemetry.simulate.world import World

PERMISSIONS = ("read", "write", "sign", "admin")


class RpcError(Exception):
    """An error object of JSON-RPC."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


PANIC, METHOD_ERROR, INVALID_REQUEST, NO_METHOD, WRONG_COUNT, UNPARSABLE = 0, 1, -32600, -32601, -32602, -32700

STATUS: Mapping[int, int] = {PANIC: 500, INVALID_REQUEST: 400, NO_METHOD: 500, WRONG_COUNT: 500, UNPARSABLE: 500}
"""HTTP's status of an error; 200 for all the others."""

Parameters = Sequence[object]
Answer = Callable[[World, Parameters], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method: who may call it with how many parameters, and what it answers."""

    answer: Answer
    parameters: int = 0
    permission: str = "read"
    since: str = ""
    """The feature of a release with which it came."""
    subsystem: str = ""
    """The part of the miner without which it panics."""


def panic(name: str) -> RpcError:
    """The error of a method that panicked."""
    method = f"Filecoin.{name}"
    return RpcError(PANIC, f"fatal error calling '{method}': panic in rpc method '{method}': invalid memory address")


def number_of(value: object) -> int:
    """A parameter that is a count."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise RpcError(UNPARSABLE, f"unmarshaling params: json: cannot unmarshal {value!r} into a number")
    return value


def text_of(value: object) -> str:
    """A parameter that is a string."""
    if not isinstance(value, str):
        raise RpcError(UNPARSABLE, f"unmarshaling params: json: cannot unmarshal {value!r} into a string")
    return value


def list_of(value: object) -> Sequence[object]:
    """A parameter that is a list; null is an empty one."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RpcError(UNPARSABLE, f"unmarshaling params: json: cannot unmarshal {value!r} into an array")
    return value
