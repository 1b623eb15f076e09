"""The exercises of notebook 03: the best guess, four samplers' steps, a bug, GroupNorm, and a solver of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import sqrt

import torch
from torch import Tensor, nn

from ldm_course import samplers
from ldm_course.groupnorm import GroupNorm, group_norm_by_hand
from ldm_course.lab.nb03_groupnorm import toy
from ldm_course.lab.shared.verdict import (
    NOT_TRIED,
    RIGHT,
    STEPS,
    WRONG,
    Verdict,
    compare,
    draws,
    plugged,
    raised,
    stacked,
)
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import txt2img
from ldm_course.samplers import Noise, State, Step, log_snr

LEVELS = ((0.05, 0.1), (0.5, 0.6), (0.9, 0.98))  # alpha_bar_t and alpha_bar_prev of three steps

# ---- the best guess --------------------------------------------------------------------------------------------

Guess = Callable[[Tensor, float, Tensor], Tensor]


def best_guess(yours: Guess) -> Verdict:
    """The mean of x_0 given x_t, over a set of points."""

    def guess(
        signal: Callable[[float], float] = sqrt,
        width: Callable[[float], float] = lambda a: 2 * (1 - a),
        squared: bool = True,
        dim: int = 1,
    ) -> Guess:
        def mistaken(x: Tensor, a: float, points: Tensor) -> Tensor:
            distance = (x[:, None] - signal(a) * points).square().sum(dim=2)
            distance = distance if squared else distance.sqrt()
            return (-distance / width(a)).softmax(dim=dim) @ points

        return mistaken

    def squares(x: Tensor, a: float, points: Tensor) -> Tensor:
        return (x[:, None] - sqrt(a) * points).square().sum(dim=2) / (2 * (1 - a))

    mistakes: list[tuple[Guess, str]] = [
        (
            guess(signal=lambda a: 1.0),
            "At this level a point p has moved to sqrt(alpha_bar) * p.",
        ),
        (guess(signal=lambda a: a), "The points shrink by sqrt(alpha_bar), not by alpha_bar: the root is missing."),
        (guess(width=lambda a: 1 - a), "The 2 is missing: a Gaussian is exp(-distance² / (2 variance))."),
        (
            guess(width=lambda a: 2 * sqrt(1 - a)),
            "It divides by the standard deviation sqrt(1 - alpha_bar); the variance belongs there, 1 - alpha_bar.",
        ),
        (guess(width=lambda a: 2 * a), "It divides by alpha_bar; the variance of the noise is 1 - alpha_bar."),
        (guess(width=lambda a: 1.0), "The variance is missing: divide the squared distances by 2 * (1 - alpha_bar)."),
        (guess(width=lambda a: 2.0), "The variance is missing: divide the squared distances by 2 * (1 - alpha_bar)."),
        (
            guess(width=lambda a: -2 * (1 - a)),
            "The minus is missing: the farthest points get the largest weights.",
        ),
        (
            guess(squared=False),
            "The distance must be squared: a Gaussian is exp(-distance² / (2 variance)).",
        ),
        (
            guess(dim=0),
            "The softmax runs over the dots. For each dot the weights of all points must add up to 1: dim=1.",
        ),
        (
            lambda x, a, points: points[squares(x, a, points).argmin(dim=1)],
            "That is the nearest point alone. The best guess is the mean of all, each with its weight.",
        ),
        (
            lambda x, a, points: points.mean(dim=0).expand(len(x), -1),
            "That is the plain mean of all points: x_t has no say in it.",
        ),
        (
            lambda x, a, points: squares(x, a, points).neg().softmax(dim=1) @ (sqrt(a) * points),
            "The weights are right. Average the points themselves, not the shrunken ones: x_0 is a clean point.",
        ),
        (
            lambda x, a, points: squares(x, a, points).neg().exp() @ points,
            "The weights of a dot do not add up to 1: divide by their sum, or use softmax.",
        ),
        (
            lambda x, a, points: squares(x, a, points).neg().softmax(dim=1),
            "Those are the weights, (n, points). Average the points with them: weights @ points.",
        ),
        (
            lambda x, a, points: (x - sqrt(a) * guess()(x, a, points)) / sqrt(1 - a),
            "That is the noise eps. Here the guess at x_0 is asked for, the mean of the points.",
        ),
    ]
    points, x = 0.8 * draws(1, (5, 2))[0], draws(1, (7, 2), seed=4)[0]

    def safe(x: Tensor, alpha_bar: float, points: Tensor) -> Tensor:
        answer = yours(x, alpha_bar, points)
        if isinstance(answer, Tensor) and answer.isnan().any():
            raise ValueError("a dot far from all points gets 0 / 0, because exp underflows. softmax does not")
        return answer

    cases = [(x, alpha_bar, points) for alpha_bar in (0.05, 0.5, 0.9)] + [(x + 4, 0.998, points)]
    return replace(compare(safe, toy.best_guess, cases, mistakes), answer=toy.best_guess)


# ---- DDIM, and v -----------------------------------------------------------------------------------------------

Formula = Callable[[Tensor, Tensor, float, float], Tensor]  # of x_t and eps (b, c, h, w), and of two noise levels


def ddim_step(yours: Formula, model: LatentDiffusion) -> Verdict:
    """DDIM's step; first alone, then in the real pipeline."""

    def step(now: State, alpha_bar: float, before: State | None, noise: Noise) -> Tensor:
        return yours(now.x_t, now.eps, now.alpha_bar, alpha_bar)

    def x0(x: Tensor, e: Tensor, now: float) -> Tensor:
        return (x - sqrt(1 - now) * e) / sqrt(now)

    mistakes: list[tuple[Formula, str]] = [
        (lambda x, e, now, prev: x - e, "It subtracts all of eps, at full weight. Estimate x_0 first, then go back."),
        (lambda x, e, now, prev: x0(x, e, now), "That is x0_hat, the guess itself. Now mix it with eps again."),
        (
            lambda x, e, now, prev: x - sqrt(1 - now) * e,
            "That takes the noise out, and leaves the signal shrunken. Divide by sqrt(alpha_bar_t), then mix again.",
        ),
        (
            lambda x, e, now, prev: sqrt(prev) * x0(x, e, now),
            "No noise is put back: the level alpha_bar_prev has sqrt(1 - alpha_bar_prev) of it.",
        ),
        (
            lambda x, e, now, prev: sqrt(prev) * x0(x, e, now) + sqrt(1 - now) * e,
            "The noise that goes back in is that of the old level: use alpha_bar_prev for it, too.",
        ),
        (
            lambda x, e, now, prev: sqrt(now) * x0(x, e, now) + sqrt(1 - prev) * e,
            "The noise shrinks and the signal does not grow: it still has the weight of the old level. Mix both at "
            "alpha_bar_prev.",
        ),
        (
            lambda x, e, now, prev: x,
            "It returns x_t. Both levels in it are the same: estimate at alpha_bar_t, mix at alpha_bar_prev.",
        ),
        (
            lambda x, e, now, prev: sqrt(now) * x0(x, e, prev) + sqrt(1 - now) * e,
            "The two levels are swapped: estimate at alpha_bar_t, mix at alpha_bar_prev.",
        ),
        (
            lambda x, e, now, prev: sqrt(prev) * (x + sqrt(1 - now) * e) / sqrt(now) + sqrt(1 - prev) * e,
            "The sign in the estimate is wrong: take the noise off, x_t - sqrt(1 - alpha_bar_t) * eps.",
        ),
        (
            lambda x, e, now, prev: sqrt(prev) * x0(x, e, now) - sqrt(1 - prev) * e,
            "The noise goes back in with the wrong sign: the mixture is a sum.",
        ),
        (
            lambda x, e, now, prev: prev * (x - (1 - now) * e) / now + (1 - prev) * e,
            "The square roots are missing: alpha_bar is a share of the variance, the weights are its roots.",
        ),
        (
            lambda x, e, now, prev: prev * x0(x, e, now) + (1 - prev) * e,
            "The square roots are missing in the mixture: its weights are sqrt(alpha_bar_prev) and "
            "sqrt(1 - alpha_bar_prev).",
        ),
        (
            lambda x, e, now, prev: sqrt(prev) * (x - (1 - now) * e) / now + sqrt(1 - prev) * e,
            "The square roots are missing in the estimate.",
        ),
        (
            lambda x, e, now, prev: sqrt(prev) * (x - (1 - now) * e) / sqrt(now) + sqrt(1 - prev) * e,
            "A square root is missing in the estimate: the noise has the weight sqrt(1 - alpha_bar_t).",
        ),
        (
            lambda x, e, now, prev: sqrt(prev) * (x - sqrt(1 - now) * e) / now + sqrt(1 - prev) * e,
            "A square root is missing in the estimate: divide by sqrt(alpha_bar_t).",
        ),
        (
            lambda x, e, now, prev: sqrt(prev) * (x - sqrt(1 - now) * e) + sqrt(1 - prev) * e,
            "The estimate is not yet divided by sqrt(alpha_bar_t).",
        ),
        (
            lambda x, e, now, prev: x0(x, e, now) + sqrt(1 - prev) * e,
            "The estimate comes in at full weight; at the level alpha_bar_prev it has sqrt(alpha_bar_prev).",
        ),
        (
            lambda x, e, now, prev: sqrt(prev) * x + sqrt(1 - prev) * e,
            "That adds noise to x_t. Estimate x_0 first, and mix that.",
        ),
    ]

    def right(x: Tensor, e: Tensor, now: float, prev: float) -> Tensor:
        return samplers.ddim(_state(x, e, now), prev, None, lambda: e)

    verdict = compare(yours, right, [(*draws(2), *levels) for levels in LEVELS], mistakes)
    return verdict.then(lambda: plugged(model, ddim=step))


