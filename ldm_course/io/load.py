"""A Stable Diffusion folder in diffusers' format, or its id on the Hugging Face hub, to our modules.

Attribute names are the checkpoint's keys, so weights need no mapping table.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ldm_course.errors import InputError, brief, is_memory_error, memory_error_in_a_sentence
from ldm_course.io.configs import check_parts, check_sizes, read_config, read_json, read_schedule, unsupported
from ldm_course.io.hub import locate
from ldm_course.io.weights import fill, read_weights, renamed
from ldm_course.model import LatentDiffusion
from ldm_course.unet import UNet, UNetConfig
from ldm_course.vae import AutoencoderKL, VAEConfig

if TYPE_CHECKING:  # imported where they are used, so that `import ldm_course` stays quick
    from transformers import CLIPTextModel, CLIPTokenizer

COMPILERS = ("g++", "clang++", "cl")


def load(
    source: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    offload: bool = False,
    compile: bool = False,
) -> LatentDiffusion:
    """Load a Stable Diffusion 1.x model, its modules in evaluation mode and without gradients.

    Of the scheduler only the noise schedule is read, as the file states it (diffusers' pipeline replaces a
    `steps_offset` other than 1 by 1).

    Args:
        source: a folder in diffusers' format, or an id on the Hugging Face hub, "owner/name", from which only the
            needed files are fetched. None is the model that ships with the package.
        device: where the modules go; None is the CPU.
        dtype: of the weights; None is torch.float32. For torch.float16, `*.fp16.safetensors` are preferred.
        revision: a branch, tag or commit on the hub.
        offload: keep the text encoder and the VAE on the CPU, and bring each to the device only while it works: for
            a GPU with little memory.
        compile: let torch compile the UNet. The first picture of each size and number then takes 20 to 40 seconds
            more (minutes with a large model), the next ones less; see docs/performance.md. On a CPU it needs a C++
            compiler, and takes the weights for constants: later changes to them do nothing.

    Raises:
        InputError: if there is no such model, if its files are broken, or if it needs what this course does not
            build.
        MemoryError: if it does not fit.
    """
    device, dtype = _checked_device(device), _checked_dtype(dtype)
    if compile and device.type == "cpu":
        _check_compiler()
    half = dtype == torch.float16
    folder = locate(source, revision, half)

    check_parts(folder)
    vae_config = read_config(folder / "vae", VAEConfig)
    unet_config = read_config(folder / "unet", UNetConfig)
    check_sizes(folder, vae_config, unet_config)
    schedule = read_schedule(folder / "scheduler")
    tokenizer = _read_tokenizer(folder / "tokenizer")
    with memory_error_in_a_sentence():
        text_encoder = _read_text_encoder(folder / "text_encoder", half)
        _check_text(folder, tokenizer, text_encoder, unet_config)
        with torch.device("meta"):  # shapes only, so that no weight is drawn at random only to be replaced
            vae, unet = AutoencoderKL(vae_config), UNet(unet_config)
        tensors, source_file = read_weights(folder / "vae", half)
        fill(vae, dict(renamed(name, tensor) for name, tensor in tensors.items()), source_file)
        fill(unet, *read_weights(folder / "unet", half))

        modules: tuple[nn.Module, ...] = (vae, unet, text_encoder)
        for module in modules:
            waits = offload and module is not unet
            module.to(device="cpu" if waits else device, dtype=dtype).eval().requires_grad_(False)
        if compile:
            _compile(unet, device)
        model = LatentDiffusion(vae, unet, text_encoder, tokenizer, schedule, _read_known_words(folder), offload)
        try:
            model.embed([""])
        except Exception as error:  # of many kinds: transformers builds what its configs say, and fails when it runs
            if is_memory_error(error):
                raise
            raise InputError(
                f"The text encoder of {folder} cannot read a text ({brief(error)}); fetch the model again."
            ) from error
    return model


def _check_compiler() -> None:
    if not any(map(shutil.which, COMPILERS)):
        raise InputError("There is no C++ compiler for compile=True; install g++ or clang, or leave compile out.")
    if " " in torch.__file__:
        raise InputError(
            f"torch lies in a folder with a space in its name ({Path(torch.__file__).parent}), where it cannot "
            "compile; install it elsewhere, or leave compile out."
        )


def _compile(unet: UNet, device: torch.device) -> None:
    """Have torch compile the UNet at its first call with each size."""
    if device.type == "cpu":
        from torch._inductor import config

        config.freezing = (
            True  # lay weights out for the kernels once, not at every call; holds for all of this process
        )
    unet.compile(dynamic=False)


def _checked_device(device: str | torch.device | None) -> torch.device:
    device = "cpu" if device is None else device
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise InputError(f"The device {device!r} cannot be used here ({brief(error)}); try 'cpu'.") from error


def _checked_dtype(dtype: torch.dtype | None) -> torch.dtype:
    dtype = torch.float32 if dtype is None else dtype
    if dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise InputError(f"The dtype must be torch.float32, float16, bfloat16 or float64, not {dtype!r}.")
    return dtype


def _read_tokenizer(folder: Path) -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    has = {path.name for path in folder.iterdir()}
    if not {"vocab.json", "merges.txt"} <= has and "tokenizer.json" not in has:  # it would be made up, with 3 tokens
        raise InputError(f"The folder {folder} has no vocab.json and merges.txt; fetch the model again.")
    try:
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # of many kinds, a bare Exception from tokenizers among them
        raise InputError(
            f"The folder {folder} holds no tokenizer that transformers can read ({brief(error)})."
        ) from error


def _read_text_encoder(folder: Path, half: bool) -> CLIPTextModel:
    """transformers' module, filled by us: its own way only warns of a missing tensor, and draws one at random."""
    from transformers import CLIPTextConfig, CLIPTextModel

    path = folder / "config.json"
    stated = read_json(path)
    if stated.get("model_type") != "clip_text_model":
        raise unsupported(path, "model_type", stated.get("model_type"), 'only "clip_text_model"')
    layers = stated.get("num_hidden_layers", 12)
    if type(layers) is not int or not 1 <= layers <= 100:
        raise unsupported(path, "num_hidden_layers", layers, "only one whole number from 1 to 100")
    try:
        config = CLIPTextConfig.from_dict(stated)
        with torch.device("meta"):
            text_encoder = CLIPTextModel(config)
    except Exception as error:  # of many kinds again
        raise InputError(f"The file {path} describes no text encoder of transformers ({brief(error)}).") from error

    # The names' first part, "text_model.", is gone in transformers 5. Older files hold the positions 0 ... 76 too.
    prefix = "text_model." if hasattr(text_encoder, "text_model") else ""
    tensors, source = read_weights(folder, half)
    tensors = {prefix + name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    tensors.pop(f"{prefix}embeddings.position_ids", None)
    fill(text_encoder, tensors, source)
    embeddings = text_encoder.get_submodule(f"{prefix}embeddings")
    embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]  # (1, 77), still on the meta device
    return text_encoder


