"""What a data directory knows of its broker's users. It is the truth from which the broker's files are made.

`authority/` is for who ran `broker init`: keys, and hashes of passwords. `broker/` gets what Mosquitto reads, and
belongs to Mosquitto's user. Nothing here holds a password but that of the aggregator and the operators of this machine.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

from telemetry.access import OPERATOR_PLACES, Role, User, render_acl
from telemetry.errors import TelemetryError
from telemetry.security.files import write_private
from telemetry.security.passwords import hash_password, new_password
from telemetry.topics import Topics

PASSWORDS, ACL = "passwords", "acl"
SERVED = "served.json"
SERVER_CERTIFICATE, SERVER_KEY, CLIENT_AUTHORITY = "server.crt", "server.key", "clients.crt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """How the broker serves beyond loopback, as `broker init` was told; `*_expires` are Unix seconds."""

    names: tuple[str, ...]
    port: int
    listen: str = ""
    has_authority: bool = True
    requires_certificates: bool = False
    records: str = "miners"
    control: str = "telemetry"
    server_expires: int = 0
    authority_expires: int = 0

    @property
    def url(self) -> str:
        """Where clients find it."""
        host = self.names[0]
        return f"mqtts://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def topics(self) -> Topics:
        """The topic tree of which its ACL is made."""
        return Topics(records=self.records, control=self.control)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What is kept of a user: the hash of its password, and until when its certificate is valid, if it has one."""

    hash: str = field(repr=False)
    expires: int | None = None


Accounts = dict[str, Account]


class Registry:
    """The directory `authority` of a data directory."""

    def __init__(self, data: Path) -> None:
        self.directory, self.broker = data / "authority", data / "broker"

    @property
    def exists(self) -> bool:
        """Whether `broker init` was run here."""
        return (self.broker / PASSWORDS).exists()

    @property
    def is_readable(self) -> bool:
        """Whether this user may use it."""
        return os.access(self.directory / SERVED, os.R_OK)

    def served(self) -> Served:
        """What `broker init` decided, of which the broker has a copy; TelemetryError where neither can be read."""
        copy = self.broker / SERVED
        is_brokers = not self.is_readable and os.access(copy, os.R_OK)
        stored = orjson.loads(copy.read_text() if is_brokers else self.read(SERVED))
        return Served(**stored | {"names": tuple(stored["names"])})

    def keep_served(self, served: Served) -> None:
        """Remember it."""
        self.write(SERVED, _described(served))

    def accounts(self) -> Accounts:
        """Every user, by name."""
        return {name: Account(**stored) for name, stored in orjson.loads(self.read("accounts.json")).items()}

    def local_passwords(self) -> Mapping[str, str]:
        """The passwords of this machine's aggregator and of its operators, by user."""
        passwords: dict[str, str] = orjson.loads(self.read("local.json"))
        return passwords

    def begin(self, served: Served, aggregator: str) -> None:
        """Write the first accounts: the aggregator's and the operators'."""
        self.directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        self.keep_served(served)
        operator, own = new_password(), User(Role.AGGREGATOR, aggregator)
        passwords = {str(own): new_password()}
        # One hash for all of them: they differ in the name only, which is that of a connection.
        passwords |= {str(User(Role.OPERATOR, str(number + 1))): operator for number in range(OPERATOR_PLACES)}
        self.write("local.json", orjson.dumps(passwords).decode())
        self._store({user: Account(hash=hash_password(password)) for user, password in passwords.items()}, served)

    @contextlib.contextmanager
    def changing(self) -> Iterator[Accounts]:
        """The accounts, to be changed by one at a time; what the broker reads is written from them at the end."""
        served = self.served()
        with self.held("lock"):
            accounts = self.accounts()
            yield accounts
            self._store(accounts, served)

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Keep others from what the lock of this name guards."""
        with (self.directory / name).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def write_broker_files(self) -> None:
        """Write what the broker reads anew, from the accounts."""
        with self.held("lock"):
            self._store(self.accounts(), self.served())

    def read(self, name: str) -> str:
        """A file of the directory."""
        path = self.directory / name
        try:
            return path.read_text()
        except FileNotFoundError:
            text = f"{path}: not there; `telemetry broker init --name NAME` makes what a broker needs beyond loopback"
            raise TelemetryError(text) from None
        except OSError as error:
            raise TelemetryError(f"{path}: {error.strerror}; run it as the user who ran `broker init`") from None

    def write(self, name: str, text: str) -> None:
        """Write a file of the directory, for its owner only."""
        write_private(self.directory / name, text)

    def write_for_broker(self, name: str, text: str) -> None:
        """Write a file that Mosquitto reads, owned by whom its directory belongs to."""
        write_private(self.broker / name, text, owner=self.broker.stat())

    @property
    def generation(self) -> int:
        """A number that grows with each change of what the broker reads."""
        try:
            return int((self.directory / "generation").read_text())
        except (OSError, ValueError):
            return 0

    def renew_server(self, served: Served, certificate: str, key: str) -> None:
        """Give the broker another certificate."""
        with self.held("lock"):
            self.keep_served(served)
            self.write_for_broker(SERVER_KEY, key)
            self.write_for_broker(SERVER_CERTIFICATE, certificate)
            self._changed()

    def _changed(self) -> None:
        self.write("generation", str(self.generation + 1))

    def _store(self, accounts: Accounts, served: Served) -> None:
        self.write("accounts.json", orjson.dumps({name: asdict(one) for name, one in accounts.items()}).decode())
        self.write_for_broker(SERVED, _described(served))
        users = [user for user in map(User.parse, accounts) if user is not None]
        # The passwords last: a user who is new has its rules by then, and the broker reads both at once anyway.
        self.write_for_broker(ACL, render_acl(users, served.topics))
        self.write_for_broker(PASSWORDS, "".join(f"{name}:{one.hash}\n" for name, one in accounts.items()))
        self._changed()


def _described(served: Served) -> str:
    return orjson.dumps(asdict(served)).decode()
