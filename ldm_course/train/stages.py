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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
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
    given = {name: value for name, value in chosen.items() if value is not None}
    for part in ORDER if stage == "all" else (stage,):
        _train_stage(part, Path(run_folder), {**given, "seed": seed, "resume": resume}, init)


def _train_stage(stage: str, run: Path, given: dict[str, Any], init: Path | None) -> None:
    """Prepare a stage's options, check that it may start, train it, and write what came of it."""
    out = run / stage
    folder = "vae" if stage == "decoder" else stage  # whose weights it trains
    resumed = given["resume"] and loop.checkpoints(out)
    settings = RECIPES[stage] | (loop.read_options(out) if resumed else {})
    if "steps" in given or "minutes" in given:
        settings |= {"steps": None, "minutes": None}
    options = loop.Options(**{**settings, **given, "out": out})
    if not loop.checkpoints(out):
        if init is not None:
            loop.on_main_process(lambda: take_from_model(init, run, stage))
        elif stage == "clip":
            loop.on_main_process(lambda: clip.train_tokenizer(out / "tokenizer"))
        earlier = _read(run, folder).trained if init or stage == "decoder" else {}
        if stage == "decoder":
            earlier.pop("vae")
        options = replace(options, started_from=earlier)
    options = replace(options, parts={"scenes": source_digest(), **_digests(run, stage)})
    loop.check_run(options)

    completes = stage == "unet" or (stage == "decoder" and _weights(run, "unet").exists())
    if completes:
        _read(run, "classifier")
        check_trained_together(run, "clip", *(["unet"] if stage == "decoder" else []))
    torch.manual_seed(options.seed)
    trained = _train(stage, run, options)

    def write() -> None:
        earlier = _read(run, "vae").trained if stage == "decoder" else {}
        _write(run, folder, trained, {**earlier, stage: summary(out)})
        if completes:
            assemble(run)

    loop.on_main_process(write)


def _train(stage: str, run: Path, options: loop.Options) -> nn.Module:
    """The stage's module after training, from random weights or those that the run starts from."""
    images, fresh = run / "data", not options.started_from
    if stage == "clip":
        tokenizer = CLIPTokenizer.from_pretrained(run / "clip" / "tokenizer")
        model = CLIPModel(clip.clip_config(tokenizer)) if fresh else read_clip(run)
        return clip.train_clip(options, images, model, tokenizer)
    if stage == "vae":
        return vae.train_vae(options, images, vae.new_vae() if fresh else read_vae(run))
    if stage == "classifier":
        new = Classifier() if fresh else read_classifier(run)
        return classifier.train_classifier(options, images, new, read_vae(run))
    if stage == "unet":
        net = UNet(unet.CONFIG) if fresh else read_unet(run)
        whole = LatentDiffusion(read_vae(run), net, *read_text(run), unet.SCHEDULE)
        return unet.train_unet(options, images, whole)
    return vae.train_decoder(options, images, read_vae(run))


# ---- parts that were trained together ----------------------------------------------------------------------------


def check_trained_together(run: Path, *stages: str) -> None:
    """Check that these stages were trained with the parts that the run has now.

    Raises:
        InputError: naming the stage to train again.
    """
    for stage in stages:
        before = _read(run, stage).trained[stage].get("parts", {})
        for part, digest in _digests(run, stage).items():
            if before.get(part) != digest:
                raise InputError(
                    f"The {stage} in {run / stage} was trained with another {part} than the one in {run}; delete "
                    f"that folder and run `ldm-course train {stage}` again."
                )


def _digests(run: Path, stage: str) -> dict[str, str]:
    """Digests of the parts that a stage is trained with, as the run has them now."""
    digests = {
        "tokenizer": lambda: _tokenizer_digest(run / "clip" / "tokenizer"),
        "text encoder": lambda: data.digest(read_clip(run).text_model),
        "VAE": lambda: data.digest(read_vae(run)),
        "VAE encoder": lambda: _encoder_digest(read_vae(run)),
    }
    return {part: digests[part]() for part in TRAINED_WITH[stage]}


def _encoder_digest(vae: AutoencoderKL) -> str:
    """Of all that makes a latent: the decoder may be trained alone afterwards."""
    return data.digest(nn.ModuleList([vae.encoder, vae.quant_conv]))


def _tokenizer_digest(folder: Path) -> str:
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = (folder / "merges.txt").read_text(encoding="utf-8").split()
    return hashlib.sha256(json.dumps([vocabulary, merges], sort_keys=True).encode()).hexdigest()[:16]


# ---- the parts in a run's folder -----------------------------------------------------------------------------------


class Part(NamedTuple):
    """A weights.safetensors: how it was trained, by stage (the VAE's may also have been through "decoder")."""

    trained: dict[str, Any]
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def fill(self, module: M) -> M:
        module.load_state_dict(self.tensors)
        return module.eval()


def read_clip(run: Path) -> CLIPModel:
    part = _read(run, "clip")
    return part.fill(CLIPModel(CLIPConfig.from_dict(part.config)))


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
    part = _read(run, "vae")
    channels = tuple(part.config["block_out_channels"])
    return part.fill(AutoencoderKL(VAEConfig(**part.config | {"block_out_channels": channels})))


