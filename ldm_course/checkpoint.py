"""A Stable Diffusion folder in diffusers' format, or its id on the Hugging Face hub, to our modules and back.

Attribute names are the checkpoint's keys, so weights need no mapping table. Only safetensors are read, because
opening a pickle can run code. A tensor too many, too few or of another shape is an error: a mere warning would
leave random weights in the model.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ldm_course.configs import (
    check_parts,
    check_sizes,
    read_config,
    read_json,
    read_schedule,
    unsupported,
    write_configs,
    write_json,
)
from ldm_course.errors import InputError, brief, is_memory_error, memory_error_in_a_sentence
from ldm_course.inputs import check_model
from ldm_course.schedulers import NoiseSchedule
from ldm_course.startup import without_collecting
from ldm_course.text import encode_prompt
from ldm_course.unet import UNet, UNetConfig
from ldm_course.vae import AutoencoderKL, VAEConfig

if TYPE_CHECKING:  # imported where they are used, so that `import ldm_course` stays quick
    from transformers import CLIPTextModel, CLIPTokenizer

WEIGHTS = {"text_encoder": "model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}  # file stems
COMPILERS = ("g++", "clang++", "cl")
OLD_VAE_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # until diffusers 0.17


@dataclass(frozen=True)
class LatentDiffusion:
    """All parts of a text-to-image model.

    vae, unet: our modules.
    text_encoder, tokenizer: transformers' CLIPTextModel and CLIPTokenizer.
    schedule: how noise grows over the timesteps.
    known_words: every word of the training captions, if they were few; None if there is no such list.
    offload: the text encoder and the VAE wait on the CPU, see `at_work`.
    """

    vae: AutoencoderKL
    unet: UNet
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    schedule: NoiseSchedule
    known_words: frozenset[str] | None = None
    offload: bool = False

    @property
    def device(self) -> torch.device:
        """Where the UNet is; the other parts are there, too, or go there to work (`offload`)."""
        return self.unet.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, torch.float32 unless another was asked for."""
        return self.unet.conv_in.weight.dtype

    @property
    def native_size(self) -> int:
        """Height and width of the pictures that the model was trained at, in pixels."""
        return self.unet.config.sample_size * self.vae.downscale

    @contextmanager
    def at_work(self, part: nn.Module) -> Iterator[None]:
        """With `offload`, the text encoder or the VAE is on the model's device inside, and on the CPU after it."""
        if self.offload:
            part.to(self.device)
        try:
            yield
        finally:
            if self.offload:
                part.to("cpu")


def bundled_path() -> Path:
    """The folder of the model that ships with the package, in diffusers' format."""
    return Path(__file__).parent / "pretrained"


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
    folder = _locate(source, revision, half)

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
        _fill(vae, dict(_today(name, tensor) for name, tensor in tensors.items()), source_file)
        _fill(unet, *read_weights(folder / "unet", half))

        modules: tuple[nn.Module, ...] = (vae, unet, text_encoder)
        for module in modules:
            waits = offload and module is not unet
            module.to(device="cpu" if waits else device, dtype=dtype).eval().requires_grad_(False)
        if compile:
            _compile(unet, device)
        model = LatentDiffusion(vae, unet, text_encoder, tokenizer, schedule, _read_known_words(folder), offload)
        try:
            encode_prompt(model, [""])
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


# ---- where a model is ------------------------------------------------------------------------------------------


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
        raise InputError(f"A model is named by a folder or by a hub id like 'owner/name', not by {source!r}.")
    folder = Path(os.path.expanduser(source))
    if isinstance(source, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) and not os.path.exists(folder):
        return _fetch(source, revision, half)
    if not str(source).strip() or not os.path.exists(folder):  # a name too long, too, is none
        raise InputError(f"There is no folder {str(source)!r}; pass one that exists, or a hub id like 'owner/name'.")
    if not folder.is_dir():
        raise InputError(
            f"The model {folder} is a file; pass a folder in diffusers' format, the one with model_index.json."
        )
    if revision is not None:
        raise InputError(f"The revision {revision!r} is for models on the hub; leave it out for the folder {folder}.")
    return folder


