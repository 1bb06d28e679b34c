"""Settings: what can be set, its default, and how a file, variables and options become one value.

A TOML file, then `TELEMETRY_*` variables, then options; each overrides the one before. An unknown name is an error
that tells the nearest known one. No I/O here: text and mappings come in.
"""

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

from telemetry.errors import UsageError

Table: TypeAlias = dict[str, Any]

_T = TypeVar("_T")

VARIABLE_PREFIX = "TELEMETRY_"

_MOST_COUNTED = 2**53

_TAKEN_UP = re.compile(r"(intervals|deadbands|log)\..*|sources\..*\.interval")
"""The settings that a part takes up while it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """`[broker]`: where it is (empty: beside the data, or on this machine), and how many connections it takes.

    `username` and `password` go before those of the URL; a miner's agent has its own, `miner_*`, on the same machine.
    After a lost connection the first tries come within `retry_first` seconds; the longer the outage, the later, up to
    `retry_most`.
    """

    url: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    miner_username: str = ""
    miner_password: str = field(default="", repr=False)
    protocol: Literal["3.1.1", "5"] = "3.1.1"
    connections: int = 12_000
    retry_first: float = 3.0
    retry_most: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """`[tls]`: PEM texts or files: whom to trust (empty: whom the system trusts), a client's certificate and key."""

    ca: str = ""
    cert: str = ""
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """`[agent]`: whom an agent reports for, and the aggregators (by name, with commas) that keep copies of its log."""

    miner: str = ""
    name: str = ""
    state: str = ""
    aggregators: str = "main"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """`[spool]`: what an agent keeps of messages that no aggregator has acknowledged; the oldest go first."""

    bytes: int = 64 << 20
    seconds: float = 7 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregator:
    """`[aggregator]`: its name, by which agents tell its acknowledgements, and its database.

    It takes `rate` bytes a second from one agent, and a minute's worth of that at once.
    """

    name: str = "main"
    database: str = ""
    rate: float = 262_144


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """`[web]`: where the page is served, and to whom.

    `names`, with commas, are those by which browsers reach it. Whoever looks has to log in where it is reached by any
    other than this machine's own (`auto`), or `always`. `cert` and `key` are PEM texts or files.
    """

    listen: str = "127.0.0.1"
    port: int = 8585
    names: str = ""
    login: Literal["auto", "always"] = "auto"
    cert: str = ""
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """`[history]`: for how many seconds an aggregator keeps messages, and summaries of five minutes and of an hour.

    Where the database holds more than `bytes`, the oldest goes before its time: messages first.
    """

    messages: float = 14 * 86_400.0
    five_minutes: float = 90 * 86_400.0
    hours: float = 730 * 86_400.0
    bytes: int = 20 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefixes:
    """`[topics]`: how topics begin."""

    records: str = "miners"
    control: str = "telemetry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lotus:
    """`[lotus]`: whether this machine's agent is also its miner's, and the network that the full node must be on.

    `auto` is when the variables or repositories of Lotus tell of a lotus-miner on this machine; an empty network is
    the one for which lotus-miner was built.
    """

    use: Literal["auto", "always", "never"] = "auto"
    network: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """`[intervals]`, in seconds.

    Agent: `host` between samples of the hardware, `queues` between polls of the workers and of the chain's head,
    `miner` between those of balances and sectors, `chain` between walks through all partitions, `push` the least time
    between two messages of changes, `heartbeat` the longest silence, `full` between full reports, `health` between
    messages on how the agent itself is. Aggregator: `snapshot` the least time between two snapshots of a record,
    `refresh` the longest, `acknowledge` between acknowledgements, `stale` the silence after which a host is stale,
    `lost` for how long a death must stand before it is believed.
    """

    host: float = 10.0
    queues: float = 30.0
    miner: float = 60.0
    chain: float = 300.0
    push: float = 5.0
    heartbeat: float = 60.0
    full: float = 900.0
    health: float = 300.0
    snapshot: float = 5.0
    refresh: float = 60.0
    acknowledge: float = 60.0
    stale: float = 150.0
    lost: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """`[log]`: from which level on is told what happens, and in which form.

    `auto` is text on a terminal, journald's form where that reads, and otherwise one JSON object a line.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json", "journal"] = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """`[sources.NAME]`: seconds between samples (0: the usual), and how long one may take (unset: the usual)."""

    interval: float = 0.0
    deadline: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. `deadbands` replaces declared deadbands, by field name, in the field's unit.

    `hosts` gives the host on which a worker runs whose name is another, `overdue` the seconds after which a task is
    overdue, by the task's short name.
    """

    broker: Broker = field(default_factory=Broker)
    tls: Tls = field(default_factory=Tls)
    agent: Identity = field(default_factory=Identity)
    aggregator: Aggregator = field(default_factory=Aggregator)
    history: Retention = field(default_factory=Retention)
    spool: Spool = field(default_factory=Spool)
    web: Web = field(default_factory=Web)
    topics: Prefixes = field(default_factory=Prefixes)
    intervals: Intervals = field(default_factory=Intervals)
    lotus: Lotus = field(default_factory=Lotus)
    log: Log = field(default_factory=Log)
    sources: Mapping[str, SourceSettings] = field(default_factory=dict)
    deadbands: Mapping[str, float] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)
    overdue: Mapping[str, float] = field(default_factory=dict)


