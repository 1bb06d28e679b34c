"""Imports point one way, and each third-party package has one home."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import telemetry

ROOT = Path(telemetry.__file__).parent

LAYERS = (
    {"errors", "units"},
    {"fields"},
    {"records", "health"},
    {"topics", "wire", "admission", "flagged", "render", "config"},
    {"follow", "spooling", "reports", "publish", "access"},
    {
        "tls",
        "security",
        "probe",
        "sources",
        "mqtt",
        "stores",
        "processes",
        "logs",
        "connection_limit",
        "mosquitto",
        "simulate",
        "broker",
        "schemas",
        "times",
    },
    {"agent", "aggregator", "client"},
    {"web"},
    {"cli"},
    {"__main__"},
)
"""From the left: a module imports its own part and those before it, of its own layer only what stands below."""

WITHIN = {
    ("mqtt", "tls"),
    ("probe", "mqtt"),
    ("probe", "tls"),
    ("security", "mqtt"),
    ("mosquitto", "security"),
    ("mosquitto", "processes"),
    ("mosquitto", "connection_limit"),
    ("simulate", "sources"),
    ("publish", "spooling"),
    ("publish", "reports"),
    ("topics", "wire"),
    ("wire", "topics"),
    ("render", "topics"),
}

PURE = LAYERS[0] | LAYERS[1] | LAYERS[2] | LAYERS[3] | LAYERS[4]
NO_OUTSIDE_WORLD = {"time", "socket", "threading", "subprocess", "os", "random", "sqlite3", "datetime"}

HOMES = {
    "paho": {"mqtt/connection.py"},
    "psutil": {"sources/host.py"},
    "plotille": {"cli/plots.py"},
    "arro3": {"cli/writers.py"},
    "pynvml": {"sources/gpu.py"},
    "apscheduler": {"agent/sampler.py"},
    "sqlite_utils": {"stores/sqlite.py"},
    "cryptography": {"security/certificates.py"},
    "urllib3": {"sources/lotus/client.py"},
    "starlette": {"web/app.py", "web/guard.py"},
    "uvicorn": {"web/server.py"},
    "prometheus_client": {"web/metrics.py"},
    # Answers of Lotus are decoded while they are large, and told apart from errors where they arrive.
    "msgspec": {"sources/lotus/answers.py", "sources/lotus/client.py"},
}
ANYWHERE = {"orjson"}
ONLY_IN_CLI = {"rich"}


def _modules() -> Iterator[tuple[str, set[str]]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), set(_imported(ast.parse(path.read_text())))


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _part(module: str) -> str:
    return module.split("/", maxsplit=1)[0].removesuffix(".py")


def _layer(part: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


def test_imports_point_from_right_to_left() -> None:
    wrong = []
    for module, imported in _modules():
        part = _part(module)
        if part == "__init__":
            continue
        for name in imported:
            words = name.split(".")
            if words[0] != "telemetry" or words[1] in {"__version__", part}:
                continue
            if _layer(words[1]) >= _layer(part) and (part, words[1]) not in WITHIN:
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_what_stands_left_of_the_edges_knows_no_outside_world() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, imported in _modules()
        if _part(module) in PURE and module != "render/__main__.py"
        for name in imported
        if name.split(".")[0] in NO_OUTSIDE_WORLD
    ]
    assert wrong == []


def test_each_third_party_package_has_one_home() -> None:
    wrong = []
    for module, imported in _modules():
        for name in imported:
            package = name.split(".")[0]
            if package in sys.stdlib_module_names or package == "telemetry" or package in ANYWHERE:
                continue
            if package in ONLY_IN_CLI and _part(module) == "cli":
                continue
            if module not in HOMES.get(package, set()):
                wrong.append(f"{module} imports {package}")
    assert wrong == []


def _loaded_by(module: str) -> set[str]:
    code = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_the_agent_loads_nothing_that_it_does_not_need_on_every_host() -> None:
    loaded = _loaded_by("telemetry.cli.agent")
    assert not loaded & {"rich", "jsonschema", "starlette", "uvicorn", "pynvml", "urllib3", "msgspec", "cryptography"}
    assert not loaded & {"sqlite3", "_sqlite3", "sqlite_utils", "prometheus_client"}


@pytest.mark.parametrize("name", ["ls", "show", "history", "at", "diff", "events", "export", "backup"])
def test_reading_commands_load_only_what_they_use(name: str) -> None:
    loaded = _loaded_by(f"telemetry.cli.{name}")
    assert not loaded & {"sqlite_utils", "paho", "psutil", "apscheduler", "asyncio", "rich", "plotille", "arro3"}
