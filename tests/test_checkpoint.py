"""Folders travel both ways between diffusers and us; whatever is wrong with one is said in one clear sentence."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import diffusers
import huggingface_hub
import pytest
import torch
import transformers
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from helpers import noise, one_sentence, pixel_difference, relative_error
from packaging.version import Version
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from ldm_course import checkpoint, configs
from ldm_course.checkpoint import LatentDiffusion, bundled_path, load, save
from ldm_course.pipelines import txt2img
from ldm_course.schedulers import NoiseSchedule
from ldm_course.unet import UNetConfig
from ldm_course.vae import VAEConfig

HUB_FOLDER = Path(__file__).parent / "fixtures" / "tiny-sd15"
UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
pytestmark = pytest.mark.filterwarnings("ignore:The model asks for")

PROMPT = {"prompt": "a dog with glasses", "num_inference_steps": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the hub's folder, to spoil."""
    return Path(shutil.copytree(HUB_FOLDER, tmp_path / "tiny-sd15"))


@pytest.fixture(scope="module")
def saved(model: LatentDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' tiny model, saved by us."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    save(model, folder, torch.float32)
    return folder


def edit(path: Path, **changes) -> None:
    """Set keys of a JSON file; ... removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def edit_weights(path: Path, **changes) -> None:
    """Set tensors of a safetensors file, '.' written as '__'; ... removes one."""
    tensors = load_file(path) | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file({k: v.clone() for k, v in tensors.items() if v is not ...}, path, metadata={"format": "pt"})


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def their_picture(pipe: StableDiffusionPipeline):
    pipe.set_progress_bar_config(disable=True)
    return pipe(**PROMPT, generator=torch.Generator().manual_seed(0)).images[0]


def our_picture(model: LatentDiffusion):
    return txt2img(model, **PROMPT, generator=torch.Generator().manual_seed(0))


# ---- the hub's folder ------------------------------------------------------------------------------------------


def test_a_model_is_ready_to_run_and_its_folder_untouched():
    before = contents(HUB_FOLDER)
    model = load(HUB_FOLDER)
    for module in (model.vae, model.unet, model.text_encoder):
        assert not module.training
        for tensor in [*module.parameters(), *module.buffers()]:
            assert tensor.device.type == "cpu" and not tensor.requires_grad
            assert tensor.dtype == torch.float32 or not tensor.is_floating_point()
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert model.schedule == NoiseSchedule()  # the file holds Stable Diffusion 1.5's, our defaults
    assert model.vae.config.scaling_factor == 0.18215  # the file holds none
    assert model.tokenizer.model_max_length == 77
    assert model.known_words is None
    our_picture(model)
    assert contents(HUB_FOLDER) == before


def test_the_hubs_folder_computes_what_diffusers_computes():
    model = load(HUB_FOLDER)
    tokens = model.tokenizer(["a dog with glasses", ""], padding="max_length", return_tensors="pt").input_ids
    same = CLIPTokenizer.from_pretrained(HUB_FOLDER / "tokenizer")(["a dog with glasses", ""], padding="max_length")
    assert tokens.tolist() == same.input_ids

    with torch.no_grad():
        context = model.text_encoder(tokens).last_hidden_state
        theirs = CLIPTextModel.from_pretrained(HUB_FOLDER / "text_encoder", dtype=torch.float32)
        assert relative_error(context, theirs(tokens).last_hidden_state) <= 1e-5

        unet = UNet2DConditionModel.from_pretrained(HUB_FOLDER / "unet", torch_dtype=torch.float32)
        x, t = noise(2, 4, 8, 8), torch.tensor([7, 981])
        assert relative_error(model.unet(x, t, context), unet(x, t, context).sample) <= 1e-5

        vae = AutoencoderKL.from_pretrained(HUB_FOLDER / "vae", torch_dtype=torch.float32)
        picture = noise(1, 3, 32, 32)
        assert relative_error(model.vae.encode(picture).mean, vae.encode(picture).latent_dist.mean) <= 1e-5
        assert relative_error(model.vae.decode(x), vae.decode(x).sample) <= 1e-5


def test_attention_as_a_1x1_convolution_and_todays_names_load_too(folder: Path):
    expected = load(folder).vae.state_dict()
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    old = [name for name in tensors if ".query." in name or ".proj_attn." in name]
    assert len(old) == 8
    save_file({k: v[:, :, None, None] if k in old and v.dim() == 2 else v for k, v in tensors.items()}, path)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load(folder).vae.state_dict().items())

    save_file(expected, path)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load(folder).vae.state_dict().items())


def test_the_committed_folder_is_what_its_script_writes(tmp_path: Path, monkeypatch):
    monkeypatch.syspath_prepend(HUB_FOLDER.parent)
    import make_tiny_sd

    monkeypatch.setattr(make_tiny_sd, "FOLDER", tmp_path / "again")
    make_tiny_sd.main()
    written, committed = contents(tmp_path / "again"), contents(HUB_FOLDER)
    assert written.keys() == committed.keys()
    for name in written:  # torch's random numbers may differ between versions
        if name.endswith(".safetensors"):
            shapes = [
                {k: v.shape for k, v in load_file(root / name).items()} for root in (tmp_path / "again", HUB_FOLDER)
            ]
            assert shapes[0] == shapes[1]
        else:
            assert written[name] == committed[name]
    assert sum(path.stat().st_size for path in HUB_FOLDER.rglob("*")) < 300_000


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype(dtype: torch.dtype):
    if dtype == torch.float64 and Version(transformers.__version__) < Version("5"):
        pytest.skip("transformers 4's CLIP cannot make its mask in float64")
    model = load(HUB_FOLDER, dtype=dtype)
    assert {p.dtype for m in (model.vae, model.unet, model.text_encoder) for p in m.parameters()} == {dtype}


def test_importing_loads_no_large_library():
    code = "import ldm_course.checkpoint, sys; print([m for m in ('transformers', 'diffusers') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ---- ours to diffusers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_diffusers_paints_our_saved_models_picture(model: LatentDiffusion, tmp_path: Path, dtype, caplog):
    save(model, tmp_path / "model", dtype)
    for path in (tmp_path / "model").rglob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(path).values()} == {dtype}
        assert path.stat().st_mode & 0o777 == (tmp_path / "model" / "model_index.json").stat().st_mode & 0o777
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # transformers' own, of tokenizers 0.22
        again = load(tmp_path / "model")
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert not [r.message for r in caplog.records if r.levelname in ("WARNING", "ERROR")]
    assert {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.float32}
    assert pixel_difference(our_picture(again), their_picture(pipe)) <= 1
    if dtype == torch.float32:
        assert pixel_difference(our_picture(again), our_picture(model)) == 0
    assert again.schedule == model.schedule and again.vae.config == model.vae.config
    assert again.unet.config == model.unet.config


def test_every_schedule_travels(model: LatentDiffusion, tmp_path: Path):
    schedule = NoiseSchedule(900, 1e-4, 0.02, "linear", "v_prediction", "trailing", 0, True)
    save(replace(model, schedule=schedule), tmp_path / "model")
    assert load(tmp_path / "model").schedule == schedule
    theirs = diffusers.DDIMScheduler.from_pretrained(tmp_path / "model" / "scheduler").config
    assert {f.name: theirs[f.name] for f in fields(schedule)} == {
        f.name: getattr(schedule, f.name) for f in fields(schedule)
    }


def test_diffusers_finds_every_tensor_and_no_other(saved: Path):
    for cls, part in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae"), (CLIPTextModel, "text_encoder")):
        info = cls.from_pretrained(saved / part, output_loading_info=True)[1]
        assert not any(info.values()), (part, info)


def test_the_text_encoder_is_saved_for_all_versions_of_transformers(model: LatentDiffusion, saved: Path):
    """Version 5 leaves `text_model.` out, and 4.57 then draws random weights; and 5 obeys the config's dtype."""
    assert all(name.startswith("text_model.") for name in load_file(saved / "text_encoder/model.safetensors"))
    config = json.loads((saved / "text_encoder/config.json").read_text())
    assert config["dtype"] == "float32"
    assert config["eos_token_id"] == model.tokenizer.eos_token_id  # or every text would be pooled at its start token
    assert {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"} <= {
        path.name for path in (saved / "tokenizer").iterdir()
    }
    text = ["a dog with glasses", "two cats"]
    again = load(saved)
    assert again.tokenizer(text).input_ids == model.tokenizer(text).input_ids
    tokens = again.tokenizer(text, padding="max_length", return_tensors="pt").input_ids
    pooled = again.text_encoder(tokens).pooler_output
    assert not torch.allclose(pooled[0], pooled[1])


def test_known_words_travel(model: LatentDiffusion, tmp_path: Path):
    words = frozenset({"dog", "cat", "naïve"})
    save(replace(model, known_words=words), tmp_path / "model")
    assert load(tmp_path / "model").known_words == words


# ---- diffusers to ours -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", ["whole", "sharded"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_we_paint_diffusers_saved_pipelines_picture(pipe: StableDiffusionPipeline, tmp_path: Path, shards, variant):
    size = {"max_shard_size": "30KB"} if shards == "sharded" else {}
    pipe.save_pretrained(tmp_path, variant=variant, **size)
    shutil.rmtree(tmp_path / "text_encoder")  # whose shards the pipeline's own method leaves whole
    pipe.text_encoder.save_pretrained(tmp_path / "text_encoder", variant=variant, **size)
    for part in ("unet", "vae", "text_encoder"):
        files = len(list((tmp_path / part).glob("*.safetensors")))
        assert files > 1 if shards == "sharded" else files == 1
    model = load(str(tmp_path))
    assert pixel_difference(our_picture(model), their_picture(pipe)) <= 1
    load(tmp_path, dtype=torch.float16)


@pytest.mark.parametrize("dtype, value", [(torch.float16, 16.0), (torch.float32, 32.0), (torch.bfloat16, 32.0)])
def test_half_precision_takes_the_fp16_files(folder: Path, dtype, value):
    shutil.copy(folder / UNET_WEIGHTS, folder / "unet/diffusion_pytorch_model.fp16.safetensors")
    edit_weights(folder / UNET_WEIGHTS, conv_out__bias=torch.full([4], 32.0))
    edit_weights(folder / "unet/diffusion_pytorch_model.fp16.safetensors", conv_out__bias=torch.full([4], 16.0))
    assert load(folder, dtype=dtype).unet.conv_out.bias[0] == value


# ---- configs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "theirs, ours, fixed",
    [(UNet2DConditionModel, UNetConfig, configs.UNET_FIXED), (AutoencoderKL, VAEConfig, configs.VAE_FIXED)],
)
def test_every_setting_of_diffusers_classes_is_known(theirs, ours, fixed):
    """None is ignored by oversight; and where a file is silent, diffusers' default is what we build."""
    defaults = {p.name: p.default for p in inspect.signature(theirs.__init__).parameters.values() if p.name != "self"}
    settings = {f.name: f.default for f in fields(ours)}
    assert defaults.keys() <= settings.keys() | fixed.keys() | configs.WITHOUT_EFFECT
    assert not settings.keys() & fixed.keys() and not configs.WITHOUT_EFFECT & (settings.keys() | fixed.keys())
    for name, default in defaults.items():
        if name in fixed:
            assert all(each == fixed[name] for each in (default if isinstance(default, tuple) else [default])), name
        elif name in settings.keys() - configs.OPTIONAL - configs.REQUIRED:
            assert settings[name] == default, name


