"""What browsers see live: through a real broker, a real aggregator and real agents; and what a slow one costs."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus

from telemetry.client import Update
from telemetry.topics import RecordKey
from telemetry.web.following import News, Sampled
from telemetry.web.live import MOST_CHANGES, MOST_FOLLOWED, PART, Live, Session
from tests.conftest import StartPart
from tests.parts import Broker, Process, wait_for
from tests.web import Browser, Web, browser, sleeping_browser

MINER = "f01234"


# --- feeds and sessions ---


def _news(*updates: Update, sampled: dict[RecordKey, Sampled] | None = None) -> News:
    return News({one.key: one for one in updates}, sampled or {}, True, None)


def _update(host: str | None, time: int = 1, **fields: Any) -> Update:
    key = RecordKey(MINER, host)
    changed = frozenset(fields)
    present = {name: value for name, value in fields.items() if value is not None}
    return Update(key=key, fields={**key.fields, **present}, changed=changed, time=time, is_whole=True)


def _forgotten(host: str) -> Update:
    return Update(key=RecordKey(MINER, host), fields={}, changed=frozenset({"cpuLoad"}), time=1, is_whole=True)


class _Page:
    """A page without a network: it takes in what its session has for it, when it is told to."""

    def __init__(self, live: Live) -> None:
        self.browser = Browser(None)  # type: ignore[arg-type]  # it reads no socket
        self.session = Session(live, lambda _: True).__enter__()

    def drain(self, most: int = 10_000) -> list[dict[str, Any]]:
        messages = []
        while most and (text := self.session._message()) is not None:
            messages.append(orjson.loads(text))
            self.browser.apply(messages[-1])
            most -= 1
        return messages

    @property
    def records(self) -> dict[str, Any]:
        return self.browser.records.get(MINER, {})


def _shown(live: Live) -> dict[str, Any]:
    feed = live.feeds.get(MINER)
    return {} if feed is None else {key.hostName or "": record.flat for key, record in feed.records.items()}


_HOSTS = st.sampled_from(["seal01", "seal02", "seal03"])
_STEPS = st.one_of(
    st.tuples(st.just("update"), _HOSTS, st.none() | st.integers(0, 3)),
    st.tuples(st.just("forgotten"), _HOSTS),
    st.tuples(st.just("sampled"), _HOSTS, st.integers(2, 9)),
    st.tuples(st.just("drain"), st.integers(1, 3)),
    st.tuples(st.just("many"), st.integers(1, 2 * MOST_CHANGES)),
    st.tuples(st.just("subscribe")),
    st.tuples(st.just("fill")),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_STEPS, max_size=60))
def test_whatever_happens_a_page_that_catches_up_shows_what_is(steps: list[tuple[Any, ...]]) -> None:
    live = Live(lambda: 0)
    page = _Page(live)
    page.session.receive('{"subscribe":"f01234"}')
    for number, step in enumerate(steps):
        match step:
            case ("update", host, load):
                live.take(_news(_update(host, number, cpuLoad=load)))
            case ("forgotten", host):
                live.take(_news(_forgotten(host)))
            case ("sampled", host, sampled):
                live.take(_news(sampled={RecordKey(MINER, host): Sampled(sampled, False)}))
            case ("drain", most):
                page.drain(most)
            case ("many", count):
                for load in range(count):
                    live.take(_news(_update("seal01", number, cpuLoad=load)))
            case ("fill",):
                live.take(_news(*(_update(f"h{host}", number, cpuLoad=number) for host in range(2 * PART))))
            case ("subscribe",):
                page.session.receive('{"subscribe":"f01234"}')
    page.drain()
    assert page.records == _shown(live)


def test_a_change_is_encoded_once_for_all_who_follow() -> None:
    live = Live(lambda: 0)
    pages = [_Page(live) for _ in range(3)]
    live.take(_news(_update("seal01", cpuLoad=1)))
    for page in pages:
        page.session.receive('{"subscribe":"f01234"}')
        page.drain()
    live.take(_news(_update("seal01", cpuLoad=2)))
    first, *others = [page.session._message() for page in pages]
    assert first is not None
    assert all(one is first for one in others)


def test_a_session_that_lags_holds_nothing_and_gets_the_records_anew() -> None:
    live = Live(lambda: 0)
    page = _Page(live)
    live.take(_news(_update("seal01", cpuLoad=-1)))
    page.session.receive('{"subscribe":"f01234"}')
    page.drain()
    for load in range(100 * MOST_CHANGES):
        live.take(_news(_update("seal01", cpuLoad=load)))
    assert len(live.feeds[MINER]._changes) == MOST_CHANGES
    kinds = [next(iter(message)) for message in page.drain()]
    assert kinds == ["snapshot"]
    assert page.records == _shown(live)


def test_a_large_miner_comes_in_parts_of_which_one_is_on_the_way() -> None:
    live = Live(lambda: 0)
    page = _Page(live)
    live.take(_news(*(_update(f"seal{number}", cpuLoad=1) for number in range(3 * PART))))
    page.session.receive('{"subscribe":"f01234"}')
    parts = [message for message in page.drain() if "snapshot" in message]
    assert [(one["part"], one["parts"], len(one["records"])) for one in parts] == [(n, 3, PART) for n in range(3)]


def test_a_miner_that_nobody_follows_any_more_is_forgotten_unless_it_is_known() -> None:
    live = Live(lambda: 0)
    page = _Page(live)
    for number in range(MOST_FOLLOWED):
        page.session.receive(f'{{"subscribe":"f0{number}"}}')
    page.drain()
    page.session.receive('{"subscribe":"f099999"}')
    assert [message for message in page.drain() if "error" in message]
    assert len(live.feeds) == MOST_FOLLOWED
    page.session.__exit__()
    assert live.feeds == {}


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "null", '{"subscribe":1}', '{"subscribe":"x"}', '{"subscribe":"f01","more":1}', "[" * 4000, "\x00"],
)
def test_what_is_no_message_is_answered_with_an_error(text: str) -> None:
    page = _Page(Live(lambda: 0))
    page.session.receive(text)
    [error] = [message for message in page.drain() if "error" in message]
    assert "\n" not in error["error"]


# --- through a real fleet ---


@pytest.fixture
def fleet(data: Path, broker: Broker, start: StartPart) -> Process:
    """Hosts that are simulated by real agents, with a real aggregator."""
    common = ("--broker", broker.url, "--config", str(data / "fast.toml"), "--data", str(data))
    start("aggregator", *common)
    return start("simulate", *common, "--hosts", "3")


@pytest.fixture
def web(data: Path, broker: Broker) -> Iterator[Web]:
    server = Web(data, "--broker", broker.url, "--data", str(data)).start()
    yield server
    server.end()


def _settled(web: Web, hosts: int) -> None:
    """Wait until all hosts are there, and the miner."""

    def is_there() -> bool:
        miners = web.get("/api/miners")["miners"]
        return bool(miners) and miners[0]["states"]["online"] >= hosts and miners[0]["record"] is not None

    wait_for(is_there, seconds=40, what="the fleet is seen")


def test_a_page_has_the_records_at_once_and_then_each_change(fleet: Process, web: Web) -> None:
    _settled(web, 3)

    async def look() -> None:
        async with browser(web) as page:
            await page.subscribe(MINER)
            await page.until(lambda: page.snapshots)
            assert page.broker == "connected"
            assert {"", "seal01", "seal02", "seal03"} <= page.records[MINER].keys()
            before = dict(page.records[MINER]["seal01"])
            assert before["netState"] == "online"
            await page.until(lambda: page.records[MINER]["seal01"]["cpuLoad"] != before["cpuLoad"])
            # The time by the host's clock, which is ours: it was sampled a moment ago.
            assert time.time() * 1000 - page.records[MINER]["seal01"]["_time"] < 3000
            assert page.snapshots == 1
            os.kill(fleet.pid, signal.SIGKILL)
            await page.until(lambda: page.records[MINER]["seal01"]["netState"] == "lost")

    asyncio.run(look())


def test_unsubscribing_stops_the_traffic(fleet: Process, web: Web) -> None:
    _settled(web, 3)

    async def look() -> None:
        async with browser(web) as page:
            await page.subscribe(MINER)
            await page.until(lambda: page.changes >= 2)
            await page.unsubscribe(MINER)
            await page.subscribe("f09")
            await page.until(lambda: "f09" in page.records)
            # What was sent before the server heard of it is here by now: from here on it tells the time only.
            assert list(await page.take()) == ["tick"]

    asyncio.run(look())
    assert fleet.is_running


def test_a_broker_that_goes_is_told_and_heals(fleet: Process, web: Web, broker: Broker) -> None:
    _settled(web, 3)

    async def look() -> None:
        async with browser(web) as page:
            await page.subscribe(MINER)
            await page.until(lambda: page.snapshots)
            broker.kill()
            await page.until(lambda: page.broker == "lost")
            assert web.get(f"/api/miners/{MINER}/workers/seal01")["hostName"] == "seal01"
            broker.start()
            await page.until(lambda: page.broker == "connected", seconds=40)
            held = page.records[MINER]["seal01"]["_time"]
            await page.until(lambda: page.records[MINER]["seal01"]["_time"] > held, seconds=40)

    asyncio.run(look())
    assert fleet.is_running


def test_it_ends_with_status_0_and_tells_its_browsers(web: Web) -> None:
    async def look() -> int:
        async with browser(web) as page:
            await page.take()
            os.kill(web.process.pid, signal.SIGTERM)
            return await page.closed()

    assert asyncio.run(look()) == 1001
    assert web.process.process is not None
    assert web.process.process.wait(10) == 0
    assert "Traceback" not in web.process.text


def test_a_page_of_another_site_may_not_listen(web: Web) -> None:
    async def look(**options: Any) -> None:
        async with browser(web, **options) as page:
            await page.take()

    asyncio.run(look(origin=web.url))
    with pytest.raises(InvalidStatus) as refused:
        asyncio.run(look(origin="http://evil.example"))
    assert refused.value.response.status_code == 403


def test_a_message_that_is_too_large_ends_the_connection(web: Web) -> None:
    async def look() -> None:
        async with browser(web) as page:
            await page.connection.send("x" * 100_000)
            assert await page.closed() == 1009

    asyncio.run(look())


# --- many, and slow ones ---


@pytest.fixture
def busy(data: Path, broker: Broker, start: StartPart) -> Iterator[Web]:
    """A page of a miner of 300 hosts that change often."""
    common = ("--broker", broker.url, "--config", str(data / "fast.toml"), "--data", str(data))
    start("aggregator", *common)
    start("simulate", *common, "--hosts", "300", "--rate", "300")
    server = Web(data, "--broker", broker.url, "--data", str(data)).start()
    wait_for(
        lambda: [one["hosts"] for one in server.get("/api/miners")["miners"]] == [300], seconds=60, what="300 hosts"
    )
    yield server
    server.end()


def test_200_browsers_follow_one_miner(busy: Web) -> None:
    async def look() -> None:
        async def one() -> Browser:
            async with browser(busy) as page:
                await page.subscribe(MINER)
                await page.until(lambda: page.changes >= 8, seconds=60)
                return page

        for page in await asyncio.gather(*(one() for _ in range(200))):
            assert page.snapshots == 1
            assert len(page.records[MINER]) == 300

    asyncio.run(look())


def test_browsers_that_take_in_nothing_cost_nothing_and_disturb_nobody(busy: Web) -> None:
    async def look() -> None:
        async with browser(busy) as page:
            await page.subscribe(MINER)
            await page.until(lambda: page.changes >= 8, seconds=60)
            before = busy.rss
            asleep = [sleeping_browser(busy, MINER) for _ in range(50)]
            began, changes = time.monotonic(), page.changes
            await page.until(lambda: page.changes >= changes + 20, seconds=60)
            assert time.monotonic() - began < 20
            assert page.snapshots == 1
            # Each may have a part of a snapshot on the way, and what the transport keeps before it says stop.
            assert busy.rss - before < 50 * 300_000
            assert busy.process.terminate() == 0
            for sock in asleep:
                sock.close()

    asyncio.run(look())
