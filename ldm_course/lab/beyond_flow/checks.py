"""The exercises of the notebook on flows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from ldm_course import samplers
from ldm_course.lab.beyond_flow import toy
from ldm_course.lab.beyond_flow.toy import Field
from ldm_course.lab.shared.verdict import RIGHT, WRONG, Verdict, compare, draws, not_tried, plugged, raised, stacked
from ldm_course.model import LatentDiffusion
from ldm_course.samplers import Noise, State
from ldm_course.schedule import NoiseSchedule

LEVELS = ((0.05, 0.1), (0.5, 0.6), (0.9, 0.98))  # alpha_bar_t and alpha_bar_prev of three steps

# ---- in the plane ----------------------------------------------------------------------------------------------

Loss = Callable[[Field, Tensor, Tensor, Tensor], Tensor]


def field(x: Tensor, s: Tensor | float) -> Tensor:
    """Stands for the network: it looks at the place and at the time."""
    return torch.sin(2 * x.flip(1)) + torch.as_tensor(s, dtype=x.dtype, device=x.device) * x


def flow_loss(yours: Loss) -> Verdict:
    """Conditional flow matching on straight lines."""

    def between(x0: Tensor, eps: Tensor, s: Tensor) -> Tensor:
        return (1 - s) * x0 + s * eps

    def error(answer: Tensor, target: Tensor) -> Tensor:
        return (answer - target).square().mean()

    mistakes: list[tuple[Loss, str]] = [
        (
            lambda u, x0, eps, s: error(u(s * x0 + (1 - s) * eps, s), eps - x0),
            "The line runs the wrong way: at s = 0 stands the clean point x0, at s = 1 the noise eps.",
        ),
        (
            lambda u, x0, eps, s: error(u(s * x0 + (1 - s) * eps, s), x0 - eps),
            "The line runs the wrong way: at s = 0 stands the clean point x0, at s = 1 the noise eps.",
        ),
        (
            lambda u, x0, eps, s: error(u(between(x0, eps, s), s), x0 - eps),
            "The velocity has the wrong sign: when s grows, the point moves towards the noise.",
        ),
        (
            lambda u, x0, eps, s: error(u(between(x0, eps, s), s), eps),
            "That is the loss of a network that predicts noise. The velocity of the line is how x_s changes with s.",
        ),
        (
            lambda u, x0, eps, s: error(u(between(x0, eps, s), s), x0),
            "That is the loss of a network that predicts the clean point. The velocity is how x_s changes with s.",
        ),
        (
            lambda u, x0, eps, s: error(u(between(x0, eps, s), s), s * (eps - x0)),
            "That is the way already gone, s * (eps - x0). The velocity is the same all along the line.",
        ),
        (
            lambda u, x0, eps, s: error(u(between(x0, eps, s), s), eps - between(x0, eps, s)),
            "That is the way still to go to the noise. The velocity is the same all along the line.",
        ),
        (
            lambda u, x0, eps, s: error(u((1 - s).sqrt() * x0 + s.sqrt() * eps, s), eps - x0),
            "The roots belong to diffusion. A straight line has the weights 1 - s and s.",
        ),
        (
            lambda u, x0, eps, s: error(u(x0, s), eps - x0),
            "The network must see the point on the line, x_s, not the clean one.",
        ),
        (
            lambda u, x0, eps, s: error(u(eps, s), eps - x0),
            "The network must see the point on the line, x_s, not the noise.",
        ),
        (
            lambda u, x0, eps, s: error(u(between(x0, eps, s), 1 - s), eps - x0),
            "The network is told the wrong time: give it s.",
        ),
        (
            lambda u, x0, eps, s: (u(between(x0, eps, s), s) - (eps - x0)).square().sum(),
            "It is the sum of the squares. Take their mean.",
        ),
        (
            lambda u, x0, eps, s: (u(between(x0, eps, s), s) - (eps - x0)).square().sum(dim=1).mean(),
            "It adds the two coordinates up. Take the mean over everything, as mse_loss does.",
        ),
        (
            lambda u, x0, eps, s: (u(between(x0, eps, s), s) - (eps - x0)).abs().mean(),
            "It is the absolute error. Its best answer is a median, and the theorem needs the mean: square it.",
        ),
        (
            lambda u, x0, eps, s: (u(between(x0, eps, s), s) - (eps - x0)).mean().square(),
            "Square first, then take the mean: otherwise errors of both signs cancel.",
        ),
        (
            lambda u, x0, eps, s: (u(between(x0, eps, s), s) - (eps - x0)).square(),
            "Those are the squared errors of all values. A loss is one number: their mean.",
        ),
    ]
    cases = [(field, *draws(2, (5, 2), seed), draws(1, (5, 1), seed + 5)[0].sigmoid()) for seed in (1, 2)]
    return replace(compare(yours, toy.flow_loss, cases, mistakes), answer=toy.flow_loss)


OdeStep = Callable[[Field, Tensor, float, float], Tensor]


def heun(u: Field, x: Tensor, s: float, s_next: float) -> Tensor:
    """Heun's step: along the mean of the velocities here and where Euler's step would lead."""
    here = u(x, s)
    there = u(x + (s_next - s) * here, s_next)
    return x + (s_next - s) * (here + there) / 2


def heun_step(yours: OdeStep) -> Verdict:
    """Heun's method, one step."""

    def two(
        place: Callable[[Tensor, Tensor, float, float], Tensor] = lambda x, k, s, e: x + (e - s) * k,
        time: Callable[[float, float], float] = lambda s, e: e,
        mix: Callable[[Tensor, Tensor], Tensor] = lambda k, m: (k + m) / 2,
        length: Callable[[float, float], float] = lambda s, e: e - s,
    ) -> OdeStep:
        def step(u: Field, x: Tensor, s: float, e: float) -> Tensor:
            k = u(x, s)
            return x + length(s, e) * mix(k, u(place(x, k, s, e), time(s, e)))

        return step

    mistakes: list[tuple[OdeStep, str]] = [
        (lambda u, x, s, e: x + (e - s) * u(x, s), "That is Euler's step alone. Ask the network again where it led."),
        (
            lambda u, x, s, e: x - (e - s) * u(x, s),
            "That is Euler's step alone, and away from the data: s_next - s is negative already.",
        ),
        (
            two(mix=lambda k, m: k + m),
            "The two velocities are added up, so the step is twice as long: take their mean.",
        ),
        (two(mix=lambda k, m: m), "It goes along the second velocity alone. Take the mean of both."),
        (two(place=lambda x, k, s, e: x), "The second time, ask where Euler's step has led, not at x again."),
        (two(time=lambda s, e: s), "The second time it is s_next: the point has moved, and so has the time."),
        (
            two(place=lambda x, k, s, e: x - (e - s) * k),
            "The first step goes the wrong way: s_next - s is negative already.",
        ),
        (
            two(length=lambda s, e: s - e, place=lambda x, k, s, e: x + (s - e) * k),
            "Both steps go away from the data: s_next - s is negative, and the sign is right as it is.",
        ),
        (two(length=lambda s, e: s - e), "The last step goes the wrong way: multiply by s_next - s."),
        (
            two(place=lambda x, k, s, e: x + (e - s) / 2 * k, time=lambda s, e: (s + e) / 2, mix=lambda k, m: m),
            "That is the midpoint method, which is as good. Heun goes all the way first, and takes the mean of both "
            "velocities.",
        ),
        (
            lambda u, x, s, e: x + (e - s) * u(x, s) + (e - s) * u(x + (e - s) * u(x, s), e) / 2,
            "The correction starts from Euler's point. Start again from x, with the mean of both velocities.",
        ),
        (
            lambda u, x, s, e: x + (e - s) * (u(x, s) + u(x + u(x, s), e)) / 2,
            "The step to the second point has no length: multiply its velocity by s_next - s.",
        ),
        (
            lambda u, x, s, e: (u(x, s) + u(x + (e - s) * u(x, s), e)) / 2,
            "That is the mean velocity. Now go along it: x plus s_next - s times that.",
        ),
    ]
    x = draws(1, (6, 2))[0]
    return compare(yours, heun, [(field, x, s, e) for s, e in ((1.0, 0.6), (0.5, 0.3), (0.2, 0.0))], mistakes)


