"""The built live page in Chromium, served under /ldm-course/live/ as on GitHub Pages."""

from __future__ import annotations

import functools
import os
import re
import shutil
import threading
from collections.abc import Callable, Generator, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from live_page import DIST, RESULTS, LivePage

import ldm_course as ldm

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PLACE = "/ldm-course/live"
OPEN: list[LivePage] = []


class Site(SimpleHTTPRequestHandler):
    """web/dist below PLACE, and nothing elsewhere; the browser's own cache must not hide a missing file."""

    def translate_path(self, path: str) -> str:
        return super().translate_path(path.removeprefix(PLACE) if path.startswith(f"{PLACE}/") else "/nothing/here")

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium: install it (Debian: apt install chromium), or name it with CHROMIUM=...")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: make test-browser installs it")
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM)


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    if not (DIST / "index.html").exists():
        pytest.skip("the live page is not built: npm ci && npm run build in web/")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Site, directory=DIST)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def open_page(browser: Browser, server: ThreadingHTTPServer) -> Iterator[Callable[..., LivePage]]:
    """open_page(width, height, dark): the live page in a browser of its own, that has never been there."""

    def open_page(width: int = 1280, height: int = 900, dark: bool = False) -> LivePage:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        OPEN.append(LivePage(context.new_page(), f"http://127.0.0.1:{server.server_port}{PLACE}/"))
        return OPEN[-1]

    yield open_page
    for live in OPEN:
        live.page.context.close()
    OPEN.clear()


@pytest.fixture(scope="session")
def model() -> ldm.LatentDiffusion:
    return ldm.load(device="cpu")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        RESULTS.mkdir(exist_ok=True)
        name = re.sub(r"[^\w-]+", "-", item.name)
        for i, live in enumerate(live for live in OPEN if not live.page.is_closed()):
            live.page.screenshot(path=RESULTS / f"{name}-{i}.png", full_page=True)
    return report
