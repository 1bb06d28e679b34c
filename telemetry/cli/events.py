"""Who went away and who came back, from the database: the newest last."""

import argparse
import time

import orjson

from telemetry.cli.options import add_common, add_database, add_json, chosen, named_record
from telemetry.cli.ranges import add_range, range_of
from telemetry.cli.tables import Cell, format_moment, print_table, state_text
from telemetry.config import nearest
from telemetry.errors import TelemetryError
from telemetry.stores.history.reading import FOR_EVER
from telemetry.stores.reading import Event, Reader, open_reader
from telemetry.topics import AgentKey, RecordKey
from telemetry.units import format_age


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("miner", metavar="MINER", nargs="?", help="a miner's id (default: all)")
    parser.add_argument("host", metavar="HOST", nargs="?", help="a host of it (MINER/HOST does too)")
    add_range(parser, since="-1d")
    add_common(parser)
    add_database(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what happened to agents."""
    since, until = range_of(arguments, time.time_ns() // 1_000_000)
    miner = agent = key = None
    if arguments.miner is not None:
        key = named_record(arguments.miner, arguments.host)
        miner, agent = key.minerId, None if key.hostName is None else AgentKey.of(key).agent
    with open_reader(chosen(arguments).database) as reader:
        events = reader.events(since, until, miner, agent)
        if key is not None and not events and not reader.events(0, FOR_EVER, miner, agent, most=1):
            _require_known(reader, key)
    if not events:
        raise TelemetryError(f"no events from {format_moment(since)} to {format_moment(until)}")
    if arguments.json:
        print(orjson.dumps([event.flat for event in events]).decode())
        return 0
    print_table(("TIME", "WHO", "EVENT", "BEFORE"), [_row(event) for event in events])
    return 0


def _require_known(reader: Reader, key: RecordKey) -> None:
    """Raise TelemetryError where no agent has such a miner, or is such a host's."""
    agents = reader.agents()
    known = {one.record if key.hostName is not None else RecordKey(one.minerId) for one in agents}
    if key not in known:
        raise TelemetryError(f"{key}: no agent of it is known{nearest(str(key), [str(one) for one in known])}")


def _row(event: Event) -> list[Cell]:
    before = event.detail
    if event.before is not None and event.lasted is not None:
        before = f"{event.before} for {format_age(event.lasted / 1000)}"
    return [format_moment(event.time), str(event.agent.record), state_text(event.event), before]
