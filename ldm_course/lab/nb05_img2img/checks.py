"""Checks of notebook 05's exercises."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ldm_course import pipelines
from ldm_course.images import to_pil, to_tensor
from ldm_course.lab.nb05_img2img.broken import BUGS
from ldm_course.lab.shared.prepared import GUIDANCE, STEPS
from ldm_course.lab.shared.verdict import RIGHT, WRONG, Verdict, compare, draws, not_tried, plugged, raised
from ldm_course.model import LatentDiffusion
from ldm_course.sampling import denoise, draw_noise
from ldm_course.scenes import Scene


def strength_timesteps(yours: Callable[[list[int], float], list[int]], model: LatentDiffusion) -> Verdict:
    """The timesteps that are left at a strength, first on lists, then in the pipeline."""
    mistakes = [
        (
            lambda t, s: t[: int(len(t) * s)],
            "This keeps the first timesteps, which have the most noise. Keep the last ones.",
        ),
        (
            lambda t, s: t[int(len(t) * s) :],
            "This drops the share `strength` of the timesteps. That is the share to keep.",
        ),
        (
            lambda t, s: t[len(t) - round(len(t) * s) :],
            "The number of steps is rounded to the nearest whole number. Round it down, as diffusers does.",
        ),
        (
            lambda t, s: t[len(t) - math.ceil(len(t) * s) :],
            "The number of steps that run is rounded up. Round it down, as diffusers does. To round down the "
            "steps that are skipped has the opposite effect.",
        ),
        (
            lambda t, s: t[-int(len(t) * s) :],
            "At strength 0 this returns all timesteps, because t[-0:] is the whole list. Count from the front.",
        ),
        (
            lambda t, s: t[-max(1, int(len(t) * s)) :],
            "At strength 0 no timestep is left. This returns one.",
        ),
        (
            lambda t, s: t[len(t) - int(len(t) * s) :][::-1],
            "The order is reversed. The loop goes from high to low.",
        ),
        (
            lambda t, s: t[len(t) - int(len(t) * s) - 1 :],
            "This keeps one timestep too many. Count again where the kept part begins.",
        ),
        (
            lambda t, s: t[len(t) - int(len(t) * s) + 1 :],
            "This keeps one timestep too few. Count again where the kept part begins.",
        ),
        (
            lambda t, s: [i for i in t if i < 1000 * s],
            "This compares each timestep with 1000 * strength. Strength is a share of the number of timesteps.",
        ),
        (
            lambda t, s: [i for i in t if i <= 1000 * s],
            "This compares each timestep with 1000 * strength. Strength is a share of the number of timesteps.",
        ),
        (
            lambda t, s: int(len(t) * s),
            "This is how many timesteps are left. Return the timesteps themselves, as a list.",
        ),
    ]
    steps = list(range(981, 0, -20))
    cases = [(steps, 0.6), (steps[::5], 0.75), (steps, 0.0), (steps, 1.0), (steps[::5], 0.05), (steps[:7], 0.5)]
    image = Scene(animal="dog", colour="orange", place="snow").render(model.native_size)
    generate = functools.partial(
        pipelines.img2img, model, "a dog with glasses", image, strength=0.5, num_inference_steps=8, seed=0
    )
    return compare(yours, pipelines.strength_timesteps, cases, mistakes).then(
        lambda: plugged(model, generate, strength_timesteps=yours)
    )


def noisy_start(yours: Callable[[Tensor, Tensor, float], Tensor]) -> Verdict:
    """The start of the loop, from the image's latent, noise, and alpha_bar of the first timestep."""

    def right(z: Tensor, noise: Tensor, alpha_bar: float) -> Tensor:
        return sqrt(alpha_bar) * z + sqrt(1 - alpha_bar) * noise

    both_roots = "A square root is missing: alpha_bar is a share of the variance, and a weight is its root."
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
            lambda z, noise, a: sqrt(a) * z + noise,
            "The noise has full weight. Its weight is sqrt(1 - alpha_bar).",
        ),
        (
            lambda z, noise, a: a * z + (1 - a) * noise,
            "The square roots are missing: alpha_bar is a share of the variance.",
        ),
        (lambda z, noise, a: a * z + sqrt(1 - a) * noise, both_roots),
        (lambda z, noise, a: sqrt(a) * z + (1 - a) * noise, both_roots),
        (
            lambda z, noise, a: sqrt(a) * z + sqrt(1 - a**2) * noise,
            "Here alpha_bar is squared once more: its root is the weight of z, and 1 - alpha_bar is what is left.",
        ),
        (
            lambda z, noise, a: a * z + sqrt(1 - a**2) * noise,
            "Here alpha_bar itself is the weight of z. Its square root is.",
        ),
        (
            lambda z, noise, a: sqrt(a) * z + (1 - sqrt(a)) * noise,
            "The two weights add up to 1 here. It is their squares that have to: sqrt(1 - alpha_bar).",
        ),
        (
            lambda z, noise, a: sqrt(1 - a) * z + sqrt(a) * noise,
            "The weights are swapped: alpha_bar is the share of the image, z.",
        ),
        (
            lambda z, noise, a: (1 - a) * z + a * noise,
            "The weights are swapped: alpha_bar is the share of the image, z. And the square roots are missing.",
        ),
        (
            lambda z, noise, a: sqrt(a) * z - sqrt(1 - a) * noise,
            "The noise is subtracted. The UNet learned from latents to which it was added.",
        ),
        (
            lambda z, noise, a: (z - sqrt(1 - a) * noise) / sqrt(a),
            "This takes noise off, as the loop does to estimate x0_hat. Here noise is put on.",
        ),
        (lambda z, noise, a: noise, "z is missing. Noise alone is the start of text-to-image."),
        (lambda z, noise, a: sqrt(1 - a) * noise, "z is missing. Noise alone is the start of text-to-image."),
        (lambda z, noise, a: z, "The noise is missing. Mix it in."),
        (lambda z, noise, a: sqrt(a) * z, "The noise is missing. Mix it in."),
    ]
    z, noise = draws(2)
    return compare(yours, right, [(z, noise, a) for a in (0.9, 0.5, 0.05)], mistakes)


