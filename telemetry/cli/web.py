"""Serve a page of the fleet with its read API, to browsers on this machine.

Beyond it with TLS, to those who log in with a viewer's user name and password (`telemetry enroll --viewer NAME`).
"""

import argparse
import logging
import ssl
from importlib.util import find_spec

from telemetry.access import Role, User
from telemetry.cli.foreground import Stop
from telemetry.cli.options import Chosen, add_broker, add_common, add_database, chosen
from telemetry.client import Fleet
from telemetry.config import Web
from telemetry.errors import TelemetryError, UsageError
from telemetry.logs import start_logging
from telemetry.processes import is_loopback
from telemetry.security.registry import Registry
from telemetry.tls import server_context

_log = logging.getLogger(__name__)

_IN_SO_MANY_WORDS = "--without-tls-and-login"
NOT_INSTALLED = "needs libraries that are not installed: pip install 'storage-telemetry[web]'"

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_common(parser)
    add_broker(parser)
    add_database(parser)
    parser.add_argument("--listen", dest="web_listen", metavar="ADDRESS", help="where (default: 127.0.0.1)")
    parser.add_argument("--port", dest="web_port", type=int, metavar="N", help="its port (default: 8585)")
    parser.add_argument("--names", dest="web_names", metavar="NAMES", help="by which browsers reach it, with commas")
    parser.add_argument("--cert", dest="web_cert", metavar="FILE", help="its certificate, in PEM")
    parser.add_argument("--key", dest="web_key", metavar="FILE", help="its private key")
    parser.add_argument(_IN_SO_MANY_WORDS, dest="is_open", action="store_true", help="on a network that you trust")
    parser.add_argument("--quiet", action="store_true", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    if not is_installed():
        raise TelemetryError(f"the web page {NOT_INSTALLED}")
    from telemetry.web.app import Site  # noqa: PLC0415  # the extra `web`
    from telemetry.web.guard import Gate  # noqa: PLC0415
    from telemetry.web.login import Logins  # noqa: PLC0415
    from telemetry.web.past import Past  # noqa: PLC0415
    from telemetry.web.server import listening_socket, serve  # noqa: PLC0415

    stop = Stop()
    choice = chosen(arguments)
    start_logging("web", choice.settings.log)
    names, tls = _names(choice), _tls(choice, is_open=arguments.is_open)
    needs_login = not arguments.is_open and _needs_login(choice)
    if needs_login:
        _require_users(choice)
    logins = Logins(choice.broker, Registry(choice.data)) if needs_login else None
    gate = Gate(logins, None if arguments.is_open else names)
    web = choice.settings.web
    sock = listening_socket(web.listen, web.port)
    if not arguments.quiet:
        _log.info("%s", _where(choice, is_tls=tls is not None, needs_login=needs_login))
    site = Site(_fleet(choice), Past(choice.database, choice.topics), gate)
    serve(site, sock, tls, lambda: stop.is_asked)
    return 0


def is_installed() -> bool:
    """Whether the libraries of the extra `web` are there."""
    return all(map(find_spec, ("starlette", "uvicorn", "websockets", "prometheus_client")))


def _require_users(choice: Chosen) -> None:
    from telemetry.web.login import takes_any_password  # noqa: PLC0415

    try:
        is_useless = takes_any_password(choice.broker, str(User(Role.VIEWER, "nobody")))
    except TelemetryError as error:
        # Each who logs in is tried there too.
        _log.warning("%s; nobody can log in until it answers", error)
        return
    if is_useless:
        raise UsageError(
            f"{choice.broker} takes any password, so that everybody could log in: `telemetry broker init` gives it "
            f"users; or say {_IN_SO_MANY_WORDS}"
        )


def _named(web: Web) -> list[str]:
    return [name for part in web.names.split(",") if (name := part.strip().lower())]


def _names(choice: Chosen) -> frozenset[str] | None:
    """By which it may be asked for; None where anything goes, as whoever asks has to log in."""
    web = choice.settings.web
    named = _named(web)
    return _LOOPBACK | {web.listen, *named} if named or is_loopback(web.listen) else None


def _needs_login(choice: Chosen) -> bool:
    web = choice.settings.web
    return web.login == "always" or not all(map(is_loopback, [web.listen, *_named(web)]))


def _tls(choice: Chosen, *, is_open: bool) -> ssl.SSLContext | None:
    """The certificate that was given, or one by the authority of this machine's broker; None on loopback only."""
    web, registry = choice.settings.web, Registry(choice.data)
    if bool(web.cert) != bool(web.key):
        raise UsageError("web.cert, web.key: expected both")
    if web.cert:
        return server_context(web.cert, web.key, "web.cert, web.key")
    if is_open or is_loopback(web.listen):
        return None
    if registry.exists and registry.served().has_authority:
        from telemetry.security.setup import web_identity  # noqa: PLC0415  # loads cryptography

        made = web_identity(registry, _named(web))
        return server_context(made.certificate, made.key, "web.cert, web.key")
    raise UsageError(
        f"web.listen {web.listen}: whoever is on the way could read all: give --cert and --key, or --data of a broker "
        f"that `telemetry broker init` made; or say {_IN_SO_MANY_WORDS}"
    )


def _where(choice: Chosen, *, is_tls: bool, needs_login: bool) -> str:
    url = url_of(choice.settings.web, is_tls=is_tls)
    if needs_login:
        return f"{url}, for viewers of the broker, who log in"
    return f"{url}, loopback only" if is_loopback(choice.settings.web.listen) else f"{url}, WITHOUT TLS AND LOGIN"


def url_of(web: Web, *, is_tls: bool) -> str:
    """Where browsers find the page."""
    host = next(iter(_named(web)), web.listen)
    return f"{'https' if is_tls else 'http'}://{f'[{host}]' if ':' in host else host}:{web.port}/"


def _fleet(choice: Chosen) -> Fleet:
    """All miners, or the one that the credentials may see."""
    user = User.parse(choice.broker.username or "")
    miner = user.miner if user is not None and user.role is Role.VIEWER else None
    return Fleet(choice.broker, miner=miner, topics=choice.topics, protocol=choice.settings.broker.protocol)