@pytest.mark.parametrize(
    "part, key, value",
    [
        ("unet", "use_linear_projection", True),
        ("unet", "attention_head_dim", [5, 10, 20, 20]),  # Stable Diffusion 2
        ("unet", "class_embed_type", "timestep"),
        ("unet", "addition_embed_type", "text_time"),  # SDXL
        ("unet", "transformer_layers_per_block", [1, 2]),
        ("unet", "act_fn", "gelu"),
        ("unet", "mid_block_type", None),
        ("unet", "time_cond_proj_dim", 256),  # a latent consistency model
        ("unet", "resnet_time_scale_shift", "scale_shift"),
        ("unet", "only_cross_attention", [False, True]),
        ("unet", "down_block_types", ["CrossAttnDownBlock2D", "AttnDownBlock2D"]),
        ("unet", "layers_per_block", [1, 2]),
        ("unet", "layers_per_block", 0),
        ("unet", "cross_attention_dim", None),
        ("unet", "norm_num_groups", None),
        ("unet", "norm_eps", "small"),
        ("unet", "block_out_channels", []),
        ("unet", "block_out_channels", [8, True]),
        ("unet", "encoder_hid_dim", 4096),
        ("unet", "brand_new_key", "anything"),
        ("vae", "shift_factor", 0.1159),
        ("vae", "latents_mean", [0.1, 0.2, 0.3, 0.4]),
        ("vae", "use_quant_conv", False),
        ("vae", "mid_block_add_attention", False),
        ("vae", "down_block_types", ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]),
        ("vae", "scaling_factor", 0),
        ("vae", "scaling_factor", float("nan")),
        ("text_encoder", "model_type", "t5"),
    ],
)
def test_a_setting_that_we_do_not_build_is_refused_by_name(folder: Path, part, key, value):
    edit(folder / part / "config.json", **{key: value})
    with one_sentence(str(Path(part) / "config.json"), key, json.dumps(value)):
        load(folder)