# ---- one prediction, five names --------------------------------------------------------------------------------

Readings = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]  # of u, x_t and alpha_bar_t: x0_hat and eps


def read_velocity(u: Tensor, x_t: Tensor, alpha_bar_t: float) -> tuple[Tensor, Tensor]:
    """x0_hat and eps, from the velocity."""
    a, b = sqrt(alpha_bar_t), sqrt(1 - alpha_bar_t)
    return (x_t - b * u) / (a + b), (x_t + a * u) / (a + b)


def from_velocity(yours: Readings) -> Verdict:
    """x0_hat and eps, from the velocity, at a level of diffusion."""

    def weights(alpha_bar: float) -> tuple[float, float]:
        return sqrt(alpha_bar), sqrt(1 - alpha_bar)

    def with_size(size: Callable[[float, float], float]) -> Readings:
        def wrong(u: Tensor, x: Tensor, alpha_bar: float) -> tuple[Tensor, Tensor]:
            a, b = weights(alpha_bar)
            return (x - b * u) / size(a, b), (x + a * u) / size(a, b)

        return wrong

    def signs(first: int, second: int) -> Readings:
        def wrong(u: Tensor, x: Tensor, alpha_bar: float) -> tuple[Tensor, Tensor]:
            a, b = weights(alpha_bar)
            return (x - first * b * u) / (a + b), (x + second * a * u) / (a + b)

        return wrong

    def swapped_weights(u: Tensor, x: Tensor, alpha_bar: float) -> tuple[Tensor, Tensor]:
        b, a = weights(alpha_bar)
        return (x - b * u) / (a + b), (x + a * u) / (a + b)

    def as_v(u: Tensor, x: Tensor, alpha_bar: float) -> tuple[Tensor, Tensor]:
        a, b = weights(alpha_bar)
        return a * x - b * u, b * x + a * u

    def as_eps(u: Tensor, x: Tensor, alpha_bar: float) -> tuple[Tensor, Tensor]:
        a, b = weights(alpha_bar)
        return (x - b * u) / a, u

    def without_roots(u: Tensor, x: Tensor, alpha_bar: float) -> tuple[Tensor, Tensor]:
        return x - (1 - alpha_bar) * u, x + alpha_bar * u

    def on_the_line(u: Tensor, x: Tensor, alpha_bar: float) -> tuple[Tensor, Tensor]:
        a, b = weights(alpha_bar)
        s = b / (a + b)
        return x - s * u, x + (1 - s) * u

    mistakes: list[tuple[Readings, str]] = [
        (lambda u, x, a: read_velocity(u, x, a)[::-1], "Both are right, and in the wrong order: x0_hat comes first."),
        (
            with_size(lambda a, b: 1.0),
            "The two weights do not add up to 1 here: divide by sqrt(alpha_bar) + sqrt(1 - alpha_bar).",
        ),
        (
            with_size(lambda a, b: a * a + b * b),
            "Their squares add up to 1. Here it is the sum of the weights themselves that you divide by.",
        ),
        (signs(-1, 1), "The sign of u in x0_hat is wrong: u points away from the clean latent."),
        (signs(1, -1), "The sign of u in eps is wrong: u points towards the noise."),
        (signs(-1, -1), "Both signs of u are wrong: it points from x_0 to eps."),
        (
            swapped_weights,
            "The two weights are swapped: without any noise, at alpha_bar = 1, x0_hat must be x_t.",
        ),
        (as_v, "That reads u as v. Solve x_t = a x_0 + b eps together with u = eps - x_0."),
        (as_eps, "That takes u for eps. It is eps - x_0: solve the two equations."),
        (without_roots, "The square roots are missing: the weights are sqrt(alpha_bar) and sqrt(1 - alpha_bar)."),
        (
            on_the_line,
            "That is right on the straight line. x_t is larger than x_s: divide it by the sum of its weights first.",
        ),
        (
            lambda u, x, a: (read_velocity(u, x, a)[0], u - read_velocity(u, x, a)[0]),
            "x0_hat is right. u is eps - x_0, so eps is u plus x0_hat.",
        ),
    ]
    cases = [(*draws(2), alpha_bar) for alpha_bar in (0.1, 0.5, 0.98)]
    verdict = compare(
        stacked(yours), stacked(read_velocity), cases, [(stacked(wrong), hint) for wrong, hint in mistakes]
    )
    return replace(verdict, answer=read_velocity)


