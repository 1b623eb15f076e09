"""The exercises of notebook 02."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ldm_course import loss, pipelines, unet
from ldm_course.blocks import ResnetBlock
from ldm_course.lab.nb02_unet import probes, training
from ldm_course.lab.shared.verdict import NOT_TRIED, RIGHT, WRONG, Verdict, compare, draws, not_tried, plugged, raised
from ldm_course.model import LatentDiffusion
from ldm_course.samplers import State

Mix = Callable[[Tensor, Tensor, int], Tensor]

# ---- denoising -------------------------------------------------------------------------------------------------


def add_noise(yours: Mix, model: LatentDiffusion) -> Verdict:
    """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps."""

    def mixed(weights: Callable[[float], tuple[float, float]]) -> Mix:
        def mistake(x0: Tensor, eps: Tensor, t: int) -> Tensor:
            signal, noise = weights(model.schedule.alpha_bar(t))
            return signal * x0 + noise * eps

        return mistake

    mistakes = [
        (
            mixed(lambda a: (a, 1 - a)),
            "Both square roots are missing. Without them the result does not keep a variance of 1.",
        ),
        (mixed(lambda a: (a**0.5, 1 - a)), "The noise's weight has a square root, too: sqrt(1 - alpha_bar)."),
        (mixed(lambda a: (a, (1 - a) ** 0.5)), "The latent's weight has a square root, too: sqrt(alpha_bar)."),
        (
            mixed(lambda a: (a**0.5, 1 - a**0.5)),
            "The root is over the whole of 1 - alpha_bar: (1 - alpha_bar) ** 0.5, not 1 - alpha_bar ** 0.5.",
        ),
        (
            mixed(lambda a: ((1 - a) ** 0.5, a**0.5)),
            "The two weights are swapped: alpha_bar belongs to the latent, what is left to the noise.",
        ),
        (mixed(lambda a: (1 - a, a)), "The two weights are swapped, and their square roots are missing."),
        (mixed(lambda a: (a**0.5, -((1 - a) ** 0.5))), "The noise is added, not subtracted."),
        (
            mixed(lambda a: (1, (1 - a) ** 0.5)),
            "The latent is there in full; it must fade: its weight is sqrt(alpha_bar).",
        ),
        (mixed(lambda a: (1, 1)), "The weights are missing: both parts are there in full at every t."),
        (mixed(lambda a: (a**0.5, a**0.5)), "Both have the latent's weight; the noise's is sqrt(1 - alpha_bar)."),
        (mixed(lambda a: (a**0.5, 1)), "The noise is there in full at every t; its weight is sqrt(1 - alpha_bar)."),
        (mixed(lambda a: (a**2, (1 - a) ** 2)), "Those are squares. The weights are square roots: ** 0.5."),
    ]
    cases = [(*draws(2), t) for t in (0, 300, 900)]
    return _plain_number(compare(yours, model.schedule.add_noise, cases, mistakes))


def _plain_number(verdict: Verdict) -> Verdict:
    """Say more about torch.sqrt of a float."""
    if "must be Tensor, not float" in verdict.message:
        return replace(verdict, message="alpha_bar is a plain number, and torch.sqrt wants a tensor: write ** 0.5.")
    return verdict


def clean_guess(yours: Mix, model: LatentDiffusion) -> Verdict:
    """x0_hat: the mixture, solved for the clean latent."""

    def solved(rule: Callable[[Tensor, Tensor, float, float], Tensor]) -> Mix:
        def mistake(x_t: Tensor, eps_hat: Tensor, t: int) -> Tensor:
            a = model.schedule.alpha_bar(t)
            return rule(x_t, eps_hat, a**0.5, (1 - a) ** 0.5)

        return mistake

    mistakes = [
        (
            solved(lambda x, e, s, n: x - n * e),
            "The noise is gone, but what is left is the latent times sqrt(alpha_bar): divide by that.",
        ),
        (
            solved(lambda x, e, s, n: x - n * e / s),
            "Only the noise is divided; put brackets around the difference before you divide.",
        ),
        (solved(lambda x, e, s, n: (x + n * e) / s), "The noise is subtracted, not added."),
        (
            solved(lambda x, e, s, n: (x - e) / s),
            "The noise in x_t has a weight, sqrt(1 - alpha_bar); subtract that much of it.",
        ),
        (
            solved(lambda x, e, s, n: x - e),
            "Plain subtraction does not undo the mixture: weigh the noise by sqrt(1 - alpha_bar), and then divide.",
        ),
        (solved(lambda x, e, s, n: (x - n**2 * e) / s**2), "Both square roots are missing."),
        (
            solved(lambda x, e, s, n: (x - n * e) / s**2),
            "It divides by alpha_bar; the latent's weight in the mixture is its square root.",
        ),
        (solved(lambda x, e, s, n: (x - n**2 * e) / s), "The noise's weight has a square root: sqrt(1 - alpha_bar)."),
        (
            solved(lambda x, e, s, n: (x - (1 - s) * e) / s),
            "The root is over the whole of 1 - alpha_bar: (1 - alpha_bar) ** 0.5.",
        ),
        (solved(lambda x, e, s, n: (x - n * e) * s), "It multiplies by sqrt(alpha_bar) at the end; divide by it."),
        (solved(lambda x, e, s, n: (x - s * e) / n), "The two weights are swapped: alpha_bar belongs to the latent."),
        (solved(lambda x, e, s, n: (n * e - x) / s), "The sign is wrong: it is x_t less the noise."),
    ]

    def right(x_t: Tensor, eps_hat: Tensor, t: int) -> Tensor:
        a = model.schedule.alpha_bar(t)
        return (x_t - (1 - a) ** 0.5 * eps_hat) / a**0.5

    cases = [(*draws(2), t) for t in (50, 300, 700)]
    return _plain_number(compare(yours, right, cases, mistakes))


def step_back(yours: Callable[[Tensor, Tensor, int, int], Tensor], model: LatentDiffusion) -> Verdict:
    """One DDIM step from t to t_prev; first alone, then in the real pipeline."""
    mix = model.schedule.add_noise

    def guess(x_t: Tensor, eps_hat: Tensor, t: int) -> Tensor:
        a = model.schedule.alpha_bar(t)
        return (x_t - (1 - a) ** 0.5 * eps_hat) / a**0.5

    def right(x_t: Tensor, eps_hat: Tensor, t: int, t_prev: int) -> Tensor:
        return mix(guess(x_t, eps_hat, t), eps_hat, t_prev)

    mistakes = [
        (
            lambda x, e, t, p: mix(guess(x, e, t), e, t),
            "It ends where it began, because both calls are at one level. Guess at t, and add the noise at t_prev.",
        ),
        (
            lambda x, e, t, p: guess(x, e, t),
            "That is the whole way to the guess. Add the noise again, at the level t_prev.",
        ),
        (
            lambda x, e, t, p: mix(guess(x, e, p), e, t),
            "The two timesteps are swapped: x_t is at t, and the result is at t_prev.",
        ),
        (
            lambda x, e, t, p: mix(e, guess(x, e, t), p),
            "The guess and the noise are swapped: add_noise wants the clean latent first.",
        ),
        (lambda x, e, t, p: mix(x, e, p), "It adds noise to x_t itself. Add it to the guess of the clean latent."),
        (lambda x, e, t, p: mix(guess(x, e, t), x, p), "It adds x_t as if it were noise; the noise is eps_hat."),
        (lambda x, e, t, p: x - e, "It subtracts all the noise at once. Use clean_guess, and then add_noise."),
        (
            lambda x, e, t, p: mix(guess(x, e, t), e, t - p),
            "The result's level is t_prev itself, not the difference of the two timesteps.",
        ),
    ]
    x_t, eps_hat = draws(2)
    try:
        once, again = yours(x_t, eps_hat, 700, 600), yours(x_t, eps_hat, 700, 600)
        if isinstance(once, Tensor) and isinstance(again, Tensor) and not torch.equal(once, again):
            hint = "Two calls give two results: it draws new noise. Add back the noise that was predicted, eps_hat."
            return Verdict(WRONG, hint, answer=right)
    except Exception:  # `compare` says what it is
        pass

    def as_sampler(now: State, alpha_bar: float, before: State | None, noise: Callable[[], Tensor]) -> Tensor:
        t_prev = int((model.schedule.alpha_bars - alpha_bar).abs().argmin())
        return now.x0_hat if alpha_bar == 1 else yours(now.x_t, now.eps, now.t, t_prev)

    verdict = compare(yours, right, [(x_t, eps_hat, 700, 600), (x_t, eps_hat, 51, 1)], mistakes)
    return verdict.then(lambda: plugged(model, ddim=as_sampler))


# ---- time ------------------------------------------------------------------------------------------------------


def timestep_embedding(yours: Callable[[Tensor, int], Tensor], model: LatentDiffusion) -> Verdict:
    """The embedding of a batch of timesteps; first alone, then in the real pipeline."""

    def waves(exponent: Callable[[Tensor, int], Tensor], scale: float = 1.0) -> Callable[[Tensor, int], Tensor]:
        def mistake(t: Tensor, dim: int) -> Tensor:
            angles = scale * t[:, None] * 10_000.0 ** exponent(torch.arange(dim // 2), dim)
            return torch.cat([angles.cos(), angles.sin()], dim=1)

        return mistake

    right = unet.timestep_embedding
    mistakes = [
        (
            lambda t, dim: right(t, dim).roll(dim // 2, dims=1),
            "The sines come first in yours; Stable Diffusion puts the cosines first.",
        ),
        (
            lambda t, dim: right(t, dim).unflatten(1, (2, -1)).transpose(1, 2).flatten(1),
            "Cosines and sines take turns in yours; here all the cosines come first, then all the sines.",
        ),
        (
            lambda t, dim: right(t, dim).unflatten(1, (2, -1)).flip(1).transpose(1, 2).flatten(1),
            "Sines and cosines take turns, as in the paper; here all the cosines come first, then all the sines.",
        ),
        (lambda t, dim: right(t, 2 * dim)[:, :dim], "Only the cosines are there; the sines come after them."),
        (
            waves(lambda i, dim: i / (dim // 2)),
            "The frequencies rise from 1 upwards: the exponent's minus is missing.",
        ),
        (waves(lambda i, dim: -i / dim), "The frequencies end at 1/100: i runs up to dim/2, so divide it by dim/2."),
        (
            waves(lambda i, dim: -i / (dim // 2 - 1)),
            "The last frequency is exactly 1/10000, so you divided by dim/2 - 1; Stable Diffusion divides by dim/2.",
        ),
        (
            waves(lambda i, dim: -(i + 1) / (dim // 2)),
            "The first frequency is less than 1: i counts from 0, not from 1.",
        ),
        (
            waves(lambda i, dim: -i / (dim // 2), 2 * math.pi),
            "It turns 2 pi times too fast: the angle is t times the frequency, without a 2 pi.",
        ),
        (
            waves(lambda i, dim: -i / (dim // 2), 1 / 1000),
            "It divides t by 1000; the timestep goes in as it is, from 0 to 999.",
        ),
    ]
    cases = [(torch.tensor([0, 1, 7, 40]), 8), (torch.tensor([3]), 48)]  # small: float32 rounds the larger angles
    verdict = compare(yours, right, cases, mistakes)
    if verdict.message.startswith("Your answer has shape"):
        verdict = replace(verdict, message=f"{verdict.message} One row per timestep: t[:, None] * frequencies.")
    return verdict.then(lambda: plugged(model, timestep_embedding=yours))


# ---- the residual block ----------------------------------------------------------------------------------------


def residual_block(yours: type[nn.Module], model: LatentDiffusion) -> Verdict:
    """The residual block; first alone, then as every residual block of UNet and VAE."""
    right = type("ResidualBlock", (ResnetBlock,), {})  # a class of its own, which can be plugged in as the learner's
    return replace(_residual_block(yours, model), answer=right)


def _residual_block(yours: type[nn.Module], model: LatentDiffusion) -> Verdict:
    def run(block: type[nn.Module]) -> Callable[[int, int, Tensor, Tensor | None], Tensor]:
        return lambda c_in, c_out, x, temb: _filled(block, c_in, c_out, temb is not None)(x, temb)

    def with_forward(forward: Callable[[ResnetBlock, Tensor, Tensor], Tensor]) -> Callable:
        return run(type("Mistake", (ResnetBlock,), {"forward": forward}))

    right = run(ResnetBlock)
    same, wider = ((c, 8, *draws(1, (2, c, 5, 5)), *draws(1, (2, 16))) for c in (8, 6))
    verdict = compare(run(yours), right, [same], [(with_forward(wrong), hint) for wrong, hint in BLOCK_MISTAKES])
    if verdict.status == WRONG and "must match" in verdict.message:
        message = "The time is one value per channel, (b, c); [:, :, None, None] spreads it over all positions."
        return Verdict(WRONG, message)
    if verdict.status != RIGHT:
        return verdict
    if compare(run(yours), right, [wider], []).status != RIGHT:
        return Verdict(
            WRONG,
            "With as many channels out as in it is right, but not from 6 to 8: there x does not fit, and must go "
            "through self.conv_shortcut.",
        )
    timeless = [(8, 8, same[2], None), (6, 8, wider[2], None)]
    if compare(run(yours), right, timeless, []).status != RIGHT:
        return Verdict(
            WRONG,
            "In the UNet it is right, but not in the VAE, which knows no time: temb and self.time_emb_proj are None "
            "there, and nothing is added.",
        )
    return plugged(model, ResnetBlock=yours)


def _filled(block: type[nn.Module], c_in: int, c_out: int, timed: bool) -> nn.Module:
    """A block whose weights follow from its shape alone."""
    made = block(c_in, c_out, 2, 1e-5, 16 if timed else None)
    generator = torch.Generator().manual_seed(2)
    for weight in made.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) / 2
    return made


def _halves(block: ResnetBlock, x: Tensor, shift: Tensor | float, late: Tensor | float = 0.0) -> Tensor:
    h = block.conv1(F.silu(block.norm1(x))) + shift
    return block.conv2(F.silu(block.norm2(h))) + late


def _shift(block: ResnetBlock, temb: Tensor) -> Tensor:
    assert block.time_emb_proj is not None
    return block.time_emb_proj(F.silu(temb))[:, :, None, None]


BLOCK_MISTAKES: list[tuple[Callable[[ResnetBlock, Tensor, Tensor], Tensor], str]] = [
    (
        lambda block, x, temb: _halves(block, x, _shift(block, temb)),
        "The shortcut is missing: x itself is added at the end.",
    ),
    (
        lambda block, x, temb: x + _halves(block, x, 0.0),
        "The time is missing: it is added between the two halves, one number per channel.",
    ),
    (
        lambda block, x, temb: x + _halves(block, x, 0.0, late=_shift(block, temb)),
        "The time comes too late: it is added after the first convolution, before the second norm.",
    ),
    (
        lambda block, x, temb: _halves(block, x, _shift(block, temb)) + F.silu(x),
        "The shortcut carries x as it is, without a SiLU.",
    ),
    (
        lambda block, x, temb: block.norm1(x) + _halves(block, x, _shift(block, temb)),
        "The shortcut carries x as it is, not its norm. Do not store the norm in x.",
    ),
    (
        lambda block, x, temb: F.silu(block.norm1(x)) + _halves(block, x, _shift(block, temb)),
        "The shortcut carries x as it came in, before norm and SiLU. Do not store those in x.",
    ),
    (
        lambda block, x, temb: x + _halves(block, x, block.time_emb_proj(temb)[:, :, None, None]),  # type: ignore[misc]
        "The time goes into its linear layer as it is; it goes through a SiLU first.",
    ),
    (
        lambda block, x, temb: x + _halves(block, x, F.silu(block.time_emb_proj(temb))[:, :, None, None]),  # type: ignore[misc]
        "The SiLU comes after the time's linear layer; it goes before it.",
    ),
    (
        lambda block, x, temb: (
            x + block.conv2(F.silu(block.norm2(block.conv1(F.silu(block.norm1(x)))) + _shift(block, temb)))
        ),
        "The time is added after the second norm; it comes before that norm, right after the first convolution.",
    ),
    (
        lambda block, x, temb: (
            x + block.conv2(F.silu(block.norm2(block.conv1(F.silu(block.norm1(x))))) + _shift(block, temb))
        ),
        "The time is added after the second norm; it comes before that norm, right after the first convolution.",
    ),
    (
        lambda block, x, temb: x + block.conv2(block.norm2(block.conv1(block.norm1(x)) + _shift(block, temb))),
        "The SiLUs are missing. Without a SiLU before each convolution, two of them can do little more than one.",
    ),
    (
        lambda block, x, temb: (
            x + block.conv2(block.norm2(block.conv1(F.silu(block.norm1(x))) + _shift(block, temb)))
        ),
        "The second SiLU is missing: both convolutions read silu(norm(...)).",
    ),
    (
        lambda block, x, temb: (
            x + block.conv2(F.silu(block.norm2(block.conv1(block.norm1(x)) + _shift(block, temb))))
        ),
        "The first SiLU is missing: both convolutions read silu(norm(...)).",
    ),
    (
        lambda block, x, temb: (
            x + block.conv2(F.relu(block.norm2(block.conv1(F.relu(block.norm1(x))) + _shift(block, temb))))
        ),
        "It uses ReLU; Stable Diffusion uses SiLU.",
    ),
    (
        lambda block, x, temb: x + block.conv2(F.silu(block.conv1(F.silu(x)) + _shift(block, temb))),
        "The norms are missing: each convolution reads silu(norm(...)).",
    ),
    (
        lambda block, x, temb: (
            x + F.silu(block.norm2(block.conv2(F.silu(block.norm1(block.conv1(x))) + _shift(block, temb))))
        ),
        "Norm and SiLU come after the convolutions in yours; here they come before them.",
    ),
    (
        lambda block, x, temb: (
            x + block.conv2(block.norm2(F.silu(block.conv1(block.norm1(F.silu(x))) + _shift(block, temb))))
        ),
        "Norm and SiLU are in the wrong order: norm first, then SiLU, then the convolution.",
    ),
]

# ---- attention -------------------------------------------------------------------------------------------------

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def attention(yours: Attend, model: LatentDiffusion) -> Verdict:
    """softmax(q k^T / sqrt(d)) v; first alone, then in every attention of the real pipeline."""

    def scores(q: Tensor, k: Tensor) -> Tensor:
        return q @ k.transpose(-1, -2)

    def right(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (scores(q, k) / q.shape[-1] ** 0.5).softmax(dim=-1) @ v

    mistakes: list[tuple[Attend, str]] = [
        (
            lambda q, k, v: scores(q, k).softmax(dim=-1) @ v,
            "The scores are not divided by sqrt(d), where d is the length of a query.",
        ),
        (
            lambda q, k, v: (scores(q, k) / q.shape[-1]).softmax(dim=-1) @ v,
            "It divides by d; the equation has its square root.",
        ),
        (
            lambda q, k, v: (scores(q, k) * q.shape[-1] ** 0.5).softmax(dim=-1) @ v,
            "It multiplies by sqrt(d); divide by it.",
        ),
        (
            lambda q, k, v: (scores(q, k) / q.shape[-2] ** 0.5).softmax(dim=-1) @ v,
            "It divides by the root of the number of queries; d is the length of one query, q.shape[-1].",
        ),
        (
            lambda q, k, v: (scores(q, k) / k.shape[-2] ** 0.5).softmax(dim=-1) @ v,
            "It divides by the root of the number of keys; d is the length of one query, q.shape[-1].",
        ),
        (
            lambda q, k, v: (scores(q, k) / q.shape[-1] ** 0.5).softmax(dim=-2) @ v,
            "The softmax runs over the queries. Each query's row must add up to 1, so it runs over the keys: dim=-1.",
        ),
        (
            lambda q, k, v: (scores(q, k) / q.shape[-1] ** 0.5).softmax(dim=1) @ v,
            "With dim=1 the softmax runs over another axis as soon as there are heads. The keys are last: dim=-1.",
        ),
        (
            lambda q, k, v: (scores(q, k) / q.shape[-1] ** 0.5).softmax(dim=0) @ v,
            "With dim=0 the softmax does not run over the keys, which are the last axis: dim=-1.",
        ),
        (
            lambda q, k, v: scores(q, k) / q.shape[-1] ** 0.5 @ v,
            "The softmax is missing: the scores must become shares that add up to 1.",
        ),
        (
            lambda q, k, v: (scores(q, k) / q.shape[-1] ** 0.5).softmax(dim=-1),
            "Those are the shares; the values are still to be mixed with them.",
        ),
        (
            lambda q, k, v: scores(q, k).softmax(dim=-1) / q.shape[-1] ** 0.5 @ v,
            "It divides after the softmax; the scores are divided before it.",
        ),
        (
            lambda q, k, v: (scores(q, k) / q.shape[-1] ** 0.5).sigmoid() @ v,
            "Sigmoids do not compete: the softmax makes each row add up to 1.",
        ),
    ]
    heads = (*draws(1, (2, 3, 6, 5)), *draws(1, (2, 3, 4, 5), 4), *draws(1, (2, 3, 4, 7), 5))
    verdict = compare(yours, right, [heads, tuple(x[0, 0] for x in heads)], mistakes)
    if verdict.message.startswith("It raised") and ("shape" in verdict.message or "size" in verdict.message):
        hint = "Queries meet keys along their last axis: q @ k.transpose(-1, -2) is (..., n, m)."
        verdict = replace(verdict, message=f"{verdict.message}. {hint}")

    def in_the_pipeline() -> Verdict:
        before = _image(model)
        try:
            with probes.wired(attention=yours):
                after = _image(model)
        except Exception as error:
            return raised(error, "In the pipeline it")
        return _same_image(before, after, "attention")

    return verdict.then(in_the_pipeline)


def _image(model: LatentDiffusion) -> Image.Image:
    return pipelines.txt2img(model, "a dog with glasses", seed=0, num_inference_steps=4)


def _same_image(before: Image.Image, after: Image.Image, name: str) -> Verdict:
    off = max(abs(a - b) for one, other in zip(before.getdata(), after.getdata()) for a, b in zip(one, other))
    if off > 1:
        return Verdict(
            WRONG, f"With your {name} the pipeline generates another image, {off}/255 off.", (before, after)
        )
    return Verdict(RIGHT, f"The pipeline ran on your {name} and generated the same image.", (before, after))


# ---- the U -----------------------------------------------------------------------------------------------------

Forward = Callable[[unet.UNet, Tensor, Tensor | int, Tensor], Tensor]


def the_u(yours: Forward, model: LatentDiffusion) -> Verdict:
    """The way through the UNet, with the skips as a stack; first alone, then in the real pipeline."""
    config = model.unet.config
    x_t = draws(1, (2, config.in_channels, config.sample_size, config.sample_size))[0].to(model.device, model.dtype)
    context = draws(1, (2, 77, config.cross_attention_dim))[0].to(model.device, model.dtype)
    cases: list[tuple] = [(x_t, torch.tensor([40]), context), (x_t[:1], torch.tensor([700]), context[:1])]

    def on_its_weights(way: Callable, **mistake: bool) -> Callable:
        return lambda x_t, t, context: way(model.unet, x_t, t, context, **mistake)

    mistakes = [
        (
            on_its_weights(probes.way_through, skip_first=True),
            "The two are joined in the wrong order: first h, then the skip. All shapes fit, so nothing complains.",
        ),
        (
            on_its_weights(probes.way_through, push_early=True),
            "It pushes a block's result before the transformer has seen it; push after both.",
        ),
    ]
    with torch.no_grad():
        try:
            yours(model.unet, *cases[0])
        except Exception as error:
            return replace(_lost(error), answer=probes.way_through)
        verdict = compare(on_its_weights(yours), on_its_weights(probes.way_through), cases, mistakes)

    def in_the_pipeline() -> Verdict:
        before = _image(model)
        with probes.wired(forward=yours):
            after = _image(model)
        return _same_image(before, after, "way through the U")

    return replace(verdict, answer=probes.way_through).then(in_the_pipeline)


def _lost(error: Exception) -> Verdict:
    """What an error says about the way through the U."""
    verdict = raised(error)
    if verdict.status == NOT_TRIED:
        return verdict
    if isinstance(error, IndexError):
        hint = "The stack is empty too early, so something is never pushed: there is the first convolution's "
        return Verdict(WRONG, hint + "result, one result per block, and one per halving.")
    if isinstance(error, RuntimeError):
        hint = "A block got other channels or another size than it was made for. Last in, first out: pop() takes the "
        hint += "end of the list. And h and the skip stand side by side as channels: torch.cat([..., ...], dim=1)."
        return Verdict(WRONG, f"{hint} ({error})")
    return verdict


# ---- four suspects ---------------------------------------------------------------------------------------------

SUSPECTS = {  # what is broken: its image, and a hint for those who think of another
    "hears no text": (
        "C",
        "Without the text the image can be as clean as ever, but where would the glasses come from?",
    ),
    "is always told t = 500": (
        "A",
        "At the start, t = 500 is too low, and noise passes for content. At the end it is too high, and details get "
        "invented. So look for a scene with scraps in it.",
    ),
    "has lost its outermost skip": (
        "D",
        "The outermost skip carries the latent almost as it came in, cell by cell. Noise differs from cell to cell.",
    ),
    "has lost its innermost skip": (
        "B",
        "The innermost skip bridges nothing but the middle block, whose own shortcut leads the same way.",
    ),
}


def suspects(yours: Callable[[], dict[str, str]]) -> Verdict:
    """Which image comes from which broken UNet."""

    def right() -> dict[str, str]:
        return {fault: letter for fault, (letter, _) in SUSPECTS.items()}

    try:
        answers = yours()
    except Exception as error:
        return replace(raised(error), answer=right)
    if not isinstance(answers, dict) or set(answers) != set(SUSPECTS):
        return Verdict(WRONG, "Keep the four keys, and give each a letter.", answer=right)
    if Ellipsis in answers.values():
        return replace(not_tried(), answer=right)
    letters = {fault: str(letter).strip().upper() for fault, letter in answers.items()}
    wrong = [fault for fault, letter in letters.items() if letter != SUSPECTS[fault][0]]
    if wrong:
        message = f"{4 - len(wrong)} of 4 are right. The one that {wrong[0]}: {SUSPECTS[wrong[0]][1]}"
        return Verdict(WRONG, message, answer=right)
    return Verdict(RIGHT, "All four caught.", answer=right)


# ---- training --------------------------------------------------------------------------------------------------

Loss = Callable[[Callable[[Tensor, Tensor, Tensor], Tensor], Tensor, Tensor], Tensor]


def diffusion_loss(yours: Loss, model: LatentDiffusion) -> Verdict:
    """The training loss of one batch. It draws at random, so the check looks at what the network is asked."""

    def right(unet: Callable[[Tensor, Tensor, Tensor], Tensor], x0: Tensor, context: Tensor) -> Tensor:
        return loss.diffusion_loss(unet, model.schedule, x0, context)

    return replace(_diffusion_loss(yours, model), answer=right)


def _diffusion_loss(yours: Loss, model: LatentDiffusion) -> Verdict:
    x0, context = draws(1, (32_768, 4, 2, 2))[0] + 3, draws(1, (32_768, 3, 5), 4)[0]
    asked: list[tuple] = []
    weight = torch.ones((), requires_grad=True)

    def network(x_t: Tensor, t: Tensor, text: Tensor) -> Tensor:
        asked.append((x_t, t, text))
        return 0.3 * weight * x_t

    try:
        value = yours(network, x0.clone(), context)
    except Exception as error:
        return raised(error)
    if value is None or value is Ellipsis:
        return not_tried()
    hint = _asked_wrongly(asked, x0, context, model) or _wrong_value(value, asked[0], x0, model)
    return Verdict(WRONG, hint) if hint else Verdict(RIGHT, "It mixes, asks and measures as the package does.")


def _asked_wrongly(asked: list[tuple], x0: Tensor, context: Tensor, model: LatentDiffusion) -> str | None:
    """What is wrong with the network's inputs."""
    if len(asked) != 1:
        return f"The network was asked {len(asked)} times; ask it once, with x_t, t and the context."
    x_t, t, text = asked[0]
    if not isinstance(t, Tensor) or t.numel() == 1 or t.shape != (len(x0),):
        return "Each latent gets a timestep of its own: torch.randint(1000, (len(x0),))."
    if t.is_floating_point():
        return "The timesteps are whole numbers: torch.randint, not torch.rand."
    if text is not context and not (isinstance(text, Tensor) and torch.equal(text, context)):
        return "The network gets the context as it is, after x_t and t."
    if not isinstance(x_t, Tensor) or x_t.shape != x0.shape:
        return "The network's first argument is x_t, of the same shape as x0."
    if torch.equal(x_t, x0):
        return "The network is shown the clean latents; show it x_t."
    if t.unique().numel() == 1:
        return "All latents of the batch share one timestep; draw one for each latent."
    if (int(t.min()), int(t.max())) != (0, 999):
        hint = f"Draw t from all timesteps, 0 to 999; yours ran from {int(t.min())} to {int(t.max())}."
        return f"{hint} torch.randint leaves its upper end out."
    eps = _noise_in(x_t, t, x0, model)
    if (eps[:1] - eps[1:]).abs().max() < 1e-2:
        return "All latents of the batch get the same noise: torch.randn_like(x0) draws it for each."
    if eps.mean().abs() > 0.1 and eps.min() >= -0.01:
        return "That noise is never negative: torch.randn draws from N(0, 1), torch.rand from 0 to 1."
    if not 0.9 < eps.std() < 1.1:
        return "The network is told another t than the latents were noised for, or the noise has another variance."
    return None