@pytest.mark.parametrize(
    "part, changes",
    [
        ("unet", {"class_embed_type": None, "num_class_embeds": None, "only_cross_attention": [False, False]}),
        ("unet", {"transformer_layers_per_block": [1, 1], "upcast_attention": None, "brand_new_key": None}),
        ("unet", {"sample_size": None, "addition_embed_type_num_heads": 32, "_name_or_path": "elsewhere"}),
        ("vae", {"force_upcast": True, "shift_factor": None, "brand_new_switch": False, "scaling_factor": None}),
    ],
)
def test_settings_without_effect_load(folder: Path, part, changes):
    edit(folder / part / "config.json", **changes)
    load(folder)


@pytest.mark.parametrize(
    "part, changes, words",
    [
        ("unet", {"in_channels": 9}, ["9 channels", "in-painting"]),
        ("unet", {"out_channels": 8}, ["8"]),
        ("unet", {"block_out_channels": ...}, ["lacks block_out_channels"]),
        ("unet", {"up_block_types": ["UpBlock2D"]}, ["2 block types"]),
        ("unet", {"norm_num_groups": 3}, ["norm_num_groups = 3"]),
        ("unet", {"attention_head_dim": 3}, ["attention_head_dim = 3"]),
        ("unet", {"cross_attention_dim": 24}, ["16", "24"]),
        ("vae", {"in_channels": 1}, ["3 channels"]),
        ("vae", {"norm_num_groups": 3}, ["norm_num_groups = 3"]),
        ("text_encoder", {"vocab_size": 100}, ["100"]),
        ("text_encoder", {"num_attention_heads": 5}, ["text_encoder"]),
        ("text_encoder", {"hidden_act": "unheard of"}, ["text_encoder"]),
    ],
)
def test_sizes_that_do_not_fit_are_refused(folder: Path, part, changes, words):
    edit(folder / part / "config.json", **changes)
    with one_sentence(str(folder), *words):
        load(folder)


