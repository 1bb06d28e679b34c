"""What a release of Lotus can and cannot yet do, by the release that brought it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

VERSIONS = ("1.13.0", "1.17.0", "1.23.3", "1.26.0", "1.36.1")
"""Releases that differ from each other in what an agent sees."""

SINCE: Mapping[str, tuple[int, int, int]] = {
    "subsystems": (1, 12, 0),
    "prepared": (1, 13, 1),
    "resources": (1, 13, 2),
    "snap": (1, 14, 0),
    "tasks": (1, 15, 2),
    "task counts": (1, 17, 0),
    "sched id": (1, 17, 1),
    "start time": (1, 19, 0),
    "import": (1, 20, 0),
    "batch": (1, 23, 3),
    "precommit batch": (1, 24, 0),
    "summary in memory": (1, 25, 2),
    "commit aggregate": (1, 26, 0),
    "result always": (1, 27, 1),
    "actor error 3": (1, 28, 0),
    "agent": (1, 30, 0),
    "daily fee": (1, 32, 1),
    "vesting inline": (1, 32, 1),
    "actor error 11": (1, 32, 2),
}

_NETWORK_VERSIONS = (((1, 36, 0), 27), ((1, 26, 0), 22), ((1, 23, 0), 20), ((1, 17, 0), 16), ((0, 0, 0), 14))


@dataclass(frozen=True, slots=True)
class Version:
    """A release."""

    text: str

    @property
    def number(self) -> tuple[int, ...]:
        """Its three numbers, comparable."""
        return tuple(int(part) for part in re.findall(r"\d+", self.text)[:3])

    def has(self, feature: str) -> bool:
        """Whether the release has it; the empty feature is in all."""
        return not feature or self.number >= SINCE[feature]

    @property
    def network(self) -> int:
        """The network version in force in its time."""
        return next(network for since, network in _NETWORK_VERSIONS if self.number >= since)
