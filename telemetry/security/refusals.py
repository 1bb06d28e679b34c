"""What Mosquitto refused, made visible: it tells of that in debug lines only, among those of every packet.

A process beside the broker reads its lines, and passes on what is for a person: errors, and each refused act once a
minute. It never makes the broker wait: what it does not read in time is dropped. Should it die, another one goes on.
"""

import contextlib
import fcntl
import logging
import os
import re
import resource
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import orjson

from telemetry.access import User, rules_of
from telemetry.security.files import write_private
from telemetry.topics import Topics

_log = logging.getLogger(__name__)

REFUSED = "refused.json"
"""In the broker's directory: what was refused since it started, for `telemetry check`."""

CHECK = "check"
"""How the level of a topic begins by which `telemetry check` tries what is forbidden."""

_OF_CHECK = re.compile(rf"/{CHECK}\.[0-9a-f]{{8}}(/|$)")
_DENIED = re.compile(r"Denied PUBLISH from (\S+) \(.*?, '(.*)', \.\.\.")
_CONNECTED = re.compile(r"New client connected from (\S+) as (\S+) \(")
_REFUSED = re.compile(r"Sending CONNACK to (\S+) \(\d+, (?:4|5|134|135)\)")
_TAKEN = re.compile(r"Client (\S+) already connected, closing old connection")
_FULL = re.compile(r"Client connection from \S+ denied|Unable to accept new connection")
_SUBSCRIBE = re.compile(r"Received SUBSCRIBE from (\S+)")
_FILTER = re.compile(r"\t(.*) \(QoS \d\)")

_ROUTINE = (
    "New connection from", "No will message", "Sending ", "Received ", "Client ", "\t", "Config loaded", "Opening ",
    "mosquitto version", "Saving in-memory", "Reloading config", "Note:", "New client connected", "Will message",
)  # fmt: skip
_ABRUPT = "unexpected eof while reading"
"""Who dies says no goodbye to TLS."""

_EVERY_PACKET = (b"Received PUBLISH", b"Sending PUBLISH", b"PUBACK", b"PING")

_BY_CHECK = "tries what it may not, as `telemetry check` does"

_TELL_AGAIN = 60.0
_MOST_TOLD = 1000
_GATHER, _RESTART = 0.05, 1.0
_PIPE_SIZE = 1 << 20
_LOG_TYPES = ("notice", "debug")


class Refusals:
    """Takes Mosquitto's lines, without their times, and says what a person should know. `now`: seconds, monotonic.

    `counts` are what was refused before, most often, and `total` of all.
    """

    def __init__(self, topics: Topics, counts: Mapping[str, int] | None = None, total: int = 0) -> None:
        self._topics = topics
        self._client, self._has_will, self._subscriber = "", False, ""
        self._told: dict[str, float] = {}
        self._untold: Counter[str] = Counter()
        self.counts: Counter[str] = Counter(counts)
        self.total = total

    def take(self, line: str, now: float) -> Iterator[str]:
        """What one line says, if anything."""
        refused = self._refused(line)
        if refused is not None and refused.endswith(_BY_CHECK):
            # Said, but not counted: otherwise each look at how things are would make them look worse.
            self._untold[refused] += 1
            yield from self._tell(refused, now)
        elif refused is not None:
            self.total += 1
            self.counts[refused] += 1
            if len(self.counts) > _MOST_TOLD:
                # A flood of topics shall not fill the memory.
                del self.counts[refused]
                refused, _, _ = refused.partition(" ")
                self.counts[refused] += 1
            self._untold[refused] += 1
            yield from self._tell(refused, now)
        elif (taken := _TAKEN.match(line)) is not None:
            yield f"{taken[1]}: another connection of this user took the place of the first"
        elif line.strip() and not line.startswith(_ROUTINE) and _ABRUPT not in line:
            yield line

    def tell_rest(self, now: float) -> Iterator[str]:
        """What was refused again since it was told, once that is a minute ago."""
        for refused in list(self._untold):
            yield from self._tell(refused, now)

    def _tell(self, refused: str, now: float) -> Iterator[str]:
        if now < self._told.get(refused, -_TELL_AGAIN) + _TELL_AGAIN:
            return
        number = self._untold.pop(refused)
        self._told[refused] = now
        yield f"REFUSED {refused}" + (f" ({number} times)" if number > 1 else "")

    def _refused(self, line: str) -> str | None:
        has_will, self._has_will = self._has_will, line.startswith("Will message specified")
        if (connected := _CONNECTED.match(line)) is not None:
            self._client = connected[2]
        elif (subscribe := _SUBSCRIBE.match(line)) is not None:
            self._subscriber = subscribe[1]
        elif (denied := _DENIED.match(line)) is not None:
            return f"{denied[1]} {_BY_CHECK if _OF_CHECK.search(denied[2]) else f'publishes to {denied[2]}'}"
        elif (login := _REFUSED.match(line)) is not None:
            return f"{login[1]} connects with a wrong user name or password"
        elif _FULL.match(line) is not None:
            return "a connection beyond those that it takes: see broker.connections"
        elif has_will and line.startswith("\t") and not self._may(self._client, "write", line[1:]):
            return f"{self._client} leaves a will on {line[1:]}"
        elif (wanted := _FILTER.fullmatch(line)) is not None and not self._may(self._subscriber, "read", wanted[1]):
            # Mosquitto grants the subscription, and delivers nothing.
            return f"{self._subscriber} subscribes to {wanted[1]}"
        return None

    def _may(self, name: str, access: str, wanted: str) -> bool:
        user = User.parse(name)
        return user is not None and any(rule.allows(access, wanted) for rule in rules_of(user, self._topics))