def test_a_tokenizer_larger_than_the_text_encoder_is_refused(folder: Path):
    tokens = json.loads((folder / "tokenizer/vocab.json").read_text())
    edit(folder / "tokenizer/vocab.json", **{"new</w>": len(tokens)})
    with one_sentence(f"{len(tokens) + 1} tokens"):
        load(folder)


def test_a_tokenizer_that_states_no_length_is_cut_at_the_encoders(folder: Path):
    edit(folder / "tokenizer/tokenizer_config.json", model_max_length=...)
    assert load(folder).tokenizer.model_max_length == 77


# ---- the scheduler's config ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")
def test_another_scheduler_than_ddim_gets_one_note(saved: Path, recwarn):
    load(saved)
    load(HUB_FOLDER)
    ours = [w for w in recwarn if w.category is not DeprecationWarning]  # transformers has one, of tokenizers 0.22
    assert [str(w.message) for w in ours] == [
        "The model asks for PNDMScheduler; its noise schedule is used, with DDIM's steps unless you choose others."
    ]
    assert ours[0].filename == __file__


@pytest.mark.parametrize(
    "name",
    ["DDIM", "DDPM", "PNDM", "LCM", "TCD", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete",
     "KDPM2Discrete", "DPMSolverMultistep", "UniPCMultistep"],
)  # fmt: skip
def test_a_silent_config_means_what_diffusers_means(folder: Path, name: str):
    if name == "LMSDiscrete":
        pytest.importorskip("scipy")  # without it diffusers has only a stand-in for this class
    cls = getattr(diffusers, f"{name}Scheduler")
    defaults = {p.name: p.default for p in inspect.signature(cls.__init__).parameters.values()}
    betas = {key: defaults[key] for key in ("beta_start", "beta_end", "beta_schedule")}
    is_silent = name in ("DDIM", "DDPM", "PNDM")
    content = {"_class_name": cls.__name__} | ({} if is_silent else betas)
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(content))
    schedule = load(folder).schedule
    for field in fields(NoiseSchedule):
        if field.name in defaults:
            assert getattr(schedule, field.name) == defaults[field.name], field.name
    if "set_alpha_to_one" not in defaults:
        assert schedule.set_alpha_to_one  # as when diffusers makes a DDIM of it


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"beta_schedule": "squaredcos_cap_v2"}, ["beta_schedule", "squaredcos_cap_v2"]),
        ({"trained_betas": [0.1, 0.2]}, ["trained_betas"]),
        ({"rescale_betas_zero_snr": True}, ["rescale_betas_zero_snr"]),
        ({"prediction_type": "sample"}, ["prediction_type", "sample"]),
        ({"timestep_spacing": "sideways"}, ["timestep_spacing", "sideways"]),
        ({"beta_start": "low"}, ["scheduler_config.json"]),
        ({"beta_start": None}, ["scheduler_config.json"]),
        ({"num_train_timesteps": 0}, ["num_train_timesteps"]),
        ({"num_train_timesteps": 10.5}, ["num_train_timesteps"]),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "beta_start": ...}, ["FlowMatchEulerDiscreteScheduler"]),
        ({"_class_name": "LCMScheduler", "beta_start": ..., "beta_end": ...}, ["LCMScheduler"]),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, ["use_flow_sigmas"]),
    ],
)
def test_a_schedule_that_we_do_not_have_is_refused(folder: Path, changes, words):
    edit(folder / "scheduler/scheduler_config.json", **changes)
    with one_sentence(*words):
        load(folder)


