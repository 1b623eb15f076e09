"""The hub: only the needed files are fetched, once, and its own words say what went wrong. No network is needed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest
import torch
from diffusers import StableDiffusionPipeline
from helpers import one_sentence, pixel_difference
from model_folders import UNET_WEIGHTS, edit, our_image, their_image
from safetensors.torch import load_file, save_file

from ldm_course.errors import InputError
from ldm_course.io.load import load
from ldm_course.io.weights import STEMS

pytestmark = pytest.mark.filterwarnings("ignore:The model asks for")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A Hugging Face hub of one repository, "owner/tiny", on this machine; it counts what is downloaded."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.refusal: tuple[int, str] | None = None
        self.cut: str | None = None  # the file whose connection breaks in the middle
        self.served: list[str] = []
        answer = dict.fromkeys(("do_GET", "do_HEAD"), lambda request: self.answer(request))
        handler = type("Handler", (BaseHTTPRequestHandler,), answer | {"log_message": lambda *_: None})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        files = {str(p.relative_to(self.folder)): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
        path = request.path.partition("?")[0]
        name = path.removeprefix(f"/owner/tiny/resolve/{COMMIT}/")
        if self.refusal:
            self.reply(request, self.refusal[0], b"", {"X-Error-Code": self.refusal[1]})
        elif re.fullmatch(f"/api/models/owner/tiny(/revision/(main|v1|{COMMIT}))?", path):
            info = {"id": "owner/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            self.reply(request, 200, json.dumps(info).encode())
        elif path.startswith("/api/models/owner/tiny/tree/"):
            tree = [{"type": "file", "path": each, "size": len(data), "oid": each} for each, data in files.items()]
            self.reply(request, 200, json.dumps(tree).encode())
        elif name in files:
            etag = hashlib.sha256(files[name]).hexdigest()
            self.served += [name] * (request.command == "GET")
            self.reply(request, 200, files[name], {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else:
            self.reply(request, 404, b"", {"X-Error-Code": "RepoNotFound"})

    def reply(self, request, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        request.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "GET":
            breaks = self.cut is not None and request.path.endswith(self.cut)
            request.wfile.write(body[: len(body) // 2] if breaks else body)


def point_to(address: str, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch) -> Iterator[Hub]:
    hub = Hub(folder)
    point_to(hub.address, monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


NEEDED = [
    "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json", "tokenizer/vocab.json",
    "unet/config.json", "vae/config.json",
]  # fmt: skip


def fill_up(folder: Path, *fp16_parts: str) -> None:
    """What else such repositories hold, and the fp16 weights of some parts."""
    (folder / "safety_checker").mkdir()
    for name in ("v1-5.ckpt", "v1-5.safetensors", "README.md", "safety_checker/model.safetensors", "unet/model.bin",
                 "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.non_ema.safetensors"):  # fmt: skip
        (folder / name).write_bytes(b"not needed")
    for part in fp16_parts:
        path = folder / part / f"{STEMS[part]}.safetensors"
        metadata = {"format": "pt", "variant": "fp16"}  # the same bytes would not be fetched again
        save_file(load_file(path), path.with_suffix(".fp16.safetensors"), metadata)


def test_only_the_needed_files_are_fetched_from_the_hub(hub: Hub, folder: Path):
    fill_up(folder, *STEMS)
    model = load("owner/tiny", revision="v1")
    assert sorted(hub.served) == sorted([*NEEDED, *(f"{part}/{stem}.safetensors" for part, stem in STEMS.items())])
    assert pixel_difference(our_image(model), our_image(load(folder))) == 0


@pytest.mark.parametrize("parts", [[*STEMS], ["unet"]])
def test_each_part_comes_in_half_precision_if_there_is_that(hub: Hub, folder: Path, parts):
    fill_up(folder, *parts)
    load("owner/tiny", dtype=torch.float16)
    weights = [f"{part}/{stem}{'.fp16' * (part in parts)}.safetensors" for part, stem in STEMS.items()]
    assert sorted(hub.served) == sorted(NEEDED + weights)


def test_shards_are_fetched_with_their_index(hub: Hub, folder: Path, pipe: StableDiffusionPipeline):
    shutil.rmtree(folder)
    pipe.save_pretrained(folder, max_shard_size="60KB", variant="fp16")
    assert pixel_difference(our_image(load("owner/tiny")), their_image(pipe)) <= 1


def test_what_was_fetched_once_loads_offline(hub: Hub, monkeypatch):
    load("owner/tiny")
    hub.served.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    load("owner/tiny")
    load("owner/tiny", dtype=torch.float16)
    assert hub.served == []


# ---- refusals --------------------------------------------------------------------------------------------------


def refused(*words: str, source: str = "owner/tiny", **options) -> None:
    """Expect an InputError of one line that says these words."""
    with pytest.raises(InputError) as caught:
        load(source, **options)
    message = str(caught.value)
    assert message.isprintable() and all(word in message for word in (source, *words)), message


@pytest.mark.parametrize(
    "status, code, word",
    [
        (401, "RepoNotFound", "authenticated"),
        (403, "GatedRepo", "gated"),
        (404, "RevisionNotFound", "v9"),
        (429, "TooMany", "429"),
        (503, "Oops", "503"),
    ],
)
def test_the_hub_refuses(hub: Hub, status, code, word):
    hub.refusal = status, code
    refused(word, revision="v9")


def test_no_network_and_no_such_name(hub: Hub, monkeypatch):
    for source in ("owner/a--b", "owner/" + "y" * 300):
        refused(source=source)
    point_to("http://127.0.0.1:9", monkeypatch)  # where nobody listens
    refused("internet connection")


def test_offline_and_not_there(hub: Hub, tmp_path: Path):
    """In a process of its own, as huggingface_hub reads the variable when it is imported."""
    settings = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "ldm_course.cli", "txt2img", "a dog", "--model", "owner/tiny"]
    done = subprocess.run(command, env=os.environ | settings, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "'owner/tiny'" in done.stderr and "HF_HUB_OFFLINE" in done.stderr
    assert hub.served == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [UNET_WEIGHTS, "vae/config.json"])
def test_a_connection_that_breaks_leaves_no_half_file(hub: Hub, folder: Path, tmp_path: Path, name: str):
    hub.cut = name
    refused("could not be fetched")
    assert not list((tmp_path / "cache").glob(f"*/snapshots/*/{name}"))
    hub.cut = None
    assert pixel_difference(our_image(load("owner/tiny")), our_image(load(folder))) == 0


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda folder: edit(folder / "unet/config.json", in_channels=9), "9 channels"),
        (lambda folder: (folder / "model_index.json").unlink(), "model_index.json"),
        (lambda folder: (folder / UNET_WEIGHTS).rename(folder / "unet/diffusion_pytorch_model.bin"), "safetensors"),
    ],
)
def test_what_cannot_be_built_is_refused_and_not_fetched(hub: Hub, folder: Path, change, word):
    change(folder)
    with one_sentence(word):
        load("owner/tiny")
    assert "vae/config.json" in hub.served and not any("unet/diffusion" in name for name in hub.served)
