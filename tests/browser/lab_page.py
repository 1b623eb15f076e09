"""A notebook in JupyterLab in Chromium, driven as a reader drives it: menus, mouse and keys.

Nothing here waits for a time to pass and hopes: it waits until a condition holds, TIMEOUT at most.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, FileChooser, Locator, Page

ROOT = Path(__file__).resolve().parents[2]
# "01" or "flow" -> its path
NOTEBOOKS = {path.stem.partition("_")[0]: path for path in sorted((ROOT / "notebooks").glob("**/*.ipynb"))}

TIMEOUT = float(os.environ.get("BROWSER_TIMEOUT", 120))  # s for any one thing; Run All may take five times as long
STILL = TIMEOUT / 80  # s without change after which a picture counts as finished

WIDGET = "application/vnd.jupyter.widget-view+json"
CONTROLS = {  # what moves a widget, and how to find it
    "slider": ".noUi-handle",
    "toggle": ".widget-toggle-button:not(.mod-active)",
    "play": ".widget-play button:first-child",
    "button": "button.widget-button",
    "upload": "button.widget-upload",
    "number": ".widget-text input[type=number]",
    "text": ".widget-text input[type=text], .widget-combobox input",
}
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"  # all that a notebook fetches from elsewhere
NOTHING = "<svg xmlns='http://www.w3.org/2000/svg'/>"  # given instead, so that no network is needed
KEYS_ONLY = ("number", "text")
PROMPT = "a white cat in the snow"  # typed where there is a prompt; no notebook begins with it

SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',  # no pop-ups, no network
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # cells out of sight stay in the page
}

Result = TypeVar("Result")

# ---- the server --------------------------------------------------------------------------------------------------


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """JupyterLab on the notebooks of `folder`, with settings and a log of its own beside them; yields its address."""
    private = folder.with_name(f"{folder.name}-lab")
    for name, text in SETTINGS.items():
        file = private / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "JUPYTERLAB_SETTINGS_DIR": private / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": private / "workspaces",
        "JUPYTER_CONFIG_DIR": private / "config",
        "JUPYTER_RUNTIME_DIR": private / "runtime",
        "IPYTHONDIR": private / "ipython",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--IdentityProvider.token="]
    command += [f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}"]
    with open(private / "log.txt", "w") as log:
        environment = os.environ | {name: str(path) for name, path in settings.items()}
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + TIMEOUT
        while not _answers(address):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"JupyterLab does not start:\n{(private / 'log.txt').read_text()}")
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def _answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(f"{address}/api", timeout=5).status == 200
    except OSError:
        return False


def _connected(address: str, notebook: str) -> bool:
    """Whether a page is connected to the kernel of this notebook.

    Until then the page calls its kernel idle, too, but forgets what it is told to run.
    """
    with urllib.request.urlopen(f"{address}/api/sessions", timeout=5) as answer:
        sessions = json.load(answer)
    return any(session["path"] == notebook and session["kernel"]["connections"] > 0 for session in sessions)


# ---- notebooks to open -------------------------------------------------------------------------------------------


def excerpt(
    number: str, names: Sequence[str] = (), cells: Sequence[str] = (), extra: Mapping[str, str] | None = None
) -> NotebookNode:
    """A small notebook from notebook `number`: its setup cell, the first definitions of `names`, then some `cells`.

    extra: further cells, id -> source, that no notebook has.
    """
    found = {cell.id: cell.source for cell in nbformat.read(NOTEBOOKS[number], as_version=4).cells}
    defined = "\n".join(_definition(name, found.values()) for name in names)
    sources = {"setup": found["setup"], "names": defined} | {name: found[name] for name in cells} | dict(extra or {})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(
        cells=[new_code_cell(source, id=name) for name, source in sources.items() if source],
        metadata={"kernelspec": kernel},
    )


def saved_widgets(cells: Iterable[NotebookNode]) -> dict[str, str]:
    """The cells whose saved output is a widget with an image: id -> the words for pages that run no kernel.

    A bet has buttons and no image.
    """
    outputs = [(cell.id, output.get("data", {})) for cell in cells for output in cell.get("outputs", [])]
    return {name: data["text/plain"] for name, data in outputs if WIDGET in data and not name.startswith("bet-")}


def _definition(name: str, sources: Iterable[str]) -> str:
    """The first statement that assigns to this name."""
    for source in sources:
        try:
            statements = ast.parse(TransformerManager().transform_cell(source)).body
        except SyntaxError:  # prose
            continue
        for statement in statements:
            if isinstance(statement, ast.Assign):
                targets = ast.walk(ast.Module(statement.targets, []))  # type: ignore[arg-type]
                if name in {target.id for target in targets if isinstance(target, ast.Name)}:
                    return ast.unparse(statement)
    raise LookupError(name)


# ---- the page ----------------------------------------------------------------------------------------------------


class LabPage:
    """One notebook, open. Cells go by their ids.

    ids, code, widgets: all cells; those with code; those whose saved output is a widget.
    errors: what the browser has complained of in its console so far.
    """

    def __init__(self, page: Page, address: str, notebook: Path):
        """Open a notebook that lies in the server's folder, and wait for its kernel."""
        self.page, self.errors = page, list[str]()
        self._chosen = 0
        cells = nbformat.read(notebook, as_version=4).cells
        self.ids = [cell.id for cell in cells]
        self.code = [cell.id for cell in cells if cell.cell_type == "code"]
        self.widgets = list(saved_widgets(cells))
        page.set_default_timeout(1000 * TIMEOUT)
        page.route(BADGE, lambda route: route.fulfill(content_type="image/svg+xml", body=NOTHING))
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.errors.append(f"{error.name}: {error.message}"))
        page.goto(f"{address}/lab/workspaces/{notebook.stem}/tree/{notebook.name}")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        self.until(lambda: _connected(address, notebook.name), f"{notebook.name} has a kernel")
        self.wait_for_kernel()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location['url']})")

    def close(self) -> None:
        """Shut the kernel down and close the page, if it is still open."""
        if not self.page.is_closed():
            self.menu("Kernel", "Shut Down Kernel")
            self.page.close()

    # -- waiting --

    def until(self, condition: Callable[[], Result], what: str, times: float = 1, pause: int = 30) -> Result:
        """Ask again and again, after so many milliseconds, until the answer is true, and return it."""
        deadline = time.monotonic() + times * TIMEOUT
        while not (answer := condition()):
            assert time.monotonic() < deadline, f"waited {times * TIMEOUT:.0f} s in vain until {what}"
            self.page.wait_for_timeout(pause)
        return answer

    def wait_for_kernel(self) -> None:
        """Until the kernel has nothing to do."""
        self.page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")

    # -- cells --

    def cell(self, name: str) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(self.ids.index(name))

    def count(self) -> int:
        """How many cells there are."""
        return self.page.locator(".jp-Notebook .jp-Cell").count()

    def prompt(self, name: str) -> Locator:
        return self.cell(name).locator(".jp-InputPrompt")

    def menu(self, title: str, entry: str) -> None:
        """Choose from the menus at the top."""
        self.page.locator(".lm-MenuBar-itemLabel").get_by_text(title, exact=True).click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text(entry, exact=True).click()

    def run_all(self) -> None:
        """Run > Run All Cells, to the end or to the first error."""
        self._forget(self.code)
        self.menu("Run", "Run All Cells")
        try:  # not often, as to be asked keeps the browser from what the kernel sends it
            self.until(lambda: self.problems("error") or not self._not_run(), "all cells have run", 5, pause=1000)
        except AssertionError as error:
            status = self.page.locator(".jp-Notebook-ExecutionIndicator").first.get_attribute("data-status")
            raise AssertionError(f"{error}; the kernel is {status}; not run: {self._not_run()}") from None
        self.wait_for_kernel()

    def run(self, name: str) -> str:
        """Run one cell by Ctrl+Enter, and return the text it printed."""
        self._forget([name])
        self.prompt(name).click()
        self.page.keyboard.press("Control+Enter")
        self.until(lambda: self._has_run(name), f"cell {name} has run")
        self.wait_for_kernel()
        return self.text(name)

    def _forget(self, names: Sequence[str]) -> None:
        """Take the numbers beside the cells away: a number means from now on that the cell has run again."""
        for name in names:
            self.prompt(name).evaluate("prompt => { prompt.textContent = 'not yet' }")

    def _has_run(self, name: str) -> bool:
        return re.search(r"\[\d+\]", self.prompt(name).text_content() or "") is not None

    def _not_run(self) -> list[str]:
        """The code cells that have not run, by one question to the page."""
        cells = self.page.locator(".jp-Notebook .jp-Cell")
        prompts = cells.evaluate_all("cells => cells.map(c => c.querySelector('.jp-InputPrompt')?.textContent ?? '')")
        return [name for name in self.code if not re.search(r"\[\d+\]", prompts[self.ids.index(name)])]

    def text(self, name: str) -> str:
        """What a cell has printed."""
        return "\n".join(self.cell(name).locator(".jp-OutputArea-output pre").all_text_contents())

    def problems(self, *kinds: str) -> list[str]:
        """What all cells put out as errors or on stderr; or of these kinds, "error" or "stderr", alone."""
        types = [f"application/vnd.jupyter.{kind}" for kind in kinds or ("error", "stderr")]
        found = ", ".join(f'.jp-OutputArea-output[data-mime-type="{each}"]' for each in types)
        return self.page.locator(found).all_text_contents()

    def restart_kernel(self) -> None:
        """Kernel > Restart Kernel..., and yes."""
        self.menu("Kernel", "Restart Kernel…")
        self.page.locator(".jp-Dialog").locator(".jp-mod-accept").click()
        self.page.wait_for_selector(".jp-Dialog", state="detached")
        self.wait_for_kernel()

    # -- widgets --

    def picture(self, name: str) -> bytes:
        """The file that the picture in a cell's widget shows now."""
        data = (
            self.cell(name)
            .locator("img.widget-image")
            .evaluate(
                """async (image) => {
                for (;;) {
                    try {
                        const reader = new FileReader();
                        reader.readAsDataURL(await (await fetch(image.src)).blob());
                        return await new Promise((done) => { reader.onload = () => done(reader.result); });
                    } catch (error) {  // another picture has come in between
                        await new Promise((done) => setTimeout(done, 10));
                    }
                }
            }"""
            )
        )
        return base64.b64decode(data.partition(",")[2])

    def settled(self, name: str) -> bytes:
        """The picture once it has been the same for STILL seconds."""
        seen: list[tuple[bytes, float]] = []

        def still() -> bool:
            picture = self.picture(name)
            if not seen or seen[-1][0] != picture:
                seen.append((picture, time.monotonic()))
            return time.monotonic() - seen[-1][1] > STILL

        self.until(still, f"the picture of {name} stays as it is")
        return seen[-1][0]

    def controls(self, name: str) -> list[tuple[str, Locator]]:
        """What moves the widget of a cell: (kind, where)."""
        outputs = self.cell(name).locator(".jp-OutputArea")
        return [(kind, each) for kind, path in CONTROLS.items() for each in outputs.locator(path).all()]

    def follows(self, name: str, act: Callable[[], object]) -> bool:
        """Whether another picture comes after `act`."""
        before = self.settled(name)
        act()
        try:
            return self.until(lambda: self.picture(name) != before, "another picture comes")
        except AssertionError:
            return False

    def by_mouse(self, kind: str, control: Locator) -> None:
        """Move a control as the mouse does."""
        if kind == "slider":
            self.drag(control, 0.2 if self.share(control) > 0.5 else 0.8)
        elif kind == "upload":
            self.choose(control.click)
        else:
            control.click()

    def by_keys(self, kind: str, control: Locator) -> None:
        """Move a control as keys do, once it has the focus."""
        control.focus()
        if kind == "text":
            self.page.keyboard.press("Control+A")
            self.page.keyboard.type(PROMPT)
        elif kind == "upload":
            self.choose(lambda: self.page.keyboard.press("Enter"))
            return
        at_end = kind == "slider" and self.share(control) == 1
        key = {"slider": "ArrowLeft" if at_end else "ArrowRight", "number": "ArrowUp"}
        self.page.keyboard.press(key.get(kind, "Enter"))

    def share(self, handle: Locator) -> float:
        """Where a slider's handle is, from 0 to 1."""
        low, now, high = (float(handle.get_attribute(f"aria-value{name}") or 0) for name in ("min", "now", "max"))
        return (now - low) / (high - low)

    def drag(self, handle: Locator, to: float, moves: int = 12) -> None:
        """Drag a slider's handle to a share of its way."""
        self.grab(handle)
        begin = self.share(handle)
        for i in range(1, moves + 1):
            self.move(handle, begin + (to - begin) * i / moves)
        self.page.mouse.up()

    def grab(self, handle: Locator) -> None:
        """Press the mouse on a slider's handle."""
        handle.scroll_into_view_if_needed()
        box = handle.bounding_box()
        assert box is not None
        self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        self.page.mouse.down()

    def move(self, handle: Locator, to: float) -> None:
        """Move the pressed mouse over a slider to a share of its way."""
        box = handle.locator("xpath=ancestor::*[contains(@class, 'noUi-base')]").bounding_box()
        assert box is not None
        self.page.mouse.move(box["x"] + to * box["width"], box["y"] + box["height"] / 2)

    def choose(self, press: Callable[[], object]) -> None:
        """Press an upload button and choose a picture, another one each time."""
        self._chosen += 1
        file = io.BytesIO()
        Image.linear_gradient("L").rotate(90 * self._chosen).convert("RGB").save(file, "png")
        opened: list[FileChooser] = []
        self.page.once("filechooser", lambda chooser: opened.append(chooser))
        presses = 0
        while not opened:  # a busy page may swallow a key or a click; a reader presses again
            press()
            presses += 1
            try:
                self.until(lambda: opened, "a file can be chosen", times=1 / 4)
            except AssertionError:
                assert presses < 3, "the button opens no file chooser"
        opened[0].set_files({"name": "grey.png", "mimeType": "image/png", "buffer": file.getvalue()})
