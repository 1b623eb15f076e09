"""A model as a folder that `load` and diffusers' StableDiffusionPipeline read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ldm_course.errors import InputError
from ldm_course.io.atomic import whole_folder
from ldm_course.io.configs import write_configs, write_json
from ldm_course.io.load import DTYPES, read_tokenizer
from ldm_course.io.weights import STEMS
from ldm_course.model import LatentDiffusion, check_model
from ldm_course.unet import UNet
from ldm_course.vae import AutoencoderKL

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


def save(model: LatentDiffusion, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write the model as a folder that `load` and diffusers' StableDiffusionPipeline read.

    It is written beside its place and then moved there, so that nobody finds half a model. It replaces a model that
    is there already; other files in that folder, such as a model card, are kept.

    Args:
        folder: a new or an empty folder, or that of a model.
        dtype: of the weights: torch.float32, float16, bfloat16 or float64. None keeps the model's.

    Raises:
        InputError: if the UNet or the VAE is not this course's, the tokenizer does not fit CLIP's files, the folder
            cannot be there, or a weight is not finite in that dtype.
    """
    check_model(model)
    folder = Path(os.path.realpath(os.path.expanduser(folder)))
    if not isinstance(model.unet, UNet) or not isinstance(model.vae, AutoencoderKL):
        raise InputError(
            "Only this course's own UNet and AutoencoderKL can be saved; save your module's weights yourself."
        )
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"Weights are saved as torch.float32, float16, bfloat16 or float64, not as {dtype!r}.")
    if not folder.parent.is_dir():
        raise InputError(f"There is no folder {folder.parent} to put {folder.name} in; make it first.")
    is_new = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_new and not (folder / "model_index.json").is_file():
        raise InputError(f"The folder {folder} exists and is not a model; save to a new or an empty folder.")

    with whole_folder(folder) as new:
        _write(model, new, dtype)
        for path in folder.iterdir() if folder.exists() else ():
            if not (new / path.name).exists():
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, new / path.name)


def _write(model: LatentDiffusion, folder: Path, dtype: torch.dtype | None) -> None:
    write_configs(folder, model.schedule, model.vae.config, model.unet.config)
    write_json(folder / "text_encoder" / "config.json", _text_encoder_config(model))
    _write_tokenizer(model, folder / "tokenizer")
    text_tensors = {  # names as all versions of transformers read them; 4 does not find those of 5
        "text_model." + name.removeprefix("text_model."): tensor
        for name, tensor in model.text_encoder.state_dict().items()
    }
    _write_weights(folder / "text_encoder", text_tensors, dtype)
    _write_weights(folder / "unet", model.unet.state_dict(), dtype)
    _write_weights(folder / "vae", model.vae.state_dict(), dtype)


def _write_weights(folder: Path, tensors: dict[str, Tensor], dtype: torch.dtype | None) -> None:
    tensors = {
        name: tensor.detach().to("cpu", dtype or tensor.dtype).contiguous() for name, tensor in tensors.items()
    }
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InputError(
                f"Nothing was saved, because {name} of the {folder.name} has values that are not finite in "
                f"{tensor.dtype}; go back to an earlier state, or try torch.float32."
            )
    path = folder / f"{STEMS[folder.name]}.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", path)  # safetensors' own mode lets nobody else read it


def _text_encoder_config(model: LatentDiffusion) -> dict[str, Any]:
    kept = (
        "attention_dropout", "hidden_act", "hidden_size", "initializer_factor", "initializer_range",
        "intermediate_size", "layer_norm_eps", "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
        "projection_dim", "vocab_size",
    )  # fmt: skip
    tokens = ("bos_token_id", "eos_token_id", "pad_token_id")  # transformers' defaults fit only the large vocabulary
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "dtype": "float32",  # also above fp16 weights, or transformers 5 runs in half what diffusers runs in float
        **{key: getattr(model.text_encoder.config, key) for key in kept},
        **{key: getattr(model.tokenizer, key) for key in tokens},
    }


def _write_tokenizer(model: LatentDiffusion, folder: Path) -> None:
    """CLIP's own files, which all versions of transformers read; 5 by itself writes tokenizer.json alone."""
    tokenizer = model.tokenizer
    special = {key: str(getattr(tokenizer, key)) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    settings = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace"}
    length = {"model_max_length": tokenizer.model_max_length, "tokenizer_class": "CLIPTokenizer"}
    added = {number: token.__getstate__() for number, token in tokenizer.added_tokens_decoder.items()}
    if any(token["content"] not in special.values() for token in added.values()):  # such as textual inversion's
        settings["added_tokens_decoder"] = {str(number): token for number, token in added.items()}
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", {**settings, **length, **special})
    write_vocabulary(tokenizer, folder)
    if model.known_words is not None:
        words = "".join(f"{word}\n" for word in sorted(model.known_words))
        (folder / "known_words.txt").write_text(words, encoding="utf-8")

    again = read_tokenizer(folder)
    text = "A Dog's naïve  café, 42!" + "".join(token["content"] for token in added.values())
    if again.get_vocab() != tokenizer.get_vocab() or again(text).input_ids != tokenizer(text).input_ids:
        raise InputError(
            "Nothing was saved, because the tokenizer would split texts in another way after loading; only CLIP's "
            "vocabulary, merges, special and added tokens can be saved."
        )


def write_vocabulary(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """vocab.json and merges.txt."""
    if hasattr(tokenizer, "backend_tokenizer"):
        tokenizer.backend_tokenizer.model.save(str(folder))
    else:  # transformers 4
        tokenizer.save_vocabulary(str(folder))
