"""The JSON files of a model folder in diffusers' format: what they may say, read and written.

A key that would change the computation and that we do not carry out is an error that names it, never ignored.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, fields
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
OTHER_PARTS = {"feature_extractor", "image_encoder", "safety_checker"}  # may be there; nothing here runs them

# Keys of config.json that would change the computation, with the only value that we carry out (a list may repeat
# it, once per level).
VAE_FIXED: dict[str, Any] = {
    "act_fn": "silu",
    "down_block_types": "DownEncoderBlock2D",
    "up_block_types": "UpDecoderBlock2D",
    "mid_block_add_attention": True,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
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
    "mid_block_only_cross_attention": None,
    "dual_cross_attention": False,
    "use_linear_projection": False,
    "upcast_attention": False,
    "attention_type": "default",
    "cross_attention_norm": None,
    "num_attention_heads": None,
    "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "class_embed_type": None,
    "num_class_embeds": None,
    "addition_embed_type": None,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
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

LARGEST = 2**16  # of any width, so that a broken file is refused before something endless is built

# What diffusers means where a scheduler's config is silent.
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
    """Raise InputError if `folder` is laid out otherwise, or has parts that Stable Diffusion 1.x does not have."""
    if not (folder / "model_index.json").is_file():
        raise InputError(
            f"The folder {folder} is no model in diffusers' format: there is no model_index.json beside unet and vae."
        )
    index = read_json(folder / "model_index.json")
    stated = {part: value[1] for part, value in index.items() if isinstance(value, list) and len(value) == 2}
    for part, (_, class_name) in PARTS.items():
        if not stated.get(part) or not (folder / part).is_dir():
            raise InputError(f"The folder {folder} has no {part}, so it is no whole Stable Diffusion 1.x model.")
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
    listed = value if isinstance(value, list) else []
    if key in BLOCK_TYPES:
        wanted, fits = " and ".join(BLOCK_TYPES[key]), all(each in BLOCK_TYPES[key] for each in listed)
    elif isinstance(default, tuple):
        wanted, fits = (
            f"a list of whole numbers from 1 to {LARGEST}",
            all(map(_is_size, listed)) and len(listed) <= 10,
        )
    elif isinstance(default, int):
        most = 100 if key == "layers_per_block" else LARGEST
        wanted, fits = f"one whole number from 1 to {most}", _is_size(value) and value <= most
    else:
        wanted, fits = "a number above 0, at most 1e6", type(value) in (int, float) and 0 < value <= 1e6
    if not fits or (isinstance(default, tuple) and not listed):
        raise unsupported(path, key, value, f"only {wanted}")
    return tuple(listed) if listed else value


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST


def unsupported(path: Path, key: str, value: Any, supported: str) -> InputError:
    """The error for a setting that a checkpoint states and this course does not build."""
    shown = json.dumps(value)
    shown = shown if len(shown) < 80 else shown[:77] + "..."
    return InputError(f"In {path}, {key} is {shown}, which this course does not build ({supported}).")


def check_sizes(folder: Path, vae: VAEConfig, unet: UNetConfig) -> None:
    """Raise InputError if sizes do not fit together; this is known before any weights are read."""
    latents, levels = vae.latent_channels, len(unet.block_out_channels)
    if (vae.in_channels, vae.out_channels) != (3, 3):
        raise InputError(f"The VAE of {folder} is not for pictures of 3 channels; this course builds no other.")
    if (unet.in_channels, unet.out_channels) != (latents, latents):
        raise InputError(
            f"The UNet of {folder} reads {unet.in_channels} channels and writes {unet.out_channels}, where the VAE's "
            f"latents have {latents}; in-painting, depth and upscaling variants are not built here, but the plain "
            "text-to-image model can in-paint too."
        )
    if (len(unet.down_block_types), len(unet.up_block_types)) != (levels, levels):
        raise InputError(
            f"The file {folder / 'unet' / 'config.json'} needs {levels} block types down and up, one per level."
        )
    cuts = [("vae", vae.block_out_channels, "norm_num_groups", vae.norm_num_groups)]
    cuts += [
        ("unet", unet.block_out_channels, key, getattr(unet, key))
        for key in ("norm_num_groups", "attention_head_dim")
    ]
    for part, widths, key, pieces in cuts:
        for width in widths:
            if width % pieces:
                raise InputError(
                    f"In {folder / part / 'config.json'}, {width} channels cannot be cut into {key} = {pieces} parts."
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
    defaults = dict(SCHEDULE_DEFAULTS)
    if name.startswith(LEADING_BY_DEFAULT):
        defaults["timestep_spacing"] = "leading"
    if not name.startswith(LINEAR_BY_DEFAULT) and not {"beta_start", "beta_end", "beta_schedule"} <= stated.keys():
        raise InputError(
            f"The file {path} is of a {name} and states no betas; this course needs a schedule of betas."
        )
    if name == "PNDMScheduler":
        defaults["set_alpha_to_one"] = False
    for key, only in SCHEDULE_FIXED.items():
        if stated.get(key) not in (only, None):
            raise unsupported(path, key, stated[key], f"only {json.dumps(only)}")
    values = {key: stated.get(key, default) for key, default in defaults.items()}
    for key, value in values.items():
        kind = type(defaults[key])
        if type(value) not in ((float, int) if kind is float else (kind,)):
            raise unsupported(path, key, value, f"only a value of type {kind.__name__}")
    try:
        schedule = NoiseSchedule(**values)
    except InputError as error:
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
    except OSError as error:
        raise InputError(f"The file {path} is missing or cannot be read; fetch the model again.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"The file {path} is not valid JSON ({brief(error)}); fetch the model again.") from error
    if not isinstance(content, dict):
        raise InputError(f"The file {path} is not a JSON object; fetch the model again.")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """An object as an indented file, its folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
