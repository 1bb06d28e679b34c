"""What a part that runs says: in the form that its reader takes, from the chosen level on, one event a line."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.parts import wait_for

NOT_CONNECTED = "not connected: mqtt://127.0.0.1:1: Connection refused; trying again"


def _run_until_told(
    descriptor: int, text: Path, data: Path, *, part: str = "agent", environment: Mapping[str, str] | None = None
) -> None:
    """Run a part that finds no broker, with standard error going to the descriptor, until it has said so in `text`."""
    command = [sys.executable, "-m", "telemetry", part, "--data", str(data), "--broker", "mqtt://127.0.0.1:1"]
    process = subprocess.Popen(command, stderr=descriptor, env={**os.environ, **(environment or {})})
    try:
        wait_for(lambda: "trying again" in text.read_text(), seconds=15, what="that it is not connected")
    finally:
        process.terminate()
        assert process.wait(15) == 0


@pytest.mark.parametrize("part", ["agent", "aggregator"])
def test_a_program_that_reads_the_log_gets_one_object_a_line(tmp_path: Path, part: str) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stream:
        _run_until_told(stream.fileno(), log, tmp_path, part=part)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    [told] = [line for line in lines if line["message"] == NOT_CONNECTED]
    assert (told["level"], told["part"]) == ("warning", part)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told["time"])


def test_journald_gets_the_priority_of_each_line_and_no_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stream:
        found = os.fstat(stream.fileno())
        journal = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        _run_until_told(stream.fileno(), log, tmp_path, environment=journal)
    assert f"<4>{NOT_CONNECTED}" in log.read_text().splitlines()


def test_a_part_that_only_inherited_where_the_journal_is_does_not_write_for_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stream:
        _run_until_told(stream.fileno(), log, tmp_path, environment={"JOURNAL_STREAM": "1:1"})
    assert all(line.startswith("{") for line in log.read_text().splitlines())


def test_a_person_at_a_terminal_gets_text(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    log = tmp_path / "log"
    command = [sys.executable, "-m", "telemetry", "agent", "--data", str(tmp_path), "--broker", "mqtt://127.0.0.1:1"]
    process = subprocess.Popen(command, stderr=theirs)
    os.close(theirs)

    def is_told() -> bool:
        with log.open("ab") as copy:
            copy.write(os.read(ours, 4096))
        return "trying again" in log.read_text()

    wait_for(is_told, seconds=15, what="that it is not connected")
    process.terminate()
    assert process.wait(15) == 0
    os.close(ours)
    assert re.search(rf"^\d\d:\d\d:\d\d agent WARNING {re.escape(NOT_CONNECTED)}", log.read_text(), re.MULTILINE)


def test_what_is_below_the_chosen_level_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "telemetry.db").write_bytes(b"no database")
    command = [
        sys.executable,
        "-m",
        "telemetry",
        "aggregator",
        "--data",
        str(tmp_path),
        "--broker",
        "mqtt://127.0.0.1:1",
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "TELEMETRY_LOG_LEVEL": "error"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    [line] = done.stderr.splitlines()
    assert (json.loads(line)["level"], done.returncode) == ("error", 1)

    log = tmp_path / "log"
    with log.open("wb") as stream:
        quiet = subprocess.Popen(
            [sys.executable, "-m", "telemetry", "agent", "--data", str(tmp_path), "--broker", "mqtt://127.0.0.1:1"],
            stderr=stream, env={**os.environ, "TELEMETRY_LOG_LEVEL": "error"},
        )  # fmt: skip
        # Its spool is there once it has sampled: by then it has tried to connect.
        wait_for(lambda: list(tmp_path.glob("agent/*.spool/*")), seconds=15, what="that it has sampled")
        quiet.terminate()
        assert quiet.wait(15) == 0
    assert log.read_text() == ""


def test_a_level_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "telemetry", "agent", "--data", str(tmp_path)],
        env={**os.environ, "TELEMETRY_LOG_LEVEL": "loud"}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    expected = "telemetry: log.level = 'loud': expected 'debug' or 'info' or 'warning' or 'error'\n"
    assert (done.stderr, done.returncode) == (expected, 2)
