"""`ldm-course export onnx`: the networks as ONNX files, and model.json with all that a program needs beside them.

With these files onnxruntime generates the model's images without torch and without this package, in Python, in a
browser or elsewhere. Each network computes in float32; its weights are stored in half of that, or as int8.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx  # noqa: F401  # torch and onnxscript need it; a missing one is named before any work is done
import onnxruntime
import torch
import torch.nn.functional as F
from onnxscript import ir
from torch import Tensor, nn
from torch.export import Dim

from ldm_course.blocks import Attention
from ldm_course.errors import InputError
from ldm_course.io.atomic import whole_folder
from ldm_course.io.save import write_vocabulary
from ldm_course.model import LatentDiffusion, check_model
from ldm_course.text import tokenize
from ldm_course.unet import SpatialTransformer, TransformerBlock, UNet
from ldm_course.vae import AutoencoderKL

FORMAT = 1
OPSET = 20
NAMES = ("unet", "unet_attention", "text_encoder", "vae_encoder", "vae_decoder")
FEW = 256  # numbers; so small a tensor stays as it is
LARGEST = 2**31 - 2**24  # bytes; ONNX cannot hold 2 GB in one file
LIMITS = {False: 1e-3, True: 0.5}  # relative errors that point to a fault: with halves, with int8

Files = dict[str, dict[str, Any]]


class Network(NamedTuple):
    """What becomes one file: a module, arguments to trace it with, and the names of what goes in and comes out."""

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


def export_onnx(
    model: LatentDiffusion, folder: str | Path, attention: bool = False, int8: bool = False
) -> dict[str, float]:
    """Write the model's networks as ONNX files, compare each with torch, and print a line about it.

    The files are written beside their place and then moved there together; an earlier export is replaced. Batch,
    height and width of every input are free. docs/export.md describes files and inputs.

    Args:
        folder: a new or an empty folder, or that of an earlier export.
        attention: also write unet_attention.onnx, which returns the cross-attention of each token as well.
        int8: store weights as int8, one scale per output channel: half the size again, and other images. Otherwise a
            tensor is stored as float16 if nothing is lost, as in the shipped model, and as float32 if not.

    Returns:
        The relative error of each file: the largest difference from torch as a share of the largest value.

    Raises:
        InputError: if the model or the folder does not allow it, or a file computes something else than torch.
    """
    _check(model, int8)
    folder = check_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)

    errors = {}
    with whole_folder(folder) as new:
        for name, network in _networks(model, attention).items():
            file = new / f"{name}.onnx"
            write_network(network, file, int8)
            errors[file.name] = relative_error(network, file)
            print(f"{file.name:20} {file.stat().st_size / 1e6:7.2f} MB   relative error {errors[file.name]:.1e}")
            if not errors[file.name] < LIMITS[int8]:
                raise InputError(
                    f"The file {file.name} computes something else than torch does; nothing was written."
                )
        described = _description(model) | {"files": _checksums(new), "relative_errors": errors}
        text = json.dumps(described, ensure_ascii=False, allow_nan=False)
        (new / "model.json").write_text(text + "\n", encoding="utf-8")
    return errors


def check_folder(folder: str | Path) -> Path:
    """The folder's full path. Raises InputError unless it is new, empty, or holds an earlier export alone."""
    folder = Path(os.path.realpath(os.path.expanduser(folder)))
    files = {*(f"{name}.onnx" for name in NAMES), "model.json"}
    if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= files):
        raise InputError(f"The folder {folder} exists and is not an export; choose a new or an empty folder.")
    return folder


def _check(model: LatentDiffusion, int8: bool) -> None:
    check_model(model)
    if not isinstance(model.unet, UNet) or not isinstance(model.vae, AutoencoderKL):
        raise InputError("Only this course's own UNet and AutoencoderKL can be exported.")
    if model.schedule.prediction_type != "epsilon":
        raise InputError(
            f"Only models that predict the noise can be exported; this one has the prediction type "
            f"{model.schedule.prediction_type!r}, which the programs that read the files do not know."
        )
    added = {token.content for token in model.tokenizer.added_tokens_decoder.values()}
    if added - set(model.tokenizer.all_special_tokens):
        raise InputError("Only CLIP's own tokens can be exported, and this tokenizer has added ones.")
    for name, part in (("UNet", model.unet), ("text encoder", model.text_encoder), ("VAE", model.vae)):
        if sum(weight.numel() * (1 if int8 else _bytes(weight)) for weight in part.parameters()) > LARGEST:
            raise InputError(f"The {name} has more than 2 GB of weights, too many for one ONNX file; use int8.")


