"""One UNet step and one decoding in Stable Diffusion 1.5's sizes: ours against diffusers', taking turns.

    python benchmarks/full_size_step.py [--rounds 5] [--device cpu] [--size 512] [--pictures 1]

Random weights, the same for all; float16 stands in for bfloat16 on a GPU without the latter. A step is what guidance
takes: every picture with and without the text, 77 tokens each. What our loop does once for all steps (reading the
text) is done once here, too. Prints medians, their ratio to diffusers', and the largest difference of the answers as
a share of their largest value. For peak memory see full_size.py.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import AutoencoderKL as TheirVAE
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ldm_course.unet import UNet, UNetConfig
from ldm_course.vae import AutoencoderKL, VAEConfig

Contestants = dict[str, Callable[[], Tensor]]


def with_weights_of(ours: nn.Module, theirs: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Ours, from the meta device, on the same tensors, not on copies of them (unless the dtype is another)."""
    ours.load_state_dict({name: t.to(dtype) for name, t in theirs.state_dict().items()}, assign=True)
    return ours.eval().requires_grad_(False)


def unets(device: str, half: torch.dtype, side: int, b: int) -> Contestants:
    theirs = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8).to(device).eval()
    x, context = torch.randn(b, 4, side, side, device=device), torch.randn(2 * b, 77, 768, device=device)
    t, twice = torch.tensor([500]), torch.cat([x, x])
    contestants: Contestants = {"diffusers, float32": lambda: theirs(twice, t.to(device), context).sample}
    for name, dtype in (("ours, float32", torch.float32), (f"ours, {str(half).removeprefix('torch.')}", half)):
        with torch.device("meta"):
            ours = UNet(UNetConfig())
        ours = with_weights_of(ours, theirs, dtype)
        text = ours.read(context.to(dtype))
        contestants[name] = lambda ours=ours, text=text, dtype=dtype: ours(x.to(dtype), t, text).float()
    return contestants


def decoders(device: str, half: torch.dtype, side: int, b: int) -> Contestants:
    config = VAEConfig()
    levels = len(config.block_out_channels)
    theirs = TheirVAE(
        block_out_channels=config.block_out_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=config.layers_per_block,
    ).to(device)
    theirs = theirs.eval()
    z = torch.randn(b, 4, side, side, device=device)
    contestants: Contestants = {"diffusers, float32": lambda: theirs.decode(z).sample}
    for name, dtype in (("ours, float32", torch.float32), (f"ours, {str(half).removeprefix('torch.')}", half)):
        with torch.device("meta"):
            ours = AutoencoderKL(config)
        ours = with_weights_of(ours, theirs, dtype)
        contestants[name] = lambda ours=ours, dtype=dtype: ours.decode(z.to(dtype)).float()
    return contestants


@torch.no_grad()
def compare(title: str, contestants: Contestants, rounds: int) -> None:
    answers = {who: call().cpu() for who, call in contestants.items()}  # and they are warm
    seconds: dict[str, list[float]] = {who: [] for who in contestants}
    for _ in range(rounds):
        for who, call in contestants.items():
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[who].append(time.perf_counter() - start)
    first, *_ = contestants
    print(title)
    for who in contestants:
        median, measure = statistics.median(seconds[who]), statistics.median(seconds[first])
        off = ((answers[who] - answers[first]).abs().max() / answers[first].abs().max()).item()
        print(f"  {who:20} {median:8.3f} s   ratio {median / measure:5.2f}   off by {off:.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--pictures", type=int, default=1)
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    half = torch.float16 if cuda and not torch.cuda.is_bf16_supported() else torch.bfloat16
    side, b = options.size // 8, options.pictures
    torch.manual_seed(0)
    print(f"{options.device}, {torch.get_num_threads()} threads, medians of {options.rounds}")
    compare(f"UNet, {b} of {side} x {side}, guided", unets(options.device, half, side, b), options.rounds)
    compare(f"decoding {b} of {options.size} px", decoders(options.device, half, side, b), options.rounds)


if __name__ == "__main__":
    main()
