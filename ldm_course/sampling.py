"""From noise to a latent: classifier-free guidance, and the one loop that every task runs. Notebook 04."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Real

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ldm_course.errors import InputError
from ldm_course.model import LatentDiffusion, check_model
from ldm_course.samplers import State, Step, ddim, final_alpha_bar
from ldm_course.schedule import NoiseSchedule

Generators = torch.Generator | Sequence[torch.Generator] | None  # one for the whole batch, or one per image
AfterStep = Callable[[Tensor, int], Tensor]


def draw_noise(shape: Sequence[int], generator: Generators = None) -> Tensor:
    """Noise ~ N(0, 1) of shape (b, ...), drawn in float32 on the CPU, so that a seed means the same everywhere.

    One generator draws the whole batch at once, as in diffusers. With a list, each generator draws its own image, so
    an image does not depend on the others of its batch. None is torch's global generator.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")
    return torch.cat([draw_noise((1, *shape[1:]), each) for each in generator])


def guide(eps_uncond: Tensor, eps_cond: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance: from the prediction without the text towards the one with it, and past it.

    Ho and Salimans 2022, eq. 6, with guidance_scale = 1 + w: 0 ignores the text, 1 follows it, 7.5 exaggerates it.
    """
    return eps_uncond + guidance_scale * (eps_cond - eps_uncond)


def denoise(
    model: LatentDiffusion,
    x_T: Tensor,
    context: Tensor,
    timesteps: Iterable[int],
    *,
    negative_context: Tensor | None = None,
    guidance_scale: float = 1.0,
    step: Step = ddim,
    generator: Generators = None,
    after_step: AfterStep | None = None,
    progress: bool = False,
) -> Iterator[State]:
    """The loop: a generator of one State before each step, and a last one, t = -1, with the result.

    Args:
        model: its UNet may be any callable (x_t, t, context) -> prediction: (n, c, h, w), (1,), (n, 77, d) to
            (n, c, h, w), where n is b, or 2b with guidance.
        x_T: latents at the noise level of timesteps[0], (b, c, h, w).
        context: the text encoder's vectors, (b, 77, d).
        timesteps: from high to low, such as model.schedule.timesteps(50); may be empty. Each step goes to the next
            one. (diffusers' DDIM goes to t - 1000 // n: another, unless "leading" or n divides 1000.)
        negative_context: vectors to steer away from, as context, usually the empty text's; needed unless
            guidance_scale is 1.
        guidance_scale: see `guide`.
        step: `samplers.ddim`, ddpm, euler or dpmpp_2m, or a function of your own of the same form.
        generator: draws DDPM's noise; see `draw_noise`.
        after_step: called as after_step(x, t_prev) after each step, where t_prev is the timestep whose noise level
            x now has (-1 at the end); the loop goes on with the latent that it returns.
        progress: show a progress bar.
    Raises InputError at the call if the arguments do not fit each other.
    """
    check_model(model)
    check_guidance(guidance_scale)
    check_tensors(model, x_T, context, negative_context, guidance_scale)
    check_generator(generator, len(x_T))
    steps = check_descending(model.schedule, timesteps)
    check_callable("step", step, "(now, alpha_bar, before, noise)")
    if after_step is not None:
        check_callable("after_step", after_step, "(x, t_prev)")

    def noise() -> Tensor:
        return draw_noise(x_T.shape, generator).to(model.device)

    @torch.no_grad()  # while a step is computed, not while the caller looks at a State
    def states() -> Iterator[State]:
        scale, before = float(guidance_scale), None
        x_t = x_T.to(model.device, torch.float32)
        eps = torch.zeros_like(x_t)
        both = context if negative_context is None or scale == 1 else torch.cat([negative_context, context])
        both = both.to(model.device, model.dtype)  # (b or 2b, 77, d): a scale of 1 needs no negative half
        levels = [*map(model.schedule.alpha_bar, steps), final_alpha_bar(model.schedule, step)]
        path = list(zip(steps, [*steps[1:], -1], levels, levels[1:]))
        for t, t_prev, alpha_bar_t, alpha_bar_prev in tqdm(path) if progress else path:
            x = x_t if scale == 1 else torch.cat([x_t, x_t])
            prediction = model.unet(x.to(model.dtype), torch.tensor([t], device=x.device), both)  # eps or v
            prediction = check_result("The UNet", prediction, x).float()
            if scale != 1:
                uncond, cond = prediction.chunk(2)
                prediction = guide(uncond, cond, scale)
            x0_hat, eps = model.schedule.x0_and_eps(prediction, x_t, t)
            now = State(t, x_t, eps, x0_hat, alpha_bar_t)
            yield now

            x_t = check_result("step", step(now, alpha_bar_prev, before, noise), now.x_t)
            if after_step is not None:
                x_t = check_result("after_step", after_step(x_t, t_prev), now.x_t)
            before = now
        yield State(-1, x_t, eps, x_t, levels[-1])

    return states()


# ---- what is refused -------------------------------------------------------------------------------------------


def check_callable(name: str, function: object, arguments: str) -> None:
    """Raise InputError unless the function can be called with these arguments."""
    try:
        inspect.signature(function).bind(*arguments.split(","))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # not callable, or of other arguments
        raise InputError(f"{name} must be a function of {arguments}, not {function!r}.") from None


def check_result(name: str, result: object, like: Tensor) -> Tensor:
    """The result; raises InputError unless it is a tensor of the shape of `like`."""
    if isinstance(result, Tensor) and result.shape == like.shape:
        return result
    has = f"of shape {tuple(result.shape)}" if isinstance(result, Tensor) else f"a {type(result).__name__}"
    wrap = "; wrap it: lambda *args: unet(*args).sample" if hasattr(result, "sample") else ""  # diffusers' UNet
    raise InputError(f"{name} must return a tensor of shape {tuple(like.shape)}, and its result is {has}{wrap}.")


def check_guidance(guidance_scale: float) -> None:
    """Raise InputError unless the scale is a finite number; far beyond 10000 only overflow is left."""
    if not isinstance(guidance_scale, Real) or not abs(guidance_scale) <= 10_000:
        raise InputError(f"guidance_scale is {guidance_scale!r}; it must be a finite number, at most 10000.")


def check_generator(generator: Generators, batch: int) -> None:
    """Raise InputError unless it is None, a generator on the CPU, or a list of one per image."""
    if generator is None:
        return
    each = [generator] if isinstance(generator, torch.Generator) else generator
    if not isinstance(each, (list, tuple)) or not all(isinstance(g, torch.Generator) for g in each):
        raise InputError("generator must be a torch.Generator, or a list of them.")
    if any(g.device.type != "cpu" for g in each):
        raise InputError("generator must be on the CPU: noise is drawn there, and then moved to the model's device.")
    if each is generator and len(each) != batch:
        raise InputError(f"{len(each)} generators do not fit {batch} images; give one, or one per image.")


def check_descending(schedule: NoiseSchedule, timesteps: Iterable[int]) -> list[int]:
    """The timesteps as a list of int. Raises InputError unless they are on the schedule and go from high to low."""
    try:
        steps = [operator.index(t) for t in timesteps]
    except TypeError:
        raise InputError("timesteps must be a list of whole numbers, such as model.schedule.timesteps(50).") from None
    for t in steps:
        schedule.check_timesteps(t)
    if any(t <= t_prev for t, t_prev in zip(steps, steps[1:])):
        raise InputError("timesteps must go from high to low, each of them once.")
    return steps


def check_tensors(
    model: LatentDiffusion, x_T: Tensor, context: Tensor, negative_context: Tensor | None, guidance_scale: float
) -> None:
    """Raise InputError unless the tensors of `denoise` fit each other and the model's UNet."""
    negative = context if negative_context is None else negative_context
    for name, value in (("x_T", x_T), ("context", context), ("negative_context", negative)):
        if not isinstance(value, Tensor):
            raise InputError(f"{name} must be a torch.Tensor, not {type(value).__name__}.")
    if guidance_scale != 1 and negative_context is None:
        raise InputError("Guidance needs negative_context, such as the empty text's; or set guidance_scale=1.")
    shapes = f"they are {tuple(x_T.shape)}, {tuple(context.shape)} and {tuple(negative.shape)}"
    fit = x_T.dim() == 4 and context.dim() == 3 and len(x_T) == len(context) and negative.shape == context.shape
    if not fit or 0 in x_T.shape:
        raise InputError(f"The loop needs x_T (b, c, h, w), context and negative_context (b, tokens, d); {shapes}.")
    config = getattr(model.unet, "config", None)  # a UNet of your own may have none
    if config and (x_T.shape[1], context.shape[2]) != (config.in_channels, config.cross_attention_dim):
        raise InputError(
            f"The UNet needs {config.in_channels} channels and d = {config.cross_attention_dim}; {shapes}."
        )
