"""What the spools of a fleet took is known outside of it: told line by line, through a pipe that outlives kill -9.

A line is a JSON object: `start` (a process began), `try` (rows go to a spool), `kept` and `memory` (it took them, on
disk or in memory only), `safe` (what was in memory alone is on disk now), `held` (the last values of a host).
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from telemetry.agent.spool import SpoolFile
from telemetry.spooling import Row
from telemetry.topics import AgentKey
from telemetry.wire import decode_change, with_epoch

Position = tuple[int, int]
Tell = Callable[..., None]


def digest_of(time: int, *, full: bool, values: Mapping[str, Any], gone: Sequence[str]) -> str:
    """A text that stands for what a change says."""
    said = json.dumps([time, full, dict(values), list(gone)], sort_keys=True)
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


def teller(descriptor: int) -> Tell:
    """Writes a line at once and whole; the process ends where nobody listens any more."""
    lock = threading.Lock()

    def tell(act: str, host: str, **more: object) -> None:
        line = json.dumps({"act": act, "host": host, **more}).encode() + b"\n"
        with lock:
            try:
                while line:
                    line = line[os.write(descriptor, line) :]
            except OSError:
                os._exit(4)

    return tell


class ToldSpool(SpoolFile):
    """A spool that tells what it is given, and afterwards what it has taken."""

    def __init__(self, directory: Path, key: AgentKey, *, time_ms: int, tell: Tell) -> None:
        self._tell_oracle, self._told_host = tell, key.agent
        self._in_memory_alone = False
        super().__init__(directory, key, time_ms=time_ms)

    def append(self, rows: Sequence[Row]) -> bool:
        told = [(row.epoch, row.seq, _digest(row)) for row in rows]
        self._tell_oracle("try", self._told_host, rows=told)
        if not super().append(rows):
            return False
        if self._memory is not None:
            self._in_memory_alone = True
            self._tell_oracle("memory", self._told_host, rows=told)
            return True
        self._tell_oracle("kept", self._told_host, rows=told)
        if self._in_memory_alone:
            self._in_memory_alone = False
            self._tell_oracle("safe", self._told_host)
        return True


def _digest(row: Row) -> str:
    """Of what the history will hold of it; empty for a heartbeat, of which it holds nothing."""
    change = decode_change(with_epoch(row.epoch, row.kept))
    if not (change.values or change.gone or change.full):
        return ""
    return digest_of(change.time, full=change.full, values=change.values, gone=change.gone)


@dataclass
class HostOracle:
    """What is known of one agent. `required` has to be in the history, nothing else than `tried` may be."""

    tried: dict[Position, str] = field(default_factory=dict)
    required: set[Position] = field(default_factory=set)
    in_memory: set[Position] = field(default_factory=set)
    excused: set[Position] = field(default_factory=set)
    held: dict[str, Any] | None = None
    episodes: int = 0


class Oracle:
    """What all agents of a fleet told; lines come in from several threads."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = {host: HostOracle() for host in hosts}
        self._lock = threading.Lock()

    def take(self, line: bytes) -> None:
        """Take in a line. The last one before a kill may be cut off: what it would have told is not known."""
        try:
            told = json.loads(line)
        except ValueError:
            return
        with self._lock:
            _apply(self._hosts[told["host"]], told)

    def hosts(self) -> dict[str, HostOracle]:
        """What is known now."""
        with self._lock:
            return {
                host: HostOracle(
                    dict(one.tried), set(one.required), set(one.in_memory), set(one.excused), one.held, one.episodes
                )
                for host, one in self._hosts.items()
            }

    @property
    def episodes(self) -> int:
        """How often a spool went to memory."""
        return sum(one.episodes for one in self.hosts().values())

    @property
    def excused(self) -> int:
        """Agents of which a process was killed with messages in memory alone."""
        return sum(bool(one.excused) for one in self.hosts().values())


def _apply(host: HostOracle, told: dict[str, Any]) -> None:
    rows = {(epoch, seq): digest for epoch, seq, digest in told.get("rows", ())}
    speaking = {position for position, digest in rows.items() if digest}
    match told["act"]:
        case "start":
            # The process before this one was killed: what it had in memory alone may be lost.
            host.excused |= host.in_memory
            host.required -= host.in_memory
            host.in_memory.clear()
        case "try":
            host.tried |= rows
        case "kept":
            host.required |= speaking
        case "memory":
            host.episodes += not host.in_memory
            host.required |= speaking
            # A heartbeat too: it tells that the process works in memory.
            host.in_memory |= rows.keys()
        case "safe":
            host.in_memory.clear()
        case "held":
            host.held = told["values"]
