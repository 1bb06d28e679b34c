"""Who may read and write what, as a function of values: no agent reaches what another one states."""

import hashlib
from base64 import b64decode

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from telemetry.access import Role, User, covers, render_acl, rules_of
from telemetry.fields import Owner
from telemetry.security.passwords import hash_password, new_password
from telemetry.topics import MINER_AGENT, AgentKey, Channel, RecordKey, Topics

TOPICS = Topics()
HOST_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
MINERS = st.sampled_from(["f01234", "f01235", "t01234", "f012340"])
AGENTS = st.builds(AgentKey, MINERS, HOST_NAMES | st.just(MINER_AGENT))
WORKER_HOSTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
USERS = st.one_of(
    AGENTS.map(User.of_agent),
    st.builds(User, st.just(Role.VIEWER), HOST_NAMES, MINERS | st.none()),
    st.builds(User, st.sampled_from([Role.AGGREGATOR, Role.OPERATOR]), HOST_NAMES),
)


def _may(user: User, access: str, topic: str) -> bool:
    return any(rule.allows(access, topic) for rule in rules_of(user, TOPICS))


def _stated(agent: AgentKey) -> set[str]:
    """Every topic that `Topics` gives for what an agent itself states."""
    record = agent.record
    owner = Owner.MINER if record.hostName is None else Owner.HARDWARE
    return {TOPICS.change(record, owner), TOPICS.presence(record), TOPICS.backlog(agent), TOPICS.agent_health(agent)}


@given(USERS)
def test_a_user_is_told_by_its_name(user: User) -> None:
    assert User.parse(str(user)) == user


@given(st.text())
def test_a_name_of_another_form_is_nobodys(text: str) -> None:
    user = User.parse(text)
    assert user is None or str(user) == text


@given(AGENTS, AGENTS, HOST_NAMES)
def test_an_agent_may_write_nothing_of_another(one: AgentKey, other: AgentKey, aggregator: str) -> None:
    assume(one != other)
    user = User.of_agent(one)
    asked = {TOPICS.request(other), TOPICS.ack(other, aggregator)}
    for topic in _stated(other) | asked | {TOPICS.snapshot(other.record)}:
        assert not _may(user, "write", topic)
    for topic in {TOPICS.presence(other.record), TOPICS.backlog(other), TOPICS.agent_health(other)} | asked:
        assert not _may(user, "read", topic)


@given(AGENTS, WORKER_HOSTS)
def test_the_tasks_of_a_host_are_its_miners_agents_alone(agent: AgentKey, host: str) -> None:
    for miner in ("f01234", "f01235"):
        may = _may(User.of_agent(agent), "write", TOPICS.change(RecordKey(miner, host), Owner.TASKS))
        assert may == (agent == AgentKey(miner, MINER_AGENT))


@given(AGENTS, HOST_NAMES)
def test_an_agent_may_do_what_it_does_and_no_more(agent: AgentKey, aggregator: str) -> None:
    user = User.of_agent(agent)
    assert all(_may(user, "write", topic) for topic in _stated(agent))
    for topic in (TOPICS.request(agent), TOPICS.ack(agent, aggregator), TOPICS.presence(agent.record)):
        assert _may(user, "read", topic)
    for topic in (TOPICS.request(agent), TOPICS.ack(agent, aggregator), TOPICS.snapshot(agent.record)):
        assert not _may(user, "write", topic)
    for filter_ in ("#", "miners/#", "telemetry/#", "$SYS/#", "+/+", TOPICS.resubscribe(agent.minerId)):
        assert not _may(user, "read", filter_)
        assert not _may(user, "write", filter_)


