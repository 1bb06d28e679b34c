"""Serve a page of the fleet, its read API and its WebSocket."""

import argparse
import sys

from telemetry.cli.foreground import Stop
from telemetry.cli.options import add_broker, add_common, add_database, chosen
from telemetry.client import Fleet
from telemetry.logs import start_logging
from telemetry.web.app import Site
from telemetry.web.past import Past
from telemetry.web.server import listening_socket, serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_common(parser)
    add_broker(parser)
    add_database(parser)
    parser.add_argument("--listen", dest="web_listen", metavar="ADDRESS", help="where (default: 127.0.0.1)")
    parser.add_argument("--port", dest="web_port", type=int, metavar="N", help="its port (default: 8585)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    stop = Stop()
    choice = chosen(arguments)
    start_logging("web", choice.settings.log)
    web = choice.settings.web
    sock = listening_socket(web.listen, web.port)
    fleet = Fleet(choice.broker, topics=choice.topics, protocol=choice.settings.broker.protocol)
    print(f"web: http://{web.listen}:{web.port}/", file=sys.stderr, flush=True)
    serve(Site(fleet, Past(choice.database, choice.topics)), sock, lambda: stop.is_asked)
    return 0
