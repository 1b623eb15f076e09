"""The JSON files of a model folder: every setting is carried out, or refused by its name."""

from __future__ import annotations

import inspect
import json
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
TEXT, INDEX = "text_encoder/config.json", "model_index.json"


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


REFUSED = [  # the sentence names the key, or says another word
    (UNET, "use_linear_projection", True), (UNET, "class_embed_type", "timestep"), (UNET, "act_fn", "gelu"),
    (UNET, "attention_head_dim", [5, 10, 20, 20]),  # Stable Diffusion 2
    (UNET, "addition_embed_type", "text_time"),  # SDXL
    (UNET, "time_cond_proj_dim", 256),  # a latent consistency model
    (UNET, "transformer_layers_per_block", [1, 2]), (UNET, "only_cross_attention", [False, True]),
    (UNET, "mid_block_type", None), (UNET, "cross_attention_dim", None), (UNET, "norm_num_groups", None),
    (UNET, "down_block_types", ["CrossAttnDownBlock2D", "AttnDownBlock2D"]), (UNET, "norm_eps", "small"),
    (UNET, "layers_per_block", [1, 2]), (UNET, "layers_per_block", 0), (UNET, "block_out_channels", []),
    (UNET, "block_out_channels", [8, True]), (UNET, "block_out_channels", 8), (UNET, "block_out_channels", ...),
    (UNET, "brand_new_key", "anything"), (UNET, "in_channels", 9, "channels"), (UNET, "out_channels", 8, "channels"),
    (UNET, "cross_attention_dim", 24, "reads 24"),
    (VAE, "shift_factor", 0.1159), (VAE, "latents_mean", [0.1, 0.2, 0.3, 0.4]), (VAE, "use_quant_conv", False),
    (VAE, "down_block_types", ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]),
    (VAE, "scaling_factor", 0), (VAE, "scaling_factor", float("nan")),
    (SCHEDULER, "beta_schedule", "squaredcos_cap_v2"), (SCHEDULER, "trained_betas", [0.1, 0.2]),
    (SCHEDULER, "rescale_betas_zero_snr", True), (SCHEDULER, "use_flow_sigmas", True),
    (SCHEDULER, "prediction_type", "sample"), (SCHEDULER, "timestep_spacing", "sideways"),
    (SCHEDULER, "num_train_timesteps", 0), (SCHEDULER, "num_train_timesteps", 10.5),
    (SCHEDULER, "beta_start", "low", "schedule"), (SCHEDULER, "beta_start", None, "schedule"),
    (TEXT, "model_type", "t5"), (TEXT, "vocab_size", 100, "knows 100"),
    (TEXT, "num_attention_heads", 5, "text_encoder"), (TEXT, "hidden_act", "unheard of", "text_encoder"),
    (INDEX, "text_encoder_2", ["transformers", "CLIPTextModelWithProjection"]),  # SDXL
    (INDEX, "vae", ["diffusers", "AutoencoderTiny"]), (INDEX, "unet", ...), (INDEX, "tokenizer", None),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case[0]}-{case[1]}")
def test_what_we_do_not_build_is_refused_by_name(folder: Path, case):
    file, key, value, *words = case
    edit(folder / file, **{key: value})
    with one_sentence(str(folder), *(words or [key])):
        load(folder)


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "LCMScheduler"])
def test_a_scheduler_without_betas_is_refused(folder: Path, name):
    edit(folder / SCHEDULER, _class_name=name, beta_start=...)
    with one_sentence(str(folder / SCHEDULER), name):
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
    stated = () if name in ("DDIM", "DDPM", "PNDM") else ("beta_start", "beta_end", "beta_schedule")
    content = {"_class_name": cls.__name__, **{key: defaults[key] for key in stated}}
    (folder / SCHEDULER).write_text(json.dumps(content))
    schedule = load(folder).schedule
    defaults.setdefault("set_alpha_to_one", True)  # as when diffusers makes a DDIM of it
    for field in fields(NoiseSchedule):
        if field.name in defaults:
            assert getattr(schedule, field.name) == defaults[field.name], field.name
