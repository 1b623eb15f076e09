"""A Stable Diffusion folder in diffusers' format, or its id on the Hugging Face hub, to our modules and back.

Attribute names are the checkpoint's keys, so weights need no mapping table. What does need care is everything
around them: a config key that would change the computation and that we do not carry out is an error, never
ignored; weights are safetensors only, because opening a pickle can run code; and a tensor too many, too few or
of another shape is an error, where a mere warning would leave random weights in the model.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ldm_course.errors import InputError
from ldm_course.schedulers import NoiseSchedule
from ldm_course.unet import UNet, UNetConfig
from ldm_course.vae import AutoencoderKL, VAEConfig

if TYPE_CHECKING:  # imported where they are used, so that `import ldm_course` stays quick
    from transformers import CLIPTextModel, CLIPTokenizer

Config = TypeVar("Config", VAEConfig, UNetConfig)
Module = TypeVar("Module", bound=nn.Module)

# Folders of a model: the class that we carry out, as model_index.json names it. Of any scheduler only the schedule
# is read.
PARTS = {
    "scheduler": None,
    "text_encoder": "CLIPTextModel",
    "tokenizer": "CLIPTokenizer",
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
}
OTHER_PARTS = {"feature_extractor", "image_encoder", "safety_checker"}  # never run here; they don't change a picture
WEIGHTS = {"text_encoder": "model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}  # file stems

# Keys of diffusers' config.json that would change the computation, with the only value that we carry out (a list
# may repeat it per level). `save` writes them all.
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
OPTIONAL = {"scaling_factor", "sample_size"}  # missing or null: our default, as Stable Diffusion 1.5 has them
REQUIRED = {"block_out_channels", "layers_per_block", "cross_attention_dim"}  # diffusers' defaults are not ours
BLOCK_TYPES = {
    "down_block_types": {"CrossAttnDownBlock2D", "DownBlock2D"},
    "up_block_types": {"CrossAttnUpBlock2D", "UpBlock2D"},
}

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
LEADING_BY_DEFAULT = ("DDIM", "DDPM", "PNDM", "LCM", "TCD")  # the schedulers whose default spacing is "leading"
SCHEDULE_FIXED = {"trained_betas": None, "rescale_betas_zero_snr": False, "use_flow_sigmas": False}

OLD_VAE_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # before diffusers 0.18


@dataclass(frozen=True)
class LatentDiffusion:
    """All parts of a text-to-image model.

    vae, unet: our modules.
    text_encoder, tokenizer: transformers' CLIPTextModel and CLIPTokenizer.
    schedule: how noise grows over the timesteps.
    known_words: every word of the training captions, if they were few; None if there is no such list.
    """

    vae: AutoencoderKL
    unet: UNet
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    schedule: NoiseSchedule
    known_words: frozenset[str] | None = None

    @property
    def device(self) -> torch.device:
        return self.unet.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.conv_in.weight.dtype


def bundled_path() -> Path:
    """The folder of the model that ships with the package, in diffusers' format."""
    return Path(__file__).parent / "pretrained"


