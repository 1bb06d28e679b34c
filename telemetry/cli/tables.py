"""Tables and values as a person reads them: rich where it pays, plain aligned lines where there are many."""

import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from telemetry.fields import Field, Member, ObjectList, Value
from telemetry.units import Unit, format_number

MOST_RICH_ROWS = 200
"""Above it a table is printed as plain lines: rich takes 7 s for 10,000 rows."""

STATE_STYLES = {"online": "green", "stale": "yellow", "stopped": "dim", "lost": "bold red"}

Cell = str | Text


def console() -> Console:
    """Standard output; colour only on a terminal."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def state_text(state: str) -> Text:
    """A netState in its colour."""
    return Text(state, style=STATE_STYLES.get(state, ""))


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[Cell]], *, right: frozenset[str] = frozenset()
) -> None:
    """Print rows below their headings; columns named in `right` are aligned to the right."""
    if len(rows) > MOST_RICH_ROWS or not sys.stdout.isatty():
        _print_plain(headings, rows, right)
    else:
        console().print(make_table(headings, rows, right=right))


def make_table(
    headings: Sequence[str], rows: Sequence[Sequence[Cell]], *, right: frozenset[str] = frozenset()
) -> Table:
    """A table for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", no_wrap=True)
    for row in rows:
        # A mount or a host may be named so that rich would take it for its markup.
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def _print_plain(headings: Sequence[str], rows: Sequence[Sequence[Cell]], right: frozenset[str]) -> None:
    lines = [tuple(headings), *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    padded = [str.rjust if heading in right else str.ljust for heading in headings]
    out = sys.stdout
    for line in lines:
        cells = (pad(cell, width) for pad, cell, width in zip(padded, line, widths, strict=True))
        out.write("  ".join(cells).rstrip() + "\n")


def format_value(declared: Field | Member | None, value: Value | None) -> str:
    """A field's value with its unit; a list as one line an element."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return format_number(value, declared.unit if declared else Unit.NONE)
    if isinstance(value, list):
        return _format_list(declared, value)
    return str(value)


def _format_list(declared: Field | Member | None, value: list[Any]) -> str:
    if isinstance(declared, Field) and isinstance(declared.type, ObjectList):
        members = declared.type.by_name
        lines = [
            "  ".join(_format_member(members.get(name), name, one) for name, one in entry.items()) for entry in value
        ]
        return "\n".join(lines) or "none"
    return " ".join(str(one) for one in value) or "none"


def _format_member(member: Member | None, name: str, value: Value) -> str:
    text = format_value(member, value)
    return text if isinstance(value, str) else f"{name} {text}"
