"""Mirror every record into the database, publish snapshots, and answer those who ask for them."""

import argparse
import gc
import signal
from functools import partial

from telemetry.aggregator.limits import LEAST_RATE
from telemetry.aggregator.run import Aggregator
from telemetry.cli.options import add_broker, add_common, add_database, chosen
from telemetry.cli.reload import Reload
from telemetry.errors import UsageError
from telemetry.logs import start_logging
from telemetry.mqtt import Connection
from telemetry.security.reload import holder
from telemetry.stores.sqlite import SqliteStore
from telemetry.topics import require_host_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_common(parser)
    add_broker(parser)
    add_database(parser)
    parser.add_argument(
        "--name", dest="aggregator_name", help="its name, by which agents tell its acks (default: main)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Mirror until Ctrl-C or SIGTERM."""
    choice = chosen(arguments)
    start_logging("aggregator", choice.settings.log)
    if (rate := choice.settings.aggregator.rate) < LEAST_RATE:
        raise UsageError(f"aggregator.rate = {rate:g}: expected {LEAST_RATE} bytes a second or more")
    reload = Reload("aggregator", arguments, choice, lambda _: None)
    url = choice.aggregators_broker
    store = SqliteStore(choice.database, choice.settings.history)
    aggregator = Aggregator(
        name=require_host_name(choice.settings.aggregator.name),
        topics=choice.topics,
        intervals=choice.settings.intervals,
        store=store,
        rate=rate,
        find_broker=partial(holder, choice.data / "broker"),
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: aggregator.stop())
    reload.hand_to(aggregator.retune)
    connection = Connection(
        url,
        client_id=aggregator.client_id,
        deliver=aggregator.deliver,
        filters=aggregator.filters,
        unqueued=aggregator.unqueued,
        will=aggregator.will,
        protocol=choice.settings.broker.protocol,
        keep_session=True,
        manual_ack=True,
    )
    _spare_the_collector()
    aggregator.run(connection)
    store.close()
    return 0


def _spare_the_collector() -> None:
    """Let Python's collector look at what came lately only: the fleet stays, and is acyclic."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 1000)
