"""The order of training: CLIP, VAE, classifier, UNet, decoder; each stage reads what the earlier ones left.

run/data/        rendered images, latents, contexts; each file is named after what made it
run/clip/        tokenizer/, and as in every stage: options.json, checkpoints/, weights.safetensors
run/vae/         and samples; the decoder's weights go here, too
run/classifier/
run/unet/        and samples
run/decoder/     and samples
run/notes.txt    what was done besides the commands, for the model card
run/model/       the finished model, in diffusers' format

The header of a weights.safetensors holds the config, and says how the weights were trained and with which parts:
digests of the VAE's encoder, the text encoder and the tokenizer. Parts that were not trained together are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ldm_course.errors import InputError, brief, check_choice
from ldm_course.evaluate.classifier import WEIGHTS, Classifier, load_classifier
from ldm_course.evaluate.model_card import read_training
from ldm_course.io.bundled import bundled_path
from ldm_course.io.load import load
from ldm_course.io.save import save
from ldm_course.model import LatentDiffusion
from ldm_course.scenes.dataset import source_digest
from ldm_course.train import classifier, clip, data, loop, unet, vae
from ldm_course.unet import UNet
from ldm_course.vae import AutoencoderKL, VAEConfig

M = TypeVar("M", bound=nn.Module)

CHECKSUMS = "sha256sums.txt"
ORDER = ("clip", "vae", "classifier", "unet", "decoder")
RECIPES: dict[str, dict[str, Any]] = {  # where the command says nothing else; minutes are of two CPU cores
    "clip": {"minutes": 20.0, "batch_size": 64, "dataset_size": 20_000},
    "vae": {"minutes": 35.0, "batch_size": 4, "dataset_size": 20_000},
    "classifier": {"minutes": 6.0, "batch_size": 64, "dataset_size": 12_000},
    "unet": {"minutes": 70.0, "batch_size": 32, "dataset_size": 20_000},
    "decoder": {"minutes": 35.0, "batch_size": 4, "dataset_size": 20_000},
}
TRAINED_WITH = {  # by stage
    "clip": ("tokenizer",),
    "vae": (),
    "classifier": ("VAE",),
    "unet": ("VAE encoder", "text encoder", "tokenizer"),
    "decoder": ("VAE encoder",),
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
    dataset_size: int | None = None,
    compile: bool | None = None,
    resume: bool = False,
    init: Path | None = None,
) -> None:
    """Train "clip", "vae", "classifier", "unet", "decoder" or "all" of them.

    Args:
        stage: each needs the ones before it, except that the decoder does not need the UNet.
        run_folder: for everything that training reads and writes.
        steps, minutes: the run ends at whichever comes first. None takes the recipe's, here and below; for a resumed
            run what it had before.
        resume: continue the run in the folder. Only steps, minutes and compile may differ.
        init: a finished model's folder. The stages that the run lacks are taken from it, and the one to be trained
            starts from its weights.

    Raises:
        InputError: for an unknown stage, a missing earlier one, a value out of range, an existing run without
            `resume`, a run that is resumed with other options or parts, or parts that were not trained together.
    """
    check_choice("stage", stage, (*ORDER, "all"))
    chosen = {
        "steps": steps, "minutes": minutes, "batch_size": batch_size, "learning_rate": learning_rate,
        "precision": precision, "dataset_size": dataset_size, "compile": compile,
    }  # fmt: skip
    chosen = {name: value for name, value in chosen.items() if value is not None}
    for part in ORDER if stage == "all" else (stage,):
        _train_stage(part, Path(run_folder), {**chosen, "seed": seed, "resume": resume}, init)


def _train_stage(stage: str, run: Path, chosen: dict[str, Any], init: Path | None) -> None:
    out, settings = run / stage, dict(RECIPES[stage])
    if chosen["resume"] and loop.checkpoints(out):
        settings |= loop.read_options(out)
    if "steps" in chosen or "minutes" in chosen:
        settings |= {"steps": None, "minutes": None}
    settings = {name: value for name, value in settings.items() if name in loop.Options.__dataclass_fields__}
    options = loop.Options(**{**settings, **chosen, "out": out})
    if not loop.checkpoints(out):
        if init is not None:
            loop.on_main_process(lambda: take_from_model(init, run, stage))
        elif stage == "clip":
            loop.on_main_process(lambda: clip.train_tokenizer(out / "tokenizer"))
        if stage == "decoder":
            earlier = {name: facts for name, facts in _read_header(run, "vae").items() if name == "decoder"}
            options = replace(options, started_from=earlier)
        elif init is not None:
            options = replace(options, started_from=_read_header(run, stage))
    options = replace(options, parts={"scenes": source_digest(), **_digests(run, TRAINED_WITH[stage])})
    loop.check_run(options)
    torch.manual_seed(options.seed)
    {"clip": _clip, "vae": _vae, "classifier": _classifier, "unet": _unet, "decoder": _decoder}[stage](run, options)


def _clip(run: Path, options: loop.Options) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(options.out / "tokenizer")
    model = read_clip(run) if options.started_from else CLIPModel(clip.clip_config(tokenizer))
    trained = clip.train_clip(options, run / "data", model, tokenizer)
    loop.on_main_process(lambda: _write(options, trained, trained.config.to_dict()))


def _vae(run: Path, options: loop.Options) -> None:
    model = read_vae(run) if options.started_from else vae.new_vae()
    trained = vae.train_vae(options, run / "data", model)
    images = data.training_images(run / "data", "train", options)

    def write() -> None:
        finished = vae.normalise_latents(trained, images[: min(2000, len(images))])
        _write(options, finished, asdict(finished.config))

    loop.on_main_process(write)


def _classifier(run: Path, options: loop.Options) -> None:
    model = read_classifier(run) if options.started_from else Classifier()
    trained = classifier.train_classifier(options, run / "data", model, read_vae(run))
    loop.on_main_process(lambda: _write(options, trained))


def _unet(run: Path, options: loop.Options) -> None:
    _part(run, "classifier")  # which the finished model comes with
    check_trained_together(run, "clip")
    model = read_unet(run) if options.started_from else UNet(unet.CONFIG)
    whole = LatentDiffusion(read_vae(run), model, *read_text(run), unet.SCHEDULE)
    trained = unet.train_unet(options, run / "data", whole)

    def write() -> None:
        _write(options, trained)
        assemble(run)

    loop.on_main_process(write)


def _decoder(run: Path, options: loop.Options) -> None:
    has_unet = (run / "unet" / "weights.safetensors").exists()
    if has_unet:
        _part(run, "classifier")
        check_trained_together(run, "clip", "unet")
    trained = vae.train_decoder(options, run / "data", read_vae(run))

    def write() -> None:
        _write(options, trained, asdict(trained.config), into="vae")
        if has_unet:
            assemble(run)

    loop.on_main_process(write)


# ---- parts that were trained together ----------------------------------------------------------------------------


def check_trained_together(run: Path, *stages: str) -> None:
    """Check that these stages were trained with the parts that the run has now.

    Raises:
        InputError: naming the stage to train again.
    """
    for stage in stages:
        trained_with = _read_header(run, stage)[stage].get("parts", {})
        for part, digest in _digests(run, TRAINED_WITH[stage]).items():
            if trained_with.get(part) != digest:
                raise InputError(
                    f"The {stage} in {run / stage} was trained with another {part} than the one in {run}; delete "
                    f"that folder and run `ldm-course train {stage}` again."
                )


def _digests(run: Path, parts: tuple[str, ...]) -> dict[str, str]:
    """Digests of parts of the run as they are now."""
    digests: dict[str, Callable[[], str]] = {
        "tokenizer": lambda: _tokenizer_digest(run / "clip" / "tokenizer"),
        "text encoder": lambda: data.digest(read_clip(run).text_model),
        "VAE": lambda: data.digest(read_vae(run)),
        "VAE encoder": lambda: _encoder_digest(read_vae(run)),
    }
    return {part: digests[part]() for part in parts}


def _encoder_digest(vae: AutoencoderKL) -> str:
    """Of all that makes a latent: the decoder may be trained alone afterwards."""
    return data.digest(nn.ModuleList([vae.encoder, vae.quant_conv]))


def _tokenizer_digest(folder: Path) -> str:
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = (folder / "merges.txt").read_text(encoding="utf-8").split()
    return hashlib.sha256(json.dumps([vocabulary, merges], sort_keys=True).encode()).hexdigest()[:16]


# ---- the parts in a run's folder -----------------------------------------------------------------------------------


def read_clip(run: Path) -> CLIPModel:
    return _read(CLIPModel(CLIPConfig.from_dict(_read_header(run, "clip", "config"))), run, "clip")


def read_text(run: Path) -> tuple[CLIPTextModel, CLIPTokenizer]:
    """The text half of the run's CLIP, as the model's text encoder, and the tokenizer."""
    whole = read_clip(run)
    config = whole.config.text_config
    assert isinstance(config, CLIPTextConfig)
    text_encoder = CLIPTextModel(config)
    prefix = "text_model." if hasattr(text_encoder, "text_model") else ""
    text_encoder.load_state_dict({prefix + name: t for name, t in whole.text_model.state_dict().items()})
    return text_encoder.eval(), CLIPTokenizer.from_pretrained(run / "clip" / "tokenizer")


def read_vae(run: Path) -> AutoencoderKL:
    config = _read_header(run, "vae", "config")
    config["block_out_channels"] = tuple(config["block_out_channels"])
    return _read(AutoencoderKL(VAEConfig(**config)), run, "vae")


def read_classifier(run: Path) -> Classifier:
    return _read(Classifier(), run, "classifier")


def read_unet(run: Path) -> UNet:
    return _read(UNet(unet.CONFIG), run, "unet")


def _part(run: Path, stage: str) -> Path:
    """A stage's weights. InputError if it has not been trained."""
    path = run / stage / "weights.safetensors"
    if not path.exists():
        raise InputError(f"{path} is missing; run `ldm-course train {stage}` with the same --out first.")
    return path


