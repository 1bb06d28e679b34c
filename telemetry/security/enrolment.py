"""Users made, renewed and ended: their accounts change, and who is made gets a bundle."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from telemetry.access import Role, User
from telemetry.errors import TelemetryError
from telemetry.security.bundles import Bundle
from telemetry.security.passwords import hash_password, new_password
from telemetry.security.registry import Account, Accounts, Registry, Served
from telemetry.topics import MINER_AGENT, AgentKey, RecordKey


@dataclass(frozen=True, slots=True)
class Wanted:
    """A user to be made, and whether its host runs the miner's agent too."""

    user: User
    runs_miner_agent: bool = False

    @property
    def users(self) -> tuple[User, ...]:
        """All that the bundle is for."""
        if not self.runs_miner_agent:
            return (self.user,)
        return (self.user, User(Role.AGENT, MINER_AGENT, self.user.miner))


class Enrolment:
    """Makes bundles, for a broker that `broker init` has prepared."""

    def __init__(self, registry: Registry) -> None:
        self._registry, self._served = registry, registry.served()
        self._trusted = registry.read("ca.crt")

    def enroll(self, wanted: Iterable[Wanted]) -> list[Bundle]:
        """Make users that are new."""
        asked = list(wanted)
        with self._registry.changing() as accounts:
            for user in _users(asked):
                if str(user) in accounts:
                    raise TelemetryError(f"{user}: enrolled already; `telemetry rotate` gives it new credentials")
            return list(self._make(asked, accounts))

    def rotate(self, wanted: Iterable[Wanted]) -> list[Bundle]:
        """Give users that there are new credentials. The old ones end."""
        asked = list(wanted)
        with self._registry.changing() as accounts:
            for user in _users(asked):
                if str(user) not in accounts:
                    raise TelemetryError(f"{user}: not enrolled; `telemetry enroll` does that")
            return list(self._make(asked, accounts))

    def _make(self, asked: Iterable[Wanted], accounts: Accounts) -> Iterator[Bundle]:
        for one in asked:
            passwords = [(user, new_password()) for user in one.users]
            certificate, key, expires = self._certify(one.user)
            for user, password in passwords:
                accounts[str(user)] = Account(hash=hash_password(password), expires=expires)
            (user, password), *miner = passwords
            yield Bundle(
                url=self._served.url,
                user=user,
                password=password,
                miner_agent=miner[0] if miner else None,
                ca=self._trusted,
                certificate=certificate,
                key=key,
                settings=_settings(user, self._served),
            )

    def _certify(self, user: User) -> tuple[str, str, int | None]:
        if not self._served.requires_certificates:
            return "", "", None
        from telemetry.security.certificates import Authority, expiry  # noqa: PLC0415  # loads cryptography
        from telemetry.security.setup import load_authority  # noqa: PLC0415

        identity = Authority(load_authority(self._registry)).client(str(user))
        return identity.certificate, identity.key, expiry(identity.certificate, str(user))


def revoke(registry: Registry, users: Collection[User]) -> list[User]:
    """End users; those that there were."""
    with registry.changing() as accounts:
        return [user for user in users if accounts.pop(str(user), None) is not None]


def users_of(accounts: Accounts, key: RecordKey) -> list[User]:
    """The agents of a host, or of a miner with all its hosts."""
    users = [user for user in map(User.parse, accounts) if user is not None and user.role is Role.AGENT]
    if key.hostName is None:
        return [user for user in users if user.miner == key.minerId]
    return [user for user in users if user.agent == AgentKey.of(key)]


def _users(wanted: Iterable[Wanted]) -> Iterator[User]:
    for one in wanted:
        yield from one.users


def _settings(user: User, served: Served) -> dict[str, dict[str, str]]:
    tables: dict[str, dict[str, str]] = {}
    if user.role is Role.AGENT and user.miner:
        tables["agent"] = {"miner": user.miner, "name": user.name}
    if user.role is Role.AGGREGATOR:
        tables["aggregator"] = {"name": user.name}
    if (served.records, served.control) != ("miners", "telemetry"):
        tables["topics"] = {"records": served.records, "control": served.control}
    return tables
