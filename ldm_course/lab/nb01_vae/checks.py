"""The exercises of notebook 01."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod

import torch
from PIL import Image
from torch import Tensor

from ldm_course import vae
from ldm_course.lab.shared.verdict import RIGHT, STEPS, WRONG, Verdict, compare, draws, plugged
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import img2img
from ldm_course.scenes import Scene


def reparameterize(yours: Callable[[Tensor, Tensor, Tensor], Tensor], model: LatentDiffusion) -> Verdict:
    """Exercise 1: a draw that gradients pass through; first alone, then in the encoder of image-to-image."""
    mistakes = [
        (
            lambda mean, std, noise: mean + std**2 * noise,
            "It scales the noise by the variance; a draw from N(mean, std^2) has the standard deviation std.",
        ),
        (
            lambda mean, std, noise: mean + torch.exp(0.5 * std) * noise,
            "It treats std as a log-variance; here it is the standard deviation already, so no exp is needed.",
        ),
        (
            lambda mean, std, noise: (mean + noise) * std,
            "It scales the mean, too; only the noise is scaled by std, and the mean is added after that.",
        ),
        (lambda mean, std, noise: std + mean * noise, "mean and std are swapped."),
        (lambda mean, std, noise: mean + noise, "It leaves std out: every draw is as wide as the prior."),
        (lambda mean, std, noise: mean, "It leaves the noise out: that is a plain autoencoder's latent."),
        (lambda mean, std, noise: mean + std, "It leaves the noise out: every draw is one std off the mean."),
    ]
    mean, std, noise = draws(3)
    cases = [(mean, std.abs(), noise), (noise, 0.1 + std**2, mean)]
    verdict = compare(yours, vae.reparameterize, cases, mistakes)
    if verdict.status == WRONG and _varies(yours, cases[0]):
        return Verdict(WRONG, "It gives another answer each time: use the noise that is given, draw none of its own.")
    if verdict.status != RIGHT:
        return verdict
    leaf, width = mean.clone().requires_grad_(), std.abs().requires_grad_()
    if not _passes_gradients(yours, (leaf, width, noise)):
        return Verdict(WRONG, "The values are right, but no gradient passes: work on the tensors that are given.")
    image = Scene(animal="dog", colour="orange", place="snow").render(model.native_size)

    def generate() -> Image.Image:
        return img2img(model, "a dog with glasses", image, strength=0.5, seed=0, num_inference_steps=2 * STEPS)

    return plugged(model, generate, reparameterize=yours)


def kl(yours: Callable[[Tensor, Tensor, float, float], Tensor]) -> Verdict:
    """Exercise 2: the KL divergence from N(mean, std^2) to any normal prior, in closed form."""
    mistakes = [
        (
            lambda m, s, pm, ps: _kl(torch.full_like(m, pm), torch.full_like(s, ps), m, s),
            "That is the divergence the other way, of the prior from the posterior. It is not symmetric: here the "
            "expectation is over N(mean, std^2).",
        ),
        (
            lambda m, s, pm, ps: _kl(m, s, 0.0, 1.0),
            "It leaves prior_mean and prior_std out: that is the divergence to N(0, 1).",
        ),
        (lambda m, s, pm, ps: _kl(m, s, pm, ps) + 0.5, "It is 1/2 too high: it must be 0 where both are the same."),
        (lambda m, s, pm, ps: 2 * _kl(m, s, pm, ps), "It is twice too high: a factor of 1/2 is missing."),
        (lambda m, s, pm, ps: -_kl(m, s, pm, ps), "The sign is wrong: a divergence is never below 0."),
        (
            lambda m, s, pm, ps: torch.log(s / ps) + (s**2 + (m - pm) ** 2) / (2 * ps**2) - 0.5,
            "The logarithm is of std / prior_std; it must grow as std shrinks, so turn the fraction round.",
        ),
        (
            lambda m, s, pm, ps: torch.log(ps / s) + (s + (m - pm) ** 2) / (2 * ps) - 0.5,
            "It uses std where the formula has the variance; square std and prior_std in the fraction.",
        ),
        (
            lambda m, s, pm, ps: torch.log(ps / s) + (s**2 + (m - pm) ** 2) / (2 * ps) - 0.5,
            "It divides by prior_std where the formula has the prior's variance.",
        ),
        (
            lambda m, s, pm, ps: torch.log(ps / s) + (s**2 + m**2) / (2 * ps**2) - 0.5,
            "It leaves prior_mean out: what counts is how far mean is from it.",
        ),
        (
            lambda m, s, pm, ps: _kl(m, s, pm, ps).sum(),
            "It sums everything up; return one value for each mean, the sum comes later.",
        ),
    ]
    mean, std, _ = draws(3)
    cases = [(mean, 0.2 + std.abs(), prior_mean, prior_std) for prior_mean, prior_std in ((0.0, 1.0), (1.5, 0.4))]
    return compare(yours, _kl, cases, mistakes)


def latent_shape(yours: Callable[[int, int, tuple[int, ...], int], tuple[int, int, int]]) -> Verdict:
    """Exercise 3: the shape of an image's latent."""

    def shape(height: int, width: int, channels: tuple[int, ...], latent: int) -> tuple[int, int, int]:
        f = 2 ** (len(channels) - 1)
        return latent, height // f, width // f

    def f(channels: tuple[int, ...]) -> int:
        return 2 ** (len(channels) - 1)

    mistakes = [
        (
            lambda h, w, c, z: (z, h // 2 ** len(c), w // 2 ** len(c)),
            "It is halved once too often: every level halves height and width but the last.",
        ),
        (
            lambda h, w, c, z: (2 * z, h // f(c), w // f(c)),
            "Twice as many channels leave the encoder, but half of them are log-variances, not latents.",
        ),
        (
            lambda h, w, c, z: (c[-1], h // f(c), w // f(c)),
            "Those are the channels of the last level; the encoder's last convolution makes latent_channels of them.",
        ),
        (
            lambda h, w, c, z: (z, ceil(h / f(c)), ceil(w / f(c))),
            "It rounds up; each halving of the VAE rounds an odd size down.",
        ),
        (lambda h, w, c, z: (h // f(c), w // f(c), z), "Channels come first: (channels, height, width)."),
        (
            lambda h, w, c, z: (z, h // 8, w // 8),
            "It always divides by 8. That holds for four levels; there are len(block_out_channels) of them.",
        ),
        (
            lambda h, w, c, z: (z, h // (2 * len(c) - 2), w // (2 * len(c) - 2)),
            "Halving n times divides by 2 ** n, not by 2 * n.",
        ),
        (lambda h, w, c, z: (z, w // f(c), h // f(c)), "Height and width are swapped."),
    ]
    sizes = (128, 256, 512, 512)
    cases = [(512, 768, sizes, 4), (128, 128, (16, 32, 96, 128), 4), (100, 62, (8, 16), 3), (45, 77, sizes[:3], 16)]
    verdict = compare(yours, shape, cases, mistakes)
    if verdict.status != RIGHT:
        return verdict
    ratio = 3 * 512 * 768 / prod(shape(*cases[0]))
    return Verdict(RIGHT, f"512 x 768 pixels have a latent of {shape(*cases[0])}: {ratio:.0f} times fewer numbers.")


def scaling_factor(yours: Callable[[Tensor], float]) -> Verdict:
    """Exercise 4: one number that brings latents to unit standard deviation."""
    mistakes = [
        (
            lambda z: z.std(),
            "That is the standard deviation itself; latents are multiplied by the factor, so it is 1 / std.",
        ),
        (lambda z: 1 / z.var(), "That is 1 / variance; its square root is wanted."),
        (
            lambda z: 1 / z.std(dim=(0, 2, 3)),
            "That is one factor per channel; the format has one number for all of them together.",
        ),
        (
            lambda z: (1 / z.std(dim=(0, 2, 3))).mean(),
            "The mean of the channels' factors is not the factor of all: take the std over all numbers at once.",
        ),
        (
            lambda z: 1 / z.std(dim=(0, 2, 3)).mean(),
            "The mean of the channels' std is not the std of all: take it over all numbers at once.",
        ),
        (
            lambda z: 1 / z.square().mean().sqrt(),
            "That is 1 / root mean square, which counts the mean as spread; take the mean off first, as std does.",
        ),
        (
            lambda z: 1 / z.abs().mean(),
            "That is 1 / mean absolute value; what must come to 1 is the standard deviation.",
        ),
        (lambda z: 1 / z.abs().max(), "That brings the largest value to 1; the standard deviation is to be 1."),
    ]
    spread = torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float32, device="cpu")[:, None, None]
    z = 2 + spread * draws(1, (8, 4, 30, 40))[0]  # so many that dividing by n or by n - 1 is the same
    return compare(yours, lambda z: 1 / z.std(), [(z,), (0.1 * z - 5,)], mistakes)


def _kl(mean: Tensor, std: Tensor, prior_mean: float | Tensor, prior_std: float | Tensor) -> Tensor:
    prior_std = torch.as_tensor(prior_std)
    return torch.log(prior_std / std) + (std**2 + (mean - prior_mean) ** 2) / (2 * prior_std**2) - 0.5


def _varies(yours: Callable, case: tuple) -> bool:
    """Whether two calls return different numbers."""
    try:
        return not torch.equal(torch.as_tensor(yours(*case)), torch.as_tensor(yours(*case)))
    except Exception:  # whatever the learner's code raises; `compare` has said so
        return False


def _passes_gradients(yours: Callable, case: tuple) -> bool:
    try:
        return yours(*case).requires_grad
    except Exception:  # of a list, say, or an array
        return False
