"""A model as a folder that `load` and diffusers' StableDiffusionPipeline read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ldm_course.errors import InputError
from ldm_course.io.configs import write_configs, write_json
from ldm_course.io.weights import PARTS_WITH_WEIGHTS
from ldm_course.model import LatentDiffusion, check_model


def save(model: LatentDiffusion, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the model as a folder that `load` and diffusers' StableDiffusionPipeline read.

    It is written beside its place and then moved there, so that nobody finds half a model. One that is there
    already is replaced; other files in its folder, such as a model card, are kept.

    Args:
        dtype: of the weights: torch.float16, bfloat16 or float32.

    Raises:
        InputError: if `model` is none, the folder cannot be there, or a weight is not finite in that dtype.
    """
    check_model(model)
    folder = Path(os.path.realpath(os.path.expanduser(folder)))
    if dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise InputError(f"Weights are saved as torch.float16, bfloat16 or float32, not as {dtype!r}.")
    if not folder.parent.is_dir():
        raise InputError(f"There is no folder {folder.parent} to put {folder.name} in; make it first.")
    is_new = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_new and not (folder / "model_index.json").is_file():
        raise InputError(f"The folder {folder} exists and is not a model; save to a new or an empty folder.")

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
    write_configs(folder, model.schedule, model.vae.config, model.unet.config)
    write_json(folder / "text_encoder" / "config.json", _text_encoder_config(model))
    _write_tokenizer(model, folder / "tokenizer")
    text_tensors = {  # names as all versions of transformers read them; 4 takes those of 5 for missing
        "text_model." + name.removeprefix("text_model."): tensor
        for name, tensor in model.text_encoder.state_dict().items()
    }
    _write_weights(folder / "text_encoder", text_tensors, dtype)
    _write_weights(folder / "unet", model.unet.state_dict(), dtype)
    _write_weights(folder / "vae", model.vae.state_dict(), dtype)


def _write_weights(folder: Path, tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InputError(
                f"Nothing was saved, because {name} of the {folder.name} has values that are not finite in {dtype}; "
                "go back to an earlier state, or try torch.float32."
            )
    path = folder / f"{PARTS_WITH_WEIGHTS[folder.name]}.safetensors"
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
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", {**settings, **length, **special})
    if hasattr(tokenizer, "backend_tokenizer"):
        tokenizer.backend_tokenizer.model.save(str(folder))
    else:  # transformers 4
        tokenizer.save_vocabulary(str(folder))
    if model.known_words is not None:
        words = "".join(f"{word}\n" for word in sorted(model.known_words))
        (folder / "known_words.txt").write_text(words, encoding="utf-8")


def _copy_others(source: Path, target: Path) -> None:
    """Copy what lies at the top of `source` and not of `target`."""
    for path in source.iterdir():
        if not (target / path.name).exists():
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, target / path.name)