FromV = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


def from_v(yours: FromV) -> Verdict:
    """x0_hat and eps, from v."""

    def right(v: Tensor, x: Tensor, a: float) -> tuple[Tensor, Tensor]:
        return sqrt(a) * x - sqrt(1 - a) * v, sqrt(1 - a) * x + sqrt(a) * v

    def with_x0(x0_hat: Callable[[Tensor, Tensor, float], Tensor]) -> FromV:
        return lambda v, x, a: (x0_hat(v, x, a), right(v, x, a)[1])

    def with_eps(eps: Callable[[Tensor, Tensor, float], Tensor]) -> FromV:
        return lambda v, x, a: (right(v, x, a)[0], eps(v, x, a))

    mistakes: list[tuple[FromV, str]] = [
        (lambda v, x, a: right(v, x, a)[::-1], "Both are right, and in the wrong order: x0_hat comes first."),
        (
            lambda v, x, a: (sqrt(a) * x + sqrt(1 - a) * v, sqrt(1 - a) * x - sqrt(a) * v),
            "Both signs of v are wrong: v points towards the noise and away from x_0.",
        ),
        (with_x0(lambda v, x, a: sqrt(a) * x + sqrt(1 - a) * v), "The sign of v in x0_hat is wrong."),
        (with_eps(lambda v, x, a: sqrt(1 - a) * x - sqrt(a) * v), "The sign of v in eps is wrong."),
        (with_eps(lambda v, x, a: sqrt(a) * v - sqrt(1 - a) * x), "The sign of x_t in eps is wrong."),
        (
            lambda v, x, a: (a * x - (1 - a) * v, (1 - a) * x + a * v),
            "The square roots are missing: the weights are sqrt(alpha_bar) and sqrt(1 - alpha_bar).",
        ),
        (
            lambda v, x, a: ((x - sqrt(1 - a) * v) / sqrt(a), v),
            "That takes v for eps. v is a mixture of both: solve its two equations.",
        ),
        (
            lambda v, x, a: (sqrt(1 - a) * x - sqrt(a) * v, sqrt(a) * x + sqrt(1 - a) * v),
            "The two weights are swapped: without any noise, at alpha_bar = 1, x0_hat must be x_t.",
        ),
        (
            lambda v, x, a: (right(v, x, a)[0], (x - right(v, x, a)[0]) / sqrt(1 - a)),
            "x0_hat is right. In x_t it has the weight sqrt(alpha_bar): eps is what is left without that.",
        ),
    ]
    cases = [(*draws(2), alpha_bar) for alpha_bar in (0.1, 0.5, 0.98)]
    verdict = compare(stacked(yours), stacked(right), cases, [(stacked(wrong), hint) for wrong, hint in mistakes])
    return replace(verdict, answer=right)


