"""The JSON files of a model folder in diffusers' format: what they may say, read and written.

A key that would change the computation and that we do not carry out is an error that names it, never ignored.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, fields
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from ldm_course.errors import InputError, brief
from ldm_course.schedule import NoiseSchedule
from ldm_course.unet import UNetConfig
from ldm_course.vae import VAEConfig

Config = TypeVar("Config", VAEConfig, UNetConfig)

# The folders of a model: the library and the class of each part, as model_index.json states them.
PARTS = {
    "scheduler": ("diffusers", "DDIMScheduler"),  # the only one that may be another: only its schedule is read
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
}
OTHER_PARTS = {"feature_extractor", "image_encoder", "safety_checker"}  # may be there; they do not run here

# Keys of config.json that would change the computation, with the only value that we carry out (a list may repeat
# it, once per level).
VAE_FIXED: dict[str, Any] = {
    "act_fn": "silu",
    "down_block_types": "DownEncoderBlock2D",
    "up_block_types": "UpDecoderBlock2D",
    "mid_block_add_attention": True,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    **dict.fromkeys(("shift_factor", "latents_mean", "latents_std")),  # None
}
UNET_FIXED: dict[str, Any] = {
    "act_fn": "silu",
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "dropout": 0.0,
    "only_cross_attention": False,
    "dual_cross_attention": False,
    "use_linear_projection": False,
    "upcast_attention": False,
    "attention_type": "default",
    "transformer_layers_per_block": 1,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    **dict.fromkeys(("mid_block_only_cross_attention", "cross_attention_norm", "num_attention_heads")),  # None
    **dict.fromkeys(("reverse_transformer_layers_per_block", "encoder_hid_dim", "encoder_hid_dim_type")),
    **dict.fromkeys(("class_embed_type", "num_class_embeds", "addition_embed_type", "time_embedding_dim")),
    **dict.fromkeys(("time_embedding_act_fn", "timestep_post_act", "time_cond_proj_dim")),
}
# Keys that change nothing: remarks, and settings of what the keys above have switched off.
WITHOUT_EFFECT = {
    "_class_name",
    "_diffusers_version",
    "_name_or_path",
    "force_upcast",
    "addition_time_embed_dim",
    "addition_embed_type_num_heads",
    "class_embeddings_concat",
    "projection_class_embeddings_input_dim",
}
OPTIONAL = {"scaling_factor", "sample_size"}  # missing or null means our default, as in Stable Diffusion 1.5's files
REQUIRED = {"block_out_channels", "layers_per_block", "cross_attention_dim"}  # their defaults in diffusers differ
BLOCK_TYPES = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}

# diffusers' defaults for what a scheduler's config leaves out.
SCHEDULE_DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "set_alpha_to_one": True,
}
LINEAR_BY_DEFAULT = ("DDIM", "DDPM", "PNDM")  # the schedulers whose betas are as above if nothing is said
LEADING_BY_DEFAULT = (*LINEAR_BY_DEFAULT, "LCM", "TCD")  # and those whose spacing is then "leading"
SCHEDULE_FIXED = {"trained_betas": None, "rescale_betas_zero_snr": False, "use_flow_sigmas": False}


def check_parts(folder: Path) -> None:
    """Raise InputError unless `folder` has the parts of Stable Diffusion 1.x, and no other that would run."""
    if not (folder / "model_index.json").is_file():
        raise InputError(f"The folder {folder} is not a model in diffusers' format: it has no model_index.json.")
    index = read_json(folder / "model_index.json")
    stated = {part: value[1] for part, value in index.items() if isinstance(value, list) and len(value) == 2}
    for part, (_, class_name) in PARTS.items():
        if not stated.get(part) or not (folder / part).is_dir():
            raise InputError(f"The folder {folder} has no {part}, so it is not a whole Stable Diffusion 1.x model.")
        if part != "scheduler" and stated[part] not in (class_name, class_name + "Fast"):
            raise InputError(f"The {part} of {folder} is a {stated[part]}; this course builds only {class_name}.")
    for part, class_name in stated.items():
        if class_name and part not in PARTS and part not in OTHER_PARTS:
            raise InputError(
                f"The folder {folder} has a {part} ({class_name}), which Stable Diffusion 1.x does not have."
            )


def read_config(folder: Path, config_class: type[Config]) -> Config:
    """Read the config.json in `folder` into VAEConfig or UNetConfig.

    Raises:
        InputError: for a key that we would have to ignore though it changes the computation, and for a value of the
            wrong kind.
    """
    path = folder / "config.json"
    stated = read_json(path)
    defaults = {field.name: field.default for field in fields(config_class)}
    fixed = VAE_FIXED if config_class is VAEConfig else UNET_FIXED
    for key in sorted(REQUIRED & defaults.keys() - stated.keys()):
        raise InputError(f"The file {path} lacks {key}, without which the model cannot be built.")
    values = {}
    for key, value in stated.items():
        if key in defaults:
            if value is not None or key not in OPTIONAL:
                values[key] = _checked(path, key, value, defaults[key])
        elif key in fixed:
            only = fixed[key]
            if not all(each == only or (not each and not only) for each in _as_list(value)):
                raise unsupported(path, key, value, f"only {json.dumps(only)}")
        elif key not in WITHOUT_EFFECT and value not in (None, False):
            raise unsupported(path, key, value, "no such key is known")
    return config_class(**values)


def _checked(path: Path, key: str, value: Any, default: Any) -> Any:
    """The value, a list as a tuple, if it is of the default's kind."""
    each = _as_list(value)
    if key in BLOCK_TYPES:
        wanted, fits = " and ".join(BLOCK_TYPES[key]), all(name in BLOCK_TYPES[key] for name in each)
    elif isinstance(default, float):
        wanted, fits = "a number above 0", all(type(number) in (int, float) and 0 < number < inf for number in each)
    else:
        wanted, fits = "whole numbers from 1 to 65536", all(type(size) is int and 0 < size <= 2**16 for size in each)
    if not each or not fits or isinstance(value, list) != isinstance(default, tuple):
        listed = "a list of " if isinstance(default, tuple) else ""
        raise unsupported(path, key, value, f"only {listed}{wanted}")
    return tuple(value) if isinstance(value, list) else value


