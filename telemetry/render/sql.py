"""The declaration as columns, and values as what SQLite holds in them."""

from collections.abc import Mapping, Sequence

import orjson

from telemetry.fields import Field, Record, Scalar, Value

SqlValue = str | int | float | None

TIME_COLUMN = "_time"
"""When the newest value of the row was sampled, Unix milliseconds."""

STATE_COLUMN = "_state"
"""JSON: at which position each field is held. The aggregator's own."""

_COLUMN_TYPES = {Scalar.STRING: "TEXT", Scalar.INTEGER: "INTEGER", Scalar.NUMBER: "REAL", Scalar.BOOLEAN: "INTEGER"}


def columns(record: Record) -> Mapping[str, str]:
    """The columns of a record's table with their types, in order; lists are JSON text."""
    declared = {field.name: _column_type(field) for field in record.fields}
    return declared | {TIME_COLUMN: "INTEGER", STATE_COLUMN: "TEXT"}


def to_sql(value: Value | None) -> SqlValue:
    """A field's value as its column holds it."""
    if isinstance(value, list | dict):
        return orjson.dumps(value).decode()
    return value


def from_sql(field: Field, held: SqlValue) -> Value | None:
    """A field's value from its column; None when it is gone."""
    if held is None or field.type in {Scalar.STRING, Scalar.INTEGER, Scalar.NUMBER}:
        return held
    if field.type is Scalar.BOOLEAN:
        return bool(held)
    value: Value = orjson.loads(str(held))
    return value


def column_from_sql(field: Field, held: Sequence[SqlValue]) -> Sequence[Value | None]:
    """The values of many records from their column."""
    if field.type in {Scalar.STRING, Scalar.INTEGER, Scalar.NUMBER}:
        return held
    return [from_sql(field, one) for one in held]


def _column_type(field: Field) -> str:
    return _COLUMN_TYPES[field.type] if isinstance(field.type, Scalar) else "TEXT"
