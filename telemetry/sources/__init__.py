"""Where readings come from: one file a source, each the only home of its third-party library.

A source knows its fields and how to read them once. When it runs, how long it may take and what becomes of the
values is the agent's business.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from telemetry.fields import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one sample gave: values by field name, and for each field that could not be read the reason."""

    values: Mapping[str, Value]
    problems: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """Something that can be sampled. `name` is its name in settings and log; `fields` are all that it may state."""

    @property
    def name(self) -> str:
        """The source's name."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that it reads."""

    def sample(self) -> Reading:
        """Read once. Raises SourceError when nothing of it can be read; may block: the caller has a deadline."""
