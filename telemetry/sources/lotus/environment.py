"""Whether the Lotus of this machine can be used: looked at before anything is asked of it, and at each new session.

What is wrong is a state with a reason, never an end: it is looked at again until it is right.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from telemetry.errors import SourceError, UsageError
from telemetry.sources import WithheldError
from telemetry.sources.lotus.answers import (
    ChainHead,
    MinerInfo,
    Version,
    decode_actor_address,
    decode_auth_verify,
    decode_chain_head,
    decode_log_alerts,
    decode_runtime_subsystems,
    decode_session,
    decode_start_time,
    decode_state_miner_info,
    decode_state_network_name,
    decode_version,
)
from telemetry.sources.lotus.calls import Calls
from telemetry.sources.lotus.client import Lotus, MethodAbsent, MethodError, MissingPermission, Panicked
from telemetry.sources.lotus.endpoints import Endpoint, find_miner, find_nodes

DEADLINE = 10.0
"""Seconds for a call that costs Lotus nothing."""

_NETWORKS = {"mainnet": "mainnet", "calibnet": "calibrationnet", "butterflynet": "butterflynet"}
"""The network's name by the word in a version (build/version.go and build/buildconstants/params_*.go of Lotus)."""

_BEHIND_SECONDS = 150.0
"""Age of the head at which `lotus info` says that the node is behind (cli/info.go, SyncBasefeeCheck)."""