def _read(module: M, run: Path, stage: str) -> M:
    path = _part(run, stage)
    try:
        module.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:  # cut short, or of another shape
        raise InputError(f"{path} cannot be read ({brief(error)}); train the {stage} again.") from error
    return module.eval()


def _read_header(run: Path, stage: str, entry: str = "training") -> dict[str, Any]:
    """How a stage's weights were trained, by stage (the VAE's may also have been through "decoder"); or "config"."""
    path = _part(run, stage)
    try:
        with safe_open(path, "pt") as file:
            return json.loads(file.metadata()[entry])
    except (SafetensorError, KeyError, TypeError) as error:  # cut short, or written by something else
        raise InputError(
            f"{path} does not say how it was trained ({brief(error)}); train the {stage} again."
        ) from error


def _write(options: loop.Options, module: nn.Module, config: dict[str, Any] | None = None, into: str = "") -> None:
    """Write a stage's weights, with how they were trained in the header; the decoder's go into "vae"."""
    run, stage = options.out.parent, options.out.name
    header = _read_header(run, into) if into else {}
    _write_part(run / (into or stage), module, config or {}, {**header, stage: summary(options.out)})


def _write_part(folder: Path, module: nn.Module, config: dict[str, Any], header: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"training": json.dumps(header), "config": json.dumps(config)}
    loop.save_tensors(module.state_dict(), folder / "weights.safetensors", metadata)