def _check_text(folder: Path, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, unet: UNetConfig) -> None:
    config, numbers = text_encoder.config, tokenizer.get_vocab().values()
    if not all(type(number) is int for number in numbers):  # transformers 5 sees to it, 4 does not
        raise InputError(f"The tokenizer of {folder} has tokens without a number; fetch the model again.")
    tokens = 1 + max(numbers)
    if config.hidden_size != unet.cross_attention_dim:
        raise InputError(
            f"The model {folder} does not fit together: its text encoder writes vectors of "
            f"{config.hidden_size} numbers and its UNet reads {unet.cross_attention_dim}."
        )
    if tokens > config.vocab_size:
        raise InputError(
            f"The model {folder} does not fit together: its tokenizer has {tokens} tokens and its text encoder knows "
            f"{config.vocab_size}."
        )
    length = tokenizer.model_max_length  # a huge number, if unstated
    if not isinstance(length, (int, float)) or not 3 <= length:
        raise InputError(f"The tokenizer of {folder} states a model_max_length of {length!r}, which fits no text.")
    tokenizer.model_max_length = int(min(length, config.max_position_embeddings))  # 77


def _read_known_words(folder: Path) -> frozenset[str] | None:
    """The optional tokenizer/known_words.txt, one word a line."""
    path = folder / "tokenizer" / "known_words.txt"
    try:
        return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else None
    except UnicodeDecodeError as error:
        raise InputError(f"The file {path} is not text in UTF-8 ({brief(error)}); remove it, or mend it.") from error
