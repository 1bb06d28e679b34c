"""A Lotus on two free ports of the loopback interface: a miner and a full node over one world.

    clock = SteppedClock(1_700_000_000)
    with Lotus("busy", clock=clock) as lotus:
        ...                                     # POST to lotus.miner.url with lotus.miner.token
        clock.advance(60)                       # the next request meets the world a minute later
        lotus.miner.faults = Faults(hang=True)

Each request lets the world go on to the moment of the clock.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Event, RLock, Thread
from types import TracebackType
from typing import Self

from telemetry.simulate.faults import Faults
from telemetry.simulate.protocol import PERMISSIONS
from telemetry.simulate.scenario import SCENARIOS, Role, Scenario
from telemetry.simulate.service import PATHS, Reply, Service, Tokens, method_names
from telemetry.simulate.sockets import Server
from telemetry.simulate.versions import VERSIONS
from telemetry.simulate.world import World

_WATCH_SECONDS = 0.1
_READY_EPOCHS = 5


class SteppedClock:
    """A clock that stands still until somebody advances it."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        """Tell the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class Endpoint:
    """One role of a Lotus: where it answers, to whom, and what it does wrong."""

    def __init__(self, lotus: "Lotus", role: Role) -> None:
        self.role = role
        self._lotus = lotus
        self._tokens = Tokens(f"{role} {lotus.world.session}")
        self._service = Service(role, lotus.world, self._tokens)
        self._changed = Condition(RLock())
        self._faults, self._closed, self._calls = Faults(), False, Counter[str]()
        self._server: Server | None = Server(self, 0)
        self.port = self._server.port

    @property
    def token(self) -> str:
        """The token of an admin, as in the repo."""
        return self._tokens.token()

    @property
    def read_token(self) -> str:
        """A token that may only read."""
        return self._tokens.token(1)

    @property
    def url(self) -> str:
        """Where to POST to: the newest path of the role."""
        return f"http://127.0.0.1:{self.port}{list(PATHS[self.role])[-1]}"

    @property
    def address(self) -> str:
        """The multiaddr, as in the repo's file `api`."""
        return f"/ip4/127.0.0.1/tcp/{self.port}/http"

    @property
    def api_info(self) -> str:
        """The value of MINER_API_INFO or FULLNODE_API_INFO."""
        return f"{self.token}:{self.address}"

    # --- faults ---

    @property
    def faults(self) -> Faults:
        """What it does wrong: what has been set, or else what the scenario has for it now."""
        return self._faults if self._faults != Faults() else self._lotus.scheduled(self.role)

    @faults.setter
    def faults(self, faults: Faults) -> None:
        with self._changed:
            self._faults = faults
            self.settle()

    def heal(self) -> None:
        """Do nothing wrong any more, but what the scenario says."""
        self.faults = Faults()

    def restart(self, down_seconds: float = 0.0) -> None:
        """Let the process of the role end and start anew, at the same port."""
        self.faults = Faults(refuse=True)
        with self._lotus.changing() as world:
            self._service.session, self._service.started = world.uuid(), world.now
            if self.role == "miner":
                world.restart_miner()
        self.wait(down_seconds, lambda: False)
        self.heal()

    def settle(self) -> None:
        """Listen, or listen no more, as the faults say; wake those who wait for a change of them."""
        with self._changed:
            self._changed.notify_all()
            if self.faults.refuse or self._closed:
                self._stop_listening()
            elif self._server is None:
                self._server = Server(self, self.port)

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.end()
            self._server = None

    def wait(self, seconds: float | None, until: Callable[[], bool]) -> None:
        """Wait for a change of the faults, so long at most; also for the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or until(), seconds)

    def close(self) -> None:
        """Let all who wait go, and listen no more."""
        with self._changed:
            self._closed = True
            self.settle()

    # --- answers ---

    @property
    def calls(self) -> Counter[str]:
        """How often each method was called, whatever came of it."""
        with self._changed:
            return Counter(self._calls)

    def forget_calls(self) -> None:
        """Count anew."""
        with self._changed:
            self._calls.clear()

    def count(self, body: bytes) -> set[str]:
        """Count the methods that a request calls, and name them."""
        names = method_names(body)
        with self._changed:
            self._calls.update(names)
        return set(names)

    def post(self, path: str, token: str | None, body: bytes) -> Reply:
        """What a request gets when no fault befalls its answer."""
        faults = self.faults
        if path not in PATHS[self.role]:
            return Reply(status=404, body=b"404 page not found\n", content_type="text/plain; charset=utf-8")
        allowed = PERMISSIONS[:1] if token is None else self._tokens.allowed(token)
        if allowed is None or faults.unauthorized:
            return Reply(status=401)
        with self._lotus.changing():
            return self._service.reply(path, PERMISSIONS[:1] if faults.no_admin else allowed, body, faults)

    def get(self, path: str) -> Reply:
        """What the full node tells of its health."""
        with self._lotus.changing() as world:
            ready = world.behind < _READY_EPOCHS
        status = {"/health/livez": 200, "/health/readyz": 200 if ready else 503} if self.role == "full" else {}
        return Reply(status=status.get(path, 404), content_type="text/plain; charset=utf-8")


class Lotus:
    """A miner and a full node over one world."""

    def __init__(
        self,
        scenario: Scenario | str = "quiet",
        *,
        seed: int = 0,
        version: str = VERSIONS[-1],
        speed: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.scenario = SCENARIOS[scenario] if isinstance(scenario, str) else scenario
        self.clock = clock
        self.world = self.scenario.world(start=clock(), seed=seed, version=version, speed=speed)
        self._lock = RLock()
        self.miner, self.full = Endpoint(self, "miner"), Endpoint(self, "full")
        self._ended = Event()
        if self.scenario.outages:
            Thread(target=self._watch, name="lotus scenario", daemon=True).start()

    @contextmanager
    def changing(self) -> Iterator[World]:
        """The world as it is now, for one who would change it or look at it."""
        with self._lock:
            self.world.advance(self.clock())
            yield self.world

    def scheduled(self, role: Role) -> Faults:
        """What the scenario has a role do wrong now."""
        return self.scenario.faults(role, (self.clock() - self.world.origin) * self.world.speed)

    def _watch(self) -> None:
        while not self._ended.wait(_WATCH_SECONDS):
            self.miner.settle()
            self.full.settle()

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables by which Lotus' own tools find it."""
        return {"MINER_API_INFO": self.miner.api_info, "FULLNODE_API_INFO": self.full.api_info}

    def write_repos(self, directory: Path) -> Mapping[str, str]:
        """Write the repos of both; gives the variables that name them."""
        found = {"LOTUS_MINER_PATH": (directory / "miner", self.miner), "LOTUS_PATH": (directory / "full", self.full)}
        for repo, endpoint in found.values():
            (repo / "datastore").mkdir(parents=True)
            (repo / "keystore").mkdir()
            (repo / "api").write_text(endpoint.address)
            (repo / "token").write_text(endpoint.token)
            (repo / "token").chmod(0o600)
        return {variable: str(repo) for variable, (repo, _) in found.items()}

    def close(self) -> None:
        """End both."""
        self._ended.set()
        self.miner.close()
        self.full.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
