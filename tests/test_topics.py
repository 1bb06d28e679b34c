"""A host's name and its level of a topic are one to one, and no level can be taken for anything else."""

import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from telemetry.errors import UsageError
from telemetry.fields import Owner
from telemetry.records import MINER_INFO, WORKER_INFO
from telemetry.topics import (
    MINER_AGENT,
    Address,
    AgentKey,
    Channel,
    RecordKey,
    Topics,
    host_level,
    is_host_name,
    is_miner_id,
    is_worker_host,
    require_record_host,
    sender_of,
)

MINER = "f01234"
TOPICS = Topics()
LONGEST = 255

NAMES_AND_LEVELS = [
    ("seal01", "seal01"),
    ("rack-3_node.7", "rack-3_node.7"),
    ("x" * 63, "x" * 63),
    ("10.0.0.1:3456", "10.0.0.1%3A3456"),
    ("机器", "%E6%9C%BA%E5%99%A8"),
    ("seal-机", "seal-%E6%9C%BA"),
    ("_miner", "%5Fminer"),
    ("_", "%5F"),
    ("-x", "%2Dx"),
    (".", "%2E"),
    ("..", "%2E."),
    ("_a b", "%5Fa%20b"),
    ("x" * 64, "%78" + "x" * 63),
    ("%41", "%2541"),
    ("%5Fminer", "%255Fminer"),
    ("~", "%7E"),
    ("a~b", "a%7Eb"),
    ("a/b", "a%2Fb"),
    ("+", "%2B"),
    ("#", "%23"),
    ("$SYS", "%24SYS"),
    ("\0", "%00"),
    ("a\nb", "a%0Ab"),
    ("\U0001f980", "%F0%9F%A6%80"),
]

# What is escaped, what stands for itself, and what an escape is made of: names that could collide are likely.
_TRICKY = st.text(alphabet="%25EFefaAx_-.~/+#: \0\n机é", min_size=1, max_size=12)
_LONG = st.builds(lambda letter, length: letter * length, st.sampled_from("x-:é机"), st.integers(1, 300))
names = st.one_of(_TRICKY, _LONG, st.text(min_size=1, max_size=80)).filter(is_worker_host)
miners = st.from_regex(r"[ft]0[0-9]{1,19}", fullmatch=True)
levels = st.one_of(
    st.text(alphabet="%0123456789ABCDEFabcdefxg_-.", min_size=1, max_size=12),
    st.lists(st.integers(0, 255).map("%{:02X}".format), min_size=1, max_size=6).map("".join),
    st.text(min_size=1, max_size=20),
)


def host(name: str) -> RecordKey:
    return RecordKey(MINER, name)


def parsed(topic: str) -> Address:
    address = TOPICS.parse(topic)
    assert address is not None
    return address


# --- a name becomes a level, and is read back


@pytest.mark.parametrize(("name", "level"), NAMES_AND_LEVELS)
def test_name_has_this_level(name: str, level: str) -> None:
    assert host_level(name) == level


@pytest.mark.parametrize(("name", "level"), NAMES_AND_LEVELS)
def test_level_is_of_this_name(name: str, level: str) -> None:
    assert parsed(f"miners/{MINER}/workers/{level}/tasks").record == host(name)


@given(miner=miners, name=names)
def test_record_is_read_back_from_the_topic_of_its_tasks(miner: str, name: str) -> None:
    record = RecordKey(miner, name)
    address = parsed(TOPICS.change(record, Owner.TASKS))
    assert address == Address(Channel.CHANGE, record, AgentKey(miner, MINER_AGENT), Owner.TASKS)


@given(names)
def test_record_is_read_back_from_every_topic_of_a_host(name: str) -> None:
    record = host(name)
    agent = AgentKey.of(record)
    assert parsed(TOPICS.change(record, Owner.HARDWARE)) == Address(Channel.CHANGE, record, agent, Owner.HARDWARE)
    assert parsed(TOPICS.snapshot(record)) == Address(Channel.SNAPSHOT, record, agent)
    assert parsed(TOPICS.presence(record)) == Address(Channel.PRESENCE, record, agent)


@given(st.one_of(st.none(), names))
def test_agent_is_read_back_from_every_topic_of_an_agent(name: str | None) -> None:
    record = RecordKey(MINER, name)
    agent = AgentKey.of(record)
    assert parsed(TOPICS.backlog(agent)) == Address(Channel.BACKLOG, record, agent)
    assert parsed(TOPICS.request(agent)) == Address(Channel.REQUEST, record, agent)
    assert parsed(TOPICS.ack(agent, "main")) == Address(Channel.ACK, record, agent)


@given(st.one_of(st.none(), names))
def test_the_record_of_an_agent_is_the_one_it_was_made_of(name: str | None) -> None:
    record = RecordKey(MINER, name)
    assert AgentKey.of(record).record == record


