"""What can be wrong with a Lotus is a state with a reason, told without token, and right again once it is mended."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.errors import SourceError, UsageError
from telemetry.simulate.accounts import MINER, SECTOR_BYTES
from telemetry.simulate.faults import Faults
from telemetry.simulate.lotus import Endpoint, Lotus, SteppedClock
from telemetry.simulate.versions import VERSIONS
from telemetry.simulate.world import World
from telemetry.sources import WithheldError
from telemetry.sources.lotus.environment import Environment, Verdict, actor_address
from tests.conftest import Ends
from tests.fronts import Front, change, fails

SHORT, AMPLE = 0.4, 40.0
OTHER = "f05678"

ALL_OF_MINER = {"Session", "Version", "ActorAddress", "StartTime", "AuthVerify", "RuntimeSubsystems"}
ALL_OF_NODE = {"Version", "StateNetworkName", "ChainHead", "StateMinerInfo"}


StartLotus = Callable[..., Lotus]


@pytest.fixture
def start(ends: Ends, clock: SteppedClock) -> StartLotus:
    """Start a small Lotus, of a version where one is given."""

    def start_lotus(**arguments: Any) -> Lotus:
        lotus = Lotus("quiet", clock=clock, **arguments)
        ends.extend((lotus.miner.close, lotus.full.close))
        return lotus

    return start_lotus


@pytest.fixture
def lotus(start: StartLotus) -> Lotus:
    return start()


def before(endpoint: Endpoint, ends: Ends, *paths: str) -> Front:
    """Put a server before a role; it ends with the test."""
    front = Front(endpoint, paths or ("/rpc/v0", "/rpc/v1"))
    ends.append(front.close)
    return front


Environments = Callable[..., Environment]


@pytest.fixture
def environment_of(clock: SteppedClock, tmp_path: Path) -> Environments:
    """The environment of a Lotus, or of variables, in an empty home."""

    def make(
        found: Lotus | Mapping[str, str], miner: str = MINER, *, network: str = "", deadline: float = AMPLE
    ) -> Environment:
        environ = found.environment if isinstance(found, Lotus) else found
        return Environment(miner, network=network, deadline=deadline, environ=environ, home=tmp_path, clock=clock)

    return make


def subjects(verdict: Verdict) -> set[str]:
    """What is wrong."""
    return {check.subject for check in verdict.checks if check.problem is not None}


def name_network(lotus: Lotus, network: str) -> None:
    with lotus.changing() as world:
        world.network = network


def run_subsystems(lotus: Lotus, *names: str) -> None:
    with lotus.changing() as world:
        world.subsystems = names


# --- all is well


@pytest.mark.parametrize("version", VERSIONS)
def test_a_lotus_that_is_well_is_ok(start: StartLotus, environment_of: Environments, version: str) -> None:
    verdict = environment_of(start(version=version)).look()
    assert (verdict.state, verdict.miner_problem, verdict.node_problem) == ("ok", None, None)


def test_what_is_well_is_told_check_by_check(lotus: Lotus, environment_of: Environments) -> None:
    verdict = environment_of(lotus).look()
    height = lotus.world.height
    assert [(check.subject, check.found) for check in verdict.checks] == [
        ("lotus-miner", "1.36.1+mainnet+git.0123456789"),
        ("token", "allows read, write, sign, admin"),
        ("subsystems", "Mining, Sealing, SectorStorage"),
        ("miner id", "f01234"),
        ("full node", "1.36.1+mainnet+git.0123456789"),
        ("network", "mainnet"),
        ("chain", f"at height {height}"),
        ("miner actor", "f01234 is on this chain"),
    ]


def test_facts_are_those_of_the_lotus(lotus: Lotus, environment_of: Environments) -> None:
    verdict = environment_of(lotus).look()
    assert verdict.miner is not None
    assert verdict.node is not None
    assert (verdict.miner.session, verdict.miner.miner) == (lotus.world.session, MINER)
    assert verdict.miner.start == lotus.world.started * 1000
    assert verdict.node.head.height == lotus.world.height


def test_repositories_are_found_as_variables_are(lotus: Lotus, environment_of: Environments, tmp_path: Path) -> None:
    assert environment_of(lotus.write_repos(tmp_path)).look().state == "ok"


def test_a_first_look_is_made_where_there_was_none(lotus: Lotus, environment_of: Environments) -> None:
    environment = environment_of(lotus)
    assert environment.require_miner().state == "ok"
    assert environment.require_node() is environment.verdict
    assert lotus.miner.calls["Session"] == 1


def test_threads_that_ask_at_once_have_one_look_made(lotus: Lotus, environment_of: Environments) -> None:
    environment, together = environment_of(lotus), Barrier(4)

    def ask(_: int) -> Verdict:
        together.wait(10)
        return environment.verdict

    with ThreadPoolExecutor(4) as threads:
        verdicts = list(threads.map(ask, range(4)))
    assert all(verdict is verdicts[0] for verdict in verdicts)
    assert lotus.miner.calls == Counter(ALL_OF_MINER)


# --- lotus-miner is not there


def test_nothing_configured_is_said_of_both(environment_of: Environments) -> None:
    verdict = environment_of({}).look()
    assert verdict.state == "lotus-miner does not run; no full node is known"
    assert (verdict.miner, verdict.node) == (None, None)


def test_a_repository_without_api_is_a_miner_that_was_stopped(
    lotus: Lotus, environment_of: Environments, tmp_path: Path
) -> None:
    variables = lotus.write_repos(tmp_path)
    (Path(variables["LOTUS_MINER_PATH"]) / "api").unlink()
    verdict = environment_of(variables).look()
    assert verdict.state == "lotus-miner does not run"
    assert verdict.node_problem is None


def test_a_repository_whose_node_was_stopped_leaves_the_miner_usable(
    lotus: Lotus, environment_of: Environments, tmp_path: Path
) -> None:
    variables = lotus.write_repos(tmp_path)
    (Path(variables["LOTUS_PATH"]) / "api").unlink()
    verdict = environment_of(variables).look()
    assert verdict.state == "no full node is known"
    assert verdict.miner_problem is None


def test_a_miner_that_starts_writes_its_api_and_is_found(
    lotus: Lotus, environment_of: Environments, tmp_path: Path
) -> None:
    variables = lotus.write_repos(tmp_path)
    api = Path(variables["LOTUS_MINER_PATH"]) / "api"
    api.unlink()
    environment = environment_of(variables)
    assert environment.look().miner_problem == "lotus-miner does not run"
    api.write_text(lotus.miner.address)
    assert environment.look().state == "ok"


# --- it is there and answers wrongly

FAULTS: Sequence[tuple[Faults, str]] = (
    (Faults(refuse=True), "could not be asked: Connection refused"),
    (Faults(hang=True), "gave no whole answer within its deadline"),
    (Faults(slow=60), "gave no whole answer within its deadline"),
    (Faults(unauthorized=True), "was refused: the token is not one of this Lotus (HTTP 401)"),
    (Faults(html=True), "got no JSON-RPC answer (HTTP 502)"),
    (Faults(garbage=True), "got no JSON-RPC answer (HTTP 200)"),
    (Faults(half=True), "got no whole answer"),
)
_NAMES = ["refuse", "hang", "slow", "unauthorized", "html", "garbage", "half"]


def deadline_of(faults: Faults) -> float:
    return SHORT if faults.hang or faults.slow else AMPLE


@pytest.mark.parametrize(("faults", "reason"), FAULTS, ids=_NAMES)
def test_what_befalls_the_miner_forbids_the_miner_alone(
    lotus: Lotus, environment_of: Environments, faults: Faults, reason: str
) -> None:
    lotus.miner.faults = faults
    verdict = environment_of(lotus, deadline=deadline_of(faults)).look()
    assert verdict.state.startswith(f"lotus-miner: Session at 127.0.0.1:{lotus.miner.port} {reason}")
    assert verdict.miner_problem == verdict.state
    assert verdict.node_problem is None


@pytest.mark.parametrize(("faults", "reason"), FAULTS, ids=_NAMES)
def test_what_befalls_the_full_node_forbids_the_full_node_alone(
    lotus: Lotus, environment_of: Environments, faults: Faults, reason: str
) -> None:
    lotus.full.faults = faults
    verdict = environment_of(lotus, deadline=deadline_of(faults)).look()
    assert verdict.state.startswith(f"full node: Version at 127.0.0.1:{lotus.full.port} {reason}")
    assert verdict.node_problem == verdict.state
    assert verdict.miner_problem is None


@pytest.mark.parametrize("method", sorted(ALL_OF_MINER))
def test_a_miner_that_hangs_amid_a_look_forbids_the_miner_alone(
    lotus: Lotus, environment_of: Environments, method: str
) -> None:
    lotus.miner.faults = Faults(hang=True, only=frozenset({method}))
    verdict = environment_of(lotus, deadline=SHORT).look()
    assert f"{method} at" in (verdict.miner_problem or "")
    assert verdict.node_problem is None


def test_a_look_ends_at_its_deadline_though_both_hang(lotus: Lotus, environment_of: Environments) -> None:
    lotus.miner.faults = lotus.full.faults = Faults(hang=True)
    begun = time.monotonic()
    verdict = environment_of(lotus, deadline=SHORT).look()
    assert time.monotonic() - begun < SHORT + 2
    assert subjects(verdict) == {"lotus-miner", "full node"}


@pytest.mark.parametrize("faults", [faults for faults, _ in FAULTS], ids=_NAMES)
@pytest.mark.parametrize("role", ["miner", "full"])
def test_a_fault_is_one_state_while_it_lasts_and_ok_once_it_is_healed(
    lotus: Lotus, environment_of: Environments, role: str, faults: Faults
) -> None:
    endpoint = lotus.miner if role == "miner" else lotus.full
    environment = environment_of(lotus, deadline=deadline_of(faults))
    assert environment.look().state == "ok"
    endpoint.faults = faults
    states = {environment.look().state for _ in range(3)}
    assert len(states) == 1
    assert states != {"ok"}
    endpoint.heal()
    assert environment.look().state == "ok"


# --- the token


def test_the_token_of_the_full_node_is_refused_by_the_miner(lotus: Lotus, environment_of: Environments) -> None:
    environ = {**lotus.environment, "MINER_API_INFO": f"{lotus.full.token}:{lotus.miner.address}"}
    verdict = environment_of(environ).look()
    assert "the token is not one of this Lotus" in (verdict.miner_problem or "")


def test_a_token_that_was_renewed_is_looked_at_anew(lotus: Lotus, environment_of: Environments, tmp_path: Path) -> None:
    variables = lotus.write_repos(tmp_path)
    token = Path(variables["LOTUS_MINER_PATH"]) / "token"
    environment = environment_of(variables)
    assert environment.look().state == "ok"
    token.write_text(lotus.miner.read_token)
    assert subjects(environment.look()) == {"token"}
    token.write_text(lotus.miner.token)
    assert environment.look().state == "ok"


NO_ADMIN = "the token of lotus-miner does not allow admin: without it there are no task queues"


@pytest.mark.parametrize("has_token", [True, False])
def test_a_token_that_may_only_read_is_said_and_forbids_nothing_else(
    lotus: Lotus, environment_of: Environments, has_token: bool
) -> None:
    token = f"{lotus.miner.read_token}:" if has_token else ""
    environ = {**lotus.environment, "MINER_API_INFO": f"{token}{lotus.miner.address}"}
    verdict = environment_of(environ).look()
    assert verdict.state == NO_ADMIN
    assert verdict.miner_problem is None


def test_a_miner_that_takes_its_token_for_one_that_may_only_read_is_said(
    lotus: Lotus, environment_of: Environments
) -> None:
    lotus.miner.faults = Faults(no_admin=True)
    assert environment_of(lotus).look().state == NO_ADMIN


# --- what lotus-miner is


@pytest.mark.parametrize(
    ("running", "lacking"),
    [
        (("Mining",), "Sealing and SectorStorage"),
        (("Mining", "Sealing"), "SectorStorage"),
        (("Mining", "SectorStorage"), "Sealing"),
        ((), "Sealing and SectorStorage"),
    ],
)
def test_a_miner_without_its_sealing_is_said(
    lotus: Lotus, environment_of: Environments, running: tuple[str, ...], lacking: str
) -> None:
    run_subsystems(lotus, *running)
    state = environment_of(lotus).look().state
    assert state == f"lotus-miner runs without {lacking}: it has no sectors or workers to tell of"


def test_a_miner_that_only_seals_is_well(lotus: Lotus, environment_of: Environments) -> None:
    run_subsystems(lotus, "Sealing", "SectorStorage", "Markets")
    assert environment_of(lotus).look().state == "ok"


def test_before_there_were_subsystems_all_of_them_ran(start: StartLotus, environment_of: Environments) -> None:
    verdict = environment_of(start(version="1.11.0")).look()
    assert verdict.state == "ok"
    assert "all, as in all Lotus before v1.12" in {check.found for check in verdict.checks}


@pytest.mark.parametrize("version", ["1.13.0", "1.17.0"])
def test_before_a_miner_told_its_start_it_is_not_known(
    start: StartLotus, environment_of: Environments, version: str
) -> None:
    verdict = environment_of(start(version=version)).look()
    assert verdict.state == "ok"
    assert verdict.miner is not None
    assert verdict.miner.start is None


def test_methods_that_a_miner_lacks_are_no_fault(lotus: Lotus, environment_of: Environments) -> None:
    lotus.miner.faults = Faults(absent=frozenset({"StartTime", "RuntimeSubsystems"}))
    verdict = environment_of(lotus).look()
    assert verdict.state == "ok"
    assert verdict.miner is not None
    assert verdict.miner.start is None


def test_another_miner_is_said_and_must_not_be_asked(lotus: Lotus, environment_of: Environments) -> None:
    verdict = environment_of(lotus, OTHER).look()
    assert verdict.miner_problem == "this lotus-miner is f01234, not f05678"
    assert verdict.state == f"{verdict.miner_problem}; the full node does not know f05678"


def test_the_letter_of_the_network_is_no_part_of_the_miners_id(lotus: Lotus, environment_of: Environments) -> None:
    assert environment_of(lotus, "t01234").look().state == "ok"


@pytest.mark.parametrize(("role", "subject"), [("miner", "lotus-miner"), ("full", "full node")])
def test_an_api_of_a_version_that_is_not_known_is_said_and_forbids_nothing(
    lotus: Lotus, environment_of: Environments, ends: Ends, role: str, subject: str
) -> None:
    front = before(lotus.miner if role == "miner" else lotus.full, ends)
    front.answers["Version"] = lambda _: {"Version": "9.0.0+mainnet", "APIVersion": 9 << 16}
    name = "MINER_API_INFO" if role == "miner" else "FULLNODE_API_INFO"
    verdict = environment_of({**lotus.environment, name: front.api_info}).look()
    assert verdict.state == f"{subject} 9.0.0+mainnet speaks version 9 of its API, which is not known"
    assert (verdict.miner_problem, verdict.node_problem) == (None, None)


# --- the network


def test_a_full_node_on_another_network_than_the_settings_must_not_be_asked(
    lotus: Lotus, environment_of: Environments
) -> None:
    verdict = environment_of(lotus, network="calibrationnet").look()
    problem = "wrong network: the full node is on mainnet, the setting lotus.network on calibrationnet"
    assert (verdict.state, verdict.node_problem, verdict.miner_problem) == (problem, problem, None)
    assert lotus.full.calls["StateMinerInfo"] == 0


def test_a_full_node_on_the_network_of_the_settings_is_well(lotus: Lotus, environment_of: Environments) -> None:
    assert environment_of(lotus, network="mainnet").look().state == "ok"


def test_a_full_node_on_another_network_than_the_miner_was_built_for_must_not_be_asked(
    start: StartLotus, environment_of: Environments
) -> None:
    miner, node = start(), start()
    name_network(node, "calibrationnet")
    verdict = environment_of({**miner.environment, "FULLNODE_API_INFO": node.full.api_info}).look()
    assert verdict.node_problem == "wrong network: the full node is on calibrationnet, lotus-miner on mainnet"
    assert verdict.miner_problem is None


@pytest.mark.parametrize(
    ("built_for", "network"),
    [
        ("mainnet", "mainnet"),
        ("calibnet", "calibrationnet"),
        ("butterflynet", "butterflynet"),
        ("2k", "localnet-6d1b8e0c"),
        ("debug", "mainnet"),
    ],
)
def test_a_miner_is_at_home_on_the_network_it_was_built_for(
    start: StartLotus, environment_of: Environments, built_for: str, network: str
) -> None:
    miner, node = start(), start()
    name_network(miner, built_for)
    name_network(node, network)
    verdict = environment_of({**miner.environment, "FULLNODE_API_INFO": node.full.api_info}).look()
    assert verdict.state == "ok"


def test_a_miner_that_is_down_does_not_make_the_network_wrong(lotus: Lotus, environment_of: Environments) -> None:
    lotus.miner.faults = Faults(refuse=True)
    name_network(lotus, "calibrationnet")
    assert environment_of(lotus).look().node_problem is None


# --- the chain


@pytest.mark.parametrize(("seconds", "problem"), [(0, None), (90, None), (300, "the full node is behind the chain")])
def test_a_full_node_is_behind_once_its_head_is_old(
    lotus: Lotus, environment_of: Environments, clock: SteppedClock, seconds: float, problem: str | None
) -> None:
    change(lotus, World.stop_chain)
    clock.advance(seconds)
    verdict = environment_of(lotus).look()
    assert verdict.state == (problem or "ok")
    assert verdict.node_problem is None


def test_a_full_node_that_caught_up_is_well(lotus: Lotus, environment_of: Environments, clock: SteppedClock) -> None:
    environment = environment_of(lotus)
    change(lotus, World.stop_chain)
    clock.advance(600)
    assert subjects(environment.look()) == {"chain"}
    change(lotus, World.resume_chain)
    assert environment.look().state == "ok"


def test_a_chain_that_falls_further_behind_is_the_same_state(
    lotus: Lotus, environment_of: Environments, clock: SteppedClock
) -> None:
    environment = environment_of(lotus)
    change(lotus, World.stop_chain)
    states = set()
    for _ in range(3):
        clock.advance(600)
        states.add(environment.look().state)
    assert len(states) == 1


def test_a_miner_that_is_not_on_this_chain_is_said_in_the_same_words_at_each_height(
    lotus: Lotus, environment_of: Environments, ends: Ends, clock: SteppedClock
) -> None:
    front = before(lotus.full, ends)
    front.answers["StateMinerInfo"] = lambda _: fails(f"failed to load at {lotus.world.height}: actor not found")([])
    environment = environment_of({**lotus.environment, "FULLNODE_API_INFO": front.api_info})
    states = []
    for _ in range(2):
        clock.advance(30)
        states.append(environment.look().state)
    assert states == ["the full node does not know f01234"] * 2
    assert environment.verdict.node_problem is None


# --- what is written wrongly


@pytest.mark.parametrize(
    "address", ["", "10.0.0.1:2345", "nowhere", "/ip4/127.0.0.1", "/ip4/127.0.0.1/udp/2345", "ftp://host", "a b"]
)
def test_a_malformed_variable_is_a_state_that_repeats_nothing_of_it(
    lotus: Lotus, environment_of: Environments, address: str
) -> None:
    environ = {**lotus.environment, "MINER_API_INFO": f"{lotus.miner.token}:{address}"}
    verdict = environment_of(environ).look()
    assert verdict.state.startswith("MINER_API_INFO: ")
    assert verdict.miner_problem == verdict.state
    assert_tells_no_token(lotus, verdict)


def test_a_variable_that_is_the_token_alone_is_a_state_that_does_not_repeat_it(
    lotus: Lotus, environment_of: Environments
) -> None:
    verdict = environment_of({**lotus.environment, "MINER_API_INFO": lotus.miner.token}).look()
    assert verdict.state.startswith("MINER_API_INFO: ")
    assert_tells_no_token(lotus, verdict)


@pytest.mark.parametrize("variable", ["MINER_API_INFO", "FULLNODE_API_INFO"])
def test_a_full_node_that_is_not_known_is_never_to_be_asked(
    lotus: Lotus, environment_of: Environments, variable: str
) -> None:
    environment = environment_of({**lotus.environment, variable: "nowhere"})
    verdict = environment.look()
    assert verdict.nodes or verdict.node_problem is not None


def test_an_unreadable_repository_is_a_state(environment_of: Environments, tmp_path: Path) -> None:
    repository = tmp_path / "miner"
    (repository / "api").mkdir(parents=True)
    verdict = environment_of({"LOTUS_MINER_PATH": str(repository)}).look()
    assert verdict.state == f"{repository / 'api'}: cannot be read: Is a directory"


def test_a_variable_that_was_corrected_is_ok(lotus: Lotus, environment_of: Environments) -> None:
    environ = dict(lotus.environment)
    environ["MINER_API_INFO"] = "nowhere"
    environment = environment_of(environ)
    assert environment.look().state != "ok"
    environ["MINER_API_INFO"] = lotus.miner.api_info
    assert environment.look().state == "ok"


# --- an old full node, and several


def test_a_full_node_that_has_only_the_older_api_is_well(
    lotus: Lotus, environment_of: Environments, ends: Ends
) -> None:
    front = before(lotus.full, ends, "/rpc/v0")
    verdict = environment_of({**lotus.environment, "FULLNODE_API_INFO": front.api_info}).look()
    assert verdict.state == "ok"
    assert verdict.node is not None
    assert verdict.node.version.api_major == 1


def test_the_second_full_node_is_asked_where_the_first_is_down(start: StartLotus, environment_of: Environments) -> None:
    lotus, other = start(), start()
    lotus.full.faults = Faults(refuse=True)
    both = f"{lotus.full.api_info},{other.full.api_info}"
    assert environment_of({**lotus.environment, "FULLNODE_API_INFO": both}).look().state == "ok"
    assert set(other.full.calls) == ALL_OF_NODE


# --- again and again


def test_a_miner_that_was_right_is_asked_for_its_session_alone(lotus: Lotus, environment_of: Environments) -> None:
    environment = environment_of(lotus)
    environment.look()
    assert lotus.miner.calls == Counter(ALL_OF_MINER)
    lotus.miner.forget_calls()
    for _ in range(3):
        assert environment.look().state == "ok"
    assert lotus.miner.calls == Counter(Session=3)


def test_a_miner_that_was_restarted_is_asked_for_everything(lotus: Lotus, environment_of: Environments) -> None:
    environment = environment_of(lotus)
    environment.look()
    lotus.miner.restart()
    lotus.miner.forget_calls()
    verdict = environment.look()
    assert lotus.miner.calls == Counter(ALL_OF_MINER)
    assert verdict.miner is not None
    assert verdict.miner.session == lotus.world.session


def test_what_a_miner_became_by_its_restart_is_seen(lotus: Lotus, environment_of: Environments) -> None:
    environment = environment_of(lotus)
    environment.look()
    run_subsystems(lotus, "Mining")
    assert environment.look().state == "ok"
    lotus.miner.restart()
    assert subjects(environment.look()) == {"subsystems"}


def test_a_miner_that_was_not_right_is_asked_for_everything(lotus: Lotus, environment_of: Environments) -> None:
    environment = environment_of(lotus, OTHER)
    environment.look()
    lotus.miner.forget_calls()
    environment.look()
    assert lotus.miner.calls == Counter(ALL_OF_MINER)


def test_a_miner_that_answered_no_more_is_asked_for_everything_once_it_does(
    lotus: Lotus, environment_of: Environments
) -> None:
    environment = environment_of(lotus)
    environment.look()
    lotus.miner.faults = Faults(refuse=True)
    environment.look()
    lotus.miner.heal()
    lotus.miner.forget_calls()
    environment.look()
    assert lotus.miner.calls == Counter(ALL_OF_MINER)


def test_the_full_node_is_looked_at_each_time(lotus: Lotus, environment_of: Environments) -> None:
    environment = environment_of(lotus)
    for _ in range(2):
        environment.look()
    assert lotus.full.calls == Counter(dict.fromkeys(ALL_OF_NODE, 2))


# --- what may be asked


def test_nothing_is_asked_of_a_miner_that_is_down(lotus: Lotus, environment_of: Environments) -> None:
    lotus.miner.faults = Faults(refuse=True)
    environment = environment_of(lotus)
    with pytest.raises(WithheldError, match="Connection refused"):
        environment.require_miner()
    assert environment.require_node().node is not None


def test_nothing_is_asked_of_a_full_node_that_is_down(lotus: Lotus, environment_of: Environments) -> None:
    lotus.full.faults = Faults(refuse=True)
    environment = environment_of(lotus)
    with pytest.raises(WithheldError, match="Connection refused"):
        environment.require_node()
    assert environment.require_miner().miner is not None


def test_what_is_required_in_the_session_that_was_found_is_not_looked_for(
    lotus: Lotus, environment_of: Environments
) -> None:
    environment = environment_of(lotus)
    verdict = environment.look()
    lotus.miner.forget_calls()
    assert environment.require_miner(lotus.world.session) is verdict
    assert lotus.miner.calls == Counter()


def test_a_session_that_is_new_is_looked_at_before_it_is_asked(lotus: Lotus, environment_of: Environments) -> None:
    environment = environment_of(lotus)
    environment.look()
    lotus.miner.restart()
    verdict = environment.require_miner(lotus.world.session)
    assert verdict.miner is not None
    assert verdict.miner.session == lotus.world.session
    assert environment.verdict is verdict


def test_a_session_that_is_not_the_one_found_is_refused(lotus: Lotus, environment_of: Environments) -> None:
    environment = environment_of(lotus)
    gone = lotus.world.session
    lotus.miner.restart()
    with pytest.raises(SourceError, match=r"\Alotus-miner was restarted while it was asked\Z"):
        environment.require_miner(gone)


def test_a_new_session_of_another_miner_is_withheld(start: StartLotus, environment_of: Environments) -> None:
    # At the address of the one that was right there is now another.
    lotus, other = start(), start(seed=1)
    environ = dict(lotus.environment)
    environment = environment_of(environ)
    environment.look()
    environ["MINER_API_INFO"] = other.miner.api_info
    run_subsystems(other, "Mining")
    other.miner.faults = Faults(unauthorized=True)
    with pytest.raises(WithheldError, match="HTTP 401"):
        environment.require_miner(other.world.session)


# --- facts that others need


@pytest.mark.parametrize(("version", "has_prepared"), [("1.13.0", False), ("1.13.1", True), ("1.36.1", True)])
def test_jobs_are_prepared_since_v1_13_1(
    start: StartLotus, environment_of: Environments, version: str, has_prepared: bool
) -> None:
    assert environment_of(start(version=version)).look().has_prepared is has_prepared


@pytest.mark.parametrize(
    ("text", "has_prepared"),
    [
        ("1.13.0+mainnet+git.9d6e8ac+api1.3.0", False),
        ("1.4.1+api1.0.1", False),
        ("1.13.1-rc1", True),
        ("1.36.2-dev", True),
        ("unknown", True),
    ],
)
def test_jobs_of_a_version_that_is_not_known_are_prepared(
    lotus: Lotus, environment_of: Environments, ends: Ends, text: str, has_prepared: bool
) -> None:
    front = before(lotus.miner, ends)
    front.answers["Version"] = lambda _: {"Version": text, "APIVersion": 66816}
    environment = environment_of({**lotus.environment, "MINER_API_INFO": front.api_info})
    assert environment.look().has_prepared is has_prepared


def test_jobs_of_a_miner_that_is_down_are_prepared(environment_of: Environments) -> None:
    assert environment_of({}).look().has_prepared


def test_the_size_of_a_sector_is_that_of_the_actor(lotus: Lotus, environment_of: Environments) -> None:
    environment = environment_of(lotus)
    assert environment.look().sector_size == SECTOR_BYTES
    lotus.full.faults = Faults(refuse=True)
    assert environment.look().sector_size == 0


# --- alerts


def test_alerts_are_the_active_ones(lotus: Lotus, environment_of: Environments) -> None:
    environment = environment_of(lotus)
    assert environment.alerts() == []
    change(lotus, World.stop_chain)
    assert environment.alerts() == ["chain:sync"]
    change(lotus, World.resume_chain)
    assert environment.alerts() == []


def test_a_miner_that_does_not_know_alerts_has_none(lotus: Lotus, environment_of: Environments) -> None:
    change(lotus, World.stop_chain)
    lotus.miner.faults = Faults(absent=frozenset({"LogAlerts"}))
    assert environment_of(lotus).alerts() == []


def test_a_token_that_may_not_read_alerts_has_none(lotus: Lotus, environment_of: Environments) -> None:
    change(lotus, World.stop_chain)
    environ = {**lotus.environment, "MINER_API_INFO": f"{lotus.miner.read_token}:{lotus.miner.address}"}
    assert environment_of(environ).alerts() == []


def test_alerts_that_cannot_be_read_are_not_none(lotus: Lotus, environment_of: Environments) -> None:
    lotus.miner.faults = Faults(garbage=True, only=frozenset({"LogAlerts"}))
    with pytest.raises(SourceError, match="LogAlerts"):
        environment_of(lotus).alerts()


def test_alerts_of_a_miner_that_is_down_are_withheld(lotus: Lotus, environment_of: Environments) -> None:
    lotus.miner.faults = Faults(refuse=True)
    with pytest.raises(WithheldError):
        environment_of(lotus).alerts()


# --- what a person reads


def assert_tells_no_token(lotus: Lotus, verdict: Verdict) -> None:
    secrets = [lotus.miner.token, lotus.miner.read_token, lotus.full.token]
    parts = {part for token in secrets for part in (token, *token.split(".")[1:])}
    shown = f"{verdict!r} {verdict.state} {[check.remedy for check in verdict.checks]}"
    assert not {part for part in parts if part in shown}


@pytest.mark.parametrize("faults", [Faults(), *(faults for faults, _ in FAULTS), Faults(no_admin=True)])
def test_no_token_is_in_what_is_told(lotus: Lotus, environment_of: Environments, faults: Faults) -> None:
    lotus.miner.faults = lotus.full.faults = faults
    assert_tells_no_token(lotus, environment_of(lotus, deadline=deadline_of(faults)).look())


@pytest.mark.parametrize("method", sorted(ALL_OF_MINER))
def test_a_token_that_a_miner_repeats_is_not_told(
    lotus: Lotus, environment_of: Environments, ends: Ends, method: str
) -> None:
    front = before(lotus.miner, ends)
    front.answers[method] = fails(f"JWT Verification of {lotus.miner.token} failed")
    verdict = environment_of({**lotus.environment, "MINER_API_INFO": front.api_info}).look()
    assert "JWT Verification of [token] failed" in verdict.state
    assert_tells_no_token(lotus, verdict)


@pytest.mark.parametrize("answer", ["f05678\n\x1b[31m", "f0" + "9" * 100_000], ids=["unprintable", "long"])
def test_what_a_miner_says_it_is_is_told_in_one_line(
    lotus: Lotus, environment_of: Environments, ends: Ends, answer: str
) -> None:
    front = before(lotus.miner, ends)
    front.answers["ActorAddress"] = lambda _: answer
    state = environment_of({**lotus.environment, "MINER_API_INFO": front.api_info}).look().state
    assert state.isprintable()
    assert len(state) < 1000


@pytest.mark.parametrize("answer", ["main\n\x1b[31mnet", "m" * 100_000], ids=["unprintable", "long"])
def test_what_a_full_node_says_its_network_is_is_told_in_one_line(
    lotus: Lotus, environment_of: Environments, ends: Ends, answer: str
) -> None:
    front = before(lotus.full, ends)
    front.answers["StateNetworkName"] = lambda _: answer
    state = environment_of({**lotus.environment, "FULLNODE_API_INFO": front.api_info}).look().state
    assert state.isprintable()
    assert len(state) < 1000


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["Version", "APIVersion", "Height", "Blocks", "Timestamp", "Owner", "Worker"]), inner
        ),
    ),
    max_leaves=6,
)


def test_whatever_is_answered_a_look_gives_a_verdict(lotus: Lotus, environment_of: Environments, ends: Ends) -> None:
    miner, node = before(lotus.miner, ends), before(lotus.full, ends)
    environment = environment_of({"MINER_API_INFO": miner.api_info, "FULLNODE_API_INFO": node.api_info}, OTHER)

    @settings(max_examples=100, deadline=None)
    @given(method=st.sampled_from(sorted(ALL_OF_MINER | ALL_OF_NODE)), answer=_JSON)
    def look(method: str, answer: object) -> None:
        miner.answers = node.answers = {method: lambda _: answer}
        assert environment.look().state != "ok"

    look()


# --- whose miner it is


def test_the_miner_that_runs_here_says_who_it_is(lotus: Lotus, tmp_path: Path) -> None:
    assert actor_address(lotus.environment, tmp_path) == MINER
    assert actor_address(lotus.write_repos(tmp_path / "repos"), tmp_path) == MINER
    assert lotus.miner.calls == Counter(ActorAddress=2)


def test_who_it_is_can_be_asked_without_a_token(lotus: Lotus, tmp_path: Path) -> None:
    assert actor_address({"MINER_API_INFO": lotus.miner.address}, tmp_path) == MINER


def test_a_miner_that_does_not_run_says_nothing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"\Alotus-miner does not run\Z"):
        actor_address({}, tmp_path)


def test_a_miner_that_cannot_be_asked_says_why(lotus: Lotus, tmp_path: Path) -> None:
    lotus.miner.faults = Faults(refuse=True)
    with pytest.raises(SourceError, match="Connection refused"):
        actor_address(lotus.environment, tmp_path)


def test_an_address_that_is_malformed_is_a_mistake_of_the_user(lotus: Lotus, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\AMINER_API_INFO: ") as caught:
        actor_address({"MINER_API_INFO": f"{lotus.miner.token}:nowhere"}, tmp_path)
    assert lotus.miner.token not in str(caught.value)
