"""What a process has used, as the kernel counts it, and what that makes in an hour.

Threads that ended between two readings are not counted: none of the programs measured here has such.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.network import Traffic

_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """A thread's processor time, and how often it slept and was woken."""

    name: str
    cpu_ns: int = 0
    wakeups: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One reading of a process; `threads` by id, `traffic` where it is counted. `moment`: monotonic seconds."""

    moment: float
    threads: Mapping[int, Thread]
    traffic: Traffic | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A process's memory in MiB: resident, its share of that, and what it shares with nobody."""

    rss: float
    pss: float
    private: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What is used in an hour; on the wire only where that is counted."""

    cpu_s: float
    wakeups: float
    wire_kb: float | None
    packets: float | None


def read_usage(process_id: int, traffic: Traffic | None) -> Usage:
    """What a process has used since it began."""
    tasks = Path(f"/proc/{process_id}/task")
    threads = {int(task.name): _thread(task) for task in tasks.iterdir()}
    return Usage(moment=time.monotonic(), threads=threads, traffic=traffic)


def read_memory(process_id: int) -> Memory:
    """The memory that a process holds now."""
    lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()[1:]
    mib = {name: int(rest.split()[0]) / 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return Memory(rss=mib["Rss"], pss=mib["Pss"], private=mib["Private_Clean"] + mib["Private_Dirty"])


def cost(before: Usage, after: Usage) -> Cost:
    """What an hour costs that is as the time between two readings."""
    per_hour = _HOUR / (after.moment - before.moment)
    used = _used(before, after)
    size = packets = None
    if before.traffic is not None and after.traffic is not None:
        size = (after.traffic.size - before.traffic.size) / 1000 * per_hour
        packets = (after.traffic.packets - before.traffic.packets) * per_hour
    return Cost(
        cpu_s=sum(thread.cpu_ns for thread in used) / 1e9 * per_hour,
        wakeups=sum(thread.wakeups for thread in used) * per_hour,
        wire_kb=size,
        packets=packets,
    )


def spent(before: Usage, after: Usage) -> float:
    """Seconds of processor time between two readings."""
    return sum(thread.cpu_ns for thread in _used(before, after)) / 1e9


def cost_by_thread(before: Usage, after: Usage) -> dict[str, Cost]:
    """The same by the threads' names, the most expensive first; the wire is not theirs."""
    per_hour = _HOUR / (after.moment - before.moment)
    totals: dict[str, tuple[float, float]] = {}
    for thread in _used(before, after):
        cpu_ns, wakeups = totals.get(thread.name, (0.0, 0.0))
        totals[thread.name] = cpu_ns + thread.cpu_ns * per_hour, wakeups + thread.wakeups * per_hour
    ordered = sorted(totals.items(), key=lambda item: -item[1][0])
    return {name: Cost(cpu_s=ns / 1e9, wakeups=wakeups, wire_kb=None, packets=None) for name, (ns, wakeups) in ordered}


def _used(before: Usage, after: Usage) -> list[Thread]:
    used = []
    for number, now in after.threads.items():
        then = before.threads.get(number, Thread(name=now.name))
        used.append(Thread(name=now.name, cpu_ns=now.cpu_ns - then.cpu_ns, wakeups=now.wakeups - then.wakeups))
    return used


def _thread(task: Path) -> Thread:
    status = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
    return Thread(
        name=status["Name"].strip(),
        cpu_ns=int((task / "schedstat").read_text().split()[0]),
        wakeups=int(status["voluntary_ctxt_switches"]),
    )