def test_the_topics_of_a_miner_are_read_back() -> None:
    record, agent = RecordKey(MINER), AgentKey(MINER, MINER_AGENT)
    assert parsed(TOPICS.change(record, Owner.MINER)) == Address(Channel.CHANGE, record, agent, Owner.MINER)
    assert parsed(TOPICS.snapshot(record)) == Address(Channel.SNAPSHOT, record, agent)
    assert parsed(TOPICS.presence(record)) == Address(Channel.PRESENCE, record, agent)
    assert parsed(TOPICS.resubscribe(MINER)) == Address(Channel.RESUBSCRIBE, record, agent)


@given(names)
def test_topics_below_other_prefixes_are_read_back_there_alone(name: str) -> None:
    elsewhere = Topics(records="site/a", control="site/b")
    topic = elsewhere.change(host(name), Owner.TASKS)
    address = elsewhere.parse(topic)
    assert address is not None
    assert address.record == host(name)
    assert TOPICS.parse(topic) is None


# --- nothing is taken for something else


@given(st.lists(names, min_size=2, max_size=8, unique=True))
@example(["_miner", "%5Fminer", "%255Fminer"])
@example(["x" * 64, "%78" + "x" * 63])
@example(["é", "e\N{COMBINING ACUTE ACCENT}"])
def test_no_two_names_share_a_level(some: list[str]) -> None:
    assert len({host_level(name) for name in some}) == len(some)


@given(names)
@example(MINER_AGENT)
def test_no_host_is_taken_for_the_miners_agent(name: str) -> None:
    agent = AgentKey.of(host(name))
    assert agent.agent != MINER_AGENT
    assert agent.record.record is WORKER_INFO


@given(names)
def test_a_level_without_escapes_is_the_name_of_a_host_with_an_agent(name: str) -> None:
    level = host_level(name)
    assert is_host_name(name) is ("%" not in level)


@given(levels)
@example(host_level("机器"))
def test_a_level_is_none_or_the_one_form_of_its_host(level: str) -> None:
    address = TOPICS.parse(f"miners/{MINER}/workers/{level}/tasks")
    assert address is None or (
        address.record.hostName is not None
        and is_worker_host(address.record.hostName)
        and host_level(address.record.hostName) == level
    )


@given(levels)
@example(MINER_AGENT)
def test_an_agents_level_is_none_or_the_one_form_of_its_record(level: str) -> None:
    address = TOPICS.parse(f"telemetry/agents/{MINER}/{level}/backlog")
    assert address is None or AgentKey.of(address.record).agent == level


FOREIGN_LEVELS = [
    ("%41bc", "a letter that needs no escape"),
    ("a%62c", "the same in the middle"),
    ("%3a", "hexadecimal of lower case"),
    ("10.0.0.1%3a3456", "the same in the middle"),
    ("%5fminer", "the same of the name of the miner's agent"),
    ("_miner", "the miner's agent is no host"),
    ("%FF", "no UTF-8"),
    ("a%C3", "UTF-8 that ends too early"),
    ("%C0%80", "NUL in too many bytes"),
    ("%ED%A0%80", "a surrogate"),
    ("%EF%BF%BD%FF", "a replacement character before what would become one"),
    ("%", "no digits"),
    ("%4", "one digit"),
    ("%GG", "no hexadecimal"),
    ("a b", "a space as it stands"),
    ("机器", "letters as they stand"),
    ("a~", "RFC 3986 would leave it, we do not"),
    ("-x", "begins with a dash"),
    (".x", "begins with a dot"),
    ("%2Dx%2D", "a dash that needs no escape"),
    ("%78", "an x that needs no escape"),
    ("x" * 64, "longer than the name of a host with an agent"),
    ("x" * 300, "too long"),
    ("%3A" * 86, "three times 86 characters"),
    ("", "empty"),
    ("seal01\n", "a line's end"),
]


@pytest.mark.parametrize(("level", "why"), FOREIGN_LEVELS)
def test_a_level_of_another_form_is_nobodys(level: str, why: str) -> None:
    assert TOPICS.parse(f"miners/{MINER}/workers/{level}/tasks") is None, why


@pytest.mark.parametrize("level", [level for level, _ in FOREIGN_LEVELS if level != MINER_AGENT])
def test_an_agent_of_another_form_is_nobody(level: str) -> None:
    assert TOPICS.parse(f"telemetry/agents/{MINER}/{level}/backlog") is None


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "/",
        "miners",
        "miners/",
        "miners/f01234/",
        "miners/f1234",
        "miners/f0",
        "miners/f012a4",
        "miners/f0" + "1" * 20,
        "miners/f01234\n",
        "miners/f0１２３４",  # digits, but not those
        "miners/f01234/tasks",
        "miners/f01234/workers",
        "miners/f01234/workers/",
        "miners/f01234/workers/seal01/other",
        "miners/f01234/workers/seal01/tasks/more",
        "miners/f01234/workers/seal01/resubscribe",
        "minersf01234",
        "other/miners/f01234",
        "telemetry/agents/f01234/seal01",
        "telemetry/agents/f01234/seal01/backlog/more",
        "telemetry/agents/f01234/seal01/ack",
        "telemetry/agents/f01234/seal01/ack/main/more",
        "telemetry/aggregators/main",
        "$SYS/broker/uptime",
    ],
)
def test_a_topic_that_is_none_of_ours_says_nothing(topic: str) -> None:
    assert TOPICS.parse(topic) is None


