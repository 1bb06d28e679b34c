"""What a route of the API is: its parameters with their checks, and what its document says, in one place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from telemetry.config import nearest
from telemetry.errors import TelemetryError, UsageError

Schema = dict[str, Any]

LONGEST_VALUE = 512
"""Characters of a parameter's value."""


class NotFoundError(TelemetryError):
    """There is no such thing, or none that may be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter: `read` makes its value of its text, or raises UsageError; one that is `many` may be repeated."""

    name: str
    place: Literal["path", "query"] = "query"
    read: Callable[[str], Any]
    schema: Schema
    text: str
    is_required: bool = False
    many: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route: `answer` gets the values of the parameters that were given by their names, and gives JSON."""

    path: str
    text: str
    answer: Callable[..., Any]
    schema: Schema
    parameters: Sequence[Parameter] = ()
    reads_database: bool = False

    def values(self, path: Mapping[str, str], query: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """The values of the parameters that were given; UsageError says which one is wrong."""
        known = [one.name for one in self.parameters if one.place == "query"]
        for name, _ in query:
            if name not in known:
                raise UsageError(f"unknown parameter {name[:40]!r}{nearest(name[:40], known)}")
        found = {}
        for one in self.parameters:
            given = [path[one.name]] if one.place == "path" else [value for name, value in query if name == one.name]
            if given:
                found[one.name] = _read(one, given)
            elif one.is_required:
                raise UsageError(f"{one.name}: expected one")
        return found


def _read(parameter: Parameter, given: Sequence[str]) -> Any:  # noqa: ANN401  # of the type that it reads
    if len(given) > parameter.many:
        raise UsageError(f"{parameter.name}: expected no more than {parameter.many}")
    for value in given:
        if len(value) > LONGEST_VALUE:
            raise UsageError(f"{parameter.name}: longer than {LONGEST_VALUE} characters")
    try:
        values = [parameter.read(value) for value in given]
    except UsageError as error:
        raise UsageError(f"{parameter.name}: {error}") from None
    return values if parameter.many > 1 else values[0]
