"""What a person reads: numbers with their units, and tables that fit what they hold."""

import io
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from telemetry.cli.tables import MOST_RICH_ROWS, format_value, print_table
from telemetry.records import MINER_INFO, WORKER_INFO
from telemetry.units import Unit, format_age, format_number


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, Unit.BYTES, "0 B"),
        (1023, Unit.BYTES, "1023 B"),
        (1536, Unit.BYTES, "1.5 KiB"),
        (11_157_881_976_684_544, Unit.BYTES, "9.9 PiB"),
        (-2048, Unit.BYTES_PER_SECOND, "-2.0 KiB/s"),
        (37.5, Unit.PERCENT, "37.5 %"),
        (0, Unit.CELSIUS, "0 °C"),
        (55398.537, Unit.FIL, "55,398.537 FIL"),
        (0.000000001, Unit.FIL, "0.000000001 FIL"),
        (34898, Unit.COUNT, "34,898"),
    ],
)
def test_a_number_reads_with_its_unit(value: float, unit: Unit, text: str) -> None:
    assert format_number(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (4, "4 s"), (180, "3 min"), (7500, "2 h 05 min"), (522_000, "6 d 1 h")],
)
def test_an_age_reads_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


def test_a_list_reads_one_line_an_element_and_absence_is_not_zero() -> None:
    disks = WORKER_INFO.by_name["useDisk"]
    mount = {"mount": "/", "device": "/dev/vda", "filesystem": "ext4", "total": 1024**3, "used": 0}
    assert format_value(disks, [mount, mount]).count("\n") == 1
    assert format_value(disks, [mount]) == "/  /dev/vda  ext4  total 1.0 GiB  used 0 B"
    assert format_value(disks, []) == "none"
    assert format_value(WORKER_INFO.by_name["taskType"], ["PC1", "PC2"]) == "PC1 PC2"
    assert (format_value(disks, None), format_value(MINER_INFO.by_name["errorSectors"], 0)) == ("-", "0")
    assert (format_value(None, True), format_value(None, False)) == ("yes", "no")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _printed(monkeypatch: pytest.MonkeyPatch, out: io.StringIO, rows: int) -> str:
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("TERM", "xterm-256color")
    print_table(("HOST", "LOAD"), [(f"seal{number}[/x]", "5 %") for number in range(rows)], right=frozenset({"LOAD"}))
    return out.getvalue()


def test_a_table_on_no_terminal_is_plain_aligned_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _printed(monkeypatch, io.StringIO(), 2) == "HOST       LOAD\nseal0[/x]   5 %\nseal1[/x]   5 %\n"


def test_a_large_table_is_plain_and_quick_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    text = _printed(monkeypatch, _Terminal(), 10_000)
    assert time.monotonic() - began < 3
    assert text.count("\n") == 10_001
    assert "\x1b" not in text


@pytest.mark.parametrize("make", [_Terminal, io.StringIO], ids=["terminal", "file"])
def test_colour_is_for_terminals_only(make: Callable[[], io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    text = _printed(monkeypatch, make(), MOST_RICH_ROWS)
    assert ("\x1b" in text) == (make is _Terminal)
    assert "seal7[/x]" in text


def test_an_entry_of_a_queue_stands_in_one_line_with_short_ids_and_its_time() -> None:
    entry = {
        "callId": "9d44c93e-7799-48e2-b368-c5539c30ceaa",
        "worker": "e443df78-9558-467f-9ba9-1faf7a024204",
        "sector": 12066,
        "taskShort": "PC1",
        "state": "running",
        "start": 1_795_547_740_000,
    }
    text = format_value(WORKER_INFO.by_name["currentQueue"], [entry])
    began = datetime.fromtimestamp(1_795_547_740, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert text == f"9d44c93e  e443df78  sector 12066  PC1  running  start {began}"
