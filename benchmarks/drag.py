"""How fast a slider responds: notebook 05's strength in JupyterLab in Chromium, dragged by the mouse.

    python benchmarks/drag.py [--seconds 8]

Needs what `make test-browser` installs, and chromium. Prints how many new images a second the page shows while the
mouse moves, and how long after the last move the final one appears. An image counts when the page shows another file;
first estimates count, too.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import nbformat
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "browser"))
from lab_page import LabPage, excerpt, jupyterlab  # noqa: E402

WATCH = """cell => {
  window.shown = [];
  let last = null;
  new MutationObserver(() => {
    const sources = [...cell.querySelectorAll('img')].map(img => img.src).join();
    if (sources !== last) { last = sources; window.shown.push(performance.now()); }
  }).observe(cell, {subtree: true, childList: true, attributes: true, attributeFilter: ['src']});
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8, help="of one drag")
    parser.add_argument("--drags", type=int, default=3)
    options = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("There is no chromium: install it (Debian: apt install chromium), or name it with CHROMIUM=...")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        folder = Path(temporary) / "notebooks"
        folder.mkdir()
        path = folder / "drag.ipynb"
        nbformat.write(excerpt("05", names=["PROMPT", "scene"], cells=["drag"]), path)
        with jupyterlab(folder) as address:
            browser = driver.chromium.launch(executable_path=chromium)
            lab = LabPage(browser.new_page(viewport={"width": 1280, "height": 1000}), address, path)
            lab.run_all()
            slider = lab.cell("drag").get_by_role("slider")
            lab.settled("drag")
            lab.cell("drag").evaluate(WATCH)
            rates, waits = [], []
            for number in range(options.drags):
                lab.grab(slider)
                start = lab.page.evaluate("window.shown.length = 0; performance.now()")
                now, i = start, 0
                while now - start < 1000 * options.seconds:  # back and forth, a new value every 50 ms
                    lab.move(slider, 0.55 + 0.35 * math.sin(0.13 * i + number))
                    lab.page.wait_for_timeout(50)
                    now, i = lab.page.evaluate("performance.now()"), i + 1
                moving = lab.page.evaluate("window.shown.length")
                lab.page.mouse.up()
                lab.page.wait_for_timeout(3000)
                last = lab.page.evaluate("window.shown.at(-1)")
                rates.append(1000 * moving / (now - start))
                waits.append(max(0.0, last - now))
            lab.close()
            browser.close()
    print(f"while moving: {statistics.median(rates):.1f} images a second (drags: {_listed(rates, '.1f')})")
    print(f"after the last move: the final image within {max(waits):.0f} ms (drags: {_listed(waits, '.0f')})")


def _listed(values: list[float], form: str) -> str:
    return ", ".join(format(value, form) for value in values)


if __name__ == "__main__":
    main()
