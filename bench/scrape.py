"""A real Prometheus that scrapes 10,000 hosts from `telemetry web`, and what a page that is looked at feels of it.

The hosts state 1,000 changes a second all the while. How late a page's changes are is measured before Prometheus is
started, and while it scrapes.
"""

import json
import shutil
import statistics
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measurement import BenchError, Options, Report
from bench.pipeline import MINER, Pipeline, pipeline
from bench.programs import ROOT, Program, running
from bench.table import number
from bench.usage import read_memory, read_usage, spent
from telemetry.config import Intervals
from telemetry.processes import free_port

_HOSTS = 10_000
_RATE = 1000.0
_INTERVAL = 10
"""Seconds between scrapes; 15 and more are usual."""

_SECONDS = 40.0
_TITLE = f"Prometheus scrapes {_HOSTS:,} hosts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """How late a page's changes were, s, and the CPU of `telemetry web`, s a second."""

    median: float
    p99: float
    greatest: float
    cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrapes:
    """What Prometheus tells of its scrapes, and the resident MiB that it takes. A scrape fails after its interval."""

    seconds: Sequence[float]
    failed: int
    samples: int
    rss: float


def measure(options: Options) -> list[Report]:
    """Look at the page alone, then beside Prometheus."""
    if shutil.which("prometheus") is None:
        note = "not measured: apt-get install --no-install-recommends prometheus"
        return [Report(title=_TITLE, rows=[["", ""]], figures={}, notes=[note])]
    with pipeline(options.directory / "fleet", hosts=_HOSTS, acknowledge=Intervals().acknowledge) as fleet:
        address, url = _address(), fleet.url
        words = ("web", "--broker", url, "--data", fleet.database.parent, "--port", address.rpartition(":")[2])
        with running("web", [sys.executable, "-m", "telemetry", *words], options.directory) as web:
            web.wait_until_listening(int(address.rpartition(":")[2]))
            fleet.until(lambda: f'host="seal{_HOSTS:05}"'.encode() in _fetch(address), "the page knows all hosts")
            quiet = _phase(fleet, web, address)
            with _prometheus(address, options.directory) as prometheus:
                fleet.run(2.0 * _INTERVAL, _RATE)  # it makes its series at first
                busy = _phase(fleet, web, address)
                scrapes = prometheus.scrapes()
            size, compressed = len(_fetch(address)), len(_fetch(address, "gzip"))
            rss = read_memory(web.pid).rss
    return [_report(quiet, busy, scrapes, size, compressed, rss)]


def _address() -> str:
    return f"127.0.0.1:{free_port(28_585)}"


def _fetch(address: str, encoding: str = "identity") -> bytes:
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept-Encoding": encoding})
    with urllib.request.urlopen(request, timeout=30) as answer:
        content: bytes = answer.read()
    return content


def _phase(fleet: Pipeline, web: Program, address: str) -> Phase:
    before = read_usage(web.pid, None)
    command = [sys.executable, "-m", "bench.page", address, MINER, str(_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        while process.poll() is None:
            fleet.run(0.1, _RATE)
        output = process.communicate()[0]
    if process.returncode:
        raise BenchError("the page that looks on has failed")
    after = read_usage(web.pid, None)
    return Phase(cpu=spent(before, after) / (after.moment - before.moment), **json.loads(output))


class Prometheus:
    """The program, and what it answers."""

    def __init__(self, program: Program, port: int) -> None:
        self._program, self._port = program, port

    def scrapes(self) -> Scrapes:
        """What it tells of its scrapes of the last seconds."""
        seconds, samples, succeeded = (
            [float(value) for _, value in self._query(f"{name}[{_SECONDS:.0f}s]")[0]["values"]]
            for name in ("scrape_duration_seconds", "scrape_samples_scraped", "up")
        )
        return Scrapes(
            seconds=seconds,
            failed=succeeded.count(0),
            samples=int(max(samples)),
            rss=read_memory(self._program.pid).rss,
        )

    def _query(self, expr: str) -> list[Any]:
        url = f"http://127.0.0.1:{self._port}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
        return found


@contextmanager
def _prometheus(address: str, directory: Path) -> Iterator[Prometheus]:
    port = free_port(29_090)
    configuration = directory / "prometheus.yml"
    scraped = {"job_name": "telemetry", "static_configs": [{"targets": [address]}]}
    interval = {"scrape_interval": f"{_INTERVAL}s", "scrape_timeout": f"{_INTERVAL}s"}
    configuration.write_text(json.dumps({"global": interval, "scrape_configs": [scraped]}))
    options = (f"--config.file={configuration}", f"--storage.tsdb.path={directory}/prometheus",
               f"--web.listen-address=127.0.0.1:{port}")  # fmt: skip
    with running("prometheus", ["prometheus", *options], directory) as program:
        program.wait_until_listening(port)
        yield Prometheus(program, port)


def _report(quiet: Phase, busy: Phase, scrapes: Scrapes, size: int, compressed: int, rss: float) -> Report:
    seconds, cpu = statistics.median(scrapes.seconds), (busy.cpu - quiet.cpu) * _INTERVAL
    rows = [
        ["", "alone", "scraped"],
        ["a page's changes, median s old", number(quiet.median), number(busy.median)],
        ["  p99 s", number(quiet.p99), number(busy.p99)],
        ["  greatest s", number(quiet.greatest), number(busy.greatest)],
        ["telemetry web, CPU %", number(100 * quiet.cpu), number(100 * busy.cpu)],
        ["a scrape, s", "", number(seconds)],
        ["  the longest", "", number(max(scrapes.seconds))],
        ["  failed", "", number(scrapes.failed)],
        ["  CPU s of telemetry web", "", number(cpu)],
        ["  samples", "", number(scrapes.samples)],
        ["  MB", "", number(size / 1e6)],
        ["  MB, compressed as sent", "", number(compressed / 1e6)],
        ["telemetry web, RSS MiB", "", number(rss)],
        ["Prometheus, RSS MiB", "", number(scrapes.rss)],
    ]
    figures = {
        "scrape_10k_s": seconds,
        "scrape_10k_failed": float(scrapes.failed),
        "scrape_10k_cpu_s": cpu,
        "scrape_10k_samples": float(scrapes.samples),
        "scrape_10k_mb": size / 1e6,
        "live_p99_alone_s": quiet.p99,
        "live_p99_scraped_s": busy.p99,
        "web_rss_mb": rss,
    }
    notes = [
        f"{_RATE:,.0f} changes/s all the while; a scrape each {_INTERVAL} s, {len(scrapes.seconds)} looked at",
        "a scrape's time is Prometheus' own: to fetch, parse and keep it, on this machine",
    ]
    return Report(title=_TITLE, rows=rows, figures=figures, notes=notes)