def summary(out: Path) -> dict[str, Any]:
    """Options, parts, steps, seconds and last logged values of a run."""
    progress = loop.read_progress(loop.checkpoints(out)[0])
    facts = loop.read_options(out)
    parts, started_from = facts.pop("parts"), facts.pop("started_from")
    del facts["out"], facts["resume"]  # of the machine and the moment
    last = progress.log[-1] if progress.log else {}
    entry = {"options": facts, "parts": parts, **last, "step": progress.step, "seconds": round(progress.seconds, 1)}
    return {**entry, "started_from": started_from} if started_from else entry


# ---- the model's folder --------------------------------------------------------------------------------------------


def assemble(run: Path) -> Path:
    """Put the parts together as run/model, with the CLIP and the classifier that `ldm-course evaluate` needs.

    Raises:
        InputError: if they were not trained together.
    """
    check_trained_together(run, "clip", "unet")
    text_encoder, tokenizer = read_text(run)
    known_words = frozenset((run / "clip" / "tokenizer" / "known_words.txt").read_text().split())
    folder, new = run / "model", run / "model.tmp"
    shutil.rmtree(new, ignore_errors=True)
    model = LatentDiffusion(read_vae(run), read_unet(run), text_encoder, tokenizer, unet.SCHEDULE, known_words)
    save(model, new, dtype=torch.float16)
    read_clip(run).half().save_pretrained(new / "clip")
    (new / WEIGHTS).parent.mkdir()
    loop.save_tensors(read_classifier(run).half().state_dict(), new / WEIGHTS)
    facts: dict[str, Any] = {}
    for stage in ("clip", "vae", "classifier", "unet"):
        facts |= _read_header(run, stage)
    facts["machine"] = machine()
    facts["notes"] = (run / "notes.txt").read_text() if (run / "notes.txt").exists() else ""
    for file in new.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors' own mode lets nobody else read them
    (new / CHECKSUMS).write_text(checksums(new))
    (new / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)  # also its model card, which would describe other weights
    new.rename(folder)
    return folder


