"""Fixtures: a real broker, and processes that end with their test."""

import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from telemetry.errors import TelemetryError
from telemetry.mosquitto import find_mosquitto
from telemetry.simulate.lotus import SteppedClock
from tests.fronts import START
from tests.parts import FAST, Broker, Listener, Process
from tests.secured import Secured, reachable_directory

StartPart = Callable[..., Process]
Ends = list[Callable[[], object]]


def pytest_sessionstart() -> None:
    """Mosquitto is no option: without it nothing here is true."""
    try:
        find_mosquitto()
    except TelemetryError as error:
        pytest.exit(str(error), returncode=1)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """What a command run within a test does about signals ends with it: processes inherit what is blocked."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with settings that make everything fast."""
    (tmp_path / "fast.toml").write_text(FAST)
    return tmp_path


@pytest.fixture
def broker(data: Path) -> Iterator[Broker]:
    running = Broker(data).start()
    yield running
    running.end()


@pytest.fixture
def start(data: Path) -> Iterator[StartPart]:
    """Start `telemetry` with arguments, as a process that ends with the test."""
    started: list[Process] = []

    def start_part(*arguments: str, environment: Mapping[str, str] | None = None) -> Process:
        process = Process(data, *arguments, environment=environment).start()
        started.append(process)
        return process

    yield start_part
    for process in reversed(started):
        process.end()


@pytest.fixture
def listen(broker: Broker) -> Iterator[Callable[..., Listener]]:
    """Subscribe a plain client to a filter."""
    opened: list[Listener] = []

    def open_listener(topic_filter: str = "#") -> Listener:
        opened.append(Listener(broker.url, topic_filter))
        return opened[-1]

    yield open_listener
    for listener in opened:
        listener.close()


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """A broker over TLS, with credentials and an ACL."""
    with reachable_directory() as place:
        broker = Secured(place).start()
        yield broker
        broker.end()


@pytest.fixture(scope="module")
def ending() -> Iterator[ThreadPoolExecutor]:
    """Who ends what the tests began, while others go on: a server takes a moment to notice."""
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def ends(ending: ThreadPoolExecutor) -> Iterator[Ends]:
    """How what a test began is ended."""
    pending: Ends = []
    yield pending
    for end in pending:
        ending.submit(end)


@pytest.fixture
def clock() -> SteppedClock:
    """The clock of a simulated Lotus."""
    return SteppedClock(START)
