"""One UNet step and one decoding in Stable Diffusion 1.5's sizes: ours and diffusers', taking turns.

    python benchmarks/full_size_step.py [--rounds 5] [--device cpu] [--size 512] [--images 1] [--compile]

Random weights, the same for all; on a GPU without bfloat16 float16 replaces it. A step is guided: every image runs
with and without the text, 77 tokens each. Prints, for each precision, the medians, ours as a share of diffusers' in
the same precision and in float32, and the largest difference from the latter's result as a share of its
largest value. With --compile the UNets are also compiled in half precision, which takes minutes. On a GPU it also
prints the share of the card's rate at a large matrix product. For peak memory see full_size.py.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL as TheirVAE
from diffusers import UNet2DConditionModel
from timing import median, seconds
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ldm_course.unet import UNet, UNetConfig
from ldm_course.vae import AutoencoderKL, VAEConfig

Call = Callable[[], Tensor]
Pairs = dict[str, tuple[Call, Call]]  # precision -> (diffusers', ours)


def with_weights_of(empty: nn.Module, full: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A module from the meta device with the tensors of `full`; they are copied only if the dtype differs."""
    empty.load_state_dict({name: t.to(dtype) for name, t in full.state_dict().items()}, assign=True)
    return empty.eval().requires_grad_(False)


def unets(device: str, half: torch.dtype, side: int, b: int, compiled: bool) -> Pairs:
    sizes = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
    source: nn.Module = UNet2DConditionModel(**sizes).to(device).eval().requires_grad_(False)
    x, context = torch.randn(b, 4, side, side, device=device), torch.randn(2 * b, 77, 768, device=device)
    t, twice = torch.tensor([500]), torch.cat([x, x])

    def pair(dtype: torch.dtype, compile: bool) -> tuple[Call, Call]:
        with torch.device("meta"):
            theirs, ours = UNet2DConditionModel(**sizes), UNet(UNetConfig())
        theirs, ours = (with_weights_of(module, source, dtype) for module in (theirs, ours))
        if compile:
            theirs.compile(dynamic=False)
            ours.compile(dynamic=False)
        return (
            lambda: theirs(twice.to(dtype), t.to(device), context.to(dtype)).sample.float(),
            lambda: ours(twice.to(dtype), t.to(device), context.to(dtype)).float(),
        )

    pairs = {"float32": pair(torch.float32, False), name_of(half): pair(half, False)}
    if compiled:
        pairs[f"{name_of(half)}, compiled"] = pair(half, True)
    return pairs


def decoders(device: str, half: torch.dtype, side: int, b: int) -> Pairs:
    config = VAEConfig()
    levels = len(config.block_out_channels)
    source: nn.Module = TheirVAE(
        block_out_channels=config.block_out_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=config.layers_per_block,
    )
    source = source.to(device).eval().requires_grad_(False)
    z = torch.randn(b, 4, side, side, device=device)

    def pair(dtype: torch.dtype) -> tuple[Call, Call]:
        with torch.device("meta"):
            theirs, ours = TheirVAE.from_config(source.config), AutoencoderKL(config)
        theirs, ours = (with_weights_of(module, source, dtype) for module in (theirs, ours))
        return lambda: theirs.decode(z.to(dtype)).sample.float(), lambda: ours.decode(z.to(dtype)).float()

    return {"float32": pair(torch.float32), name_of(half): pair(half)}


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@torch.no_grad()
def compare(title: str, pairs: Pairs, rounds: int) -> None:
    answers = {name: [call().cpu() for call in pair] for name, pair in pairs.items()}  # also warms up
    times: dict[str, list[list[float]]] = {name: [[], []] for name in pairs}
    for _ in range(rounds):
        for name, pair in pairs.items():
            for spent, call in zip(times[name], pair):
                spent.append(seconds(call))
    true = answers["float32"][0]
    measure = statistics.median(times["float32"][0])
    print(f"{title:24} diffusers       ours   ratio   to float32   difference")
    for name in pairs:
        theirs, ours = (statistics.median(spent) for spent in times[name])
        off = ((answers[name][1] - true).abs().max() / true.abs().max()).item()
        print(
            f"  {name:20} {theirs:9.3f} s {ours:8.3f} s {ours / theirs:7.2f} {ours / measure:12.2f} {off:12.0e}",
            flush=True,
        )


@torch.no_grad()
def share_of_the_card(pairs: Pairs, half: torch.dtype) -> None:
    """Operations a second of our UNet in half precision, against those of one large matrix product."""
    n = 8192
    a = torch.randn(n, n, device="cuda", dtype=half)
    rate = 2 * n**3 / median(lambda: a @ a, rounds=20)
    call = pairs[name_of(half)][1]
    with FlopCounterMode(display=False) as counter:
        call()
    for name in [name for name in pairs if name != "float32"]:
        spent = median(pairs[name][1], rounds=20)
        print(
            f"  {name}: {counter.get_total_flops() / spent / rate:.0%} of the {rate / 1e12:.0f} TFLOP/s of a product"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    half = torch.float16 if cuda and not torch.cuda.is_bf16_supported() else torch.bfloat16
    if options.compile and not cuda:
        from torch._inductor import config

        config.freezing = True  # as ldm.load(compile=True) does
    side, b = options.size // 8, options.images
    torch.manual_seed(0)
    print(f"{options.device}, {torch.get_num_threads()} threads, medians of {options.rounds}")
    steps = unets(options.device, half, side, b, options.compile)
    compare(f"UNet, {b} of {side} x {side}, guided", steps, options.rounds)
    if cuda:
        share_of_the_card(steps, half)
    del steps
    compare(f"decoding {b} of {options.size} px", decoders(options.device, half, side, b), options.rounds)


if __name__ == "__main__":
    main()