# ---- DDPM and eta ----------------------------------------------------------------------------------------------

EtaStep = Callable[[Tensor, Tensor, float, float, Tensor, float], Tensor]


def ddpm_step(yours: EtaStep, model: LatentDiffusion) -> Verdict:
    """One step that is DDIM at eta = 0 and DDPM at eta = 1; then, as DDPM, in the real pipeline."""

    def with_parts(
        eps_share: Callable[[float, float], float], noise_share: Callable[[float], float] = lambda sigma: sigma
    ) -> EtaStep:
        def step(x_t: Tensor, eps: Tensor, now: float, prev: float, noise: Tensor, eta: float) -> Tensor:
            sigma = eta * sqrt((1 - prev) / (1 - now) * (1 - now / prev))
            x0_hat = (x_t - sqrt(1 - now) * eps) / sqrt(now)
            return sqrt(prev) * x0_hat + eps_share(1 - prev, sigma) * eps + noise_share(sigma) * noise

        return step

    def beta_for_sigma(x_t: Tensor, eps: Tensor, now: float, prev: float, noise: Tensor, eta: float) -> Tensor:
        sigma = eta * sqrt(1 - now / prev)
        x0_hat = (x_t - sqrt(1 - now) * eps) / sqrt(now)
        return sqrt(prev) * x0_hat + sqrt(max(0.0, 1 - prev - sigma**2)) * eps + sigma * noise

    def sigma_of(now: float, prev: float, eta: float) -> float:
        return eta * sqrt((1 - prev) / (1 - now) * (1 - now / prev))

    def sqrt_eta(x_t: Tensor, eps: Tensor, now: float, prev: float, noise: Tensor, eta: float) -> Tensor:
        return right(x_t, eps, now, prev, noise, sqrt(eta))

    def variance_for_sigma(x_t: Tensor, eps: Tensor, now: float, prev: float, noise: Tensor, eta: float) -> Tensor:
        sigma = eta * sigma_of(now, prev, 1.0) ** 2
        x0_hat = (x_t - sqrt(1 - now) * eps) / sqrt(now)
        return sqrt(prev) * x0_hat + sqrt(max(0.0, 1 - prev - sigma**2)) * eps + sigma * noise

    def with_signal(weight: Callable[[float], float]) -> EtaStep:
        def step(x_t: Tensor, eps: Tensor, now: float, prev: float, noise: Tensor, eta: float) -> Tensor:
            x0_hat = (x_t - sqrt(1 - now) * eps) / sqrt(now)
            return right(x_t, eps, now, prev, noise, eta) + (weight(prev) - sqrt(prev)) * x0_hat

        return step

    def whole_alpha(x_t: Tensor, eps: Tensor, now: float, prev: float, noise: Tensor, eta: float) -> Tensor:
        sigma = eta * sqrt(1 - prev)
        x0_hat = (x_t - sqrt(1 - now) * eps) / sqrt(now)
        return sqrt(prev) * x0_hat + sqrt(max(0.0, 1 - prev - sigma**2)) * eps + sigma * noise

    def fresh_only(x_t: Tensor, eps: Tensor, now: float, prev: float, noise: Tensor, eta: float) -> Tensor:
        return sqrt(prev) * (x_t - sqrt(1 - now) * eps) / sqrt(now) + sigma_of(now, prev, eta) * noise

    def as_ddpm(now: State, alpha_bar: float, before: State | None, noise: Noise) -> Tensor:
        return safe(now.x_t, now.eps, now.alpha_bar, alpha_bar, noise(), 1.0)

    def safe(x_t: Tensor, eps: Tensor, now: float, prev: float, noise: Tensor, eta: float) -> Tensor:
        negative = (
            "it takes the root of a negative number. Is alpha upside down? Or is sigma² not that of the posterior, "
            "and larger than 1 - alpha_bar_prev, which is all the noise of that level"
        )
        try:
            answer = yours(x_t, eps, now, prev, noise, eta)
            if isinstance(answer, Tensor) and answer.is_complex():
                raise ValueError(negative)
            return answer
        except ValueError as error:
            raise ValueError(negative if "domain" in str(error) else str(error)) from None
        except ZeroDivisionError:
            raise ValueError(
                "the last step goes to alpha_bar_prev = 1, and there your precision is 1 / 0. Write the variance as "
                "one fraction, in which 1 - alpha_bar_prev stands above the line"
            ) from None

    right = with_parts(lambda room, sigma: sqrt(max(0.0, room - sigma**2)))
    mistakes = [
        (
            with_parts(lambda room, sigma: sqrt(room)),
            "Too much noise: if sigma * noise comes in, the weight of eps must shrink, so that both together have "
            "the variance 1 - alpha_bar_prev.",
        ),
        (
            with_parts(lambda room, sigma: sqrt(room) - sigma),
            "Variances add up, not standard deviations: the weight of eps is sqrt(1 - alpha_bar_prev - sigma²).",
        ),
        (
            with_parts(lambda room, sigma: sqrt(max(0.0, room - sigma**2)), lambda sigma: sigma**2),
            "The noise has variance sigma², so its weight is sigma.",
        ),
        (
            with_parts(lambda room, sigma: sqrt(max(0.0, room - sigma**2)), lambda sigma: 0.0),
            "The fresh noise is missing: + sigma * noise.",
        ),
        (
            lambda x, e, now, prev, noise, eta: _ddim(x, e, now, prev),
            "That is DDIM whatever eta says: use eta, and the noise.",
        ),
        (
            lambda x, e, now, prev, noise, eta: _ddim(x, e, now, prev) + sigma_of(now, prev, eta) * noise,
            "Too much noise: if sigma * noise comes in, the weight of eps must shrink, so that both together have "
            "the variance 1 - alpha_bar_prev.",
        ),
        (
            variance_for_sigma,
            "sigma is eta times a variance here: the root is missing. s is a standard deviation.",
        ),
        (
            sqrt_eta,
            "eta multiplies the standard deviation, and here it multiplies the variance.",
        ),
        (
            with_signal(lambda prev: prev),
            "The square root is missing in the weight of x0_hat: it is sqrt(alpha_bar_prev).",
        ),
        (
            with_parts(lambda room, sigma: sqrt(max(0.0, room - sigma**2)), lambda sigma: -sigma),
            "The fresh noise is subtracted. That is as good in the long run, but add it: + sigma * noise.",
        ),
        (
            whole_alpha,
            "alpha is the share of this one step, alpha_bar_t / alpha_bar_prev, not alpha_bar_t.",
        ),
        (
            fresh_only,
            "All the noise is fresh. eps keeps its part: as much as the variance still has room for.",
        ),
        (
            with_signal(lambda prev: 1.0),
            "x0_hat comes in at full weight; at the level alpha_bar_prev it has sqrt(alpha_bar_prev).",
        ),
        (
            lambda x, e, now, prev, noise, eta: samplers.ddpm(_state(x, e, now), prev, None, lambda: noise),
            "That is DDPM whatever eta says: use eta.",
        ),
        (
            beta_for_sigma,
            "sigma is eta times the root of the *posterior's* variance, not of beta_t: the factor "
            "(1 - alpha_bar_prev) / (1 - alpha_bar_t) is missing.",
        ),
    ]
    levels = (*LEVELS, (0.9, 1.0))
    cases = [(*draws(2), *level, *draws(1, seed=5), eta) for level in levels for eta in (0.0, 0.5, 1.0)]
    return compare(safe, right, cases, mistakes).then(lambda: _plugged_as_ddpm(model, as_ddpm))


