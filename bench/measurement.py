"""What a measurement is given, and what it gives back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class BenchError(Exception):
    """A measurement could not be made; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How long to measure, after how long a warm-up, and an empty directory for whatever that writes."""

    seconds: float
    warm_up: float
    directory: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was measured: rows of text, the first of them the heading, figures by name, and what to know of them."""

    title: str
    rows: Sequence[Sequence[str]]
    figures: Mapping[str, float]
    notes: Sequence[str] = field(default_factory=tuple)


class Measurement(Protocol):
    """What the module of a measurement holds."""

    def measure(self, options: Options) -> list[Report]:
        """Measure it, and what belongs to it."""