def unsupported(path: Path, key: str, value: Any, supported: str) -> InputError:
    """The error for a setting that a checkpoint states and this course does not build."""
    return InputError(f"In {path}, {key} is {json.dumps(value)}, which this course does not build ({supported}).")


def check_channels(folder: Path, vae: VAEConfig, unet: UNetConfig) -> None:
    """Raise InputError unless the UNet maps the VAE's latents to latents."""
    if (unet.in_channels, unet.out_channels) != (vae.latent_channels, vae.latent_channels):
        raise InputError(
            f"The UNet of {folder} reads {unet.in_channels} channels and writes {unet.out_channels}, where the VAE's "
            f"latents have {vae.latent_channels}; in-painting, depth and upscaling variants are not built here, but "
            "the plain text-to-image model can in-paint, too."
        )


def read_schedule(folder: Path) -> NoiseSchedule:
    """Read the scheduler_config.json in `folder`; what it leaves out is as in diffusers, and depends on its class.

    A warning is given if the class is not DDIM, which our pipelines take unless told otherwise.

    Raises:
        InputError: if it describes no schedule of ours, such as a cosine one.
    """
    path = folder / "scheduler_config.json"
    stated = read_json(path)
    name = str(stated.get("_class_name"))
    defaults = SCHEDULE_DEFAULTS | {"set_alpha_to_one": name != "PNDMScheduler"}
    if name.startswith(LEADING_BY_DEFAULT):
        defaults["timestep_spacing"] = "leading"
    if not name.startswith(LINEAR_BY_DEFAULT) and not {"beta_start", "beta_end", "beta_schedule"} <= stated.keys():
        raise InputError(f"The file {path} is of a {name} and states no betas, of which a schedule here is made.")
    for key, only in SCHEDULE_FIXED.items():
        if stated.get(key) not in (only, None):
            raise unsupported(path, key, stated[key], f"only {json.dumps(only)}")
    try:
        schedule = NoiseSchedule(**{key: stated.get(key, default) for key, default in defaults.items()})
    except (InputError, TypeError) as error:
        raise InputError(f"The file {path} holds no schedule that this course builds ({brief(error)}).") from error
    if name != "DDIMScheduler":
        warnings.warn(
            f"The model asks for {name}; its noise schedule is used, with DDIM's steps unless you choose others.",
            stacklevel=3,
        )
    return schedule


def write_configs(folder: Path, schedule: NoiseSchedule, vae: VAEConfig, unet: UNetConfig) -> None:
    """Write model_index.json and the configs of scheduler, VAE and UNet, complete, below `folder`."""
    version = {"_diffusers_version": "0.30.0"}
    parts = {part: list(names) for part, names in PARTS.items()} | {part: [None, None] for part in OTHER_PARTS}
    index = {"_class_name": "StableDiffusionPipeline", **version, "requires_safety_checker": False}
    write_json(folder / "model_index.json", {**index, **dict(sorted(parts.items()))})

    per_level = {
        key: [VAE_FIXED[key]] * len(vae.block_out_channels) for key in ("down_block_types", "up_block_types")
    }
    plain_schedule = {"clip_sample": False, "rescale_betas_zero_snr": False, "trained_betas": None}
    for path, part, content in (
        ("scheduler/scheduler_config.json", "scheduler", {**plain_schedule, **asdict(schedule)}),
        ("vae/config.json", "vae", {**VAE_FIXED, **per_level, **asdict(vae)}),
        ("unet/config.json", "unet", {**UNET_FIXED, **asdict(unet)}),
    ):
        write_json(folder / path, {"_class_name": PARTS[part][1], **version, **dict(sorted(content.items()))})


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, or InputError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The file {path} cannot be read ({brief(error)}); fetch the model again.") from error
    if not isinstance(content, dict):
        raise InputError(f"The file {path} is not a JSON object; fetch the model again.")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as an indented file, and make its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