def _state(x_t: Tensor, eps: Tensor, alpha_bar: float) -> State:
    """The loop's state at a noise level, given the prediction eps."""
    return State(0, x_t, eps, (x_t - sqrt(1 - alpha_bar) * eps) / sqrt(alpha_bar), alpha_bar)


def _ddim(x_t: Tensor, eps: Tensor, now: float, prev: float) -> Tensor:
    return samplers.ddim(_state(x_t, eps, now), prev, None, lambda: torch.zeros_like(x_t))


def _plugged_as_ddpm(model: LatentDiffusion, step: Step) -> Verdict:
    return plugged(
        model,
        lambda: txt2img(model, "a dog with glasses", seed=0, num_inference_steps=STEPS, scheduler="ddpm"),
        ddpm=step,
    )


# ---- DPM-Solver++ 2M -------------------------------------------------------------------------------------------

TwoStep = Callable[[Tensor, Tensor, float, float, Tensor, float], Tensor]


def dpmpp_2m_step(yours: TwoStep, model: LatentDiffusion) -> Verdict:
    """DPM-Solver++ 2M's step, with a guess before; first alone, then in the real pipeline."""

    def right(x: Tensor, x0: Tensor, now: float, prev: float, x0_before: Tensor, before: float) -> Tensor:
        earlier = State(0, x, x, x0_before, before)
        return samplers.dpmpp_2m(State(0, x, x, x0, now), prev, earlier, lambda: x)

    def step(now: State, alpha_bar: float, before: State | None, noise: Noise) -> Tensor:
        if before is None or alpha_bar == 1:
            return samplers.ddim(now, alpha_bar, before, noise)
        return yours(now.x_t, now.x0_hat, now.alpha_bar, alpha_bar, before.x0_hat, before.alpha_bar)

    def time(a: float) -> float:
        return log_snr(a)

    def looking(
        ahead: Callable[[float], float],
        time: Callable[[float], float] = time,
        old_eps: bool = False,
        sign: float = 1.0,
    ) -> TwoStep:
        """The step with x0_hat moved by `ahead(r)` of its last change, where r is the ratio of the two steps."""

        def mistaken(x: Tensor, x0: Tensor, now: float, prev: float, x0_before: Tensor, before: float) -> Tensor:
            r = (time(now) - time(before)) / (time(prev) - time(now))
            d = x0 + sign * ahead(r) * (x0 - x0_before)
            eps = (x - sqrt(now) * (x0 if old_eps else d)) / sqrt(1 - now)
            return sqrt(prev) * d + sqrt(1 - prev) * eps

        return mistaken

    def half(r: float) -> float:
        return 1 / (2 * r)

    def only_eps(x: Tensor, x0: Tensor, now: float, prev: float, x0_before: Tensor, before: float) -> Tensor:
        moved = looking(half)(x, x0, now, prev, x0_before, before)
        r = (log_snr(now) - log_snr(before)) / (log_snr(prev) - log_snr(now))
        return moved - sqrt(prev) * (x0 - x0_before) / (2 * r)

    def bare_noise(x: Tensor, x0: Tensor, now: float, prev: float, x0_before: Tensor, before: float) -> Tensor:
        d = only_d(x, x0, now, prev, x0_before, before)
        return sqrt(prev) * d + sqrt(1 - prev) * (x - sqrt(now) * d)

    def only_d(x: Tensor, x0: Tensor, now: float, prev: float, x0_before: Tensor, before: float) -> Tensor:
        r = (log_snr(now) - log_snr(before)) / (log_snr(prev) - log_snr(now))
        return x0 + (x0 - x0_before) / (2 * r)

    mistakes: list[tuple[TwoStep, str]] = [
        (
            looking(lambda r: 1 / r),
            "It looks ahead to the end of the step. The middle is wanted, half as far: 1 / (2 r).",
        ),
        (looking(half, sign=-1.0), "It goes back to the earlier guess. Go on in the direction of the change."),
        (looking(lambda r: r / 2), "r is upside down: it is the length of the step before over that of this step."),
        (looking(lambda r: r), "r is upside down, and the half is missing: the middle of the step is wanted."),
        (looking(lambda r: 0.0), "That is DDIM: x0_before is not used."),
        (looking(lambda r: -0.5), "That is the mean of both guesses. Look ahead, not back."),
        (looking(lambda r: 0.5), "The lengths of the steps have no say: divide the change by 2 r, not by 2."),
        (looking(lambda r: 1.0), "The lengths of the steps have no say: divide the change by 2 r."),
        (
            looking(half, old_eps=True),
            "eps is still the old guess's. It must fit D: (x_t - sqrt(alpha_bar_t) * D) / sqrt(1 - alpha_bar_t).",
        ),
        (
            bare_noise,
            "The noise that fits D is not yet divided by its weight in x_t, sqrt(1 - alpha_bar_t).",
        ),
        (only_d, "That is D, the guess to use. DDIM's step with it is still to come."),
        (only_eps, "D is used for eps alone. It stands wherever x0_hat stands in DDIM."),
        (
            looking(half, time=lambda a: a),
            "The lengths are measured in alpha_bar. Measure them in lambda, samplers.log_snr(alpha_bar).",
        ),
        (
            looking(half, time=lambda a: a / (1 - a)),
            "The lengths are measured in the SNR; the logarithm is missing.",
        ),
        (
            looking(half, time=lambda a: 0.5 * torch.tensor(a).log().item()),
            "lambda is the logarithm of the ratio of signal and noise, not of the signal alone.",
        ),
    ]
    levels = ((0.05, 0.1, 0.02), (0.5, 0.6, 0.2), (0.9, 0.98, 0.85))
    cases = [(*draws(2), now, prev, *draws(1, seed=5), before) for now, prev, before in levels]
    verdict = compare(yours, right, cases, mistakes)
    return verdict.then(
        lambda: plugged(
            model,
            lambda: txt2img(model, "a dog with glasses", seed=0, num_inference_steps=STEPS, scheduler="dpm++"),
            dpmpp_2m=step,
        )
    )


