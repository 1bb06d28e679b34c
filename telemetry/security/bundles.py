"""Bundles: all that a client needs to connect, in one TOML file that is also a settings file, or as files."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from telemetry.access import User

_HEAD = "# Whoever has this file is {user}: keep it to its owner. `telemetry revoke` ends it.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What one client gets. `settings` are tables of others, such as who the agent is."""

    url: str
    user: User
    password: str = field(repr=False)
    miner_agent: tuple[User, str] | None = field(default=None, repr=False)
    ca: str = ""
    certificate: str = ""
    key: str = field(default="", repr=False)
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def toml(self) -> str:
        """The bundle as the settings file that it is."""
        broker = {"url": self.url, "username": str(self.user), "password": self.password}
        if self.miner_agent is not None:
            user, password = self.miner_agent
            broker |= {"miner_username": str(user), "miner_password": password}
        tables = {"broker": broker, **self.settings, "tls": self._tls()}
        return _HEAD.format(user=self.user) + "".join(_table(name, table) for name, table in tables.items() if table)

    def files(self) -> dict[str, str]:
        """The same as files, by name, for other clients than ours."""
        named = {"ca.crt": self.ca, "client.crt": self.certificate, "client.key": self.key}
        named |= {"url": f"{self.url}\n", "username": f"{self.user}\n", "password": f"{self.password}\n"}
        return {name: text for name, text in named.items() if text}

    def _tls(self) -> dict[str, str]:
        named = {"ca": self.ca, "cert": self.certificate, "key": self.key}
        return {name: pem for name, pem in named.items() if pem}


def _table(name: str, table: Mapping[str, str]) -> str:
    return f"\n[{name}]\n" + "".join(f"{key} = {_quoted(value)}\n" for key, value in table.items())


def _quoted(value: str) -> str:
    # What stands in a bundle is names, URLs, PEM and passwords of A-Z a-z 0-9 _ -: nothing that TOML escapes.
    assert not set(value) & {'"', "\\"}
    return f'"""\n{value}"""' if "\n" in value else f'"{value}"'