def load(
    source: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
) -> LatentDiffusion:
    """Load a Stable Diffusion 1.x model, its modules in evaluation mode and without gradients.

    Args:
        source: a folder in diffusers' format, or an id on the Hugging Face hub, "owner/name", from which only the
            needed files are fetched. None is the model that ships with the package.
        device: where the modules go; None is the CPU.
        dtype: of the weights; None is torch.float32. For torch.float16, `*.fp16.safetensors` are preferred.
        revision: a branch, tag or commit on the hub.

    Of the scheduler only the schedule is read, as it stands in the file. (diffusers' pipeline replaces a
    `steps_offset` other than 1 by 1.)

    Raises:
        InputError: if there is no such model, if its files are broken, or if it needs what this course does not
            build.
    """
    device, dtype = _checked_device(device), _checked_dtype(dtype)
    half = dtype == torch.float16
    folder = _locate(source, revision, half)

    _check_parts(folder)
    vae_config = read_config(folder / "vae", VAEConfig, VAE_FIXED)
    unet_config = read_config(folder / "unet", UNetConfig, UNET_FIXED)
    _check_sizes(folder, vae_config, unet_config)
    schedule = read_schedule(folder / "scheduler")
    tokenizer = _read_tokenizer(folder / "tokenizer")

    text_encoder = _read_text_encoder(folder / "text_encoder", half)
    vae = _build(lambda: AutoencoderKL(vae_config), *read_weights(folder / "vae", half))
    unet = _build(lambda: UNet(unet_config), *read_weights(folder / "unet", half))
    _check_text(folder, tokenizer, text_encoder, unet_config)
    tokenizer.model_max_length = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)

    modules: tuple[nn.Module, ...] = (vae, unet, text_encoder)
    for module in modules:
        module.to(device=device, dtype=dtype).eval().requires_grad_(False)
    return LatentDiffusion(vae, unet, text_encoder, tokenizer, schedule, _read_known_words(folder))


# ---- where a model is ------------------------------------------------------------------------------------------


def _checked_device(device: str | torch.device | None) -> torch.device:
    device = "cpu" if device is None else device
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise InputError(f"The device {device!r} cannot be used here ({_brief(error)}); try 'cpu'.") from error


def _checked_dtype(dtype: torch.dtype | None) -> torch.dtype:
    dtype = torch.float32 if dtype is None else dtype
    if dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise InputError(f"dtype must be torch.float32, float16, bfloat16 or float64, not {dtype!r}.")
    return dtype


def _locate(source: str | Path | None, revision: str | None, half: bool) -> Path:
    """The model's folder on this machine, fetched from the hub if `source` is an id there."""
    if source is None:
        source = bundled_path()
        if not source.is_dir():
            raise InputError(
                f"The model that ships with the package is missing from {source}; install the package again, or "
                "pass a folder or a hub id."
            )
    if not isinstance(source, (str, Path)):
        raise InputError(f"A model is named by a folder or a hub id such as 'owner/name', not by {source!r}.")
    folder = Path(source).expanduser()
    if isinstance(source, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) and not folder.exists():
        return _fetch(source, revision, half)
    if not str(source).strip() or not folder.exists():
        raise InputError(
            f"There is no folder {str(source)!r}; pass one that exists, or a hub id such as 'owner/name'."
        )
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; pass a folder in diffusers' format, the one with model_index.json.")
    if revision is not None:
        raise InputError(f"revision {revision!r} is for models on the hub; leave it out for the folder {folder}.")
    return folder


