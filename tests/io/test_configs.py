"""The JSON files of a model folder: every setting is carried out, or refused by its name."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import fields
from pathlib import Path

import diffusers
import pytest
from diffusers import AutoencoderKL, UNet2DConditionModel
from helpers import one_sentence
from model_folders import TINY, edit

from ldm_course.io import configs
from ldm_course.io.load import load
from ldm_course.schedule import NoiseSchedule
from ldm_course.unet import UNetConfig
from ldm_course.vae import VAEConfig

pytestmark = pytest.mark.filterwarnings("ignore:The model asks for")
UNET, VAE, SCHEDULER = "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"
INDEX = "model_index.json"


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
    "file, key, value",
    [
        (UNET, "use_linear_projection", True),
        (UNET, "attention_head_dim", [5, 10, 20, 20]),  # Stable Diffusion 2
        (UNET, "class_embed_type", "timestep"),
        (UNET, "addition_embed_type", "text_time"),  # SDXL
        (UNET, "transformer_layers_per_block", [1, 2]),
        (UNET, "act_fn", "gelu"),
        (UNET, "mid_block_type", None),
        (UNET, "time_cond_proj_dim", 256),  # a latent consistency model
        (UNET, "resnet_time_scale_shift", "scale_shift"),
        (UNET, "only_cross_attention", [False, True]),
        (UNET, "down_block_types", ["CrossAttnDownBlock2D", "AttnDownBlock2D"]),
        (UNET, "layers_per_block", [1, 2]),
        (UNET, "layers_per_block", 0),
        (UNET, "cross_attention_dim", None),
        (UNET, "norm_num_groups", None),
        (UNET, "norm_eps", "small"),
        (UNET, "block_out_channels", []),
        (UNET, "block_out_channels", [8, True]),
        (UNET, "block_out_channels", 8),
        (UNET, "encoder_hid_dim", 4096),
        (UNET, "brand_new_key", "anything"),
        (UNET, "in_channels", 9),  # in-painting
        (UNET, "out_channels", 8),
        (UNET, "block_out_channels", ...),
        (VAE, "shift_factor", 0.1159),
        (VAE, "latents_mean", [0.1, 0.2, 0.3, 0.4]),
        (VAE, "use_quant_conv", False),
        (VAE, "mid_block_add_attention", False),
        (VAE, "down_block_types", ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]),
        (VAE, "scaling_factor", 0),
        (VAE, "scaling_factor", float("nan")),
        (SCHEDULER, "beta_schedule", "squaredcos_cap_v2"),
        (SCHEDULER, "trained_betas", [0.1, 0.2]),
        (SCHEDULER, "rescale_betas_zero_snr", True),
        (SCHEDULER, "prediction_type", "sample"),
        (SCHEDULER, "timestep_spacing", "sideways"),
        (SCHEDULER, "use_flow_sigmas", True),
        (SCHEDULER, "num_train_timesteps", 0),
        (INDEX, "text_encoder_2", ["transformers", "CLIPTextModelWithProjection"]),  # SDXL
        (INDEX, "vae", ["diffusers", "AutoencoderTiny"]),
        (INDEX, "unet", ...),
        (INDEX, "tokenizer", None),
    ],
)
def test_what_we_do_not_build_is_refused_by_name(folder: Path, file, key, value):
    edit(folder / file, **{key: value})
    with one_sentence(str(folder), "channels" if key in ("in_channels", "out_channels") else key):
        load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"beta_start": "low"},
        {"beta_start": None},
        {"num_train_timesteps": 10.5},
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "beta_start": ...},
        {"_class_name": "LCMScheduler", "beta_start": ..., "beta_end": ...},
    ],
)
def test_a_schedule_that_we_do_not_have_is_refused(folder: Path, changes):
    edit(folder / SCHEDULER, **changes)
    with one_sentence("scheduler_config.json"):
        load(folder)


@pytest.mark.parametrize(
    "file, changes",
    [
        (UNET, {"class_embed_type": None, "num_class_embeds": None, "only_cross_attention": [False, False]}),
        (UNET, {"transformer_layers_per_block": [1, 1], "upcast_attention": None, "brand_new_key": None}),
        (UNET, {"sample_size": None, "addition_embed_type_num_heads": 32, "_name_or_path": "elsewhere"}),
        (VAE, {"force_upcast": True, "shift_factor": None, "brand_new_switch": False, "scaling_factor": None}),
        (INDEX, {"feature_extractor": [None, None], "safety_checker": ["stable_diffusion", "SafetyChecker"]}),
    ],
)
def test_settings_without_effect_load(folder: Path, file, changes):
    edit(folder / file, **changes)
    load(folder)


@pytest.mark.filterwarnings("default")
def test_another_scheduler_than_ddim_gets_one_note(saved: Path, recwarn):
    load(saved)
    load(TINY)
    ours = [w for w in recwarn if w.category is not DeprecationWarning]  # transformers has one, of tokenizers 0.22
    assert ["PNDMScheduler" in str(w.message) for w in ours] == [True]
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
    (folder / SCHEDULER).write_text(json.dumps(content))
    schedule = load(folder).schedule
    for field in fields(NoiseSchedule):
        if field.name in defaults:
            assert getattr(schedule, field.name) == defaults[field.name], field.name
    if "set_alpha_to_one" not in defaults:
        assert schedule.set_alpha_to_one  # as when diffusers makes a DDIM of it


@pytest.mark.parametrize("part", [INDEX, "scheduler", "text_encoder", "tokenizer", "unet", "vae", UNET, SCHEDULER])
def test_something_is_missing(folder: Path, part: str):
    shutil.rmtree(folder / part) if (folder / part).is_dir() else (folder / part).unlink()
    with one_sentence(Path(part).name):
        load(folder)


@pytest.mark.parametrize("path", [INDEX, VAE, SCHEDULER, "text_encoder/config.json", "tokenizer/vocab.json"])
@pytest.mark.parametrize("content", [b"", b'{"a": 1,\n', b"[]", b"\xff\xfe"])
def test_broken_json(folder: Path, path: str, content: bytes):
    (folder / path).write_bytes(content)
    with one_sentence(str((folder / path).parent)):
        load(folder)
