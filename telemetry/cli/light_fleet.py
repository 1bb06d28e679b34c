"""What `telemetry simulate` does where the fleet is large, or has to be fast: light agents, and now and then a line."""

import logging
import sys
import time
from collections.abc import Iterator

from telemetry.cli.foreground import Stop
from telemetry.cli.options import Chosen
from telemetry.errors import UsageError
from telemetry.logs import start_logging
from telemetry.simulate.accounts import MINER
from telemetry.simulate.fleet import Fleet, Pace
from telemetry.topics import require_host_name

REPORT_INTERVAL = 10.0
"""Seconds between two changes of a host, where no rate is given."""

_PASS = 0.01
_SHOW_INTERVAL, _SHOW_INTERVAL_IN_A_FILE = 1.0, 10.0


def run_light_fleet(choice: Chosen, *, hosts: int, rate: float | None, seed: int) -> None:
    """Run until Ctrl-C or SIGTERM."""
    start_logging("fleet", choice.settings.log)
    logging.getLogger("telemetry.publish").setLevel(logging.WARNING)
    stop = Stop()
    url = choice.broker
    if url.tls or url.username is not None:
        raise UsageError(f"{url}: more than 200 hosts, or a --rate, need a broker at mqtt:// without credentials")
    fleet = Fleet(
        (url.host, url.port),
        miner=MINER,
        hosts=hosts,
        intervals=choice.settings.intervals,
        topics=choice.topics,
        aggregators=[require_host_name(name.strip()) for name in choice.settings.agent.aggregators.split(",")],
        seed=seed,
    )
    pace, shown = Pace(rate or hosts / REPORT_INTERVAL, time.monotonic()), _shown(fleet)
    while not stop.is_asked:
        fleet.write(pace.take(time.monotonic()))
        fleet.serve()
        next(shown)
        time.sleep(_PASS)
    fleet.stop()
    _print(f"ended {hosts:,} hosts: {_counts(fleet)}")


def _shown(fleet: Fleet) -> Iterator[None]:
    """Say now and then how it goes."""
    interval = _SHOW_INTERVAL if sys.stdout.isatty() else _SHOW_INTERVAL_IN_A_FILE
    before, since = 0, time.monotonic()
    while True:
        yield
        now = time.monotonic()
        if now >= since + interval:
            rate = (fleet.written - before) / (now - since)
            before, since = fleet.written, now
            _print(f"{time.strftime('%H:%M:%S')}  {fleet.online:,} online  {_counts(fleet)}  {rate:,.0f}/s")


def _counts(fleet: Fleet) -> str:
    return f"sent {fleet.written:,}  acknowledged {fleet.acknowledged:,}  lag {fleet.lag:.1f} s"


def _print(line: str) -> None:
    print(line, flush=True)
