"""A Stable Diffusion folder in diffusers' format, or its id on the Hugging Face hub, to our modules.

Attribute names are the checkpoint's keys, so weights need no mapping table.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ldm_course.errors import InputError, brief, is_memory_error, memory_error_in_a_sentence
from ldm_course.io.configs import check_channels, check_parts, read_config, read_json, read_schedule, unsupported
from ldm_course.io.hub import fetch_weights, locate
from ldm_course.io.weights import fill, read_weights, renamed
from ldm_course.model import LatentDiffusion
from ldm_course.unet import UNet, UNetConfig
from ldm_course.vae import AutoencoderKL, VAEConfig

if TYPE_CHECKING:  # imported where they are used, so that `import ldm_course` stays quick
    from transformers import CLIPTextModel, CLIPTokenizer

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
COMPILED_SIZES = 64  # that the compiled UNet may have; torch's own limit is 8, and then it runs uncompiled


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
        device: where the modules go. None takes CUDA, or else MPS, or else the CPU; one line on stderr names the GPU
            that was taken.
        dtype: of the weights; None is torch.float32. For torch.float16, `*.fp16.safetensors` are preferred.
        revision: a branch, tag or commit on the hub.
        offload: keep the text encoder and the VAE on the CPU, and move each to the device only while it runs: for a
            GPU with little memory.
        compile: let torch compile the UNet. The first image of each size and number then takes 20 to 40 seconds
            more (minutes with a large model), the next ones less; see docs/performance.md. On a CPU it needs a C++
            compiler, and treats the weights as constants: later changes to them have no effect.

    Raises:
        InputError: if there is no such model or device, if the files are broken, or if the model needs what this
            course does not build.
        MemoryError: if it does not fit.
    """
    dtype = torch.float32 if dtype is None else dtype
    if dtype not in DTYPES:
        raise InputError(f"The dtype must be torch.float32, float16, bfloat16 or float64, not {dtype!r}.")
    device = _usable_device(device, dtype)
    folder, hub_id = locate(source, revision)

    check_parts(folder)
    vae_config = read_config(folder / "vae", VAEConfig)
    unet_config = read_config(folder / "unet", UNetConfig)
    check_channels(folder, vae_config, unet_config)
    schedule = read_schedule(folder / "scheduler")
    tokenizer = read_tokenizer(folder / "tokenizer")
    with torch.device("meta"):  # shapes only, so that no weight is drawn at random only to be replaced
        vae, unet = AutoencoderKL(vae_config), UNet(unet_config)
        text_encoder = _build_text_encoder(folder / "text_encoder")
    _check_text(folder, tokenizer, text_encoder, unet)

    half = dtype == torch.float16
    if hub_id:
        fetch_weights(hub_id, folder, half)
    with memory_error_in_a_sentence():
        _fill_text_encoder(text_encoder, read_weights(folder / "text_encoder", half), folder / "text_encoder")
        fill(vae, dict(renamed(*item) for item in read_weights(folder / "vae", half).items()), folder / "vae")
        fill(unet, read_weights(folder / "unet", half), folder / "unet")
        modules: tuple[nn.Module, ...] = (vae, unet, text_encoder)
        for module in modules:
            waits = offload and module is not unet
            module.to("cpu" if waits else device, dtype).eval().requires_grad_(False)
    if compile:
        compile_unet(unet)
    return LatentDiffusion(vae, unet, text_encoder, tokenizer, schedule, _read_known_words(folder), offload)


