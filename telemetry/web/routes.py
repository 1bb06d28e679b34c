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


class UnavailableError(TelemetryError):
    """It cannot be answered here, or not now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter: `read` makes its value of its text, or raises UsageError; it may be given up to `most` times.

    One that may be left out is what `usual` says then.
    """

    name: str
    place: Literal["path", "query"] = "query"
    read: Callable[[str], Any]
    schema: Schema
    text: str
    usual: str | None = None
    is_required: bool = False
    most: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route: `answer` gets a request and the values of the parameters by their names, and gives what is JSON.

    One that reads the database takes a while, and is answered in a thread.
    """

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
        return {one.name: _value(one, _texts(one, path, query)) for one in self.parameters}

    @property
    def described(self) -> Schema:
        """The route in OpenAPI's words."""
        errors = {"400": "A parameter is not what it should be."}
        if any(one.place == "path" for one in self.parameters):
            errors["404"] = "There is no such thing."
        if self.reads_database:
            errors["503"] = "There is no database here, it cannot be read now, or too many ask at once."
        answers = {"200": _answer("What was asked for.", self.schema)}
        answers |= {status: _answer(text, {"$ref": "#/components/schemas/error"}) for status, text in errors.items()}
        return {"summary": self.text, "parameters": [_described(one) for one in self.parameters], "responses": answers}


def _texts(parameter: Parameter, path: Mapping[str, str], query: Sequence[tuple[str, str]]) -> list[str]:
    if parameter.place == "path":
        return [path[parameter.name]]
    return [value for name, value in query if name == parameter.name]


def _value(parameter: Parameter, given: Sequence[str]) -> Any:  # noqa: ANN401  # of the type that it reads
    if not given and parameter.is_required:
        raise UsageError(f"{parameter.name}: expected one")
    if len(given) > parameter.most:
        raise UsageError(f"{parameter.name}: expected no more than {parameter.most}")
    for text in given:
        if len(text) > LONGEST_VALUE:
            raise UsageError(f"{parameter.name}: longer than {LONGEST_VALUE} characters")
    try:
        values = [parameter.read(text) for text in given or filter(None, [parameter.usual])]
    except UsageError as error:
        raise UsageError(f"{parameter.name}: {error}") from None
    return values if parameter.most > 1 else next(iter(values), None)


def _described(parameter: Parameter) -> Schema:
    usual = {} if parameter.usual is None else {"default": parameter.usual}
    many = {"type": "array", "items": parameter.schema, "minItems": 1, "maxItems": parameter.most}
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.text,
        "required": parameter.is_required,
        "schema": (parameter.schema if parameter.most == 1 else many) | usual,
    }


def _answer(text: str, schema: Schema) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def document(routes: Sequence[Route], version: str) -> Schema:
    """The OpenAPI description of routes."""
    error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "telemetry", "version": version, "description": "What a fleet is and was; read-only."},
        "paths": {route.path.replace(":path}", "}"): {"get": route.described} for route in routes},
        "components": {"schemas": {"error": error}},
    }
