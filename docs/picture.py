"""Make the pictures of the docs from simulated fleets, as things are: `make picture`.

docs/picture.svg is the command line at work, docs/page*.webp the page, for which Chromium is needed (apt-get install
chromium).
"""

import base64
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.text import Text

from telemetry.processes import answers, free_port

COMMANDS = ("telemetry ls", "telemetry show f01234 seal01", "mosquitto_sub -p {port} -t 'miners/#' -v -C 4")
WIDTH = 118

CHROMIUM = "/usr/bin/chromium"
DOCS = Path("docs")


def main() -> None:
    """Run simulated fleets for a while, and picture what the commands print and the page shows meanwhile."""
    with tempfile.TemporaryDirectory() as place, _fleet(place, hosts=6) as (port, _):
        time.sleep(25)
        _picture_commands(place, port)
    with tempfile.TemporaryDirectory() as place, _fleet(place, hosts=20) as (_, url):
        time.sleep(150)
        _picture_page(url)


@contextmanager
def _fleet(place: str, *, hosts: int) -> Iterator[tuple[int, str]]:
    """A simulated fleet, as long as it is needed; its broker's port, and its page's address."""
    port, web_port = free_port(18830), free_port(18930)
    ports = ["--port", str(port), "--web-port", str(web_port)]
    command = [sys.executable, "-m", "telemetry", "simulate", "--data", f"{place}/telemetry-data", *ports]
    process = subprocess.Popen([*command, "--hosts", str(hosts)], stdout=subprocess.DEVNULL)
    try:
        while not answers(web_port):
            time.sleep(0.1)
        yield port, f"http://127.0.0.1:{web_port}/#/f01234"
    finally:
        process.terminate()
        process.wait()


# --- the command line ---


def _picture_commands(place: str, port: int) -> None:
    shown = Console(record=True, width=WIDTH, force_terminal=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    for command in COMMANDS:
        shown.print(Text(f"$ {command.format(port=1883)}", style="bold green"))
        for line in Text.from_ansi(_output(command.format(port=port), place)).split("\n"):
            line.truncate(2 * WIDTH, overflow="ellipsis")
            line.rstrip()
            shown.print(line)
    (DOCS / "picture.svg").write_text(shown.export_svg(title="storage-telemetry"))


def _output(command: str, place: str) -> str:
    """What a command prints on a terminal."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    terminal = f"stty cols {WIDTH} rows 50; {command}"
    done = subprocess.run(
        ["script", "-qec", terminal, "/dev/null"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.replace("\r\n", "\n").rstrip()


# --- the page ---


def _picture_page(url: str) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        _picture(browser, "page", url)
        _picture(browser, "page-host", f"{url}/seal05", color_scheme="dark")
        _picture(browser, "page-phone", url, width=360, height=740, scale=2, locale="zh-CN", begin=".fleet")
        browser.close()


def _picture(
    browser: Browser,
    name: str,
    url: str,
    *,
    width: int = 1440,
    height: int = 1000,
    scale: int = 1,
    locale: str = "en-US",
    color_scheme: Literal["light", "dark"] = "light",
    begin: str = "main",
) -> None:
    """Picture what a screen of some size shows, from an element on."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, locale=locale, color_scheme=color_scheme
    )  # fmt: skip
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(".row")
    page.wait_for_timeout(5000)
    page.locator(begin).evaluate("element => element.scrollIntoView()")
    page.wait_for_timeout(1000)
    # A quarter of a PNG's size, which the driver itself does not know.
    clip = {"x": 0, "y": page.evaluate("scrollY"), "width": width, "height": height, "scale": scale}
    options = {"format": "webp", "quality": 85, "clip": clip}
    taken = context.new_cdp_session(page).send("Page.captureScreenshot", options)
    (DOCS / f"{name}.webp").write_bytes(base64.b64decode(taken["data"]))


if __name__ == "__main__":
    main()
