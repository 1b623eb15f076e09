"""Checks of notebook 05's exercises."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from math import sqrt

from torch import Tensor

from ldm_course import pipelines
from ldm_course.lab.shared.verdict import RIGHT, Verdict, compare, draws, plugged
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import img2img
from ldm_course.sampling import denoise
from ldm_course.scenes import Scene


def strength_timesteps(yours: Callable[[list[int], float], list[int]], model: LatentDiffusion) -> Verdict:
    """Exercise 1: the timesteps that are left at a strength, first on lists, then in the pipeline."""

    def first(timesteps: list[int], strength: float) -> list[int]:
        return timesteps[: int(len(timesteps) * strength)]

    def rest(timesteps: list[int], strength: float) -> list[int]:
        return timesteps[int(len(timesteps) * strength) :]

    mistakes = [
        (first, "This keeps the first timesteps, which have the most noise. Keep the last ones."),
        (rest, "This drops the share `strength` of the timesteps. That is the share to keep."),
        (
            lambda t, s: t[len(t) - round(len(t) * s) :],
            "The number of steps is rounded to the nearest whole number. Round it down, as diffusers does.",
        ),
        (
            lambda t, s: t[len(t) - math.ceil(len(t) * s) :],
            "The number of steps is rounded up. Round it down, as diffusers does.",
        ),
        (
            lambda t, s: t[-int(len(t) * s) :],
            "At strength 0 this returns all timesteps, because t[-0:] is the whole list. Count from the front.",
        ),
        (
            lambda t, s: [i for i in t if i < 1000 * s],
            "This compares each timestep with 1000 * strength. Strength is a share of the number of timesteps.",
        ),
    ]
    steps = list(range(981, 0, -20))
    cases = [(steps, 0.6), (steps[::5], 0.75), (steps, 0.0), (steps, 1.0), (steps[::5], 0.05), (steps[:7], 0.5)]
    verdict = compare(yours, pipelines.strength_timesteps, cases, mistakes)
    if verdict.status != RIGHT:
        return verdict
    image = Scene(animal="dog", colour="orange", place="snow").render(model.native_size)
    sample = functools.partial(
        img2img, model, "a dog with glasses", image, strength=0.5, num_inference_steps=8, seed=0
    )
    return plugged(model, sample, strength_timesteps=yours)


def num_inference_steps(yours: Callable[[int, float], int]) -> Verdict:
    """Exercise 2: the smallest number of steps to ask for, so that `done` steps are done at this strength."""

    def right(done: int, strength: float) -> int:
        return next(n for n in itertools.count(done) if int(n * strength) >= done)

    mistakes: list[tuple[Callable[[int, float], float], str]] = [
        (
            lambda done, s: done,
            "If you ask for `done` steps at a strength below 1, only a share of them is done. Ask for more.",
        ),
        (
            lambda done, s: int(done * s),
            "This is the number of steps that are done if you ask for `done`. Return the number to ask for.",
        ),
        (
            lambda done, s: int(done / s),
            "This rounds down. For 10 steps at strength 0.3 it gives 33, and then only int(9.9) = 9 are done.",
        ),
        (
            lambda done, s: round(done / s),
            "This rounds to the nearest whole number. For 10 steps at strength 0.3 it gives 33, and then only "
            "int(9.9) = 9 are done.",
        ),
        (
            lambda done, s: done / s,
            "The number of steps must be whole. Round it so that at least `done` steps are done.",
        ),
        (
            lambda done, s: int(done / s) + 1,
            "Where done / strength is a whole number, this asks for one step too many.",
        ),
    ]
    return compare(yours, right, [(20, 0.5), (30, 0.6), (10, 0.3), (7, 1.0), (8, 0.75), (5, 0.9)], mistakes)


def noisy_start(yours: Callable[[Tensor, Tensor, float], Tensor]) -> Verdict:
    """Exercise 3: the start of the loop, from the image's latent, noise, and alpha_bar of the first timestep."""

    def right(z: Tensor, noise: Tensor, alpha_bar: float) -> Tensor:
        return sqrt(alpha_bar) * z + sqrt(1 - alpha_bar) * noise

    mistakes = [
        (
            lambda z, noise, a: z + noise,
            "Both terms have full weight at every level. Their weights depend on alpha_bar.",
        ),
        (
            lambda z, noise, a: z + sqrt(1 - a) * noise,
            "z has full weight. Its weight is sqrt(alpha_bar), so that the sum keeps a standard deviation of 1.",
        ),
        (
            lambda z, noise, a: a * z + (1 - a) * noise,
            "The square roots are missing: alpha_bar is a share of the variance.",
        ),
        (
            lambda z, noise, a: sqrt(1 - a) * z + sqrt(a) * noise,
            "The weights are swapped: alpha_bar is the share of the *image*, z.",
        ),
        (lambda z, noise, a: noise, "z is missing. Noise alone is the start of text-to-image."),
        (
            lambda z, noise, a: sqrt(a) * z,
            "The noise is missing. The UNet expects noise and predicts it.",
        ),
    ]
    z, noise = draws(2)
    return compare(yours, right, [(z, noise, a) for a in (0.9, 0.5, 0.05)], mistakes)


Img2Img = Callable[[LatentDiffusion, Tensor, Tensor, Tensor, Tensor, list[int]], Tensor]


def img2img_latents(yours: Img2Img, model: LatentDiffusion) -> Verdict:
    """Exercise 4: image-to-image on latents, with the package's loop."""
    add_noise = model.schedule.add_noise

    def sample(start: Tensor, context: Tensor, empty: Tensor, timesteps: list[int]) -> Tensor:
        *_, last = denoise(model, start, context, timesteps, negative_context=empty, guidance_scale=7.5)
        return last.x_t

    mistakes = [
        (
            lambda z, noise, c, e, t: sample(noise, c, e, t),
            "The loop starts from noise alone, so the image has no influence.",
        ),
        (lambda z, noise, c, e, t: sample(z, c, e, t), "The loop starts from z without any noise. Add noise first."),
        (
            lambda z, noise, c, e, t: sample(add_noise(z, noise, t[-1]), c, e, t),
            "The start has the noise of the *last* timestep. The loop begins at the first one, timesteps[0].",
        ),
        (
            lambda z, noise, c, e, t: sample(add_noise(z, noise, 999), c, e, t),
            "The start has the noise of t = 999 at every strength. The loop begins at timesteps[0].",
        ),
        (
            lambda z, noise, c, e, t: sample(add_noise(z, noise, t[0]), e, c, t),
            "The two contexts are swapped: guidance moves away from the prompt.",
        ),
        (
            lambda z, noise, c, e, t: add_noise(z, noise, t[0]),
            "This returns the noisy start. Run the loop from there, and return its last latent.",
        ),
    ]
    z, noise = (part[:1].to(model.device) for part in draws(2))
    context, empty = model.embed(["a dog with glasses", ""]).chunk(2)
    case = (z, noise, context, empty, model.schedule.timesteps(8)[4:])
    return compare(
        functools.partial(yours, model),
        lambda z, noise, c, e, t: sample(add_noise(z, noise, t[0]), c, e, t),
        [case],
        mistakes,
    )
