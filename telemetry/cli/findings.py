"""What `telemetry check` finds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: `ok`, `warn` or `fail`, and what to do about it."""

    status: str
    subject: str
    text: str
