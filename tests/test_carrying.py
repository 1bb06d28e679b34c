"""What is carried out of a database and into one: exports, imports and backups, whole or not at all."""

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from arro3.io import read_parquet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.cli import main
from telemetry.fields import Owner
from telemetry.stores import Batch, HistoryRow
from telemetry.stores.history import Tier
from telemetry.stores.history.reading import History, open_history
from telemetry.stores.reading import open_reader
from telemetry.stores.rows import SCHEMA_VERSION
from telemetry.stores.sqlite import SqliteStore
from telemetry.topics import RecordKey
from telemetry.wire import Position
from tests.conftest import StartPart
from tests.parts import Broker, wait_for
from tests.stored import row_of

HOUR, MINUTE = 3_600_000, 60_000
START = 1_795_800_000_000 // HOUR * HOUR
HOST, MINER, ODD = RecordKey("f01234", "seal01"), RecordKey("f01234"), RecordKey("f01234", "GPU box/2 ✓")
MOUNT = {"mount": "/", "device": "/dev/sda1", "filesystem": "ext4", "total": 900, "used": 450}


def ran(*words: str) -> tuple[int, str, str]:
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = main(list(words))
    return status, out.getvalue(), error.getvalue()


# --- export and import ---

_JSON = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=3,
)
_NEWER = dict.fromkeys(("newer", "time", "owner", "gone"), _JSON)
_FIELDS: dict[Owner, dict[str, st.SearchStrategy[Any]]] = {
    Owner.HARDWARE: {
        "cpuLoad": st.one_of(st.integers(0, 100), st.floats(0, 100)),
        "useMemory": st.integers(-(2**63), 2**63 - 1),
        "useDisk": st.lists(st.just(MOUNT), max_size=2),
    },
    Owner.TASKS: {"taskState": st.text(), "taskType": st.lists(st.text(), max_size=2)},
    Owner.MINER: {"minerBalance": st.floats(0, 1e9), "errorSectors": st.integers(0, 9)},
}
_SENDERS = [(HOST, Owner.HARDWARE), (HOST, Owner.TASKS), (ODD, Owner.HARDWARE), (MINER, Owner.MINER)]


@st.composite
def _messages(draw: st.DrawFn) -> list[HistoryRow]:
    rows, now = [], START
    for seq in range(1, draw(st.integers(1, 20)) + 1):
        now += draw(st.sampled_from([0, 5_000, 3 * HOUR]))
        key, owner = draw(st.sampled_from(_SENDERS))
        fields = _FIELDS[owner] | _NEWER
        values: dict[str, Any] = draw(st.fixed_dictionaries({}, optional=fields))
        gone = [name for name in fields if name not in values and draw(st.integers(0, 5)) == 0]
        time, epoch = now - draw(st.sampled_from([0, 90_000, 5 * HOUR])), draw(st.integers(1, 2))
        rows.append(HistoryRow(key, owner, Position(epoch, seq), time, now, draw(st.booleans()), values, tuple(gone)))
    return rows


def _fill(path: Path, rows: list[HistoryRow], *, packed_at: int = 0) -> None:
    with contextlib.closing(SqliteStore(path)) as store:
        store.commit(Batch(history=rows))
        while packed_at and store.maintain(packed_at):
            pass


def _exactly(history: History) -> dict[RecordKey, list[str]]:
    """All that a history holds, 1 and 1.0 and True told apart."""
    return {
        key: [
            repr((owner, one[:5], json.dumps(one.values, sort_keys=True), sorted(one.gone)))
            for owner, one in history.statements(key)
        ]
        for key in history.records()
    }


def _held(path: Path) -> dict[RecordKey, list[str]]:
    with open_history(path) as history:
        return _exactly(history)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(_messages(), st.booleans(), st.data())
