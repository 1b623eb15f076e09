"""Checks of notebook 06's exercises."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm_course import images, pipelines
from ldm_course.lab.shared import plots
from ldm_course.lab.shared.verdict import RIGHT, STEPS, WRONG, Verdict, compare, draws, not_tried, plugged, raised
from ldm_course.masks import region_mask
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import inpaint, known_region_hook
from ldm_course.sampling import AfterStep, denoise, draw_noise
from ldm_course.scenes import Scene
from ldm_course.schedule import NoiseSchedule

# ---- a mask for cells ------------------------------------------------------------------------------------------


def to_cells(yours: Callable[[Tensor], Tensor]) -> Verdict:
    """A mask of pixels to a mask of latent cells."""

    def right(mask: Tensor) -> Tensor:
        return (mask[..., ::8, ::8] >= 0.5).float()

    def each(mask: Tensor, decide: Callable[[Tensor], Tensor]) -> Tensor:
        return (decide(mask) >= 0.5).float()

    middle = (
        "The pixel in the middle of each cell decides here. In diffusers and in this course, the top left one does."
    )
    mean = "The mean of a cell's pixels decides here. In diffusers and in this course, the top left pixel does."
    any_pixel = "This masks a cell if any of its pixels is masked. Only the top left pixel decides."
    grey = "Grey values stay grey. Make them 1 from one half on, and 0 below."
    pixels = "The result has a value for each pixel. Return one for each latent cell of 8 x 8 pixels."
    halves = functools.partial(F.interpolate, scale_factor=1 / 8)
    mistakes = [
        (lambda mask: mask[..., ::8, ::8], grey),
        (lambda mask: F.avg_pool2d(mask, 8), f"{mean} {grey}"),
        (lambda mask: F.max_pool2d(mask, 8), f"{any_pixel} {grey}"),
        (lambda mask: each(mask, lambda mask: F.avg_pool2d(mask, 8)), mean),
        (lambda mask: each(mask, lambda mask: halves(mask, mode="bilinear")), mean),
        (lambda mask: each(mask, lambda mask: F.max_pool2d(mask, 8)), any_pixel),
        (lambda mask: 1 - right(mask), "Zeros and ones are swapped: 1 is where to generate."),
        (lambda mask: (mask[..., ::8, ::8] > 0).float(), "Any grey counts as masked here. Cut at one half."),
        (lambda mask: each(mask, lambda mask: mask[..., 4::8, 4::8]), middle),
        (lambda mask: each(mask, lambda mask: mask[..., 3::8, 3::8]), middle),
        (
            lambda mask: each(mask, lambda mask: mask[..., 7::8, 7::8]),
            "The bottom right pixel of each cell decides here. In diffusers and in this course, the top left does.",
        ),
        (lambda mask: each(mask, lambda mask: mask), pixels),
        (lambda mask: mask, pixels),
        (
            lambda mask: each(mask, lambda mask: mask[..., : mask.shape[-2] // 8, : mask.shape[-1] // 8]),
            "This cuts out one corner of the mask. Take every eighth pixel: a slice has a third part, the stride.",
        ),
        (
            lambda mask: each(mask, lambda mask: mask[..., ::8]),
            "Only the columns have shrunk. The rows need a stride of 8, too.",
        ),
    ]
    generator = torch.Generator("cpu").manual_seed(6)
    random = torch.rand(1, 1, 64, 64, generator=generator, dtype=torch.float32, device="cpu")
    ramp = torch.linspace(0, 1, 64, dtype=torch.float32, device="cpu").repeat(1, 1, 64, 1)
    few = random * (random > 0.9)  # most of the cells hold a masked pixel, few at their corner
    verdict = compare(yours, right, [(random,), (ramp,), (few,)], mistakes)

    def weighable() -> Verdict:
        if yours(random).dtype == torch.float32:
            return verdict
        return Verdict(WRONG, "The ones are in the right cells, but later m is a weight. Make it float: .float().")

    return verdict.then(weighable)


# ---- keep the known region -------------------------------------------------------------------------------------

Keep = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def keep_known_region(yours: Keep, model: LatentDiffusion) -> Verdict:
    """Put the known region back, first by itself, then in the pipeline."""
    right = pipelines.keep_known_region
    roots = "A square root is missing: alpha_bar is a share of the variance, the weights are its roots."
    mistakes: list[tuple[Keep, str]] = [
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
            lambda x, z, noise, m, a: m * x + (1 - m) * (z + (1 - a) ** 0.5 * noise),
            "z has full weight at every level. Its weight is the root of alpha_bar.",
        ),
        (
            lambda x, z, noise, m, a: m * x + (1 - m) * a**0.5 * z,
            "z is weaker, but no noise has been added to it.",
        ),
        (lambda x, z, noise, m, a: right(x, noise, z, m, a), "The weights are swapped: alpha_bar is the share of z."),
        (lambda x, z, noise, m, a: m * x + (1 - m) * (a * z + (1 - a) * noise), roots),
        (lambda x, z, noise, m, a: m * x + (1 - m) * (a**0.5 * z + (1 - a) * noise), roots),
        (lambda x, z, noise, m, a: m * x + (1 - m) * (a * z + (1 - a) ** 0.5 * noise), roots),
        (
            lambda x, z, noise, m, a: m * x + (1 - m) * (a**0.5 * z + (1 - a**0.5) * noise),
            "The noise has the weight 1 - sqrt(alpha_bar). It must be sqrt(1 - alpha_bar): the squares add up to 1.",
        ),
        (
            lambda x, z, noise, m, a: m * x + (1 - m) * (a**0.5 * z - (1 - a) ** 0.5 * noise),
            "The noise is subtracted. Add it: z has to become as noisy as x is.",
        ),
        (lambda x, z, noise, m, a: m * x, "The latent is 0 outside of the mask. Put z there, with noise."),
        (
            lambda x, z, noise, m, a: right(0 * x, z, noise, m, a),
            "The latent is 0 inside of the mask. Keep x there.",
        ),
        (
            lambda x, z, noise, m, a: right(x, z, noise, 0 * m, a),
            "The known latent is everywhere, in the hole, too. Where the mask is 1, x stays.",
        ),
        (lambda x, z, noise, m, a: x, "This returns x unchanged. Replace it by z, with noise, outside of the mask."),
        (
            lambda x, z, noise, m, a: x + right(0 * x, z, noise, m, a),
            "Outside of the mask this adds z to x. Replace x there: give it the weight m.",
        ),
        (
            lambda x, z, noise, m, a: m * x + a**0.5 * z + (1 - a) ** 0.5 * noise,
            "Inside of the mask this adds z to x. Give the known latent the weight 1 - m.",
        ),
        (
            lambda x, z, noise, m, a: m * x + (1 - m) * a**0.5 * z + (1 - a) ** 0.5 * noise,
            "The noise also reaches the hole. Put z and its noise in brackets, and give both the weight 1 - m.",
        ),
    ]
    x, z, noise = draws(3)
    m = _right_half(x)
    image, mask = _image_and_mask(model)
    sample = functools.partial(inpaint, model, "a dog running", image, mask, seed=0, num_inference_steps=STEPS)
    verdict = compare(yours, right, [(x, z, noise, m, a) for a in (0.05, 0.5, 1.0)], mistakes)
    return verdict.then(lambda: plugged(model, sample, keep_known_region=yours))


# ---- the hook --------------------------------------------------------------------------------------------------

Hook = Callable[[LatentDiffusion, Tensor, Tensor, Tensor], AfterStep]


def hook(yours: Hook, model: LatentDiffusion) -> Verdict:
    """The hook that puts the known region back, first called by itself, then by the loop."""
    schedule, keep = model.schedule, pipelines.keep_known_region

    def at_level(level: Callable[[int], float]) -> Hook:
        return lambda _, z, noise, m: lambda x, t_prev: keep(x, z, noise, m, level(t_prev))

    def at_end(end: Callable[[Tensor, Tensor], Tensor]) -> Hook:
        def made(_: LatentDiffusion, z: Tensor, noise: Tensor, m: Tensor) -> AfterStep:
            return lambda x, t_prev: end(x, z) if t_prev == -1 else keep(x, z, noise, m, schedule.alpha_bar(t_prev))

        return made

    mistakes: list[tuple[Hook, str]] = [
        (
            at_level(schedule.alpha_bar),
            "At the end, t_prev = -1, some noise stays: alpha_bar(-1) is alpha_bar(0) in this schedule. Use "
            "alpha_bar = 1 there, so that z comes back without noise.",
        ),
        (
            at_level(lambda t_prev: float(schedule.alpha_bars[t_prev])),
            "At the end, t_prev = -1, z comes back as almost pure noise: Python's [-1] is the last entry, the "
            "noisiest level. Use alpha_bar = 1 there.",
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
            at_level(lambda t_prev: 1.0 if t_prev == -1 else 1 - schedule.alpha_bar(t_prev)),
            "1 - alpha_bar is the share of the noise. Give keep_known_region alpha_bar itself.",
        ),
        (
            at_level(lambda t_prev: 1.0 if t_prev == -1 else schedule.alpha_bar(t_prev) ** 0.5),
            "keep_known_region takes the roots itself. Give it alpha_bar as it is.",
        ),
        (
            at_level(lambda t_prev: 1.0 if t_prev <= 1 else schedule.alpha_bar(t_prev)),
            "z is already clean at t_prev = 1, where x still has noise. Only -1 is the end.",
        ),
        (at_end(lambda x, z: x), "At the end, t_prev = -1, x comes back unchanged. Put the clean z back there, too."),
        (at_end(lambda x, z: z), "At the end, t_prev = -1, z fills the hole, too, and all the work is lost."),
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
    m = _right_half(x)
    cases = [(x, z, noise, m, t_prev) for t_prev in (981, 1, -1)]
    verdict = compare(
        _called(yours, model),
        _called(known_region_hook, model),
        cases,
        [(_called(made, model), hint) for made, hint in mistakes],
    )
    if verdict.status == WRONG and "values are off" in verdict.message and _draws_anew(yours, model, *cases[0]):
        verdict = Verdict(
            WRONG, "It draws noise anew. RePaint does so, too, but here use the noise that you are given."
        )
    return replace(verdict.then(lambda: _compare_in_loop(yours, model)), answer=known_region_hook)


def _called(make_hook: Hook, model: LatentDiffusion) -> Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]:
    """A function that makes the hook and calls it once."""

    def called(x: Tensor, z: Tensor, noise: Tensor, m: Tensor, t_prev: int) -> Tensor:
        made = make_hook(model, z, noise, m)
        if made is None or made is Ellipsis:
            raise NotImplementedError
        if not callable(made):
            raise TypeError("the answer must be a function of x and t_prev, which the loop calls after each step.")
        x = made(x, t_prev)
        if x is None:
            raise ValueError("the hook returns nothing, but the loop goes on with what it returns.")
        return x

    return called


def _draws_anew(yours: Hook, model: LatentDiffusion, *case: object) -> bool:
    """Whether two calls with the same arguments differ."""
    called: Callable[..., Tensor] = _called(yours, model)
    return not torch.equal(called(*case), called(*case))


def _compare_in_loop(yours: Hook, model: LatentDiffusion) -> Verdict:
    """Run the loop with the package's hook and with the learner's, and compare the finished latents."""
    image, mask = _image_and_mask(model)
    z = model.encode(images.to_tensor(image))
    noise = draw_noise(z.shape, torch.Generator("cpu").manual_seed(6)).to(model.device)
    m = images.latent_mask(mask, model.vae.downscale).to(model.device)
    empty, context = model.embed(["", "a dog running"]).chunk(2)
    calls = 0

    def sample(after_step: AfterStep) -> Tensor:
        def counted(x: Tensor, t_prev: int) -> Tensor:
            nonlocal calls
            calls += 1
            return after_step(x, t_prev)

        timesteps = model.schedule.timesteps(STEPS)
        *_, last = denoise(
            model, noise, context, timesteps, negative_context=empty, guidance_scale=4.0, after_step=counted
        )
        return last.x_t

    theirs = sample(known_region_hook(model, z, noise, m))
    calls = 0
    try:
        mine = sample(yours(model, z, noise, m))
    except Exception as error:  # whatever the learner's code raises
        return raised(error, "In the loop it")
    pair = plots.decoded(model, theirs), plots.decoded(model, mine)
    if not torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4):
        return Verdict(WRONG, "The values are right when the hook is called by itself, but not in the loop.", pair)
    return Verdict(RIGHT, f"The loop called your hook {calls} times and generated the same image.", pair)


# ---- which line made which image -------------------------------------------------------------------------------

CULPRITS = {  # letter of the image -> number of the line, and where to look
    "A": (3, "In A the known region is nothing but noise at the end. Which line gives noise the weight of z?"),
    "B": (1, "In B the old body is back and the head is new. Which line keeps the wrong half?"),
    "C": (4, "In C the known region is right, but noise is left on it. Which line never reaches alpha_bar = 1?"),
    "D": (2, "In D nothing of the image is left. Which line never looks at z?"),
}


def shuffled() -> dict[str, int]:
    """The number of the line behind each image."""
    return {letter: line for letter, (line, _) in CULPRITS.items()}


def culprits(yours: Callable[[], dict[str, int]]) -> Verdict:
    """Which broken line made which image."""

    return replace(_culprits(yours), answer=shuffled)


def _culprits(yours: Callable[[], dict[str, int]]) -> Verdict:
    try:
        answer = yours()
    except Exception as error:  # whatever the learner's code raises
        return raised(error)
    if answer is None or answer is Ellipsis or (isinstance(answer, dict) and Ellipsis in answer.values()):
        return not_tried()
    if not isinstance(answer, dict) or set(answer) != set(CULPRITS):
        return Verdict(WRONG, "Return a dict with one line for each of A, B, C and D.")
    numbers = {letter: int(str(line)) if str(line).isdigit() else line for letter, line in answer.items()}
    wrong = [hint for letter, (line, hint) in CULPRITS.items() if numbers[letter] != line]
    if not wrong:
        return Verdict(RIGHT, "All four are found.")
    return Verdict(WRONG, f"{4 - len(wrong)} of 4 are right. {wrong[0]}")


# ---- RePaint ---------------------------------------------------------------------------------------------------

Repaint = Callable[
    [Callable[[Tensor, int], Tensor], Callable[[int], float], list[int], int, Tensor, Tensor, Callable[[], Tensor]],
    Tensor,
]


def repaint(yours: Repaint) -> Verdict:
    """In-painting with rounds (Lugmayr et al. 2022, algorithm 1), tried on a network that knows the answer."""
    return replace(_repaint(yours), answer=_in_rounds)


def _in_rounds(
    predict: Callable[[Tensor, int], Tensor],
    alpha_bar: Callable[[int], float],
    timesteps: list[int],
    rounds: int,
    z: Tensor,
    m: Tensor,
    draw: Callable[[], Tensor],
) -> Tensor:
    x = draw()
    for t, t_prev in zip(timesteps, [*timesteps[1:], -1]):
        for again in range(rounds if t_prev >= 0 else 1):
            if again:
                share = alpha_bar(t) / alpha_bar(t_prev)
                x = share**0.5 * x + (1 - share) ** 0.5 * draw()
            eps = predict(x, t)
            x0_hat = (x - (1 - alpha_bar(t)) ** 0.5 * eps) / alpha_bar(t) ** 0.5
            x = alpha_bar(t_prev) ** 0.5 * x0_hat + (1 - alpha_bar(t_prev)) ** 0.5 * eps
            x = pipelines.keep_known_region(x, z, draw(), m, 1.0 if t_prev == -1 else alpha_bar(t_prev))
    return x


def _repaint(yours: Repaint) -> Verdict:
    schedule, rounds = NoiseSchedule(), 3
    timesteps = [999, 601, 301, 1]  # far apart, so that a wrong level shows
    z, truth = draws(2, (1, 4, 32, 32))
    m = _right_half(z)
    truth = m * truth + (1 - m) * z
    generator = torch.Generator("cpu").manual_seed(0)
    seen: list[tuple[int, list[_Level]]] = []
    drawn = 0

    def draw() -> Tensor:
        nonlocal drawn
        drawn += 1
        return draw_noise(z.shape, generator)

    def predict(x: Tensor, t: int) -> Tensor:
        if x.is_complex() or not x.isfinite().all():
            raise ValueError(f"at t = {t} it took the root of a negative number. Is the ratio upside down?")
        seen.append((t, [_level(x, truth, part) for part in (m, 1 - m)]))
        a = schedule.alpha_bar(t)
        return (x - a**0.5 * truth) / (1 - a) ** 0.5

    try:
        x = yours(predict, schedule.alpha_bar, list(timesteps), rounds, z.clone(), m.clone(), draw)
    except Exception as error:  # whatever the learner's code raises
        return raised(error)
    if x is None or x is Ellipsis:
        return not_tried()
    if not isinstance(x, Tensor) or x.shape != z.shape:
        return Verdict(WRONG, "Return the finished latent, of z's shape.")
    visited = [t for t, _ in seen]
    every = [t for t in timesteps for _ in range(rounds)]
    if visited == timesteps:
        return Verdict(WRONG, f"Each step was taken once, and {rounds} rounds were asked for.")
    if visited == timesteps * rounds:
        return Verdict(WRONG, "The whole loop runs once per round. Go back up by one step, right after each step.")
    if visited not in (every, every[: 1 - rounds]):  # a last step without rounds is fine, too
        asked = ", ".join(map(str, visited[:7]))
        return Verdict(WRONG, f"It predicts at t = {asked}, ... Take each step {rounds} times before the next.")
    for i, (t, levels) in enumerate(seen):
        last = every.index(1) < i  # up from the end, where the known region has no noise: not held against you
        if (
            i > 0
            and not last
            and (hint := _off(levels, t, every[min(i + rounds - i % rounds, len(every) - 1)], schedule))
        ):
            return Verdict(WRONG, f"At t = {t}, round {i % rounds + 1}: {hint}")
    if not torch.allclose(x * (1 - m), z * (1 - m), atol=1e-5):
        return Verdict(WRONG, "At the end the known region is not z. Put z back without noise after the last step.")
    if float(((x - truth) * m).abs().max()) > 0.5:
        return Verdict(WRONG, "The levels are right, but the hole does not end at the network's estimate.")
    if drawn < (len(timesteps) - 1) * (rounds - 1):
        return Verdict(WRONG, "The same noise takes x back up again and again. Call draw() anew each time.")
    return Verdict(RIGHT, f"{len(visited)} predictions for {len(timesteps)} steps, each at the right noise level.")


_Level = tuple[float, float]  # the weights of the clean latent and of the noise


def _level(x: Tensor, truth: Tensor, part: Tensor) -> _Level:
    """The weights of signal and noise in the part of x where `part` is 1."""
    inside = part.expand_as(x) == 1
    x, truth = x[inside], truth[inside]
    signal = float((x * truth).mean() / truth.square().mean())
    return signal, float((x - signal * truth).std())


def _off(levels: list[_Level], t: int, t_prev: int, schedule: NoiseSchedule) -> str | None:
    """What is wrong with the levels in hole and known region before the step at t; None if nothing is."""

    def at(level: _Level, t: int) -> bool:
        a = schedule.alpha_bar(t)
        return abs(level[0] - a**0.5) < 0.08 and abs(level[1] - (1 - a) ** 0.5) < 0.08

    hole, known = levels
    if at(hole, t) and at(known, t):
        return None
    if at(hole, t_prev) and at(known, t_prev):
        return f"x is still at the level of t = {t_prev}. Take it back up to t before the next round."
    if at(hole, t):
        return "the known region has a wrong level. Put it back at that of t_prev, before x goes up as a whole."
    if at(known, t):
        return "the hole has a wrong level. On the way up, noise the whole of x."
    return (
        f"x holds {hole[0]:.2f} z + {hole[1]:.2f} noise. On the way up it needs the weight sqrt(r), and fresh noise "
        "sqrt(1 - r), with r = alpha_bar(t) / alpha_bar(t_prev)."
    )


def _right_half(x: Tensor) -> Tensor:
    """A mask for latents (b, c, h, w): 1 in the right part, (b, 1, h, w)."""
    columns = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)
    return (columns > x.shape[-1] / 2).to(x).repeat(len(x), 1, x.shape[-2], 1)


def _image_and_mask(model: LatentDiffusion) -> tuple[Image.Image, Image.Image]:
    side = model.native_size
    return Scene(animal="dog", colour="brown", place="beach").render(side), region_mask("lower-half", (side, side))