@given(st.builds(User, st.just(Role.VIEWER), HOST_NAMES, MINERS | st.none()), MINERS, WORKER_HOSTS)
def test_a_viewer_reads_its_miner_and_asks_for_snapshots_only(user: User, miner: str, host: str) -> None:
    is_its_own = user.miner in {None, miner}
    for record in (RecordKey(miner), RecordKey(miner, host)):
        for topic in (
            TOPICS.snapshot(record),
            TOPICS.presence(record),
            TOPICS.change(record, record.record.senders[0]),
        ):
            assert _may(user, "read", topic) == is_its_own
            assert not _may(user, "write", topic)
    assert _may(user, "write", TOPICS.resubscribe(miner)) == is_its_own
    assert not _may(user, "read", f"{TOPICS.control}/agents/#")


@given(USERS, AGENTS)
def test_snapshots_and_acknowledgements_are_the_aggregators_to_write(user: User, agent: AgentKey) -> None:
    is_aggregator = user.role is Role.AGGREGATOR
    assert _may(user, "write", TOPICS.snapshot(agent.record)) == is_aggregator
    assert _may(user, "write", TOPICS.ack(agent, user.name)) == is_aggregator
    assert _may(user, "write", TOPICS.request(agent)) == (user.role in {Role.AGGREGATOR, Role.OPERATOR})
    if is_aggregator:
        assert not _may(user, "write", TOPICS.aggregator_health(f"{user.name}x"))
        assert all(_may(user, "read", one) for one in (*TOPICS.ingested, *TOPICS.of_the_moment))


def test_every_channel_is_written_by_somebody() -> None:
    """A topic that is added to `Topics` and to no filter would reach nobody."""
    host, miner = AgentKey("f01234", "seal01"), AgentKey("f01234", MINER_AGENT)
    topics = {
        Channel.CHANGE: TOPICS.change(host.record, Owner.HARDWARE), Channel.SNAPSHOT: TOPICS.snapshot(host.record),
        Channel.PRESENCE: TOPICS.presence(host.record), Channel.RESUBSCRIBE: TOPICS.resubscribe("f01234"),
        Channel.BACKLOG: TOPICS.backlog(miner), Channel.REQUEST: TOPICS.request(miner),
        Channel.ACK: TOPICS.ack(host, "main"), Channel.HEALTH: TOPICS.agent_health(host),
    }  # fmt: skip
    assert set(topics) == set(Channel)
    users = [User.of_agent(host), User.of_agent(miner), User(Role.VIEWER, "eye"), User(Role.AGGREGATOR, "main")]
    for channel, topic in topics.items():
        assert sum(_may(user, "write", topic) for user in users) == 1, channel


def test_the_acl_has_exact_lines_a_user() -> None:
    assert render_acl([User.of_agent(AgentKey("f01234", "seal01"))], TOPICS).splitlines()[1:] == [
        "user f01234.seal01",
        "topic readwrite miners/f01234/workers/seal01/presence",
        "topic read telemetry/agents/f01234/seal01/request",
        "topic read telemetry/agents/f01234/seal01/ack/+",
        "topic write miners/f01234/workers/seal01",
        "topic write telemetry/agents/f01234/seal01/backlog",
        "topic write telemetry/agents/f01234/seal01/health",
    ]


@pytest.mark.parametrize(
    ("rule", "wanted", "is_covered"),
    [
        ("a/+/c", "a/b/c", True), ("a/+/c", "a/+/c", True), ("a/+/c", "a/#", False), ("a/b", "a/+", False),
        ("a/#", "a/b/c", True), ("a/#", "a", True), ("a/#", "#", False), ("#", "$SYS/x", False), ("a/+", "a", False),
        ("a/b", "a/b/c", False),
    ],
)  # fmt: skip
def test_a_filter_covers_what_it_matches(rule: str, wanted: str, is_covered: bool) -> None:
    assert covers(rule, wanted) == is_covered


def test_a_hash_is_of_the_password_and_of_chance() -> None:
    password = new_password()
    assert len(password) >= 43
    one, other = hash_password(password), hash_password(password)
    assert one != other
    _, kind, iterations, salt, digest = one.split("$")
    assert kind == "7"
    assert hashlib.pbkdf2_hmac("sha512", password.encode(), b64decode(salt), int(iterations), 64) == b64decode(digest)
