"""JupyterLab and Chromium, started once; what a test leaves on the screen when it fails lies in test-results/."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from lab_page import ROOT, LabPage, jupyterlab
from nbformat import NotebookNode

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
RESULTS = ROOT / "test-results"
OPEN: list[LabPage] = []


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium: install it (Debian: apt install chromium), or name it with CHROMIUM=...")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: make test-browser installs it")
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What JupyterLab sees: copies of notebooks, never the notebooks themselves."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="session")
def address(folder: Path, browser: Browser) -> Iterator[str]:
    with jupyterlab(folder) as address:
        yield address


@pytest.fixture(scope="module")
def open_page(browser: Browser, address: str, folder: Path) -> Iterator[Callable[..., LabPage]]:
    """open_page(name, notebook): the notebook in a page of its own; its kernel ends with the tests of the module."""

    def open_page(name: str, notebook: NotebookNode) -> LabPage:
        path = folder / f"{name}.ipynb"
        nbformat.write(notebook, path)
        OPEN.append(LabPage(browser.new_page(viewport={"width": 1280, "height": 1000}), address, path))
        return OPEN[-1]

    yield open_page
    for page in OPEN:
        page.close()
    OPEN.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        RESULTS.mkdir(exist_ok=True)
        name = re.sub(r"[^\w-]+", "-", item.name)
        for i, page in enumerate(page for page in OPEN if not page.page.is_closed()):
            page.page.screenshot(path=RESULTS / f"{name}-{i}.png")
    return report
