"""The web site's pages: every figure has its alternative text, every link inside the site leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("sphinx_book_theme", reason="pip install ldm-course[site]")


class Page(HTMLParser):
    """The anchors, links and images of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.images: list[dict[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values["id"]} if "id" in values else set()
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "img":
            self.images.append(values)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[Path, Page]:
    """All pages, built with warnings as errors."""
    out = tmp_path_factory.mktemp("site") / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-b", "html", ".", str(out)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (out / "live").mkdir()
    (out / "live/index.html").write_text("<html></html>")  # the live page, which is built elsewhere
    return {path: Page(path.read_text(encoding="utf-8")) for path in out.rglob("*.html")}


def test_the_figures_keep_their_alternative_texts(site):
    for path in sorted((ROOT / "notebooks").glob("**/*.ipynb")):
        outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
        about = [each for output in outputs for each in output.get("metadata", {}).values()]
        expected = [each["alt"] for each in about if "alt" in each]
        (page,) = [
            page for found, page in site.items() if found.parts[-2:] == (path.parent.name, f"{path.stem}.html")
        ]
        assert expected and [alt for image in page.images if (alt := image["alt"]) in expected] == expected


def test_every_image_has_an_alternative_text(site):
    images = [(path.name, image) for path, page in site.items() for image in page.images]
    assert not [(name, image["src"]) for name, image in images if not image.get("alt")]


def test_every_link_inside_the_site_leads_somewhere(site):
    broken = []
    for path, page in site.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            if urlparse(link).scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(address)).resolve() if address else path
            target = target / "index.html" if target.is_dir() else target
            there = target in site and (not anchor or unquote(anchor) in site[target].anchors)
            if not there and not (target.is_file() and target.suffix != ".html"):
                broken.append((path.name, link))
    assert not broken


def test_the_tour_of_the_live_page_leads_to_headings(site):
    stops = re.findall(r'notebook: "(.+)",\n +anchor: "(.+)"', (ROOT / "web/src/tour.ts").read_text(encoding="utf-8"))
    assert len(stops) == 8
    pages = {path.stem: page for path, page in site.items()}
    assert not [(notebook, anchor) for notebook, anchor in stops if anchor not in pages[notebook].anchors]