# ---- the whole of it -------------------------------------------------------------------------------------------


def reference(model: LatentDiffusion, prompt: str, image: Image.Image, strength: float, seed: int) -> Image.Image:
    """What the learner's image-to-image must generate."""
    return pipelines.img2img(
        model, prompt, image, strength=strength, seed=seed, num_inference_steps=STEPS, guidance_scale=GUIDANCE
    )


def _mistaken(
    model: LatentDiffusion,
    prompt: str,
    image: Image.Image,
    strength: float,
    seed: int,
    *,
    mean: bool = False,
    factor: int = 0,
    order: bool = True,
    level: str = "first",
    every: bool = False,
    contexts: tuple[int, int] = (0, 1),
    guidance: float = GUIDANCE,
    state: int = -1,
    part: str = "x_t",
    factor_after: int = 0,
) -> Image.Image:
    """Image-to-image with one thing wrong; as it stands it is right.

    factor: how often the scaling factor is applied too much to the latent of the image; factor_after: of the result.
    """
    pixels, schedule = to_tensor(image), model.schedule
    shape = (1, model.vae.config.latent_channels, *(side // model.vae.downscale for side in pixels.shape[2:]))
    generator = torch.Generator("cpu").manual_seed(seed)
    first, second = (draw_noise(shape, generator) for _ in range(2))
    posterior_noise, noise = (first, second) if order else (second, first)
    z = model.encode(pixels, None if mean else posterior_noise) * model.vae.config.scaling_factor**factor
    timesteps = schedule.timesteps(STEPS)
    if not every:
        timesteps = pipelines.strength_timesteps(timesteps, strength)
    ends = {"clean": z, "noise": noise.to(z)}
    levels = {"first": timesteps[0], "last": timesteps[-1], "most": 999, "top": schedule.timesteps(STEPS)[0]}
    start = ends[level] if level in ends else schedule.add_noise(z, noise.to(z), levels[level])
    both = model.embed([prompt, ""]).split(1)
    context, empty = (both[i] for i in contexts)
    states = list(denoise(model, start, context, timesteps, negative_context=empty, guidance_scale=guidance))
    x = getattr(states[state], part) * model.vae.config.scaling_factor**factor_after
    return to_pil(model.decode(x))[0]


WRONG_WAYS: list[tuple[dict[str, Any], str]] = [
    (
        {"mean": True},
        "z is the posterior's mean. diffusers takes a sample of it: model.encode(pixels, posterior_noise).",
    ),
    (
        {"order": False},
        "The two draws are swapped. The first one is for the encoder, the second one is the noise.",
    ),
    (
        {"factor": -1},
        "The latent of the image lacks the scaling factor. model.encode applies it, model.vae.encode does not.",
    ),
    (
        {"factor": -1, "mean": True},
        "The latent of the image lacks the scaling factor. model.encode applies it, model.vae.encode does not.",
    ),
    ({"factor": 1}, "The scaling factor is applied twice. model.encode applies it already."),
    ({"factor_after": 1}, "The scaling factor is applied before the decoder. model.decode divides by it already."),
    ({"factor_after": -1}, "You divide by the scaling factor before the decoder. model.decode does that already."),
    ({"level": "clean"}, "The loop starts from z without any noise. Add noise first."),
    ({"level": "noise"}, "The loop starts from noise alone, so the image has no influence."),
    (
        {"level": "last"},
        "The start has the noise of the last timestep. The loop begins at the first one, timesteps[0].",
    ),
    ({"level": "most"}, "The start has the noise of t = 999 at every strength. The loop begins at timesteps[0]."),
    (
        {"level": "top"},
        "The start has the noise of the first of all 20 timesteps. The loop begins at the first that is left.",
    ),
    (
        {"every": True},
        "The loop runs all 20 steps, so strength has no influence. Run those that strength_timesteps leaves.",
    ),
    ({"every": True, "level": "noise"}, "This is text-to-image: noise alone, and all 20 steps."),
    (
        {"contexts": (1, 0)},
        "The two contexts are swapped: guidance moves away from the prompt. Which comes first in model.embed?",
    ),
    ({"contexts": (1, 1)}, "The prompt is not used: both contexts are those of the empty text."),
    (
        {"guidance": 1.0},
        "There is no guidance. Give the loop negative_context and guidance_scale=4.0.",
    ),
    ({"guidance": 7.5}, "The guidance scale is 7.5. In this notebook it is 4.0."),
    (
        {"state": -2},
        "This is the latent before the last step. After the last step comes one more state: take states[-1].",
    ),
    ({"state": -2, "part": "x0_hat"}, "This is the last estimate. The loop's last state holds the result, as x_t."),
    (
        {"state": 0},
        "This is the noisy start. Run the loop to its end, and take the last state.",
    ),
    ({"state": 0, "part": "x0_hat"}, "This is the estimate of the first step. Take the last state of the loop."),
    ({"part": "eps"}, "This decodes the noise that was predicted last. The result is x_t of the last state."),
]


def wide_posterior(model: LatentDiffusion, std: float = 0.3) -> LatentDiffusion:
    """The model with a posterior of this standard deviation, in scaled latents: its own noise cannot be seen."""
    vae = copy.deepcopy(model.vae)
    channels = vae.config.latent_channels
    with torch.no_grad():
        vae.quant_conv.weight[channels:] = 0.0
        vae.quant_conv.bias[channels:] = 2 * math.log(std / vae.config.scaling_factor)  # type: ignore[index]
    return replace(model, vae=vae)


def img2img(yours: Callable[..., Image.Image], model: LatentDiffusion) -> Verdict:
    """The whole of image-to-image, from image to image, against the package's, on a model with a wide posterior."""
    given, model = model, wide_posterior(model)
    scene = Scene(animal="dog", colour="orange", place="snow").render(model.native_size)
    cases = [("a dog with glasses", scene, 0.4, 3)]

    def array(image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert("RGB"), dtype=float)

    right = [array(reference(model, *case)) for case in cases]

    def answer(*case: Any) -> Any:
        image = yours(model, *case)
        if isinstance(image, Tensor) and image.dim() == 4 and image.shape[1] == 3:
            image = to_pil(image)
        if isinstance(image, Tensor) or image is Ellipsis or image is None:
            return image
        mine = array(image[0] if isinstance(image, list) else image)
        near = [other for other in right if other.shape == mine.shape and abs(other - mine).max() <= 1]
        return near[0] if near else mine  # rounding may move a value by one

    mistakes: list[tuple[Callable, str]] = [
        (lambda *case, wrong=wrong: array(_mistaken(model, *case, **wrong)), hint) for wrong, hint in WRONG_WAYS
    ]
    mistakes.append((lambda *case: array(reference(given, *case)), "This uses `small`. Use the argument `model`."))
    verdict = compare(answer, lambda *case: array(reference(model, *case)), cases, mistakes)
    if "has shape (1, 4," in verdict.message:
        verdict = replace(verdict, message="This is a latent. Decode it: ldm.images.to_pil(model.decode(x))[0].")
    return replace(verdict, answer=reference)


# ---- what is wrong here? ---------------------------------------------------------------------------------------


def bug_of(letter: str) -> int:
    """The number of the bug in a column of the figure."""
    return BUGS[letter].number


def diagnosis(yours: Callable[[str], int]) -> Verdict:
    """Which bug made which column of images."""
    verdict = compare(yours, bug_of, [(letter,) for letter in BUGS], [])
    if verdict.status != WRONG or " raised " in verdict.message:
        return verdict
    wrong = [letter for letter in BUGS if yours(letter) != bug_of(letter)]
    message = (
        f"{len(BUGS) - len(wrong)} of {len(BUGS)} are right. Look at column {wrong[0]} again: {BUGS[wrong[0]].hint}"
    )
    return replace(verdict, message=message)


# ---- inversion -------------------------------------------------------------------------------------------------

DOWN = "You walk down the timesteps. Inversion walks up, from the last timestep to the first."
EARLY = "You stop one level too early: the last step goes to timesteps[0]."
Invert = Callable[[LatentDiffusion, Tensor, Tensor, list[int]], Tensor]


@torch.no_grad()
def invert(
    model: LatentDiffusion, z: Tensor, context: Tensor, timesteps: Sequence[int], *, rounds: int = 3, up: bool = True
) -> Tensor:
    """DDIM backwards: the noise at timesteps[0] from which the loop, at guidance 1, generates z again.

    rounds: how often the noise of each step is predicted, the second time from where the first one led.
    up: False walks down the list, which is wrong.
    """
    levels, x = model.schedule.alpha_bar, z
    path = list(reversed(timesteps)) if up else list(timesteps)
    for t, t_next in zip([-1, *path], path):
        there = x
        for _ in range(rounds):
            eps = model.unet(there.to(model.dtype), torch.tensor([t_next], device=x.device), context).float()
            x0_hat = (x - sqrt(1 - levels(t)) * eps) / sqrt(levels(t))
            there = sqrt(levels(t_next)) * x0_hat + sqrt(1 - levels(t_next)) * eps
        x = there
    return x


def inversion(yours: Invert, model: LatentDiffusion) -> Verdict:
    """Open: any way to find a start from which the loop at guidance 1 gives the image's latent back."""
    scene = Scene(animal="dog", colour="white", place="forest")
    z = model.encode(to_tensor(scene.render(model.native_size)))
    context, timesteps = model.embed([scene.caption()]), model.schedule.timesteps(STEPS)

    def off(start: Tensor) -> float:
        *_, end = denoise(model, start, context, timesteps)
        return ((end.x_t - z).norm() / z.norm()).item()

    verdict = _inverted(yours, model, (z, context, timesteps), off)
    return replace(verdict, answer=invert)


def _inverted(
    yours: Invert, model: LatentDiffusion, case: tuple[Tensor, Tensor, list[int]], off: Callable[[Tensor], float]
) -> Verdict:
    z, context, timesteps = case
    try:
        with torch.no_grad():
            start = yours(model, z.clone(), context, list(timesteps))
    except Exception as error:  # whatever the learner's code raises
        return raised(error)
    if start is None or start is Ellipsis:
        return not_tried()
    if not isinstance(start, Tensor) or start.shape != z.shape:
        return Verdict(WRONG, f"Return a latent of z's shape, {tuple(z.shape)}.")
    drawn = model.schedule.add_noise(z, draws(1, tuple(z.shape))[0].to(z), timesteps[0])
    mine, random = off(start), off(drawn)
    found = f"Regenerated from your noise, the latent is {mine:.1%} of its length away from the image's"
    hints = [
        (
            z,
            "You return the latent as it came. Walk up, from little noise to much. If you do, x0_hat needs the "
            "alpha_bar of the level where x is now, and the mix that of the next one.",
        ),
        (drawn, "This is drawn noise. Nothing is drawn here: the UNet's own eps leads from the image to its noise."),
        *((invert(model, z, context, timesteps, rounds=rounds, up=False), DOWN) for rounds in (1, 3)),
        *((invert(model, z, context, timesteps[1:], rounds=rounds), EARLY) for rounds in (1, 3)),
    ]
    for wrong, hint in hints:
        if torch.allclose(start, wrong.to(start), atol=1e-3):
            return Verdict(WRONG, hint)
    if mine < max(0.1, random / 100):
        return Verdict(RIGHT, f"{found}. From drawn noise it is {random:.0%} away.")
    return Verdict(
        WRONG,
        f"{found}, and from drawn noise it is {random:.0%} away. Print t and t_next in each turn. The first goes "
        "from level -1 to the last timestep, and x0_hat needs the alpha_bar of the level where x is now.",
    )
