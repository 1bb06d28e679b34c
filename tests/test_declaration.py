"""One declaration of a field drives everything."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.fields import Scalar
from telemetry.records import MINER_INFO, RECORDS, WORKER_INFO
from telemetry.render.__main__ import main as generate
from tests.parts import Broker, Listener, wait_for

ROOT = Path(__file__).parents[1]

MINER_FIELDS = [
    "minerId",
    "minerBalance",
    "workerBalance",
    "postBalance",
    "pledgeBalance",
    "effectivePower",
    "totalSectors",
    "effectiveSectors",
    "errorSectors",
    "recoverySectors",
    "deletedSectors",
    "failSectors",
    "expectBlock",
    "minerAvailable",
    "preCommitWait",
    "commitWait",
    "preCommit1",
    "preCommit2",
    "waitSeed",
    "committing",
    "finalizeSector",
]
WORKER_FIELDS = [
    "hostName",
    "currentQueue",
    "pendingQueue",
    "cpuTemper",
    "cpuLoad",
    "gpuInfo",
    "totalMemory",
    "useMemory",
    "useDisk",
    "diskR",
    "diskW",
    "netIO",
    "netState",
    "taskState",
    "taskType",
]
FLAT = ["runningTasks", "pendingTasks", "gpuTemper", "gpuLoad", "gpuMemory", "diskUsedPercent", "netRx", "netTx"]

NEW_FIELD = """
        _hardware("fanSpeed", Scalar.INTEGER, Unit.COUNT, "Turns of the fan a minute.", "风扇转速"),
        _hardware("cpuTemper","""


def test_all_fields_of_the_design_are_declared_in_its_order() -> None:
    assert [field.name for field in MINER_INFO.fields][: len(MINER_FIELDS)] == MINER_FIELDS
    names = [field.name for field in WORKER_INFO.fields if field.name != "minerId"]
    assert names[: len(WORKER_FIELDS)] == WORKER_FIELDS
    assert set(names) >= set(FLAT)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_every_field_is_described_in_both_languages(record: object) -> None:
    assert record in RECORDS
    for one in RECORDS:
        for field in one.fields:
            assert field.english.endswith(".")
            assert field.chinese


def test_what_plots_use_stands_flat_beside_each_composite() -> None:
    assert all(isinstance(WORKER_INFO.by_name[name].type, Scalar) for name in FLAT)


def test_the_generated_files_are_up_to_date() -> None:
    assert generate(ROOT, check=True) == 0


def test_drift_of_a_generated_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(tmp_path, check=False) == 0
    (tmp_path / "docs" / "fields.md").write_text("old")
    (tmp_path / "schemas" / "gone.schema.json").write_text("{}")
    capsys.readouterr()
    assert generate(tmp_path, check=True) == 1
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "docs/fields.md",
        "schemas/gone.schema.json",
    ]


@pytest.fixture
def extended(tmp_path: Path) -> dict[str, str]:
    """The environment of a copy of the package that declares one field more, in one place."""
    package = tmp_path / "package" / "telemetry"
    shutil.copytree(ROOT / "telemetry", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("broker", "schemas"):
        shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    records = package / "records.py"
    text = records.read_text()
    assert '\n        _hardware("cpuTemper",' in text
    records.write_text(text.replace('\n        _hardware("cpuTemper",', NEW_FIELD))
    return {**os.environ, "PYTHONPATH": str(package.parent)}


def _run(environment: dict[str, str], cwd: Path, *arguments: str) -> str:
    command = [sys.executable, "-P", "-m", *arguments]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_field_that_is_declared_arrives_everywhere(extended: dict[str, str], broker: Broker, data: Path) -> None:
    _run(extended, data, "telemetry.render")
    schema = json.loads((data / "schemas" / "workerInfo.hardware.schema.json").read_text())
    assert schema["properties"]["fanSpeed"]["type"] == "integer"
    assert "fanSpeed" in (data / "docs" / "fields.md").read_text()
    assert "fanSpeed" in _run(extended, data, "telemetry", "fields")
    # A database of before gains the column.
    _aggregate(dict(os.environ), broker, data, b'{"_epoch":1,"_seq":1,"_time":5,"_full":true,"cpuLoad":1}')
    _aggregate(extended, broker, data, b'{"_epoch":1,"_seq":2,"_time":6,"fanSpeed":900,"cpuLoad":2}')
    with sqlite3.connect(data / "telemetry.db") as connection:
        assert connection.execute("SELECT fanSpeed, cpuLoad FROM workerInfo").fetchone() == (900, 2.0)
    assert json.loads(_run(extended, data, "telemetry", "show", "f01", "h", "--data", str(data), "--json"))
    assert "fanSpeed" in _run(extended, data, "telemetry", "show", "f01", "h", "--data", str(data))


def _aggregate(environment: dict[str, str], broker: Broker, data: Path, change: bytes) -> None:
    """Run an aggregator until it has stored a change."""
    command = [sys.executable, "-P", "-m", "telemetry", "aggregator", "--data", str(data), "--broker", broker.url]
    process = subprocess.Popen(command, env=environment, cwd=data)
    listener = Listener(broker.url, "#")
    try:
        wait_for(lambda: listener.of("telemetry/aggregators/main"), seconds=15, what="the aggregator")
        batch = b'{"epoch":1,"first":1,"next":%d,"messages":[]}' % (json.loads(change)["_seq"] + 1)
        listener.publish("miners/f01/workers/h", change)
        listener.publish("telemetry/agents/f01/h/backlog", batch)
        wait_for(lambda: _is_acknowledged(listener, json.loads(change)["_seq"]), seconds=15, what="an ack")
    finally:
        process.terminate()
        process.wait(15)
        listener.close()


def _is_acknowledged(listener: Listener, seq: int) -> bool:
    acks = listener.of("telemetry/agents/f01/h/ack/main")
    return bool(acks) and json.loads(acks[-1].payload)["seq"] >= seq