def _bytes(weight: Tensor) -> int:
    return 2 if torch.equal(weight.half().to(weight.dtype), weight) else 4


# ---- the networks ----------------------------------------------------------------------------------------------


def unet_network(model: LatentDiffusion, attention: bool = False) -> Network:
    """The UNet, (sample, timestep, encoder_hidden_states) to eps; with `attention` also to the maps."""
    h, d = model.native_latent_size, model.unet.config.cross_attention_dim
    inputs = {
        "sample": _noise(2, model.unet.config.in_channels, h, h),
        "timestep": torch.tensor([500.0], dtype=torch.float32, device="cpu"),
        "encoder_hidden_states": _noise(2, model.tokenizer.model_max_length, d),
    }
    unet = _float32(model.unet)
    return Network(UNetWithMaps(unet), inputs, ("eps", "attention")) if attention else Network(unet, inputs, ("eps",))


def _networks(model: LatentDiffusion, attention: bool) -> dict[str, Network]:
    h, vae = model.native_latent_size, model.vae.config
    ids = tokenize(model.tokenizer, ["", "a dog with glasses"])
    image = _noise(2, vae.in_channels, model.native_size, model.native_size).clamp(-1, 1)
    latent = _noise(2, vae.latent_channels, h, h) / vae.scaling_factor
    networks = {
        "unet": unet_network(model),
        "unet_attention": unet_network(model, attention=True),
        "text_encoder": Network(TextEncoder(_float32(model.text_encoder)), {"input_ids": ids}, ("context",)),
        "vae_encoder": Network(VAEEncoder(_float32(model.vae)), {"image": image}, ("mean", "logvar")),
        "vae_decoder": Network(VAEDecoder(_float32(model.vae)), {"latent": latent}, ("image",)),
    }
    return {name: network for name, network in networks.items() if attention or name != "unet_attention"}


def _float32(module: Any) -> Any:
    """A copy on the CPU, so that the model itself stays as it is."""
    return copy.deepcopy(module).to("cpu", torch.float32).eval().requires_grad_(False)


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator("cpu").manual_seed(0), dtype=torch.float32, device="cpu")


class TextEncoder(nn.Module):
    def __init__(self, text_encoder: nn.Module):
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.text_encoder(input_ids=input_ids).last_hidden_state


class VAEEncoder(nn.Module):
    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae = vae

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.vae.encode(image)
        return posterior.mean, posterior.logvar


class VAEDecoder(nn.Module):
    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> Tensor:
        return self.vae.decode(latent)


class UNetWithMaps(nn.Module):
    """A UNet that also returns where each token acts: its cross-attention, the mean over heads and layers.

    The core's attention is fused and keeps no probabilities. Hooks see what goes into each cross-attention, and
    compute them once more; what comes out of it, and so eps, is the UNet's own.

    forward: as the UNet's, to eps (b, c, h, w) and the maps (b, tokens, h, w), which sum to 1 over the tokens.
    """

    def __init__(self, unet: UNet):
        super().__init__()
        self.unet = unet
        sizes: list[torch.Size] = []
        maps: list[Tensor] = []

        def before_transformer(_: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
            sizes.append(inputs[0].shape[-2:])

        def after_attention(attention: Attention, inputs: tuple[Tensor, Tensor], _: Tensor) -> None:
            x, context = inputs
            q = attention.split_heads(attention.to_q(x))  # (b, heads, n, d)
            k = attention.split_heads(attention.to_k(context))  # (b, heads, tokens, d)
            probabilities = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1).mean(1)  # (b, n, tokens)
            maps.append(probabilities.transpose(1, 2).unflatten(2, sizes[-1]))  # (b, tokens, h', w')

        for module in unet.modules():
            if isinstance(module, SpatialTransformer):
                module.register_forward_pre_hook(before_transformer)
            if isinstance(module, TransformerBlock):
                module.attn2.register_forward_hook(after_attention)
        self.maps = lambda: maps

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.maps()
        maps.clear()
        eps = self.unet(sample, timestep, encoder_hidden_states)
        size = sample.shape[-2:]
        resized = [F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in maps]
        return eps, torch.stack(resized).mean(0)


# ---- one file --------------------------------------------------------------------------------------------------


