"""The exercises of notebook 06."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm_course import pipelines
from ldm_course.checkpoint import LatentDiffusion
from ldm_course.images import latent_mask, to_tensor
from ldm_course.lab import plots
from ldm_course.lab.checks.img2img import noisy
from ldm_course.lab.checks.verdict import RIGHT, STEPS, WRONG, Verdict, compare, draws, plugged
from ldm_course.lab.painter import box_mask
from ldm_course.pipelines import inpaint
from ldm_course.sampling import AfterStep, denoise
from ldm_course.scenes import Scene
from ldm_course.text import encode_prompt


def cells(yours: Callable[[Tensor], Tensor]) -> Verdict:
    """Exercise 1: a mask of pixels as a mask of latent cells."""

    def right(mask: Tensor) -> Tensor:
        return (mask[..., ::8, ::8] >= 0.5).float()

    mistakes = [
        (lambda mask: mask[..., ::8, ::8], "Grey stays grey: it is decided at one half, to 0 or 1."),
        (
            lambda mask: (F.avg_pool2d(mask, 8) >= 0.5).float(),
            "It asks for the mean of a cell's pixels. That is a fair rule, but diffusers and the package take the "
            "top left pixel.",
        ),
        (
            lambda mask: F.max_pool2d((mask >= 0.5).float(), 8),
            "It masks a cell if any of its pixels is masked; here the top left pixel decides.",
        ),
        (lambda mask: (mask[..., ::8, ::8] < 0.5).float(), "It is the wrong way round: 1 is where to paint."),
        (lambda mask: (mask >= 0.5).float(), "It still has a value for each pixel; a latent cell is 8 x 8 pixels."),
        (
            lambda mask: (mask[..., 4::8, 4::8] >= 0.5).float(),
            "It looks at the middle of each cell; the package looks at the top left pixel, as diffusers does.",
        ),
    ]
    generator = torch.Generator().manual_seed(6)
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    return compare(yours, right, [(torch.rand(1, 1, 64, 64, generator=generator),), (ramp.contiguous(),)], mistakes)


Keep = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def keep_outside(yours: Keep, model: LatentDiffusion) -> Verdict:
    """Exercise 2: put the picture back outside the mask; first alone, then in the real pipeline."""
    mistakes = [
        (
            lambda x, z, noise, m, a: (1 - m) * x + m * noisy(z, noise, a),
            "Inside and outside are swapped: the mask is 1 where x, the new picture, is to be.",
        ),
        (
            lambda x, z, noise, m, a: m * x + (1 - m) * z,
            "It puts the clean latent back, while x still has noise; both must be at the level alpha_bar.",
        ),
        (
            lambda x, z, noise, m, a: m * x + (1 - m) * (z + noise),
            "The noise has full weight at every level; weights are the roots of alpha_bar and 1 - alpha_bar.",
        ),
        (
            lambda x, z, noise, m, a: m * x + (1 - m) * noisy(noise, z, a),
            "The weights are swapped: alpha_bar is the picture's share.",
        ),
        (
            lambda x, z, noise, m, a: m * x + (1 - m) * (a * z + (1 - a) * noise),
            "The square roots are missing: alpha_bar is a share of the variance.",
        ),
        (lambda x, z, noise, m, a: m * x, "It leaves nothing outside; the picture has to go there."),
        (lambda x, z, noise, m, a: x, "It leaves x as it is: the picture outside the mask is not put back."),
        (
            lambda x, z, noise, m, a: x + (1 - m) * noisy(z, noise, a),
            "Outside it adds the picture to x instead of replacing x: x has the weight m.",
        ),
    ]
    x, z, noise = draws(3)
    m = (torch.arange(5) > 2).float().expand(2, 1, 3, 5).contiguous()
    cases = [(x, z, noise, m, a) for a in (0.05, 0.5, 1.0)]
    verdict = compare(yours, pipelines.keep_outside, cases, mistakes)
    if verdict.status != RIGHT:
        return verdict
    picture, mask = _picture_and_mask(model)

    def paint() -> Image.Image:
        painted = inpaint(model, "a dog running", picture, mask, seed=0, num_inference_steps=STEPS)
        assert isinstance(painted, Image.Image)
        return painted

    return plugged(model, paint, keep_outside=yours)


Hook = Callable[[LatentDiffusion, Tensor, Tensor, Tensor], AfterStep]


def hook(yours: Hook, model: LatentDiffusion) -> Verdict:
    """Exercise 3: the hook that puts the picture back; first called alone, then by the real loop."""
    alpha_bar = model.schedule.alpha_bar

    def called(make: Hook) -> Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]:
        def after_step(x: Tensor, z: Tensor, noise: Tensor, m: Tensor, t_prev: int) -> Tensor:
            made = make(model, z, noise, m)
            if made is None or made is Ellipsis:
                raise NotImplementedError
            if not callable(made):
                raise TypeError(
                    "the answer must be a function of x and t_prev, as the loop calls it after each step."
                )
            x = made(x, t_prev)
            if x is None:
                raise ValueError("the hook returns nothing; the loop goes on with what it returns.")
            return x

        return after_step

    def leveled(level: Callable[[int], float]) -> Hook:
        return lambda _, z, noise, m: lambda x, t_prev: pipelines.keep_outside(x, z, noise, m, level(t_prev))

    def at_its_own(t_prev: int) -> float:
        return 1.0 if t_prev == -1 else alpha_bar(t_prev)

    mistakes = [
        (
            leveled(alpha_bar),
            "At the end, t_prev = -1, a little noise stays: alpha_bar(-1) is alpha_bar(0) in this schedule. Put z "
            "back as it is, at alpha_bar = 1.",
        ),
        (
            leveled(lambda t_prev: 1.0),
            "It puts the clean latent back at each step; x is still at the level of t_prev.",
        ),
        (
            leveled(lambda t_prev: 0.0),
            "It puts nothing but noise back; z's weight is the root of alpha_bar(t_prev).",
        ),
        (
            lambda _, z, noise, m: lambda x, t_prev: pipelines.keep_outside(x, z, noise, 1 - m, at_its_own(t_prev)),
            "Inside and outside are swapped: m is 1 where x stays.",
        ),
        (
            lambda _, z, noise, m: lambda x, t_prev: pipelines.keep_outside(x, noise, z, m, at_its_own(t_prev)),
            "z and noise are swapped.",
        ),
        (lambda _, z, noise, m: lambda x, t_prev: x, "It hands x back as it is: nothing is put back."),
    ]
    x, z, noise = draws(3)
    m = (torch.arange(5) > 2).float().expand(2, 1, 3, 5).contiguous()
    cases = [(x, z, noise, m, t_prev) for t_prev in (981, 1, -1)]
    verdict = compare(called(yours), called(leveled(at_its_own)), cases, [(called(h), hint) for h, hint in mistakes])
    if verdict.status != RIGHT:
        return verdict

    picture, mask = _picture_and_mask(model)
    with model.at_work(model.vae):
        z = model.vae.encode(to_tensor(picture).to(model.device, model.dtype)).mean.float()
    z = z * model.vae.config.scaling_factor
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(6)).to(model.device)
    m = latent_mask(mask, model.vae.downscale).to(model.device)
    empty, context = encode_prompt(model, ["", "a dog running"]).chunk(2)
    calls = []

    def end(after_step: AfterStep) -> Tensor:
        def counted(x: Tensor, t_prev: int) -> Tensor:
            calls.append(t_prev)
            return after_step(x, t_prev)

        steps = model.schedule.timesteps(STEPS)
        *_, last = denoise(
            model, noise, context, steps, negative_context=empty, guidance_scale=7.5, after_step=counted
        )
        return last.x_t

    theirs = end(leveled(at_its_own)(model, z, noise, m))
    calls.clear()
    try:
        mine = end(yours(model, z, noise, m))
    except Exception as error:  # whatever the learner's code raises
        return Verdict(WRONG, f"In the loop it raised {type(error).__name__}: {error}")
    pictures = plots.decoded(model, theirs), plots.decoded(model, mine)
    if not torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4):
        return Verdict(WRONG, "It gives the right values when called alone, but in the loop others.", pictures)
    return Verdict(RIGHT, f"The loop called your hook {len(calls)} times and painted the same picture.", pictures)


def composite(yours: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Verdict:
    """Exercise 4: the original pixels back, softly if the mask is soft."""
    mistakes = [
        (
            lambda new, old, mask: (1 - mask) * new + mask * old,
            "New and old are swapped: the mask is 1 where it is new.",
        ),
        (
            lambda new, old, mask: torch.where(mask >= 0.5, new, old),
            "It cuts hard at one half; a soft mask is to mix the two.",
        ),
        (lambda new, old, mask: new * mask, "Outside it is black: the old picture is missing."),
        (
            lambda new, old, mask: new * mask + old,
            "It adds the old picture everywhere; its weight is 1 - mask.",
        ),
    ]
    new, old, mask = (torch.sigmoid(2 * part) for part in draws(3))
    return compare(yours, lambda new, old, mask: mask * new + (1 - mask) * old, [(new, old, mask)], mistakes)


def _picture_and_mask(model: LatentDiffusion) -> tuple[Image.Image, Image.Image]:
    side = model.native_size
    return Scene(animal="dog", colour="brown", place="beach").render(side), box_mask((side, side), 0, 0.5, 1, 1)
