"""The hardware of a sealing host that there is not: readings that wander as those of a busy host do."""

import random

from telemetry.fields import Value
from telemetry.sources import Reading

_GIB, _MIB = 1 << 30, 1 << 20
_CARDS = 2


class SimulatedHardware:
    """A source of all hardware fields of one host: the same host again for the same seed."""

    name = "system"
    fields = (
        *("cpuTemper", "cpuLoad", "gpuInfo", "totalMemory", "useMemory", "useDisk", "diskR", "diskW", "netIO"),
        *("gpuTemper", "gpuLoad", "gpuMemory", "diskUsedPercent", "netRx", "netTx"),
    )
    host_fields = ()

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  # the same host again is what it is for
        self._at = {name: self._random.random() for name in ("cpu", "gpu", "memory", "disk", "read", "write", "net")}

    def sample(self) -> Reading:
        """Wander a little, and read."""
        for name, value in self._at.items():
            self._at[name] = min(1.0, max(0.0, value + self._random.gauss(0, 0.05)))
        return Reading(values=self._processor() | self._memory() | self._transfers() | self._cards())

    def _processor(self) -> dict[str, Value]:
        load = self._at["cpu"]
        return {"cpuTemper": round(40 + 45 * load, 1), "cpuLoad": round(100 * load, 1)}

    def _memory(self) -> dict[str, Value]:
        total = 7000 * _GIB
        used = int(self._at["disk"] * total)
        mount = {"mount": "/data", "device": "/dev/nvme0n1", "filesystem": "xfs", "total": total, "used": used}
        return {
            "totalMemory": 1024 * _GIB,
            "useMemory": int(self._at["memory"] * 1000 * _GIB),
            "useDisk": [mount],
            "diskUsedPercent": round(100 * used / total, 1),
        }

    def _transfers(self) -> dict[str, Value]:
        rx, tx = int(self._at["net"] * 800 * _MIB), int(self._at["net"] * 300 * _MIB)
        return {
            "diskR": int(self._at["read"] * 2000 * _MIB),
            "diskW": int(self._at["write"] * 1500 * _MIB),
            "netIO": [{"interface": "eth0", "rx": rx, "tx": tx}],
            "netRx": rx,
            "netTx": tx,
        }

    def _cards(self) -> dict[str, Value]:
        at = self._at["gpu"]
        temper, memory = round(35 + 40 * at), int(at * 20 * _GIB)
        cards: list[dict[str, Value]] = [
            {
                "index": index,
                "name": "NVIDIA GeForce RTX 3090",
                "uuid": f"GPU-{index:032x}",
                "temper": temper,
                "load": round(100 * at),
                "useMemory": memory,
                "totalMemory": 24 * _GIB,
                "power": round(30 + 320 * at, 1),
            }
            for index in range(_CARDS)
        ]
        return {
            "gpuInfo": cards, "gpuTemper": temper, "gpuLoad": float(round(100 * at)), "gpuMemory": _CARDS * memory,
        }  # fmt: skip
