"""Reports as aligned text."""

from collections.abc import Sequence
from itertools import zip_longest

from bench.measurement import Report


def text_of(report: Report) -> str:
    """A report as it is printed."""
    notes = "".join(f"- {note}\n" for note in report.notes)
    return f"{report.title}\n\n{aligned(report.rows)}\n{notes}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows with their columns aligned: the first to the left, the others, which are numbers, to the right."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    return "".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=False)
    cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return "  ".join(cells).rstrip() + "\n"


def number(value: float | None) -> str:
    """A figure to three digits; a dash for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
