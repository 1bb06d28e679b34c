"""The APIs of lotus-miner and of full nodes are found where Lotus' own tools find them, in the same order.

A variable beats a repository. What is absent is None or empty; what is wrong is a UsageError that names the variable or
the file and repeats nothing of what is in it, because a token may stand at the wrong place.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, unquote_plus, urlsplit

from telemetry.errors import UsageError

_T = TypeVar("_T")

_HELP = "write TOKEN:/ip4/ADDRESS/tcp/PORT/http or http://HOST:PORT"

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\.?")
_NET_LOCATION = re.compile(r"(?:\[(?P<ip6>[^\]]*)\]|(?P<name>[^:\[\]]+))(?::(?P<port>.*))?")
_PRINTABLE = re.compile(r"[!-~]+")
_PORT = re.compile(r"[0-9]{1,5}")

_SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}
_HOST_PROTOCOLS = {"ip4", "ip6", "dns", "dns4", "dns6"}
_PLAIN_PROTOCOLS = {"http", "ws"}
_SECURE_PROTOCOLS = {"https", "wss", "tls"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where an API takes POSTs, and the token that it wants; without one it lets read what is public."""

    url: str
    token: str | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """The name or address of the machine."""
        return urlsplit(self.url).hostname or ""

    @property
    def older(self) -> "Endpoint | None":
        """The same API one version before; None where there is none."""
        before, path, after = self.url.partition(_NODE.path)
        return replace(self, url=f"{before}{_OLDER_NODE_PATH}{after}") if path else None

    def __post_init__(self) -> None:
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise UsageError("a token has letters, digits and -._~+/= only")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Api:
    """Where the address of a kind of API is kept, the current name before the deprecated ones."""

    variables: tuple[str, ...]
    path_variables: tuple[str, ...]
    directories: tuple[str, ...]
    path: str
    needs_token: bool


_MINER = _Api(
    variables=("MINER_API_INFO", "STORAGE_API_INFO"),
    path_variables=("LOTUS_MINER_PATH", "LOTUS_STORAGE_PATH"),
    directories=(".lotusminer", ".lotusstorage"),
    path="/rpc/v0",
    needs_token=True,
)
_NODE = _Api(
    variables=("FULLNODE_API_INFO",),
    path_variables=("LOTUS_PATH",),
    directories=(".lotus",),
    path="/rpc/v1",
    needs_token=False,
)

_OLDER_NODE_PATH = "/rpc/v0"


def find_miner(environ: Mapping[str, str], home: Path) -> Endpoint | None:
    """The API of lotus-miner, the first where several are named; None where there is none, or it was stopped."""
    return next(iter(_find(_MINER, environ, home)), None)


def find_nodes(environ: Mapping[str, str], home: Path) -> tuple[Endpoint, ...]:
    """The APIs of the full nodes, in the order in which they are to be tried."""
    return _find(_NODE, environ, home)


def tells_of_miner(environ: Mapping[str, str], home: Path) -> bool:
    """Whether a variable or a repository tells of a lotus-miner, be it running or not."""
    named = any(environ.get(name, "").strip() for name in (*_MINER.variables, *_MINER.path_variables))
    return named or any(_is_directory(home / name) for name in _MINER.directories)


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        # Out of our reach: whose it is can be seen all the same.
        return True


def _find(api: _Api, environ: Mapping[str, str], home: Path) -> tuple[Endpoint, ...]:
    for name in api.variables:
        text = environ.get(name, "").strip()
        if text:
            return _named(name, partial(_parse_entries, text, api.path))
    for name in api.path_variables:
        directory = environ.get(name, "").strip()
        if directory:
            return _read_repository(_expanded(directory, home), api)
    found = (home / name for name in api.directories)
    return next((_read_repository(path, api) for path in found if _named(path, path.is_dir)), ())


def _expanded(directory: str, home: Path) -> Path:
    return home / directory[2:] if directory == "~" or directory.startswith("~/") else Path(directory)


def _read_repository(directory: Path, api: _Api) -> tuple[Endpoint, ...]:
    address_file, token_file = directory / "api", directory / "token"
    address = _read(address_file)
    if address is None:
        return ()
    url, _ = _named(address_file, partial(_parse_address, address, api.path))
    token = _read_token(token_file, api)
    return (_named(token_file, partial(Endpoint, url=url, token=token)),)


def _read_token(file: Path, api: _Api) -> str | None:
    """The token of a repository; one that others may not read hinders only where nothing goes without it."""
    try:
        return _read(file) or None
    except UsageError:
        if api.needs_token:
            raise
        return None


