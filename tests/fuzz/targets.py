"""What is fuzzed: each target takes bytes, and raises only where there is a defect."""

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import orjson
from hypothesis import strategies as st

from telemetry import config, wire
from telemetry.access import User, rules_of
from telemetry.admission import admission, admit_snapshot
from telemetry.aggregator.mirror import MirroredRecord
from telemetry.errors import TelemetryError, UsageError, WireError
from telemetry.fields import Owner
from telemetry.mqtt import BrokerUrl
from telemetry.records import RECORDS
from telemetry.sources.lotus import answers
from telemetry.sources.lotus.client import Lotus, LotusError
from telemetry.sources.lotus.endpoints import Endpoint, find_miner
from telemetry.sources.lotus.queues import Queues
from telemetry.topics import Address, Channel, RecordKey, Topics, host_level, is_worker_host
from tests.scripted import publish
from tests.test_packets import read

Check: TypeAlias = Callable[[bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is tried with bytes, and how those are made up that are nearly right."""

    check: Check
    inputs: st.SearchStrategy[bytes]


# --- messages ---

_SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
_RESERVED = (
    "_epoch", "_seq", "_prev", "_time", "_full", "_first", "_gone", "_positions", "state", "session", "time", "version",
    "epoch", "next", "process", "since", "seq", "former", "digest", "hosts", "first", "messages", "now", "digests",
)  # fmt: skip
_FIELDS = [field.name for record in RECORDS for field in record.fields]
_RIGHT = (
    st.integers(0, 2**53) | st.booleans() | st.lists(st.sampled_from(_FIELDS), max_size=3)
    | st.dictionaries(st.sampled_from([owner.value for owner in Owner]), st.lists(st.integers(1, 9), max_size=3))
    | st.sampled_from(["online", "stopped", "lost", ""])
)  # fmt: skip
_NAMES = st.sampled_from(_RESERVED) | st.sampled_from(_FIELDS) | st.text(max_size=8)


def _dumped(value: object) -> bytes:
    """JSON as others write it: numbers of any size, and numbers that are none."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return repr(value).encode(errors="replace")


_MESSAGES = st.dictionaries(_NAMES, _RIGHT | _JSON, max_size=12).map(_dumped)


_BACK_AND_FORTH: tuple[tuple[Callable[[Any], bytes], Callable[[bytes], Any]], ...] = (
    (wire.encode_presence, wire.decode_presence),
    (wire.encode_ack, wire.decode_ack),
)


def _wire(data: bytes) -> None:
    _decoded(wire.decode_request, data)
    _decoded(wire.decode_resubscribe, data)
    for encode, decode in _BACK_AND_FORTH:
        if (message := _decoded(decode, data)) is not None:
            assert decode(encode(message)) == message
    if (snapshot := _decoded(wire.decode_snapshot, data)) is not None:
        for record in RECORDS:
            orjson.dumps(dict(admit_snapshot(record, snapshot.values)))
    batch = _decoded(wire.decode_backlog, data)
    late = [payload for _, payload in batch.messages] if isinstance(batch, wire.Backlog) else []
    for payload in (data, *late):
        if (change := _decoded(wire.decode_change, payload)) is not None:
            _take_in(change)


def _decoded(decode: Callable[[bytes], object], data: bytes) -> Any:
    try:
        return decode(data)
    except WireError as error:
        assert "\n" not in str(error)
        return None


def _take_in(change: wire.Change) -> None:
    """Take a change in, as an aggregator does."""
    for key in (RecordKey("f01"), RecordKey("f01", "host")):
        record = MirroredRecord(key)
        for owner in key.record.senders:
            rule = admission(key.record, owner)
            values = rule.admit(change.values).values
            record.apply(record.part(owner), change, values, rule.form_of(values))
            record.part(owner).whole = change.position
        wire.decode_snapshot(record.snapshot())
        assert MirroredRecord(key, record.stored()).snapshot() == record.snapshot()


# --- topics ---

_LEVELS = st.sampled_from(
    ["miners", "telemetry", "f01234", "t01", "workers", "seal01", "presence", "snapshot", "tasks", "resubscribe",
     "agents", "_miner", "backlog", "request", "ack", "main", "aggregators", "+", "#", "%41", "%C3%BC", "",
     "viewer.all.x"]
) | st.text(max_size=6)  # fmt: skip
_TOPICS = st.lists(_LEVELS, max_size=7).map(lambda levels: "/".join(levels).encode(errors="replace"))


def _topics(data: bytes) -> None:
    text, topics = data.decode(errors="replace"), Topics()
    address = topics.parse(text)
    if address is not None:
        assert _built(topics, address, text) == text
    if is_worker_host(text):
        assert topics.parse(f"miners/f01/workers/{host_level(text)}") is not None
    user = User.parse(text)
    if user is not None:
        assert str(user) == text
        assert not any(rule.allows("write", "elsewhere") for rule in rules_of(user, topics))
    with contextlib.suppress(UsageError):
        assert "password" not in str(BrokerUrl.parse(text.replace("@", ":password@", 1)))


def _built(topics: Topics, address: Address, text: str) -> str:
    """The topic of the address again."""
    channel, record, agent, owner = address
    built = {
        Channel.SNAPSHOT: topics.snapshot(record),
        Channel.PRESENCE: topics.presence(record),
        Channel.RESUBSCRIBE: topics.resubscribe(record.minerId),
        Channel.BACKLOG: topics.backlog(agent),
        Channel.REQUEST: topics.request(agent),
        Channel.ACK: topics.ack(agent, text.rpartition("/")[2]),
    }
    return topics.change(record, owner) if owner is not None else built[channel]


# --- settings ---

_SECTIONS = ["broker", "tls", "agent", "aggregator", "history", "spool", "topics", "intervals", "lotus", "sources"]
_KEYS = ["url", "password", "connections", "rate", "ca", "name", "bytes", "messages", "records", "host", "use", "gpu"]
_TOML_VALUES = st.sampled_from(
    ["1", "0", "-1", "1e400", "nan", "inf", '"x"', "'''", "[]", "{}", "{a=1}", "true", "2020-01-01", "0x1", "1_0"]
) | st.text(max_size=6)
_LINES = st.one_of(
    st.sampled_from(_SECTIONS).map("[{}]".format),
    st.tuples(st.sampled_from(_KEYS), _TOML_VALUES).map(" = ".join),
    st.text(max_size=12),
)
_VARIABLES = st.tuples(
    st.sampled_from(["BROKER_URL", "INTERVALS_HOST", "SOURCES_GPU_INTERVAL", "DEADBANDS_CPULOAD", "SOURCES_", "X", ""]),
    st.text(max_size=8),
).map("=".join)
_SETTINGS = st.tuples(st.lists(_LINES, max_size=8).map("\n".join), st.lists(_VARIABLES, max_size=3).map("\n".join)).map(
    lambda parts: "\0".join(parts).encode(errors="replace")
)


def _settings(data: bytes) -> None:
    """A file, a zero byte, and variables, one a line."""
    text, _, variables = data.decode(errors="replace").partition("\0")
    named = dict(line.partition("=")[::2] for line in variables.split("\n") if line)
    environ = {f"{config.VARIABLE_PREFIX}{name}": value for name, value in named.items()}
    try:
        config.read_settings(text=text, file="file.toml", environ=environ, options={})
    except UsageError as error:
        assert "\n" not in str(error)
    for name in ("MINER_API_INFO", "LOTUS_MINER_PATH"):
        with contextlib.suppress(TelemetryError):
            find_miner({name: variables.replace("\0", "")}, Path("/nowhere"))


# --- Lotus ---

_DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    name: decode for name, decode in sorted(vars(answers).items()) if name.startswith("decode_")
}
_MEMBERS = (
    "Height", "Cids", "Blocks", "Timestamp", "/", "Owner", "Worker", "ControlAddresses", "SectorSize", "Balance",
    "State", "InitialPledge", "MinerPower", "TotalPower", "RawBytePower", "QualityAdjPower", "Live", "Active", "Faulty",
    "Index", "Open", "Close", "AllSectors", "Version", "APIVersion", "Type", "System", "Subsystem", "Info", "Hostname",
    "Tasks", "Enabled", "ID", "Sector", "Miner", "Number", "Task", "RunWait", "Start", "SchedInfo", "Requests",
    "TaskType", "Priority", "PostSubmissions", "DisputableProofCount", "FinalizeSector", "Resources",
)  # fmt: skip
_MEMBER_NAMES = st.sampled_from(_MEMBERS) | st.text(max_size=6)
_GO = st.recursive(
    _SCALARS
    | st.sampled_from(
        ["0", "123456789", "<nil>", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+08:00", "seal/v0/precommit/1"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_MEMBER_NAMES, inner, max_size=6),
)
_ANSWERS = st.tuples(st.integers(0, len(_DECODERS) - 1).map(lambda which: bytes([which])), _GO.map(_dumped)).map(
    b"".join
)


def _answers(data: bytes) -> None:
    """The number of a method, and its answer."""
    decoders = list(_DECODERS.values())
    with contextlib.suppress(answers.AnswerError):
        decoders[data[0] % len(decoders) if data else 0](data[1:])
    stats, jobs, requests = (
        _answer(decode, data[1:])
        for decode in (answers.decode_worker_stats, answers.decode_worker_jobs, answers.decode_sealing_sched_diag)
    )
    if stats or jobs or requests:
        poll = Queues().poll(stats or {}, jobs or {}, requests, 1_800_000_000_000, "session")
        orjson.dumps([dict(fields) for fields in poll.hosts.values()])


def _answer(decode: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return decode(data)
    except answers.AnswerError as error:
        assert "\n" not in str(error)
        return None


_STATUS = st.sampled_from(
    ["HTTP/1.1 200 OK", "HTTP/1.1 401 No", "HTTP/1.0 200 OK", "HTTP/1.1 999 ?", "x", "HTTP/1.1 100 C"]
)
_HEADERS = st.sampled_from(
    ["Content-Length: 40", "Content-Length: -1", "Content-Length: 99999999999", "Transfer-Encoding: chunked",
     "Connection: close", "Content-Encoding: gzip", ": x", "Content-Length: 5, 6", "X: \x00"]
) | st.text(max_size=8)  # fmt: skip
_BODIES = st.sampled_from(
    ['{"jsonrpc":"2.0","id":1,"result":null}', '{"id":1,"error":{"code":-32601,"message":"m"}}',
     "5\r\nhello\r\n0\r\n\r\n", "-1\r\n", "ffffffffff\r\n", "{}",
     '{"id":1,"error":{"code":1,"message":"token SECRET.PART.OF"}}']
) | _JSON.map(_dumped).map(bytes.decode)  # fmt: skip
_RESPONSES = st.tuples(_STATUS, st.lists(_HEADERS, max_size=4).map("\r\n".join), _BODIES).map(
    lambda parts: f"{parts[0]}\r\n{parts[1]}\r\n\r\n{parts[2]}".encode(errors="replace")
)
_TOKEN = "header.SECRETSECRET.signature"


class _Server:
    """Says the same to whoever asks, and ends."""

    def __init__(self) -> None:
        self.said = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/rpc/v0"

    def _serve(self) -> None:
        while True:
            client, _ = self._socket.accept()
            with contextlib.suppress(OSError), client:
                client.recv(1 << 16)
                client.sendall(self.said)
                client.shutdown(socket.SHUT_WR)
                # Who asked ends first: so no port is left waiting.
                client.recv(1)


@cache
def _server() -> _Server:
    return _Server()


def _client(data: bytes) -> None:
    server = _server()
    server.said = data
    lotus = Lotus(Endpoint(url=server.url, token=_TOKEN), limit=1 << 20)
    try:
        orjson.loads(lotus.call("ChainHead", deadline=5))
    except LotusError as error:
        assert "\n" not in str(error)
        assert "SECRETSECRET" not in str(error)
    except orjson.JSONDecodeError:
        pass  # it is looked at by who asked: a result may be any text that msgspec takes for JSON
    finally:
        lotus.close()


# --- MQTT ---

_PACKETS = st.lists(
    st.builds(
        publish,
        st.sampled_from([b"t", b"miners/f01/workers/h", b"", b"\xff"]),
        st.binary(max_size=40),
        flags=st.integers(0, 15),
        mid=st.integers(0, 65_535),
        properties=st.none() | st.binary(max_size=4),
    )
    | st.binary(max_size=20)
    | st.sampled_from([b"\x40\x02\x00\x01", b"\xd0\x00", b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x01"]),
    max_size=8,
).map(b"".join)  # fmt: skip


def _packets(data: bytes) -> None:
    """The same is read however it is cut, and nothing is lost of it."""
    for is_v5 in (False, True):
        # Byte by byte what is short; that takes too long for the rest.
        step = 1 if len(data) < 200 else 37
        pieces = (data[at : at + step] for at in range(0, len(data), step))
        assert read(pieces, is_v5=is_v5) == read([data], is_v5=is_v5)


TARGETS: Mapping[str, Target] = {
    "wire": Target(check=_wire, inputs=_MESSAGES | st.binary()),
    "topics": Target(check=_topics, inputs=_TOPICS | st.binary()),
    "settings": Target(check=_settings, inputs=_SETTINGS),
    "answers": Target(check=_answers, inputs=_ANSWERS),
    "client": Target(check=_client, inputs=_RESPONSES),
    "packets": Target(check=_packets, inputs=_PACKETS),
}
"""By name; of each the corpus is a file."""
