"""Checks of notebook 04's exercises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from operator import index
from typing import Any

from torch import Tensor

from ldm_course import sampling
from ldm_course.lab.nb04_txt2img.broken import BUGS
from ldm_course.lab.shared.verdict import RIGHT, WRONG, Verdict, compare, draws, not_tried, plugged, raised
from ldm_course.model import LatentDiffusion
from ldm_course.schedule import NoiseSchedule

Step = Callable[[Tensor, Tensor, float, float], Tensor]


def timesteps(yours: Callable[..., Sequence[int]]) -> Verdict:
    """The timesteps of "leading" spacing, as whole numbers."""

    def right(n: int, T: int = 1000, offset: int = 1) -> list[int]:
        return NoiseSchedule(num_train_timesteps=T, steps_offset=offset).timesteps(n)

    mistakes: list[tuple[Callable, str]] = [
        (
            lambda n: right(n)[::-1],
            "The timesteps go up. Sampling starts with the most noise, so reverse the list.",
        ),
        (lambda n: [t - 1 for t in right(n)], "Each timestep is too low by 1: add the offset."),
        (
            lambda n: [t - 1 for t in right(n)][::-1],
            "The timesteps go up, and they miss the offset. Sampling starts with the most noise.",
        ),
        (
            lambda n: [1000 - i * (1000 // n) for i in range(n)],
            "The list starts at 1000, which is not a timestep: they run from 0 to T - 1. Count up from the offset, "
            "then reverse.",
        ),
        (
            lambda n: [999 - i * (1000 // n) for i in range(n)],
            "This counts down from T - 1, which is called trailing spacing. Count up from the offset, then reverse.",
        ),
        (
            lambda n: [(i + 1) * (1000 // n) + 1 for i in reversed(range(n))],
            "Each timestep is one stride too high, and the last one must be 1. Count i from 0 to n - 1.",
        ),
        (
            lambda n: NoiseSchedule().timesteps(n, "linspace"),
            "This divides the range from T - 1 to 0 evenly, which is called linspace spacing. Here the stride is "
            "T // n.",
        ),
        (
            lambda n: [i * n + 1 for i in reversed(range(n))],
            "The stride is n here. It must be T // n, so that n strides cover all T timesteps.",
        ),
        (
            lambda n: list(range((n - 1) * (1000 // n) + 1, 0, -1000 // n)),
            "Python reads -T // n as (-T) // n, which rounds away from 0. Write -(T // n).",
        ),
        (
            lambda n: [int(i * 1000 / n) + 1 for i in reversed(range(n))],
            "The stride must be the whole number T // n. Divide first, then multiply by i.",
        ),
        (
            lambda n: [round(i * 1000 / n) + 1 for i in reversed(range(n))],
            "The stride must be the whole number T // n. Divide first, then multiply by i.",
        ),
        (
            lambda n: [i * 1000 / n + 1 for i in reversed(range(n))],
            "The timesteps are not whole numbers. The stride must be T // n, with two slashes.",
        ),
        (lambda n: right(n)[:-1], "The last timestep is missing. There must be n of them, and they end at 1."),
        (lambda n: right(n)[1:], "The first timestep is missing. There must be n of them."),
    ]
    verdict = compare(yours, right, [(50,), (20,), (7,), (2,)], mistakes)

    def whole() -> Verdict:
        try:
            [index(t) for t in yours(20)]
        except TypeError:
            return Verdict(WRONG, "The values are right, but they must be whole numbers. Make each an int.")
        return verdict

    return verdict.then(whole)


def guide(yours: Callable[[Tensor, Tensor, float], Tensor], model: LatentDiffusion) -> Verdict:
    """Guidance, first by itself, then in the pipeline."""
    uncond, cond = draws(2)
    mistakes: list[tuple[Callable, str]] = [
        (
            lambda u, c, s: c + s * (c - u),
            "Your line starts at eps_cond, so s = 1 already overshoots. Start at eps_uncond.",
        ),
        (
            lambda u, c, s: u - s * (c - u),
            "The sign is wrong: this moves away from eps_cond. The arrow is eps_cond - eps_uncond.",
        ),
        (
            lambda u, c, s: s * u + (1 - s) * c,
            "The two predictions are swapped: s = 1 must give eps_cond, and s = 0 eps_uncond.",
        ),
        (
            lambda u, c, s: c + s * (u - c),
            "The two predictions are swapped: s = 1 must give eps_cond, and s = 0 eps_uncond.",
        ),
        (
            lambda u, c, s: u + (s - 1) * (c - u),
            "This is one step short: s = 1 must give eps_cond. The arrow's length is s, not s - 1.",
        ),
        (
            lambda u, c, s: u + s * c,
            "This adds all of eps_cond. Add only what the prompt changes, the difference of the two.",
        ),
        (
            lambda u, c, s: s * (c - u),
            "This is the arrow alone. It has to start somewhere: at eps_uncond.",
        ),
        (
            lambda u, c, s: s * c + (s - 1) * u,
            "The two weights must add up to 1, so eps_uncond needs the weight 1 - s.",
        ),
        (
            lambda u, c, s: s * c - u,
            "The two weights must add up to 1, so eps_uncond needs the weight 1 - s.",
        ),
        (
            lambda u, c, s: (u + s * c) / (1 + s),
            "This stays between the two predictions. Guidance goes past eps_cond when s is above 1.",
        ),
        (lambda u, c, s: s * c, "This leaves eps_uncond out. It is where the line starts."),
        (lambda u, c, s: c, "The result does not depend on guidance_scale."),
        (lambda u, c, s: u, "The result is eps_uncond, whatever the guidance_scale."),
    ]
    cases = [(uncond, cond, scale) for scale in (7.5, 1.0, 0.0)]
    return compare(yours, sampling.guide, cases, mistakes).then(lambda: plugged(model, guide=yours))


@dataclass(frozen=True)
class Loop:
    """The loop, with parts that a mistake can replace."""

    guided: Callable[[Tensor, Tensor, float], Tensor] = sampling.guide
    time: Callable[[int, int], int] = lambda t, t_prev: t
    seen: Callable[[Tensor, Tensor], Tensor] = lambda x_t, x_T: x_t  # by the UNet
    estimate: Step = lambda x, eps, now, prev: (x - sqrt(1 - now) * eps) / sqrt(now)
    back: Callable[[Tensor, Tensor, Tensor, float, float], Tensor] = lambda x, x0_hat, eps, now, prev: (
        sqrt(prev) * x0_hat + sqrt(1 - prev) * eps
    )
    mixed: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda eps, uncond, cond: eps  # into the new x_t
    returned: Callable[[Tensor, Tensor], Tensor] = lambda x_t, x0_hat: x_t
    once: bool = False

    def __call__(
        self,
        model: LatentDiffusion,
        x_T: Tensor,
        context: Tensor,
        empty: Tensor,
        timesteps: Sequence[int],
        guidance_scale: float,
    ) -> Tensor:
        """The finished latent, or whatever `returned` picks."""
        alpha_bar = model.schedule.alpha_bar
        x_t = x_T.to(model.device)
        x0_hat = x_t
        for t, t_prev in zip(timesteps, [*timesteps[1:], -1]):
            seen, time = self.seen(x_t, x_T).to(model.dtype), max(0, self.time(t, t_prev))
            uncond, cond = (model.unet(seen, time, each).float() for each in (empty, context))
            eps = self.guided(uncond, cond, guidance_scale)
            x0_hat = self.estimate(x_t, eps, alpha_bar(t), alpha_bar(t_prev))
            x_t = self.back(x_t, x0_hat, self.mixed(eps, uncond, cond), alpha_bar(t), alpha_bar(t_prev))
            if self.once:
                break
        return self.returned(x_t, x0_hat)


WRONG_LOOPS: tuple[tuple[Loop, str], ...] = (
    (Loop(once=True), "The loop runs only once. Is `return` inside it? It must stand below the loop."),
    (
        Loop(guided=lambda u, c, s: sampling.guide(c, u, s)),
        "The two predictions are swapped: eps_uncond reads the empty prompt, and guide takes it first.",
    ),
    (
        Loop(guided=lambda u, c, s: c),
        "Guidance is missing: eps is the prediction with the prompt as it is. Does eps_uncond read the empty one?",
    ),
    (
        Loop(guided=lambda u, c, s: u),
        "eps is the prediction without the prompt, so the words have no say. Does eps_cond read them?",
    ),
    (
        Loop(guided=lambda u, c, s: c + s * (c - u)),
        "guide starts from eps_uncond. Your mix starts from eps_cond and goes one arrow too far.",
    ),
    (
        Loop(time=lambda t, t_prev: t_prev),
        "The UNet is told t_prev, but x_t is still at the noise level of t.",
    ),
    (Loop(seen=lambda x_t, x_T: x_T), "The UNet sees x_T in every round. Show it the current x_t."),
    (
        Loop(estimate=lambda x, e, now, prev: (x - sqrt(1 - prev) * e) / sqrt(prev)),
        "x_t never changes, because both lines use one level. x_t is at the level of t, and goes to that of t_prev.",
    ),
    (
        Loop(
            estimate=lambda x, e, now, prev: (x - sqrt(1 - prev) * e) / sqrt(prev),
            back=lambda x, x0, e, now, prev: sqrt(now) * x0 + sqrt(1 - now) * e,
        ),
        "The two levels are swapped: guess with alpha_bar(t), then go back with alpha_bar(t_prev).",
    ),
    (
        Loop(estimate=lambda x, e, now, prev: (x - (1 - now) * e) / now),
        "The square roots are missing in x0_hat: the weights are the roots of alpha_bar and of 1 - alpha_bar.",
    ),
    (
        Loop(back=lambda x, x0, e, now, prev: prev * x0 + (1 - prev) * e),
        "The square roots are missing in the new x_t: the weights are the roots of alpha_bar and of 1 - alpha_bar.",
    ),
    (
        Loop(
            estimate=lambda x, e, now, prev: (x - (1 - now) * e) / now,
            back=lambda x, x0, e, now, prev: prev * x0 + (1 - prev) * e,
        ),
        "The square roots are missing: the weights are the roots of alpha_bar and of 1 - alpha_bar.",
    ),
    (
        Loop(estimate=lambda x, e, now, prev: x - sqrt(1 - now) * e),
        "x0_hat is not divided by the signal's weight, the root of alpha_bar(t).",
    ),
    (
        Loop(estimate=lambda x, e, now, prev: (x + sqrt(1 - now) * e) / sqrt(now)),
        "x0_hat has the wrong sign: take the noise out of x_t, do not add more.",
    ),
    (
        Loop(estimate=lambda x, e, now, prev: (x - sqrt(1 - now) * e) * sqrt(now)),
        "x0_hat is multiplied by the signal's weight. Divide by it.",
    ),
    (
        Loop(estimate=lambda x, e, now, prev: x - sqrt(1 - now) * e / sqrt(now)),
        "Only the noise is divided by the signal's weight. Put the whole difference in brackets.",
    ),
    (
        Loop(back=lambda x, x0, e, now, prev: x0),
        "x_t becomes x0_hat, without any noise. The UNet expects the noise of t_prev in it: mix eps in again.",
    ),
    (
        Loop(back=lambda x, x0, e, now, prev: sqrt(prev) * x0),
        "No noise goes back in: add eps with the weight sqrt(1 - alpha_bar(t_prev)).",
    ),
    (
        Loop(back=lambda x, x0, e, now, prev: sqrt(prev) * x0 + sqrt(1 - now) * e),
        "The noise goes back in at the old level. Weigh eps with sqrt(1 - alpha_bar(t_prev)).",
    ),
    (
        Loop(back=lambda x, x0, e, now, prev: sqrt(1 - prev) * x0 + sqrt(prev) * e),
        "The weights of x0_hat and eps are swapped in the new x_t.",
    ),
    (
        Loop(back=lambda x, x0, e, now, prev: sqrt(prev) * x + sqrt(1 - prev) * e),
        "The new x_t is made of x_t and eps. Make it of x0_hat and eps.",
    ),
    (Loop(back=lambda x, x0, e, now, prev: x - e), "This subtracts all of eps. x_t holds only a share of it."),
    (
        Loop(mixed=lambda eps, uncond, cond: cond),
        "The noise that goes back in is eps_cond. Use the guided eps, the same as in x0_hat.",
    ),
    (
        Loop(mixed=lambda eps, uncond, cond: uncond),
        "The noise that goes back in is eps_uncond. Use the guided eps, the same as in x0_hat.",
    ),
    (Loop(returned=lambda x_t, x0_hat: x0_hat), "This returns x0_hat. Return x_t, where the last step arrived."),
)


def loop(yours: Callable[..., Tensor], model: LatentDiffusion) -> Verdict:
    """The whole loop: (model, x_T, context, empty, timesteps, guidance_scale) -> the finished latent."""
    x_T, context, empty = _start(model)
    steps = model.schedule.timesteps(4)

    def run(denoise: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, scale: denoise(model, x, context, empty, steps, scale)

    mistakes = [(run(mistake), hint) for mistake, hint in WRONG_LOOPS]
    verdict = compare(run(yours), run(Loop()), [(x_T, 4.0)], mistakes)
    return replace(verdict, answer=Loop())


def _start(model: LatentDiffusion) -> tuple[Tensor, Tensor, Tensor]:
    """Noise for two images, and their contexts with and without a prompt."""
    shape = (2, model.unet.config.in_channels, *2 * [model.native_latent_size])
    (x_T,) = draws(1, shape)
    context, empty = model.embed(["a dog with glasses"] * 2 + [""] * 2).chunk(2)
    return x_T, context, empty


def bugs(yours: Callable[[], dict[str, int]]) -> Verdict:
    """Which bug made which image: a dict from the image's letter to the bug's number."""

    def right() -> dict[str, int]:
        return {letter: bug.number for letter, bug in BUGS.items()}

    def judged() -> Verdict:
        try:
            answer: Any = yours()
        except Exception as error:  # whatever the learner's code raises
            return raised(error)
        if answer is None or answer is Ellipsis:
            return not_tried()
        if not isinstance(answer, dict):
            return Verdict(WRONG, f"Return a dict from letters to numbers, not a {type(answer).__name__}.")
        if any(answer.get(letter) is Ellipsis for letter in BUGS):
            return not_tried()
        missing = [letter for letter in BUGS if letter not in answer]
        if missing:
            return Verdict(WRONG, f"Image {missing[0]} has no number yet.")
        wrong = [letter for letter, bug in BUGS.items() if answer[letter] != bug.number]
        if wrong:
            found = len(BUGS) - len(wrong)
            return Verdict(WRONG, f"{found} of {len(BUGS)} found. Image {wrong[0]}: {BUGS[wrong[0]].hint}")
        return Verdict(RIGHT, "You can read a broken loop from its images.")

    return replace(judged(), answer=right)


def limited_interval(yours: Callable[..., Tensor], model: LatentDiffusion) -> Verdict:
    """Guidance only where low < t <= high: its latents, then how many images go through the UNet."""
    x_T, context, empty = _start(model)
    steps = model.schedule.timesteps(5)  # 801, 601, 401, 201, 1

    def right(
        model: LatentDiffusion,
        x_T: Tensor,
        context: Tensor,
        empty: Tensor,
        timesteps: Sequence[int],
        guidance_scale: float,
        low: int,
        high: int,
        inside: Callable[[int, int, int], bool] = lambda t, low, high: low < t <= high,
        outside: float = 1.0,
    ) -> Tensor:
        alpha_bar, x_t = model.schedule.alpha_bar, x_T.to(model.device)
        for t, t_prev in zip(timesteps, [*timesteps[1:], -1]):
            scale = guidance_scale if inside(t, low, high) else outside
            eps = cond = model.unet(x_t.to(model.dtype), t, context).float()
            if scale != 1:
                eps = sampling.guide(model.unet(x_t.to(model.dtype), t, empty).float(), cond, scale)
            x0_hat = (x_t - sqrt(1 - alpha_bar(t)) * eps) / sqrt(alpha_bar(t))
            x_t = sqrt(alpha_bar(t_prev)) * x0_hat + sqrt(1 - alpha_bar(t_prev)) * eps
        return x_t

    def run(denoise: Callable[..., Tensor], **changed: Any) -> Callable[..., Tensor]:
        return lambda x, low, high: denoise(model, x, context, empty, steps, 4.0, low, high, **changed)

    mistakes = [
        (
            run(right, inside=lambda t, low, high: not low < t <= high),
            "Inside and outside are swapped: guide where low < t <= high.",
        ),
        (
            run(right, outside=0.0),
            "Outside the interval this follows the empty prompt. Follow the prompt there, as with a scale of 1.",
        ),
        (run(right, inside=lambda t, low, high: True), "This guides at every timestep, whatever the interval."),
        (run(right, inside=lambda t, low, high: False), "This never guides."),
        (run(right, inside=lambda t, low, high: t > low), "high has no effect: the interval has two ends."),
        (run(right, inside=lambda t, low, high: t <= high), "low has no effect: the interval has two ends."),
        (
            run(right, inside=lambda t, low, high: low <= t <= high),
            "At t = low there must be no guidance: low itself is outside.",
        ),
        (
            run(right, inside=lambda t, low, high: low < t < high),
            "At t = high there must be guidance: high itself is inside.",
        ),
        (
            run(right, inside=lambda t, low, high: low <= t < high),
            "The ends are the wrong way round: low is outside, high is inside.",
        ),
        (
            run(right, inside=lambda t, low, high: low < steps.index(t) <= high),
            "low and high are timesteps, such as 300 and 850. They are compared with the number of the step here.",
        ),
    ]
    verdict = compare(run(yours), run(right), [(x_T, 201, 601), (x_T, 100, 700)], mistakes)

    def counted() -> Verdict:
        images = 0

        def unet(x: Tensor, t: Any, context: Tensor) -> Tensor:
            nonlocal images
            images += len(x)
            return model.unet(x, t, context)

        counting = replace(model, unet=unet)  # type: ignore[arg-type]  # any callable will do
        yours(counting, x_T, context, empty, steps, 4.0, 201, 601)
        spare, needed = images // len(x_T), len(steps) + 2
        if spare > needed:
            return Verdict(
                WRONG,
                f"The latents are right, but the UNet predicts {spare} times an image where {needed} are enough. "
                "Outside the interval the prediction without the prompt is not needed.",
            )
        return Verdict(RIGHT, f"The latents are right, and {needed} predictions take the place of {2 * len(steps)}.")

    return replace(verdict.then(counted), answer=right)
