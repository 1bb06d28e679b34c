"""How the aggregator is, and what it hears of how the broker is: no I/O, no clock of its own."""

from collections import deque

from telemetry.health import BROKER_STORED, BROKER_TOPICS, BROKER_VERSION

_CONNECTED = "$SYS/broker/clients/connected"
_MOST_KEPT = 10_000
_LONGEST_VERSION, _MOST_DIGITS = 100, 19


class Spread:
    """How long something took, each time since it was last told."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seconds: deque[float] = deque(maxlen=_MOST_KEPT)

    def add(self, seconds: float) -> None:
        """It took so long this time."""
        self._seconds.append(seconds)

    def take(self) -> dict[str, float]:
        """The metrics of it; none where it did not happen."""
        ordered = sorted(self._seconds)
        self._seconds.clear()
        if not ordered:
            return {}
        told = {"P50": ordered[len(ordered) // 2], "P99": ordered[len(ordered) * 99 // 100], "Max": ordered[-1]}
        return {f"{self._name}{part}Seconds": round(seconds, 4) for part, seconds in told.items()}


class BrokerWatch:
    """What the broker tells of itself; nothing, where it tells nothing as Mosquitto does."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}
        self.version = ""

    def take(self, topic: str, payload: bytes) -> bool:
        """Take in a message, if it is one of the broker's own."""
        if topic == BROKER_VERSION:
            self.version = payload.decode(errors="replace").replace(" version ", " ")[:_LONGEST_VERSION]
        elif topic in BROKER_TOPICS or topic == BROKER_STORED:
            number, _, _ = payload.partition(b" ")  # uptime has a word behind it
            if number.isdigit() and len(number) < _MOST_DIGITS:
                self._told[topic] = int(number)
        else:
            return False
        return True

    @property
    def is_known(self) -> bool:
        """Whether it told of the time in which we are connected: at its start it says that nobody is."""
        return bool(self.version and self._told.get(_CONNECTED))

    def metrics(self) -> dict[str, float]:
        """The metrics that are known."""
        metrics: dict[str, float] = {
            name: self._told[topic] for topic, name in BROKER_TOPICS.items() if topic in self._told
        }
        stored = self._told.get(BROKER_STORED)
        if stored is not None and "retainedMessages" in metrics:
            metrics["queueMessages"] = max(0, stored - metrics["retainedMessages"])
        return metrics