# ---- the real model --------------------------------------------------------------------------------------------

Formula = Callable[[Tensor, Tensor, float, float], Tensor]  # of x_t and eps (b, c, h, w), and of two noise levels


def flow_step(yours: Formula, model: LatentDiffusion) -> Verdict:
    """Euler's step on the straight line; first alone, then in the real pipeline, in DDIM's place."""

    def step(now: State, alpha_bar: float, before: State | None, noise: Noise) -> Tensor:
        return yours(now.x_t, now.eps, now.alpha_bar, alpha_bar)

    def size(alpha_bar: float) -> float:
        return sqrt(alpha_bar) + sqrt(1 - alpha_bar)

    def one(alpha_bar: float) -> float:
        return 1.0

    def share(alpha_bar: float) -> float:
        return sqrt(1 - alpha_bar) / size(alpha_bar)

    def velocity(x: Tensor, e: Tensor, now: float) -> Tensor:
        return e - (x - sqrt(1 - now) * e) / sqrt(now)

    def wrong(
        before: Callable[[float], float] = size,
        after: Callable[[float], float] = size,
        time: Callable[[float], float] = share,
        u: Callable[[Tensor, Tensor, float], Tensor] = velocity,
        sign: int = 1,
    ) -> Formula:
        def mistaken(x: Tensor, e: Tensor, now: float, prev: float) -> Tensor:
            return after(prev) * (x / before(now) + sign * (time(prev) - time(now)) * u(x, e, now))

        return mistaken

    mistakes: list[tuple[Formula, str]] = [
        (
            wrong(after=one),
            "That is x_s, on the straight line. The loop needs x_t: multiply by the sum of the new weights.",
        ),
        (
            wrong(before=one),
            "The walk starts from x_t, which is not on the straight line: divide by the sum of its weights first.",
        ),
        (wrong(before=one, after=one), "x_t is not on the straight line: divide first, and multiply at the end."),
        (
            lambda x, e, now, prev: size(now) * (x / size(now) + (share(prev) - share(now)) * velocity(x, e, now)),
            "At the end it multiplies by the old sum of weights: the new level has its own.",
        ),
        (
            wrong(sign=-1),
            "It walks towards the noise: the velocity is eps - x0_hat, and s_prev - s is negative as it should be.",
        ),
        (wrong(u=lambda x, e, now: e), "It goes along eps. The velocity of the straight line is eps - x0_hat."),
        (
            wrong(u=lambda x, e, now: e - x),
            "The velocity is eps - x0_hat. You took x_t for the clean latent.",
        ),
        (
            wrong(u=lambda x, e, now: e - x / size(now)),
            "The velocity is eps - x0_hat. You took x_s for the clean latent.",
        ),
        (
            wrong(time=lambda a: sqrt(1 - a)),
            "The time is the noise's share of both weights: s = b / (a + b), not b.",
        ),
        (wrong(time=lambda a: 1 - a), "The time is s = b / (a + b), with b = sqrt(1 - alpha_bar)."),
        (
            wrong(u=lambda x, e, now: e - (x - sqrt(1 - now) * e)),
            "x0_hat is not yet divided by sqrt(alpha_bar_t).",
        ),
        (
            lambda x, e, now, prev: x + (share(prev) - share(now)) * velocity(x, e, now),
            "x_t is not on the straight line: divide first, and multiply at the end.",
        ),
        (
            lambda x, e, now, prev: (x / size(now) + (share(prev) - share(now)) * velocity(x, e, now)) / size(prev),
            "At the end, multiply by the sum of the weights: x_t is larger than x_s.",
        ),
        (
            lambda x, e, now, prev: size(prev) * (x * size(now) + (share(prev) - share(now)) * velocity(x, e, now)),
            "At the beginning, divide by the sum of the weights: x_s is smaller than x_t.",
        ),
    ]

    def right(x: Tensor, e: Tensor, now: float, prev: float) -> Tensor:
        state = State(0, x, e, (x - sqrt(1 - now) * e) / sqrt(now), now)
        return samplers.flow_euler(state, prev, None, lambda: e)

    verdict = compare(yours, right, [(*draws(2), *levels) for levels in LEVELS], mistakes)
    return verdict.then(lambda: plugged(model, ddim=step))