def log_types() -> str:
    """What Mosquitto has to log for it."""
    return "".join(f"log_type {one}\n" for one in _LOG_TYPES)


def watch_own_errors(directory: Path, topics: Topics, give_up_root: Callable[[], None]) -> None:
    """Let a process beside this one read what this one writes to standard error from now on, as Mosquitto too."""
    receiver, sender = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(receiver, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    if os.fork() == 0:
        try:
            os.dup2(receiver, 0)
            # Nothing of the broker may be held open, least of all the lock on its directory.
            os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            # Written once as root: what that imports may be out of reach for Mosquitto's user.
            _keep(directory, Refusals(topics))
            give_up_root()
            _watch_on(directory, topics)
        finally:
            os._exit(0)
    os.set_blocking(sender, False)
    os.dup2(sender, 2)
    os.close(sender)
    os.close(receiver)


def _watch_on(directory: Path, topics: Topics) -> None:
    """Have a process read what comes until the broker ends, and another one, should it die before."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # It ends with the broker, whose last words are for it.
        signal.signal(number, signal.SIG_IGN)
    while True:
        reader = os.fork()
        if reader == 0:
            try:
                _watch(0, directory, _kept(directory, topics))
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(reader, 0)
        if status == 0:
            return
        _print(["the reader of its log died; another one goes on"])
        time.sleep(_RESTART)


def _watch(receiver: int, directory: Path, refusals: Refusals) -> None:
    rest, kept = b"", refusals.total
    while True:
        readable, _, _ = select.select([receiver], [], [], _TELL_AGAIN / 4)
        chunk = os.read(receiver, _PIPE_SIZE) if readable else None
        now = time.monotonic()
        if chunk == b"":
            return
        *lines, rest = (rest + (chunk or b"")).split(b"\n")
        for line in lines:
            if not any(word in line for word in _EVERY_PACKET) or b"Denied" in line:
                _print(refusals.take(_without_time(line.decode(errors="replace")), now))
        _print(refusals.tell_rest(now))
        if refusals.total != kept:
            kept = refusals.total
            _keep(directory, refusals)
        # More at once costs less than one line after another.
        time.sleep(_GATHER)


def _without_time(line: str) -> str:
    time_of_day, separator, text = line.partition(": ")
    return text if separator and time_of_day.replace(":", "").isdigit() else line


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        _log.log(logging.ERROR if line.startswith("Error") else logging.WARNING, "%s", line)


def _kept(directory: Path, topics: Topics) -> Refusals:
    """What goes on counting where another reader of the log ended."""
    with contextlib.suppress(OSError, orjson.JSONDecodeError):
        kept = orjson.loads((directory / REFUSED).read_text())
        return Refusals(topics, kept["acts"], kept["total"])
    return Refusals(topics)


def _keep(directory: Path, refusals: Refusals) -> None:
    kept = {"total": refusals.total, "acts": dict(refusals.counts.most_common(20))}
    with contextlib.suppress(OSError):
        write_private(directory / REFUSED, orjson.dumps(kept).decode(), owner=directory.stat())