# ---- a bug to find ---------------------------------------------------------------------------------------------

Walk = Callable[[Callable[[Tensor, int], Tensor], Tensor, list[int], Callable[[int], float]], Tensor]


def _loop(
    estimate: Callable[[Tensor, Tensor, float, float], Tensor],
    mix: Callable[[Tensor, Tensor, float, float], Tensor],
    skip_last: bool = False,
) -> Walk:
    """A loop that estimates x_0 from (x, eps, a, b) and mixes (x_0, eps, a, b): a is the level now, b the next."""

    def run(
        predict: Callable[[Tensor, int], Tensor],
        x: Tensor,
        timesteps: list[int],
        alpha_bar: Callable[[int], float],
    ) -> Tensor:
        pairs = list(zip(timesteps, [*timesteps[1:], -1]))
        for t, t_prev in pairs[:-1] if skip_last else pairs:
            a, b = alpha_bar(t), alpha_bar(t_prev)
            eps = predict(x, t)
            x = mix(estimate(x, eps, a, b), eps, a, b)
        return x

    return run


def _estimate(x: Tensor, e: Tensor, a: float, b: float) -> Tensor:
    return (x - sqrt(1 - a) * e) / sqrt(a)


def _mix(x0: Tensor, e: Tensor, a: float, b: float) -> Tensor:
    return sqrt(b) * x0 + sqrt(1 - b) * e


