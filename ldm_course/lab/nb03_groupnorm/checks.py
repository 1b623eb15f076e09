"""The exercises of notebook 03: GroupNorm as a scale and a shift, and three steps of samplers."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor, nn

from ldm_course import samplers
from ldm_course.groupnorm import group_norm_by_hand
from ldm_course.lab.shared.verdict import RIGHT, STEPS, Verdict, compare, draws, plugged
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import txt2img
from ldm_course.samplers import Noise, State, Step

# ---- GroupNorm -------------------------------------------------------------------------------------------------

ScaleAndShift = Callable[[Tensor, int, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def scale_and_shift(yours: ScaleAndShift, model: LatentDiffusion) -> Verdict:
    """Exercise 1: GroupNorm as one scale and one shift per channel; first alone, then in the real pipeline."""

    def applied(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor | None:
        answer = yours(x, groups, weight, bias, eps)
        if answer is None or answer is Ellipsis:
            return None
        b_c = tuple(x.shape[:2])
        if not isinstance(answer, (tuple, list)) or not all(isinstance(part, Tensor) for part in answer):
            raise ValueError("return two tensors, scale and shift")
        shapes = [tuple(part.shape) for part in answer]
        if shapes != [b_c, b_c]:
            raise ValueError(f"return two tensors, scale and shift, (b, c) each, here {b_c}; yours are {shapes}")
        scale, shift = answer
        return scale[:, :, None, None] * x + shift[:, :, None, None]

    mistakes = [
        (
            lambda x, g, w, b, e: _normalised(x, g, e) * _wide(w),
            "bias is left out of the shift.",
        ),
        (
            lambda x, g, w, b, e: _normalised(x, g, e) + _wide(b),
            "weight is left out. It belongs to the scale, and so to what is taken off in the shift, too.",
        ),
        (
            lambda x, g, w, b, e: x * _wide(w) / _std(x, g, e) + _wide(b),
            "The mean is not taken off: the shift is bias - scale * mean.",
        ),
        (
            lambda x, g, w, b, e: x * _wide(w) / _std(x, g, e) + _wide(b) - _mean(x, g),
            "What is taken off in the shift is the mean after scaling: scale * mean, not mean.",
        ),
        (
            lambda x, g, w, b, e: x * _wide(w) / _std(x, g, e) + _wide(b) + _mean(x, g) * _wide(w) / _std(x, g, e),
            "The mean goes in with the wrong sign: the shift is bias - scale * mean.",
        ),
        (
            lambda x, g, w, b, e: (x - _mean(x, g)) / _std(x, g, e) ** 2 * _wide(w) + _wide(b),
            "It divides by the variance; the root is missing.",
        ),
        (
            lambda x, g, w, b, e: (x - _mean(x, g)) / (_std(x, g, 0.0) + e) * _wide(w) + _wide(b),
            "eps is added to the standard deviation; it belongs under the root, to the variance.",
        ),
        (
            lambda x, g, w, b, e: (x - _mean(x, g)) / _std(x, g, e, correction=1) * _wide(w) + _wide(b),
            "It divides the sum of squares by m - 1; here it is m (torch: unbiased=False, or correction=0).",
        ),
        (
            lambda x, g, w, b, e: group_norm_by_hand(x, x.shape[1], w, b, e),
            "Each channel has statistics of its own: that is InstanceNorm. All channels of a group share theirs.",
        ),
        (
            lambda x, g, w, b, e: group_norm_by_hand(x, 1, w, b, e),
            "All channels share one mean and one variance: num_groups is left out.",
        ),
        (
            _interleaved,
            "The groups are interleaved: channels 0, g, 2g, ... share one. A group is a run of neighbours.",
        ),
        (
            _over_the_batch,
            "The statistics are taken over the whole batch; each image has its own.",
        ),
    ]
    (x,), (scale, shift) = draws(1, (2, 6, 3, 2)), draws(2, (2, 6, 1, 1), seed=4)
    weight, bias = draws(2, (6,), seed=5)
    x = scale.exp() * x + shift  # channels and images have means and deviations of their own
    cases = [(x, groups, weight, bias, 1e-5) for groups in (2, 3, 6)] + [(0.003 * x, 2, weight, bias, 1e-5)]
    verdict = compare(applied, group_norm_by_hand, cases, mistakes)
    return plugged(model, GroupNorm=_as_module(applied)) if verdict.status == RIGHT else verdict


def _as_module(function: Callable[[Tensor, int, Tensor, Tensor, float], Tensor | None]) -> type[nn.Module]:
    """A GroupNorm that computes with the function."""

    class Yours(nn.Module):
        def __init__(self, num_groups: int, num_channels: int, eps: float):
            super().__init__()
            self.num_groups, self.eps = num_groups, eps
            self.weight = nn.Parameter(torch.ones(num_channels, dtype=torch.float32, device="cpu"))
            self.bias = nn.Parameter(torch.zeros(num_channels, dtype=torch.float32, device="cpu"))

        def forward(self, x: Tensor) -> Tensor | None:
            return function(x, self.num_groups, self.weight, self.bias, self.eps)

    return Yours


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


# ---- samplers --------------------------------------------------------------------------------------------------

LEVELS = ((0.05, 0.1), (0.5, 0.6), (0.9, 0.98))  # alpha_bar_t and alpha_bar_prev of three steps
Formula = Callable[[Tensor, Tensor, float, float], Tensor]  # of two tensors (b, c, h, w) and two noise levels
EtaStep = Callable[[Tensor, Tensor, float, float, Tensor, float], Tensor]


def more_noise(yours: Formula) -> Verdict:
    """Exercise 2: from one noise level to a higher one."""

    def right(x: Tensor, noise: Tensor, now: float, later: float) -> Tensor:
        return sqrt(later / now) * x + sqrt(1 - later / now) * noise

    mistakes = [
        (
            lambda x, e, now, later: sqrt(later) * x + sqrt(1 - later) * e,
            "That is the way from a clean latent. x_s has noise in it already, and has lost signal: only the rest of "
            "both is left to do.",
        ),
        (
            lambda x, e, now, later: sqrt(later / now) * x + (sqrt(1 - later) - sqrt(1 - now)) * e,
            "Noises that know nothing of each other add up in their variance, not in their standard deviation: try "
            "to make the variance come out at 1 - alpha_bar_t.",
        ),
        (
            lambda x, e, now, later: sqrt(later / now) * x + sqrt(now - later) * e,
            "The noise that is there shrinks with the signal, so more than alpha_bar_s - alpha_bar_t has to come in.",
        ),
        (
            lambda x, e, now, later: sqrt(later / now) * x + sqrt(1 - later) * e,
            "Too much noise: what x_s brings along is counted twice.",
        ),
        (
            lambda x, e, now, later: later / now * x + (1 - later / now) * e,
            "The square roots are missing: alpha_bar is a share of the variance, the weights are its roots.",
        ),
        (
            lambda x, e, now, later: x + sqrt(now - later) * e,
            "The signal must shrink, too, or the whole grows with each step.",
        ),
        (
            lambda x, e, now, later: sqrt(1 - later / now) * x + sqrt(later / now) * e,
            "The two weights are swapped: near alpha_bar_s there is nearly nothing to add.",
        ),
    ]
    return compare(yours, right, [(*draws(2), *levels[::-1]) for levels in LEVELS], mistakes)


def ddpm_mean(yours: Formula, model: LatentDiffusion) -> Verdict:
    """Exercise 3: the posterior's mean, written with eps; first alone, then in the real pipeline."""

    def right(x_t: Tensor, eps: Tensor, now: float, prev: float) -> Tensor:
        return samplers.ddpm(_state(x_t, eps, now), prev, None, lambda: torch.zeros_like(x_t))

    def step(now: State, alpha_bar: float, before: State | None, noise: Noise) -> Tensor:
        variance = (1 - alpha_bar) / (1 - now.alpha_bar) * (1 - now.alpha_bar / alpha_bar)
        return yours(now.x_t, now.eps, now.alpha_bar, alpha_bar) + sqrt(variance) * noise()

    mistakes = [
        (
            lambda x, e, now, prev: (x - (1 - now / prev) * e) / sqrt(now / prev),
            "beta_t is not yet divided by sqrt(1 - alpha_bar_t).",
        ),
        (
            lambda x, e, now, prev: x - (1 - now / prev) / sqrt(1 - now) * e,
            "The division by sqrt(alpha_t) is missing: what is left must grow.",
        ),
        (
            lambda x, e, now, prev: sqrt(now / prev) * (x - (1 - now / prev) / sqrt(1 - now) * e),
            "It multiplies by sqrt(alpha_t): that is the way to more noise. Going back divides by it.",
        ),
        (
            lambda x, e, now, prev: (x - sqrt(1 - now) * e) / sqrt(now / prev),
            "It takes all the noise out, sqrt(1 - alpha_bar_t) * eps; the mean takes out less.",
        ),
        (
            lambda x, e, now, prev: (x - (1 - now) / sqrt(1 - now) * e) / sqrt(now),
            "That is x0_hat: alpha_t is the share of this one step, alpha_bar_t / alpha_bar_prev.",
        ),
        (
            lambda x, e, now, prev: (x - (1 - now / prev) / sqrt(1 - prev) * e) / sqrt(now / prev),
            "beta_t is divided by sqrt(1 - alpha_bar_prev); it is alpha_bar_t, the level that x_t is at.",
        ),
        (
            lambda x, e, now, prev: (x + (1 - now / prev) / sqrt(1 - now) * e) / sqrt(now / prev),
            "The sign is wrong: this puts noise in.",
        ),
        (
            _ddim,
            "That is DDIM's step. It keeps more of eps, because no fresh noise comes after it.",
        ),
    ]
    verdict = compare(yours, right, [(*draws(2), *levels) for levels in LEVELS], mistakes)
    return _plugged_as_ddpm(model, step) if verdict.status == RIGHT else verdict


def eta_step(yours: EtaStep, model: LatentDiffusion) -> Verdict:
    """Exercise 4: one step that is DDIM at eta = 0 and DDPM at eta = 1; then, as DDPM, in the real pipeline."""

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

    def as_ddpm(now: State, alpha_bar: float, before: State | None, noise: Noise) -> Tensor:
        return yours(now.x_t, now.eps, now.alpha_bar, alpha_bar, noise(), 1.0)

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
            lambda x, e, now, prev, noise, eta: samplers.ddpm(_state(x, e, now), prev, None, lambda: noise),
            "That is DDPM whatever eta says: use eta.",
        ),
        (
            beta_for_sigma,
            "sigma is eta times the root of the *posterior's* variance, not of beta_t: the factor "
            "(1 - alpha_bar_prev) / (1 - alpha_bar_t) is missing.",
        ),
    ]
    cases = [(*draws(2), *levels, *draws(1, seed=5), eta) for levels in LEVELS for eta in (0.0, 0.5, 1.0)]
    verdict = compare(yours, right, cases, mistakes)
    return _plugged_as_ddpm(model, as_ddpm) if verdict.status == RIGHT else verdict


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