def _fetch(hub_id: str, revision: str | None, half: bool) -> Path:
    """Bring a hub repository's needed files into huggingface_hub's cache; returns the folder they are in.

    First configs and tokenizer; then, of each part's weights, the preferred variant or else the other one.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub import utils as hub

    small = ["model_index.json", "scheduler/*.json", "tokenizer/*.json", "tokenizer/*.txt"]
    small += [f"{part}/config.json" for part in WEIGHTS]
    name = repr(hub_id) + ("" if revision is None else f" at revision {revision!r}")
    unreachable: Exception | None = None
    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=small))
        if re.fullmatch("[0-9a-f]{40}", folder.name):
            revision = folder.name  # so that all files are of one commit
        lacking = list(WEIGHTS) if (folder / "model_index.json").is_file() else []
        for variant in _variants(half):
            try:
                patterns = [pattern for part in lacking for pattern in _weight_patterns(part, variant)]
                if patterns:
                    snapshot_download(hub_id, revision=revision, allow_patterns=patterns)
            except hub.LocalEntryNotFoundError as error:  # offline; the other variant may be in the cache
                unreachable = error
            lacking = [part for part in lacking if not _weight_files(folder / part, variant)[0]]
        if lacking and unreachable:
            raise unreachable
    except hub.GatedRepoError as error:
        raise InputError(
            f"{hub_id!r} is restricted: accept its terms on its page of the Hugging Face hub, then log in with "
            "`hf auth login`."
        ) from error
    except hub.RevisionNotFoundError as error:
        raise InputError(f"{hub_id!r} has no revision {revision!r}; see its branches and tags on the hub.") from error
    except hub.RepositoryNotFoundError as error:
        raise InputError(
            f"There is no folder and no public hub repository {hub_id!r}; check the spelling, or log in with "
            "`hf auth login` if it is private."
        ) from error
    except hub.LocalEntryNotFoundError as error:
        raise InputError(
            f"{name} is not complete on this machine and the Hugging Face hub cannot be reached; connect to the "
            "internet, unset HF_HUB_OFFLINE if it is set, or pass a folder."
        ) from error
    except InputError:
        raise
    except Exception as error:  # of the network library, which differs between versions; or a full disk
        raise InputError(f"{name} could not be fetched from the Hugging Face hub ({_brief(error)}).") from error
    return folder


# ---- configs ---------------------------------------------------------------------------------------------------


def _check_parts(folder: Path) -> None:
    """Refuse folders of another layout, and pipelines with other parts than Stable Diffusion 1.x's."""
    if not (folder / "model_index.json").is_file():
        raise InputError(
            f"{folder} is not a model in diffusers' format: it has no model_index.json beside folders like unet/."
        )
    index = _read_json(folder / "model_index.json")
    stated = {part: value[1] for part, value in index.items() if isinstance(value, list) and len(value) == 2}
    for part, expected in PARTS.items():
        if not stated.get(part) or not (folder / part).is_dir():
            raise InputError(f"{folder} has no {part}, so it is not a whole Stable Diffusion 1.x model.")
        if expected and stated[part] not in (expected, expected + "Fast"):
            raise InputError(f"The {part} of {folder} is a {stated[part]}; this course builds only {expected}.")
    for part, name in stated.items():
        if name and part not in PARTS and part not in OTHER_PARTS:
            raise InputError(f"{folder} has a {part} ({name}), which Stable Diffusion 1.x does not have.")


def read_config(folder: Path, config_class: type[Config], fixed: dict[str, Any]) -> Config:
    """Read config.json in `folder` into VAEConfig or UNetConfig.

    Args:
        fixed: VAE_FIXED or UNET_FIXED, the keys that may have one value only.

    Raises:
        InputError: for a key that we would have to ignore although it changes the computation, and for a value of
            the wrong kind.
    """
    path = folder / "config.json"
    stated = _read_json(path)
    defaults = {field.name: field.default for field in fields(config_class)}
    for key in sorted(REQUIRED & defaults.keys() - stated.keys()):
        raise InputError(f"{path} lacks {key!r}, without which the model cannot be built.")
    values = {}
    for key, value in stated.items():
        if key in defaults:
            if value is not None or key not in OPTIONAL:
                values[key] = _checked_value(path, key, value, defaults[key])
        elif key in fixed:
            if not all(each == fixed[key] or (fixed[key] is None and not each) for each in _as_list(value)):
                raise _unsupported(path, key, value, f"only {json.dumps(fixed[key])}")
        elif key not in WITHOUT_EFFECT and value not in (None, False):
            raise _unsupported(path, key, value, "no such key")
    return config_class(**values)


def _checked_value(path: Path, key: str, value: Any, default: Any) -> Any:
    """The value, if it is of the default's kind; lists become tuples."""
    if key in BLOCK_TYPES:
        if isinstance(value, list) and value and all(each in BLOCK_TYPES[key] for each in value):
            return tuple(value)
        raise _unsupported(path, key, value, "only " + " and ".join(sorted(BLOCK_TYPES[key])))
    if isinstance(default, tuple):
        if isinstance(value, list) and value and all(type(each) is int and each > 0 for each in value):
            return tuple(value)
        raise _unsupported(path, key, value, "only a list of positive whole numbers")
    if isinstance(default, int):
        if type(value) is int and value > 0:
            return value
        raise _unsupported(path, key, value, "only one positive whole number")
    if type(value) in (int, float) and 0 < value < math.inf:
        return float(value)
    raise _unsupported(path, key, value, "only a positive number")


