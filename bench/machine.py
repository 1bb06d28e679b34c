"""The machine that was measured on, in words."""

import os
import platform
import subprocess
from pathlib import Path

from telemetry.errors import TelemetryError
from telemetry.mosquitto import find_mosquitto


def describe() -> dict[str, str]:
    """What a reader has to know of this machine to compare figures."""
    return {
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "Kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "Mosquitto": _mosquitto_version(),
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _mosquitto_version() -> str:
    try:
        program = find_mosquitto()
    except TelemetryError:
        return "none"
    first = subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout.partition("\n")[0]
    return first.removeprefix("mosquitto version ") or "unknown"
