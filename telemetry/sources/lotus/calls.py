"""The calls of one thread, to the lotus-miner and the full nodes that the environment knows, within a budget."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from telemetry.sources.lotus.client import JsonValue, Lotus, Nodes
from telemetry.sources.lotus.endpoints import Endpoint

_LEAST = 0.05


class Calls:
    """Kept-alive connections to one Lotus; made anew when it is found elsewhere."""

    def __init__(self) -> None:
        self._miner_at: Endpoint | None = None
        self._nodes_at: tuple[Endpoint, ...] = ()
        self._miner: Lotus | None = None
        self._nodes: Nodes | None = None
        self._until = time.monotonic()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """All calls made in the block share so many seconds."""
        self._until = time.monotonic() + seconds
        yield

    def aim(self, miner: Endpoint | None, nodes: tuple[Endpoint, ...]) -> None:
        """Say where the Lotus is now; a token that was renewed makes it another place."""
        if miner != self._miner_at:
            if self._miner is not None:
                self._miner.close()
            self._miner_at, self._miner = miner, None
        if nodes != self._nodes_at:
            if self._nodes is not None:
                self._nodes.close()
            self._nodes_at, self._nodes = nodes, None

    def miner(self, method: str, *params: JsonValue, deadline: float) -> bytes:
        """What lotus-miner answers, within the deadline and what is left of the budget."""
        if self._miner is None:
            assert self._miner_at is not None
            self._miner = Lotus(self._miner_at)
        return self._miner.call(method, *params, deadline=self._left(deadline))

    def node(self, method: str, *params: JsonValue, deadline: float) -> bytes:
        """What the first full node that answers does answer."""
        if self._nodes is None:
            self._nodes = Nodes(self._nodes_at)
        return self._nodes.call(method, *params, deadline=self._left(deadline))

    def close(self) -> None:
        """End the connections."""
        self.aim(None, ())

    def _left(self, deadline: float) -> float:
        return max(_LEAST, min(deadline, self._until - time.monotonic()))