def _unsupported(path: Path, key: str, value: Any, supported: str) -> InputError:
    shown = json.dumps(value)
    shown = shown if len(shown) < 80 else shown[:77] + "..."
    return InputError(f"{path} sets {key} to {shown}, which this course does not build ({supported}).")


def _check_sizes(folder: Path, vae: VAEConfig, unet: UNetConfig) -> None:
    """Refuse sizes that do not fit together, before any weights are read."""
    latents, levels = vae.latent_channels, len(unet.block_out_channels)
    if vae.in_channels != 3 or vae.out_channels != 3:
        raise InputError(f"The VAE of {folder} is not for RGB pictures; this course builds no other.")
    if unet.in_channels != latents or unet.out_channels != latents:
        raise InputError(
            f"The UNet of {folder} reads {unet.in_channels} channels and writes {unet.out_channels}, where the VAE's "
            f"latents have {latents}; in-painting, depth and upscaling variants are not built here, but the plain "
            "text-to-image model can in-paint too."
        )
    if len(unet.down_block_types) != levels or len(unet.up_block_types) != levels:
        raise InputError(f"{folder / 'unet' / 'config.json'} needs {levels} block types down and up, one per level.")
    for part, config in (("vae", vae), ("unet", unet)):
        for channels in config.block_out_channels:
            if channels % config.norm_num_groups:
                raise InputError(
                    f"{folder / part / 'config.json'} does not fit together: {channels} channels cannot be cut into "
                    f"norm_num_groups = {config.norm_num_groups}."
                )
    for channels in unet.block_out_channels:
        if channels % unet.attention_head_dim:
            raise InputError(
                f"{folder / 'unet' / 'config.json'} does not fit together: {channels} channels cannot be cut into "
                f"attention_head_dim = {unet.attention_head_dim} heads."
            )


def read_schedule(folder: Path) -> NoiseSchedule:
    """Read scheduler_config.json in `folder`; what it leaves out is as in diffusers, whose defaults differ by class.

    A warning says so if the class is not DDIM, which is what the pipelines use unless told otherwise.

    Raises:
        InputError: if it describes no schedule of ours, such as a cosine one.
    """
    path = folder / "scheduler_config.json"
    stated = _read_json(path)
    name = str(stated.get("_class_name"))
    defaults = dict(SCHEDULE_DEFAULTS)
    if name.startswith(LEADING_BY_DEFAULT):
        defaults["timestep_spacing"] = "leading"
    elif "beta_start" not in stated:
        raise InputError(
            f"{path} is of a {name} and states no betas, so its noise schedule is none of this course's."
        )
    if name == "PNDMScheduler":
        defaults["set_alpha_to_one"] = False
    for key, only in SCHEDULE_FIXED.items():
        if stated.get(key, only) not in (only, None):
            raise _unsupported(path, key, stated[key], f"only {json.dumps(only)}")
    try:
        schedule = NoiseSchedule(**{key: stated.get(key, default) for key, default in defaults.items()})
    except (InputError, TypeError) as error:
        raise InputError(f"{path} holds no schedule that this course builds: {_brief(error)}.") from error
    if name != "DDIMScheduler":
        warnings.warn(
            f"The model asks for {name}; its noise schedule is used, with DDIM's steps unless you choose others.",
            stacklevel=3,
        )
    return schedule


# ---- weights ---------------------------------------------------------------------------------------------------


def _variants(half: bool) -> tuple[str, str]:
    """Which weight files to look for first: those marked fp16, or the plain ones."""
    return (".fp16", "") if half else ("", ".fp16")


def _weight_patterns(part: str, variant: str) -> list[str]:
    """The names that a part's weights can have in a repository."""
    stem = f"{part}/{WEIGHTS[part]}"
    return [
        f"{stem}{variant}.safetensors",
        f"{stem}{variant}-*.safetensors",
        f"{stem}.safetensors.index{variant}.json",
    ]