# ---- what can be wrong with a folder ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", ["./nowhere", "~/nowhere/at/all", "nowhere", "a/b/c", "", " ", Path("a/b"), "/nowhere"]
)
def test_no_such_folder(source):
    with one_sentence("There is no folder", "owner/name"):
        load(source)


@pytest.mark.parametrize("source", [3, b"folder", ["a"], object])
def test_a_model_is_named_by_a_string_or_a_path(source):
    with one_sentence("folder"):
        load(source)


def test_arguments(monkeypatch, tmp_path: Path):
    with one_sentence("revision", "main"):
        load(HUB_FOLDER, revision="main")
    with one_sentence("file"):
        load(HUB_FOLDER / UNET_WEIGHTS)
    with one_sentence("'gpu'", "'cpu'"):
        load(HUB_FOLDER, device="gpu")
    for dtype in ("float16", torch.int8, 16):
        with one_sentence("dtype", repr(dtype)):
            load(HUB_FOLDER, dtype=dtype)
    monkeypatch.setattr(checkpoint, "bundled_path", lambda: tmp_path / "pretrained")
    with one_sentence("ships with the package"):
        load()


def test_the_shipped_model_lies_in_the_package():
    assert bundled_path() == Path(checkpoint.__file__).parent / "pretrained"


@pytest.mark.parametrize(
    "part",
    ["model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae", "unet/config.json", UNET_WEIGHTS,
     "scheduler/scheduler_config.json", "tokenizer/vocab.json", "text_encoder/model.safetensors"],
)  # fmt: skip
def test_something_is_missing(folder: Path, part: str):
    shutil.rmtree(folder / part) if (folder / part).is_dir() else (folder / part).unlink()
    with one_sentence(Path(part).name):
        load(folder)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, ["text_encoder_2"]),  # SDXL
        ({"vae": ["diffusers", "AutoencoderTiny"]}, ["AutoencoderTiny", "AutoencoderKL"]),
        ({"unet": ["diffusers", None]}, ["unet"]),
        ({"unet": ..., "transformer": ["diffusers", "SD3Transformer2DModel"]}, ["unet"]),
        ({"tokenizer": None}, ["tokenizer"]),
    ],
)
def test_a_pipeline_of_other_parts_is_refused(folder: Path, changes, words):
    edit(folder / "model_index.json", **changes)
    with one_sentence(str(folder), *words):
        load(folder)


@pytest.mark.parametrize("path", ["model_index.json", "vae/config.json", "text_encoder/config.json",
                                  "scheduler/scheduler_config.json", "tokenizer/vocab.json"])  # fmt: skip
@pytest.mark.parametrize("content", [b"", b'{"a": 1,\n', b"[]", b"\xff\xfe"])
def test_broken_json(folder: Path, path: str, content: bytes):
    (folder / path).write_bytes(content)
    with one_sentence(str((folder / path).parent)):
        load(folder)


# ---- what can be wrong with weights ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"conv_out__bias": ...}, ["1 missing (conv_out.bias)"]),
        ({"conv_out__bias": ..., "conv_out__weight": ...}, ["2 missing"]),
        ({"conv_3__bias": torch.ones(1)}, ["1 unexpected (conv_3.bias)"]),
        ({"conv_out__bias": torch.ones(3)}, ["1 misshapen", "conv_out.bias", "(3,)", "(4,)"]),
        ({"conv_out__bias": torch.ones(4, dtype=torch.int8)}, ["1 misshapen", "conv_out.bias", "int8"]),
        ({"conv_out__bias": ..., "a": torch.ones(1)}, ["1 missing (conv_out.bias)", "1 unexpected (a)"]),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder: Path, changes, words):
    edit_weights(folder / UNET_WEIGHTS, **changes)
    with one_sentence(str(folder / UNET_WEIGHTS), *words):
        load(folder)