_NODE_MAJORS = {1, 2}  # /rpc/v0 and /rpc/v1
_MINER_MAJOR = 1
_NEEDED_SUBSYSTEMS = {"Sealing", "SectorStorage"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at. `problem` is None when it is right, else what is wrong; `remedy` what to do.

    `forbids`: nothing more may be asked of that Lotus. `found` is what was seen where all is well.
    """

    subject: str
    found: str = ""
    problem: str | None = None
    remedy: str = ""
    forbids: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MinerFacts:
    """What lotus-miner said of itself. `start` in Unix ms."""

    session: str
    miner: str
    version: Version
    start: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the full node said."""

    version: Version
    head: ChainHead
    info: MinerInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a look at the environment gave; facts are None where nobody told any."""

    miner_checks: tuple[Check, ...] = ()
    node_checks: tuple[Check, ...] = ()
    miner: MinerFacts | None = None
    node: NodeFacts | None = None
    endpoint: Endpoint | None = None
    nodes: tuple[Endpoint, ...] = field(default=())

    @property
    def checks(self) -> tuple[Check, ...]:
        """All of them, in the order in which they were made."""
        return (*self.miner_checks, *self.node_checks)

    @property
    def state(self) -> str:
        """`ok`, or all that is wrong."""
        return "; ".join(check.problem for check in self.checks if check.problem is not None) or "ok"

    @property
    def miner_problem(self) -> str | None:
        """Why lotus-miner cannot be asked; None when it can."""
        return _forbidding(self.miner_checks)

    @property
    def node_problem(self) -> str | None:
        """Why the full node cannot be asked; None when it can."""
        return _forbidding(self.node_checks) or (None if self.nodes else "no full node is known")

    def was_right_in(self, session: str) -> bool:
        """Whether all was well with lotus-miner in a session."""
        right = all(check.problem is None for check in self.miner_checks)
        return right and self.miner is not None and self.miner.session == session

    @property
    def has_prepared(self) -> bool:
        """Whether RunWait 1 is "prepared": since v1.13.1 of Lotus; of an unknown version that is taken for granted."""
        number = self.miner.version.number if self.miner is not None else ()
        return not number or number >= (1, 13, 1)

    @property
    def sector_size(self) -> int:
        """Bytes of a sector; 0 when not known."""
        info = self.node.info if self.node is not None else None
        return 0 if info is None else info.sector_size


def _forbidding(checks: Iterable[Check]) -> str | None:
    return next((check.problem for check in checks if check.forbids), None)


class Environment:
    """The Lotus of this machine as `miner` needs it; used by several threads.

    `network` is the name of the network that it must be on, empty for whichever lotus-miner was built for; a look
    takes `deadline` seconds at most.
    """

    def __init__(
        self,
        miner: str,
        *,
        network: str = "",
        deadline: float = 4 * DEADLINE,
        environ: Mapping[str, str] = os.environ,
        home: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._miner, self._network, self._share = miner, network, deadline / 2
        self._environ, self._home, self._clock = environ, home or Path.home(), clock
        self._calls = Calls()
        self._lock = threading.Lock()
        self._verdict: Verdict | None = None

    @property
    def verdict(self) -> Verdict:
        """What the last look gave; a first look where there was none."""
        return self._verdict or self._look_after(None)

    def look(self) -> Verdict:
        """Look again. lotus-miner is asked for its session alone while that is the one that was found right."""
        return self._look_after(self._verdict)

    def require_miner(self, session: str | None = None) -> Verdict:
        """The verdict by which lotus-miner can be asked, in this session where one is given; WithheldError if none."""
        verdict = self.verdict
        if session is not None and (verdict.miner is None or verdict.miner.session != session):
            verdict = self._look_after(verdict)
        if verdict.miner_problem is not None:
            raise WithheldError(verdict.miner_problem)
        if session is not None and (verdict.miner is None or verdict.miner.session != session):
            raise SourceError("lotus-miner was restarted while it was asked")
        return verdict

    def require_node(self) -> Verdict:
        """The verdict by which the full node can be asked; WithheldError if it cannot."""
        verdict = self.verdict
        if verdict.node_problem is not None:
            raise WithheldError(verdict.node_problem)
        return verdict

    def alerts(self) -> list[str]:
        """The alerts of lotus-miner that are active; none where it does not tell."""
        self.require_miner()
        with self._lock, self._calls.within(DEADLINE):
            try:
                return decode_log_alerts(self._calls.miner("LogAlerts", deadline=DEADLINE))
            except (MethodAbsent, MissingPermission):
                return []

    def _look_after(self, seen: Verdict | None) -> Verdict:
        """A verdict newer than the one seen: another thread's, if it looked meanwhile."""
        with self._lock:
            if self._verdict is seen or self._verdict is None:
                self._verdict = self._look()
            return self._verdict

    def _look(self) -> Verdict:
        verdict = Verdict()
        try:
            endpoint = find_miner(self._environ, self._home)
            nodes = find_nodes(self._environ, self._home)
        except UsageError as error:
            told = Check(subject="lotus", problem=str(error), remedy="correct it", forbids=True)
            return Verdict(miner_checks=(told,), node_checks=(replace(told, problem=None, found="not looked at"),))
        verdict = replace(verdict, endpoint=endpoint, nodes=nodes)
        self._calls.aim(endpoint, nodes)
        return self._look_at_node(self._look_at_miner(verdict))

    # --- lotus-miner ---

    def _look_at_miner(self, verdict: Verdict) -> Verdict:
        if verdict.endpoint is None:
            remedy = "start lotus-miner, or set MINER_API_INFO or LOTUS_MINER_PATH"
            return replace(verdict, miner_checks=(_down("lotus-miner", "lotus-miner does not run", remedy),))
        try:
            with self._calls.within(self._share):
                return self._ask_miner(verdict)
        except SourceError as error:
            remedy = (
                "see whether lotus-miner runs, and whether MINER_API_INFO is what `auth api-info --perm admin` prints"
            )
            return replace(verdict, miner_checks=(_down("lotus-miner", f"lotus-miner: {error}", remedy),))

    def _ask_miner(self, verdict: Verdict) -> Verdict:
        session = decode_session(self._calls.miner("Session", deadline=DEADLINE))
        last = self._verdict
        if last is not None and last.endpoint == verdict.endpoint and last.was_right_in(session):
            return replace(verdict, miner=last.miner, miner_checks=last.miner_checks)
        version = decode_version(self._calls.miner("Version", deadline=DEADLINE))
        facts = MinerFacts(
            session=session,
            miner=decode_actor_address(self._calls.miner("ActorAddress", deadline=DEADLINE)),
            version=version,
            start=self._start(),
        )
        checks = (
            _api_check("lotus-miner", version, {_MINER_MAJOR}),
            self._check_token(verdict),
            self._check_subsystems(),
            self._check_miner(facts.miner),
        )
        return replace(verdict, miner=facts, miner_checks=checks)

    def _start(self) -> int | None:
        try:
            return decode_start_time(self._calls.miner("StartTime", deadline=DEADLINE))
        except MethodAbsent:
            return None

    def _check_token(self, verdict: Verdict) -> Check:
        token = verdict.endpoint.token if verdict.endpoint is not None else None
        allowed = ["read"]
        if token is not None:
            allowed = decode_auth_verify(self._calls.miner("AuthVerify", token, deadline=DEADLINE))
        if "admin" in allowed:
            return Check(subject="token", found=f"allows {', '.join(allowed)}")
        return Check(
            subject="token",
            problem="the token of lotus-miner does not allow admin: without it there are no task queues",
            remedy="set MINER_API_INFO to what `lotus-miner auth api-info --perm admin` prints",
        )

    def _check_subsystems(self) -> Check:
        try:
            running = decode_runtime_subsystems(self._calls.miner("RuntimeSubsystems", deadline=DEADLINE))
        except MethodAbsent:
            return Check(subject="subsystems", found="all, as in all Lotus before v1.12")
        missing = sorted(_NEEDED_SUBSYSTEMS - set(running))
        if not missing:
            return Check(subject="subsystems", found=", ".join(running))
        return Check(
            subject="subsystems",
            problem=f"lotus-miner runs without {' and '.join(missing)}: it has no sectors or workers to tell of",
            remedy="name the lotus-miner that seals, by MINER_API_INFO or LOTUS_MINER_PATH",
        )

    def _check_miner(self, found: str) -> Check:
        # The letter is the network's: f on mainnet, t elsewhere.
        if found[1:] == self._miner[1:]:
            return Check(subject="miner id", found=found)
        return Check(
            subject="miner id",
            problem=f"this lotus-miner is {found}, not {self._miner}",
            remedy=f"start the agent with --miner {found}, or name the Lotus of {self._miner}",
            forbids=True,
        )

    # --- the full node ---

    def _look_at_node(self, verdict: Verdict) -> Verdict:
        if not verdict.nodes:
            remedy = "start the full node, or set FULLNODE_API_INFO or LOTUS_PATH"
            return replace(verdict, node_checks=(_down("full node", "no full node is known", remedy),))
        try:
            with self._calls.within(self._share):
                return self._ask_node(verdict)
        except SourceError as error:
            remedy = (
                "see whether the full node runs, and whether FULLNODE_API_INFO is what `lotus auth api-info` prints"
            )
            return replace(verdict, node_checks=(_down("full node", f"full node: {error}", remedy),))

    def _ask_node(self, verdict: Verdict) -> Verdict:
        version = decode_version(self._calls.node("Version", deadline=DEADLINE))
        network = decode_state_network_name(self._calls.node("StateNetworkName", deadline=DEADLINE))
        head = decode_chain_head(self._calls.node("ChainHead", deadline=DEADLINE))
        right_network = self._check_network(network, verdict)
        info, known = (None, None) if right_network.forbids else self._check_actor()
        checks = (_api_check("full node", version, _NODE_MAJORS), right_network, self._check_sync(head), known)
        return replace(
            verdict,
            node=NodeFacts(version=version, head=head, info=info),
            node_checks=tuple(check for check in checks if check is not None),
        )

    def _check_network(self, found: str, verdict: Verdict) -> Check:
        words = verdict.miner.version.words if verdict.miner is not None else frozenset()
        built_for = next((name for word, name in _NETWORKS.items() if word in words), "")
        for wanted, whose in ((self._network, "the setting lotus.network"), (built_for, "lotus-miner")):
            if wanted and found != wanted:
                return Check(
                    subject="network",
                    problem=f"wrong network: the full node is on {found}, {whose} on {wanted}",
                    remedy="name the full node that lotus-miner uses, by FULLNODE_API_INFO or LOTUS_PATH",
                    forbids=True,
                )
        return Check(subject="network", found=found)

    def _check_sync(self, head: ChainHead) -> Check:
        age = head.age(self._clock())
        if age is None or age < _BEHIND_SECONDS:
            return Check(subject="chain", found=f"at height {head.height}")
        return Check(
            subject="chain",
            problem="the full node is behind the chain",
            remedy="look at `lotus sync wait`, and at this machine's clock",
        )

    def _check_actor(self) -> tuple[MinerInfo | None, Check]:
        try:
            info = decode_state_miner_info(self._calls.node("StateMinerInfo", self._miner, [], deadline=DEADLINE))
        except (MethodError, Panicked):
            # What it says names the height, and so would be news at each look.
            problem = f"the full node does not know {self._miner}"
            remedy = "see whether it is on the right network, and synced"
            return None, Check(subject="miner actor", problem=problem, remedy=remedy)
        return info, Check(subject="miner actor", found=f"{self._miner} is on this chain")


def actor_address(environ: Mapping[str, str], home: Path) -> str:
    """The miner that lotus-miner says it is; SourceError or UsageError where it cannot be asked."""
    endpoint = find_miner(environ, home)
    if endpoint is None:
        raise SourceError("lotus-miner does not run")
    lotus = Lotus(endpoint)
    try:
        return decode_actor_address(lotus.call("ActorAddress", deadline=DEADLINE))
    finally:
        lotus.close()


def _down(subject: str, problem: str, remedy: str) -> Check:
    return Check(subject=subject, problem=problem, remedy=remedy, forbids=True)


def _api_check(subject: str, version: Version, majors: set[int]) -> Check:
    if version.api_major in majors:
        return Check(subject=subject, found=version.version)
    return Check(
        subject=subject,
        problem=f"{subject} {version.version} speaks version {version.api_major} of its API, which is not known",
        remedy="upgrade telemetry; until then what it answers may be read wrongly",
    )
