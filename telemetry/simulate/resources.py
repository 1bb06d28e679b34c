"""The table of resources that every worker sends with its registration: 14 tasks times 15 proofs, some 32 kB."""

from collections.abc import Mapping

import orjson

from telemetry.simulate.sealing import AP, C1, C2, DC, GET, GSK, PC1, PC2, PR1, PR2, RU, UNS, WDP, WNP

_TASKS = (WDP, WNP, AP, C1, C2, DC, GET, PC1, PC2, PR1, PR2, GSK, RU, UNS)
_ON_GPU = {WDP, WNP, C2, PC2, PR2, RU, GSK}
_SECTOR_BYTES = (2 << 10, 8 << 20, 512 << 20, 32 << 30, 64 << 30)


def _of(task: str, sector_bytes: int) -> Mapping[str, float]:
    return {
        "MinMemory": sector_bytes * 7 // 4,
        "MaxMemory": sector_bytes * 2,
        "GPUUtilization": int(task in _ON_GPU),
        "MaxParallelism": -1 if task in {C2, PC2, PR2} else 1,
        "MaxParallelismGPU": 6 if task == PC2 else 0,
        "BaseMinMemory": min(sector_bytes, 10 << 20),
        "MaxConcurrent": 14 if task == PC1 else 0,
    }


TABLE = orjson.Fragment(
    orjson.dumps({task: {str(proof): _of(task, _SECTOR_BYTES[proof % 5]) for proof in range(15)} for task in _TASKS})
)
