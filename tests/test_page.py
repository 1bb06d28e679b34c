"""The page in a real browser, on a real broker, aggregator, server and fleet. Pictures of it are left in `build/`."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from telemetry.records import MINER_INFO, WORKER_INFO
from tests.parts import FAST, Broker, Process, wait_for
from tests.secured import Secured, read_bundle
from tests.web import Web

pytest.importorskip("playwright", reason="the browser's driver is not installed: pip install playwright")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, WebSocket, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
PAGE = Path(__file__).parent.parent / "telemetry/web/page"
PICTURES = Path(__file__).parent.parent / "build"
MINER, OTHER, HOST = "f01234", "f05678", "watched"

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium here: apt-get install chromium")

ColorScheme = Literal["light", "dark"]

LIVE = 3.0
"""Seconds from an agent's sample to the page; a second where nothing else runs."""

LONGEST_FRAME = 0.1
"""Seconds of processor time that the page's thread may be busy without a break."""


class Site:
    """A broker, an aggregator, a page's server, and what is to be seen on it."""

    def __init__(self, place: Path, settings: str) -> None:
        (place / "settings.toml").write_text(settings)
        self.place = place
        self.broker = Broker(place).start()
        self._common = ("--data", str(place), "--config", str(place / "settings.toml"), "--broker", self.broker.url)
        self._parts: list[Process] = []
        self.start("aggregator")
        self.web = Web(place, *self._common).start()

    def start(self, part: str, *options: str, place: Path | None = None) -> Process:
        """Start a part beside them, which ends with them."""
        self._parts.append(Process(place or self.place, part, *self._common, *options).start())
        return self._parts[-1]

    def agent(self, miner: str, host: str) -> Process:
        """A real agent of this machine."""
        state = self.place / f"{miner}-{host}"
        state.mkdir(exist_ok=True)
        return self.start("agent", "--miner", miner, "--name", host, "--state", str(state), place=state)

    def end(self) -> None:
        self.web.end()
        for part in reversed(self._parts):
            part.end()
        self.broker.end()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A simulated miner with three hosts, and a host of another miner."""
    running = Site(tmp_path_factory.mktemp("page"), FAST)
    running.start("simulate", "--hosts", "3")
    running.agent(OTHER, "lonely")
    yield running
    running.end()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page that was opened, what it complained of, and what went over its WebSockets."""

    def __init__(self, browser: Browser, url: str, **context: Any) -> None:
        self.complaints: list[str] = []
        self.sent: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []
        self._context = browser.new_context(
            **{"viewport": {"width": 1440, "height": 1300}, "locale": "en-US"} | context
        )
        self.page = self._context.new_page()
        self.page.set_default_timeout(30_000)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda line: self._take_line(line.type, line.text))
        self.page.on("websocket", self._listen)
        self.page.goto(url)

    def _take_line(self, kind: str, text: str) -> None:
        # A server that is away, or wants a login, is no defect of the page.
        if kind == "error" and "ERR_CONNECTION_REFUSED" not in text and "401" not in text:
            self.complaints.append(text)

    def _listen(self, websocket: WebSocket) -> None:
        websocket.on("framesent", lambda text: self.sent.append(json.loads(text)))
        websocket.on("framereceived", lambda text: self.received.append(json.loads(text)))

    def until_received(self, first: int, fits: Callable[[dict[str, Any]], bool]) -> None:
        """Wait for a message after the `first` that fits."""
        _until(self.page, lambda: any(fits(message) for message in self.received[first:]), "a message that fits")

    def close(self) -> None:
        self._context.close()
        assert self.complaints == []


@pytest.fixture
def opened(chromium: Browser, site: Site) -> Iterator[Opened]:
    """The miner's page, with its hosts."""
    one = Opened(chromium, f"{site.web.url}/#/{MINER}")
    expect(_row(one.page, "seal01")).to_be_visible(timeout=30_000)
    yield one
    one.close()


@pytest.fixture(scope="module")
def watching(chromium: Browser, site: Site) -> Iterator[Opened]:
    one = Opened(chromium, f"{site.web.url}/#/{MINER}")
    yield one
    one.close()


@pytest.fixture
def page(watching: Opened) -> Page:
    """A page that is open all the time, at the miner's overview."""
    _go(watching.page, "?fields")
    _go(watching.page, "")
    expect(_row(watching.page, "seal01")).to_be_visible(timeout=30_000)
    return watching.page