def read_classifier(run: Path) -> Classifier:
    return _read(run, "classifier").fill(Classifier())


def read_unet(run: Path) -> UNet:
    return _read(run, "unet").fill(UNet(unet.CONFIG))


def _weights(run: Path, stage: str) -> Path:
    return run / stage / "weights.safetensors"


def _read(run: Path, stage: str) -> Part:
    """A stage's weights. InputError if it has not been trained, or the file is damaged."""
    path = _weights(run, stage)
    if not path.exists():
        raise InputError(f"{path} is missing; run `ldm-course train {stage}` with the same --out first.")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return Part(json.loads(file.metadata()["training"]), json.loads(file.metadata()["config"]), tensors)
    except (SafetensorError, KeyError, TypeError) as error:  # cut short, or written by something else
        raise InputError(f"{path} is damaged ({brief(error)}); train the {stage} again.") from error


def _write(run: Path, stage: str, module: nn.Module, trained: dict[str, Any]) -> None:
    """Write a stage's weights, with how they were trained in the header."""
    config: dict[str, Any] = {}
    if isinstance(module, CLIPModel):
        config = module.config.to_dict()
    elif isinstance(module, AutoencoderKL):
        config = asdict(module.config)
    (run / stage).mkdir(parents=True, exist_ok=True)
    header = {"training": json.dumps(trained), "config": json.dumps(config)}
    loop.save_tensors(module.state_dict(), _weights(run, stage), header)


def summary(out: Path) -> dict[str, Any]:
    """Options, parts, steps, seconds and last logged values of a run."""
    progress, options = loop.read_progress(loop.checkpoints(out)[0]), loop.read_options(out)
    parts, started_from = options.pop("parts"), options.pop("started_from")
    del options["out"], options["resume"]  # of the machine and the moment
    last = progress.log[-1] if progress.log else {}
    entry = {"options": options, "parts": parts, **last, "step": progress.step, "seconds": round(progress.seconds, 1)}
    return entry | ({"started_from": started_from} if started_from else {})


# ---- the model's folder --------------------------------------------------------------------------------------------


def assemble(run: Path) -> Path:
    """Put the parts together as run/model, with the CLIP and the classifier that `ldm-course evaluate` needs.

    Raises:
        InputError: if they were not trained together.
    """
    check_trained_together(run, "clip", "unet")
    text_encoder, tokenizer = read_text(run)
    known_words = frozenset((run / "clip" / "tokenizer" / "known_words.txt").read_text(encoding="utf-8").split())
    folder, new = run / "model", run / "model.tmp"
    shutil.rmtree(new, ignore_errors=True)
    model = LatentDiffusion(read_vae(run), read_unet(run), text_encoder, tokenizer, unet.SCHEDULE, known_words)
    save(model, new, dtype=torch.float16)
    read_clip(run).half().save_pretrained(new / "clip")
    (new / WEIGHTS).parent.mkdir()
    loop.save_tensors(read_classifier(run).half().state_dict(), new / WEIGHTS)
    facts: dict[str, Any] = {}
    for stage in ("clip", "vae", "classifier", "unet"):
        facts |= _read(run, stage).trained
    gpu, cpu = torch.cuda.is_available(), f"a CPU with {os.cpu_count()} cores ({platform.machine()})"
    facts["machine"] = f"one {torch.cuda.get_device_name()}" if gpu else cpu
    facts["notes"] = (run / "notes.txt").read_text(encoding="utf-8") if (run / "notes.txt").exists() else ""
    for file in new.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors' own mode lets nobody else read them
    (new / CHECKSUMS).write_text(checksums(new), encoding="utf-8")
    (new / "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
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
    parts = {"clip": whole, "vae": model.vae, "classifier": load_classifier(folder), "unet": model.unet}
    for name, module in parts.items():
        if name == stage or not _weights(run, name).exists():
            trained_by = (name, "decoder") if name == "vae" else (name,)
            _write(run, name, module, {key: facts[key] for key in trained_by if key in facts})
            if name == "clip":
                shutil.copytree(folder / "tokenizer", run / "clip" / "tokenizer", dirs_exist_ok=True)
    if not (run / "notes.txt").exists():
        (run / "notes.txt").write_text(facts["notes"], encoding="utf-8")


def checksums(folder: Path) -> str:
    """The sha256 of every weight file, as `sha256sum --check` reads them."""
    files = sorted(folder.rglob("*.safetensors"))
    lines = (f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(folder).as_posix()}" for f in files)
    return "\n".join(lines) + "\n"


def ship(run: Path) -> None:
    """Copy run/model over the model in the package, model card and all.

    Raises:
        InputError: if it has no card yet: `python -m ldm_course.evaluate.model_card` writes it after an evaluation.
    """
    if not (run / "model" / "README.md").exists():
        raise InputError(f"{run / 'model'} has no README.md: evaluate the model and write its card first.")
    shutil.rmtree(bundled_path(), ignore_errors=True)
    shutil.copytree(run / "model", bundled_path())