def _fetch(hub_id: str, revision: str | None, half: bool) -> Path:
    """Bring a hub repository's needed files into huggingface_hub's cache; returns the folder they are in.

    First configs and tokenizer; then, of each part's weights, the preferred variant, or else the other one.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub import utils as hub

    small = ["model_index.json", "scheduler/*.json", "tokenizer/*.json", "tokenizer/*.txt"]
    small += [f"{part}/config.json" for part in WEIGHTS]
    unreachable: Exception | None = None
    try:
        folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=small))
        if not (folder / "model_index.json").is_file():
            raise InputError(
                f"The hub repository {hub_id!r} is not in diffusers' format: it has no model_index.json."
            )
        commit = folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else revision  # all files of one commit
        lacking = list(WEIGHTS)
        for variant in _variants(half):
            patterns = [pattern for part in lacking for pattern in _weight_patterns(part, variant)]
            try:
                if lacking:  # with one file that is there, as the hub's client warns if nothing matches
                    snapshot_download(hub_id, revision=commit, allow_patterns=["model_index.json", *patterns])
            except hub.LocalEntryNotFoundError as error:  # offline; but the other variant may be in the cache
                unreachable = error
            lacking = [part for part in lacking if not _weight_files(folder / part, variant)[0]]
        if lacking and unreachable:
            raise unreachable
        return folder
    except InputError:
        raise
    except Exception as error:  # also the network library's, which is another one in each major version
        raise InputError(_hub_trouble(error, hub_id, revision)) from error


def _hub_trouble(error: Exception, hub_id: str, revision: str | None) -> str:
    """What went wrong at the hub, and what to do, in one sentence."""
    from huggingface_hub import utils as hub

    cause: BaseException | None = error
    status: int | None = None
    while cause is not None and status is None:  # "not found here" may be caused by what the hub answered
        status = getattr(getattr(cause, "response", None), "status_code", None)
        cause = cause.__cause__
    if isinstance(error, hub.RepositoryNotFoundError) and not isinstance(error, hub.GatedRepoError):
        return (
            f"There is no folder and no public hub repository {hub_id!r}; check the spelling, or log in with "
            "`hf auth login` if it is private."
        )
    if isinstance(error, hub.GatedRepoError) or status in (401, 403):
        return (
            f"The hub does not give {hub_id!r} to everyone; accept its terms on its page there, then log in with "
            "`hf auth login`."
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return f"The hub repository {hub_id!r} has no revision {revision!r}; see its branches and tags there."
    if status is not None and (status == 429 or status >= 500):
        return f"The Hugging Face hub is busy (it answered {status}); ask for {hub_id!r} again in a few minutes."
    if isinstance(error, hub.LocalEntryNotFoundError):
        return (
            f"The model {hub_id!r} is not whole on this machine and the Hugging Face hub cannot be reached; connect "
            "to the internet, unset HF_HUB_OFFLINE if it is set, or pass a folder."
        )
    return f"The model {hub_id!r} could not be fetched from the Hugging Face hub ({brief(error)})."


# ---- weights ---------------------------------------------------------------------------------------------------


def _variants(half: bool) -> tuple[str, str]:
    """Which weight files to look for first: those marked fp16, or the plain ones."""
    return (".fp16", "") if half else ("", ".fp16")


def _weight_patterns(part: str, variant: str) -> tuple[str, str, str]:
    """The names that a part's weights have in a repository: in one file; or in several, and their index."""
    stem = f"{part}/{WEIGHTS[part]}"
    return (
        f"{stem}{variant}.safetensors",
        f"{stem}{variant}-*.safetensors",
        f"{stem}.safetensors.index{variant}.json",
    )


def _weight_files(folder: Path, variant: str) -> tuple[list[Path], Path]:
    """The safetensors files of a part, none if there are none, and the one to name: the file itself or the index."""
    single, _, index = (folder.parent / name for name in _weight_patterns(folder.name, variant))
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else [], single
    try:
        shards = sorted(set(read_json(index)["weight_map"].values()))
        outside = [shard for shard in shards if re.search(r"[/\\:]", shard)]
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"The file {index} does not list the weights' files; fetch the model again.") from error
    if outside:
        raise InputError(
            f"The file {index} lists {outside[0]!r}, which is no file name in its folder, so it is not opened."
        )
    for shard in shards:
        if not os.path.isfile(folder / shard):  # a name too long, too, is none
            raise InputError(
                f"The file {folder / shard} is missing, though {index.name} lists it; fetch the model again."
            )
    return [folder / shard for shard in shards], index


def read_weights(folder: Path, half: bool) -> tuple[dict[str, Tensor], Path]:
    """Read the tensors of a part, by name; also returns the file to name if they turn out wrong.

    Raises:
        InputError: if there are no safetensors (pickles are not opened), or they are broken.
    """
    found = [_weight_files(folder, variant) for variant in _variants(half)]
    files, source = next(((files, source) for files, source in found if files), ([], folder))
    if not files:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".ckpt", ".pt", ".pth"))
        if pickles:
            raise InputError(
                f"The folder {folder} has its weights only as a pickle, {pickles[0]}, which is refused because "
                "opening it can run code; look for a version with safetensors."
            )
        raise InputError(f"The folder {folder} has no {WEIGHTS[folder.name]}.safetensors; fetch the model again.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"The file {file} is broken or cut short ({brief(error)}); fetch it again.") from error
    return tensors, source


def _fill(module: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Make the tensors the module's parameters.

    Raises:
        InputError: unless they are exactly the module's, in name and shape.
    """
    wanted = module.state_dict()
    misfits = [
        f"{name}, {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)} for {tuple(wanted[name].shape)}"
        for name, tensor in tensors.items()
        if name in wanted and (tensor.shape != wanted[name].shape or not tensor.is_floating_point())
    ]
    complaints = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("missing", [name for name in wanted if name not in tensors]),
            ("unexpected", [name for name in tensors if name not in wanted]),
            ("misshapen", misfits),
        )
        if names
    ]
    if complaints:
        raise InputError(
            f"The file {source} does not fit the config.json beside it; of its tensors {', '.join(complaints)}."
        )
    module.load_state_dict(tensors, strict=True, assign=True)


def _today(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """A VAE tensor's name and shape as they have been since diffusers 0.18: the attention's layers had other ones."""
    before, attention, rest = name.rpartition("mid_block.attentions.0.")
    layer, _, kind = rest.rpartition(".")
    if not attention or layer == "group_norm":
        return name, tensor
    if tensor.dim() == 4 and tensor.shape[2:] == (1, 1):  # in the oldest files, a 1x1 convolution
        tensor = tensor[:, :, 0, 0]
    return f"{before}{attention}{OLD_VAE_NAMES.get(layer, layer)}.{kind}", tensor


# ---- the text's parts ------------------------------------------------------------------------------------------


def _read_tokenizer(folder: Path) -> CLIPTokenizer:
    with without_collecting():
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
    with without_collecting():
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
    _fill(text_encoder, tensors, source)
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


# ---- saving ----------------------------------------------------------------------------------------------------


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
    path = folder / f"{WEIGHTS[folder.name]}.safetensors"
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
