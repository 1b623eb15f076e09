"""The exercises of notebook 01."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from PIL import Image
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from ldm_course import vae
from ldm_course.lab.shared.verdict import (
    NOT_TRIED,
    RIGHT,
    STEPS,
    WRONG,
    Verdict,
    compare,
    draws,
    not_tried,
    plugged,
    raised,
)
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import img2img
from ldm_course.scenes import Scene

Loss = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def reconstruction_error(yours: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """The squared error, summed over an image and averaged over the batch."""
    mistakes: list[tuple[Callable, str]] = [
        (
            lambda y, x: (y - x).square().mean(),
            "It averages over the values of an image, too. Sum over an image, and average over the batch only.",
        ),
        (lambda y, x: (y - x).square().sum(), "It sums over the batch, too. Average over the images of a batch."),
        (lambda y, x: (y - x).square().mean(0).sum((-2, -1)), "It keeps the channels apart. Sum over them as well."),
        (lambda y, x: _each(y, x), "That is one error for each image. Average them to a single value."),
        (lambda y, x: (y - x).abs().flatten(1).sum(1).mean(), "It takes absolute values. The error is squared here."),
        (lambda y, x: (y - x).flatten(1).sum(1).mean(), "The differences are not squared, so they cancel out."),
        (lambda y, x: (y - x).flatten(1).sum(1).square().mean(), "It sums first and squares then. Square first."),
        (lambda y, x: _each(y, x).sqrt().mean(), "It takes a root. The squared error is wanted as it is."),
        (lambda y, x: (y - x).square().sum(1).mean(), "It sums over the channels only. Flatten each image first."),
        (lambda y, x: (y - x).square().sum((-2, -1)).mean(), "It averages over the channels. Sum over them as well."),
        (
            lambda y, x: (y.square() - x.square()).flatten(1).sum(1).mean(),
            "Subtract first, then square.",
        ),
    ]
    return compare(yours, lambda y, x: _each(y, x).mean(), [draws(2), draws(2, (3, 3, 4, 4), seed=5)], mistakes)


def reparameterize(yours: Callable[[Tensor, Tensor, Tensor], Tensor], model: LatentDiffusion) -> Verdict:
    """A sample that gradients pass through; first alone, then in the encoder of image-to-image."""
    mistakes: list[tuple[Callable, str]] = [
        (
            lambda mean, std, noise: mean + std**2 * noise,
            "It scales the noise by the variance. A sample of N(mean, std^2) has the standard deviation std.",
        ),
        (
            lambda mean, std, noise: mean + std.sqrt() * noise,
            "It takes the root of std. The argument is the standard deviation already.",
        ),
        (
            lambda mean, std, noise: mean + torch.exp(0.5 * std) * noise,
            "It treats std as a log-variance. Here it is the standard deviation already, so no exp is needed.",
        ),
        (
            lambda mean, std, noise: mean + torch.exp(std) * noise,
            "It treats std as a logarithm. Here it is the standard deviation already, so no exp is needed.",
        ),
        (
            lambda mean, std, noise: (mean + noise) * std,
            "It scales the mean, too. Scale the noise by std first, and add the mean after that.",
        ),
        (lambda mean, std, noise: std + mean * noise, "mean and std are swapped."),
        (
            lambda mean, std, noise: mean - std * noise,
            "It subtracts. That has the right distribution, but the pipeline's seeds would give other images: add.",
        ),
        (
            lambda mean, std, noise: (noise - mean) / std,
            "That turns a sample back into N(0, 1). You want the other way: from N(0, 1) to a sample.",
        ),
        (lambda mean, std, noise: mean + noise, "It leaves std out: every sample is as wide as the prior."),
        (lambda mean, std, noise: std * noise, "It leaves the mean out: every sample lies around 0."),
        (lambda mean, std, noise: mean, "It leaves the noise out: that is a plain autoencoder's latent."),
        (lambda mean, std, noise: mean + std, "It leaves the noise out: every sample is one std off the mean."),
    ]
    mean, std, noise = draws(3)
    cases = [(mean, std.abs(), noise), (noise, 0.1 + std**2, mean)]
    verdict = compare(yours, vae.reparameterize, cases, mistakes)
    if verdict.status == WRONG and _varies(yours, cases[0]):
        message = "It gives another answer each time: use the noise that is given, draw none of its own."
        return replace(verdict, message=message)
    if verdict.status != RIGHT:
        return verdict
    leaf, width = mean.clone().requires_grad_(), std.abs().requires_grad_()
    if not _passes_gradients(yours, (leaf, width, noise)):
        message = "The values are right, but no gradient passes: work on the tensors that are given."
        return replace(verdict, status=WRONG, message=message)
    image = Scene(animal="dog", colour="orange", place="snow").render(model.native_size)

    def generate() -> Image.Image:
        return img2img(model, "a dog with glasses", image, strength=0.5, seed=0, num_inference_steps=2 * STEPS)

    return verdict.then(lambda: plugged(model, generate, reparameterize=yours))


def kl(yours: Callable[[Tensor, Tensor], Tensor]) -> Verdict:
    """KL(N(mean, exp(logvar)) || N(0, 1)), summed over each image's latent."""

    def each(terms: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda m, v: terms(m, v).flatten(1).sum(1)

    def right(m: Tensor, v: Tensor) -> Tensor:
        return 0.5 * (m**2 + v.exp() - 1 - v)

    mistakes: list[tuple[Callable, str]] = [
        (right, "That is one value for each dimension. Sum over the dimensions of each image."),
        (lambda m, v: right(m, v).sum(), "It sums over the batch, too. Return one value for each image."),
        (lambda m, v: right(m, v).mean(), "It averages. The divergences of the dimensions add up."),
        (lambda m, v: right(m, v).flatten(1).mean(1), "It averages over the dimensions. Their divergences add up."),
        (lambda m, v: right(m, v).sum(0), "It sums over the batch. Sum over the dimensions of each image."),
        (lambda m, v: right(m, v).sum(1), "It sums over one axis only. A latent may be an image: flatten it first."),
        (each(lambda m, v: -right(m, v)), "The sign is wrong: a divergence is never below 0."),
        (each(lambda m, v: 2 * right(m, v)), "It is twice too large: a factor of 1/2 is missing."),
        (each(lambda m, v: right(m, v) + 0.5), "The -1 is missing: it must be 0 where mean = 0 and std = 1."),
        (
            each(lambda m, v: 0.5 * (m**2 + (0.5 * v).exp() - 1 - v)),
            "It uses the standard deviation where the formula has the variance. The variance is exp(logvar).",
        ),
        (
            each(lambda m, v: 0.5 * (m**2 + (2 * v).exp() - 1 - v)),
            "It squares the variance. exp(logvar) is the variance already.",
        ),
        (
            each(lambda m, v: 0.5 * (m**2 + v**2 - 1 - v)),
            "It takes logvar for the standard deviation. The variance is exp(logvar).",
        ),
        (
            each(lambda m, v: 0.5 * (m**2 + v.exp() - 1 - 0.5 * v)),
            "The last term is the logarithm of the variance, which is logvar as it is, not half of it.",
        ),
        (
            each(lambda m, v: 0.5 * (m**2 + v.exp() - 1 + v)),
            "The logarithm has the wrong sign: a narrower Gaussian must cost more, not less.",
        ),
        (each(lambda m, v: 0.5 * (m + v.exp() - 1 - v)), "The mean must be squared: -1 is as far from 0 as 1."),
        (each(lambda m, v: 0.5 * (m.abs() + v.exp() - 1 - v)), "The mean must be squared."),
        (each(lambda m, v: 0.5 * (v.exp() - 1 - v)), "It leaves the mean out."),
        (each(lambda m, v: 0.5 * (m**2 - 1 - v)), "It leaves the variance out: exp(logvar)."),
        (each(lambda m, v: 0.5 * (m**2 + v.exp() - 1)), "It leaves the logarithm out."),
        (
            each(lambda m, v: 0.5 * ((1 + m**2) / v.exp() - 1 + v)),
            "That is the divergence the other way, of the prior from the posterior. Average over the posterior.",
        ),
    ]
    cases = [draws(2), draws(2, (3, 2), seed=5), (torch.zeros(2, 3), torch.zeros(2, 3))]
    verdict = compare(yours, lambda m, v: right(m, v).flatten(1).sum(1), cases, mistakes)
    if verdict.status == WRONG and "nan" in verdict.message:
        message = "It takes the logarithm of a negative number. logvar is a logarithm already: use it as it is."
        return replace(verdict, message=message)
    return verdict


def negative_elbo(yours: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> Verdict:
    """The bound on -log p(x) for pixels with Gaussian noise, one value for each image."""

    def bound(x_hat: Tensor, x: Tensor, kl: Tensor, sigma: float, half: float = 0.5, log: float = 0.5) -> Tensor:
        return half * _each(x_hat, x) / sigma**2 + log * x[0].numel() * math.log(2 * math.pi * sigma**2) + kl

    def pixels(y: Tensor, x: Tensor, s: float) -> Tensor:
        return 0.5 * _each(y, x) / s**2

    mistakes: list[tuple[Callable, str]] = [
        (
            lambda y, x, k, s: -bound(y, x, k, s),
            "That is the ELBO itself. Its negative is wanted.",
        ),
        (lambda y, x, k, s: bound(y, x, -k, s), "The KL has the wrong sign: it is a cost, like the error."),
        (lambda y, x, k, s: bound(y, x, 0 * k, s), "It leaves the KL out."),
        (lambda y, x, k, s: bound(y, x, k, s).mean(), "It averages over the batch. Return one value for each image."),
        (lambda y, x, k, s: bound(y, x, k, s, log=0), "The logarithm is missing. It is what forbids a huge sigma."),
        (
            lambda y, x, k, s: pixels(y, x, s) + 0.5 * math.log(2 * math.pi * s**2) + k,
            "Each value of the image has its own logarithm: multiply by the number of values.",
        ),
        (
            lambda y, x, k, s: bound(y, x, k, s, log=1),
            "The logarithm is twice too large. Its factor is 1/2, or use sigma in place of sigma squared.",
        ),
        (
            lambda y, x, k, s: pixels(y, x, s) + x[0].numel() * math.log(s) + k,
            "The 2 pi is missing in the logarithm. It is a constant, but then the bound is no bound.",
        ),
        (
            lambda y, x, k, s: pixels(y, x, s) - 0.5 * x[0].numel() * math.log(2 * math.pi * s**2) + k,
            "The logarithm has the wrong sign.",
        ),
        (lambda y, x, k, s: bound(y, x, k, s, half=1), "The 1/2 before the squared error is missing."),
        (lambda y, x, k, s: bound(y, x, k, s**0.5), "It uses sigma where the formula has sigma squared."),
        (
            lambda y, x, k, s: bound(y, x, k, s) - pixels(y, x, s) * (1 - s),
            "It divides the error by sigma. The formula has sigma squared.",
        ),
        (
            lambda y, x, k, s: bound(y, x, k, s) - pixels(y, x, s) * (1 - s**2),
            "The squared error must be divided by sigma squared.",
        ),
        (
            lambda y, x, k, s: bound(y, x, k, s) - pixels(y, x, s) * (1 - 1 / x[0].numel()),
            "It averages the squared error over the image. Sum it.",
        ),
    ]
    x_hat, x = draws(2, (2, 3, 4, 5))
    k = torch.tensor([2.5, 7.0], dtype=torch.float32, device="cpu")
    return compare(yours, bound, [(x_hat, x, k, 0.7), (x, x_hat, 2 * k, 1.9)], mistakes)


def friends_loss(x_hat: Tensor, x: Tensor, mean: Tensor, logvar: Tensor, kl_weight: float) -> Tensor:
    """The broken loss of the debug exercise."""
    return (x_hat - x).square().mean() + kl_weight * _kl(mean, logvar).mean()


def repaired_loss(yours: Loss) -> Verdict:
    """The debug exercise: the broken loss averages over pixels, so that the KL weighs thousands of times too much."""

    def right(x_hat: Tensor, x: Tensor, mean: Tensor, logvar: Tensor, w: float) -> Tensor:
        return _each(x_hat, x).mean() + w * _kl(mean, logvar).mean()

    mistakes: list[tuple[Callable, str]] = [
        (
            lambda y, x, m, v, w: _each(y, x).mean(),
            "Without the KL the image comes back, but nothing pulls the latents to the prior: an autoencoder.",
        ),
        (
            lambda y, x, m, v, w: (y - x).square().mean(),
            "Without the KL it is an autoencoder. Look at the error.",
        ),
        (
            lambda y, x, m, v, w: (y - x).square().mean() + w * _kl(m, v).mean() / m.shape[1],
            "The KL was right: it is summed over the dimensions. Look at what the error does with the pixels.",
        ),
        (
            lambda y, x, m, v, w: _each(y, x).mean() + w * _kl(m, v).mean() / m.shape[1],
            "The error is right now. But the KL is summed over the dimensions, as it was.",
        ),
        (
            lambda y, x, m, v, w: (y - x).square().mean() - w * _kl(m, v).mean(),
            "The sign of the KL was right. With a minus the posteriors run away from the prior.",
        ),
        (
            lambda y, x, m, v, w: (y - x).square().sum() + w * _kl(m, v).mean(),
            "The error is now summed over the batch, too. Sum over an image, and average over the batch.",
        ),
        (
            lambda y, x, m, v, w: (y - x).square().sum() + w * _kl(m, v).sum(),
            "Both terms are summed over the batch now. Then the step size depends on the batch: average over it.",
        ),
        (
            lambda y, x, m, v, w: (y - x).abs().flatten(1).sum(1).mean() + w * _kl(m, v).mean(),
            "Absolute errors in place of squared ones are another model. The fault is in how they are added up.",
        ),
    ]
    x_hat, x = draws(2, (4, 3, 5, 6))
    mean, logvar = draws(2, (4, 2), seed=5)
    cases = [(x_hat, x, mean, logvar, 10.0), (x, x_hat, logvar, mean, 0.5)]
    if compare(yours, friends_loss, cases, []).status == RIGHT:
        message = "This is still the broken one. Find the line at fault, change it and run the cell again."
        return Verdict(NOT_TRIED, message, answer=right)
    return compare(yours, right, cases, mistakes)


def scaling_factor(yours: Callable[[Tensor], float]) -> Verdict:
    """One number that brings latents to unit standard deviation."""
    mistakes: list[tuple[Callable, str]] = [
        (
            lambda z: z.std(),
            "That is the standard deviation itself. Latents are multiplied by the factor, so it is 1 / std.",
        ),
        (lambda z: 1 / z.var(), "That is 1 / variance. Its square root is wanted."),
        (lambda z: z.var(), "That is the variance. Multiply by 1 / std to get a standard deviation of 1."),
        (
            lambda z: 1 / z.std(dim=(0, 2, 3)),
            "That is one factor per channel. The format has one number for all of them together.",
        ),
        (
            lambda z: (1 / z.std(dim=(0, 2, 3))).mean(),
            "The mean of the channels' factors is not the factor of all: take the std over all values at once.",
        ),
        (
            lambda z: 1 / z.std(dim=(0, 2, 3)).mean(),
            "The mean of the channels' std is not the std of all: take it over all values at once.",
        ),
        (lambda z: 1 / z.std(0), "That is one factor for each value. One number for all of them is wanted."),
        (lambda z: 1 / z[0].std(), "That is the first latent's std. Take it over all of them."),
        (
            lambda z: 1 / z.flatten(1).std(1).mean(),
            "The mean of each latent's std is not the std of all: take it over all values at once.",
        ),
        (
            lambda z: 1 / z.square().mean().sqrt(),
            "That is 1 / root mean square, which counts the mean as spread. Take the mean off first, as std does.",
        ),
        (
            lambda z: 1 / z.abs().mean(),
            "That is 1 / mean absolute value. What must come to 1 is the standard deviation.",
        ),
        (lambda z: 1 / z.abs().max(), "That brings the largest value to 1. The standard deviation is to be 1."),
        (lambda z: 0.18215, "That is the factor of Stable Diffusion's latents. Compute it for any other latents."),
    ]
    spread = torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float32, device="cpu")[:, None, None]
    each = torch.linspace(0.5, 1.5, 8, dtype=torch.float32, device="cpu")[:, None, None, None]
    z = 2 + spread * each * draws(1, (8, 4, 30, 40))[0]  # so many that dividing by n or by n - 1 is the same
    return compare(yours, lambda z: 1 / z.std(), [(z,), (0.1 * z - 5,)], mistakes)


def through_the_data(start: Tensor, end: Tensor, latents: Tensor) -> Tensor:
    """A path (n, d) from start to end by many short hops between latents (m, d): the open build's solution."""
    points = torch.cat([start[None], end[None], latents])
    costs = torch.cdist(points, points) ** 4  # so that many short hops are cheaper than one long one
    before = shortest_path(costs.numpy(), indices=0, return_predecessors=True)[1]
    path = [1]
    while path[-1] != 0:
        path.append(int(before[path[-1]]))
    return points[path[::-1]]


def evenly(path: Tensor, count: int) -> Tensor:
    """`count` points at equal distances along a path (n, d) of straight pieces."""
    hops = (path[1:] - path[:-1]).norm(dim=1)
    done = torch.cat([torch.zeros_like(hops[:1]), hops.cumsum(0)])
    wanted = torch.linspace(0, float(done[-1]), count, dtype=path.dtype, device="cpu")
    i = torch.searchsorted(done, wanted).clamp(1, len(path) - 1)
    share = ((wanted - done[i - 1]) / (done[i] - done[i - 1]).clamp_min(1e-12))[:, None]
    return (1 - share) * path[i - 1] + share * path[i]


def stays_on_data(yours: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """The open build: on crescents of points, the path's largest distance from them is measured."""
    verdict = _stays_on_data(yours)
    return replace(verdict, answer=through_the_data)


def _stays_on_data(yours: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    worst = direct = 0.0
    for seed, dimensions in ((0, 2), (1, 2), (2, 8)):
        latents = _crescent(dimensions, seed)
        start, end = latents[0].clone(), latents[-1].clone()
        try:
            path = yours(start, end, latents.clone())
        except Exception as error:  # whatever the learner's code raises
            return raised(error)
        if path is None or path is Ellipsis:
            return not_tried()
        if not isinstance(path, Tensor):
            return Verdict(WRONG, f"It returned a {type(path).__name__}. Return one tensor of points, (n, d).")
        if path.dim() != 2 or path.shape[1] != dimensions or len(path) < 2:
            return Verdict(
                WRONG, f"A path here has the shape (n, {dimensions}), not {tuple(path.shape)}; n is 2 or more."
            )
        if torch.allclose(path[0], end, atol=1e-4) and torch.allclose(path[-1], start, atol=1e-4):
            return Verdict(WRONG, "The path runs from end to start. Turn it round.")
        if not (torch.allclose(path[0], start, atol=1e-4) and torch.allclose(path[-1], end, atol=1e-4)):
            return Verdict(WRONG, "The path must begin at start and stop at end, both included.")
        straight = evenly(torch.stack([start, end]), 200)
        worst = max(worst, _farthest(evenly(path, 200), latents))
        direct = max(direct, _farthest(straight, latents))
    found = f"The path strays up to {worst:.2f} from the nearest latent, the straight line up to {direct:.2f}."
    if worst > 0.9 * direct:
        return Verdict(WRONG, f"{found} Bend it to where latents lie.")
    if worst > 0.35 * direct:
        return Verdict(WRONG, f"{found} Better, but it still cuts across empty land: make its hops shorter.")
    return Verdict(RIGHT, found)


def _crescent(dimensions: int, seed: int) -> Tensor:
    """Points along three quarters of a circle, in a plane of a space of so many dimensions, with a little noise."""
    generator = torch.Generator("cpu").manual_seed(seed)
    angle = torch.linspace(0, 1.5 * math.pi, 150, dtype=torch.float32, device="cpu")
    plane = torch.stack([angle.cos(), angle.sin()], dim=1) * 2
    turn, _ = torch.linalg.qr(torch.randn(dimensions, 2, generator=generator, dtype=torch.float32, device="cpu"))
    noise = torch.randn(150, dimensions, generator=generator, dtype=torch.float32, device="cpu")
    return plane @ turn.T + 0.05 * noise


def _farthest(path: Tensor, latents: Tensor) -> float:
    return torch.cdist(path, latents).amin(dim=1).max().item()


def _each(x_hat: Tensor, x: Tensor) -> Tensor:
    return (x_hat - x).square().flatten(1).sum(dim=1)


def _kl(mean: Tensor, logvar: Tensor) -> Tensor:
    return (0.5 * (mean**2 + logvar.exp() - 1 - logvar)).sum(dim=1)


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
