"""Run the Mosquitto that is installed, with its files below --data.

By itself on loopback and without credentials; beyond loopback, with TLS and credentials, after `telemetry broker init`.
"""

import argparse
import logging
from pathlib import Path

from telemetry.access import require_name
from telemetry.cli.options import DEFAULT_DATA, add_common, chosen
from telemetry.errors import TelemetryError, UsageError
from telemetry.logs import start_logging
from telemetry.mosquitto import connection_limit, prepare_directory, run_mosquitto
from telemetry.processes import require_free
from telemetry.security.expiry import format_day
from telemetry.security.registry import CLIENT_AUTHORITY, Registry, Served
from telemetry.security.reload import reload_broker

_log = logging.getLogger(__name__)

_IN_SO_MANY_WORDS = "--without-tls-and-credentials"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_common(parser)
    parser.add_argument("--port", type=int, default=1883, help="loopback port (default: %(default)s)")
    parser.add_argument(
        "--open-to", metavar="ADDRESS", help=f"listen there too, for everybody: needs {_IN_SO_MANY_WORDS}"
    )
    parser.add_argument(_IN_SO_MANY_WORDS, dest="is_open", action="store_true", help="on a network that you trust")
    parser.add_argument("--quiet", action="store_true", help=argparse.SUPPRESS)
    actions = parser.add_subparsers(dest="action", metavar="init|renew")
    init = actions.add_parser("init", help="make what it needs to serve a network", description=_init.__doc__)
    _add_data(init)
    init.add_argument(
        "--name",
        action="append",
        required=True,
        help="by which hosts reach it, or its address; more than once for more",
    )
    init.add_argument(
        "--port", dest="tls_port", type=int, default=8883, help="for MQTT over TLS (default: %(default)s)"
    )
    init.add_argument("--listen", default="", metavar="ADDRESS", help="listen there only (default: on all addresses)")
    init.add_argument(
        "--client-certificates", action="store_true", help="ask every client for one, beside its password"
    )
    _add_own(init)
    renew = actions.add_parser("renew", help="make its certificate anew", description=_renew.__doc__)
    _add_data(renew)
    _add_own(renew)


def _add_data(parser: argparse.ArgumentParser) -> None:
    # Where it is left out, what stands before the action holds.
    parser.add_argument(
        "--data", default=argparse.SUPPRESS, metavar="DIR", help=f"data directory (default: ./{DEFAULT_DATA})"
    )
    parser.add_argument("--config", default=argparse.SUPPRESS, metavar="FILE", help="settings, in TOML")


def _add_own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cert", metavar="FILE", help="a server certificate of your own, in PEM")
    parser.add_argument("--key", metavar="FILE", help="its private key")
    parser.add_argument("--ca", metavar="FILE", help="who signed it, where hosts do not trust them by themselves")


def run(arguments: argparse.Namespace) -> int:
    """Become Mosquitto, or make what it needs."""
    if arguments.action == "init":
        return _init(arguments)
    if arguments.action == "renew":
        return _renew(arguments)
    choice = chosen(arguments)
    registry = Registry(choice.data)
    _require_said(arguments, registry)
    start_logging("broker", choice.settings.log)
    require_free(arguments.port)
    where, wanted = arguments.open_to or "", choice.settings.broker.connections
    limit = connection_limit(choice.data, port=arguments.port, wanted=wanted, open_to=where)
    if not arguments.quiet:
        _log.info("%s; %s", _where(arguments, registry), limit)
    run_mosquitto(choice.data, port=arguments.port, limit=limit, open_to=where)
    return 1


def _require_said(arguments: argparse.Namespace, registry: Registry) -> None:
    if not arguments.open_to:
        if arguments.is_open:
            raise UsageError(f"{_IN_SO_MANY_WORDS}: says where: --open-to ADDRESS")
        return
    if registry.exists:
        raise UsageError(f"--open-to: {registry.directory} gives credentials, and this would be a way around them")
    if not arguments.is_open:
        raise UsageError(
            f"--open-to {arguments.open_to}: whoever reaches it could read and write everything: "
            f"`telemetry broker init --name NAME` gives TLS and credentials; or say {_IN_SO_MANY_WORDS}"
        )