Times = Callable[[int, Tensor], list[int]]


def even_times(n: int, alpha_bars: Tensor) -> list[int]:
    """n timesteps from the last down, evenly spaced in the time s of the straight line."""
    signal, sigma = alpha_bars.sqrt(), (1 - alpha_bars).sqrt()
    s = sigma / (signal + sigma)
    wanted = torch.linspace(float(s[-1]), 0, n + 1, dtype=torch.float64, device="cpu")[:-1]
    return (s - wanted[:, None]).abs().argmin(dim=1).tolist()


def flow_timesteps(yours: Times, schedule: NoiseSchedule) -> Verdict:
    """The timesteps of a walk in even steps of s."""

    def share(alpha_bars: Tensor) -> Tensor:
        return (1 - alpha_bars).sqrt() / (alpha_bars.sqrt() + (1 - alpha_bars).sqrt())

    def nearest(
        times: Callable[[Tensor], Tensor] = share,
        wanted: Callable[[int, float], Tensor] = lambda n, top: torch.linspace(top, 0, n + 1)[:-1],
    ) -> Times:
        def wrong(n: int, alpha_bars: Tensor) -> list[int]:
            s = times(alpha_bars)
            return (s - wanted(n, float(s[-1])).double()[:, None]).abs().argmin(dim=1).tolist()

        return wrong

    mistakes: list[tuple[Times, str]] = [
        (
            nearest(wanted=lambda n, top: torch.linspace(top, 0, n)),
            "The last of them is t = 0, and the walk needs no step there: make n + 1 times, and leave out the end.",
        ),
        (
            nearest(wanted=lambda n, top: torch.linspace(top, 0, n + 1)),
            "Those are n + 1 timesteps. The end, s = 0, is where the walk arrives: leave it out.",
        ),
        (
            nearest(wanted=lambda n, top: torch.linspace(top, 0, n + 1)[1:]),
            "It leaves out the start, t = 999. Leave out the end, s = 0, where the walk arrives.",
        ),
        (
            nearest(wanted=lambda n, top: torch.linspace(0, top, n + 1)[1:]),
            "They run from low to high. A walk starts at the noise: from high to low.",
        ),
        (
            nearest(wanted=lambda n, top: torch.linspace(1, 0, n + 1)[:-1]),
            "The schedule does not reach s = 1: start at its own last time, the one of t = 999.",
        ),
        (
            nearest(times=lambda a: (1 - a).sqrt()),
            "That is even in sqrt(1 - alpha_bar). The time is the noise's share of both weights, b / (a + b).",
        ),
        (nearest(times=lambda a: 1 - a), "That is even in 1 - alpha_bar. The time is s = b / (a + b)."),
        (
            nearest(times=lambda a: a.sqrt() / (a.sqrt() + (1 - a).sqrt())),
            "That is the share of the signal. The time s is the share of the noise, b / (a + b).",
        ),
    ]
    verdict = compare(yours, even_times, [(n, schedule.alpha_bars) for n in (1, 5, 20)], mistakes)
    if verdict.status == WRONG and verdict.message.startswith("The shape is right"):
        steps = torch.as_tensor(yours(20, schedule.alpha_bars), dtype=torch.float64, device="cpu").diff()
        if steps.max() - steps.min() <= 2:  # such as "trailing" spacing, or "leading"
            hint = "Those are even in t. Look for the t whose time s is nearest to each of the even times."
            return replace(verdict, message=hint)
    return verdict