def _weight_files(folder: Path, variant: str) -> tuple[list[Path], Path | None]:
    """The safetensors files of a part, and the one to name in a message: the only file, or the shards' index."""
    single, _, index = (folder.parent / name for name in _weight_patterns(folder.name, variant))
    if single.is_file():
        return [single], single
    if not index.is_file():
        return [], None
    try:
        shards = sorted(set(_read_json(index)["weight_map"].values()))
        outside = [name for name in shards if Path(name).name != name or "\\" in name]
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{index} does not list the weights' files; fetch the model again.") from error
    if outside:
        raise InputError(
            f"{index} lists {outside[0]!r}, which is not a file name in its folder, so it is not opened."
        )
    for name in shards:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing, though {index.name} lists it; fetch the model again.")
    return [folder / name for name in shards], index


def read_weights(folder: Path, half: bool) -> tuple[dict[str, Tensor], Path]:
    """The tensors of a part's folder by name, and the file to name if they are wrong.

    Raises:
        InputError: if there are no safetensors (pickles are not opened), or they are broken.
    """
    for variant in _variants(half):
        files, source = _weight_files(folder, variant)
        if source is not None:
            break
    else:
        pickles = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".ckpt", ".pt", ".pth"))
        if pickles:
            raise InputError(
                f"{folder} has its weights only as a pickle, {pickles[0]}, which is refused because opening one can "
                "run code; ask for safetensors, or convert the model on a machine that you can lose."
            )
        raise InputError(f"{folder} has no {WEIGHTS[folder.name]}.safetensors; fetch the model again.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{file} is broken or cut short ({_brief(error)}); fetch it again.") from error
    return tensors, source


def _build(make: Callable[[], Module], tensors: dict[str, Tensor], source: Path) -> Module:
    """Make a module and put the tensors in; on the meta device, so that no weight is drawn only to be replaced.

    Raises:
        InputError: unless the tensors are exactly the module's, in name and shape.
    """
    with torch.device("meta"):
        module = make()
    expected = module.state_dict()
    if isinstance(module, AutoencoderKL):
        tensors = dict(_today(name, tensor) for name, tensor in tensors.items())
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    misfits = [
        f"{name} {tuple(tensor.shape)} for {tuple(expected[name].shape)}"
        if tensor.is_floating_point()
        else f"{name} of {tensor.dtype}"
        for name, tensor in tensors.items()
        if name in expected and (tensor.shape != expected[name].shape or not tensor.is_floating_point())
    ]
    findings = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in (("missing", missing), ("unexpected", extra), ("misshapen", misfits))
        if names
    ]
    if findings:
        raise InputError(f"{source} does not fit the config.json beside it; of its tensors {' and '.join(findings)}.")
    module.load_state_dict(tensors, strict=True, assign=True)
    return module