def test_many_tensors_that_do_not_fit_are_counted(folder: Path):
    shutil.copy(folder / "vae/diffusion_pytorch_model.safetensors", folder / UNET_WEIGHTS)
    with one_sentence("missing (conv_in.weight, conv_in.bias, time_embedding.linear_1.weight, ...)", "unexpected"):
        load(folder)


def test_a_missing_tensor_of_the_text_encoder_is_an_error(folder: Path):
    """transformers itself only warns, and draws it at random."""
    edit_weights(folder / "text_encoder/model.safetensors", text_model__final_layer_norm__bias=...)
    with one_sentence("text_encoder", "1 missing", "final_layer_norm.bias"):
        load(folder)


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "text_encoder/model"])
@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_truncated_weights(folder: Path, part: str, keep: int):
    path = folder / f"{part}.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with one_sentence(str(path)):
        load(folder)


def test_corrupted_weights(folder: Path):
    data = bytearray((folder / UNET_WEIGHTS).read_bytes())
    data[20] ^= 255
    (folder / UNET_WEIGHTS).write_bytes(data)
    with one_sentence(str(folder / UNET_WEIGHTS), "broken"):
        load(folder)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_pickles_are_refused(folder: Path, part: str):
    path = next((folder / part).glob("*.safetensors"))
    path.rename(path.with_suffix(".bin"))
    with one_sentence(part, path.with_suffix(".bin").name, "safetensors"):
        load(folder)


def shard_unet(folder: Path, names: dict[str, str]) -> Path:
    """Replace the UNet's file by an index of these shards, the tensors in the first."""
    tensors = load_file(folder / UNET_WEIGHTS)
    (folder / UNET_WEIGHTS).rename(folder / "unet" / "part-1.safetensors")
    index = folder / f"{UNET_WEIGHTS}.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "part-1.safetensors") | names}))
    return index


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "..\\outside.safetensors", ".."])
def test_shards_lie_in_their_folder(folder: Path, name: str):
    shutil.copy(folder / UNET_WEIGHTS, folder / "outside.safetensors")
    shard_unet(folder, {})
    load(folder)
    edit(folder / f"{UNET_WEIGHTS}.index.json", weight_map={"conv_out.bias": name})
    with one_sentence("missing" if name == ".." else repr(name)):
        load(folder)


@pytest.mark.parametrize("content", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {"a": [1]}}])
def test_an_index_that_lists_nothing(folder: Path, content):
    shard_unet(folder, {}).write_text(json.dumps(content))
    with one_sentence("index.json"):
        load(folder)


def test_a_shard_is_missing(folder: Path):
    shard_unet(folder, {"conv_out.bias": "part-2.safetensors"})
    with one_sentence("part-2.safetensors", "missing"):
        load(folder)


# ---- saving ----------------------------------------------------------------------------------------------------


def test_a_save_that_fails_leaves_nothing(model: LatentDiffusion, tmp_path: Path, monkeypatch):
    def full_disk(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["writing", "moving"])
def test_a_save_that_fails_keeps_the_model_that_was_there(saved, model, tmp_path: Path, monkeypatch, when):
    target = Path(shutil.copytree(saved, tmp_path / "model"))
    before = contents(target)
    rename = Path.rename

    def interrupted(self, other):
        if ".new" in self.name:
            raise KeyboardInterrupt
        return rename(self, other)

    if when == "moving":
        monkeypatch.setattr(Path, "rename", interrupted)
    else:
        monkeypatch.setattr(checkpoint, "_write_weights", lambda *_: 1 / 0)
    with pytest.raises((KeyboardInterrupt, ZeroDivisionError)):
        save(model, target)
    assert contents(target) == before and list(tmp_path.iterdir()) == [target]


