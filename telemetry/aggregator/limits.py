"""How much one sender may cost the others: token buckets, one a sender.

What a bucket does not take is left as if the broker had dropped it: it is in the spool of the agent that means it, and
comes again.
"""

from telemetry.topics import AgentKey

BURST = 60.0
"""Seconds of its rate that a sender may use at once."""

LEAST_RATE = 4096
"""Bytes a second that every agent needs."""

MESSAGE_COST = 256
"""Bytes that a message costs beside its own, also one that comes late in a batch."""

BATCHES_COST = 128 << 10
"""Bytes held back for the two batches that an agent has on their way: the acknowledgement of the first one waits until
there is that much again, so that an agent that keeps to the protocol sends no more than is taken."""

NOTES, NOTES_A_SECOND = 100.0, 0.1
"""Events and rejected messages of one sender that are kept at once, and then; all of them are counted."""

MOST_HOSTS = 20_000
"""Hosts of one miner: its agent may name any."""


class Bucket:
    """So much at once, and so much a second. `now`: the monotonic clock in seconds."""

    __slots__ = ("_level", "_most", "_rate", "_since", "refused")

    def __init__(self, *, rate: float, most: float, now: float) -> None:
        self._rate, self._most = rate, most
        self._level, self._since = most, now
        self.refused: float | None = None

    def take(self, cost: float, now: float) -> bool:
        """Whether there is anything left, of which this is then taken."""
        if self._level <= 0:
            self._fill(now)
            if self._level <= 0:
                self.refused = now
                return False
        self._level -= cost
        return True

    def charge(self, cost: float) -> None:
        """Take more for what was let in already."""
        self._level -= cost

    def wait(self, least: float, now: float) -> float:
        """Seconds until there is so much."""
        if self._level >= least:
            return 0.0
        self._fill(now)
        return max(0.0, (least - self._level) / self._rate)

    def _fill(self, now: float) -> None:
        self._level = min(self._most, self._level + (now - self._since) * self._rate)
        self._since = now


class Buckets:
    """One bucket a sender, of the same size."""

    def __init__(self, *, rate: float, most: float) -> None:
        self._rate, self._most = rate, most
        self._of: dict[AgentKey, Bucket] = {}

    def of(self, sender: AgentKey, now: float) -> Bucket:
        """The bucket of a sender."""
        bucket = self._of.get(sender)
        if bucket is None:
            bucket = self._of[sender] = Bucket(rate=self._rate, most=self._most, now=now)
        return bucket

    def refusing(self, since: float) -> int:
        """How many have refused something since then."""
        return sum(bucket.refused is not None and bucket.refused >= since for bucket in self._of.values())
