"""`export_onnx`: what the files compute is what torch computes, all of them are written or none."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from helpers import noise, one_sentence, pixel_difference, relative_error
from model_folders import contents
from PIL import Image
from transformers import AddedToken

from ldm_course.io import onnx_export as module
from ldm_course.io.load import load
from ldm_course.io.onnx_export import export_onnx, session, unet_network, write_network
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import txt2img

DOCS = Path(__file__).parents[2] / "docs" / "export.md"
PLAIN = {"unet.onnx", "text_encoder.onnx", "vae_encoder.onnx", "vae_decoder.onnx"}
HALF, FLOAT, INT8 = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT, onnx.TensorProto.INT8


@pytest.fixture(scope="module")
def exported(model: LatentDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "new" / "onnx"
    errors = export_onnx(model, folder, attention=True)
    assert (
        max(errors.values()) < 1e-5 and errors == json.loads((folder / "model.json").read_text())["relative_errors"]
    )
    return folder


@pytest.fixture
def quick(model: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> LatentDiffusion:
    """The tiny model; only its text encoder is exported."""
    networks = module._networks

    def only_text(model: LatentDiffusion, attention: bool) -> dict[str, Any]:
        return {"text_encoder": networks(model, attention)["text_encoder"]}

    monkeypatch.setattr(module, "_networks", only_text)
    return model


def run(file: Path, *inputs: torch.Tensor) -> list[torch.Tensor]:
    opened = session(file)
    names = [each.name for each in opened.get_inputs()]
    return [torch.from_numpy(one) for one in opened.run(None, dict(zip(names, (each.numpy() for each in inputs))))]


def stored(file: Path, smallest: int = 256) -> dict[str, int]:
    """The types of the larger tensors in a file, by name."""
    graph = onnx.load(file).graph
    return {each.name: each.data_type for each in graph.initializer if np.prod(each.dims) >= smallest}


# ---- the files -------------------------------------------------------------------------------------------------


def test_model_json_describes_the_files_and_the_model(model, exported):
    described = json.loads((exported / "model.json").read_text())
    assert set(described["files"]) == PLAIN | {"unet_attention.onnx"} == set(described["relative_errors"])
    assert {path.name for path in exported.iterdir()} == {*described["files"], "model.json"}
    for name, said in described["files"].items():
        content = (exported / name).read_bytes()
        assert said == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        onnx.checker.check_model(onnx.load(exported / name), full_check=True)

    assert (described["format"], described["scaling_factor"]) == (1, 0.5)
    assert (described["latent_channels"], described["downscale"], described["native_size"]) == (4, 8, 64)
    assert described["context"] == [77, 24]
    schedule = described["schedule"]
    assert schedule.pop("alpha_bars") == [model.schedule.alpha_bar(t) for t in range(1000)], "every digit"
    assert schedule == {
        "final_alpha_bar_ddim": model.schedule.alpha_bar(-1),
        "steps_offset": 1,
        "spacing": "leading",
        "prediction_type": "epsilon",
    }
    tokenizer = described["tokenizer"]
    assert tokenizer["vocab"] == model.tokenizer.get_vocab() and tokenizer["merges"] == []
    ids = (tokenizer["bos"], tokenizer["eos"], tokenizer["pad"], tokenizer["model_max_length"])
    assert ids == (82, 83, 83, 77) and tokenizer["known_words"] is None


def test_merges_and_known_words(tmp_path):
    tokenizer = module._description(load(device="cpu"))["tokenizer"]
    assert tokenizer["merges"][:3] == ["i t", "i n", "in g</w>"] and "dog" in tokenizer["known_words"]


@pytest.mark.parametrize("b, h, w", [(1, 8, 8), (3, 5, 11)])
def test_networks_equal_torch_at_every_batch_and_size(model, exported, b, h, w):
    x, t, context = noise(b, 4, h, w), torch.tensor([731.0]), noise(b, 77, 24)
    assert relative_error(run(exported / "unet.onnx", x, t, context)[0], model.unet(x, t, context)) < 1e-5

    ids = torch.randint(80, (b, 77), generator=torch.Generator().manual_seed(0))
    theirs = model.text_encoder(ids).last_hidden_state
    assert relative_error(run(exported / "text_encoder.onnx", ids)[0], theirs) < 1e-5

    image = noise(b, 3, 8 * h, 8 * w).clamp(-1, 1)
    mean, logvar = run(exported / "vae_encoder.onnx", image)
    posterior = model.vae.encode(image)
    assert relative_error(mean, posterior.mean) < 1e-5 and relative_error(logvar, posterior.logvar) < 1e-5
    assert relative_error(run(exported / "vae_decoder.onnx", x)[0], model.vae.decode(x)) < 1e-4


@pytest.mark.parametrize("b, h, w", [(2, 8, 8), (1, 6, 10)])
def test_the_maps_are_cross_attention_and_eps_is_the_unets(model, pipe: StableDiffusionPipeline, exported, b, h, w):
    x, t, context = noise(b, 4, h, w), torch.tensor([500.0]), noise(b, 77, 24)
    eps, maps = run(exported / "unet_attention.onnx", x, t, context)
    assert relative_error(eps, run(exported / "unet.onnx", x, t, context)[0]) < 1e-6
    assert relative_error(eps, model.unet(x, t, context)) < 1e-5
    assert maps.shape == (b, 77, h, w)
    assert torch.allclose(maps.sum(1), torch.ones(b, h, w), atol=1e-5)

    seen: list[torch.Tensor] = []  # diffusers' own probabilities

    def look(attention, inputs, options):
        q, k = (attention.head_to_batch_dim(to(each)) for to, each in (
            (attention.to_q, inputs[0]), (attention.to_k, options["encoder_hidden_states"])))  # fmt: skip
        p = attention.get_attention_scores(q, k).unflatten(0, (b, -1)).mean(1).transpose(1, 2)  # (b, tokens, n)
        half = p.shape[-1] != h * w
        p = p.unflatten(2, (h // 2, w // 2) if half else (h, w))
        seen.append(F.interpolate(p, size=(h, w), mode="bilinear", align_corners=False))

    hooks = [each.register_forward_pre_hook(look, with_kwargs=True) for name, each in pipe.unet.named_modules()
             if name.endswith("attn2")]  # fmt: skip
    with torch.no_grad():
        pipe.unet(x, t, context)
    for hook in hooks:
        hook.remove()
    assert len(seen) == 4 and relative_error(maps, torch.stack(seen).mean(0)) < 1e-5


def test_the_model_stays_as_it_is(model, exported):
    for part in (model.unet, model.vae, model.text_encoder):
        assert not any(each._forward_hooks or each._forward_pre_hooks for each in part.modules())


def test_halves_where_nothing_is_lost(quick, tmp_path):
    export_onnx(quick, tmp_path / "float")
    assert set(stored(tmp_path / "float" / "text_encoder.onnx").values()) - {onnx.TensorProto.BOOL} == {FLOAT}
    halves = replace(quick, text_encoder=copy.deepcopy(quick.text_encoder).half())
    errors = export_onnx(halves, tmp_path / "half")
    assert HALF in (kinds := set(stored(tmp_path / "half" / "text_encoder.onnx").values())) and FLOAT not in kinds
    assert max(errors.values()) < 1e-5 and halves.text_encoder.dtype == torch.float16


def test_int8(model, tmp_path):
    """A scale for each output channel of every layer; the error is that of rounding to 255 steps."""
    network = unet_network(model)
    write_network(network, tmp_path / "unet.onnx", int8=True)
    left = {name: kind for name, kind in stored(tmp_path / "unet.onnx").items() if kind != INT8}
    assert not [name for name in left if not name.endswith((".scale", ".bias"))], left
    assert 1e-4 < module.relative_error(network, tmp_path / "unet.onnx") < 0.1

    tensors = {
        each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(tmp_path / "unet.onnx").graph.initializer
    }
    for name in ("conv_in.weight", "conv_out.weight", "time_embedding.linear_1.weight"):
        w, scale = model.unet.state_dict()[name].numpy(), tensors[f"{name}.scale"]
        assert scale.size == len(w) and np.abs(w - tensors[f"{name}.int8"] * scale).max() <= scale.max() * 0.501


# ---- all or nothing --------------------------------------------------------------------------------------------


def test_a_line_for_each_file_and_nothing_else(quick, tmp_path, capfd):
    export_onnx(quick, tmp_path / "new", int8=True)
    out, err = capfd.readouterr()
    assert re.fullmatch(r"text_encoder\.onnx +\d+\.\d\d MB   relative error \d\.\de-\d\d\n", out) and err == ""
    assert INT8 in stored(tmp_path / "new" / "text_encoder.onnx").values()


def test_an_earlier_export_is_replaced_or_stays(quick, tmp_path, monkeypatch):
    folder = tmp_path / "onnx"
    folder.mkdir()
    (folder / "unet_attention.onnx").write_text("old")
    export_onnx(quick, folder)
    before = contents(folder)
    assert set(before) == {"text_encoder.onnx", "model.json"}
    monkeypatch.setattr(module, "relative_error", lambda *_: float("nan"))
    with one_sentence("text_encoder.onnx computes something else"):
        export_onnx(quick, folder)
    assert contents(folder) == before and [path.name for path in tmp_path.iterdir()] == ["onnx"]


def test_other_files_are_not_touched(quick, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    for folder in (tmp_path / "mine", tmp_path / "mine" / "notes.txt"):
        with one_sentence("is not an export"):
            export_onnx(quick, folder)
    assert contents(tmp_path) == {"mine/notes.txt": hash(b"keep")}


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda m: replace(m, schedule=replace(m.schedule, prediction_type="v_prediction")), "'v_prediction'"),
        (lambda m: replace(m, unet=lambda x, t, context: x), "own UNet"),
        (lambda m: "runs/mine/model", "must be a model"),
    ],
)
def test_models_that_cannot_be_exported(model, tmp_path, change, words):
    with one_sentence(words):
        export_onnx(change(model), tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_added_tokens_cannot_be_exported(model, tmp_path):
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.add_tokens([AddedToken("<my-dog>")])
    with one_sentence("added ones"):
        export_onnx(replace(model, tokenizer=tokenizer), tmp_path / "new")


def test_networks_beyond_two_gigabytes_cannot_be_exported(model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 100_000)
    with one_sentence("The UNet has more than 2 GB"):
        export_onnx(model, tmp_path / "new")


# ---- what the files are for ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_program_of_the_docs_makes_our_image(tmp_path, monkeypatch):
    model = load(device="cpu")
    errors = export_onnx(model, tmp_path / "runs" / "onnx")
    assert set(errors) == PLAIN and max(errors.values()) < 1e-5
    assert sum(path.stat().st_size for path in (tmp_path / "runs" / "onnx").iterdir()) < 25.5e6
    types = list(stored(tmp_path / "runs" / "onnx" / "unet.onnx").values())
    assert HALF in types and types.count(FLOAT) < len(types) / 10

    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"^```python\n(.+?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    for text in ("a dog with glasses", "A  white cat, sleeping in the SNOW!", "two xylophones 42"):
        row = names["token_ids"](text)
        assert row == module.tokenize(model.tokenizer, [text])[0].tolist()
    ours = txt2img(model, names["prompt"], latents=torch.from_numpy(names["x_T"]), num_inference_steps=20)
    assert pixel_difference(Image.open("dog.png"), ours) <= 1
