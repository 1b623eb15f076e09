"""Train the UNet: predict the noise in the latent of an image, given its caption.

Latents and context vectors are computed once and cached: a step is nothing but the UNet.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from ldm_course.images import pixels_to_tensor
from ldm_course.loss import diffusion_loss, drop_captions
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import txt2img
from ldm_course.scenes import captions, contact_sheet
from ldm_course.scenes.chimera import Chimera, mixed_scene
from ldm_course.schedule import NoiseSchedule
from ldm_course.train import data, loop
from ldm_course.unet import UNet, UNetConfig
from ldm_course.vae import AutoencoderKL

CONFIG = UNetConfig(
    block_out_channels=(64, 128, 160),
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    cross_attention_dim=128,
    attention_head_dim=4,
    norm_num_groups=32,
    sample_size=16,
)
SCHEDULE = NoiseSchedule()  # Stable Diffusion 1.5's
CAPTIONS_PER_IMAGE = 2
DROPOUT = 0.1  # probability that a caption is replaced by the empty one, for classifier-free guidance
MIN_SNR_GAMMA = 5.0  # Hang et al. 2023, https://arxiv.org/abs/2303.09556
SAMPLE_PROMPTS = [
    "a dog with glasses",
    "a brown dog sitting on the beach",
    "a white cat with a hat sleeping in a room",
    "an orange bear with a scarf running in the snow",
    "a pink pig with headphones sitting in the city",
    "a blue elephant with glasses sitting in the forest",
    "a black rabbit with a crown running on the beach",
    "a plain white dog running in the snow",
    "a cat with glasses",
    "a bear sleeping in the forest",
    "a rabbit with headphones",
    "a dog running",
]


def unet_loss(unet: Callable[[Tensor, Tensor, Tensor], Tensor], x0: Tensor, context: Tensor) -> Tensor:
    """`diffusion_loss` with this model's schedule and weighting, and the attention whose backward pass is quickest.

    On a CPU that of torch's fused attention takes longer than that of plain matrix products: 28% of a step.
    """
    with sdpa_kernel(SDPBackend.MATH) if x0.device.type == "cpu" else nullcontext():
        return diffusion_loss(unet, SCHEDULE, x0, context, min_snr_gamma=MIN_SNR_GAMMA)


@dataclass(frozen=True)
class Examples:
    """The training set: latents and context vectors, computed ahead, on the CPU.

    means, stds: of the posterior of each image's scaled latent, (n, 4, h, w).
    contexts: CAPTIONS_PER_IMAGE for each image, image by image, then the empty one: (2n + 1, 77, d).
    """

    means: Tensor
    stds: Tensor
    contexts: Tensor

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """A sample of each image's latent, (b, 4, h, w), and one of its contexts or the empty one, (b, 77, d)."""
        picks = torch.from_numpy(indices)
        x0 = self.means[picks] + self.stds[picks] * torch.randn_like(self.means[picks])
        which = torch.randint(CAPTIONS_PER_IMAGE, picks.shape, dtype=torch.int64, device="cpu")
        context = self.contexts[picks * CAPTIONS_PER_IMAGE + which]
        return x0, drop_captions(context, self.contexts[-1], DROPOUT).float()


@torch.no_grad()
def encode_images(vae: AutoencoderKL, images: np.ndarray) -> dict[str, Tensor]:
    """Mean and standard deviation of the posterior of every image's scaled latent, "means" and "stds", (n, 4, h, w).

    As `LatentDiffusion.encode`, which gives one sample of it, in large batches and under bfloat16: that is off by a
    ninth of the noise at t = 0.
    """
    device, means, stds = next(vae.parameters()).device, [], []
    with torch.autocast(device.type, torch.bfloat16):
        for start in tqdm(range(0, len(images), 32), desc="encoding images", unit_scale=32):
            posterior = vae.encode(pixels_to_tensor(images[start : start + 32]).to(device))
            means.append(posterior.mean.float().cpu() * vae.config.scaling_factor)
            stds.append(posterior.std.float().cpu() * vae.config.scaling_factor)
    return {"means": torch.cat(means), "stds": torch.cat(stds)}


def image_captions(seed: int, count: int) -> tuple[list[str], list[str], Tensor]:
    """Captions of the first `count` images, CAPTIONS_PER_IMAGE for each, image by image.

    Returns the captions with the scene's own animal, those with a chimera's other animal, and the share of the own
    one, (count * CAPTIONS_PER_IMAGE,), which is 1 where an animal is whole.
    """
    own, others, shares = [], [], []
    for i in range(count):
        made = mixed_scene(seed, i)
        scene, other, share = (
            (made.scene, made.other, made.share) if isinstance(made, Chimera) else (made, made.animal, 1)
        )
        for k in range(CAPTIONS_PER_IMAGE):
            wording = f"caption-{seed}-{i}-{k}"
            own.append(captions.random_caption(scene, random.Random(wording)))
            others.append(captions.random_caption(replace(scene, animal=other), random.Random(wording)))
            shares.append(share)
    return own, others, torch.tensor(shares)


def embed_captions(model: LatentDiffusion, own: list[str], others: list[str], shares: Tensor) -> dict[str, Tensor]:
    """The context of every caption, and last that of the empty one, "contexts", (n + 1, 77, d), float16.

    A chimera's is the mean of the contexts with either animal, weighted by their shares: the text vectors are sums of
    independent parts, so only the part that says the animal is mixed.
    """
    contexts = []
    for i in tqdm(range(0, len(own), 128), desc="embedding captions", unit_scale=128):
        share = shares[i : i + 128, None, None].to(model.device)
        context = share * model.embed(own[i : i + 128]) + (1 - share) * model.embed(others[i : i + 128])
        contexts.append(context.half().cpu())
    return {"contexts": torch.cat([*contexts, model.embed([""]).half().cpu()])}


def train_unet(options: loop.Options, data_folder: Path, model: LatentDiffusion) -> UNet:
    """Train the model's UNet on the rendered scenes' latents; VAE and text encoder stay as they are.

    `options.parts` names the cached latents and contexts.
    """
    device = loop.processes().device
    model.vae.to(device)
    model.text_encoder.to(device)
    model.unet.to(device)
    images = data.training_images(data_folder, "mixed", options)
    texts = image_captions(options.seed, options.dataset_size)
    text = ("text encoder", "tokenizer")
    latents = data.cached(data_folder, "latents", options, ("VAE encoder",), lambda: encode_images(model.vae, images))
    contexts = data.cached(data_folder, "contexts", options, text, lambda: embed_captions(model, *texts))
    examples = Examples(**latents, **contexts)

    def loss_of(unet: nn.Module, indices: np.ndarray, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        x0, context = (tensor.to(device) for tensor in examples.batch(indices))
        return unet_loss(unet, x0, context), {}

    def sample(unet: UNet, file: Path) -> None:
        how: dict[str, Any] = {"num_inference_steps": 15, "scheduler": "dpm++", "guidance_scale": 3.0, "seed": 0}
        contact_sheet(txt2img(replace(model, unet=unet), SAMPLE_PROMPTS, **how), 6).save(file)

    return loop.train("unet", model.unet, loss_of, options, sample)