@given(st.text())
def test_any_text_can_be_asked_whether_it_is_a_topic(text: str) -> None:
    assert TOPICS.parse(text) is None or text.startswith(("miners/", "telemetry/"))


# --- what a broker takes

FORBIDDEN = re.compile(r"[+#/\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""MQTT 3.1.1, 1.5.3, 4.7.1: wildcards, the separator, NUL and control characters, surrogates, non-characters."""

BUILDERS: Sequence[tuple[Callable[[str], str], int]] = (
    (lambda name: TOPICS.change(host(name), Owner.HARDWARE), 4),
    (lambda name: TOPICS.change(host(name), Owner.TASKS), 5),
    (lambda name: TOPICS.snapshot(host(name)), 5),
    (lambda name: TOPICS.presence(host(name)), 5),
    (lambda name: TOPICS.backlog(AgentKey.of(host(name))), 5),
    (lambda name: TOPICS.request(AgentKey.of(host(name))), 5),
    (lambda name: TOPICS.ack(AgentKey.of(host(name)), "main"), 6),
)


@given(names)
def test_a_topic_of_any_host_can_be_published_to(name: str) -> None:
    for build, number in BUILDERS:
        parts = build(name).split("/")
        assert len(parts) == number
        assert all(parts)
        assert not any(map(FORBIDDEN.search, parts))


@given(names)
def test_a_level_is_ascii_and_not_too_long(name: str) -> None:
    level = host_level(name)
    assert level.isascii()
    assert len(level) <= LONGEST


@given(names)
def test_the_filter_of_a_host_is_its_topic_and_all_below_it(name: str) -> None:
    [one] = TOPICS.followed(host(name))
    assert one == f"{TOPICS.change(host(name), Owner.HARDWARE)}/#"


# --- who may have a record


@pytest.mark.parametrize(
    ("name", "is_admitted"),
    [
        ("", False),
        ("a", True),
        ("机" * 28, True),
        ("机" * 29, False),
        ("x" * 253, True),
        ("x" * 254, False),
        (":" * 85, True),
        (":" * 86, False),
    ],
)
def test_host_that_a_worker_names_has_a_record_unless_its_level_is_too_long(name: str, is_admitted: bool) -> None:
    assert is_worker_host(name) is is_admitted


@pytest.mark.parametrize("name", ["\udcff", "seal\ud800", "\udcff" * 100])
def test_a_name_that_is_no_unicode_has_no_record(name: str) -> None:
    # As Python gives an argument of a command line that is not UTF-8.
    assert not is_worker_host(name)


@pytest.mark.parametrize("name", ["", "x" * 300, "\udcff"])
def test_a_host_that_can_have_no_record_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(
        UsageError, match=r"\Ahost name '.*': expected the name of a host, as `telemetry ls` lists it\Z"
    ):
        require_record_host(name)


@given(names)
def test_what_a_worker_names_can_be_asked_for(name: str) -> None:
    assert require_record_host(name) == name


# --- keys


def test_key_of_a_record_names_its_kind_and_its_fields() -> None:
    of_miner, of_host = RecordKey(MINER), host("机器")
    assert (of_miner.record, of_miner.fields, str(of_miner)) == (MINER_INFO, {"minerId": MINER}, MINER)
    assert (of_host.record, of_host.fields) == (WORKER_INFO, {"minerId": MINER, "hostName": "机器"})


def test_the_miners_agent_states_the_tasks_of_a_host_whose_own_states_the_hardware() -> None:
    assert sender_of(host("seal01"), Owner.TASKS) == AgentKey(MINER, MINER_AGENT)
    assert sender_of(host("seal01"), Owner.HARDWARE) == AgentKey(MINER, "seal01")
    assert sender_of(RecordKey(MINER), Owner.MINER) == AgentKey(MINER, MINER_AGENT)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("f01234", True),
        ("t01", True),
        ("f0" + "9" * 19, True),
        ("f0", False),
        ("f1abc", False),
        ("F01234", False),
        ("f01234 ", False),
        ("", False),
    ],
)
def test_miner_id_is_an_id_address(text: str, is_one: bool) -> None:
    assert is_miner_id(text) is is_one