def _mix_at_old_level(x0: Tensor, e: Tensor, a: float, b: float) -> Tensor:
    return sqrt(b) * x0 + sqrt(1 - a) * e


broken_walk = _loop(_estimate, _mix_at_old_level)


def find_the_bug(yours: Walk) -> Verdict:
    """A loop with one bug: the noise goes back in at the old level."""

    mistakes: list[tuple[Walk, str]] = [
        (
            _loop(_estimate, lambda x0, e, a, b: sqrt(a) * x0 + sqrt(1 - a) * e),
            "Now x never moves: it is estimated and mixed at one level. Estimate at t, and mix at t_prev.",
        ),
        (
            _loop(lambda x, e, a, b: (x + sqrt(1 - a) * e) / sqrt(a), _mix_at_old_level),
            "The sign of the estimate was right. Look at the levels in the last line of the loop.",
        ),
        (
            _loop(_estimate, lambda x0, e, a, b: sqrt(b) * x0 - sqrt(1 - a) * e),
            "The sign was right. Look at the levels in the last line of the loop.",
        ),
        (
            _loop(_estimate, lambda x0, e, a, b: sqrt(b) * x0),
            "Without any noise put back, x is not at the level of t_prev. It needs some, and less than before.",
        ),
        (
            _loop(_estimate, _mix, skip_last=True),
            "The bug is gone, but so is the last step: keep the -1 at the end of the list.",
        ),
        (
            _loop(_estimate, _mix_at_old_level, skip_last=True),
            "The list of levels was right: the last step goes to -1. Look at the last line of the loop.",
        ),
        (
            _loop(lambda x, e, a, b: x - sqrt(1 - a) * e, _mix),
            "The division by the root of alpha_bar(t) was right. Look at the last line of the loop.",
        ),
    ]
    (x,) = draws(1)

    def alpha_bar(t: int) -> float:
        return 0.99 - 0.9 * t / 1000 if t >= 0 else 1.0

    def predict(x: Tensor, t: int) -> Tensor:
        return torch.tanh(x + t / 1000)

    cases = [(predict, x, timesteps, alpha_bar) for timesteps in ([900, 500, 100], [700])]
    verdict = compare(yours, _loop(_estimate, _mix), cases, [(broken_walk, "broken"), *mistakes])
    if verdict.message == "broken":
        return replace(verdict, status=NOT_TRIED, message="That is still the broken loop: one change repairs it.")
    return verdict


# ---- GroupNorm -------------------------------------------------------------------------------------------------

Norm = Callable[[Tensor, int, Tensor, Tensor, float], Tensor]