Shift = Callable[[float, float], float]


def moved(s: float, k: float) -> float:
    """The time at which noise over signal is k times what it was at s (Esser et al. 2024, eq. 23)."""
    return k * s / (1 + (k - 1) * s)


def shift(yours: Shift) -> Verdict:
    """The shift of the times for larger images."""
    mistakes: list[tuple[Shift, str]] = [
        (lambda s, k: k * s, "That leaves the line: for s = 0.9 and k = 3 it is 2.7. Multiply s / (1 - s), not s."),
        (
            lambda s, k: k * s / (1 - s),
            "That is the new ratio of noise and signal. Now find the time that has it.",
        ),
        (
            lambda s, k: moved(s, 1 / k),
            "It shifts towards the data. A larger k means more noise at every step.",
        ),
        (
            lambda s, k: moved(s, k * k),
            "The ratio is multiplied by k squared. That would be for the SNR, which is a ratio of squares.",
        ),
        (lambda s, k: moved(s, sqrt(k)), "The ratio is multiplied by the root of k. Multiply it by k itself."),
        (lambda s, k: s / (s + k * (1 - s)), "It shifts towards the data: multiply the noise by k, not the signal."),
        (lambda s, k: k * s / (1 + k * s), "That forgets the 1 - s below: noise over noise plus signal."),
        (lambda s, k: s ** (1 / k), "That bends the times, too, but the ratio of noise and signal is not k-fold."),
    ]
    cases = [(s, k) for k in (1.0, 3.0, 0.5) for s in (0.1, 0.5, 0.9)]
    return compare(yours, moved, cases, mistakes)


