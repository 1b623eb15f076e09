"""A model as large as Stable Diffusion 1.5, with random weights: our latents against diffusers', and peak memory.

    python benchmarks/full_size.py [--steps 3] [--device cpu] [--dtype float32] [--size 512] [--images 1]

Makes the checkpoint with diffusers (2.1 GB in float16, in a temporary folder), then samples from the same noise with
diffusers' StableDiffusionPipeline and with ours, each in its own process, and prints the largest difference of the
latents as a share of their largest value, that of the images in steps of 1/255, seconds for a step of the loop, and
the peak memory: torch's on a GPU, the whole process's on a CPU. On a GPU memory is limited to 14 GiB, as on a T4.
Random weights give no meaningful image, but they show whether two programs compute the same.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

PROMPT, GUIDANCE_SCALE, GIB = "a dog with glasses", 7.5, 2**30
WHO = ("diffusers", "ours", "ours, offload")


def make(folder: Path) -> None:
    """A random checkpoint in Stable Diffusion 1.5's sizes, saved by diffusers in float16."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    import ldm_course as ldm

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(ldm.bundled_path() / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    levels = 4
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=2,
        sample_size=512,
    )
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    pipe = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=CLIPTextModel(text).half(),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=DDIMScheduler(**schedule, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder, variant="fp16")


def generate(options: argparse.Namespace) -> dict[str, float]:
    """Sample with one of the programs, store latents and images in the folder, and return seconds and bytes."""
    if options.device.startswith("cuda"):
        total = torch.cuda.get_device_properties(options.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, 14 * GIB / total), options.device)
    side = options.size // 8
    noise = torch.randn(options.images, 4, side, side, generator=torch.Generator().manual_seed(0))
    ticks: list[float] = []  # the time at each step
    latents, images = (_diffusers if options.only == "diffusers" else _ours)(options, noise, ticks)
    torch.save((latents.float().cpu(), images.float().cpu()), options.folder / f"{options.only}.pt")
    if options.device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated(options.device)
    else:
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": statistics.median(after - before for before, after in zip(ticks, ticks[1:])), "peak": peak}


def _ours(options: argparse.Namespace, noise: Tensor, ticks: list[float]) -> tuple[Tensor, Tensor]:
    import ldm_course as ldm

    dtype = getattr(torch, options.dtype)
    model = ldm.load(options.folder, device=options.device, dtype=dtype, offload=options.only.endswith("offload"))
    negative, context = model.embed([""] * len(noise) + [PROMPT] * len(noise)).chunk(2)
    timesteps, guidance = model.schedule.timesteps(options.steps), {"guidance_scale": GUIDANCE_SCALE}
    for state in ldm.denoise(model, noise, context, timesteps, negative_context=negative, **guidance):
        x = state.x_t.cpu()  # waits for the GPU
        if state.t >= 0:  # the last state needs no UNet
            ticks.append(time.perf_counter())
    return x, model.decode(x)


def _diffusers(options: argparse.Namespace, noise: Tensor, ticks: list[float]) -> tuple[Tensor, Tensor]:
    from diffusers import StableDiffusionPipeline

    dtype = getattr(torch, options.dtype)
    pipe = StableDiffusionPipeline.from_pretrained(
        options.folder, variant="fp16", torch_dtype=dtype, safety_checker=None, requires_safety_checker=False
    ).to(options.device)
    pipe.set_progress_bar_config(disable=True)

    def tick(pipe: StableDiffusionPipeline, i: int, t: int, values: dict[str, Tensor]) -> dict[str, Tensor]:
        values["latents"].cpu()
        ticks.append(time.perf_counter())
        return {}

    x = pipe(
        [PROMPT] * len(noise),
        num_inference_steps=options.steps,
        guidance_scale=GUIDANCE_SCALE,
        latents=noise.to(options.device, dtype),
        output_type="latent",
        callback_on_step_end=tick,
    ).images
    pipe.vae.enable_slicing()
    with torch.no_grad():
        return x, pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the checkpoint is, or where to store it")
    parser.add_argument("--only", choices=WHO, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(generate(options)))
        return
    if options.steps < 3:
        parser.error("a median of steps needs --steps 3 or more")

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "random"
        if not (folder / "model_index.json").is_file():
            print("making the checkpoint ...", flush=True)
            make(folder)
        results, generated = {}, {}
        whos = WHO if options.device.startswith("cuda") else WHO[:2]  # offload: from the CPU to it
        for who in whos:
            command = [sys.executable, __file__, *sys.argv[1:], "--folder", str(folder), "--only", who]
            ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results[who] = json.loads(ran.stdout.splitlines()[-1])
            generated[who] = torch.load(folder / f"{who}.pt")
    print(f"{options.images} of {options.size} px, {options.steps} steps, {options.device}, {options.dtype}")
    print(f"{'':15} {'s a step':>9} {'peak, GB':>9} {'latents':>9} {'images':>9}   (largest difference)")
    theirs = generated["diffusers"]
    for who in whos:
        latents, images = generated[who]
        difference = ((latents - theirs[0]).abs().max() / theirs[0].abs().max()).item()
        shades = 127.5 * (images.clamp(-1, 1) - theirs[1].clamp(-1, 1)).abs().max().item()
        row = results[who]
        print(f"{who:15} {row['seconds']:9.2f} {row['peak'] / 1e9:9.2f} {difference:9.1e} {shades:6.3f}/255")


if __name__ == "__main__":
    main()