def _usable_device(device: str | torch.device | None, dtype: torch.dtype) -> torch.device:
    """The device with its index, after a computation on it; without one, a GPU if there is one."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        if device != "cpu":
            print(f'The model runs on the GPU ("{device}"); load it with device="cpu" for the CPU.', file=sys.stderr)
    try:
        one = torch.ones(1, device=device, dtype=dtype)
        (one + one).item()
    except Exception as error:  # each kind of device has its own
        if is_memory_error(error):
            raise
        raise InputError(
            f"The device {device!r} cannot compute in {dtype} here ({brief(error)}); try 'cpu'."
        ) from error
    return one.device


def compile_unet(unet: UNet) -> None:
    """Have torch compile the UNet at its first call with each size.

    On a CPU, inductor's `freezing` lays the weights out for the kernels once and not at every call. torch ignores it
    among the options of one compiled module, so it is set while this module runs, and not for the whole process.
    """
    from torch._dynamo import config as dynamo
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import config as inductor

    unet.compile(dynamic=False)
    compiled, freezing = unet._compiled_call_impl, next(unet.parameters()).device.type == "cpu"
    assert compiled is not None

    def call(*args: Any, **kwargs: Any) -> Tensor:
        try:
            with dynamo.patch(recompile_limit=COMPILED_SIZES), inductor.patch(freezing=freezing):
                return compiled(*args, **kwargs)
        except TorchDynamoException as error:
            raise InputError(f"torch cannot compile here ({brief(error)}); load without compile=True.") from error

    unet._compiled_call_impl = call


def read_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer from its own files or from tokenizer.json."""
    from transformers import CLIPTokenizer

    has = {path.name for path in folder.iterdir()}
    if not {"vocab.json", "merges.txt"} <= has and "tokenizer.json" not in has:  # it would be made up, with 3 tokens
        raise InputError(f"The folder {folder} has no vocab.json and merges.txt; fetch the model again.")
    try:
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # of many kinds, a bare Exception from tokenizers among them
        raise InputError(f"transformers cannot read the tokenizer in {folder} ({brief(error)}).") from error


def _build_text_encoder(folder: Path) -> CLIPTextModel:
    from transformers import CLIPTextConfig, CLIPTextModel

    path = folder / "config.json"
    stated = read_json(path)
    if stated.get("model_type") != "clip_text_model":
        raise unsupported(path, "model_type", stated.get("model_type"), 'only "clip_text_model"')
    try:
        return CLIPTextModel(CLIPTextConfig.from_dict(stated))
    except Exception as error:  # of many kinds again
        raise InputError(f"transformers cannot build what {path} describes ({brief(error)}).") from error


def _check_text(folder: Path, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, unet: UNet) -> None:
    """Raise InputError unless the three fit together; cut texts at the encoder's length."""
    config, tokens = text_encoder.config, 1 + max(tokenizer.get_vocab().values())
    if config.hidden_size != unet.config.cross_attention_dim:
        raise InputError(
            f"The model {folder} does not fit together: its text encoder writes vectors of "
            f"{config.hidden_size} numbers and its UNet reads {unet.config.cross_attention_dim}."
        )
    if tokens > config.vocab_size:
        raise InputError(
            f"The model {folder} does not fit together: its tokenizer has {tokens} tokens and its text encoder knows "
            f"{config.vocab_size}."
        )
    length = min(tokenizer.model_max_length, config.max_position_embeddings)  # the tokenizer's is huge if unstated
    tokenizer.model_max_length = int(length)  # 77


def _fill_text_encoder(text_encoder: CLIPTextModel, tensors: dict[str, Tensor], folder: Path) -> None:
    """Fill transformers' module: its own way only warns of a missing tensor, and draws it at random."""
    # The names' first part, "text_model.", is gone in transformers 5. Older files hold the positions 0 ... 76, too.
    prefix = "text_model." if hasattr(text_encoder, "text_model") else ""
    tensors = {prefix + name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    tensors.pop(f"{prefix}embeddings.position_ids", None)
    fill(text_encoder, tensors, folder)
    positions = torch.arange(text_encoder.config.max_position_embeddings, dtype=torch.int64, device="cpu")
    text_encoder.get_submodule(f"{prefix}embeddings").position_ids = positions[None]  # (1, 77), no longer meta


def _read_known_words(folder: Path) -> frozenset[str] | None:
    """The optional tokenizer/known_words.txt, one word a line."""
    path = folder / "tokenizer" / "known_words.txt"
    return frozenset(path.read_text(encoding="utf-8").split()) if path.is_file() else None