def test_an_export_that_is_imported_gives_the_same_history(
    rows: list[HistoryRow], is_packed: bool, data: st.DataObject
) -> None:
    with TemporaryDirectory() as directory:
        here, there, lines = Path(directory) / "here.db", Path(directory) / "there.db", Path(directory) / "all.jsonl"
        _fill(here, rows, packed_at=rows[-1].received + 4 * HOUR if is_packed else 0)
        assert ran("export", "--until", "2500-01-01", "--output", str(lines), "--database", str(here))[0] == 0
        # Some are there before, and some come twice.
        known = data.draw(st.lists(st.sampled_from(rows), unique_by=lambda row: (row.record, row.owner, row.position)))
        _fill(there, known, packed_at=rows[-1].received + 4 * HOUR if data.draw(st.booleans()) else 0)
        lines.write_bytes(lines.read_bytes() + lines.read_bytes())
        status, out, error = ran("import", str(lines), "--database", str(there))
        assert status == 0, error
        assert out.startswith(f"{len(rows) - len(known)} message")
        assert f"{len(rows) + len(known):,} were there already" in out
        assert _held(there) == _held(here)
        assert ran("import", str(lines), "--database", str(there))[1].startswith("0 messages added")
        assert _held(there) == _held(here)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "telemetry.db"
    values: list[dict[str, Any]] = [
        {"cpuLoad": 10.5, "useDisk": [MOUNT]},
        {"cpuLoad": 20, "newer": {"a": True}},
        {"taskState": 'a,b\n"c"'},
    ]
    rows = [
        HistoryRow(HOST, Owner.TASKS if "taskState" in stated else Owner.HARDWARE, Position(1, n), START + n * MINUTE,
                   START + n * MINUTE + 50, n == 1, stated, ("useMemory",) if n == 2 else ())
        for n, stated in enumerate(values, 1)
    ]  # fmt: skip
    rows.append(HistoryRow(MINER, Owner.MINER, Position(1, 1), START, START + 9, True, {"errorSectors": 3}, ()))
    record = row_of(HOST, {"cpuLoad": 1}, seqs={"cpuLoad": 1}, time=START)
    with contextlib.closing(SqliteStore(path)) as store:
        store.commit(Batch(records={HOST: record}, history=rows))
    return path


def test_csv_has_a_row_a_message_and_a_column_a_field(database: Path, tmp_path: Path) -> None:
    status, out, _ = ran("export", "--output", f"{tmp_path}/all.csv", "--database", str(database))
    rows = list(csv.DictReader((tmp_path / "all.csv").open(newline="")))
    assert (status, out.startswith("4 rows of 2 records to ")) == (0, True)
    assert list(rows[0]) == [
        "_time", "minerId", "hostName", "_owner", "_epoch", "_seq", "_received", "_full", "_gone",
        "errorSectors", "cpuLoad", "useMemory", "useDisk", "taskState", "newer",
    ]  # fmt: skip
    by_seq = {(row["_owner"], row["_seq"]): row for row in rows}
    assert by_seq["tasks", "3"]["taskState"] == 'a,b\n"c"'
    assert json.loads(by_seq["hardware", "1"]["useDisk"]) == [MOUNT]
    second = by_seq["hardware", "2"]
    assert (second["cpuLoad"], second["useDisk"], second["_gone"], second["_full"]) == (
        "20",
        "",
        '["useMemory"]',
        "false",
    )
    assert (second["_time"], second["_received"]) == (str(START + 2 * MINUTE), str(START + 2 * MINUTE + 50))


def test_parquet_has_typed_columns(database: Path, tmp_path: Path) -> None:
    assert ran("export", "--output", f"{tmp_path}/all.parquet", "--database", str(database))[0] == 0
    table = read_parquet(tmp_path / "all.parquet").read_all()
    types = {name: str(table.schema.field(name).type) for name in table.schema.names}
    assert "Timestamp" in types["_time"]
    assert [("Float64" in types["cpuLoad"]), ("Int64" in types["errorSectors"]), ("Boolean" in types["_full"])] == [
        True
    ] * 3
    columns = {name: table.column(name).to_pylist() for name in types}
    assert sorted(one for one in columns["cpuLoad"] if one is not None) == [10.5, 20.0]
    assert [json.loads(one) for one in columns["useDisk"] if one] == [[MOUNT]]
    assert [json.loads(one) for one in columns["newer"] if one] == [{"a": True}]
    assert {round(one.timestamp() * 1000) for one in columns["_time"]} == {START + n * MINUTE for n in range(4)}


def test_a_selection_is_of_records_fields_and_time(database: Path, tmp_path: Path) -> None:
    words = ("--database", str(database), "--output", f"{tmp_path}/some.jsonl")
    assert ran("export", "f01234/seal01", "--fields", "cpuLoad", *words)[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "some.jsonl").read_text().splitlines()]
    assert [line.get("cpuLoad") for line in lines] == [10.5, 20]
    assert not any("useDisk" in line or "_gone" in line for line in lines)
    status, _, error = ran("import", f"{tmp_path}/some.jsonl", "--data", f"{tmp_path}/new")
    assert (status, "line 1: no whole message" in error) == (1, True)
    assert ran("export", "f01234", "--since", "-1s", *words)[0] == 1
    assert ran("export", "--fields", "cpuLod", *words)[2].endswith("unknown field cpuLod; did you mean cpuLoad?\n")
    assert "netState is not in the history of messages" in ran("export", "--fields", "netState", *words)[2]


