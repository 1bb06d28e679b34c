"""What has to be true in the end, read from the aggregator's database and held against what the fleet told."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from telemetry.mqtt import Message
from telemetry.stores.history.reading import open_history
from telemetry.topics import RecordKey, Topics
from tests.chaos.fleet import FIELDS, MINER
from tests.chaos.oracle import HostOracle, Position, digest_of

History = dict[str, list[tuple[Position, str]]]

TOPICS = Topics()
_COMPOSITE = {"useDisk"}


class Database:
    """The aggregator's database, as anyone may read it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._uri = f"{path.absolute().as_uri()}?mode=ro"

    def rows(self, query: str) -> list[dict[str, Any]]:
        """What a query finds."""
        with closing(sqlite3.connect(self._uri, uri=True, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]

    def history(self) -> History:
        """By host: the position of each message, and the digest of what it says."""
        found: History = {}
        with open_history(self._path) as history:
            for key in history.records():
                assert key.hostName is not None
                found[key.hostName] = [
                    (
                        (one.epoch, one.seq),
                        digest_of(one.time, full=one.full, values=one.values, gone=one.gone),
                    )
                    for _, one in history.statements(key)
                ]
        return found

    def mirror(self) -> dict[str, dict[str, Any]]:
        """By host: the values that the mirror holds."""
        return {row["hostName"]: _values(row) for row in self.rows("SELECT * FROM workerInfo")}


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    held = {name: row[name] for name in FIELDS if row[name] is not None}
    return {name: json.loads(value) if name in _COMPOSITE else value for name, value in held.items()}


def never_true(history: History, oracle: Mapping[str, HostOracle]) -> list[str]:
    """What no time mends: messages that stand twice, that nobody wrote, or that say something else."""
    wrong = []
    for host, rows in history.items():
        counted = Counter(position for position, _ in rows)
        wrong += [f"{host}: {position} stands {count} times" for position, count in counted.items() if count > 1]
        tried = oracle[host].tried
        wrong += [f"{host}: {position} was never written so" for position, said in rows if tried.get(position) != said]
    return wrong


def not_yet_true(
    history: History, mirror: Mapping[str, Mapping[str, Any]], oracle: Mapping[str, HostOracle]
) -> list[str]:
    """What is missing still: messages in the history, values in the mirror."""
    missing = []
    for host, told in oracle.items():
        absent = sorted(told.required - {position for position, _ in history.get(host, ())})
        if absent:
            missing.append(f"{host}: {len(absent)} not in the history, such as {absent[:3]}")
        if told.held is None:
            missing.append(f"{host}: has not told its last values")
        elif mirror.get(host) != told.held:
            held = mirror.get(host, {})
            names = sorted(name for name in {*held, *told.held} if held.get(name) != told.held.get(name))
            missing.append(f"{host}: the mirror differs in {', '.join(names)}")
    return missing


def at_broker(retained: Iterable[Message], oracle: Mapping[str, HostOracle]) -> list[str]:
    """What a newcomer would be told wrong: snapshots that are not as the hosts are, presences that are not `online`."""
    newest = {message.topic: json.loads(message.payload) for message in retained if message.payload}
    wrong = []
    for host, told in oracle.items():
        key = RecordKey(MINER, host)
        snapshot, presence = newest.get(TOPICS.snapshot(key), {}), newest.get(TOPICS.presence(key), {})
        if told.held != {name: snapshot[name] for name in FIELDS if name in snapshot}:
            wrong.append(f"{host}: its snapshot is not as it is")
        if (snapshot.get("netState"), presence.get("state")) != ("online", "online"):
            wrong.append(f"{host}: netState {snapshot.get('netState')}, presence {presence.get('state')}")
    return wrong


def other_defects(database: Database, oracle: Mapping[str, HostOracle]) -> list[str]:
    """What the aggregator itself found wrong, and those that it does not take for online."""
    wrong = [f"rejected: {row}" for row in database.rows("SELECT topic, reason FROM rejected LIMIT 3")]
    wrong += [f"defect: {row}" for row in database.rows("SELECT * FROM events WHERE event = 'defect' LIMIT 3")]
    for row in database.rows("SELECT agent, state, lost, former FROM agents"):
        lost = row["lost"] + sum(log["lost"] for log in json.loads(row["former"] or "[]"))
        if lost and not oracle[row["agent"]].excused:
            wrong.append(f"{row['agent']}: {lost} counted as lost")
        if row["state"] != "online":
            wrong.append(f"{row['agent']}: {row['state']}")
    return wrong
