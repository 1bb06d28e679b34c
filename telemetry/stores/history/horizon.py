"""By which time things expire: one that a clock which is set wrong for some hours cannot move.

What is deleted does not come back. So nothing expires by the clock as it is, but by the earliest time that it showed
within the last day or two in which the aggregator ran: a jump forward that is set back within a day deletes nothing.
"""

import logging
import sqlite3

_log = logging.getLogger(__name__)

DAY = 86_400_000
_MOST_COUNTED = 600_000
"""Milliseconds between two looks at the clock that count as time in which the aggregator ran."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS clock (
    id INTEGER PRIMARY KEY CHECK (id = 1), before INTEGER NOT NULL, during INTEGER NOT NULL, ran INTEGER NOT NULL,
    seen INTEGER NOT NULL
)
"""
"""`during`: the earliest time that the clock showed in the `ran` milliseconds of the present period, `before`: in the
one before it; `seen`: what it showed last.
"""


class Horizon:
    """The clock of one database, as its upkeep saw it."""

    def __init__(self, connection: sqlite3.Connection, period: int) -> None:
        self._connection, self._period = connection, min(DAY, period)
        self._is_told = False

    def look(self, now: int) -> int:
        """Note what the clock shows; the time by which things expire. The caller holds the transaction."""
        row = self._connection.execute("SELECT before, during, ran, seen FROM clock").fetchone()
        before, during, ran, seen = row or (now, now, 0, now)
        self._tell(now - seen)
        ran += min(max(0, now - seen), _MOST_COUNTED)
        during = min(during, now)
        if ran >= self._period:
            before, during, ran = during, now, 0
        self._connection.execute("INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?, ?)", (before, during, ran, now))
        return int(min(before, during))

    def _tell(self, passed: int) -> None:
        if abs(passed) > DAY:
            _log.warning(
                "the clock is %.0f days %s than when the history was last kept up; by a time that is not a day old "
                "nothing expires",
                abs(passed) / DAY,
                "later" if passed > 0 else "earlier",
            )
