"""Who may look, where that is asked: viewers of the broker, whose names and passwords are tried there and never kept.

A login is known by a token of chance, of which only the hash is held, or by the credentials that a program sends along;
it ends by itself, when it is ended, and when the broker's machine, if this is it, revokes the user.
"""

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

from telemetry.access import Role, User
from telemetry.errors import TelemetryError
from telemetry.mqtt import BrokerUrl
from telemetry.probe import admits
from telemetry.security.passwords import new_password
from telemetry.security.registry import Registry

LASTS, PROGRAM_LASTS = 12 * 3600.0, 300.0
"""Seconds until a person, and a program that sends its credentials along, is asked again."""

MOST_LOGINS, MOST_LOGINS_OF_USER = 2000, 20

TRIES, TRY_EVERY = 10, 6.0
"""Tries that an address has at once, and the seconds in which it gets another."""

_REFUSED = "wrong user or password; both are in a viewer's bundle"

_MOST_ADDRESSES = 10_000
_LONGEST_NAME, _LONGEST_PASSWORD = 256, 256
_IPV6_NETWORK = 64


class RefusedError(TelemetryError):
    """The name or the password is wrong: nobody learns which."""


class TooManyTriesError(TelemetryError):
    """The address has to wait; `after` says for how many seconds."""

    def __init__(self, after: int) -> None:
        super().__init__(f"too many tries: wait {after} s")
        self.after = after


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: a user, None where no login is needed, who sees one miner, None for all."""

    user: str | None = None
    miner: str | None = None

    def sees(self, miner: str) -> bool:
        """Whether the miner is theirs to see."""
        return self.miner in {None, miner}


@dataclass(frozen=True, slots=True)
class _Login:
    viewer: Viewer
    expires: float
    account: str | None


class Tries:
    """How often each address may still try: a bucket that fills again. `now` is the monotonic clock in seconds."""

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}

    def take(self, address: str, now: float) -> None:
        """Count a try; TooManyTriesError when there are none left."""
        network = _network(address)
        full_at = max(self._full_at.pop(network, now), now)
        wait = full_at + TRY_EVERY - now - TRIES * TRY_EVERY
        if wait <= 0:
            full_at += TRY_EVERY
        # The last one stands last: those who did not come for the longest time are forgotten first.
        self._full_at[network] = full_at
        while len(self._full_at) > _MOST_ADDRESSES:
            del self._full_at[next(iter(self._full_at))]
        if wait > 0:
            raise TooManyTriesError(max(1, round(wait)))


def _network(address: str) -> str:
    """Whose address it is: of IPv6 a household has a whole network."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.ip_network((parsed, _IPV6_NETWORK), strict=False))


class Logins:
    """The logins that there are. `now` is the monotonic clock in seconds throughout."""

    def __init__(self, broker: BrokerUrl, registry: Registry) -> None:
        self._broker, self._registry = broker, registry
        self._logins: dict[str, _Login] = {}
        self._tries = Tries()
        self._secret = secrets.token_bytes(32)
        self._generation = 0

    def take_try(self, address: str, now: float) -> None:
        """Count a try of an address; TooManyTriesError when it has to wait."""
        self._tries.take(address, now)

    def check(self, name: str, password: str) -> Viewer:
        """The viewer whose credentials these are, tried at the broker, which takes a moment; else RefusedError."""
        user = User.parse(name) if len(name) <= _LONGEST_NAME else None
        if user is None or user.role is not Role.VIEWER or not 0 < len(password) <= _LONGEST_PASSWORD:
            raise RefusedError(_REFUSED)
        if takes_any_password(self._broker, name):
            raise TelemetryError(f"{self._broker} takes any password: nobody can log in")
        if not admits(replace(self._broker, username=name, password=password)):
            raise RefusedError(_REFUSED)
        return Viewer(name, user.miner)

    def begin(self, viewer: Viewer, now: float) -> str:
        """Make a login of a person; its token."""
        token = secrets.token_urlsafe(32)
        self._keep(_hash(token), viewer, now + LASTS)
        return token

    def begin_of_program(self, name: str, password: str, viewer: Viewer, now: float) -> tuple[str, Viewer]:
        """Make a login that is known by the credentials; its mark."""
        mark = self._mark(name, password)
        self._keep(mark, viewer, now + PROGRAM_LASTS)
        return mark, viewer

    def by_token(self, token: str, now: float) -> tuple[str, Viewer] | None:
        """The mark of a login, by which it is held, and whose it is; None when there is none of the token."""
        return self._found(_hash(token), now)

    def by_credentials(self, name: str, password: str, now: float) -> tuple[str, Viewer] | None:
        """The same of credentials that were found to be right not long ago."""
        return self._found(self._mark(name, password), now)

    def holds(self, mark: str, now: float) -> bool:
        """Whether a login still stands."""
        return self._found(mark, now) is not None

    def end(self, token: str) -> None:
        """End a login."""
        self._logins.pop(_hash(token), None)

    def look_at_accounts(self) -> None:
        """End the logins of users who were revoked or got new credentials, where this is the broker's machine."""
        if not self._registry.is_readable or self._registry.generation == self._generation:
            return
        self._generation = self._registry.generation
        accounts = self._accounts()
        self._logins = {
            mark: login for mark, login in self._logins.items() if accounts.get(str(login.viewer.user)) == login.account
        }

    def _keep(self, mark: str, viewer: Viewer, expires: float) -> None:
        account = self._accounts().get(str(viewer.user))
        self._logins[mark] = _Login(viewer, expires, account)
        own = [mark for mark, login in self._logins.items() if login.viewer.user == viewer.user]
        for one in [*own[:-MOST_LOGINS_OF_USER], *list(self._logins)[:-MOST_LOGINS]]:
            self._logins.pop(one, None)

    def _found(self, mark: str, now: float) -> tuple[str, Viewer] | None:
        login = self._logins.get(mark)
        if login is None:
            return None
        if login.expires <= now:
            del self._logins[mark]
            return None
        return mark, login.viewer

    def _accounts(self) -> Mapping[str, str]:
        """The hash of each user's password, where this is the broker's machine: another one is another account."""
        if not self._registry.is_readable:
            return {}
        return {name: account.hash for name, account in self._registry.accounts().items()}

    def _mark(self, name: str, password: str) -> str:
        return hmac.new(self._secret, f"{name}\0{password}".encode(), hashlib.sha256).hexdigest()


def takes_any_password(broker: BrokerUrl, name: str) -> bool:
    """Whether the broker would admit everybody: then a login would be none."""
    return admits(replace(broker, username=name, password=new_password()))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