def write_network(network: Network, file: Path, int8: bool = False) -> None:
    """Trace a network and write it; batch, height and width stay free, a timestep and 77 tokens do not."""
    everywhere, of_images = {0: "batch"}, {0: "batch", 2: "height", 3: "width"}
    axes = {"input_ids": everywhere, "timestep": {}, "encoder_hidden_states": everywhere}
    names = {name: axes.get(name, of_images) for name in network.inputs}
    free = tuple(dict.fromkeys(each, Dim.DYNAMIC) for each in names.values())
    with _quiet():
        # Strictly: otherwise len(tensor) is a number, and the UNet would be traced for this one batch.
        traced = torch.export.export(network.module, tuple(network.inputs.values()), dynamic_shapes=free, strict=True)
        program = torch.onnx.export(
            traced,
            input_names=list(network.inputs),
            output_names=list(network.outputs),
            dynamic_shapes=tuple(names.values()),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    exported: ir.Model = program.model
    for node in exported.graph:
        node.metadata_props.clear()  # the lines of Python that made it
        for value in node.outputs:
            value.metadata_props.clear()
    _store_small(exported.graph, int8)
    ir.save(exported, file)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch and its exporter say about themselves."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _store_small(graph: ir.Graph, int8: bool) -> None:
    """Store the weights as int8 and scales, or as halves; the graph turns them back into float32, once, when loaded.

    DequantizeLinear would do the same for int8, but onnxruntime leaves that to every run, a sixth more time.
    """
    first = graph[0]
    for name, value in list(graph.initializers.items()):
        assert value.const_value is not None
        w, axis = value.const_value.numpy(), _output_axis(value)
        if w.dtype != np.float32 or w.size < FEW:
            continue
        if int8 and axis is not None:
            largest = np.abs(w).max(axis=tuple(i for i in range(w.ndim) if i != axis), keepdims=True)
            scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
            stored = _initializer(graph, f"{name}.int8", np.rint(w / scale).astype(np.int8))
        elif np.array_equal(w.astype(np.float16), w):
            stored, scale = _initializer(graph, f"{name}.half", w.astype(np.float16)), None
        else:
            continue
        nodes = [ir.node("Cast", [stored], attributes={"to": ir.DataType.FLOAT})]
        if scale is not None:
            nodes.append(ir.node("Mul", [nodes[0].outputs[0], _initializer(graph, f"{name}.scale", scale)]))
        graph.insert_before(first, nodes)
        value.replace_all_uses_with(nodes[-1].outputs[0])
        del graph.initializers[name]


def _output_axis(value: ir.Value) -> int | None:
    """Which axis of a layer's weight holds its outputs; None if the value is something else than a weight."""
    user, place = next(iter(value.uses()))
    if (user.op_type, place) in (("Conv", 1), ("Reshape", 0), ("Gather", 0)):
        return 0  # (out, in, height, width), which TokenConv flattens; (tokens, d)
    if (user.op_type, place) == ("Gemm", 1):
        return 0 if user.attributes.get_int("transB", 0) else 1
    return len(value.shape or ()) - 1 if (user.op_type, place) == ("MatMul", 1) else None


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def session(file: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """A file, ready to run on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def relative_error(network: Network, file: Path) -> float:
    """How far onnxruntime's results are from torch's, as a share of the largest value; the worst of all outputs."""
    with torch.no_grad():
        theirs = network.module(*network.inputs.values())
    ours = session(file).run(None, {name: value.numpy() for name, value in network.inputs.items()})
    pairs = zip(ours, (theirs,) if isinstance(theirs, Tensor) else theirs)
    return max(float(np.abs(a - b.numpy()).max() / b.abs().max()) for a, b in pairs)


# ---- model.json ------------------------------------------------------------------------------------------------


def _description(model: LatentDiffusion) -> dict[str, Any]:
    schedule, tokenizer = model.schedule, model.tokenizer
    with tempfile.TemporaryDirectory() as name:
        write_vocabulary(tokenizer, folder := Path(name))
        vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    return {
        "format": FORMAT,
        "scaling_factor": model.vae.config.scaling_factor,
        "latent_channels": model.vae.config.latent_channels,
        "downscale": model.vae.downscale,
        "native_size": model.native_size,
        "context": [tokenizer.model_max_length, model.unet.config.cross_attention_dim],
        "schedule": {
            "alpha_bars": schedule.alpha_bars.tolist(),
            "final_alpha_bar_ddim": schedule.alpha_bar(-1),
            "steps_offset": schedule.steps_offset,
            "spacing": schedule.timestep_spacing,
            "prediction_type": schedule.prediction_type,
        },
        "tokenizer": {
            "vocab": vocab,
            "merges": [line for line in merges if line and not line.startswith("#version")],
            "bos": tokenizer.bos_token_id,
            "eos": tokenizer.eos_token_id,
            "pad": tokenizer.pad_token_id,
            "model_max_length": tokenizer.model_max_length,
            "known_words": None if model.known_words is None else sorted(model.known_words),
        },
    }


def _checksums(folder: Path) -> Files:
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()}
