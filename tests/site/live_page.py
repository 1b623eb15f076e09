"""The live page as a reader works it, and what Python makes of the code that it shows."""

from __future__ import annotations

import ast
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
DIST = ROOT / "web" / "dist"
RESULTS = ROOT / "test-results"
PATIENCE = 300_000  # ms; a busy machine takes many times as long as an idle one
QUICK = 1300  # ms for the first image's 20 steps on an idle machine

PIXELS = """id => {
    const canvas = document.getElementById(id);
    return Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data);
}"""
LONG_TASKS = """
    window.longTasks = [];
    new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((entry) => entry.duration)))
        .observe({ type: 'longtask', buffered: true });
"""


class LivePage:
    def __init__(self, page: Page, address: str):
        self.page = page
        self.faults: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda message: self.faults.append(message.text) if message.type == "error" else None)
        page.add_init_script(LONG_TASKS)
        page.goto(address)

    def wait(self, label: str = "") -> None:
        """Until the image is finished, and its alternative text holds the label."""
        self.page.wait_for_function(
            """label => {
                const { state } = document.getElementById('machine').dataset;
                const done = state === 'done' && document.getElementById('image').ariaLabel.includes(label);
                return done || state === 'failed';
            }""",
            arg=label,
            timeout=PATIENCE,
        )
        assert self.state == "done", self.page.inner_text("#error")

    @property
    def state(self) -> str | None:
        return self.page.get_attribute("#machine", "data-state")

    def ask(
        self, prompt: str, seed: int, steps: int = 50, guidance: float = 7.5, scheduler: str = "ddim"
    ) -> np.ndarray:
        """Set the controls, and return the finished image, (128, 128, 3)."""
        page = self.page
        page.fill("#steps", str(steps))
        page.fill("#guidance", str(guidance))
        page.check(f"input[name=scheduler][value='{scheduler}']", force=True)
        page.fill("#seed", str(seed))
        page.fill("#prompt", prompt)
        page.press("#prompt", "Enter")
        names = {"ddim": "DDIM", "ddpm": "DDPM", "euler": "Euler", "dpm++": "DPM-Solver++"}
        self.wait(f"“{prompt}”: seed {seed}, {steps} steps of {names[scheduler]}, guidance {guidance:g}")
        return self.image()

    def turn_to(self, task: str) -> None:
        """Another tab; until its first image is finished."""
        self.page.evaluate("document.getElementById('machine').dataset.state = 'turning'")
        self.page.click(f"#tab-{task}")
        self.wait()

    def image(self, id: str = "image") -> np.ndarray:
        rgba = np.array(self.page.evaluate(PIXELS, id), dtype=np.uint8)
        side = round((len(rgba) / 4) ** 0.5)
        return rgba.reshape(side, side, 4)[:, :, :3]

    def code(self) -> str:
        return self.page.text_content("#python") or ""

    def slowness(self) -> float:
        """How many times slower than when idle this machine was at the last image of 20 steps; 1 or more."""
        return max(1.0, float(self.page.get_attribute("#machine", "data-ms") or 0) / QUICK)

    def drag(self, slider: str, seconds: float, end: float) -> None:
        """Move a slider's handle to and fro with the mouse, and let go at `end`, a share of its length."""
        box = self.page.locator(slider).bounding_box()
        assert box is not None
        middle, mouse = box["y"] + box["height"] / 2, self.page.mouse
        mouse.move(box["x"] + 0.5 * box["width"], middle)
        mouse.down()
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            share = 0.5 + 0.35 * np.sin(3 * (time.monotonic() - begun))
            mouse.move(box["x"] + share * box["width"], middle)
            time.sleep(0.02)
        mouse.move(box["x"] + end * box["width"], middle)
        mouse.up()


def run_code(code: str, model: object) -> np.ndarray:
    """The image that the page's Python code generates, on a model that is loaded already."""
    tree = ast.parse(re.sub(r"ldm\.load\(.*\)", "the_model", code))
    last = tree.body.pop()
    assert isinstance(last, ast.Expr)
    names: dict[str, object] = {"the_model": model}
    exec(compile(tree, "page", "exec"), names)
    image = eval(compile(ast.Expression(last.value), "page", "eval"), names)
    assert isinstance(image, Image.Image)
    return np.asarray(image)


def farthest(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())
