"""The errors of the project: one base, and one child for each thing that a caller does differently.

The text of each is one line for a person: what was wrong, where, and what to do. None carries a secret.
"""


class TelemetryError(Exception):
    """Something that a person has to know; `telemetry` prints it as one line and ends with status 1."""

    exit_status = 1


class UsageError(TelemetryError):
    """A wrong option, setting or name: nothing was tried; `telemetry` ends with status 2."""

    exit_status = 2


class WireError(TelemetryError):
    """A message that is not what its topic promises: it is kept in `rejected` and the rest goes on."""


class SourceError(TelemetryError):
    """A reading that cannot be taken now: its fields are gone until it can."""


class StoreError(TelemetryError):
    """The database cannot be opened or is not ours to use: the process that needs it ends."""


class StoreBusyError(StoreError):
    """A commit that failed and may succeed later (disk full, read-only, locked): nothing of it was stored."""


class DamageError(StoreError):
    """A part of the history that cannot be read: it is told and left as it is, and the rest goes on."""
