"""`history`, `at`, `diff` and `events` tell what a plain list of the messages and events tells."""

import contextlib
import csv
import io
import itertools
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.cli import main
from telemetry.config import Retention
from telemetry.fields import Owner, Value
from telemetry.stores import Batch, EventRow, HistoryRow
from telemetry.stores.rows import SCHEMA_VERSION
from telemetry.stores.sqlite import SqliteStore
from telemetry.topics import AgentKey, RecordKey
from telemetry.wire import Position
from tests.history_oracle import HOUR, PlainList
from tests.stored import row_of

MINUTE = 60_000
START = 1_795_800_000_000 // HOUR * HOUR
HOST, OTHER, MINER = RecordKey("f01234", "seal01"), RecordKey("f01234", "seal02"), RecordKey("f01234")
GIB = 1024**3
MOUNT = {"mount": "/", "device": "/dev/sda1", "filesystem": "ext4", "total": 900 * GIB, "used": 450 * GIB}
BLOCKS = {"mount": "/blocks", "device": "/dev/sdb1", "filesystem": "xfs", "total": 4 * GIB, "used": GIB}


def clock(time: int) -> str:
    """A time as an option takes it."""
    return datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="milliseconds")


def told(*words: str) -> Any:
    """What a command prints as JSON; None where it says that there is nothing."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = main([*words, "--json"])
    if status == 1 and ("nothing known" in error.getvalue() or "no history" in error.getvalue()):
        return None
    assert status == 0, error.getvalue()
    return json.loads(out.getvalue())


def row(
    key: RecordKey, owner: Owner, seq: int, time: int, values: dict[str, Value], *gone: str, full: bool = False
) -> HistoryRow:
    return HistoryRow(key, owner, Position(1, seq), time, time + 50, full, values, gone)


def on_terminal(*words: str) -> str:
    """What a command prints on a terminal of 80 columns."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "telemetry", *words],
        stdout=follower,
        stderr=follower,
        env={**os.environ, "COLUMNS": "80", "TERM": "dumb"},
    )
    os.close(follower)
    out = b""
    with contextlib.suppress(OSError):  # how Linux says that the other side is closed
        while some := os.read(leader, 65536):
            out += some
    assert process.wait(30) == 0, out
    return out.decode()


# --- held against a plain list ---

_FIELDS: dict[Owner, dict[str, st.SearchStrategy[Any]]] = {
    Owner.HARDWARE: {
        "cpuLoad": st.one_of(st.integers(0, 100), st.integers(0, 1000).map(lambda number: number / 10)),
        "useMemory": st.integers(0, 2**63 - 1),
        "useDisk": st.lists(st.sampled_from([MOUNT, BLOCKS]), max_size=2),
    },
    Owner.TASKS: {"taskState": st.sampled_from(["enabled", "disabled"]), "newer": st.booleans()},
    Owner.MINER: {"minerBalance": st.floats(0, 1e9), "errorSectors": st.integers(0, 9)},
}
_SENDERS = [(HOST, Owner.HARDWARE), (HOST, Owner.TASKS), (OTHER, Owner.HARDWARE), (MINER, Owner.MINER)]


@st.composite
def _messages(draw: st.DrawFn) -> list[HistoryRow]:
    now, rows = START, []
    for seq in range(1, draw(st.integers(1, 25)) + 1):
        now += draw(st.sampled_from([0, 5_000, 70_000, 2 * HOUR]))
        key, owner = draw(st.sampled_from(_SENDERS))
        stated = draw(st.fixed_dictionaries({}, optional=_FIELDS[owner]))
        gone = [name for name in _FIELDS[owner] if name not in stated and draw(st.integers(0, 5)) == 0]
        rows.append(
            row(key, owner, seq, now - draw(st.sampled_from([0, 0, 90_000])), stated, *gone, full=draw(st.booleans()))
        )
    return rows


@contextlib.contextmanager
def _database(rows: list[HistoryRow], *, packed_at: int = 0) -> Iterator[str]:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "telemetry.db"
        with contextlib.closing(SqliteStore(path)) as store:
            store.commit(Batch(history=rows))
            while packed_at and store.maintain(packed_at):
                pass
        yield str(path)


