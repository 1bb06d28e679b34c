"""Values with changed flags: what an agent holds between sampling and publishing."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from telemetry.fields import Deadband, Field, Value, differs


class Taken(NamedTuple):
    """What has to be reported: the changed values, and the names of those that cannot be read any more."""

    values: dict[str, Value]
    gone: tuple[str, ...]


class FlaggedValues:
    """The current values of some fields, each flagged while it differs from what was last taken.

    A deadband compares with the value last taken, not with the last sample, so that slow drift is not lost.
    `deadbands` replaces the declared ones, by field name.
    """

    def __init__(self, fields: Mapping[str, Field], deadbands: Mapping[str, Deadband] | None = None) -> None:
        self._fields = fields
        self._current: dict[str, Value] = {}
        self._taken: dict[str, Value] = {}
        self._flagged: set[str] = set()
        self.replace_deadbands(deadbands or {})

    @property
    def changed(self) -> bool:
        """Whether anything is flagged."""
        return bool(self._flagged)

    @property
    def taken(self) -> Mapping[str, Value]:
        """What the reader holds: the values last taken. A full report carries these."""
        return self._taken

    def replace_deadbands(self, deadbands: Mapping[str, Deadband]) -> None:
        """Go by other deadbands from now on, as to what is not taken yet too."""
        given = {name: deadband for name, deadband in deadbands.items() if name in self._fields}
        self._deadbands = {name: field.deadband for name, field in self._fields.items()} | given
        self.update(dict(self._current))

    def update(self, values: Mapping[str, Value]) -> None:
        """Take in sampled values."""
        for name, value in values.items():
            self._current[name] = value
            self._flag(name, changed=name not in self._taken or self._differs(name, value))

    def lose(self, names: Iterable[str]) -> None:
        """Note that some fields cannot be read any more."""
        for name in names:
            self._current.pop(name, None)
            self._flag(name, changed=name in self._taken)

    def take(self) -> Taken:
        """What is flagged; the flags are cleared. Call it only where what it returns is certain to be kept."""
        flagged = [name for name in self._fields if name in self._flagged]
        values = {name: self._current[name] for name in flagged if name in self._current}
        gone = tuple(name for name in flagged if name not in self._current)
        self._taken.update(values)
        for name in gone:
            del self._taken[name]
        self._flagged.clear()
        return Taken(values, gone)

    def _differs(self, name: str, value: Value) -> bool:
        return differs(self._fields[name].type, self._deadbands[name], self._taken[name], value)

    def _flag(self, name: str, *, changed: bool) -> None:
        if changed:
            self._flagged.add(name)
        else:
            self._flagged.discard(name)
