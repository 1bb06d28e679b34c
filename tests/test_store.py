"""What every store keeps, and what SQLite's own store does about bad files, a full disk and a new field."""

import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
import sqlite_utils
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.aggregator.mirror import MirroredRecord
from telemetry.errors import StoreBusyError, StoreError
from telemetry.fields import Field, ObjectList, Owner, Record, Scalar, ScalarList, ScalarMap, Type
from telemetry.records import MINER_INFO, WORKER_INFO
from telemetry.stores import (
    Batch,
    EventRow,
    Held,
    HistoryRow,
    Moved,
    RecordRow,
    RejectedRow,
    Store,
    Stored,
    StoredAgent,
    StoredLog,
    sqlite,
)
from telemetry.stores.reading import open_reader
from telemetry.stores.rows import SCHEMA_VERSION
from telemetry.stores.sqlite import SqliteStore
from telemetry.topics import AgentKey, RecordKey
from telemetry.wire import Position, decode_snapshot
from tests.conftest import StartPart
from tests.parts import Broker, Listener, wait_for
from tests.stored import committed, row_of

HOST = RecordKey("f01234", "seal01")
MINER = RecordKey("f01234")
AGENT = AgentKey("f01234", "seal01")


@contextmanager
def _open(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        yield store


BACKENDS: dict[str, Callable[[Path], Store]] = {"sqlite": lambda directory: SqliteStore(directory / "telemetry.db")}
"""How each backend opens what it keeps in a directory. A new backend is an entry here."""

# Integers that a REAL column holds exactly, as the numbers of JSON are.
_INTEGERS = st.integers(-(2**53), 2**53)
_OF_SCALAR: dict[Scalar, st.SearchStrategy[Any]] = {
    Scalar.STRING: st.text(),
    Scalar.INTEGER: st.integers(-(2**63), 2**63 - 1),
    Scalar.NUMBER: st.one_of(_INTEGERS, st.floats(allow_nan=False, allow_infinity=False)),
    Scalar.BOOLEAN: st.booleans(),
}
_JSON = st.recursive(
    st.one_of(st.booleans(), _INTEGERS, st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=5,
)


def _values(declared: Type) -> st.SearchStrategy[Any]:
    match declared:
        case Scalar():
            return _OF_SCALAR[declared]
        case ScalarList():
            return st.lists(_OF_SCALAR[declared.element], max_size=3)
        case ScalarMap():
            return st.dictionaries(st.text(max_size=5), _OF_SCALAR[declared.value], max_size=3)
        case ObjectList():
            members = {member.name: _OF_SCALAR[member.type] for member in declared.members if not member.optional}
            optional = {member.name: _OF_SCALAR[member.type] for member in declared.members if member.optional}
            return st.lists(st.fixed_dictionaries(members, optional=optional), max_size=2)


_POSITIONS = st.builds(Position, st.integers(1, 2**53 - 1), st.integers(1, 2**53 - 1))


@st.composite
def _records(draw: st.DrawFn, key: RecordKey) -> RecordRow:
    record = key.record
    declared = {field.name: _values(field.type) for field in record.fields if field.name not in record.keys}
    senders = st.sampled_from(record.senders)
    names = st.from_regex(r"new[A-Za-z0-9_]{1,8}", fullmatch=True)
    return row_of(
        key,
        draw(st.fixed_dictionaries({}, optional=declared)),
        seqs=draw(st.dictionaries(st.sampled_from(list(declared)), st.integers(1, 2**53 - 1))),
        epochs=draw(st.dictionaries(senders, st.integers(1, 2**53 - 1))),
        whole=draw(st.dictionaries(senders, _POSITIONS)),
        unknown=draw(st.dictionaries(names, st.builds(Held, _JSON, senders, _POSITIONS), max_size=3)),
        time=draw(st.integers(0, 2**53)),
    )


_COUNTS = st.integers(0, 2**53)
_LOGS = st.builds(
    StoredLog,
    epoch=_COUNTS,
    position=st.one_of(st.none(), _COUNTS),
    beyond=st.lists(st.tuples(_COUNTS, _COUNTS), max_size=3),
    fulls=st.dictionaries(st.text(), _COUNTS, max_size=3),
    floor=_COUNTS,
    lost=_COUNTS,
)
_AGENTS = st.builds(
    StoredAgent,
    log=_LOGS,
    former=st.lists(_LOGS, max_size=2),
    state=st.sampled_from(["unknown", "online", "lost"]),
    since=_COUNTS,
    heard=_COUNTS,
    session=st.text(),
    version=st.text(),
)

ONE_RECORD = row_of(HOST, {"diskR": 5}, seqs={"diskR": 1}, epochs={Owner.HARDWARE: 1})
ONE_LOG = StoredLog(epoch=1, position=1, beyond=[], fulls={}, floor=0, lost=0)
ONE_AGENT = StoredAgent(
    log=ONE_LOG,
    former=[],
    state="online",
    since=1,
    heard=1,
    session="s",
    version="1",
)


_KEYS = [RecordKey("f01234", f"seal{number:02}") for number in range(4)]
_ROWS = st.tuples(st.sampled_from(_KEYS), st.integers(0, 9), st.booleans()).map(
    lambda one: (one[0], row_of(one[0], {"diskR": one[1]}) if one[2] else None)
)
_KNOWN = st.tuples(st.sampled_from([AgentKey.of(key) for key in _KEYS]), st.one_of(st.none(), _AGENTS))
_MOVED = st.dictionaries(st.sampled_from([AgentKey.of(key) for key in _KEYS]), st.builds(Moved, _COUNTS, _COUNTS))
_BATCHES = st.builds(
    Batch, records=st.lists(_ROWS, max_size=3).map(dict), agents=st.lists(_KNOWN, max_size=3).map(dict), moved=_MOVED
)


@pytest.mark.parametrize("backend", BACKENDS)
class TestStore:
    """What the aggregator relies on, whatever the backend."""

    @settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
    @given(host=_records(HOST), miner=_records(MINER), agent=_AGENTS)
    def test_what_is_committed_is_loaded_equal(
        self, backend: str, host: RecordRow, miner: RecordRow, agent: StoredAgent
    ) -> None:
        with TemporaryDirectory() as directory:
            with closing(BACKENDS[backend](Path(directory))) as store:
                store.commit(Batch(records={HOST: host, MINER: miner}, agents={AGENT: agent}))
            with closing(BACKENDS[backend](Path(directory))) as store:
                assert store.load() == Stored(records={HOST: host, MINER: miner}, agents={AGENT: agent})

    def test_a_store_begins_empty(self, backend: str, tmp_path: Path) -> None:
        with closing(BACKENDS[backend](tmp_path)) as store:
            assert store.load() == Stored(records={}, agents={})

    def test_a_record_is_replaced_as_a_whole(self, backend: str, tmp_path: Path) -> None:
        newer = row_of(HOST, {"diskW": 6}, seqs={"diskW": 2}, epochs={Owner.HARDWARE: 1})
        with closing(BACKENDS[backend](tmp_path)) as store:
            store.commit(Batch(records={HOST: ONE_RECORD}))
            store.commit(Batch(records={HOST: newer}))
            assert store.load().records == {HOST: newer}

    def test_what_is_forgotten_is_gone_and_the_rest_stays(self, backend: str, tmp_path: Path) -> None:
        other = RecordKey("f01234", "seal02")
        with closing(BACKENDS[backend](tmp_path)) as store:
            stays = row_of(other, {"diskR": 6})
            store.commit(Batch(records={HOST: ONE_RECORD, other: stays}, agents={AGENT: ONE_AGENT}))
            store.commit(Batch(records={HOST: None}, agents={AGENT: None}))
            assert store.load() == Stored(records={other: stays}, agents={})

    def test_a_batch_stands_or_falls_as_a_whole(self, backend: str, tmp_path: Path) -> None:
        # The last row written is one that no store can hold.
        broken = RejectedRow(1, "topic", "reason", object())  # type: ignore[arg-type]
        with closing(BACKENDS[backend](tmp_path)) as store:
            store.commit(Batch(agents={AGENT: ONE_AGENT}))
            with pytest.raises((StoreError, TypeError)):
                store.commit(Batch(records={HOST: ONE_RECORD}, agents={AGENT: None}, rejected=[broken]))
            assert store.load() == Stored(records={}, agents={AGENT: ONE_AGENT})
            store.commit(Batch(records={HOST: ONE_RECORD}, moved={AGENT: Moved(2, 2)}))
            assert store.load().records == {HOST: ONE_RECORD}
            assert store.load().agents[AGENT].log.position == 2

    @settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
    @given(batches=st.lists(_BATCHES, max_size=6))
    def test_batches_one_after_another_leave_what_they_say(self, backend: str, batches: list[Batch]) -> None:
        stored = Stored(records={}, agents={})
        with TemporaryDirectory() as directory, closing(BACKENDS[backend](Path(directory))) as store:
            for batch in batches:
                # Only an agent that is there can move.
                batch.moved = {
                    key: one for key, one in batch.moved.items() if key in stored.agents.keys() - batch.agents
                }
                store.commit(batch)
                stored = committed(stored, batch)
            assert store.load() == stored

    def test_history_that_the_records_do_not_have_yet_is_loaded(self, backend: str, tmp_path: Path) -> None:
        rows = [HistoryRow(HOST, Owner.HARDWARE, Position(1, n), n, n, False, {"diskR": n}, ("x",)) for n in range(4)]
        with closing(BACKENDS[backend](tmp_path)) as store:
            store.commit(Batch(history=rows[:2], records={HOST: ONE_RECORD}))
            assert store.load().behind == ()
            store.commit(Batch(history=rows[2:3], is_behind=True))
            store.commit(Batch(history=rows[3:], is_behind=True))
            assert store.load().behind == tuple(rows[2:])
            store.commit(Batch(records={HOST: ONE_RECORD}))
            assert store.load().behind == ()

    def test_a_count_that_outgrew_every_column_does_not_stop_it(self, backend: str, tmp_path: Path) -> None:
        with closing(BACKENDS[backend](tmp_path)) as store:
            store.commit(Batch(agents={AGENT: replace(ONE_AGENT, log=replace(ONE_LOG, lost=2**70))}))
            assert store.load().agents[AGENT].lost >= 2**53


def _query(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(query).fetchall()
        connection.commit()
        return rows


def _refused(path: Path) -> str:
    """What the store says of a file that it cannot use: one line that names it."""
    with pytest.raises(StoreError) as refused, _open(path) as store:
        store.load()
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with one record and one agent."""
    path = tmp_path / "telemetry.db"
    with _open(path) as store:
        store.commit(Batch(records={HOST: ONE_RECORD}, agents={AGENT: ONE_AGENT}))
    return path


def test_a_database_of_a_newer_version_is_left_alone(database: Path) -> None:
    _query(database, "PRAGMA user_version = 99")
    assert "install that version" in _refused(database)
    assert _query(database, "PRAGMA user_version") == [(99,)]


def test_a_database_of_another_application_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    _query(path, "CREATE TABLE precious (a)")
    assert "give another --database" in _refused(path)
    assert _query(path, "SELECT name FROM sqlite_master") == [("precious",)]


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database\n" * 1000)
    assert "give another --database" in _refused(path)
    assert path.read_text().startswith("not a database")


@pytest.mark.parametrize("page", range(1, 8))
def test_a_database_with_a_damaged_page_is_told_in_one_line(database: Path, page: int) -> None:
    _query(database, "PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(database.read_bytes())
    content[page * 4096 : (page + 1) * 4096] = b"\xa5" * 4096
    database.write_bytes(content)
    try:
        with _open(database) as store:
            store.load()
    except StoreError as error:
        assert str(database) in str(error)


def test_a_damaged_database_is_told_in_one_line_with_what_to_do(database: Path) -> None:
    _query(database, "PRAGMA wal_checkpoint(TRUNCATE)")
    content = database.read_bytes()
    database.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
    assert "give another --database" in _refused(database)


def test_a_row_written_by_hand_is_told_in_one_line(database: Path) -> None:
    _query(database, "INSERT INTO minerInfo (minerId) VALUES ('f01')")
    _refused(database)
    with pytest.raises(StoreError), open_reader(database) as reader:
        reader.records()


@pytest.mark.parametrize("inside", ["/proc/nowhere", "/dev/null"])
def test_a_directory_that_cannot_be_written_is_told(inside: str) -> None:
    assert "cannot write" in _refused(Path(inside) / "telemetry.db")


def test_a_second_aggregator_on_the_same_database_is_refused(database: Path) -> None:
    with _open(database):
        assert "end that one first" in _refused(database)
    with _open(database) as store:
        assert store.load().records == {HOST: ONE_RECORD}


def test_a_reader_sees_what_is_committed_while_the_store_is_open(database: Path) -> None:
    with _open(database) as store, open_reader(database) as reader:
        assert reader.record(HOST) == ONE_RECORD
        store.commit(Batch(rejected=[RejectedRow(1, "topic", "reason", b"payload")]))
        assert reader.rejected() == 1


def test_a_database_that_is_locked_may_be_written_later(database: Path) -> None:
    with _open(database) as store, closing(sqlite3.connect(database, isolation_level=None)) as other:
        store._connection.execute("PRAGMA busy_timeout = 1")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError):
            store.commit(Batch(records={HOST: None}))
        other.execute("ROLLBACK")
        store.commit(Batch(records={HOST: None}))
        assert store.load().records == {}


@pytest.mark.parametrize("record", [MINER_INFO, WORKER_INFO])
def test_a_table_has_one_column_for_each_declared_field(database: Path, record: Record) -> None:
    with closing(sqlite3.connect(database)) as connection:
        cursor = connection.execute(f"SELECT * FROM {record.name}")
        assert [column[0] for column in cursor.description] == [*record.by_name, "_time", "_state"]


def test_a_declaration_that_gains_a_field_adds_a_column_to_an_existing_database(database: Path) -> None:
    fan = Field(name="fanSpeed", type=Scalar.INTEGER, owner=Owner.HARDWARE, english="Fan.", chinese="风扇")
    with closing(sqlite3.connect(database)) as connection:
        sqlite._extend(sqlite_utils.Database(connection), replace(WORKER_INFO, fields=(*WORKER_INFO.fields, fan)))
        connection.commit()
    assert _query(database, "SELECT hostName, diskR, fanSpeed FROM workerInfo") == [("seal01", 5, None)]
    with _open(database) as store:
        assert store.load().records == {HOST: ONE_RECORD}


def test_a_value_kept_from_before_its_field_was_declared_is_not_lost(database: Path) -> None:
    held = Held(5, Owner.HARDWARE, Position(1, 1))
    before = row_of(HOST, {}, epochs={Owner.HARDWARE: 1}, unknown={"diskW": held})
    with _open(database) as store:
        store.commit(Batch(records={HOST: before}))
        after = store.load().records[HOST]
    assert MirroredRecord(HOST, after).held(Owner.HARDWARE) == {"diskW": held}
    assert after == row_of(HOST, {"diskW": 5}, seqs={"diskW": 1}, epochs={Owner.HARDWARE: 1})


def test_positions_written_in_another_order_of_fields_are_read_by_name(database: Path) -> None:
    names = ["hostName", "diskW", "diskR", "gone"]
    _query(database, f"INSERT INTO layouts VALUES (42, '{' '.join(names)}')")
    state = {"layout": 42, "seqs": [0, 8, 9, 3], "hardware": [7, 7, 5]}
    _query(database, f"UPDATE workerInfo SET diskR = 5, diskW = 6, _state = '{orjson.dumps(state).decode()}'")
    expected = row_of(
        HOST, {"diskR": 5, "diskW": 6}, seqs={"diskW": 8, "diskR": 9}, epochs={Owner.HARDWARE: 7},
        whole={Owner.HARDWARE: Position(7, 5)},
    )  # fmt: skip
    with open_reader(database) as reader:
        assert reader.record(HOST) == expected
    with _open(database) as store:
        assert store.load().records == {HOST: expected}


def test_rows_that_another_process_moved_are_found(database: Path) -> None:
    keys = [RecordKey("f01234", f"seal{number:02}") for number in range(20)]
    records: dict[RecordKey, RecordRow | None] = {key: row_of(key, {"diskR": at}) for at, key in enumerate(keys)}
    with _open(database) as store:
        store.commit(Batch(records=records))
        store.commit(Batch(records=dict.fromkeys(keys[:10])))
        _query(database, "VACUUM")
        store.commit(Batch(records={keys[15]: row_of(keys[15], {"diskR": 99})}))
        assert store.load().records == {
            **{key: records[key] for key in keys[10:]},
            keys[15]: row_of(keys[15], {"diskR": 99}),
        }


@pytest.fixture
def first_version(tmp_path: Path) -> Path:
    """A database as version 1 wrote it."""
    path = tmp_path / "telemetry.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parent / "database_1.sql").read_text())
    return path


def test_a_database_of_version_1_is_read_and_then_made_one_of_today(first_version: Path) -> None:
    with open_reader(first_version) as reader:
        records, agents = reader.records(), reader.agents()
    with _open(first_version) as store:
        assert store.load() == Stored(records=records, agents=agents)
    with _open(first_version) as store:
        assert store.load() == Stored(records=records, agents=agents)
        store.commit(Batch(moved={AGENT: Moved(9, 90)}))
        assert (store.load().agents[AGENT].log.position, store.load().agents[AGENT].heard) == (9, 90)
    assert _query(first_version, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    record = MirroredRecord(HOST, records[HOST])
    hardware = {name: (one.value, one.position) for name, one in record.held(Owner.HARDWARE).items()}
    assert hardware == {
        "diskR": (5, Position(7, 3)),
        "cpuLoad": (None, Position(7, 2)),
        "fanSpeed": (900, Position(7, 3)),
        "netIO": ([{"interface": "eth0", "rx": 1, "tx": 2}], Position(7, 0)),  # of an earlier log
    }
    assert {name: one.value for name, one in record.held(Owner.TASKS).items()} == {"taskState": "enabled"}
    snapshot = decode_snapshot(record.snapshot())
    assert (snapshot.time, snapshot.positions, snapshot.values["netState"]) == (
        77,
        {"hardware": Position(7, 3)},
        "online",
    )
    assert agents[AGENT].log.beyond == [(5, 6)]
    assert (agents[AGENT].lost, agents[AGENT].heard, agents[AGENT].late) == (3, 70, 4)


def test_the_rejected_are_bounded_and_the_newest_stay(tmp_path: Path) -> None:
    most = sqlite.MOST_REJECTED
    path = tmp_path / "telemetry.db"
    with _open(path) as store:
        for start in range(0, most + 500, 500):
            store.commit(Batch(rejected=[RejectedRow(start + at, "t", "r", b"") for at in range(500)]))
    assert _query(path, "SELECT count(*), min(time), max(time) FROM rejected") == [(most, 500, most + 499)]


def test_history_whose_numbers_are_given_again_is_not_taken_for_mirrored(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    row = HistoryRow(HOST, Owner.HARDWARE, Position(1, 1), 1, 1, False, {"diskR": 1}, ())
    with _open(path) as store:
        store.commit(Batch(history=[row] * 3))
        sqlite.delete_history(path, [HOST])
        store.commit(Batch(history=[row], is_behind=True))
        assert store.load().behind == (row,)


def test_history_and_events_read_plainly(tmp_path: Path) -> None:
    path = tmp_path / "telemetry.db"
    row = HistoryRow(HOST, Owner.HARDWARE, Position(7, 3), 1, 2, True, {"diskR": 5}, ("cpuLoad",))
    with _open(path) as store:
        store.commit(Batch(history=[row], events=[EventRow(9, AGENT, "lost", "")]))
    rows = "SELECT minerId, hostName, owner, epoch, seq, time, time + delay, full, statement FROM history"
    assert _query(path, f"{rows} JOIN streams ON streams.id = stream") == [
        ("f01234", "seal01", "hardware", 7, 3, 1, 2, 1, "[1,5,2,null]"),
    ]
    assert _query(path, "SELECT number, name FROM names") == [(1, "diskR"), (2, "cpuLoad")]
    assert _query(path, "SELECT time, minerId, agent, event FROM events") == [(9, *AGENT, "lost")]


def test_a_full_disk_stops_nothing_and_loses_nothing(
    data: Path, broker: Broker, start: StartPart, listen: Callable[..., Listener]
) -> None:
    path = data / "telemetry.db"
    aggregator = start("aggregator", "--data", str(data), "--broker", broker.url, "--config", str(data / "fast.toml"))
    listener = listen()
    topic, ack = "miners/f01234/workers/seal01", "telemetry/agents/f01234/seal01/ack/main"

    def publish(seq: int) -> None:
        change = {"_epoch": 7, "_seq": seq, "_time": seq, "newText": "x" * 2000}
        listener.publish(topic, orjson.dumps(change))

    def acknowledged() -> int:
        return max((orjson.loads(message.payload)["seq"] for message in listener.of(ack)), default=0)

    wait_for(lambda: "connected as" in aggregator.text, seconds=15, what="aggregator connected")
    listener.publish("telemetry/agents/f01234/seal01/backlog", b'{"epoch":7,"first":1,"next":1,"messages":[]}')
    publish(1)
    wait_for(lambda: acknowledged() == 1, seconds=10, what="the first message acknowledged")

    # The kernel refuses to let a file of the aggregator grow beyond what the WAL is now, as a full disk does.
    largest = path.with_name("telemetry.db-wal").stat().st_size
    resource.prlimit(aggregator.pid, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    for seq in range(2, 200):
        publish(seq)
    wait_for(lambda: "nothing is acknowledged" in aggregator.text, seconds=10, what="it says so")
    before = acknowledged()
    publish(200)
    assert aggregator.is_running
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert acknowledged() == before < 200
    resource.prlimit(aggregator.pid, resource.RLIMIT_FSIZE, unlimited)

    wait_for(lambda: acknowledged() == 200, seconds=20, what=f"all acknowledged: {aggregator.text}")
    assert _query(path, "SELECT count(DISTINCT seq), count(*) FROM history") == [(200, 200)]
    assert _query(path, "SELECT lost FROM agents") == [(0,)]
    assert aggregator.text.count("nothing is acknowledged") == 1
    assert aggregator.text.count("can be written again") == 1
    assert "Traceback" not in aggregator.text
