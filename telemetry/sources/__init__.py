"""Where readings come from: one file a source, each the only home of its third-party library.

A source knows its fields and how to read them once. When it runs, how long it may take and what becomes of the
values is the agent's business.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from telemetry.errors import SourceError
from telemetry.fields import Value


class WithheldError(SourceError):
    """Nothing can be read for a reason that another source tells already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one sample gave: values by field name, and for each field that could not be read the reason.

    `hosts` has the values of the worker hosts by the host's name, all hosts that there are; None when they could not
    be read, or are not what the source reads.
    """

    values: Mapping[str, Value]
    problems: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, Mapping[str, Value]] | None = None


class Source(Protocol):
    """Something that can be sampled. `name` is its name in settings and log.

    `fields` are all that it may state of its agent's own record, `host_fields` of every worker host's.
    """

    @property
    def name(self) -> str:
        """The source's name."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that it reads."""

    @property
    def host_fields(self) -> tuple[str, ...]:
        """The names of the fields that it reads of worker hosts; most sources read none."""

    def sample(self) -> Reading:
        """Read once. Raises SourceError when nothing of it can be read; may block: the caller has a deadline."""


def unread(source: Source, reason: str | None) -> Reading:
    """What is known when nothing of a source could be read; without a reason another source tells that."""
    problems = {} if reason is None else dict.fromkeys((*source.fields, *source.host_fields), reason)
    return Reading(values={}, problems=problems)
