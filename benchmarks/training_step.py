"""One training step of the small UNet: ours against diffusers', on the same weights and batches, interleaved.

    python benchmarks/training_step.py [--rounds 12] [--batch-size 32] [--threads 2]

Prints the median time of a step, images a second, and throughput as a multiple of the first row's:

- diffusers: UNet2DConditionModel in float32 with torch's AdamW, latents and context vectors computed ahead.
- diffusers, bf16: the same under bfloat16 autocast.
- ours: the step of `ldm-course train unet`: bfloat16 autocast, fused AdamW, plain attention.

The last line is the share of our step that goes into making the batch.
Losses are printed, too, to see that all three learn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

import ldm_course as ldm
from ldm_course.loss import diffusion_loss
from ldm_course.train.unet import MIN_SNR_GAMMA, SCHEDULE, Examples, unet_loss
from ldm_course.unet import UNet

DATASET_SIZE = 512
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def diffusers_loss(unet: nn.Module, x0: Tensor, context: Tensor) -> Tensor:
    """The same loss around diffusers' UNet, and its attention as it comes."""
    return diffusion_loss(
        lambda x_t, t, text: unet(x_t, t, text).sample, SCHEDULE, x0, context, min_snr_gamma=MIN_SNR_GAMMA
    )


def step_of(unet: nn.Module, loss_of: Loss, bf16: bool, fused: bool) -> Callable[[Tensor, Tensor], float]:
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3, weight_decay=0.01, fused=fused)

    def step(x0: Tensor, context: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = loss_of(unet, x0, context)
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    def theirs() -> nn.Module:
        return UNet2DConditionModel.from_pretrained(ldm.bundled_path(), subfolder="unet")

    shipped = ldm.load(device="cpu").unet
    ours = UNet(shipped.config)
    ours.load_state_dict(shipped.state_dict())
    steps = {
        "diffusers": step_of(theirs(), diffusers_loss, bf16=False, fused=False),
        "diffusers, bf16": step_of(theirs(), diffusers_loss, bf16=True, fused=False),
        "ours": step_of(ours.train(), unet_loss, bf16=True, fused=True),
    }
    shape = (DATASET_SIZE, 4, shipped.config.sample_size, shipped.config.sample_size)
    torch.manual_seed(0)
    contexts = torch.randn(2 * DATASET_SIZE + 1, 77, shipped.config.cross_attention_dim).half()
    examples = Examples(torch.randn(shape), torch.full(shape, 0.05), contexts)
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in [*steps, "batch"]}
    losses: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(options.rounds + 2):  # the first two warm up
        start = time.perf_counter()
        batch = examples.batch(rng.integers(0, DATASET_SIZE, options.batch_size))
        spent = {"batch": time.perf_counter() - start}
        for name, step in steps.items():
            start = time.perf_counter()
            torch.manual_seed(round_number)  # the same noise and timesteps for all
            losses[name].append(step(*batch))
            spent[name] = time.perf_counter() - start
        if round_number >= 2:
            for name, seconds in spent.items():
                times[name].append(seconds)

    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"batches of {options.batch_size}, {options.threads} threads, medians of {options.rounds} interleaved rounds"
    )
    print(f"{'':16} {'ms a step':>10} {'images/s':>11} {'throughput':>11}   loss, first and last")
    for name in steps:
        rate, ratio = options.batch_size / medians[name], medians["diffusers"] / medians[name]
        first, last = losses[name][0], losses[name][-1]
        print(f"{name:16} {1000 * medians[name]:10.0f} {rate:11.1f} {ratio:10.2f}x   {first:.3f} {last:.3f}")
    share = medians["batch"] / (medians["batch"] + medians["ours"])
    print(f"making the batch takes {1000 * medians['batch']:.1f} ms, {share:.1%} of our step")


if __name__ == "__main__":
    main()
