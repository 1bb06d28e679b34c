"""A database of an older version becomes one of today: it is copied first, and then changed as a whole or not at all.

Of each version since the first there is one step here. What a declaration only gained, columns, needs none.
"""

import logging
import sqlite3
from pathlib import Path

import orjson

from telemetry.errors import StoreError
from telemetry.fields import Owner
from telemetry.stores import HistoryRow
from telemetry.stores.backup import copy_beside
from telemetry.stores.history.writing import HistoryWriter
from telemetry.stores.mirror_rows import AGENT_COLUMNS
from telemetry.stores.rows import SCHEMA_VERSION
from telemetry.topics import RecordKey
from telemetry.wire import Position

_log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 1000


def keep_copy(database: Path, version: int) -> None:
    """Copy a database of an older version beside itself, in the place of the copy that an earlier migration left."""
    copy = database.with_name(f"{database.name}.version-{version}")
    _log.warning("database %s: of version %d; kept as %s, and made one of %d", database, version, copy, SCHEMA_VERSION)
    try:
        copy_beside(database, copy)
    except StoreError as error:
        room = (database.stat().st_size >> 20) + 1
        raise StoreError(
            f"{error}, for without a copy it stays of version {version}: make room for {room} MiB"
        ) from None
    for former in database.parent.glob(f"{database.name}.version-*"):
        if former != copy:
            former.unlink()


def set_aside(connection: sqlite3.Connection) -> None:
    """Of version 1: give way to the tables of today that have the same names."""
    connection.execute("ALTER TABLE history RENAME TO unpacked_history")
    if "id" not in _columns(connection, "agents"):
        connection.execute("ALTER TABLE agents RENAME TO agents_1")


def take_over(connection: sqlite3.Connection) -> None:
    """Of version 1: move what was set aside to the tables of today."""
    writer = HistoryWriter(connection)
    rows = connection.execute("SELECT * FROM unpacked_history ORDER BY id")
    while some := rows.fetchmany(_ROWS_AT_ONCE):
        writer.append([_unpacked_row(row) for row in some])
    connection.execute("DROP TABLE unpacked_history")
    if former := _columns(connection, "agents_1"):
        kept = ", ".join(f"[{name}]" for name in former if name in AGENT_COLUMNS)
        connection.execute(f"INSERT INTO agents ({kept}) SELECT {kept} FROM agents_1")
        connection.execute(
            "INSERT INTO positions SELECT id, position, heard FROM agents JOIN agents_1 USING (minerId, agent)"
        )
        connection.execute("DROP TABLE agents_1")


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row["name"] for row in connection.execute(f"PRAGMA table_info({table})")]


def _unpacked_row(row: sqlite3.Row) -> HistoryRow:
    """A message as version 1 kept it."""
    return HistoryRow(
        RecordKey(row["minerId"], row["hostName"]), Owner(row["owner"]), Position(row["epoch"], row["seq"]),
        row["time"], row["received"], bool(row["full"]), orjson.loads(row["fields"]), tuple(orjson.loads(row["gone"])),
    )  # fmt: skip