def take_from_model(folder: Path, run: Path, stage: str) -> None:
    """Write a finished model's part into the run for `stage` to start from, and those of the stages that it lacks.

    Raises:
        InputError: if it is not a model that this course trained.
    """
    folder = Path(folder)
    if not (folder / "training.json").exists() or not (folder / WEIGHTS).exists():
        raise InputError(f"{folder} is not a model trained by this course; give a folder such as runs/a/model.")
    model, facts = load(folder, device="cpu", dtype=torch.float32), read_training(folder)
    whole = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32)
    facts["clip"]["parts"] = {"tokenizer": _tokenizer_digest(folder / "tokenizer")}
    encoders = {"VAE encoder": _encoder_digest(model.vae), "text encoder": data.digest(whole.text_model)}
    facts["unet"]["parts"] = encoders | facts["clip"]["parts"]
    parts: dict[str, tuple[nn.Module, dict[str, Any], tuple[str, ...]]] = {
        "clip": (whole, whole.config.to_dict(), ("clip",)),
        "vae": (model.vae, asdict(model.vae.config), ("vae", "decoder")),
        "classifier": (load_classifier(folder), {}, ("classifier",)),
        "unet": (model.unet, {}, ("unet",)),
    }
    for name, (module, config, trained_by) in parts.items():
        if name != stage and (run / name / "weights.safetensors").exists():
            continue
        if name == "clip":
            shutil.copytree(folder / "tokenizer", run / "clip" / "tokenizer", dirs_exist_ok=True)
        _write_part(run / name, module, config, {key: facts[key] for key in trained_by if key in facts})
    if not (run / "notes.txt").exists():
        (run / "notes.txt").write_text(facts["notes"])


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
        InputError: if it has no card yet: `python -m ldm_course.evaluate.model_card` writes it after an evaluation.
    """
    if not (run / "model" / "README.md").exists():
        raise InputError(f"{run / 'model'} has no README.md: evaluate the model and write its card first.")
    shutil.rmtree(bundled_path(), ignore_errors=True)
    shutil.copytree(run / "model", bundled_path())
