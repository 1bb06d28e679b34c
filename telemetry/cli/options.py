"""Options that several commands share, and the settings they make together with file and environment."""

import argparse
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from telemetry.config import Settings, Table, read_settings
from telemetry.errors import UsageError
from telemetry.topics import (
    MINER_AGENT,
    AgentKey,
    RecordKey,
    Topics,
    require_miner_id,
    require_prefix,
    require_record_host,
)

if TYPE_CHECKING:
    from telemetry.mqtt import BrokerUrl

DEFAULT_BROKER = "mqtt://127.0.0.1:1883"
"""Where a broker is that nobody named."""

DEFAULT_DATA = "telemetry-data"
"""The default of --data, in the directory where a command is started."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What the user chose: the settings, and where things are on this machine."""

    settings: Settings
    data: Path

    @property
    def database(self) -> Path:
        """The database file."""
        named = self.settings.aggregator.database
        return Path(named) if named else self.data / "telemetry.db"

    @property
    def state(self) -> Path:
        """The directory of what an agent keeps between two runs."""
        named = self.settings.agent.state
        return Path(named) if named else self.data / "agent"

    @property
    def topics(self) -> Topics:
        """The topic tree."""
        prefixes = self.settings.topics
        return Topics(records=require_prefix(prefixes.records), control=require_prefix(prefixes.control))

    @cached_property
    def broker(self) -> "BrokerUrl":
        """The broker: the one that was set, else that of the data directory, as an operator there, else the default."""
        from telemetry.security.local import operator  # noqa: PLC0415  # where no broker is named only

        return self._named or operator(self._beside, self.data)

    @cached_property
    def aggregators_broker(self) -> "BrokerUrl":
        """The same, as this aggregator."""
        from telemetry.security.local import aggregator  # noqa: PLC0415  # where no broker is named only

        return self._named or aggregator(self._beside, self.data, self.settings.aggregator.name)

    def broker_of(self, agent: AgentKey) -> "BrokerUrl":
        """The same, as an agent; the miner's has a user of its own."""
        own = self.settings.broker
        if agent.agent != MINER_AGENT or not own.miner_username:
            return self.broker
        return replace(self.broker, username=own.miner_username, password=own.miner_password)

    @property
    def _named(self) -> "BrokerUrl | None":
        from telemetry.mqtt import BrokerUrl  # noqa: PLC0415  # not for commands that read the database only
        from telemetry.tls import Trust  # noqa: PLC0415

        named, tls = self.settings.broker, self.settings.tls
        if not named.url:
            return None
        url = BrokerUrl.parse(named.url)
        if named.username:
            url = replace(url, username=named.username, password=named.password)
        trust = Trust(ca=tls.ca, cert=tls.cert, key=tls.key)
        if trust.is_set and not url.tls:
            raise UsageError(f"{url}: tls.* is set, which needs mqtts://")
        return replace(url, trust=trust)

    @property
    def _beside(self) -> "BrokerUrl":
        from telemetry.mqtt import BrokerUrl  # noqa: PLC0415

        beside = self.data / "broker" / "url"
        return BrokerUrl.parse(_read(str(beside)).strip() if beside.exists() else DEFAULT_BROKER)


def add_common(parser: argparse.ArgumentParser, *, data: str = DEFAULT_DATA) -> None:
    """`--data` and `--config`."""
    parser.add_argument("--data", metavar="DIR", default=data, help="data directory (default: ./%(default)s)")
    parser.add_argument("--config", metavar="FILE", help="settings, in TOML")


def add_broker(parser: argparse.ArgumentParser) -> None:
    """`--broker` and `--bundle`."""
    parser.add_argument("--broker", metavar="URL", help="mqtt://HOST:PORT or mqtts://USER:PASSWORD@HOST:PORT")
    parser.add_argument(
        "--bundle", metavar="FILE", help="what `telemetry enroll` gave: where the broker is, and who we are"
    )


def add_database(parser: argparse.ArgumentParser) -> None:
    """`--database`."""
    parser.add_argument("--database", metavar="FILE", help="the database (default: telemetry.db in --data)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def add_record(parser: argparse.ArgumentParser) -> None:
    """`MINER [HOST]`, or `MINER/HOST` as it is printed."""
    parser.add_argument("miner", metavar="MINER", help="the miner's id, such as f01234")
    parser.add_argument("host", metavar="HOST", nargs="?", help="a host of it (MINER/HOST does too)")


def record_of(arguments: argparse.Namespace) -> RecordKey:
    """The record that `MINER [HOST]` names."""
    return named_record(arguments.miner, arguments.host)


def named_record(miner: str, host: str | None) -> RecordKey:
    """The record of a miner, or of a host, whose name may stand behind the miner's and a slash."""
    miner, slash, rest = miner.removeprefix(" ").partition("/")
    if slash and host is not None:
        raise UsageError(f"two hosts are named: {rest} and {host}")
    host = rest if slash else host
    return RecordKey(require_miner_id(miner), require_record_host(host) if host is not None else None)


_OPTION_PATHS = {
    "broker": ("broker", "url"),
    "miner_id": ("agent", "miner"),
    "host_name": ("agent", "name"),
    "state": ("agent", "state"),
    "aggregator_name": ("aggregator", "name"),
    "database": ("aggregator", "database"),
    "web_listen": ("web", "listen"),
    "web_port": ("web", "port"),
    "web_names": ("web", "names"),
    "web_cert": ("web", "cert"),
    "web_key": ("web", "key"),
}


def chosen(arguments: argparse.Namespace) -> Chosen:
    """Settings from file, environment and options."""
    options: Table = {}
    for option, (table, key) in _OPTION_PATHS.items():
        value = getattr(arguments, option, None)
        if value is not None:
            options.setdefault(table, {})[key] = value
    file, bundle = arguments.config or "", getattr(arguments, "bundle", None) or ""
    settings = read_settings(
        text=_read(file),
        file=file,
        bundle=_read(bundle),
        bundle_file=bundle,
        environ=os.environ,
        options=options,
    )
    return Chosen(settings=settings, data=Path(arguments.data))


def _read(file: str) -> str:
    if not file:
        return ""
    try:
        return Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{file}: {reason}") from None