def _noise_in(x_t: Tensor, t: Tensor, x0: Tensor, model: LatentDiffusion) -> Tensor:
    a = model.schedule.alpha_bars[t].view(-1, 1, 1, 1).float()
    return (x_t - a.sqrt() * x0) / (1 - a).sqrt()


def _wrong_value(value: object, asked: tuple, x0: Tensor, model: LatentDiffusion) -> str | None:
    """What is wrong with the loss."""
    x_t, t, _ = asked
    eps, answer = _noise_in(x_t, t, x0, model), 0.3 * x_t

    if isinstance(value, Tensor) and value.numel() > 1:
        return "The loss is a single number; take the mean of the squared errors."
    if not isinstance(value, Tensor) or not value.requires_grad:
        return "No gradient can flow through that loss: return a tensor, and neither detach it nor call item()."
    number, answer = value.item(), answer.detach()

    def near(other: Tensor, tolerance: float = 0.005) -> bool:
        return abs(number - other.item()) < tolerance * max(1.0, abs(other.item()))

    if near((answer - eps).square().mean()):
        return None
    if near((answer - x0).square().mean()):
        return "It compares the answer with the clean latent; the network is asked for the noise."
    if near((answer - x_t).square().mean()):
        return "It compares the answer with x_t; the network is asked for the noise in it."
    if near((answer - eps).abs().mean()):
        return "Those are absolute errors; square them."
    if near((answer - eps).square().sum()) or near((answer - eps).square().sum() / len(x0)):
        return "That is a sum; take the mean, so that the loss does not depend on the size."
    if near((answer - eps).square().mean().sqrt()):
        return "It takes the root; the loss is the mean square itself."
    if near((answer - eps).mean()):
        return "Errors of both signs cancel out; square them first."
    if near((answer - torch.randn_like(eps)).square().mean(), 0.03):
        return "The noise of the loss is not the noise in x_t. Draw it once, and keep it."
    return f"The inputs are right. But the loss is {number:.3f}, and the mean square of what is wrong is another."


