"""The live page in Firefox, driven by WebDriver BiDi, which Firefox speaks without a driver of its own."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_page import PATIENCE, PIXELS, farthest, run_code

import ldm_course as ldm

FIREFOX = os.environ.get("FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox")
PLACE = "/ldm-course/live/"
FINISHED = """new Promise((tell, fail) => {
    const look = () => {
        const { state, task } = document.getElementById('machine')?.dataset ?? {};
        if (state === 'failed') fail(new Error(document.getElementById('error').textContent));
        else if (state === 'done' && task === '%s') tell(true);
        else setTimeout(look, 100);
    };
    look();
})"""


class Firefox:
    """One tab of a Firefox that has never been anywhere."""

    def __init__(self, profile: Path):
        websocket = pytest.importorskip("websocket")
        self.process = subprocess.Popen(
            [str(FIREFOX), "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stderr
        lines = itertools.takewhile(bool, iter(self.process.stderr.readline, ""))
        address = next(filter(None, (re.search(r"BiDi listening on (ws://\S+)", line) for line in lines)))[1]
        self.socket = websocket.create_connection(f"{address}/session", timeout=PATIENCE / 1000, suppress_origin=True)
        self.numbers = itertools.count(1)
        self.command("session.new", capabilities={})
        self.tab = self.command("browsingContext.getTree")["contexts"][0]["context"]

    def command(self, method: str, **params: Any) -> Any:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(self.socket.recv())).get("id") != number:
            pass
        assert answer["type"] == "success", answer
        return answer["result"]

    def go(self, address: str) -> None:
        self.command("browsingContext.navigate", context=self.tab, url=address, wait="complete")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, through JSON; of a promise, what it settles to."""
        source = f"Promise.resolve({expression}).then((value) => JSON.stringify(value ?? null))"
        answer = self.command("script.evaluate", expression=source, target={"context": self.tab}, awaitPromise=True)
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return json.loads(answer["result"]["value"])

    def image(self) -> np.ndarray:
        rgba = np.array(self.run(f"({PIXELS})('image')"), dtype=np.uint8)
        side = round((len(rgba) / 4) ** 0.5)
        return rgba.reshape(side, side, 4)[:, :, :3]

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def firefox(tmp_path: Path) -> Iterator[Firefox]:
    if FIREFOX is None:
        pytest.skip("there is no firefox: install it (Debian: apt install firefox-esr), or name it with FIREFOX=...")
    firefox = Firefox(tmp_path)
    yield firefox
    firefox.close()


def test_all_three_tasks(firefox: Firefox, server: ThreadingHTTPServer, model: ldm.LatentDiffusion) -> None:
    firefox.go(f"http://127.0.0.1:{server.server_port}{PLACE}")
    for task in ("txt2img", "img2img", "inpaint"):
        if task != "txt2img":  # which runs already
            firefox.run("document.getElementById('machine').dataset.state = 'turning'")
            firefox.run(f"document.getElementById('tab-{task}').click()")
        assert firefox.run(FINISHED % task)
        code = firefox.run("document.getElementById('python').textContent")
        assert farthest(firefox.image(), run_code(code, model)) <= 1, task
        print(f"{task}: 20 steps in {firefox.run('document.getElementById(`machine`).dataset.ms')} ms")