# ---- the real model, straightened ------------------------------------------------------------------------------

Lesson = Callable[[nn.Module, torch.optim.Optimizer, NoiseSchedule, Tensor, Tensor, Tensor, Tensor], float]


class Pocket(nn.Module):
    """Stands for the UNet: it looks at the latent, at the timestep and at the words."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([0.3, -0.2, 0.5], dtype=torch.float32, device="cpu"))

    def forward(self, x_t: Tensor, t: Tensor, words: Tensor) -> Tensor:
        w, flat = self.weights, (-1, 1, 1, 1)
        return (
            w[0] * x_t + w[1] * torch.sin(t / 300).view(flat) * x_t.flip(1) + w[2] * words.mean(dim=(1, 2)).view(flat)
        )


def straighten(
    seen: Callable[[NoiseSchedule, Tensor, Tensor, Tensor], Tensor],
    target: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda x0, eps, x_t: eps - x0,
    measure: Callable[[Tensor], Tensor] = lambda error: error.square().mean(),
    clear: bool = True,
    learn: bool = True,
    ask: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor] = lambda unet, x, t, words: unet(x, t, words),
) -> Lesson:
    """A training step that shows the UNet the latent `seen`, and asks for `target`."""

    def lesson(
        unet: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: NoiseSchedule,
        x0: Tensor,
        eps: Tensor,
        words: Tensor,
        t: Tensor,
    ) -> float:
        x_t = seen(schedule, x0, eps, t)
        loss = measure(ask(unet, x_t, t, words) - target(x0, eps, x_t))
        if clear:
            optimizer.zero_grad()
        loss.backward()
        if learn:
            optimizer.step()
        return loss.item()

    return lesson


def as_in_a_walk(schedule: NoiseSchedule, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Diffusion's mixture, and at the last timestep the noise alone."""
    alone = (t == len(schedule.alpha_bars) - 1).view(-1, 1, 1, 1)
    return torch.where(alone, eps, schedule.add_noise(x0, eps, t))


