"""A record as a person sees it: one table of its fields."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from telemetry.cli.tables import Cell, Styled, format_value, make_table, rich_text, state_text
from telemetry.fields import Value
from telemetry.topics import RecordKey
from telemetry.units import format_age

if TYPE_CHECKING:
    from rich.console import RenderableType


def record_rows(key: RecordKey, fields: Mapping[str, Value]) -> list[tuple[Cell, Cell]]:
    """The record's fields in their declared order, then those that a newer agent added."""
    declared = key.record.by_name
    names = [name for name in declared if name in fields and name not in key.fields]
    names += [name for name in fields if name not in declared]
    return [(name, format_value(declared.get(name), fields[name])) for name in names]


def record_title(key: RecordKey, fields: Mapping[str, Value], time_ms: int) -> list[Cell]:
    """The record's key, its state, and how long ago a value of it changed."""
    state = str(fields.get("netState", ""))
    age = format_age(time.time() - time_ms / 1000) if time_ms else "never"
    return [Styled(str(key), "bold"), "  ", state_text(state), f"  changed {age} ago"]


def record_view(key: RecordKey, fields: Mapping[str, Value], time_ms: int) -> "RenderableType":
    """The record as one table below its title."""
    from rich.console import Group  # noqa: PLC0415  # for a terminal only

    title = rich_text(record_title(key, fields, time_ms))
    return Group(title, make_table(("FIELD", "VALUE"), record_rows(key, fields), folds="VALUE"))
