"""Who may read and write what at the broker. A user's name says who it is, and that alone gives its rules.

The filters come from `Topics`: a topic that is added there stands in the rules of those whose filters name it, and is
out of reach for all others.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from telemetry.errors import UsageError
from telemetry.topics import MINER_AGENT, AgentKey, RecordKey, Topics, is_host_name, is_miner_id

OPERATOR_PLACES = 8
"""Commands on the broker's machine that are connected at once: a user has one connection."""

_ALL_MINERS = "all"


class Role(Enum):
    """What a user is."""

    AGENT = "agent"
    VIEWER = "viewer"
    AGGREGATOR = "telemetry.aggregator"
    OPERATOR = "operator"


class Rule(NamedTuple):
    """One line of Mosquitto's ACL: `read`, `write` or `readwrite`, and a filter."""

    access: str
    filter: str

    def allows(self, access: str, wanted: str) -> bool:
        """Whether a topic, or all that a filter matches, may be read or written."""
        return self.access in {access, "readwrite"} and covers(self.filter, wanted)


@dataclass(frozen=True, slots=True)
class User:
    """A user at the broker, which is also the client id of its one connection."""

    role: Role
    name: str
    miner: str | None = None

    @classmethod
    def of_agent(cls, key: AgentKey) -> "User":
        """An agent."""
        return cls(Role.AGENT, key.agent, key.minerId)

    @classmethod
    def parse(cls, text: str) -> "User | None":
        """The user of a name; None for one that is none of ours."""
        miner, _, rest = text.partition(".")
        if is_miner_id(miner):
            return cls(Role.AGENT, rest, miner) if rest == MINER_AGENT or is_host_name(rest) else None
        if text.startswith(f"{Role.AGGREGATOR.value}."):
            name = text.removeprefix(f"{Role.AGGREGATOR.value}.")
            return cls(Role.AGGREGATOR, name) if is_host_name(name) else None
        if miner == Role.OPERATOR.value and is_host_name(rest):
            return cls(Role.OPERATOR, rest)
        seen, _, name = rest.partition(".")
        if miner == Role.VIEWER.value and is_host_name(name) and (seen == _ALL_MINERS or is_miner_id(seen)):
            return cls(Role.VIEWER, name, None if seen == _ALL_MINERS else seen)
        return None

    @property
    def agent(self) -> AgentKey | None:
        """The agent that it is, if it is one."""
        return AgentKey(self.miner, self.name) if self.role is Role.AGENT and self.miner else None

    def __str__(self) -> str:
        if self.role is Role.AGENT:
            return f"{self.miner}.{self.name}"
        if self.role is Role.VIEWER:
            return f"{self.role.value}.{self.miner or _ALL_MINERS}.{self.name}"
        return f"{self.role.value}.{self.name}"


def rules_of(user: User, topics: Topics) -> tuple[Rule, ...]:
    """What a user may do; all else is denied."""
    match user.role:
        case Role.AGENT:
            key = user.agent
            assert key is not None
            return _rules(read=topics.read_by(key), write=topics.written_by(key))
        case Role.VIEWER:
            seen = topics.followed(RecordKey(user.miner) if user.miner else None)
            told = () if user.miner else topics.told_of_aggregators
            return _rules(read=(*seen, *told), write=(topics.resubscribe(user.miner or "+"),))
        case Role.AGGREGATOR:
            return _rules(read=(*topics.ingested, *topics.of_the_moment), write=topics.written_by_aggregator(user.name))
        case Role.OPERATOR:
            return _rules(read=(f"{topics.records}/#", f"{topics.control}/#"), write=topics.written_by_operators)


def _rules(*, read: tuple[str, ...], write: tuple[str, ...]) -> tuple[Rule, ...]:
    both = [one for one in read if one in write]
    return (
        *(Rule("readwrite", one) for one in both),
        *(Rule("read", one) for one in read if one not in both),
        *(Rule("write", one) for one in write if one not in both),
    )


def covers(rule: str, wanted: str) -> bool:
    """Whether a filter matches a topic, or every topic that another filter matches."""
    have, want = rule.split("/"), wanted.split("/")
    if wanted.startswith("$") and not rule.startswith("$"):
        return False
    for number, level in enumerate(have):
        if level == "#":
            return True
        if number >= len(want) or want[number] == "#" or level not in {"+", want[number]}:
            return False
    return len(have) == len(want)


def render_acl(users: list[User], topics: Topics) -> str:
    """The ACL file of Mosquitto: exact lines a user, no patterns."""
    lines = ["# Written by telemetry: changes are lost with the next enrolment.\n"]
    for user in users:
        lines.append(f"user {user}\n")
        lines += [f"topic {rule.access} {rule.filter}\n" for rule in rules_of(user, topics)]
    return "".join(lines)


def require_name(text: str, what: str) -> str:
    """The text, or UsageError when a viewer or an aggregator cannot have it as its name."""
    if not is_host_name(text):
        raise UsageError(f"{what} {text!r}: expected 1 to 63 of A-Z a-z 0-9 . _ - beginning with a letter or digit")
    return text
