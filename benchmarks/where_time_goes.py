"""Where the time of a picture goes: multiplications counted, against the rate this machine multiplies matrices at.

    python benchmarks/where_time_goes.py [--dtype float32] [--pictures 1]

For the text encoder, one guided UNet step and the decoder of the shipped model: billions of floating-point operations
(a multiplication and an addition are two), milliseconds, and the rate as a share of what one large matrix product
reaches here. Then which kinds of operations a UNet step spends its time in.
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
    parser.add_argument("--pictures", type=int, default=1)
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    model = ldm.load(dtype=dtype)
    side, b = model.unet.config.sample_size, options.pictures

    a = torch.randn(2048, 2048, dtype=dtype)
    best = operations(lambda: a @ a) / median(lambda: a @ a, rounds=10)
    print(f"{options.dtype}, {torch.get_num_threads()} threads; a matrix product: {best:.0f} billion operations/s")

    x, t = torch.randn(b, 4, side, side).to(dtype), torch.tensor([500])
    text = model.unet.read(ldm.encode_prompt(model, [""] * b + ["a dog with glasses"] * b))
    calls: dict[str, Callable[[], object]] = {
        "text encoder": lambda: ldm.encode_prompt(model, [""] * b + ["a dog with glasses"] * b),
        "one UNet step": lambda: model.unet(x, t, text),
        "decoder": lambda: model.vae.decode(x),
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