_SLOW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@_SLOW
@given(_messages(), st.booleans())
def test_history_says_what_was_stated_when(rows: list[HistoryRow], is_packed: bool) -> None:
    plain = PlainList()
    plain.rows = rows
    since, until = rows[len(rows) // 2].time, max(one.time for one in rows) + 1
    with _database(rows, packed_at=until + 3 * HOUR if is_packed else 0) as path:
        for key, owner in _SENDERS:
            fields = [name for name in _FIELDS[owner] if any(name in one.values for one in plain.of(key))]
            if not fields:
                continue
            found = told(
                "history", str(key), *fields, "--since", clock(since), "--until", clock(until), "--database", path
            )
            expected: dict[int, dict[str, Any]] = {}
            for name in fields:
                for time, value in plain.changes(key, name, owner, since, until):
                    expected.setdefault(time, {})[name] = value
            assert _by_time(found) == expected


def _by_time(found: list[dict[str, Any]] | None) -> dict[int, dict[str, Any]]:
    return {
        one["_time"]: {name: value for name, value in one.items() if not name.startswith("_")}
        | dict.fromkeys(one.get("_gone", []))
        for one in found or []
    }


@_SLOW
@given(_messages(), st.sampled_from([30_000, 5 * MINUTE, HOUR]), st.booleans())
def test_history_by_steps_says_what_held_in_each(rows: list[HistoryRow], step: int, is_packed: bool) -> None:
    plain = PlainList()
    plain.rows = rows
    since, until = min(one.time for one in rows) // step * step, max(one.time for one in rows) // step * step + step
    with _database(rows, packed_at=until + 3 * HOUR if is_packed else 0) as path:
        for key, owner, name in ((HOST, Owner.HARDWARE, "cpuLoad"), (HOST, Owner.TASKS, "taskState")):
            if not any(name in one.values for one in plain.of(key)):
                continue
            found = _by_time(
                told("history", str(key), name, "--since", clock(since), "--until", clock(until),
                     "--step", f"{step}ms", "--agg", "min,max,last,count", "--database", path)
            )  # fmt: skip
            for start in range(since, until, step):
                if name == "cpuLoad":
                    summary = plain.summary(key, name, owner, start, start + step)
                    expected = summary and {
                        "cpuLoad_min": summary["min"], "cpuLoad_max": summary["max"], "cpuLoad_last": summary["last"],
                        "cpuLoad_count": summary["counted"],
                    }  # fmt: skip
                else:
                    held = plain.at(key, start + step - 1).get(name)
                    expected = held and {name: held[0]}
                assert found.get(start) == expected


@_SLOW
@given(_messages(), st.booleans(), st.data())
def test_at_and_diff_say_what_was_last_stated(rows: list[HistoryRow], is_packed: bool, data: st.DataObject) -> None:
    plain = PlainList()
    plain.rows = rows
    times = [data.draw(st.sampled_from(rows)).time + data.draw(st.sampled_from([-1, 0, 60_000])) for _ in range(2)]
    with _database(rows, packed_at=rows[-1].time + 4 * HOUR if is_packed else 0) as path:
        for key in (HOST, OTHER, MINER):
            records = [{name: held[0] for name, held in plain.at(key, time).items()} for time in times]
            for time, expected in zip(times, records, strict=True):
                found = told("at", clock(time), str(key), "--database", path)
                newest = max((one[2] for one in plain.at(key, time).values()), default=0)
                assert found == ((expected and key.fields | expected | {"_time": newest}) or None)
            found = told("diff", clock(times[0]), clock(times[1]), str(key), "--database", path)
            expected_names = {
                name for name in records[0].keys() | records[1].keys() if records[0].get(name) != records[1].get(name)
            }
            assert {one["field"] for one in found or []} == expected_names
            for one in found or []:
                assert (one.get("before"), one.get("after")) == tuple(record.get(one["field"]) for record in records)


def test_what_held_before_is_found_though_an_older_message_came_late(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    with contextlib.closing(SqliteStore(path)) as store:
        store.commit(Batch(history=[row(HOST, Owner.HARDWARE, 2, START + 30 * MINUTE, {"cpuLoad": 2})]))
        while store.maintain(START + 3 * HOUR):
            pass
        late = row(HOST, Owner.HARDWARE, 1, START + 10 * MINUTE, {"cpuLoad": 1})
        store.commit(Batch(history=[late._replace(received=START + 3 * HOUR)]))
    times = ("--since", clock(START + 40 * MINUTE), "--until", clock(START + 50 * MINUTE), "--database", str(path))
    assert told("history", "f01234/seal01", "cpuLoad", *times) == [{"_time": START + 40 * MINUTE, "cpuLoad": 2}]


# --- a fleet that is looked at ---


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two hours of a host whose load grows, with an agent that went away once."""
    path = tmp_path_factory.mktemp("fleet") / "telemetry.db"
    rows = [
        row(HOST, Owner.HARDWARE, 1, START, {"cpuLoad": 10.5, "useMemory": GIB, "useDisk": [MOUNT, BLOCKS]}, full=True),
        row(HOST, Owner.TASKS, 1, START, {"taskState": "enabled PC1:1"}),
        *(row(HOST, Owner.HARDWARE, 1 + n, START + n * MINUTE, {"cpuLoad": n / 2}) for n in range(1, 120)),
        row(HOST, Owner.HARDWARE, 200, START + 120 * MINUTE, {"useMemory": 3 * GIB, "useDisk": [MOUNT]}, "cpuLoad"),
        row(MINER, Owner.MINER, 1, START, {"minerBalance": 55398.537}, full=True),
    ]
    agent = AgentKey.of(HOST)
    events = [
        EventRow(START, agent, "online", ""),
        EventRow(START + 60 * MINUTE, agent, "lost", ""),
        EventRow(START + 63 * MINUTE, agent, "online", ""),
        EventRow(START + 64 * MINUTE, AgentKey.of(MINER), "online", ""),
        EventRow(START + 65 * MINUTE, agent, "missing", "3 messages"),
    ]
    record = row_of(HOST, {"cpuLoad": 1}, seqs={"cpuLoad": 1}, whole={Owner.HARDWARE: Position(1, 1)}, time=START)
    with contextlib.closing(SqliteStore(path)) as store:
        store.commit(Batch(records={HOST: record}, history=rows, events=events))
    return str(path)


RANGE = ("--since", clock(START), "--until", clock(START + 121 * MINUTE))


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(list(words))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_history_stands_side_by_side_with_units_by_time(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, error = ran(
        capsys, "history", "f01234", "seal01", "cpuLoad", "useMemory", *RANGE, "--database", fleet
    )  # fmt: skip
    lines = [line.split(maxsplit=2)[2:] for line in out.splitlines()]
    assert (status, error, len(lines)) == (0, "", 122)
    assert lines[1:3] == [["10.5 %    1.0 GiB"], ["0.5 %"]]
    assert lines[-1][0].split() == ["gone", "3.0", "GiB"]


def test_history_by_steps_names_what_it_shows(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("history", "f01234/seal01", "cpuLoad", "taskState", *RANGE, "--step", "1h", "--agg", "min,mean,count")
    status, out, _ = ran(capsys, *words, "--database", fleet)
    assert status == 0
    assert out.splitlines()[0].split() == ["TIME", "cpuLoad", "min", "cpuLoad", "mean", "cpuLoad", "count", "taskState"]
    assert out.splitlines()[2].split()[2:] == ["30", "%", "44.75", "%", "60", "enabled", "PC1:1"]


def test_history_as_csv_is_raw(fleet: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    words = ["history", "f01234", "seal01", "useMemory", "useDisk", *RANGE, "--csv", "--database", fleet]
    assert main(words) == 0
    rows = list(csv.DictReader(io.StringIO(capsysbinary.readouterr().out.decode())))
    assert [one["useMemory"] for one in rows] == [str(GIB), str(3 * GIB)]
    assert json.loads(rows[1]["useDisk"]) == [MOUNT]
    assert rows[0]["_time"] == str(START)


def test_a_plot_fits_80_columns_without_colour_and_shows_the_curve(
    fleet: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = ran(capsys, "history", "f01234", "seal01", "cpuLoad", *RANGE, "--plot", "--database", fleet)
    lines = out.splitlines()
    assert (status, "\x1b" in out) == (0, False)
    assert lines[0] == "f01234/seal01 cpuLoad: lowest 0.5 %, highest 59.5 %, last 59.5 %"
    assert max(map(len, lines)) <= 80
    assert [line.split("┤")[0].strip() for line in lines if "┤" in line] == ["60 %", "40 %", "20 %", "0 %"]
    # It grows: what is drawn of a higher line stands further to the right.
    drawn = [line for line in lines if any("\u2801" <= letter <= "\u28ff" for letter in line)]
    first = [next(at for at, letter in enumerate(line) if "\u2801" <= letter <= "\u28ff") for line in drawn[:-1]]
    assert first[1:] == sorted(first[1:], reverse=True)
    assert len(drawn) >= 10


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("f01234", "seal02", "cpuLoad"), 1, "f01234/seal02: no history of it; did you mean f01234/seal01?"),
        (("f01235", "minerBalance"), 1, "f01235: no history of it; did you mean f01234"),
        (("f01234", "seal01", "cpuLod"), 2, "unknown field cpuLod; did you mean cpuLoad?"),
        (("f01234/seal01", "cpuLod"), 2, "unknown field cpuLod; did you mean cpuLoad?"),
        (("f01234", "cpuLoad"), 2, "cpuLoad is a field of hosts: name one, as in f01234/HOST"),
        (
            ("f01234", "seal01", "minerBalance"),
            2,
            "minerBalance is a field of the miner, not of its hosts: name f01234",
        ),
        (("f01234", "seal01"), 2, "which field of f01234/seal01?"),
        (("f01234", "seal01", "hostName"), 2, "hostName names the record"),
        (("f01234", "seal01", "netState"), 2, "see `telemetry events f01234/seal01`"),
        (("f01234", "seal01", "cpuLoad", "--agg", "max"), 2, "give --step too"),
        (("f01234", "seal01", "cpuLoad", "--step", "1h", "--agg", ""), 2, "--agg: expected min, mean"),
        (
            ("f01234", "seal01", "cpuLoad", "--step", "1h", "--agg", "median"),
            2,
            "--agg median: expected min, mean, max, last, count",
        ),
        (("f01234", "seal01", "cpuLoad", "--step", "often"), 2, "'often' is no length of time"),
        (("f01234", "seal01", "cpuLoad", "--step", "1ms"), 2, "take a longer step"),
        (("f01234", "seal01", "taskState", "--plot"), 2, "taskState is no number"),
        (("1234", "seal01", "cpuLoad"), 2, "miner id '1234'"),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_line(
    words: tuple[str, ...], status: int, message: str, fleet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, error = ran(capsys, "history", *words, *RANGE, "--database", fleet)
    assert (found, out, error.count("\n")) == (status, "", 1)
    assert message in error


def test_a_range_without_data_is_told(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--since", clock(START - 2 * HOUR), "--until", clock(START - HOUR), "--database", fleet)
    status, out, error = ran(capsys, "history", "f01234", "seal01", "cpuLoad", *words)
    assert (status, out) == (1, "")
    assert "nothing known of cpuLoad from" in error
    status, _, error = ran(capsys, "events", "f01234", "seal01", *words[:4], "--database", fleet)
    assert (status, "no events from" in error) == (1, True)
    status, _, error = ran(capsys, "events", "f01234", "seal09", *words[:4], "--database", fleet)
    assert (status, error) == (1, "telemetry: f01234/seal09: no agent of it is known\n")


def test_what_is_still_to_come_is_not_shown(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("at", "2999-01-01"), ("diff", "-1h", "2999-01-01")):
        status, out, error = ran(capsys, *words, "f01234", "seal01", "--database", fleet)
        assert (status, out, error.count("\n")) == (2, "", 1)
        assert "2999-01-01 00:00:00 is still to come" in error
    status, _, error = ran(capsys, "at", clock(START - HOUR), "f01234", "seal01", "--database", fleet)
    assert (status, "f01234/seal01: nothing known of it at" in error) == (1, True)


def test_at_says_how_old_each_value_was_and_whether_the_agent_was_there(
    fleet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    time = clock(START + 61 * MINUTE + 30_000)
    status, out, _ = ran(capsys, "at", time, "f01234", "seal01", "--database", fleet)
    lines = out.splitlines()
    assert status == 0
    assert lines[0].endswith("lost for 90 s")
    assert ["cpuLoad", "30.5 %", "30 s before"] in [
        [cell.strip() for cell in line.split("  ") if cell] for line in lines
    ]
    shown = told("at", time, "f01234/seal01", "--database", fleet)
    assert (shown["netState"], shown["netSince"], shown["cpuLoad"]) == ("lost", START + 60 * MINUTE, 30.5)


def test_diff_shows_of_a_list_what_came_and_went(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    times = (clock(START + 119 * MINUTE), clock(START + 130 * MINUTE))
    status, out, _ = ran(capsys, "diff", *times, "f01234", "seal01", "--database", fleet)
    changes = dict(line.split(maxsplit=1) for line in out.splitlines()[2:])
    assert status == 0
    assert changes["cpuLoad"] == "59.5 % → not known"
    assert changes["useMemory"] == "1.0 GiB → 3.0 GiB"
    assert changes["useDisk"].startswith("- /blocks  /dev/sdb1")
    assert "/dev/sda1" not in out
    _, out, _ = ran(capsys, "diff", clock(START + 130 * MINUTE), "f01234/seal01", "--database", fleet)
    assert out.endswith("nothing differs\n")
    status, out, error = ran(capsys, "diff", clock(START - HOUR), clock(START), "f01234/seal01", "--database", fleet)
    assert (status, error) == (0, "")
    assert "not known → 10.5 %" in out
    status, _, error = ran(capsys, "diff", "-1h", "now", "f01234", "seal01", "more", "--database", fleet)
    assert (status, "expected TIME [TIME] MINER [HOST]" in error) == (2, True)


def test_events_say_how_long_the_state_before_lasted(fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    since = ("--since", clock(START + 30 * MINUTE), "--until", clock(START + 2 * HOUR), "--database", fleet)
    status, out, _ = ran(capsys, "events", "f01234", "seal01", *since)
    assert status == 0
    assert [line.split()[2:] for line in out.splitlines()[1:]] == [
        ["f01234/seal01", "lost", "online", "for", "1", "h", "00", "min"],
        ["f01234/seal01", "online", "lost", "for", "3", "min"],
        ["f01234/seal01", "missing", "3", "messages"],
    ]
    found = told("events", "f01234", *since)
    assert [(one.get("hostName"), one["event"]) for one in found][2] == (None, "online")
    assert found[1] == {
        "minerId": "f01234", "hostName": "seal01", "_time": START + 63 * MINUTE, "event": "online", "before": "lost",
        "lasted": 180_000,
    }  # fmt: skip


def test_diff_shows_of_an_object_the_entries_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "telemetry.db"
    states: list[dict[str, Value]] = [{"Proving": 7, "PreCommit1": 2}, {"Proving": 9, "PreCommit1": 2, "WaitSeed": 1}]
    with contextlib.closing(SqliteStore(path)) as store:
        for n, stated in enumerate(states, 1):
            values: dict[str, Value] = {"sectorStates": stated}
            store.commit(Batch(history=[row(MINER, Owner.MINER, n, START + n * MINUTE, values)]))
    times = (clock(START + MINUTE), clock(START + 2 * MINUTE))
    _, out, _ = ran(capsys, "diff", *times, "f01234", "--database", str(path))
    assert [line.strip() for line in out.splitlines()[2:]] == ["sectorStates  Proving 7 → 9", "WaitSeed - → 1"]


def test_what_was_asked_for_is_shown_also_where_a_terminal_is_too_narrow(fleet: str) -> None:
    fields = ("cpuLoad", "useMemory", "taskState")
    words = ("history", "f01234/seal01", *fields, *RANGE, "--step", "30m", "--agg", "min,mean,max,last,count")
    out = on_terminal(*words, "--database", fleet)
    assert out.count("cpuLoad") == out.count("useMemory") == 5
    assert "enabled PC1:1" in out


# --- what is not kept any more ---


@pytest.fixture(scope="module")
def expired(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two days of which messages are kept for some hours, and summaries of five minutes for one day."""
    path = tmp_path_factory.mktemp("expired") / "telemetry.db"
    retention = Retention(messages=3 * 3600, five_minutes=24 * 3600, hours=1e9, bytes=1 << 40)
    end = START + 48 * HOUR
    with contextlib.closing(SqliteStore(path, retention)) as store:
        for n, time in enumerate(range(START, end, 10 * MINUTE), 1):
            values: dict[str, Value] = {"cpuLoad": n % 7, "taskState": f"enabled PC1:{n // 100}"}
            store.commit(Batch(history=[row(HOST, Owner.HARDWARE, n, time, values)]))
        # What expires is told by a clock that was seen to run.
        for time in range(START, end + 1, 10 * MINUTE):
            while store.maintain(time):
                pass
    return str(path)


def test_where_messages_are_not_kept_summaries_stand_in_and_that_is_said(
    expired: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("history", "f01234/seal01", "cpuLoad", "--until", clock(START + 48 * HOUR), "--database", expired)
    status, out, error = ran(capsys, *words, "--since", clock(START + 47 * HOUR))
    assert (status, error, len(out.splitlines())) == (0, "", 1 + 1 + 6 - 1)
    status, out, error = ran(capsys, *words, "--since", clock(START + 30 * HOUR))
    assert (status, error.count("\n")) == (0, 1)
    assert "there the summaries of five minutes stand in" in error
    assert len(out.splitlines()) > 100


def test_steps_that_are_not_kept_are_longer_and_that_is_said(expired: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("history", "f01234/seal01", "cpuLoad", "--database", expired, "--until", clock(START + 48 * HOUR))
    status, out, error = ran(capsys, *words, "--since", clock(START + 10 * HOUR), "--step", "1m", "--csv")
    times = [int(line.split(",")[0]) for line in out.splitlines()[1:]]
    steps = [later - time for time, later in itertools.pairwise(times)]
    assert (status, error.count("\n")) == (0, 2)
    assert set(steps) == {HOUR, 5 * MINUTE, MINUTE}
    assert steps == sorted(steps, reverse=True)


def test_at_of_a_time_whose_messages_are_gone_is_told_by_summaries(
    expired: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, error = ran(capsys, "at", clock(START + 12 * HOUR), "f01234", "seal01", "--database", expired)
    assert (status, error.count("\n")) == (0, 1)
    assert "are not kept any more" in error
    assert "enabled PC1:0" in out


# --- every reading command ---

READING: list[tuple[str, ...]] = [
    ("ls",),
    ("show", "f01234", "seal01"),
    ("history", "f01234", "seal01", "cpuLoad", *RANGE),
    ("at", clock(START + MINUTE), "f01234", "seal01"),
    ("diff", clock(START + MINUTE), clock(START + HOUR), "f01234", "seal01"),
    ("events", *RANGE),
    ("export",),
]


@pytest.mark.parametrize("words", READING, ids=lambda words: words[0])
@pytest.mark.parametrize("kind", ["damaged", "no database", "newer", "empty"])
def test_a_database_that_cannot_be_read_is_told_in_one_line(
    words: tuple[str, ...], kind: str, fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "telemetry.db"
    whole = Path(fleet).read_bytes()
    if kind == "damaged":
        path.write_bytes(whole[:8192] + b"\xa5" * (len(whole) - 8192))
    elif kind == "newer":
        path.write_bytes(whole[:60] + (SCHEMA_VERSION + 1).to_bytes(4, "big") + whole[64:])
    else:
        path.write_text("miners\n" * 1000 if kind == "no database" else "")
    status, out, error = ran(capsys, *words, "--database", str(path))
    assert (status, out, error.count("\n")) == (1, "", 1), error
    assert str(path) in error


@pytest.mark.parametrize("words", READING, ids=lambda words: words[0])
def test_a_reading_command_loads_only_what_it_uses(words: tuple[str, ...], fleet: str) -> None:
    call = f"main({[*words, '--database', fleet]!r})"
    code = f"import sys; from telemetry.cli import main; {call}; print('\\n', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "sqlite3" in loaded
    assert not loaded & {
        "sqlite_utils",
        "paho",
        "psutil",
        "apscheduler",
        "asyncio",
        "rich",
        "plotille",
        "arro3",
        "socket",
    }


@pytest.mark.parametrize("words", [words for words in READING if words[0] != "export"], ids=lambda words: words[0])
def test_on_a_terminal_of_80_columns_no_line_is_longer(words: tuple[str, ...], fleet: str) -> None:
    lines = on_terminal(*words, "--database", fleet).splitlines()
    assert lines
    assert max(map(len, lines)) <= 80, max(lines, key=len)