def _until(page: Page, condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition. The driver tells what happened on a page only while it is asked something."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"not within 30 s: {what}"
        page.wait_for_timeout(50)


def _go(page: Page, view: str) -> None:
    page.evaluate("address => { location.hash = address; }", f"#/{MINER}{view}")


def _row(page: Page, host: str) -> Locator:
    return page.locator(".fleet .row").filter(has=page.get_by_role("link", name=host, exact=True))


def _cell(page: Page, host: str, column: str) -> Locator:
    return _row(page, host).locator(f'[data-column="{column}"]')


def _picture(page: Page, name: str) -> None:
    PICTURES.mkdir(exist_ok=True)
    page.screenshot(path=PICTURES / f"page-{name}.png")


# --- what is seen ---


def test_values_of_the_miner_and_its_hosts_appear(page: Page, site: Site) -> None:
    record = site.web.get(f"/api/miners/{MINER}")
    for label, text in (("Raw power", "TiB"), ("Available", "FIL"), ("Expected wins", "wins/d"), ("PoSt", "FIL")):
        expect(page.locator(".summary .tile").filter(has_text=label).locator(".tile-value")).to_contain_text(text)
    expect(page.locator(".summary")).to_contain_text("Lotus ok")
    expect(page.locator(".summary")).to_contain_text("in sync")
    for state in record["sectorStates"]:
        expect(page.locator(".pipeline")).to_contain_text(state)
    expect(page.locator(".jobs tbody tr").filter(has_text="precommit/1")).to_be_visible()
    expect(_cell(page, "seal01", "state")).to_have_text("online")
    expect(_cell(page, "seal01", "cpuLoad")).to_have_text(re.compile(r"^\d+ %$"))
    _picture(page, "overview")


def test_every_declared_field_of_a_record_is_shown(page: Page) -> None:
    for view, record in (("/seal01", WORKER_INFO), ("?fields", MINER_INFO)):
        _go(page, view)
        names = page.locator(".field-table > tbody > tr > th")
        expect(names).to_have_text([field.name for field in record.fields])
        expect(page.locator(".field-table tr", has=page.get_by_text("minerId", exact=True))).to_contain_text(MINER)


def test_a_change_is_seen_within_seconds_of_its_sample(opened: Opened) -> None:
    page = opened.page
    text = _cell(page, "seal01", "cpuLoad").locator(".bar-text")
    text.evaluate(
        """element => {
            window.seen = [];
            const see = () => seen.push([Date.now(), element.textContent]);
            new MutationObserver(see).observe(element, {childList: true});
        }"""
    )
    _until(page, lambda: page.evaluate("seen.length") >= 5, "five changes")
    samples = [
        (line["_time"], line["cpuLoad"])
        for message in opened.received
        for line in message.get("records", ())
        if "change" in message and line.get("hostName") == "seal01" and "cpuLoad" in line
    ]
    for at, shown in page.evaluate("seen"):
        times = [time for time, load in samples if abs(load - float(shown.removesuffix("%"))) <= 0.5 and time <= at]
        assert at - times[-1] < 1000 * LIVE


def test_a_silent_host_turns_stale_and_a_killed_one_lost_and_both_are_first(page: Page, site: Site) -> None:
    agent = site.agent(MINER, HOST)
    expect(_cell(page, HOST, "state")).to_have_text("online", timeout=20_000)
    os.kill(agent.pid, signal.SIGSTOP)
    expect(_cell(page, HOST, "state")).to_have_text("stale", timeout=20_000)
    expect(_cell(page, HOST, "age")).to_have_text(re.compile(r"^([4-9]|\d\d+) s$"))
    os.kill(agent.pid, signal.SIGCONT)
    expect(_cell(page, HOST, "state")).to_have_text("online", timeout=20_000)
    agent.kill()
    expect(_cell(page, HOST, "state")).to_have_text("lost", timeout=20_000)
    expect(_row(page, HOST)).to_have_attribute("aria-rowindex", "2", timeout=10_000)
    page.get_by_role("button", name=re.compile("problems")).click()
    expect(_row(page, HOST)).to_be_visible()
    _picture(page, "lost-host")


def test_jobs_history_events_and_quality_are_shown(page: Page) -> None:
    page.get_by_role("link", name="Queue").click()
    expect(page.locator(".queue .row").first).to_contain_text(re.compile("PC1|PC2|C2|AP"))
    page.get_by_role("link", name="Data quality").click()
    expect(page.locator(".quality .row").filter(has_text="miner's agent")).to_contain_text("online")
    page.get_by_role("link", name="Events").click()
    expect(page.locator(".events .row").filter(has_text="seal01").first).to_contain_text("online")
    page.get_by_role("link", name="History").click()
    page.get_by_role("radio", name="1 h").check()
    power = page.locator(".plot").filter(has_text="effectivePower")
    expect(power.locator(".legend-value").first).to_contain_text("TiB")
    expect(power.locator(".plot-empty")).to_be_hidden()


def test_a_host_has_live_plots_its_cards_disks_and_jobs(page: Page) -> None:
    page.get_by_role("link", name="seal01").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("seal01")
    load = page.locator(".plot").filter(has_text="cpuLoad")
    expect(load.locator("canvas")).to_be_visible()
    expect(load.locator(".legend-value").first).to_contain_text("%")
    before = load.locator(".legend-value").first.text_content()
    expect(load.locator(".legend-value").first).not_to_have_text(before or "")
    for panel in (".gpus", ".mounts", ".interfaces"):
        expect(page.locator(panel).locator(".meter").first).to_be_visible()
    _picture(page, "host")


# --- the connection ---


def test_a_lost_broker_is_said_and_heals(opened: Opened, site: Site) -> None:
    page, banner = opened.page, opened.page.locator(".banner")
    site.broker.kill()
    expect(banner).to_contain_text("no connection to the broker", timeout=20_000)
    expect(page.locator("body")).to_have_class("dated")
    _picture(page, "lost-broker")
    site.broker.start()
    expect(banner).to_be_hidden(timeout=40_000)
    expect(_cell(page, "seal01", "state")).to_have_text("online", timeout=20_000)
    opened.until_received(len(opened.received), lambda message: message.get("change") == MINER)


def test_a_server_that_goes_away_is_said_and_heals(opened: Opened, site: Site) -> None:
    banner = opened.page.locator(".banner")
    site.web.process.terminate()
    expect(banner).to_contain_text("No connection to the server", timeout=20_000)
    site.web.process.start()
    expect(banner).to_be_hidden(timeout=40_000)
    expect(_cell(opened.page, "seal01", "state")).to_have_text("online", timeout=20_000)


def test_a_silent_server_is_noticed(chromium: Browser, site: Site) -> None:
    one = Opened(chromium, f"{site.web.url}/#/{MINER}")
    expect(_row(one.page, "seal01")).to_be_visible()
    os.kill(site.web.process.pid, signal.SIGSTOP)
    try:
        expect(one.page.locator(".banner")).to_be_visible(timeout=20_000)
    finally:
        os.kill(site.web.process.pid, signal.SIGCONT)
    expect(one.page.locator(".banner")).to_be_hidden(timeout=30_000)
    one.close()


def test_another_miner_ends_the_traffic_of_the_one_before(opened: Opened, site: Site) -> None:
    page = opened.page
    page.get_by_role("combobox", name="Choose a miner").select_option(OTHER)
    expect(_row(page, "lonely")).to_be_visible()
    assert {"unsubscribe": MINER} in opened.sent
    opened.until_received(0, lambda message: message.get("change") == OTHER)
    after, sampled = len(opened.received), site.web.get(f"/api/miners/{MINER}/workers/seal01")["_time"]
    wait_for(
        lambda: site.web.get(f"/api/miners/{MINER}/workers/seal01")["_time"] > sampled, seconds=20, what="it changes"
    )
    opened.until_received(after, lambda message: message.get("change") == OTHER)
    told = {message.get("change") or message.get("snapshot") for message in opened.received[after:]}
    assert told <= {OTHER, None}


# --- for whom ---


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("seal0")
    expect(_row(page, "seal03")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('row-link')"):
            break
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    second = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(second)
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", level=1)).to_have_text(MINER)


def test_rows_are_sorted_by_a_heading(page: Page) -> None:
    heading = page.locator('.fleet [role="columnheader"][data-column="host"]')
    for order, first in (("ascending", False), ("descending", True)):
        heading.get_by_role("button").click()
        expect(heading).to_have_attribute("aria-sort", order)
        rows = page.locator(".fleet .row:not([hidden])")
        places = rows.evaluate_all("rows => rows.map(row => [Number(row.ariaRowIndex), row.querySelector('a').text])")
        hosts = [host for _, host in sorted(places)]
        assert hosts == sorted(hosts, reverse=first)


SHOWN = {
    "": ".fleet .row",
    "/seal01": ".plot canvas",
    "?queue": ".queue .row",
    "?history": ".plot canvas",
    "?events": ".events .row",
    "?quality": ".quality .row",
    "?fields": ".field-table",
}
"""The views by their address behind that of the miner, and what is to be seen in each."""


@pytest.mark.parametrize(("scheme", "views"), [("light", list(SHOWN)), ("dark", ["", "/seal01"])])
def test_axe_finds_no_serious_fault(chromium: Browser, site: Site, scheme: ColorScheme, views: list[str]) -> None:
    one = Opened(chromium, f"{site.web.url}/#/{MINER}", color_scheme=scheme)
    for view in views:
        _go(one.page, view)
        expect(one.page.locator(SHOWN[view]).first).to_be_visible()
        found = Axe().run(one.page).response["violations"]
        serious = [fault for fault in found if fault["impact"] in {"serious", "critical"}]
        assert [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in serious] == [], view
    _picture(one.page, f"host-{scheme}")
    one.close()


def test_it_speaks_chinese_and_remembers_it(opened: Opened) -> None:
    page = opened.page
    page.get_by_role("button", name="切换到中文").click()
    expect(page.get_by_role("heading", level=2, name="封装流水线")).to_be_visible()
    expect(_cell(page, "seal01", "state")).to_have_text("在线")
    page.reload()
    expect(page.get_by_role("link", name="数据质量")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    _picture(page, "chinese")


def test_the_theme_can_be_switched(page: Page) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate(background) != light
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate(background) == light


def test_a_phone_shows_all_without_scrolling_sideways(chromium: Browser, site: Site) -> None:
    one = Opened(chromium, f"{site.web.url}/#/{MINER}", viewport={"width": 360, "height": 740}, device_scale_factor=2)
    for view in SHOWN:
        _go(one.page, view)
        expect(one.page.locator("main section").first).to_be_visible()
        assert one.page.evaluate("document.documentElement.scrollWidth") <= 360, view
    _go(one.page, "")
    one.page.locator(".fleet .toolbar").scroll_into_view_if_needed()
    _picture(one.page, "phone")
    one.close()


WORD_USED = re.compile(r'\bword\("([\w-]+)"')
WORD_GIVEN = re.compile(r'^  "?([\w-]+)"?: \[\s*(".+?"),\s*(".+?"),?\s*\],', re.MULTILINE | re.DOTALL)


def test_every_word_is_there_in_both_languages() -> None:
    given = {name: (english, chinese) for name, english, chinese in WORD_GIVEN.findall((PAGE / "words.js").read_text())}
    used = {
        name
        for file in PAGE.rglob("*.js")
        if file.parent.name != "vendor"
        for name in WORD_USED.findall(file.read_text())
    }
    assert used - given.keys() == set()
    placeholder = re.compile(r"\{\w+\}")
    for name, (english, chinese) in given.items():
        assert sorted(placeholder.findall(english)) == sorted(placeholder.findall(chinese)), name


# --- who logs in ---


def test_who_has_to_log_in_is_asked_and_may_leave_again(chromium: Browser, secured: Secured) -> None:
    user = read_bundle(secured.enroll("--viewer", "carol"))["broker"]
    web = Web(secured.place, "--data", str(secured.data), "--names", "page.example")
    try:
        web.start()
        one = Opened(chromium, web.url)
        page = one.page
        page.get_by_label("User").fill(user["username"])
        page.get_by_label("Password").fill("a guess")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert").filter(has_text="User or password is wrong")).to_be_visible()
        _picture(page, "login")
        page.get_by_label("Password").fill(user["password"])
        page.keyboard.press("Enter")
        expect(page.get_by_text("No miner has reported yet")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        one.close()
    finally:
        web.end()


# --- many ---


def test_a_thousand_hosts_do_not_stutter(chromium: Browser, tmp_path: Path) -> None:
    site = Site(tmp_path, "")
    try:
        site.start("simulate", "--hosts", "1000")
        wait_for(lambda: _online(site.web) == 1000, seconds=60, what="1,000 hosts are online")
        one = Opened(chromium, "about:blank")
        chromium.start_tracing(page=one.page, categories=["toplevel"])
        one.page.goto(f"{site.web.url}/#/{MINER}")
        expect(one.page.locator(".chip.online")).to_contain_text("1,000")
        expect(one.page.get_by_role("img", name="1,000 hosts")).to_be_visible()
        _picture(one.page, "1000-hosts")
        for turn in range(12):
            one.page.mouse.wheel(0, 900 if turn < 8 else -900)
            one.page.wait_for_timeout(500)
        assert one.page.locator(".fleet .row").count() < 100
        busy = _busy_spells(chromium.stop_tracing())
        assert len(busy) > 100
        assert max(busy) < LONGEST_FRAME, sorted(busy)[-5:]
        one.close()
    finally:
        site.end()


def _online(web: Web) -> int:
    return sum(miner["states"]["online"] for miner in web.get("/api/miners")["miners"])


def _busy_spells(trace: bytes) -> list[float]:
    """Seconds of processor time of each task of the page's thread: what others on this machine take does not count."""
    events = json.loads(trace)["traceEvents"]
    mains = {
        (e["pid"], e["tid"]) for e in events if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"
    }
    tasks = [e for e in events if e["ph"] == "X" and (e["pid"], e["tid"]) in mains and e["name"].endswith("::RunTask")]
    return [e["tdur"] / 1e6 for e in tasks if "tdur" in e]
