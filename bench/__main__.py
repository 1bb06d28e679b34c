"""Measure, print each report and how the figures stand, and leave them in build/bench.json."""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import FrameType

from bench import machine
from bench.measurement import BenchError, Measurement, Options, Report
from bench.programs import ROOT
from bench.table import text_of
from bench.targets import summary

MEASUREMENTS = {
    "ingest": "what the broker can do at QoS 1; what all parts take in, how soon, and what is lost of too much",
    "scale": "what 10,000 hosts cost that 100 do not, to join them and to look at them",
    "reading": "what the history takes up, and how long it takes to read",
    "scrape": "a Prometheus that scrapes 10,000 hosts, and what a page that is looked at feels of it",
    "storm": "10,000 agents that are disconnected at once",
    "lotus_poll": "what a poll of a large Lotus costs, in processor time, memory, calls and messages",
    "agent_cost": "what the agent of one idle host costs, beside collectd and node_exporter",
}

_BUILT = ROOT / "build" / "bench.json"
_RESULTS = ROOT / "bench" / "RESULTS.md"


def main() -> int:
    """Make the measurements that were asked for. 0: done; 1: one could not be made; 130: interrupted."""
    arguments = _parser().parse_args()
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"  # a plain user's lacks where Debian puts daemons
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        reports = [report for name in arguments.only or MEASUREMENTS for report in _measure(name, arguments)]
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    reports.append(summary(_figures(reports)))
    print(text_of(reports[-1]), flush=True)
    _write_figures(reports)
    if arguments.write_results:
        _RESULTS.write_text(_results(machine.describe(), reports))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="how long to watch agent_cost (default: %(default)g)"
    )
    parser.add_argument("--warm-up", type=float, default=25.0, help="seconds before that (default: %(default)g)")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, help="these measurements, not all")
    parser.add_argument("--write-results", action="store_true", help=f"write {_RESULTS.relative_to(ROOT)}")
    return parser


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # Nothing may interrupt the clean-up that follows.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _measure(name: str, arguments: argparse.Namespace) -> list[Report]:
    module: Measurement = import_module(f"bench.{name}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="telemetry-bench-") as directory:
        options = Options(seconds=arguments.seconds, warm_up=arguments.warm_up, directory=Path(directory))
        reports = module.measure(options)
    for report in reports:
        print(text_of(report), flush=True)
    print(f"{name}: took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return reports


def _figures(reports: Sequence[Report]) -> dict[str, float]:
    return {name: value for report in reports for name, value in report.figures.items()}


def _write_figures(reports: Sequence[Report]) -> None:
    _BUILT.parent.mkdir(exist_ok=True)
    figures = {name: round(value, 4) for name, value in _figures(reports).items()}
    _BUILT.write_text(json.dumps(figures, indent=2) + "\n")


def _results(described: Mapping[str, str], reports: Sequence[Report]) -> str:
    lines = [f"- {name}: {text}" for name, text in {"Date": f"{datetime.now(UTC):%Y-%m-%d}", **described}.items()]
    first = [reports[-1], *reports[:-1]]  # how the figures stand
    tables = [f"```\n{text_of(report).rstrip()}\n```" for report in first]
    heading = "# Measured\n\nWritten by `make bench ARGS=--write-results`."
    return "\n\n".join([heading, "\n".join(lines), *tables]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