def test_saving_again_replaces_the_model_and_keeps_the_rest(saved: Path, model: LatentDiffusion, tmp_path: Path):
    target = Path(shutil.copytree(saved, tmp_path / "model"))
    (target / "README.md").write_text("a model card")
    (target / "judge").mkdir()
    (target / "judge" / "weights").write_text("some")
    shutil.copy(target / UNET_WEIGHTS, target / "unet/diffusion_pytorch_model.fp16.safetensors")
    save(replace(load(target), known_words=frozenset({"dog"})), target)
    assert (target / "README.md").read_text() == "a model card" and (target / "judge" / "weights").exists()
    assert not (target / "unet/diffusion_pytorch_model.fp16.safetensors").exists()  # `load` would prefer the old one
    assert load(target).known_words == {"dog"}
    assert list(tmp_path.iterdir()) == [target]


def test_saving_is_refused_where_it_would_do_harm(model: LatentDiffusion, tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("hard work")
    with one_sentence("thesis"):
        save(model, tmp_path / "thesis")
    with one_sentence("chapter1.txt"):
        save(model, tmp_path / "thesis" / "chapter1.txt")
    with one_sentence("no folder"):
        save(model, tmp_path / "nowhere" / "model")
    with one_sentence("torch.int8"):
        save(model, tmp_path / "model", torch.int8)
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "chapter1.txt"]
    (tmp_path / "empty").mkdir()
    save(model, tmp_path / "empty")


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_weights_that_half_precision_cannot_hold_are_not_saved(saved: Path, tmp_path: Path, value):
    model = load(saved)
    model.unet.conv_out.bias.data[0] = value
    with one_sentence("conv_out.bias", "unet", "float16"):
        save(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


# ---- the hub ---------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A Hugging Face hub of one repository, "owner/tiny", on this machine; it counts what is downloaded."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.refusal: tuple[int, str] | None = None
        self.cut: str | None = None  # the file whose connection breaks in the middle
        self.pause = 0.0  # seconds before each answer, and in the middle of it
        self.served: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def files(self) -> list[str]:
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file())

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        time.sleep(self.pause)
        path = request.path.partition("?")[0]
        if self.refusal:
            return self.reply(request, self.refusal[0], b"", {"X-Error-Code": self.refusal[1]})
        if path in (
            "/api/models/owner/tiny",
            *(f"/api/models/owner/tiny/revision/{r}" for r in ("main", "v1", COMMIT)),
        ):
            info = {"id": "owner/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files()]}
            return self.reply(request, 200, json.dumps(info).encode())
        if path.startswith("/api/models/owner/tiny/tree/"):
            tree = [
                {"type": "file", "path": name, "size": (self.folder / name).stat().st_size, "oid": name}
                for name in self.files()
            ]
            return self.reply(request, 200, json.dumps(tree).encode())
        if path.startswith("/api/models/owner/tiny/revision/"):
            return self.reply(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        name = path.removeprefix(f"/owner/tiny/resolve/{COMMIT}/")
        if name not in self.files():
            return self.reply(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        if request.command == "GET":
            self.served.append(name)
        etag = hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
        self.reply(request, 200, (self.folder / name).read_bytes(), {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def reply(self, request, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        request.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "GET":
            half = len(body) // 2
            request.wfile.write(body[:half])
            time.sleep(self.pause)
            if self.cut is None or not request.path.endswith(self.cut):
                request.wfile.write(body[half:])


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
        path = next((folder / part).glob(f"{checkpoint.WEIGHTS[part]}.safetensors"))
        save_file(
            load_file(path), path.with_suffix(".fp16.safetensors"), metadata={"format": "pt", "variant": "fp16"}
        )


def test_only_the_needed_files_are_fetched_from_the_hub(hub: Hub, folder: Path):
    fill_up(folder, "unet", "vae", "text_encoder")
    model = load("owner/tiny", revision="v1")
    weights = ["text_encoder/model.safetensors", UNET_WEIGHTS, "vae/diffusion_pytorch_model.safetensors"]
    assert sorted(hub.served) == sorted(NEEDED + weights)
    assert pixel_difference(our_picture(model), our_picture(load(folder))) == 0

    hub.served.clear()
    load("owner/tiny", dtype=torch.float16)
    assert sorted(hub.served) == [name.replace(".safetensors", ".fp16.safetensors") for name in sorted(weights)]


def test_each_part_comes_in_the_variant_that_there_is(hub: Hub, folder: Path):
    fill_up(folder, "unet")
    load("owner/tiny", dtype=torch.float16)
    fetched = [name for name in hub.served if name.endswith(".safetensors")]
    assert sorted(fetched) == ["text_encoder/model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
                               "vae/diffusion_pytorch_model.safetensors"]  # fmt: skip


def test_shards_are_fetched_with_their_index(hub: Hub, folder: Path, pipe: StableDiffusionPipeline):
    shutil.rmtree(folder)
    pipe.save_pretrained(folder, max_shard_size="60KB", variant="fp16")
    model = load("owner/tiny")
    assert pixel_difference(our_picture(model), their_picture(pipe)) <= 1


def test_what_was_fetched_once_loads_offline(hub: Hub, monkeypatch):
    load("owner/tiny")
    hub.served.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    load("owner/tiny")
    load("owner/tiny", dtype=torch.float16)
    assert hub.served == []


def test_offline_and_not_there(hub: Hub, tmp_path: Path):
    """In a process of its own, as huggingface_hub reads the variable when it is imported."""
    settings = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "ldm_course.cli", "txt2img", "a dog", "--model", "owner/tiny"]
    done = subprocess.run(command, env=os.environ | settings, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    for words in ("'owner/tiny'", "HF_HUB_OFFLINE", "internet"):
        assert words in done.stderr
    assert hub.served == []


def test_no_network(hub: Hub, monkeypatch):
    point_to("http://127.0.0.1:9", monkeypatch)  # where nobody listens
    with one_sentence("'owner/tiny'", "cannot be reached"):
        load("owner/tiny")


@pytest.mark.parametrize(
    "refusal, words",
    [
        ((404, "RepoNotFound"), ["no public hub repository", "hf auth login"]),
        ((401, "RepoNotFound"), ["no public hub repository", "hf auth login"]),
        ((401, "GatedRepo"), ["terms", "hf auth login"]),
        ((403, "GatedRepo"), ["terms", "hf auth login"]),
        ((404, "RevisionNotFound"), ["no revision 'v9'"]),
        ((429, "TooMany"), ["busy", "429", "minutes"]),
        ((500, "Oops"), ["busy", "500"]),
        ((503, "Oops"), ["busy", "503"]),
    ],
)
def test_the_hub_refuses(hub: Hub, refusal, words):
    hub.refusal = refusal
    with one_sentence("'owner/tiny'", *words):
        load("owner/tiny", revision="v9")


@pytest.mark.slow
@pytest.mark.parametrize("name", [UNET_WEIGHTS, "vae/config.json"])
def test_a_connection_that_breaks_leaves_no_half_file(hub: Hub, folder: Path, tmp_path: Path, name: str):
    hub.cut = name
    with one_sentence("'owner/tiny'", "fetched"):
        load("owner/tiny")
    assert not list((tmp_path / "cache").glob(f"*/snapshots/*/{name}"))
    hub.cut = None
    assert pixel_difference(our_picture(load("owner/tiny")), our_picture(load(folder))) == 0


def test_a_slow_hub(hub: Hub, folder: Path):
    hub.pause = 0.1
    assert pixel_difference(our_picture(load("owner/tiny")), our_picture(load(folder))) == 0


def test_a_revision_that_is_not_there(hub: Hub):
    with one_sentence("'owner/tiny'", "no revision 'v9'"):
        load("owner/tiny", revision="v9")


@pytest.mark.parametrize("name", ["owner/..", "owner/a--b", "owner/name.git"])
def test_a_name_that_the_hub_cannot_have(hub: Hub, name: str):
    with one_sentence(name):
        load(name)


def test_a_repository_in_another_format(hub: Hub, folder: Path):
    (folder / "model_index.json").unlink()
    with one_sentence("'owner/tiny'", "model_index.json"):
        load("owner/tiny")


def test_a_repository_with_pickles_only(hub: Hub, folder: Path):
    (folder / UNET_WEIGHTS).rename(folder / "unet/diffusion_pytorch_model.bin")
    with one_sentence("unet", "safetensors"):
        load("owner/tiny")
    assert not any(name.endswith(".bin") for name in hub.served)


@pytest.mark.parametrize("error", [RuntimeError("Bad.\nThing. Happened"), OSError(28, "No space left on device")])
def test_whatever_else_goes_wrong_while_fetching(monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with one_sentence("'owner/tiny'", "could not be fetched", type(error).__name__):
        load("owner/tiny")


def test_compiling_without_a_compiler(monkeypatch):
    monkeypatch.setattr(checkpoint.shutil, "which", lambda name: None)
    with one_sentence("compile=True", "g++"):
        load(compile=True)


def test_compiling_in_a_folder_with_a_space(monkeypatch):
    monkeypatch.setattr(checkpoint.torch, "__file__", "/home/a b/torch/__init__.py")
    monkeypatch.setattr(checkpoint.shutil, "which", lambda name: name)
    with one_sentence("/home/a b/torch", "space"):
        load(compile=True)