def read_settings(
    *,
    text: str = "",
    file: str = "",
    bundle: str = "",
    bundle_file: str = "",
    environ: Mapping[str, str],
    options: Table,
) -> Settings:
    """The settings from a bundle's and a file's text (`*file` names it in errors), the environment and the options."""
    merged: Table = {}
    for one, name in ((bundle, bundle_file), (text, file)):
        table = _parse(one, name) if one else {}
        _reject_unknown(Settings, table, place=f"{name}: ")
        merged = _merge(merged, table)
    merged = _merge(_merge(merged, _variables(environ)), options)
    return _build(Settings, merged, path="")


def differences(before: Settings, after: Settings) -> tuple[list[str], list[str]]:
    """The names of what differs: what a part that runs can take up, and what only one that starts can."""
    old, new = (dict(_flat(dataclasses.asdict(one))) for one in (before, after))
    differing = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    taken = [name for name in differing if _TAKEN_UP.fullmatch(name)]
    return taken, [name for name in differing if name not in taken]


def _flat(table: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _parse(text: str, file: str) -> Table:
    import tomllib  # noqa: PLC0415  # an agent without a file does without

    try:
        return tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from None
    except RecursionError:
        raise UsageError(f"{file}: nested too deeply") from None


def require_known(table: Mapping[str, object], known: Collection[str], name: str) -> None:
    """Raise UsageError when a table that is keyed by names has one that is not known."""
    for key in table:
        if key not in known:
            raise UsageError(f"unknown setting {name}.{key}{nearest(key, known, f'{name}.')}")


def _variables(environ: Mapping[str, str]) -> Table:
    table: Table = {}
    for variable, text in environ.items():
        if variable.startswith(VARIABLE_PREFIX):
            path = _path_of(variable)
            table = _merge(table, _nested(path, text))
    return table


def _path_of(variable: str) -> list[str]:
    """The setting that a variable names: `TELEMETRY_INTERVALS_HOST` is intervals.host."""
    first, _, rest = variable.removeprefix(VARIABLE_PREFIX).partition("_")
    table = first.lower()
    if table == "sources":
        source, _, key = rest.lower().rpartition("_")
        if not source or not key:
            raise UsageError(f"environment: unknown {variable}; sources are set by TELEMETRY_SOURCES_NAME_INTERVAL")
        return [table, source, key]
    if table in {"deadbands", "hosts", "overdue"}:
        return [table, rest]
    known = {f"{name}_{key}".upper() for name, section in _sections().items() for key in _keys(section)}
    name = variable.removeprefix(VARIABLE_PREFIX)
    if name not in known:
        raise UsageError(f"environment: unknown {variable}{nearest(name, known, VARIABLE_PREFIX)}")
    return [table, rest.lower()]


def _sections() -> dict[str, type]:
    return {
        name: hint
        for name, hint in get_type_hints(Settings).items()
        if isinstance(hint, type) and dataclasses.is_dataclass(hint)
    }


def _keys(section: type) -> list[str]:
    return [one.name for one in dataclasses.fields(section)]


def _nested(path: list[str], value: object) -> Table:
    for key in reversed(path):
        value = {key: value}
    return value  # type: ignore[return-value]  # a path has at least one key


def _merge(below: Table, above: Table) -> Table:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _reject_unknown(section: type, table: Table, *, place: str, path: str = "") -> None:
    known = _keys(section)
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{place}unknown setting {path}{key}{nearest(key, known, path)}")
        hint = get_type_hints(section)[key]
        if dataclasses.is_dataclass(hint) and isinstance(value, dict):
            _reject_unknown(hint, value, place=place, path=f"{path}{key}.")  # type: ignore[arg-type]  # it is a class


def nearest(name: str, known: Collection[str], prefix: str = "") -> str:
    """The end of an error on an unknown name: the nearest known one, if there is any."""
    import difflib  # noqa: PLC0415  # for errors only

    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.4)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


def _build(section: type[_T], table: Table, path: str) -> _T:
    _reject_unknown(section, table, place="", path=path)
    hints = get_type_hints(section)
    return section(**{key: _convert(hints[key], value, f"{path}{key}") for key, value in table.items()})


def _convert(hint: Any, value: object, name: str) -> Any:  # noqa: ANN401  # of the type that the hint says
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        raise UsageError(f"{name} = {value!r}: expected {' or '.join(map(repr, get_args(hint)))}")
    if get_origin(hint) is not None:
        entry = get_args(hint)[1]
        return {key: _convert(entry, one, f"{name}.{key}") for key, one in _table(value, name).items()}
    if dataclasses.is_dataclass(hint):
        return _build(hint, _table(value, name), f"{name}.")  # type: ignore[arg-type]  # it is a class
    if hint is str:
        if isinstance(value, str):
            return value
        # Not shown: it may hold the broker's password.
        raise UsageError(f"{name}: expected a string")
    return _number(hint, value, name)


def _table(value: object, name: str) -> Table:
    if not isinstance(value, dict):
        raise UsageError(f"{name}: expected a table")
    return value


def _number(hint: type[int] | type[float], value: object, name: str) -> float:
    try:
        number = hint(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        number = None
    if (
        number is None
        or not 0 <= number < (_MOST_COUNTED if hint is int else 1e9)
        or (isinstance(value, float) and number != value)
    ):
        kind = "an integer" if hint is int else "a number"
        raise UsageError(f"{name} = {value!r}: expected {kind} of 0 or more")
    inherited = number == 0 and name.startswith("sources.") and name.endswith(".interval")
    if name.startswith(("intervals.", "sources.")) and number < 0.05 and not inherited:
        raise UsageError(f"{name} = {value!r}: expected 0.05 seconds or more")
    return number
