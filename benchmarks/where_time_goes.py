"""Where the time of an image goes: operations counted, and compared with this machine's rate of matrix products.

    python benchmarks/where_time_goes.py [--dtype float32] [--images 1]

For the text encoder, one guided UNet step and the decoder of the shipped model: billions of floating-point operations
(a multiplication and an addition are two), milliseconds, and the rate as a share of that of one large matrix
product. Then the kinds of operations that a UNet step spends its time in.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from timing import median
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import ldm_course as ldm

KINDS = {
    "convolution": ("conv",),
    "linear layers": ("addmm", "aten::mm", "bmm"),
    "attention": ("attention",),
    "norms": ("norm",),
    "SiLU, GELU": ("silu", "gelu"),
    "adding, copying, joining": ("add", "mul", "copy", "cat", "repeat", "upsample"),
}


def operations(call: Callable[[], object]) -> float:
    """Billions."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def kind_of(name: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "the rest")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--images", type=int, default=1)
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    model = ldm.load(device="cpu", dtype=dtype)
    side, b = model.native_latent_size, options.images

    a = torch.randn(2048, 2048, dtype=dtype)
    best = operations(lambda: a @ a) / median(lambda: a @ a, rounds=10)
    print(f"{options.dtype}, {torch.get_num_threads()} threads; a matrix product: {best:.0f} billion operations/s")

    z, t = torch.randn(b, 4, side, side), torch.tensor([500])
    x, prompts = torch.cat([z, z]).to(dtype), [""] * b + ["a dog with glasses"] * b
    context = model.embed(prompts)
    calls: dict[str, Callable[[], object]] = {
        "text encoder": lambda: model.embed(prompts),
        "one UNet step": lambda: model.unet(x, t, context),
        "decoder": lambda: model.decode(z),
    }
    for name, call in calls.items():
        count, spent = operations(call), median(call, rounds=30)
        rate = count / spent
        shown = f"{rate:6.0f} billion a second, {rate / best:4.0%}"
        print(f"{name:14} {count:7.2f} billion {1000 * spent:8.2f} ms {shown}")

    step = calls["one UNet step"]
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(20):
            step()
    shares: dict[str, float] = {}
    for event in profiler.key_averages():
        kind = kind_of(event.key)
        shares[kind] = shares.get(kind, 0) + event.self_cpu_time_total
    total = sum(shares.values())
    print(
        "a UNet step: " + ", ".join(f"{k} {v / total:.0%}" for k, v in sorted(shares.items(), key=lambda kv: -kv[1]))
    )


if __name__ == "__main__":
    main()
