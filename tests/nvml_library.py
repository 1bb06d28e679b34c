"""The NVML of tests/nvml is built and driven from here: a file of lines that the library reads at every call."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from telemetry.fields import Value

_SOURCE = Path(__file__).parent / "nvml" / "nvml.c"

NOT_SUPPORTED, DRIVER_NOT_LOADED, GPU_IS_LOST, LIB_RM_VERSION_MISMATCH, UNKNOWN = 3, 9, 15, 18, 999


def build_nvml(directory: Path) -> Path:
    """Compile the library into `directory`, or skip the test where nothing can compile it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc, clang) to build the NVML of tests/nvml")
    library = directory / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-std=gnu11", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, _SOURCE], check=True)
    return library


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeCard:
    """What a card tells: degrees Celsius, percent, bytes and milliwatts."""

    temperature: int = 40
    utilization: int = 0
    used: int = 0
    total: int = 24 * 1024**3
    power: int = 30_000

    def lines(self, index: int) -> list[str]:
        """The card's lines in the state file."""
        names = ("temperature", "utilization", "used", "total", "power")
        return [f"{name} {index} {getattr(self, name)}" for name in names]

    def values(self, index: int) -> Mapping[str, Value]:
        """The card as an entry of gpuInfo."""
        return {
            "index": index,
            "name": "NVIDIA GeForce RTX 3090",
            "uuid": f"GPU-00000000-0000-0000-0000-{index:012}",
            "temper": self.temperature,
            "load": self.utilization,
            "useMemory": self.used,
            "totalMemory": self.total,
            "power": round(self.power / 1000, 1),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeNvml:
    """The cards of a host: `path` is the state file, whose format tests/nvml/nvml.c states."""

    path: Path

    def write(self, cards: tuple[FakeCard, ...], *events: str) -> None:
        """State the cards, and with lines such as `lost 3` what happens to them, in place of what was before."""
        lines = [f"cards {len(cards)}", *(line for index, card in enumerate(cards) for line in card.lines(index))]
        new = self.path.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in (*lines, *events)), encoding="utf-8")
        new.replace(self.path)

    def calls(self) -> list[str]:
        """The calls made so far, such as `init` and `temperature 5`."""
        log = Path(f"{self.path}.calls")
        return log.read_text(encoding="utf-8").splitlines() if log.exists() else []

    def environment(self, library: Path) -> dict[str, str]:
        """The environment of a process on this host."""
        return os.environ | {"LD_LIBRARY_PATH": str(library.parent), "FAKE_NVML_STATE": str(self.path)}
