"""What `enroll`, `rotate` and `revoke` share: whom they are about, and where bundles go."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from telemetry.access import Role, User, require_name
from telemetry.cli.options import add_common, chosen
from telemetry.errors import TelemetryError, UsageError
from telemetry.security.bundles import Bundle
from telemetry.security.enrolment import Enrolment, Wanted
from telemetry.security.files import create_private, write_private
from telemetry.security.registry import Registry
from telemetry.security.reload import reload_broker
from telemetry.topics import MINER_AGENT, AgentKey, require_host_name, require_miner_id


def add_whom(parser: argparse.ArgumentParser) -> None:
    """`MINER HOST`, `--list FILE`, `--viewer NAME [MINER]` or `--aggregator NAME`."""
    parser.add_argument("miner", metavar="MINER", nargs="?", help="the miner's id, such as f01234")
    parser.add_argument("host", metavar="HOST", nargs="?", help="a host of it")
    parser.add_argument("--list", metavar="FILE", help="of many hosts: one a line, `MINER HOST`; - is standard input")
    parser.add_argument("--viewer", metavar="NAME", help="one who reads: of MINER, or of all where that is left out")
    parser.add_argument("--aggregator", metavar="NAME", help="an aggregator on another machine")
    add_common(parser)


def add_output(parser: argparse.ArgumentParser) -> None:
    """`--miner-agent`, `--output` and `--files`."""
    parser.add_argument(
        "--miner-agent", action="store_true", help="the host is the miner's own: its agent runs there too"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="the bundle, or with --list the directory of all (default: by its name, here)"
    )
    parser.add_argument("--files", metavar="DIR", help="write certificates, user name and password as files there")


def whom(arguments: argparse.Namespace) -> list[Wanted]:
    """The users that the options name."""
    named = [arguments.list, arguments.viewer, arguments.aggregator]
    if sum(one is not None for one in named) > 1:
        raise UsageError("--list, --viewer, --aggregator: expected one of them")
    runs_miner_agent = getattr(arguments, "miner_agent", False)
    if runs_miner_agent and (any(one is not None for one in named) or arguments.host is None):
        raise UsageError("--miner-agent: expected MINER and HOST with it")
    if arguments.list is not None:
        return _listed(arguments.list)
    if arguments.viewer is not None:
        miner = None if arguments.miner is None else require_miner_id(arguments.miner)
        return [Wanted(User(Role.VIEWER, require_name(arguments.viewer, "viewer"), miner))]
    if arguments.aggregator is not None:
        return [Wanted(User(Role.AGGREGATOR, require_name(arguments.aggregator, "aggregator")))]
    if arguments.miner is None or arguments.host is None:
        raise UsageError("expected MINER HOST, --list FILE, --viewer NAME or --aggregator NAME")
    return [Wanted(_agent(arguments.miner, arguments.host), runs_miner_agent)]


def _agent(miner: str, host: str) -> User:
    name = host if host == MINER_AGENT else require_host_name(host)
    return User.of_agent(AgentKey(require_miner_id(miner), name))


def _listed(file: str) -> list[Wanted]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{file}: {reason}") from None
    wanted: dict[User, Wanted] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].replace("/", " ").split()
        if not words:
            continue
        if len(words) != 2:
            raise UsageError(f"{file}, line {number}: expected MINER HOST")
        try:
            user = _agent(*words)
        except UsageError as error:
            raise UsageError(f"{file}, line {number}: {error}") from None
        wanted[user] = Wanted(user)
    if not wanted:
        raise UsageError(f"{file}: names no host; expected `MINER HOST`, one a line")
    return list(wanted.values())


class Outputs:
    """Where bundles go: what is in the way is found before anyone is enrolled."""

    def __init__(self, arguments: argparse.Namespace, wanted: Sequence[Wanted], *, replaces: bool) -> None:
        self._replaces = replaces
        self._files = Path(arguments.files) if arguments.files else None
        if self._files is not None and (arguments.output or len(wanted) > 1):
            raise UsageError("--files: of one user, and instead of --output")
        output = Path(arguments.output) if arguments.output else None
        many = arguments.list is not None
        directory = (output or Path()) if many else None
        self._paths = {
            str(one.user): directory / f"{one.user}.toml" if directory else output or Path(f"{one.user}.toml")
            for one in wanted
        }
        self._prepare(self._files or directory)
        if not replaces:
            for path in self._paths.values() if self._files is None else ():
                if path.exists():
                    raise TelemetryError(f"{path}: there already; remove it, or give another --output")

    @staticmethod
    def _prepare(directory: Path | None) -> None:
        if directory is not None:
            try:
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise TelemetryError(f"{directory}: {error.strerror}") from None

    def write(self, bundles: Iterable[Bundle]) -> Iterator[Path]:
        """Write them, for their owner only; where each is."""
        for bundle in bundles:
            if self._files is not None:
                for name, text in bundle.files().items():
                    self._write(self._files / name, text)
                yield self._files
            else:
                path = self._paths[str(bundle.user)]
                self._write(path, bundle.toml())
                yield path

    def _write(self, path: Path, text: str) -> None:
        try:
            if self._replaces or self._files is not None:
                write_private(path, text)
            else:
                create_private(path, text)
        except OSError as error:
            text = f"{path}: {error.strerror}; the user is made: `telemetry rotate` gives another bundle"
            raise TelemetryError(text) from None


def give(
    arguments: argparse.Namespace,
    make: Callable[[Enrolment, Sequence[Wanted]], Iterable[Bundle]],
    *,
    replaces: bool,
    verb: str,
) -> None:
    """Make credentials of those whom the options name, write their bundles, and have the broker know."""
    registry, wanted = Registry(chosen(arguments).data), whom(arguments)
    enrolment, outputs = Enrolment(registry), Outputs(arguments, wanted, replaces=replaces)
    paths = list(outputs.write(make(enrolment, wanted)))
    _tell_bundles(paths, tell_broker(registry), verb)


def tell_broker(registry: Registry) -> str:
    """Have the broker take the change up; what is said of it."""
    if reload_broker(registry):
        return "the broker has it"
    return "no broker of ours runs there: it takes it up when it starts (another Mosquitto: when it gets SIGHUP)"


def _tell_bundles(paths: Sequence[Path], told: str, verb: str) -> None:
    """Say what was made, and what to do with it."""
    if len(paths) == 1:
        print(f"{verb} {paths[0]}: {told}")
    else:
        print(f"{verb} {len(paths)} bundles in {paths[0].parent}: {told}")
