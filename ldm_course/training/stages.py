"""The order of training: CLIP, VAE, judge, UNet, decoder; each stage reads what the earlier ones left in the folder.

run/data/    rendered pictures, encodings     run/unet/     checkpoints, samples, weights
run/clip/    tokenizer, CLIP, checkpoints     run/decoder/  checkpoints, samples; the weights go to run/vae
run/vae/     checkpoints, samples, weights    run/judge/
run/notes.txt  what was done besides the      run/model/    the finished model, in diffusers' format
               commands, for the model card
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ldm_course.checkpoint import LatentDiffusion, bundled_path, save
from ldm_course.errors import InputError, brief
from ldm_course.training import clip, data, judge, loop, unet, vae
from ldm_course.unet import UNet
from ldm_course.vae import AutoencoderKL, VAEConfig

M = TypeVar("M", bound=nn.Module)

CHECKSUMS = "sha256sums.txt"
ORDER = ("clip", "vae", "judge", "unet", "decoder")
RECIPES: dict[str, dict[str, Any]] = {  # where the command says nothing else; minutes are of two CPU cores
    "clip": {"minutes": 20.0, "batch_size": 64, "pictures": 20_000},
    "vae": {"minutes": 35.0, "batch_size": 4, "pictures": 20_000},
    "judge": {"minutes": 6.0, "batch_size": 64, "pictures": 12_000},
    "unet": {"minutes": 70.0, "batch_size": 32, "pictures": 20_000},
    "decoder": {"minutes": 35.0, "batch_size": 4, "pictures": 20_000},
}


def train_stage(
    stage: str,
    run_folder: Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    precision: str | None = None,
    seed: int = 0,
    pictures: int | None = None,
    compile: bool | None = None,
    resume: bool = False,
) -> None:
    """Train "clip", "vae", "judge", "unet", "decoder" or "all" of them, by the recipe where nothing else is said.

    Raises:
        InputError: for an unknown stage, a missing earlier one, a value out of range, or an existing run without
            `resume`.
    """
    if stage == "all":
        for part in ORDER:
            train_stage(
                part, run_folder, steps=steps, minutes=minutes, batch_size=batch_size, learning_rate=learning_rate,
                precision=precision, seed=seed, pictures=pictures, compile=compile, resume=resume,
            )  # fmt: skip
        return
    if stage not in ORDER:
        raise InputError(f"stage must be one of {', '.join((*ORDER, 'all'))}, not {stage!r}.")
    chosen = {
        "steps": steps, "minutes": minutes, "batch_size": batch_size, "learning_rate": learning_rate,
        "precision": precision, "pictures": pictures, "compile": compile,
    }  # fmt: skip
    chosen = {name: value for name, value in chosen.items() if value is not None}
    recipe = dict(RECIPES[stage])
    if steps is not None:
        recipe["minutes"] = None
    options = loop.Options(**{"out": run_folder / stage, "seed": seed, "resume": resume, **recipe, **chosen})
    if loop.processes().is_main_process:
        loop.check_folder(options)
    stages = {"clip": _clip, "vae": _vae, "judge": _judge, "unet": _unet, "decoder": _decoder}
    stages[stage](run_folder, options)


def _clip(run: Path, options: loop.Options) -> None:
    trained = clip.train_clip(options, run / "data")
    _once(lambda: trained.save_pretrained(options.out / "clip"))


def _vae(run: Path, options: loop.Options) -> None:
    trained = vae.train_vae(options, run / "data")
    images = data.pictures(run / "data", "train", options.seed, options.pictures)

    def write() -> None:
        finished = vae.normalise_latents(trained, images[: min(2000, len(images))])
        _write(options.out, finished, asdict(finished.config))

    _once(write)


def _judge(run: Path, options: loop.Options) -> None:
    trained = judge.train_judge(options, run / "data", read_vae(run))
    _once(lambda: _write(options.out, trained, {}))


def _unet(run: Path, options: loop.Options) -> None:
    _part(run, "judge", "weights.safetensors")  # which the finished model comes with
    autoencoder, (tokenizer, text_encoder) = read_vae(run), read_text(run)
    trained = unet.train_unet(options, run / "data", autoencoder, tokenizer, text_encoder)

    def write() -> None:
        _write(options.out, trained, {})
        assemble(run, trained)

    _once(write)


def _decoder(run: Path, options: loop.Options) -> None:
    autoencoder = read_vae(run)
    if (run / "unet" / "weights.safetensors").exists():
        _part(run, "judge", "weights.safetensors")
    if loop.processes().is_main_process:
        digest = data.digest(nn.ModuleList([autoencoder.encoder, autoencoder.quant_conv]))  # they make the latents
        file = options.out / "encoder.sha256"
        if file.exists() and file.read_text() != digest:
            raise InputError(
                f"The decoder in {options.out} was trained for another encoder than that of {run / 'vae'}; delete "
                "the folder, and train it anew."
            )
        options.out.mkdir(parents=True, exist_ok=True)
        file.write_text(digest)
    trained = vae.train_decoder(options, run / "data", autoencoder)

    def write() -> None:
        _write(run / "vae", trained, asdict(trained.config))
        if (run / "unet" / "weights.safetensors").exists():
            assemble(run, _read(UNet(unet.CONFIG), run, "unet"))

    _once(write)


def _once(write: Callable[[], None]) -> None:
    """One of the processes that train together writes, and the others wait for it."""
    if loop.processes().is_main_process:
        write()
    loop.processes().wait_for_everyone()


def read_vae(run: Path) -> AutoencoderKL:
    """The VAE that an earlier stage trained."""
    settings = json.loads(_part(run, "vae", "config.json").read_text())
    settings["block_out_channels"] = tuple(settings["block_out_channels"])
    return _read(AutoencoderKL(VAEConfig(**settings)), run, "vae")


def read_judge(run: Path) -> judge.Judge:
    """The judge that an earlier stage trained."""
    return _read(judge.Judge(), run, "judge")


def read_text(run: Path) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """Tokenizer and text encoder: the text half of the CLIP that an earlier stage trained."""
    whole = CLIPModel.from_pretrained(_part(run, "clip", "clip"))
    config = whole.config.text_config
    assert isinstance(config, CLIPTextConfig)
    text_encoder = CLIPTextModel(config)
    prefix = "text_model." if hasattr(text_encoder, "text_model") else ""
    tensors = {prefix + name: tensor for name, tensor in whole.text_model.state_dict().items()}
    text_encoder.load_state_dict(tensors)
    return CLIPTokenizer.from_pretrained(run / "clip" / "tokenizer"), text_encoder.eval().requires_grad_(False)


def assemble(run: Path, trained: UNet) -> Path:
    """Put the parts together as run/model, with the CLIP and the judge that `ldm-course evaluate` needs."""
    tokenizer, text_encoder = read_text(run)
    words = frozenset((run / "clip" / "tokenizer" / "known_words.txt").read_text().split())
    folder = run / "model"
    shutil.rmtree(folder, ignore_errors=True)  # a model card of other weights would say what is not true
    save(LatentDiffusion(read_vae(run), trained, text_encoder, tokenizer, unet.SCHEDULE, words), folder)
    whole = CLIPModel.from_pretrained(run / "clip" / "clip").half()
    whole.save_pretrained(folder / "clip")
    (folder / "judge").mkdir(exist_ok=True)
    halves = {name: t.half() if t.is_floating_point() else t for name, t in read_judge(run).state_dict().items()}
    save_file(halves, folder / "judge" / "model.safetensors", metadata={"format": "pt"})
    facts: dict[str, object] = {stage: loop.summary(run / stage) for stage in ORDER if loop.checkpoints(run / stage)}
    facts["machine"] = machine()
    facts["notes"] = (run / "notes.txt").read_text() if (run / "notes.txt").exists() else ""
    for file in folder.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors' own mode lets nobody else read them
    (folder / CHECKSUMS).write_text(checksums(folder))
    (folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    return folder


def checksums(folder: Path) -> str:
    """The sha256 of every weight file, as `sha256sum --check` reads them."""
    files = sorted(folder.rglob("*.safetensors"))
    lines = (f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(folder).as_posix()}" for f in files)
    return "\n".join(lines) + "\n"


def machine() -> str:
    """What this runs on, in words."""
    if torch.cuda.is_available():
        return f"one {torch.cuda.get_device_name()}"
    return f"a CPU with {os.cpu_count()} cores ({platform.machine()})"


def ship(run: Path) -> None:
    """Copy run/model over the model in the package, model card and all.

    Raises:
        InputError: if it has no card yet: `python -m ldm_course.training.card` writes it after an evaluation.
    """
    if not (run / "model" / "README.md").exists():
        raise InputError(f"{run / 'model'} has no README.md: evaluate the model and write its card first.")
    shutil.rmtree(bundled_path(), ignore_errors=True)
    shutil.copytree(run / "model", bundled_path())


def _part(run: Path, stage: str, name: str) -> Path:
    path = run / stage / name
    if not path.exists():
        raise InputError(f"{path} is missing: run `ldm-course train {stage}` with the same --out first.")
    return path


def _write(folder: Path, module: nn.Module, settings: dict[str, object]) -> None:
    unfinished = folder / "weights.tmp"
    try:
        save_file({k: v.contiguous() for k, v in module.state_dict().items()}, unfinished)
    except SafetensorError as error:
        raise OSError(f"The weights could not be written to {folder} ({brief(error)}); make room there.") from error
    os.replace(unfinished, folder / "weights.safetensors")
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")


def _read(module: M, run: Path, stage: str) -> M:
    path = _part(run, stage, "weights.safetensors")
    try:
        module.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:  # cut short, or of another shape
        raise InputError(f"{path} cannot be read ({brief(error)}): train the {stage} anew.") from error
    return module.eval().requires_grad_(False)