def group_norm(yours: type[nn.Module], model: LatentDiffusion) -> Verdict:
    """GroupNorm as a module; first alone, then in the real pipeline."""

    def applied(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor | None:
        module = yours(groups, x.shape[1], eps)
        module.weight.data, module.bias.data = weight, bias
        try:
            return module(x)
        except RuntimeError as error:
            if "must match" in str(error):
                message = "sizes do not fit. First back to (b, c, h, w), then weight and bias as (c, 1, 1)"
                raise ValueError(message) from None
            raise

    def scaled_by(std: Callable[[Tensor, int, float], Tensor]) -> Norm:
        return lambda x, g, w, b, e: (x - _mean(x, g)) / std(x, g, e) * _wide(w) + _wide(b)

    mistakes: list[tuple[Norm, str]] = [
        (lambda x, g, w, b, e: _normalised(x, g, e), "self.weight and self.bias are not used: scale and shift."),
        (lambda x, g, w, b, e: _normalised(x, g, e) * _wide(w), "The shift is missing: add self.bias per channel."),
        (lambda x, g, w, b, e: _normalised(x, g, e) + _wide(b), "The scale is missing: multiply by self.weight."),
        (
            lambda x, g, w, b, e: (_normalised(x, g, e) + _wide(b)) * _wide(w),
            "It shifts first and scales then: scale by weight, then add bias.",
        ),
        (
            lambda x, g, w, b, e: x / _std(x, g, e) * _wide(w) + _wide(b),
            "The mean is not taken off.",
        ),
        (
            lambda x, g, w, b, e: (x - _mean(x, g)) * _wide(w) + _wide(b),
            "It takes off the mean and does not divide by the standard deviation.",
        ),
        (scaled_by(lambda x, g, e: _std(x, g, e) ** 2), "It divides by the variance; the root is missing."),
        (
            scaled_by(lambda x, g, e: _std(x, g, 0.0) + e),
            "eps is added to the standard deviation; it belongs under the root, to the variance.",
        ),
        (scaled_by(lambda x, g, e: _std(x, g, 0.0)), "eps is left out: it belongs to the variance, under the root."),
        (
            scaled_by(lambda x, g, e: _std(x, g, e, correction=1)),
            "It divides the sum of squares by m - 1; here it is m: unbiased=False.",
        ),
        (
            scaled_by(lambda x, g, e: _std(x, g, 0.0, correction=1) + e),
            "It divides the sum of squares by m - 1; here it is m: unbiased=False. And eps belongs under the root.",
        ),
        (
            lambda x, g, w, b, e: group_norm_by_hand(x, x.shape[1], w, b, e),
            "Each channel has statistics of its own: that is InstanceNorm. The channels of a group share theirs.",
        ),
        (
            lambda x, g, w, b, e: group_norm_by_hand(x, 1, w, b, e),
            "All channels share one mean and one variance: num_groups is left out.",
        ),
        (
            lambda x, g, w, b, e: group_norm_by_hand(x, x.shape[1] // g, w, b, e),
            "num_groups is taken for the channels in a group: there are num_groups groups, of c / num_groups each.",
        ),
        (
            _interleaved,
            "The groups are interleaved: channels 0, g, 2g, ... share one. A group is a run of neighbours.",
        ),
        (_over_the_batch, "The statistics are taken over the whole batch; each image has its own."),
        (_per_position, "Each position has statistics of its own. Take them over all positions, too."),
        (
            lambda x, g, w, b, e: _normalised(x, g, e).flatten(2).transpose(1, 2).reshape(x.shape),
            "The values are normalised, and then in the wrong places: reshape straight back.",
        ),
        (
            lambda x, g, w, b, e: (_normalised(x, g, e) * _wide(w) + _wide(b)).unflatten(1, (g, -1)),
            "The result is still cut into groups: reshape it back to the shape of x.",
        ),
    ]
    (x,), (scale, shift) = draws(1, (2, 6, 3, 2)), draws(2, (2, 6, 1, 1), seed=4)
    weight, bias = draws(2, (6,), seed=5)
    x = scale.exp() * x + shift  # channels and images have means and deviations of their own
    cases = [(x, groups, weight, bias, 1e-5) for groups in (2, 3, 6)] + [(0.003 * x, 2, weight, bias, 1e-5)]
    verdict = replace(compare(applied, group_norm_by_hand, cases, mistakes), answer=GroupNorm)
    return verdict.then(lambda: plugged(model, GroupNorm=yours))


def _wide(per_channel: Tensor) -> Tensor:
    return per_channel[:, None, None]


def _mean(x: Tensor, groups: int) -> Tensor:
    """The mean of each channel's group: (b, c, 1, 1)."""
    means = x.unflatten(1, (groups, -1)).mean(dim=(2, 3, 4))  # (b, g)
    return means.repeat_interleave(x.shape[1] // groups, dim=1)[:, :, None, None]


def _std(x: Tensor, groups: int, eps: float, correction: int = 0) -> Tensor:
    variances = x.unflatten(1, (groups, -1)).var(dim=(2, 3, 4), correction=correction)
    return (variances + eps).sqrt().repeat_interleave(x.shape[1] // groups, dim=1)[:, :, None, None]


def _normalised(x: Tensor, groups: int, eps: float) -> Tensor:
    return (x - _mean(x, groups)) / _std(x, groups, eps)


def _interleaved(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    places = torch.arange(x.shape[1], dtype=torch.int64, device=x.device)
    order = places.view(-1, groups).T.flatten()  # 0, g, 2g, ..., 1, g + 1, ...
    back = order.argsort()
    y = group_norm_by_hand(x[:, order], groups, weight[order], bias[order], eps)
    return y[:, back]


def _over_the_batch(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    b, c = x.shape[:2]
    one = x.transpose(0, 1).reshape(1, c, b, -1)
    y = group_norm_by_hand(one, groups, weight, bias, eps)
    return y.reshape(c, *x.shape[:1], *x.shape[2:]).transpose(0, 1)


def _per_position(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    parts = x.unflatten(1, (groups, -1))  # (b, g, c/g, h, w)
    mean, variance = parts.mean(dim=2, keepdim=True), parts.var(dim=2, keepdim=True, unbiased=False)
    return ((parts - mean) / (variance + eps).sqrt()).reshape(x.shape) * _wide(weight) + _wide(bias)


# ---- a solver of one's own -------------------------------------------------------------------------------------

Predict = Callable[[Tensor, float], tuple[Tensor, Tensor]]
Solver = Callable[[Predict, Tensor, list[float]], Tensor]
CALLS = 10


def solver(yours: Solver) -> Verdict:
    """An open build: any solver that is nearer to the exact path than DDIM, with the same ten calls.

    Tried where the exact path is known: single values of N(1, 0.5²), from alpha_bar = 0.01 to 0.99.
    """
    levels = torch.sigmoid(torch.linspace(-4.6, 4.6, CALLS + 1, dtype=torch.float64, device="cpu")).tolist()
    start = torch.linspace(-2, 2, 101, dtype=torch.float64, device="cpu")
    exact = sqrt(levels[-1]) + _std_at(levels[-1]) / _std_at(levels[0]) * (start - sqrt(levels[0]))
    calls = 0

    def predict(x: Tensor, alpha_bar: float) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        if not alpha_bar < 1:
            raise ValueError("at alpha_bar = 1 there is no noise left to predict: let the last step be DDIM's")
        eps = sqrt(1 - alpha_bar) * (x - sqrt(alpha_bar)) / _std_at(alpha_bar) ** 2  # the mean of eps, given x
        return (x - sqrt(1 - alpha_bar) * eps) / sqrt(alpha_bar), eps

    try:
        answer = yours(predict, start.clone(), list(levels))
        if answer is None or answer is Ellipsis:
            return replace(raised(NotImplementedError()), answer=with_dpmpp_2m)
        used = calls
        to_clean = yours(predict, start.clone(), [*levels[:-1], 1.0])  # as the pipeline's last step goes
    except Exception as error:  # whatever the learner's code raises
        return replace(raised(error), answer=with_dpmpp_2m)
    if not isinstance(answer, Tensor) or answer.shape != start.shape:
        return Verdict(WRONG, "Return x at the last level, a tensor of the shape of x.", answer=with_dpmpp_2m)
    ours, ddim = _off(answer, exact), _off(with_ddim(predict, start, levels), exact)
    if used > CALLS:
        message = f"It calls predict {used} times; DDIM's ten steps call it {CALLS} times."
    elif not to_clean.isfinite().all():
        message = "With a last level of 1 it returns values that are not finite: let that step be DDIM's."
    elif not ours < 0.999 * ddim:
        message = f"Its error is {ours:.3f}, and DDIM's is {ddim:.3f}, with {used} and {CALLS} calls."
    else:
        dpm = _off(with_dpmpp_2m(predict, start, levels), exact)
        message = f"With {used} calls it is {ddim / ours:.1f} times nearer to the exact path than DDIM."
        message += f" DPM-Solver++ 2M is {ddim / dpm:.1f} times nearer."
        return Verdict(RIGHT, message)
    return Verdict(WRONG, message, answer=with_dpmpp_2m)


def with_ddim(predict: Predict, x: Tensor, alpha_bars: list[float]) -> Tensor:
    """DDIM as a solver: from the first level to the last."""
    for alpha_bar, alpha_bar_prev in zip(alpha_bars, alpha_bars[1:]):
        x0_hat, eps = predict(x, alpha_bar)
        x = sqrt(alpha_bar_prev) * x0_hat + sqrt(1 - alpha_bar_prev) * eps
    return x


def with_dpmpp_2m(predict: Predict, x: Tensor, alpha_bars: list[float]) -> Tensor:
    """DPM-Solver++ 2M as a solver: from the first level to the last."""
    before, start = None, x
    for alpha_bar, alpha_bar_prev in zip(alpha_bars, alpha_bars[1:]):
        x0_hat, eps = predict(x, alpha_bar)
        now = State(0, x, eps, x0_hat, alpha_bar)
        x, before = samplers.dpmpp_2m(now, alpha_bar_prev, before, lambda: start), now
    return x


def _std_at(alpha_bar: float) -> float:
    return sqrt(0.25 * alpha_bar + 1 - alpha_bar)


def _off(answer: Tensor, exact: Tensor) -> float:
    return (answer - exact).abs().max().item()
