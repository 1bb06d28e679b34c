"""Tables and values as a person reads them: rich where it pays, plain aligned lines where there are many."""

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from telemetry.fields import Field, Member, ObjectList, Value
from telemetry.stores.reading import is_served
from telemetry.units import Unit, format_number

MOST_RICH_ROWS = 200
"""Above it a table is printed as plain lines: rich takes 7 s for 10,000 rows."""

_LEAST_FOLDED = 32

_UUID = re.compile(r"\b([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
"""Beside others in a line its first digits tell one from another; --json has all of them."""

STATE_STYLES = {"online": "green", "stale": "yellow", "stopped": "dim", "lost": "bold red"}

Cell = str | Text


def console() -> Console:
    """Standard output; colour only on a terminal."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def state_text(state: str) -> Text:
    """A netState in its colour."""
    return Text(state, style=STATE_STYLES.get(state, ""))


NONE: frozenset[str] = frozenset()


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    right: frozenset[str] = NONE,
    folds: str = "",
    spare: Sequence[str] = (),
) -> None:
    """Print rows below their headings; columns in `right` are aligned to the right.

    On a terminal nothing is cut: the column `folds` takes more lines, and those in `spare` are left out, the last
    first, where there is no room for them.
    """
    if len(rows) > MOST_RICH_ROWS or not sys.stdout.isatty():
        _print_plain(headings, rows, right)
        return
    out = console()
    shown = _fitting(headings, rows, out.width, folds, list(spare))
    kept = [heading for heading in headings if heading in shown]
    cells = [[cell for heading, cell in zip(headings, row, strict=True) if heading in shown] for row in rows]
    out.print(make_table(kept, cells, right=right, folds=folds))


def make_table(
    headings: Sequence[str], rows: Sequence[Sequence[Cell]], *, right: frozenset[str] = NONE, folds: str = ""
) -> Table:
    """A table for a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    widths = _widths(headings, rows)
    for heading, width in zip(headings, widths, strict=True):
        least = None if heading == folds else width
        justify: JustifyMethod = "right" if heading in right else "left"
        table.add_column(heading, justify=justify, no_wrap=heading != folds, overflow="fold", min_width=least)
    for row in rows:
        # A mount or a host may be named so that rich would take it for its markup.
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def _fitting(
    headings: Sequence[str], rows: Sequence[Sequence[Cell]], room: int, folds: str, spare: list[str]
) -> set[str]:
    """The headings for which there is room, with three columns of space between two."""
    widths = dict(zip(headings, _widths(headings, rows), strict=True))
    shown = set(headings)
    if folds:
        widths[folds] = min(widths[folds], _LEAST_FOLDED)
    while spare and sum(widths[one] + 3 for one in shown) > room:
        shown.discard(spare.pop())
    return shown


def _widths(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[int]:
    cells = zip(headings, *rows, strict=True)
    return [max(cell_len(line) for cell in column for line in str(cell).split("\n")) for column in cells]


def warn_if_idle(database: Path) -> None:
    """Say so when nobody keeps the database up to date: then what it shows is how things were."""
    if not is_served(database):
        console().print("no aggregator runs on this database: this is how things were", style="yellow")


def count_of(number: int, noun: str) -> str:
    """A number with its noun: `1 host`, `2 hosts`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


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
        unit = declared.unit if declared else Unit.NONE
        return _format_moment(value) if unit is Unit.UNIX_MILLISECONDS else format_number(value, unit)
    if isinstance(value, list):
        return _format_list(declared, value)
    if isinstance(value, dict):
        return "  ".join(f"{name or '?'} {format_value(None, one)}" for name, one in value.items()) or "none"
    return str(value)


def _format_moment(unix_ms: float) -> str:
    try:
        return datetime.fromtimestamp(unix_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{unix_ms} ms"


def _format_list(declared: Field | Member | None, value: list[Any]) -> str:
    if isinstance(declared, Field) and isinstance(declared.type, ObjectList):
        members = declared.type.by_name
        lines = [
            "  ".join(_format_member(members.get(name), name, one) for name, one in entry.items()) for entry in value
        ]
        return "\n".join(lines) or "none"
    return " ".join(str(one) for one in value) or "none"


def _format_member(member: Member | None, name: str, value: Value) -> str:
    text = _UUID.sub(r"\1", format_value(member, value))
    return text if isinstance(value, str) else f"{name} {text}"
