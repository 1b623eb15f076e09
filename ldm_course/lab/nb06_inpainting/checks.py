"""Checks of notebook 06's exercises."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm_course import images, pipelines
from ldm_course.lab.shared import plots
from ldm_course.lab.shared.verdict import RIGHT, STEPS, WRONG, Verdict, compare, draws, plugged
from ldm_course.masks import region_mask
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import inpaint, known_region_hook
from ldm_course.sampling import AfterStep, denoise, draw_noise
from ldm_course.scenes import Scene


def latent_mask(yours: Callable[[Tensor], Tensor]) -> Verdict:
    """Exercise 1: a mask of pixels to a mask of latent cells."""

    def right(mask: Tensor) -> Tensor:
        return (mask[..., ::8, ::8] >= 0.5).float()

    mistakes = [
        (lambda mask: mask[..., ::8, ::8], "Grey values stay grey. Make them 1 from one half on, and 0 below."),
        (
            lambda mask: (F.avg_pool2d(mask, 8) >= 0.5).float(),
            "The mean of a cell's pixels decides here. In diffusers and in this package, the top left pixel does.",
        ),
        (
            lambda mask: F.max_pool2d((mask >= 0.5).float(), 8),
            "This masks a cell if any of its pixels is masked. Only the top left pixel decides.",
        ),
        (
            lambda mask: (mask[..., ::8, ::8] < 0.5).float(),
            "Zeros and ones are swapped: 1 is where to repaint.",
        ),
        (
            lambda mask: (mask >= 0.5).float(),
            "The result has a value for each pixel. Return one for each latent cell of 8 x 8 pixels.",
        ),
        (
            lambda mask: (mask[..., 4::8, 4::8] >= 0.5).float(),
            "The pixel in the middle of each cell decides here. In diffusers and in this package, the top left one "
            "does.",
        ),
    ]
    generator = torch.Generator("cpu").manual_seed(6)
    random = torch.rand(1, 1, 64, 64, generator=generator, dtype=torch.float32, device="cpu")
    ramp = torch.linspace(0, 1, 64, dtype=torch.float32, device="cpu").repeat(1, 1, 64, 1)
    return compare(yours, right, [(random,), (ramp,)], mistakes)


Keep = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def keep_known_region(yours: Keep, model: LatentDiffusion) -> Verdict:
    """Exercise 2: put the known region back, first by itself, then in the pipeline."""
    right = pipelines.keep_known_region
    mistakes = [
        (
            lambda x, z, noise, m, a: right(x, z, noise, 1 - m, a),
            "Inside and outside are swapped: where the mask is 1, x stays.",
        ),
        (
            lambda x, z, noise, m, a: m * x + (1 - m) * z,
            "This puts the clean latent z back, while x still has noise. Bring z to the level alpha_bar first.",
        ),
        (
            lambda x, z, noise, m, a: m * x + (1 - m) * (z + noise),
            "z and the noise have full weight at every level. Their weights are the roots of alpha_bar and "
            "1 - alpha_bar.",
        ),
        (
            lambda x, z, noise, m, a: right(x, noise, z, m, a),
            "The weights are swapped: alpha_bar is the share of z.",
        ),
        (
            lambda x, z, noise, m, a: m * x + (1 - m) * (a * z + (1 - a) * noise),
            "The square roots are missing: alpha_bar is a share of the variance.",
        ),
        (
            lambda x, z, noise, m, a: m * x,
            "The latent is 0 outside of the mask. Put z there, with noise.",
        ),
        (
            lambda x, z, noise, m, a: x,
            "This returns x unchanged. Replace it by z, with noise, outside of the mask.",
        ),
        (
            lambda x, z, noise, m, a: x + right(0 * x, z, noise, m, a),
            "Outside of the mask this adds z to x. Replace x there: give it the weight m.",
        ),
    ]
    x, z, noise = draws(3)
    m = _right_half(x)
    verdict = compare(yours, right, [(x, z, noise, m, a) for a in (0.05, 0.5, 1.0)], mistakes)
    if verdict.status != RIGHT:
        return verdict
    image, mask = _image_and_mask(model)
    sample = functools.partial(inpaint, model, "a dog running", image, mask, seed=0, num_inference_steps=STEPS)
    return plugged(model, sample, keep_known_region=yours)


Hook = Callable[[LatentDiffusion, Tensor, Tensor, Tensor], AfterStep]


def after_step(yours: Hook, model: LatentDiffusion) -> Verdict:
    """Exercise 3: the hook that puts the known region back, first called by itself, then by the loop."""

    def at_level(level: Callable[[int], float]) -> Hook:
        return lambda _, z, noise, m: lambda x, t_prev: pipelines.keep_known_region(x, z, noise, m, level(t_prev))

    mistakes: list[tuple[Hook, str]] = [
        (
            at_level(model.schedule.alpha_bar),
            "At the end, t_prev = -1, some noise stays: alpha_bar(-1) is alpha_bar(0) in this schedule. Use "
            "alpha_bar = 1 there, so that z comes back without noise.",
        ),
        (
            at_level(lambda t_prev: 1.0),
            "This puts the clean latent z back at each step, while x has the noise level of t_prev.",
        ),
        (
            at_level(lambda t_prev: 0.0),
            "This puts back only noise. The weight of z is the root of alpha_bar(t_prev).",
        ),
        (
            lambda _, z, noise, m: known_region_hook(model, z, noise, 1 - m),
            "Inside and outside are swapped: where m is 1, x stays.",
        ),
        (lambda _, z, noise, m: known_region_hook(model, noise, z, m), "z and noise are swapped."),
        (
            lambda _, z, noise, m: lambda x, t_prev: x,
            "The hook returns x unchanged. Return it with the known region put back.",
        ),
    ]
    x, z, noise = draws(3)
    cases = [(x, z, noise, _right_half(x), t_prev) for t_prev in (981, 1, -1)]
    verdict = compare(
        _call(yours, model),
        _call(known_region_hook, model),
        cases,
        [(_call(hook, model), hint) for hook, hint in mistakes],
    )
    return _compare_in_loop(yours, model) if verdict.status == RIGHT else verdict


def _call(make_hook: Hook, model: LatentDiffusion) -> Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]:
    """A function that makes the hook and calls it once."""

    def called(x: Tensor, z: Tensor, noise: Tensor, m: Tensor, t_prev: int) -> Tensor:
        hook = make_hook(model, z, noise, m)
        if hook is None or hook is Ellipsis:
            raise NotImplementedError
        if not callable(hook):
            raise TypeError("the answer must be a function of x and t_prev, which the loop calls after each step.")
        x = hook(x, t_prev)
        if x is None:
            raise ValueError("the hook returns nothing, but the loop goes on with what it returns.")
        return x

    return called


def _compare_in_loop(yours: Hook, model: LatentDiffusion) -> Verdict:
    """Run the loop with the package's hook and with the learner's, and compare the finished latents."""
    image, mask = _image_and_mask(model)
    z = model.encode(images.to_tensor(image))
    noise = draw_noise(z.shape, torch.Generator("cpu").manual_seed(6)).to(model.device)
    m = images.latent_mask(mask, model.vae.downscale).to(model.device)
    empty, context = model.embed(["", "a dog running"]).chunk(2)
    calls = 0

    def sample(hook: AfterStep) -> Tensor:
        def counted(x: Tensor, t_prev: int) -> Tensor:
            nonlocal calls
            calls += 1
            return hook(x, t_prev)

        timesteps = model.schedule.timesteps(STEPS)
        *_, last = denoise(
            model, noise, context, timesteps, negative_context=empty, guidance_scale=7.5, after_step=counted
        )
        return last.x_t

    theirs = sample(known_region_hook(model, z, noise, m))
    calls = 0
    try:
        mine = sample(yours(model, z, noise, m))
    except Exception as error:  # whatever the learner's code raises
        return Verdict(WRONG, f"In the loop it raised {type(error).__name__}: {error}")
    pair = plots.decoded(model, theirs), plots.decoded(model, mine)
    if not torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4):
        return Verdict(WRONG, "The values are right when the hook is called by itself, but not in the loop.", pair)
    return Verdict(RIGHT, f"The loop called your hook {calls} times and generated the same image.", pair)


def composite(yours: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Exercise 4: put the original pixels back, softly where the mask is soft."""
    mistakes = [
        (
            lambda new, old, mask: (1 - mask) * new + mask * old,
            "New and old are swapped: the new image is where the mask is 1.",
        ),
        (
            lambda new, old, mask: torch.where(mask >= 0.5, new, old),
            "This cuts the mask at one half. Where it is soft, mix new and old.",
        ),
        (lambda new, old, mask: new * mask, "The result is black outside of the mask. Add the old image there."),
        (
            lambda new, old, mask: new * mask + old,
            "The old image has full weight everywhere. Its weight is 1 - mask.",
        ),
    ]
    new, old, mask = (torch.sigmoid(2 * part) for part in draws(3))
    return compare(yours, lambda new, old, mask: mask * new + (1 - mask) * old, [(new, old, mask)], mistakes)


def _right_half(x: Tensor) -> Tensor:
    """A mask for latents (b, c, h, w): 1 in the right part, (b, 1, h, w)."""
    columns = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)
    return (columns > x.shape[-1] / 2).to(x).repeat(len(x), 1, x.shape[-2], 1)


def _image_and_mask(model: LatentDiffusion) -> tuple[Image.Image, Image.Image]:
    side = model.native_size
    return Scene(animal="dog", colour="brown", place="beach").render(side), region_mask("lower-half", (side, side))
