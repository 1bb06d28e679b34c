"""Tables and values as a person reads them: rich where it pays, plain aligned lines where there are many.

rich is imported where something for a terminal is made: loading it takes as long as reading a database.
"""

import re
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from telemetry.fields import Field, Member, ObjectList, Scalar, Value
from telemetry.stores.reading import is_served
from telemetry.units import Unit, format_number, number_formatter

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.table import Table
    from rich.text import Text

MOST_RICH_ROWS = 200
"""Above it a table is printed as plain lines: rich takes 7 s for 10,000 rows."""

_LEAST_FOLDED = 32

_UUID = re.compile(r"\b([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
"""Beside others in a line its first digits tell one from another; --json has all of them."""

STATE_STYLES = {"online": "green", "stale": "yellow", "stopped": "dim", "lost": "bold red"}


class Styled(NamedTuple):
    """A text with a style of rich's, which a terminal shows."""

    text: str
    style: str

    def __str__(self) -> str:
        return self.text


Cell = str | Styled


def console() -> "Console":
    """Standard output; colour only on a terminal."""
    from rich.console import Console  # noqa: PLC0415  # for a terminal only

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def state_text(state: str) -> Styled:
    """A netState in its colour."""
    return Styled(state, STATE_STYLES.get(state, ""))


def rich_text(cells: Iterable[Cell]) -> "Text":
    """Texts beside each other, for a terminal."""
    from rich.text import Text  # noqa: PLC0415  # for a terminal only

    return Text.assemble(*(cell if isinstance(cell, str) else (cell.text, cell.style) for cell in cells))


def print_line(*cells: Cell) -> None:
    """Print texts beside each other, coloured on a terminal."""
    if sys.stdout.isatty():
        console().print(rich_text(cells), soft_wrap=True)
    else:
        print("".join(map(str, cells)))


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
    first, where there is no room for them; where that does not help, lines are as long as they are.
    """
    if len(rows) > MOST_RICH_ROWS or not sys.stdout.isatty():
        _print_plain(headings, rows, right)
        return
    out = console()
    shown = _fitting(headings, rows, out.width, folds, list(spare))
    if shown is None:
        _print_plain(headings, rows, right)
        return
    kept = [heading for heading in headings if heading in shown]
    cells = [[cell for heading, cell in zip(headings, row, strict=True) if heading in shown] for row in rows]
    out.print(make_table(kept, cells, right=right, folds=folds))


def make_table(
    headings: Sequence[str], rows: Sequence[Sequence[Cell]], *, right: frozenset[str] = NONE, folds: str = ""
) -> "Table":
    """A table for a terminal."""
    from rich import box  # noqa: PLC0415  # for a terminal only
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    widths = _widths(headings, rows)
    for heading, width in zip(headings, widths, strict=True):
        least = None if heading == folds else width
        justify: JustifyMethod = "right" if heading in right else "left"
        table.add_column(heading, justify=justify, no_wrap=heading != folds, overflow="fold", min_width=least)
    for row in rows:
        # A mount or a host may be named so that rich would take it for its markup.
        table.add_row(*(rich_text([cell]) for cell in row))
    return table


def _fitting(
    headings: Sequence[str], rows: Sequence[Sequence[Cell]], room: int, folds: str, spare: list[str]
) -> set[str] | None:
    """The headings for which there is room, with three columns of space between two; None where there is none."""
    widths = dict(zip(headings, _widths(headings, rows), strict=True))
    shown = set(headings)
    if folds:
        widths[folds] = min(widths[folds], _LEAST_FOLDED)
    while spare and sum(widths[one] + 3 for one in shown) > room:
        shown.discard(spare.pop())
    return shown if sum(widths[one] + 3 for one in shown) <= room + 3 else None


def _widths(headings: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[int]:
    from rich.cells import cell_len  # noqa: PLC0415  # for a terminal only

    cells = zip(headings, *rows, strict=True)
    return [max(cell_len(line) for cell in column for line in str(cell).split("\n")) for column in cells]


def warn_if_idle(database: Path) -> None:
    """Say so when nobody keeps the database up to date: then what it shows is how things were."""
    if not is_served(database):
        print_line(Styled("no aggregator runs on this database: this is how things were", "yellow"))


def count_of(number: int, noun: str) -> str:
    """A number with its noun: `1 host`, `2 hosts`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _print_plain(headings: Sequence[str], rows: Sequence[Sequence[Cell]], right: frozenset[str]) -> None:
    cells = [list(map(str, column)) for column in zip(*rows, strict=True)] or [[] for _ in headings]
    if any("\n" in "".join(column) for column in cells):
        lines = (line for row in zip(*cells, strict=True) for line in _lines(row))
        cells = [list(column) for column in zip(*lines, strict=True)]
    columns = zip(headings, cells, strict=True)
    padded = [_padded([heading.replace("\n", " "), *column], is_right=heading in right) for heading, column in columns]
    sys.stdout.write("".join(["  ".join(line).rstrip() + "\n" for line in zip(*padded, strict=True)]))


def _lines(row: Sequence[str]) -> Iterable[Sequence[str]]:
    """A row whose cells take several lines, as lines."""
    return zip_longest(*(cell.split("\n") for cell in row), fillvalue="")


def _padded(column: Sequence[str], *, is_right: bool) -> list[str]:
    width = max(map(len, column))
    return [cell.rjust(width) for cell in column] if is_right else [cell.ljust(width) for cell in column]


def format_value(declared: Field | Member | None, value: Value | None) -> str:
    """A field's value with its unit; a list as one line an element."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        unit = declared.unit if declared else Unit.NONE
        return format_moment(value) if unit is Unit.UNIX_MILLISECONDS else format_number(value, unit)
    if isinstance(value, list):
        return _format_list(declared, value)
    if isinstance(value, dict):
        return "  ".join(f"{name or '?'} {format_value(None, one)}" for name, one in value.items()) or "none"
    return str(value)


def format_moment(unix_ms: float) -> str:
    """A time (Unix ms) as local time, to the second."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_ms // 1000))
    except (OverflowError, ValueError, OSError):
        return f"{unix_ms} ms"


def format_column(declared: Field, values: Sequence[Value | None]) -> list[str]:
    """The values of one field, of many records."""
    if declared.unit is Unit.UNIX_MILLISECONDS or declared.type not in {Scalar.INTEGER, Scalar.NUMBER}:
        return [format_value(declared, value) for value in values]
    write = number_formatter(declared.unit)
    # Many are alike, such as loads.
    texts = {value: "-" if value is None else write(value) for value in set(values)}  # type: ignore[arg-type]  # numbers
    return [texts[value] for value in values]


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