def _where(arguments: argparse.Namespace, registry: Registry) -> str:
    local = f"mqtt://127.0.0.1:{arguments.port}"
    if registry.exists:
        served = registry.served()
        return f"{served.url}, with TLS and credentials; {local} for this machine, with credentials"
    if arguments.open_to:
        return f"mqtt://{arguments.open_to}:{arguments.port} and {local}, WITHOUT TLS AND CREDENTIALS"
    return f"{local}, loopback only and without credentials"


def _init(arguments: argparse.Namespace) -> int:
    """Make a private authority, a certificate for the broker, its aggregator's credentials, and its ACL."""
    from telemetry.security.setup import new_identity, own_identity  # noqa: PLC0415  # loads cryptography

    choice = chosen(arguments)
    registry = Registry(choice.data)
    if registry.exists:
        raise TelemetryError(f"{registry.directory}: made already; `telemetry broker renew` makes a certificate anew")
    for name in arguments.name:
        _require_server_name(name)
    if not 0 < arguments.tls_port < 65536:
        raise UsageError(f"--port {arguments.tls_port}: expected 1 to 65535")
    aggregator = require_name(choice.settings.aggregator.name, "aggregator")
    served = Served(
        names=tuple(arguments.name),
        port=arguments.tls_port,
        listen=arguments.listen,
        requires_certificates=arguments.client_certificates,
        records=choice.topics.records,
        control=choice.topics.control,
    )
    if arguments.client_certificates and arguments.cert:
        raise UsageError("--client-certificates: signs them by a private authority, which --cert does without")
    made = (
        own_identity(cert=arguments.cert, key=arguments.key, ca=arguments.ca)
        if arguments.cert or arguments.key
        else new_identity(served)
    )
    prepare_directory(choice.data)
    served = made.described(served)
    registry.begin(served, aggregator)
    if made.authority is not None:
        registry.write("ca.key", made.authority.key)
    registry.write("ca.crt", made.trusted)
    registry.write_for_broker(CLIENT_AUTHORITY, made.trusted)
    registry.renew_server(served, made.server.certificate, made.server.key)
    data, until = choice.data, format_day(served.server_expires)
    print(f"made {registry.directory}: the broker is {served.url}, its certificate until {until}")
    print(f"start it:     telemetry broker --data {data}")
    print(f"and beside:   telemetry aggregator --data {data}")
    print(f"for a host:   telemetry enroll f01234 seal01 --data {data}")
    return 0


def _renew(arguments: argparse.Namespace) -> int:
    """Make the broker's certificate anew, or take another one of yours; a broker that runs takes it up."""
    from telemetry.security.setup import own_identity, renewed_identity  # noqa: PLC0415  # loads cryptography

    registry = Registry(chosen(arguments).data)
    served = registry.served()
    has_own = arguments.cert or arguments.key
    if not has_own and not served.has_authority:
        raise UsageError("--cert, --key: its certificate is one of yours: give the new one")
    made = (
        own_identity(cert=arguments.cert, key=arguments.key, ca=arguments.ca)
        if has_own
        else renewed_identity(registry, served)
    )
    served = made.described(served)
    registry.renew_server(served, made.server.certificate, made.server.key)
    told = "the broker has it" if reload_broker(registry) else "the broker takes it up when it starts"
    print(f"certificate of {served.url} until {format_day(served.server_expires)}; {told}")
    return 0


def _require_server_name(name: str) -> None:
    letters = name.replace(".", "").replace("-", "").replace(":", "")
    if not letters.isascii() or not letters.isalnum() or len(name) > 253 or Path(name).name != name:
        raise UsageError(f"--name {name!r}: expected the name or address by which hosts reach the broker")