def test_steps_are_exported_from_the_summaries(database: Path, tmp_path: Path) -> None:
    words = ("--step", "2m", "--agg", "min,max", "--until", "2026-11-29", "--fields", "cpuLoad,taskState")
    assert ran("export", *words, "--output", f"{tmp_path}/x.jsonl", "--database", str(database))[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "_time": START, "minerId": "f01234", "hostName": "seal01", "cpuLoad_min": 10.5, "cpuLoad_max": 10.5
    }  # fmt: skip
    assert (lines[1]["cpuLoad_min"], lines[1]["cpuLoad_max"], lines[1]["taskState"]) == (20, 20, 'a,b\n"c"')


def test_standard_output_is_for_pipes(database: Path) -> None:
    command = [sys.executable, "-m", "telemetry", "export", "--format", "jsonl", "--database", str(database)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 4
    assert done.stderr == ""
    assert ran("export", "--format", "parquet", "--database", str(database))[0] == 2
    assert ran("export", "--output", str(database), "--format", "csv", "--database", str(database))[0] == 2


def test_without_its_library_parquet_is_told_in_one_line(database: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['arro3'] = None; from telemetry.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["export", "--output", f"{tmp_path}/all.parquet", "--database", str(database)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install 'storage-telemetry[export]'" in done.stderr
    assert sorted(one.name for one in tmp_path.iterdir() if one.suffix not in {".lock", ".db-wal", ".db-shm"}) == [
        "telemetry.db"
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_file_leaves_what_was_there(number: signal.Signals, tmp_path: Path) -> None:
    target = tmp_path / "all.csv"
    target.write_text("before")
    code = (
        "import sys, time, pathlib; from telemetry.cli.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); print('begun', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    assert len(list(tmp_path.iterdir())) == 2
    process.send_signal(number)
    assert process.wait(10) != 0
    assert [one.read_text() for one in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[]", "expected an object"),
        ("{", "line 2: "),
        ('{"_seq": 1}', "minerId: expected a text"),
        ('{"_seq": 1, "minerId": "1234"}', "miner id '1234'"),
        ('{"_seq": 1, "minerId": "f01234", "_owner": "tasks"}', "_owner: expected miner"),
        ('{"_seq": 0.5, "minerId": "f01234", "_owner": "miner", "_epoch": 1}', "_seq: expected an integer"),
        ('{"_seq": 1, "minerId": "f01234", "_owner": "miner", "_epoch": 1, "_time": 1e99}', "_time: expected"),
        ('{"_seq": 1, "minerId": "f01234", "_owner": "miner", "_epoch": 1, "_gone": [1]}', "_gone: expected"),
        (
            '{"_seq": 1, "minerId": "f01234", "_owner": "miner", "_epoch": 1, "errorSectors": "x"}',
            "not of the declared",
        ),
    ],
)
def test_a_line_that_is_no_message_is_told_with_its_number(line: str, told: str, tmp_path: Path) -> None:
    good = {"minerId": "f01234", "_owner": "miner", "_epoch": 1, "_seq": 1, "_time": START, "_received": START}
    (tmp_path / "some.jsonl").write_text(f"{json.dumps(good)}\n{line}\n")
    status, out, error = ran("import", f"{tmp_path}/some.jsonl", "--data", f"{tmp_path}/new")
    assert (status, out, error.count("\n")) == (1, "", 1)
    assert "some.jsonl, line 2: " in error
    assert told in error


def test_what_is_older_than_messages_are_kept_is_imported_and_told(database: Path, tmp_path: Path) -> None:
    assert ran("export", "--output", f"{tmp_path}/all.jsonl", "--database", str(database))[0] == 0
    (tmp_path / "settings.toml").write_text("[history]\nmessages = 1\n")
    words = ("--config", f"{tmp_path}/settings.toml", "--data", f"{tmp_path}/new")
    status, out, error = ran("import", f"{tmp_path}/all.jsonl", *words)
    assert (status, out.startswith("4 messages added")) == (0, True)
    assert "4 of them are of before" in error
    # Nothing is left to do for the aggregator that starts then.
    with open_history(tmp_path / "new" / "telemetry.db") as history:
        assert Tier.FIVE_MINUTES in history.kept_since(HOST)


# --- backups ---


def test_a_backup_is_one_whole_file_of_all_that_was_committed(database: Path, tmp_path: Path) -> None:
    status, out, _ = ran("backup", f"{tmp_path}/copy.db", "--database", str(database))
    assert (status, out.startswith("1 record and all history in ")) == (0, True)
    assert sorted(one.name for one in tmp_path.glob("copy*")) == ["copy.db"]
    (tmp_path / "copy.db").chmod(0o400)
    assert _held(tmp_path / "copy.db") == _held(database)
    with sqlite3.connect(tmp_path / "copy.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_only_an_earlier_backup_is_replaced(database: Path, tmp_path: Path) -> None:
    assert ran("backup", f"{tmp_path}/copy.db", "--database", str(database))[0] == 0
    assert ran("backup", f"{tmp_path}/copy.db", "--database", str(database))[0] == 0
    (tmp_path / "letter.txt").write_text("dear operator\n" * 100)
    before = database.read_bytes()
    for target in (tmp_path / "letter.txt", database):
        status, _, error = ran("backup", str(target), "--database", str(database))
        assert (status, error.count("\n")) == (2, 1)
        assert "give another FILE" in error
    assert (tmp_path / "letter.txt").read_text().startswith("dear operator")
    assert database.read_bytes() == before


def test_a_backup_takes_no_place_of_a_pipe_or_a_device(database: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    status, _, error = ran("backup", str(pipe), "--database", str(database))
    assert (status, error) == (1, f"telemetry: {pipe} is no file, so it stays: give another\n")
    assert ran("backup", f"{tmp_path}/copy.db", "--database", str(database))[0] == 0
    status, _, error = ran("import", f"{tmp_path}/copy.db", "--force", "--database", str(pipe))
    assert (status, error) == (1, f"telemetry: {pipe} is no file, so it stays: give another\n")
    assert pipe.is_fifo()
    assert not list(tmp_path.glob("*before*"))


def test_a_damaged_database_gives_no_backup(database: Path, tmp_path: Path) -> None:
    whole = database.read_bytes()
    database.write_bytes(whole[:-4096] + b"\xa5" * 4096)
    status, _, error = ran("backup", f"{tmp_path}/copy.db", "--database", str(database))
    assert (status, error.count("\n")) == (1, 1)
    assert "damaged" in error or "malformed" in error
    assert not list(tmp_path.glob("*copy*"))


def test_a_backup_in_the_place_of_a_database_keeps_that_aside(database: Path, tmp_path: Path) -> None:
    assert ran("backup", f"{tmp_path}/copy.db", "--database", str(database))[0] == 0
    before = _held(database)
    later = HistoryRow(MINER, Owner.MINER, Position(1, 2), START + HOUR, START + HOUR, False, {"errorSectors": 4}, ())
    # As an aggregator leaves it that was killed: what it committed last is in the log beside.
    with contextlib.closing(SqliteStore(database)) as store:
        store.commit(Batch(history=[later]))
        for ending in ("", "-wal"):
            shutil.copy(f"{database}{ending}", f"{tmp_path}/killed.db{ending}")
    killed = tmp_path / "killed.db"
    status, _, error = ran("import", f"{tmp_path}/copy.db", "--database", str(killed))
    assert (status, "--force puts" in error) == (2, True)
    assert ran("import", f"{tmp_path}/copy.db", "--database", str(killed), "--force")[0] == 0
    assert _held(killed) == before
    [aside] = tmp_path.glob("killed.db.before-*[0-9]")
    assert len(_held(aside)[MINER]) == 2
    assert not Path(f"{killed}-wal").exists()


@pytest.mark.parametrize("kind", ["damaged", "of another program", "newer"])
def test_what_is_no_whole_backup_takes_no_place(kind: str, database: Path, tmp_path: Path) -> None:
    assert ran("backup", f"{tmp_path}/copy.db", "--database", str(database))[0] == 0
    copy = tmp_path / "copy.db"
    whole = copy.read_bytes()
    if kind == "damaged":
        copy.write_bytes(whole[:-4096] + b"\xa5" * 4096)
    elif kind == "newer":
        copy.write_bytes(whole[:60] + (SCHEMA_VERSION + 1).to_bytes(4, "big") + whole[64:])
    else:
        copy.unlink()
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            connection.execute("CREATE TABLE letters (text TEXT)")
    before = _held(database)
    status, _, error = ran("import", str(copy), "--database", str(database), "--force")
    assert (status, error.count("\n")) == (1, 1)
    assert _held(database) == before
    assert not list(tmp_path.glob("*before*"))


def test_nothing_is_imported_while_an_aggregator_has_the_database(database: Path, tmp_path: Path) -> None:
    assert ran("backup", f"{tmp_path}/copy.db", "--database", str(database))[0] == 0
    assert ran("export", "--output", f"{tmp_path}/all.jsonl", "--database", str(database))[0] == 0
    with contextlib.closing(SqliteStore(database)):
        for words in (("copy.db", "--force"), ("all.jsonl",)):
            status, _, error = ran("import", f"{tmp_path}/{words[0]}", *words[1:], "--database", str(database))
            assert (status, "aggregator is using it" in error) == (1, True)
        status, _, error = ran("backup", str(database), "--database", f"{tmp_path}/copy.db")
        assert (status, "an aggregator is using it" in error) == (2, True)


def _large() -> Iterator[HistoryRow]:
    text = os.urandom(500).hex()
    for n in range(40_000):
        yield HistoryRow(HOST, Owner.TASKS, Position(1, n + 1), START + n, START + n, False, {"taskState": text}, ())


def test_a_backup_ends_and_holds_nobody_up_while_every_commit_changes_the_database(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    with contextlib.closing(SqliteStore(path)) as store:
        store.commit(Batch(history=list(_large())))
        command = [sys.executable, "-m", "telemetry", "backup", f"{tmp_path}/copy.db", "--database", str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        longest, commits = 0.0, 0
        while process.poll() is None:
            commits += 1
            row = HistoryRow(HOST, Owner.HARDWARE, Position(1, commits), START, START, False, {"cpuLoad": commits}, ())
            began = time.monotonic()
            store.commit(Batch(history=[row]))
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.002)
            assert commits < 20_000, "the backup begins anew with each commit"
        assert process.wait() == 0
        assert commits > 20
        assert longest < 1.0
    with open_history(tmp_path / "copy.db") as history:
        copied = [statement.seq for owner, statement in history.statements(HOST) if owner is Owner.HARDWARE]
    # As of one moment: a beginning of what was committed.
    assert copied == list(range(1, len(copied) + 1))
    assert len(copied) < commits


def test_a_fleet_moves_to_another_machine_and_its_gap_is_filled_from_an_export(
    broker: Broker, data: Path, start: StartPart
) -> None:
    """Back up while the aggregator works, go on elsewhere from the backup, bring what happened between."""
    common = ("--broker", broker.url, "--config", str(data / "fast.toml"))
    aggregator = start("aggregator", "--data", str(data), *common)
    start("agent", "--data", str(data), *common, "--miner", "f01234", "--name", "seal01")
    old, new = data / "telemetry.db", data / "new"
    wait_for(lambda: old.exists() and _count(old) > 10, seconds=20, what="messages")
    assert ran("backup", f"{data}/copy.db", "--database", str(old))[0] == 0
    assert aggregator.is_running
    saved = _count(data / "copy.db")
    wait_for(lambda: _count(old) > saved + 5, seconds=20, what="the aggregator goes on")
    assert ran("import", f"{data}/copy.db", "--database", str(old), "--force")[0] == 1
    aggregator.terminate()
    assert ran("export", "--output", f"{data}/rest.jsonl", "--database", str(old))[0] == 0
    assert ran("import", f"{data}/copy.db", "--data", str(new))[0] == 0
    status, out, error = ran("import", f"{data}/rest.jsonl", "--data", str(new))
    assert (status, out.startswith("0 messages")) == (0, False), error
    assert _held(new / "telemetry.db") == _held(old)
    before = _count(old)
    start("aggregator", "--data", str(new), *common)
    wait_for(lambda: _count(new / "telemetry.db") > before + 5, seconds=20, what="it goes on elsewhere")
    with open_reader(new / "telemetry.db") as reader:
        assert reader.record(HOST) is not None


def _count(path: Path) -> int:
    try:
        return sum(len(found) for found in _held(path).values())
    except Exception:  # noqa: BLE001  # it is being made
        return 0
