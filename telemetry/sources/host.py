"""What the kernel counts for the whole host: load, memory, traffic of disks and network, and the CPU's temperature.

A rate is known from the second sample on. A device whose counters have gone back (reset, wrap, replacement) has no
rate in that sample: nobody can say what it did meanwhile.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeAlias

import psutil

from telemetry.errors import SourceError
from telemetry.fields import Value
from telemetry.sources import Reading

Pair: TypeAlias = tuple[int, int]
"""Two byte counters, or two rates, of a device: what came in from it, and what went out to it."""

_UNREADABLE = (SourceError, psutil.Error, OSError, NotImplementedError, ValueError)

_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")  # user and nice have guest and guest_nice in them
_IDLE = ("idle", "iowait")

_VIRTUAL_INTERFACE = re.compile(
    r"lo$|veth|docker|br-|virbr|vnet|vmnet|cni|flannel|cali|cilium|lxc|lxdbr|podman|kube-|nodelocaldns|weave|ovs-|tailscale"
    r"|(tap|tun|tunl|wg|ifb|dummy|vxlan|geneve|sit|gre|gretap|erspan|ip6tnl|ip6gre|ip_vti|ip6_vti|teql)\d"
)

_PACKAGE_SENSORS = (
    (r"coretemp", (r"(Package|Physical) id \d+",)),
    (r"k10temp|zenpower", (r"Tdie", r"Tctl", r"")),  # Tctl has an offset on some models, so Tdie goes first
    (r"via_cputemp", (r"",)),
    (r"cpu\d*_thermal", (r"",)),
    (r"apm_xgene", (r"SoC Temperature",)),
    (r"soc_thermal", (r"",)),
)
"""Chips that know the CPU package, best first, each with the labels of its inputs, best first; "" is no label."""


def _cpu_times() -> Mapping[str, float]:
    return psutil.cpu_times()._asdict()


def _memory() -> Pair:
    memory = psutil.virtual_memory()
    return memory.total, memory.available


# psutil's own nowrap would make up what a counter did that went back, and keeps a cache and a lock for it.


def _disk_bytes() -> Mapping[str, Pair]:
    disks = psutil.disk_io_counters(perdisk=True, nowrap=False)
    return {name: (disk.read_bytes, disk.write_bytes) for name, disk in disks.items()}


def _interface_bytes() -> Mapping[str, Pair]:
    interfaces = psutil.net_io_counters(pernic=True, nowrap=False)
    return {name: (interface.bytes_recv, interface.bytes_sent) for name, interface in interfaces.items()}


class System:
    """Load, memory and traffic, all from memory of the kernel, so that no device can hold it up."""

    name = "system"
    fields = ("cpuLoad", "totalMemory", "useMemory", "diskR", "diskW", "netIO", "netRx", "netTx")
    host_fields = ()

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sysfs: Path = Path("/sys"),
        cpu_times: Callable[[], Mapping[str, float]] = _cpu_times,
        memory: Callable[[], Pair] = _memory,
        disk_bytes: Callable[[], Mapping[str, Pair]] = _disk_bytes,
        interface_bytes: Callable[[], Mapping[str, Pair]] = _interface_bytes,
    ) -> None:
        self._cpu_times, self._cpu_times_before = cpu_times, dict[str, float]()
        self._memory = memory
        self._disks = _Traffic(clock, disk_bytes, partial(whole_disks, sysfs))
        self._interfaces = _Traffic(clock, interface_bytes, partial(real_interfaces, sysfs))
        self._parts: tuple[tuple[tuple[str, ...], Callable[[], dict[str, Value]]], ...] = (
            (("cpuLoad",), self._read_cpu),
            (("totalMemory", "useMemory"), self._read_memory),
            (("diskR", "diskW"), self._read_disks),
            (("netIO", "netRx", "netTx"), self._read_interfaces),
        )

    def sample(self) -> Reading:
        """Read all parts once. Raises SourceError when none of them can be read."""
        values: dict[str, Value] = {}
        problems: dict[str, str] = {}
        for names, read in self._parts:
            try:
                values |= read()
            except _UNREADABLE as error:
                problems |= dict.fromkeys(names, str(error) or type(error).__name__)
        if len(problems) == len(self.fields):
            raise SourceError("; ".join(dict.fromkeys(problems.values())))
        return Reading(values=values, problems=problems)

    def _read_cpu(self) -> dict[str, Value]:
        before, self._cpu_times_before = self._cpu_times_before, dict(self._cpu_times())
        load = cpu_load(before, self._cpu_times_before) if before else None
        return {} if load is None else {"cpuLoad": load}

    def _read_memory(self) -> dict[str, Value]:
        total, available = self._memory()
        return {"totalMemory": total, "useMemory": total - available}

    def _read_disks(self) -> dict[str, Value]:
        known = self._disks.rates("no disk")
        if not known:
            return {}
        read, written = _sums(known.values())
        return {"diskR": read, "diskW": written}

    def _read_interfaces(self) -> dict[str, Value]:
        known = self._interfaces.rates("no network interface")
        if not known:
            return {}
        rx, tx = _sums(known.values())
        listed = [{"interface": name, "rx": pair[0], "tx": pair[1]} for name, pair in sorted(known.items())]
        return {"netIO": listed, "netRx": rx, "netTx": tx}


class CpuTemperature:
    """The hottest CPU package. Apart from `System`, because a chip may let its reader wait."""

    name = "temperature"
    fields = ("cpuTemper",)
    host_fields = ()

    def __init__(self, *, sysfs: Path = Path("/sys")) -> None:
        self._hwmon = sysfs / "class/hwmon"
        self._inputs: tuple[Path, ...] = ()

    def sample(self) -> Reading:
        """Read the package sensors once; without any the reading has the problem, and no value."""
        # Not psutil.sensors_temperatures(): it reads every chip of the host, a slow NIC or disk among them,
        # and searches /sys for them each time.
        if not self._inputs or not all(path.exists() for path in self._inputs):
            self._inputs = package_inputs(self._hwmon)
        celsius = _hottest(self._inputs)
        if celsius is None:
            reason = "the CPU package sensor gives no value" if self._inputs else "no CPU package sensor"
            return Reading(values={}, problems={"cpuTemper": reason})
        return Reading(values={"cpuTemper": celsius})


class _Traffic:
    """The rates of the chosen devices between one reading of all counters and the next."""

    def __init__(
        self,
        clock: Callable[[], float],
        read: Callable[[], Mapping[str, Pair]],
        choose: Callable[[frozenset[str]], frozenset[str]],
    ) -> None:
        self._clock = clock
        self._read = read
        self._choose = lru_cache(maxsize=1)(choose)  # sysfs is asked again only when a device came or went
        self._before: tuple[float, Mapping[str, Pair]] = (clock(), {})

    def rates(self, none: str) -> dict[str, Pair]:
        """The rates that are known, by device. Raises SourceError with the text `none` when there is no device."""
        counters = self._read()
        chosen = self._choose(frozenset(counters))
        if not chosen:
            raise SourceError(none)
        now = self._clock(), {name: counters[name] for name in chosen}
        (then, before), self._before = self._before, now
        return rates(before, now[1], now[0] - then)


def rates(before: Mapping[str, Pair], now: Mapping[str, Pair], seconds: float) -> dict[str, Pair]:
    """Bytes a second of each device that was there before and whose counters have both not gone back."""
    if seconds <= 0:
        return {}
    return {
        name: (round((first - before[name][0]) / seconds), round((second - before[name][1]) / seconds))
        for name, (first, second) in now.items()
        if name in before and first >= before[name][0] and second >= before[name][1]
    }


def cpu_load(before: Mapping[str, float], now: Mapping[str, float]) -> float | None:
    """Percent of the CPU time between two readings that was not idle, or None when that cannot be known."""
    busy = _spent(_BUSY, now) - _spent(_BUSY, before)
    idle = _spent(_IDLE, now) - _spent(_IDLE, before)
    if busy < 0 or idle < 0 or busy + idle <= 0:  # iowait and steal do go back on some kernels
        return None
    return round(100 * busy / (busy + idle), 1)


def whole_disks(sysfs: Path, names: frozenset[str]) -> frozenset[str]:
    """Those of the block devices that are hardware.

    Partitions are not in /sys/block; loop, zram, dm, md and the heads of NVMe multipath are virtual, and what goes
    through them is counted by the disks below.
    """
    virtual = (sysfs / "devices/virtual").resolve()
    paths = {name: sysfs / "block" / name.replace("/", "!") for name in names}
    return frozenset(
        name for name, path in paths.items() if path.exists() and not path.resolve().is_relative_to(virtual)
    )


def real_interfaces(sysfs: Path, names: frozenset[str]) -> frozenset[str]:
    """Those of the interfaces that are hardware, or in a container those that stand for it.

    An interface above others of them is left out: its traffic is theirs.
    """
    net = sysfs / "class/net"
    real = {name for name in names if (net / name / "device").exists()}
    real = real or {name for name in names if not _VIRTUAL_INTERFACE.match(name)}
    return frozenset(
        name for name in real if not any((net / name / f"lower_{other}").is_symlink() for other in real - {name})
    )


def package_inputs(hwmon: Path) -> tuple[Path, ...]:
    """The inputs of the best chip that knows the CPU package, one for each socket."""
    chips = [(_text(path / "name"), path) for path in sorted(hwmon.glob("hwmon*"))]
    for chip, labels in _PACKAGE_SENSORS:
        found = [_labelled(path, labels) for name, path in chips if re.fullmatch(chip, name)]
        if any(found):
            return tuple(path for paths in found for path in paths)
    return ()


def _labelled(chip: Path, labels: Iterable[str]) -> list[Path]:
    # Resolved, because the number in hwmon3 goes to another chip when a driver is loaded again.
    inputs = [(_text(path.with_name(path.name.replace("input", "label"))), path)
              for path in sorted(chip.resolve().glob("temp*_input"))]  # fmt: skip
    for label in labels:
        if found := [path for text, path in inputs if re.fullmatch(label, text)]:
            return found
    return []


def _hottest(inputs: Iterable[Path]) -> float | None:
    """Degrees of the hottest input; one that gives no number (its socket sleeps, its chip is gone) is left out."""
    millidegrees = [int(text) for path in inputs if re.fullmatch(r"-?\d+", text := _text(path))]
    return round(max(millidegrees) / 1000, 1) if millidegrees else None


def _text(path: Path) -> str:
    """The text of a sysfs file; empty when the file is not there or cannot be read now."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _spent(names: Iterable[str], times: Mapping[str, float]) -> float:
    return sum(times.get(name, 0.0) for name in names)


def _sums(pairs: Iterable[Pair]) -> Pair:
    first, second = zip(*pairs, strict=True)
    return sum(first), sum(second)
