"""The exercises of notebook 05."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from math import sqrt

from torch import Tensor

from ldm_course import pipelines
from ldm_course.checkpoint import LatentDiffusion
from ldm_course.lab.checks.verdict import RIGHT, Verdict, compare, draws, plugged
from ldm_course.pipelines import img2img
from ldm_course.sampling import denoise
from ldm_course.scenes import Scene
from ldm_course.text import encode_prompt


def strength_timesteps(yours: Callable[[list[int], float], list[int]], model: LatentDiffusion) -> Verdict:
    """Exercise 1: which timesteps are left at a strength; first alone, then in the real pipeline."""
    right = pipelines.strength_timesteps

    def first(timesteps: list[int], strength: float) -> list[int]:
        return timesteps[: int(len(timesteps) * strength)]

    def rest(timesteps: list[int], strength: float) -> list[int]:
        return timesteps[int(len(timesteps) * strength) :]

    mistakes = [
        (first, "It keeps the first timesteps, the noisiest; a picture with little noise starts near the end."),
        (rest, "It leaves out the share `strength` of the timesteps, and that is the share to keep."),
        (
            lambda t, s: t[len(t) - round(len(t) * s) :],
            "It rounds to the nearest whole number of steps; diffusers and the package round down.",
        ),
        (lambda t, s: t[len(t) - math.ceil(len(t) * s) :], "It rounds up; diffusers and the package round down."),
        (
            lambda t, s: t[-int(len(t) * s) :],
            "At strength 0 it returns them all: t[-0:] is the whole list. Count from the front instead.",
        ),
        (
            lambda t, s: [i for i in t if i < 1000 * s],
            "It compares timesteps with 1000 * strength, which is near, but it is their number that counts.",
        ),
    ]
    steps = list(range(981, 0, -20))
    cases = [(steps, 0.6), (steps[::5], 0.75), (steps, 0.0), (steps, 1.0), (steps[::5], 0.05), (steps[:7], 0.5)]
    verdict = compare(yours, right, cases, mistakes)
    if verdict.status != RIGHT:
        return verdict
    picture = Scene(animal="dog", colour="orange", place="snow").render(model.native_size)

    def paint():
        return img2img(model, "a dog with glasses", picture, strength=0.5, num_inference_steps=8, seed=0)

    return plugged(model, paint, strength_timesteps=yours)


def num_inference_steps(yours: Callable[[int, float], int]) -> Verdict:
    """Exercise 2: the least number of steps to ask for, of which at this strength `done` are done."""

    def right(done: int, strength: float) -> int:
        return next(n for n in itertools.count(done) if int(n * strength) >= done)

    mistakes: list[tuple[Callable[[int, float], float], str]] = [
        (lambda done, s: done, "That many steps are wanted; at a strength below 1 only a share of them is done."),
        (
            lambda done, s: int(done * s),
            "That is how many of `done` steps are done. Which number is to be asked for?",
        ),
        (
            lambda done, s: int(done / s),
            "It rounds down. For 10 steps at strength 0.3 that is 33, and of 33 steps only int(9.9) = 9 are done.",
        ),
        (
            lambda done, s: round(done / s),
            "It rounds to the nearest. For 10 steps at strength 0.3 that is 33, of which only int(9.9) = 9 are done.",
        ),
        (lambda done, s: done / s, "A number of steps is whole: round, and mind in which direction."),
        (
            lambda done, s: int(done / s) + 1,
            "Where done / strength is whole, it asks for one step more than it takes.",
        ),
    ]
    return compare(yours, right, [(20, 0.5), (30, 0.6), (10, 0.3), (7, 1.0), (8, 0.75), (5, 0.9)], mistakes)


def noisy_start(yours: Callable[[Tensor, Tensor, float], Tensor]) -> Verdict:
    """Exercise 3: the start of the loop, from the picture's latent, noise, and alpha-bar of the first timestep."""
    mistakes = [
        (lambda z, noise, a: z + noise, "It adds the noise at full weight, whatever the level; both have weights."),
        (
            lambda z, noise, a: z + sqrt(1 - a) * noise,
            "The picture keeps its full weight. Its weight is sqrt(alpha_bar), so that the sum keeps a std of 1.",
        ),
        (
            lambda z, noise, a: a * z + (1 - a) * noise,
            "The square roots are missing: alpha_bar is a share of the variance.",
        ),
        (
            lambda z, noise, a: sqrt(1 - a) * z + sqrt(a) * noise,
            "The weights are swapped: alpha_bar says how much of the *picture* is left.",
        ),
        (lambda z, noise, a: noise, "It leaves the picture out: that is text-to-image."),
        (lambda z, noise, a: sqrt(a) * z, "It leaves the noise out, and the UNet would have none to find."),
    ]
    z, noise = draws(2)
    return compare(yours, noisy, [(z, noise, a) for a in (0.9, 0.5, 0.05)], mistakes)


Repaint = Callable[[LatentDiffusion, Tensor, Tensor, Tensor, Tensor, list[int]], Tensor]


def repaint(yours: Repaint, model: LatentDiffusion) -> Verdict:
    """Exercise 4: image-to-image on latents, with the package's loop."""

    def walk(start: Tensor, context: Tensor, empty: Tensor, timesteps: list[int]) -> Tensor:
        states = denoise(model, start, context, timesteps, negative_context=empty, guidance_scale=7.5)
        return list(states)[-1].x_t

    def right(z: Tensor, noise: Tensor, context: Tensor, empty: Tensor, timesteps: list[int]) -> Tensor:
        return walk(model.schedule.add_noise(z, noise, timesteps[0]), context, empty, timesteps)

    mistakes = [
        (lambda z, noise, c, e, t: walk(noise, c, e, t), "It starts from noise alone: the picture has no say."),
        (lambda z, noise, c, e, t: walk(z, c, e, t), "It starts from the latent without any noise."),
        (
            lambda z, noise, c, e, t: walk(model.schedule.add_noise(z, noise, t[-1]), c, e, t),
            "It adds the noise of the *last* timestep; the loop begins at the first one.",
        ),
        (
            lambda z, noise, c, e, t: walk(model.schedule.add_noise(z, noise, 999), c, e, t),
            "It adds the noise of t = 999, whatever the strength; the loop begins at timesteps[0].",
        ),
        (
            lambda z, noise, c, e, t: walk(model.schedule.add_noise(z, noise, t[0]), e, c, t),
            "The two contexts are swapped: it paints what the prompt does not say.",
        ),
        (
            lambda z, noise, c, e, t: model.schedule.add_noise(z, noise, t[0]),
            "That is the start; the loop has yet to run.",
        ),
    ]
    z, noise = draws(2)
    context, empty = encode_prompt(model, ["a dog with glasses", ""]).chunk(2)
    case = (z[:1].to(model.device), noise[:1].to(model.device), context, empty, model.schedule.timesteps(8)[4:])
    return compare(functools.partial(yours, model), right, [case], mistakes)


def noisy(z: Tensor, noise: Tensor, alpha_bar: float) -> Tensor:
    """z with its share of noise at the level alpha_bar."""
    return sqrt(alpha_bar) * z + sqrt(1 - alpha_bar) * noise