def _read(file: Path) -> str | None:
    """The text of a file without the space around it, or None where there is no such file."""
    return _named(file, partial(_text, file))


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _named(place: str | Path, step: Callable[[], _T]) -> _T:
    """The result of a step; what is wrong there is told with the place, and with nothing of the text itself."""
    try:
        return step()
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from None
    except OSError as error:
        raise UsageError(f"{place}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{place}: is not text") from None


def _parse_entries(text: str, path: str) -> tuple[Endpoint, ...]:
    return tuple(_parse_entry(entry.strip(), path) for entry in text.split(","))


def _parse_entry(text: str, path: str) -> Endpoint:
    """`[TOKEN:]ADDRESS`: a token stands before the first colon, unless that colon is the one of `http://`."""
    before, colon, after = text.partition(":")
    has_token = bool(colon) and not text.startswith("/") and not after.startswith("//")
    url, token_in_url = _parse_address(after if has_token else text, path)
    return Endpoint(url=url, token=(before if has_token else "") or token_in_url)


def _parse_address(text: str, path: str) -> tuple[str, str | None]:
    """The URL for POSTs of a multiaddr or a URL, and the token that a URL may carry."""
    if not _PRINTABLE.fullmatch(text):
        raise UsageError(f"an address is empty or has a character that none has; {_HELP}")
    if text.startswith("/"):
        return _parse_multiaddr(text) + path, None
    if "://" in text:
        return _parse_url(text, path)
    raise UsageError(f"an address is neither a multiaddr nor a URL; {_HELP}")


def _parse_multiaddr(text: str) -> str:
    words = text.strip("/").split("/")
    if len(words) < 4 or words[0] not in _HOST_PROTOCOLS or words[2] != "tcp":
        raise UsageError(f"a multiaddr does not begin with a host and a TCP port; {_HELP}")
    if not set(words[4:]) <= _PLAIN_PROTOCOLS | _SECURE_PROTOCOLS:
        raise UsageError(f"a multiaddr has a protocol other than http, https, ws, wss and tls; {_HELP}")
    scheme = "https" if _SECURE_PROTOCOLS & set(words[4:]) else "http"
    return f"{scheme}://{_host(words[1], words[0])}:{_port(words[3])}"


def _parse_url(text: str, path: str) -> tuple[str, str | None]:
    try:
        parts = urlsplit(text)
    except ValueError:
        raise UsageError(f"a URL is malformed; {_HELP}") from None
    if parts.scheme not in _SCHEMES:
        raise UsageError("a URL begins with something other than http, https, ws or wss")
    query, token = _without_token(parts.query)
    url = f"{_SCHEMES[parts.scheme]}://{_net_location(parts)}{parts.path.rstrip('/')}{path}"
    return f"{url}?{query}" if query else url, token


def _without_token(query: str) -> tuple[str, str | None]:
    """A query less its tokens, which belong into a header: URLs are shown."""
    pairs = [pair.partition("=") for pair in query.split("&")]
    tokens = [unquote_plus(value) for name, _, value in pairs if unquote_plus(name) == "token"]
    rest = "&".join("".join(pair) for pair in pairs if unquote_plus(pair[0]) != "token")
    return rest, next(filter(None, tokens), None)


def _net_location(parts: SplitResult) -> str:
    if "@" in parts.netloc:
        raise UsageError(f"a URL has a user or password, which Lotus does not know; {_HELP}")
    found = _NET_LOCATION.fullmatch(parts.netloc)
    if found is None:
        raise UsageError(f"a URL is malformed; {_HELP}")
    host = _host(found["name"].lower(), "dns") if found["name"] else _host(found["ip6"], "ip6")
    return host if found["port"] is None else f"{host}:{_port(found['port'])}"


def _host(name: str, protocol: str) -> str:
    """A host as it stands in a URL; "any address of this machine" is where one listens, and is reached by loopback."""
    try:
        if protocol == "ip6":
            return _ip6(ipaddress.IPv6Address(name))
        if protocol == "ip4" or name == "0.0.0.0":  # noqa: S104  # read, not bound
            return _ip4(ipaddress.IPv4Address(name))
    except ValueError:
        raise UsageError(f"an IP address is malformed; {_HELP}") from None
    if not _HOST.fullmatch(name):
        raise UsageError(f"a host name is malformed; {_HELP}")
    return name


def _ip4(address: ipaddress.IPv4Address) -> str:
    return "127.0.0.1" if address.is_unspecified else str(address)


def _ip6(address: ipaddress.IPv6Address) -> str:
    if address.scope_id is not None:
        raise ValueError
    return "[::1]" if address.is_unspecified else f"[{address}]"


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or not 0 < int(text) < 65_536:
        raise UsageError(f"a port is not a number from 1 to 65535; {_HELP}")
    return int(text)