def reflow_step(yours: Lesson, model: LatentDiffusion) -> Verdict:
    """One training step of reflow: on a network of three weights, and then on a copy of the real UNet."""

    def on_the_line(schedule: NoiseSchedule, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        s = schedule.flow_times[t].to(x0.dtype).view(-1, 1, 1, 1)
        return (1 - s) * x0 + s * eps

    def other_noise(seen: Callable[[NoiseSchedule, Tensor, Tensor, Tensor], Tensor], target_too: bool) -> Lesson:
        right = straighten(seen)

        def lesson(unet: nn.Module, optimizer: Any, schedule: Any, x0: Any, eps: Any, words: Any, t: Any) -> float:
            if target_too:
                return right(unet, optimizer, schedule, x0, torch.randn_like(eps), words, t)
            fresh = straighten(lambda s, x0, eps, t: seen(s, x0, torch.randn_like(eps), t))
            return fresh(unet, optimizer, schedule, x0, eps, words, t)

        return lesson

    def half_fresh(schedule: NoiseSchedule, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        alone = (t == 999).view(-1, 1, 1, 1)
        return torch.where(alone, eps, schedule.add_noise(x0, torch.randn_like(eps), t))

    def swapped(schedule: NoiseSchedule, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return as_in_a_walk(schedule, eps, x0, t)

    def mixed(schedule: NoiseSchedule, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        return schedule.add_noise(x0, eps, t)

    line = (
        "The UNet knows x_t in diffusion's size, not the point on the straight line: schedule.add_noise(x0, eps, t)."
    )
    mistakes: list[tuple[Lesson, str]] = [
        (
            straighten(mixed),
            "Nearly. At t = 999 some signal is left in x_t, but a walk begins at the noise alone: put eps there.",
        ),
        (
            straighten(lambda s, x0, eps, t: eps),
            "The UNet sees noise alone at every level. Only at t = 999 it should.",
        ),
        (straighten(on_the_line), line),
        (
            straighten(
                lambda s, x0, eps, t: torch.where((t == 999).view(-1, 1, 1, 1), eps, on_the_line(s, x0, eps, t))
            ),
            line,
        ),
        (straighten(swapped), "x0 and eps are swapped in the mixture: add_noise takes the clean latent first."),
        (
            straighten(lambda s, x0, eps, t: torch.where((t == 999).view(-1, 1, 1, 1), eps, s.add_noise(eps, x0, t))),
            "x0 and eps are swapped in the mixture: add_noise takes the clean latent first.",
        ),
        (
            straighten(lambda s, x0, eps, t: s.add_noise(eps, x0, t)),
            "x0 and eps are swapped in the mixture: add_noise takes the clean latent first.",
        ),
        (straighten(lambda s, x0, eps, t: x0), "The UNet sees the finished latent. Show it the mixture with noise."),
    ]
    fresh = "It draws fresh noise. Reflow learns from pairs: use the eps that led to this x0."
    mistakes.append((straighten(half_fresh), fresh))
    for seen in (as_in_a_walk, mixed):
        mistakes += [(other_noise(seen, target_too), fresh) for target_too in (True, False)]
        mistakes += [
            (
                straighten(seen, lambda x0, eps, x_t: x0 - eps),
                "The velocity has the wrong sign: when s grows, the latent moves towards the noise.",
            ),
            (
                straighten(seen, lambda x0, eps, x_t: eps),
                "The target is the noise, as before. Now ask for the velocity.",
            ),
            (straighten(seen, lambda x0, eps, x_t: x0), "The target is the clean latent. Ask for the velocity."),
            (
                straighten(seen, lambda x0, eps, x_t: eps - x_t),
                "That is the way still to go to the noise. The velocity is the same all along the line.",
            ),
            (
                straighten(seen, clear=False),
                "The gradients of earlier batches are still there: call optimizer.zero_grad() before backward().",
            ),
            (
                straighten(seen, learn=False),
                "The weights stay as they are: call optimizer.step() after backward().",
            ),
            (
                straighten(seen, measure=lambda error: error.square().sum()),
                "It is the sum of the squares. Take their mean, or the step is thousands of times too large.",
            ),
            (
                straighten(seen, measure=lambda error: error.abs().mean()),
                "It is the absolute error. The theorem needs the mean: square it.",
            ),
            (
                straighten(seen, ask=lambda unet, x, t, words: unet(x, t, 0 * words)),
                "The UNet does not see the words: unet(x_t, t, words).",
            ),
        ]

    def tried(lesson: Lesson) -> Callable[[int], Tensor | None]:
        """The losses and the weights of three batches."""

        def run(seed: int) -> Tensor | None:
            torch.manual_seed(seed)
            unet = Pocket()
            before, optimizer, results = unet.weights.detach().clone(), torch.optim.SGD(unet.parameters(), 0.1), []
            for i, t in enumerate(([999, 500], [200, 999], [800, 100])):
                x0, eps = draws(2, (2, 4, 3, 5), 10 * seed + i)
                words, *_ = draws(1, (2, 5, 6), 10 * seed + i + 5)
                given = x0.clone(), eps.clone()
                loss = lesson(
                    unet, optimizer, schedule, x0, eps, words, torch.tensor(t, dtype=torch.int64, device="cpu")
                )
                if not all(map(torch.equal, (x0, eps), given)):
                    raise ValueError("it changes x0 or eps in place, and the pairs are needed again")
                if loss is None or loss is Ellipsis:
                    if torch.equal(unet.weights, before):
                        return None
                    raise ValueError("return the loss, as a number")
                value = torch.as_tensor(loss, dtype=torch.float32, device="cpu").detach()
                if value.numel() != 1:
                    raise ValueError("the loss must be one number, the mean of the squares")
                results += [value.view(1), unet.weights.detach().clone()]
            return torch.cat(results)

        return run

    schedule, right = NoiseSchedule(), straighten(as_in_a_walk)
    verdict = compare(tried(yours), tried(right), [(1,), (2,)], [(tried(wrong), hint) for wrong, hint in mistakes])
    return replace(verdict, answer=right).then(lambda: on_a_copy(yours, model))


def on_a_copy(lesson: Lesson, model: LatentDiffusion) -> Verdict:
    """Four steps with one batch, on a copy of the model's UNet."""
    unet, config = copy.deepcopy(model.unet).float().requires_grad_(True), model.unet.config
    generator = torch.Generator("cpu").manual_seed(0)
    x0, eps = torch.randn(2, 4, config.in_channels, 8, 8, generator=generator, dtype=torch.float32, device="cpu")
    words = model.embed(["a dog", "a cat", "a bear", "a pig"]).float()
    t = torch.tensor([999, 749, 499, 249], dtype=torch.int64, device="cpu")
    optimizer = torch.optim.AdamW(unet.parameters(), 3e-4)
    losses = []
    try:
        for _ in range(4):
            batch = (part.to(words.device) for part in (x0, eps, words, t))
            losses.append(float(lesson(unet, optimizer, model.schedule, *batch)))
    except Exception as error:
        return raised(error, "With the real UNet it")
    moved = f"four steps with one batch bring the loss from {losses[0]:.2f} to {losses[-1]:.2f}."
    return Verdict(RIGHT, f"It gives the package's values. On a copy of the real UNet, {moved}")


# ---- the build -------------------------------------------------------------------------------------------------

Learner = Callable[[Tensor, Tensor], Field]  # of the points of two drawings, (n, 2) each
CLOSE = 0.02  # energy distance at which a drawing has arrived


def reference_morph(start: Tensor, end: Tensor) -> Field:
    """A flow whose walk begins on one drawing and ends on another: no noise anywhere."""

    def pairs(count: int) -> tuple[Tensor, Tensor]:
        picks = (torch.randint(len(x), (count,), dtype=torch.int64, device="cpu") for x in (end, start))
        return end[next(picks)], start[next(picks)]

    return toy.fit(pairs, 1200)


def morph(yours: Learner) -> Verdict:
    """Walk fresh points of one drawing along the learner's flow, and see how far they end from the other drawing."""
    names = ("three dots", "heart")
    start, end = (toy.points(toy.drawing(name), 20_000) for name in names)
    fresh, there = (toy.points(toy.drawing(name), 1500, seed=1) for name in names)
    try:
        u = yours(start.clone(), end.clone())
        if u is None or u is Ellipsis:
            return replace(not_tried(), answer=reference_morph)
        with torch.no_grad():
            path = toy.walk(u, fresh, 50)
    except Exception as error:
        return replace(raised(error), answer=reference_morph)
    if not bool(path.isfinite().all()):
        return Verdict(WRONG, "The walk leaves the page: some of its points are not finite.", answer=reference_morph)
    far, began = (toy.energy_distance(x, there) for x in (path[-1], fresh))
    back = toy.energy_distance(toy.walk(u, there, 50)[-1], fresh)
    measured = f"The three dots end {far:.3f} from the heart in energy distance; they began {began:.2f} away."
    if far <= CLOSE:
        return Verdict(RIGHT, measured, answer=reference_morph)
    if back <= CLOSE:
        hint = "Your flow leads from the heart to the three dots. At s = 1 stands `start`, at s = 0 `end`."
        return Verdict(WRONG, f"{measured} {hint}", answer=reference_morph)
    hint = "Train longer, or look again at which points are x_0 and which take the place of the noise."
    return Verdict(WRONG, f"{measured} At most {CLOSE} counts. {hint}", answer=reference_morph)
