"""Train the UNet: predict the noise in a latent of a known picture, given its caption.

Latents and caption embeddings are computed once and kept, on disk and in memory: a step is nothing but the UNet.
"""

from __future__ import annotations

import random
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from ldm_course.checkpoint import LatentDiffusion
from ldm_course.pipelines import txt2img
from ldm_course.scenes import captions, contact_sheet, training_scene
from ldm_course.schedulers import NoiseSchedule
from ldm_course.training import data, loop
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
CAPTIONS_PER_PICTURE = 2
DROPOUT = 0.1  # share of captions replaced by the empty one, for classifier-free guidance
SAMPLE_PROMPTS = (
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
)
MIN_SNR = 5.0  # Hang et al. 2023, https://arxiv.org/abs/2303.09556


class Trainer(nn.Module):
    """Noisy latent, timestep and caption to the weighted squared error of the predicted noise."""

    def __init__(self, unet: UNet):
        super().__init__()
        self.unet = unet

    def forward(
        self, x_t: Tensor, t: Tensor, context: Tensor, noise: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        # On a CPU the backward pass of torch's fused attention takes longer than that of plain matrix products.
        with sdpa_kernel(SDPBackend.MATH) if x_t.device.type == "cpu" else nullcontext():
            predicted = self.unet(x_t, t, context).float()
        error = (predicted - noise).square().mean(dim=(1, 2, 3))
        return (weight * error).mean(), error.mean()


class Examples:
    """What training steps draw from: latents and captions' vectors, computed ahead.

    means, stds: of the pictures' scaled latents, (n, 4, h, w).
    contexts: CAPTIONS_PER_PICTURE for each picture, picture by picture, then the empty one: (2n + 1, 77, d).
    """

    def __init__(self, means: Tensor, stds: Tensor, contexts: Tensor):
        self.means, self.stds, self.contexts = means, stds, contexts
        self.alpha_bars = SCHEDULE.alpha_bars.float()
        snr = self.alpha_bars / (1 - self.alpha_bars)
        self.weights = snr.clamp(max=MIN_SNR) / snr  # eq. 9 there, for a network that predicts noise

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Noisy latents of these pictures, timesteps, contexts, the noise, and weights of the error."""
        picks = torch.from_numpy(indices)
        which = picks * CAPTIONS_PER_PICTURE + torch.randint(CAPTIONS_PER_PICTURE, picks.shape)
        which[torch.rand(len(which)) < DROPOUT] = len(self.contexts) - 1
        x0 = self.means[picks] + self.stds[picks] * torch.randn_like(self.means[picks])
        noise, t = torch.randn_like(x0), torch.randint(len(self.alpha_bars), picks.shape)
        a = self.alpha_bars[t][:, None, None, None]
        x_t = a.sqrt() * x0 + (1 - a).sqrt() * noise
        return x_t, t, self.contexts[which].float(), noise, self.weights[t]


def encode_pictures(vae: AutoencoderKL, images: np.ndarray) -> dict[str, Tensor]:
    """Mean and standard deviation of every picture's scaled latent, "means" and "stds", (n, 4, 16, 16) each."""
    device, means, stds = _device(), [], []
    vae = vae.to(device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):  # errs by a ninth of the noise at t = 0
        for start in tqdm(range(0, len(images), 32), desc="encoding pictures", unit_scale=32):
            posterior = vae.encode(data.to_tensor(images[start : start + 32]).to(device))
            means.append(posterior.mean.float().cpu() * vae.config.scaling_factor)
            stds.append(posterior.std.float().cpu() * vae.config.scaling_factor)
    vae.cpu()
    return {"means": torch.cat(means), "stds": torch.cat(stds)}


def encode_captions(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, texts: list[str]) -> dict[str, Tensor]:
    """The text encoder's vectors of every caption, "contexts", (n, 77, 128), float16 to save memory."""
    device, contexts = _device(), []
    text_encoder.to(device)  # type: ignore[arg-type]
    with torch.no_grad():
        for start in tqdm(range(0, len(texts), 128), desc="encoding captions", unit_scale=128):
            tokens = tokenizer(texts[start : start + 128], padding="max_length", return_tensors="pt").input_ids
            contexts.append(text_encoder(tokens.to(device)).last_hidden_state.half().cpu())
    text_encoder.cpu()
    return {"contexts": torch.cat(contexts)}


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def picture_captions(seed: int, count: int) -> list[str]:
    """The captions of the first `count` pictures, CAPTIONS_PER_PICTURE for each, picture by picture."""
    texts = []
    for i in range(count):
        rng = random.Random(f"caption-{seed}-{i}")
        scene = training_scene(seed, i)
        texts += [captions.random_caption(scene, rng) for _ in range(CAPTIONS_PER_PICTURE)]
    return texts


def train_unet(
    options: loop.Options,
    data_folder: Path,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
) -> UNet:
    """Train on the rendered scenes' latents; VAE and text encoder stay as they are."""
    images = data.pictures(data_folder, "train", options.seed, options.pictures)
    texts = [*picture_captions(options.seed, options.pictures), ""]
    which = f"{options.seed}-{options.pictures}"
    encoder = nn.ModuleList([vae.encoder, vae.quant_conv])
    latents = data.kept(data_folder, f"latents-{which}", encoder, lambda: encode_pictures(vae, images))
    contexts = data.kept(
        data_folder, f"contexts-{which}", text_encoder, lambda: encode_captions(tokenizer, text_encoder, texts)
    )["contexts"]
    examples = Examples(latents["means"], latents["stds"], contexts)
    torch.manual_seed(options.seed)

    def loss_of(model: Trainer, indices: np.ndarray, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        device = next(model.parameters()).device
        loss, error = model(*(tensor.to(device) for tensor in examples.batch(indices)))
        return loss, {"mse": error.detach()}

    def sample(model: Trainer, file: Path) -> None:
        device = next(model.parameters()).device
        text_encoder.to(device)  # type: ignore[arg-type]
        parts = LatentDiffusion(vae.to(device), model.unet, text_encoder, tokenizer, SCHEDULE)
        painted = txt2img(
            parts, list(SAMPLE_PROMPTS), num_inference_steps=15, scheduler="dpm++", guidance_scale=3.0, seed=0
        )
        assert isinstance(painted, list)
        contact_sheet(painted, 6).save(file)

    trained = loop.train("unet", Trainer(UNet(CONFIG)), loss_of, options, sample)
    return trained.unet