def _today(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """A VAE tensor's name and shape as they are since diffusers 0.18; only those of the attention have changed."""
    block, _, rest = name.rpartition("mid_block.attentions.0.")
    layer, _, kind = rest.rpartition(".")
    if not block or layer == "group_norm":
        return name, tensor
    if tensor.dim() == 4 and tensor.shape[2:] == (1, 1):  # once a 1x1 convolution
        tensor = tensor[:, :, 0, 0]
    return f"{block}mid_block.attentions.0.{OLD_VAE_NAMES.get(layer, layer)}.{kind}", tensor


# ---- the text's parts ------------------------------------------------------------------------------------------


def _read_tokenizer(folder: Path) -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    lists = [("vocab.json", "merges.txt"), ("tokenizer.json",)]
    if not any(all((folder / name).is_file() for name in names) for names in lists):
        raise InputError(f"{folder} has no vocab.json and merges.txt; fetch the model again.")
    try:
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers and tokenizers raise many kinds, bare Exception among them
        raise InputError(f"{folder} holds no tokenizer that transformers can read ({_brief(error)}).") from error


def _read_text_encoder(folder: Path, half: bool) -> CLIPTextModel:
    """transformers' text encoder, filled by us: it would only warn of a missing tensor, and draw one at random."""
    from transformers import CLIPTextConfig, CLIPTextModel

    stated = _read_json(folder / "config.json")
    if stated.get("model_type") != "clip_text_model":
        raise _unsupported(folder / "config.json", "model_type", stated.get("model_type"), 'only "clip_text_model"')
    tensors, source = read_weights(folder, half)
    try:
        config = CLIPTextConfig.from_dict(stated)
        with torch.device("meta"):
            prefixed = next(iter(CLIPTextModel(config).state_dict())).startswith("text_model.")
    except Exception as error:  # as above
        raise InputError(
            f"{folder / 'config.json'} is none that transformers can build ({_brief(error)})."
        ) from error

    # transformers 5 has dropped the names' first part, "text_model."; older files also hold the positions 0 ... 76.
    prefix = "text_model." if prefixed else ""
    tensors = {prefix + name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    tensors.pop(f"{prefix}embeddings.position_ids", None)
    text_encoder = _build(lambda: CLIPTextModel(config), tensors, source)
    embeddings = text_encoder.get_submodule(f"{prefix}embeddings")
    embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]  # (1, 77), the one buffer in no file
    return text_encoder


def _check_text(folder: Path, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, unet: UNetConfig) -> None:
    config, tokens = text_encoder.config, len(tokenizer)
    if config.hidden_size != unet.cross_attention_dim:
        raise InputError(
            f"{folder} does not fit together: its text encoder writes vectors of {config.hidden_size} numbers and "
            f"its UNet reads {unet.cross_attention_dim}."
        )
    if tokens > config.vocab_size:
        raise InputError(
            f"{folder} does not fit together: its tokenizer has {tokens} tokens and its text encoder knows "
            f"{config.vocab_size}."
        )


def _read_known_words(folder: Path) -> frozenset[str] | None:
    """The optional tokenizer/known_words.txt: one word a line."""
    path = folder / "tokenizer" / "known_words.txt"
    return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else None


# ---- saving ----------------------------------------------------------------------------------------------------


def save(model: LatentDiffusion, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the model as a folder that `load` and diffusers' StableDiffusionPipeline read.

    It is written beside its place and then moved there, so that a half-written folder is never found. A model that
    is there already is replaced; other files in its folder, such as a model card, are kept.

    Args:
        dtype: of the weights: torch.float16, bfloat16 or float32.

    Raises:
        InputError: if the folder cannot be there, or a weight is not finite in that dtype.
    """
    folder = Path(folder).expanduser().resolve()
    if dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise InputError(f"Weights are saved as torch.float16, bfloat16 or float32, not as {dtype!r}.")
    if not folder.parent.is_dir():
        raise InputError(f"There is no folder {folder.parent} to put {folder.name} in; make it first.")
    is_model = (folder / "model_index.json").is_file()
    if folder.exists() and not is_model and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not a model; save to a new or an empty folder.")

    new, old = (folder.with_name(f".{folder.name}.{kind}-{os.getpid()}") for kind in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    try:
        _write(model, new, dtype)
        if folder.exists():
            _copy_others(folder, new)
            folder.rename(old)
        new.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _write(model: LatentDiffusion, folder: Path, dtype: torch.dtype) -> None:
    """All files of the model, in a new folder."""
    version = {"_diffusers_version": "0.30.0"}  # the oldest that we claim to be read by
    _write_json(
        folder / "model_index.json",
        {"_class_name": "StableDiffusionPipeline", **version}
        | {part: [None, None] for part in sorted(OTHER_PARTS)}
        | {"requires_safety_checker": False, "scheduler": ["diffusers", "DDIMScheduler"]}
        | {part: ["transformers", PARTS[part]] for part in ("text_encoder", "tokenizer")}
        | {part: ["diffusers", PARTS[part]] for part in ("unet", "vae")},
    )
    _write_json(
        folder / "scheduler" / "scheduler_config.json",
        {"_class_name": "DDIMScheduler", **version, **asdict(model.schedule)}
        | {"clip_sample": False, "trained_betas": None, "rescale_betas_zero_snr": False},
    )
    levels = len(model.vae.config.block_out_channels)
    _write_json(
        folder / "vae" / "config.json",
        {"_class_name": PARTS["vae"], **version, **VAE_FIXED, **asdict(model.vae.config)}
        | {key: [VAE_FIXED[key]] * levels for key in ("down_block_types", "up_block_types")},
    )
    _write_json(
        folder / "unet" / "config.json",
        {"_class_name": PARTS["unet"], **version, **UNET_FIXED, **asdict(model.unet.config)},
    )
    _write_tokenizer(model, folder / "tokenizer")
    _write_json(folder / "text_encoder" / "config.json", _text_encoder_config(model))

    _write_weights(folder / "vae", model.vae.state_dict(), dtype)
    _write_weights(folder / "unet", model.unet.state_dict(), dtype)
    prefixed = {
        "text_model." + name.removeprefix("text_model."): tensor
        for name, tensor in model.text_encoder.state_dict().items()
    }  # as every transformers reads them; version 4 draws random weights for names without the prefix
    _write_weights(folder / "text_encoder", prefixed, dtype)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_weights(folder: Path, tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InputError(
                f"{name} of the {folder.name} has values that are not finite in {dtype}, so it was not saved; train "
                "on from an earlier state, or try torch.float32."
            )
    path = folder / f"{WEIGHTS[folder.name]}.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", path)  # safetensors writes a file that only its owner can read


def _text_encoder_config(model: LatentDiffusion) -> dict[str, Any]:
    config = model.text_encoder.config
    kept = (
        "vocab_size", "max_position_embeddings", "hidden_size", "intermediate_size", "projection_dim", "hidden_act",
        "num_hidden_layers", "num_attention_heads", "layer_norm_eps", "attention_dropout", "initializer_range",
        "initializer_factor",
    )  # fmt: skip
    tokens = ("bos_token_id", "eos_token_id", "pad_token_id")  # transformers' defaults fit the large vocabulary only
    return (
        {"architectures": [PARTS["text_encoder"]], "model_type": "clip_text_model"}
        | {key: getattr(config, key) for key in kept}
        | {key: getattr(model.tokenizer, key) for key in tokens}
        | {
            "dtype": "float32"
        }  # whatever the file's, or transformers 5 runs it in half and diffusers the rest in float
    )


def _write_tokenizer(model: LatentDiffusion, folder: Path) -> None:
    """CLIP's own files, which every version of transformers reads; version 5 by itself writes tokenizer.json."""
    tokenizer = model.tokenizer
    special = {key: str(getattr(tokenizer, key)) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": PARTS["tokenizer"], "model_max_length": tokenizer.model_max_length, **special}
        | {"add_prefix_space": False, "do_lower_case": True, "errors": "replace"},
    )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # transformers 4
        tokenizer.save_vocabulary(str(folder))
    else:
        backend.model.save(str(folder))
    if model.known_words is not None:
        words = "".join(word + "\n" for word in sorted(model.known_words))
        (folder / "known_words.txt").write_text(words, encoding="utf-8")


def _copy_others(source: Path, target: Path) -> None:
    """Copy what lies at the top of `source` and not in `target`."""
    for path in source.iterdir():
        if path.is_dir() and not (target / path.name).exists():
            shutil.copytree(path, target / path.name)
        elif path.is_file() and not (target / path.name).exists():
            shutil.copy2(path, target / path.name)


# ---- small things ----------------------------------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} is missing or cannot be read; fetch the model again.") from error
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({_brief(error)}); fetch the model again.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object; fetch the model again.")
    return content


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _brief(error: Exception) -> str:
    """The first line of an error's message, fit to stand inside a sentence."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}".replace(". ", "; ").rstrip(".: ")