# ---- the open build --------------------------------------------------------------------------------------------

WEIGHTS = 1_500_000


def better_denoiser(yours: type[nn.Module], model: LatentDiffusion) -> Verdict:
    """A network of the learner's own, trained as the tiny UNet was: is it better on scenes that it has not seen?"""
    torch.manual_seed(0)
    try:
        network = yours()
        x0, context = training.rabbits(model)
        answer = network(x0[:2], torch.tensor([3, 700]), context[:2])
    except Exception as error:
        return raised(error)
    if answer is None or answer is Ellipsis:
        return not_tried()
    if not isinstance(answer, Tensor) or answer.shape != x0[:2].shape:
        shape = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        return Verdict(WRONG, f"It must return noise of the latents' shape {tuple(x0[:2].shape)}, not {shape}.")
    count = sum(weight.numel() for weight in network.parameters())
    if not 0 < count <= WEIGHTS:
        return Verdict(WRONG, f"It has {count:,} weights; allowed are 1 to {WEIGHTS:,}.")
    training.fit(network, model)
    off, given = training.error(network, model), training.given_error(model)
    told = f"Its error on fresh rabbits is {off:.4f}, that of the given UNet {given:.4f}"
    if not off < 0.9 * given:
        return Verdict(WRONG, f"{told}. Aim for 10% less.")
    return Verdict(RIGHT, f"{told}: {1 - off / given:.0%} less, after the same {training.STEPS} steps.")
