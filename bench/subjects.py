"""The agents that are compared, ours and others', each as it is run at an interval of 10 s."""

import compileall
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from string import Template

from bench.network import Network
from bench.programs import ROOT, Program, running
from telemetry.mosquitto import configuration_of, find_mosquitto
from telemetry.processes import free_port

_SIX_COLLECTORS = ("cpu", "meminfo", "diskstats", "filesystem", "netdev", "loadavg")

# 36 values every 10 s on a host with one disk, one filesystem and one interface.
_COLLECTD = """
Hostname "idle"
FQDNLookup false
Interval 10
BaseDir "$directory"
PIDFile "$directory/pid"
LoadPlugin cpu
LoadPlugin memory
LoadPlugin df
LoadPlugin disk
LoadPlugin interface
LoadPlugin load
LoadPlugin swap
LoadPlugin mqtt
<Plugin cpu>
  ReportByCpu false
</Plugin>
<Plugin df>
  FSType "/^(tmpfs|devtmpfs|squashfs)$$/"
  MountPoint "/^\\/run\\//"
  IgnoreSelected true
</Plugin>
<Plugin disk>
  Disk "/^(loop|ram|zram)/"
  IgnoreSelected true
</Plugin>
<Plugin mqtt>
  <Publish "idle">
    Host "$address"
    Port $port
    ClientId "collectd"
    QoS 1
  </Publish>
</Plugin>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where a subject runs. What it starts ends with `started`, in reverse order."""

    network: Network
    directory: Path
    started: ExitStack

    def serve(self, name: str, *command: str | Path) -> Program:
        """Run a program at the server's end."""
        return self._run(name, *self.network.server, *command)

    def measured(self, name: str, *command: str | Path) -> Program:
        """Run the program that is measured, at the client's end."""
        return self._run(name, *self.network.client, *command)

    def _run(self, name: str, *command: str | Path) -> Program:
        return self.started.enter_context(running(name, command, self.directory))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something to measure: its name in figures and in the table, the program it needs, and how it is started."""

    name: str
    title: str
    needs: str
    package: str
    start: Callable[[Stage], Program]

    @property
    def is_installed(self) -> bool:
        """Whether its program is there."""
        return shutil.which(self.needs) is not None


def start_broker(stage: Stage) -> tuple[int, Program]:
    """A Mosquitto by our settings, listening where the other end reaches it: its port, and the program."""
    port = free_port(21_883)
    directory = stage.directory / "broker"
    directory.mkdir()
    text = configuration_of(directory, None, port=port, open_to="", stays_root=os.geteuid() == 0)
    configuration = directory / "mosquitto.conf"
    configuration.write_text(text.replace(f"{port} 127.0.0.1\n", f"{port} {stage.network.server_address}\n"))
    program = stage.serve("mosquitto", find_mosquitto(), "-c", configuration)
    program.wait_until_listening(port)
    return port, program


def _start_agent(stage: Stage) -> Program:
    """Our agent; its aggregator, which acknowledges, is at the broker's end and not counted."""
    compileall.compile_dir(ROOT / "telemetry", quiet=1)  # as installed: compiling at the start would enlarge it
    port, _ = start_broker(stage)
    url = f"mqtt://{stage.network.server_address}:{port}"
    options = ("--broker", url, "--data", stage.directory)
    stage.serve("aggregator", sys.executable, "-m", "telemetry", "aggregator", *options)
    return stage.measured("agent", sys.executable, "-m", "bench.named", "agent", *options)


def _start_collectd(stage: Stage) -> Program:
    port, _ = start_broker(stage)
    configuration = stage.directory / "collectd.conf"
    text = Template(_COLLECTD).substitute(directory=stage.directory, address=stage.network.server_address, port=port)
    configuration.write_text(text)
    return stage.measured("collectd", "collectd", "-f", "-C", configuration)


def _start_node_exporter(stage: Stage, *options: str) -> Program:
    port = free_port(29_100)
    where = f"{stage.network.client_address}:{port}"
    program = stage.measured("node_exporter", "prometheus-node-exporter", f"--web.listen-address={where}", *options)
    program.wait_until_listening(port)
    stage.serve("scraper", sys.executable, "-m", "bench.scraper", where)
    return program


def _start_small_node_exporter(stage: Stage) -> Program:
    chosen = (f"--collector.{name}" for name in _SIX_COLLECTORS)
    return _start_node_exporter(stage, "--collector.disable-defaults", *chosen)


OURS = Subject(name="agent", title="ours", needs="mosquitto", package="mosquitto", start=_start_agent)
OTHERS = (
    Subject(name="collectd", title="collectd", needs="collectd", package="collectd-core", start=_start_collectd),
    Subject(
        name="node_exporter",
        title="node_exporter",
        needs="prometheus-node-exporter",
        package="prometheus-node-exporter",
        start=_start_node_exporter,
    ),
    Subject(
        name="node_exporter_6",
        title="node_exporter/6",
        needs="prometheus-node-exporter",
        package="prometheus-node-exporter",
        start=_start_small_node_exporter,
    ),
)
