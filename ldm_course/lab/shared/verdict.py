"""How an exercise is checked: against the right answer, and against the mistakes that people make."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from IPython.display import display
from PIL import Image, ImageChops
from torch import Tensor

from ldm_course.lab.shared import plots
from ldm_course.lab.shared.plugs import plug
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import txt2img

RIGHT, WRONG, NOT_TRIED = "right", "wrong", "not tried"
MARKS = {RIGHT: "✓ Right.", WRONG: "✗ Not yet.", NOT_TRIED: "… Not tried yet."}
STEPS = 4  # of the image that a plugged part is tried on


@dataclass(frozen=True)
class Verdict:
    """What a check found: `status` is "right", "wrong" or "not tried"; `message` says why, or gives a hint.

    answer: what is right, a function or a class to go on with while the learner's is not; None where there is no
        single answer.
    """

    status: str
    message: str
    images: tuple[Image.Image, ...] = ()  # the package's, and the one with the learner's part
    answer: Callable | None = field(default=None, repr=False, compare=False)

    def then(self, check: Callable[[], Verdict]) -> Verdict:
        """The verdict of a further check if this one is right, and this verdict if not."""
        return replace(check(), answer=self.answer) if self.status == RIGHT else self

    def __repr__(self) -> str:
        return f"{MARKS[self.status]} {self.message}"

    def _ipython_display_(self) -> None:
        display({"text/plain": repr(self)}, raw=True)
        if self.images:
            figure = plots.grid([[*self.images, _difference_image(*self.images)]], ["package", "yours", "difference"])
            plots.show(figure, "By the package; with your part; and where the two differ (black: nowhere).")


@dataclass(frozen=True)
class Bug:
    """A bug to be named from its images. number: in the notebook's list; hint: what in the images gives it away."""

    number: int
    hint: str


def _difference_image(one: Image.Image, other: Image.Image) -> Image.Image:
    """Where two images differ: black where they do not, and four times as bright as the difference elsewhere."""
    return ImageChops.difference(one, other).point(lambda value: min(255, 4 * value))


def draws(count: int, shape: tuple[int, ...] = (2, 4, 3, 5), seed: int = 3) -> tuple[Tensor, ...]:
    """`count` tensors from N(0, 1), the same at every call, to try a learner's part on."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu") for _ in range(count))


def compare(
    yours: Callable, right: Callable, cases: Sequence[tuple], mistakes: Sequence[tuple[Callable, str]]
) -> Verdict:
    """Run both on the cases. An answer that equals a known mistake's in all of them gets that mistake's hint."""
    return replace(_compared(yours, right, cases, mistakes), answer=right)


def _compared(
    yours: Callable, right: Callable, cases: Sequence[tuple], mistakes: Sequence[tuple[Callable, str]]
) -> Verdict:
    answers = []
    for case in cases:
        given = copy.deepcopy(case)
        try:
            answer = yours(*given)
        except Exception as error:  # whatever the learner's code raises
            return raised(error)
        if answer is None or answer is Ellipsis:
            return not_tried()
        if not all(_same(now, before) for now, before in zip(given, case)):
            return Verdict(WRONG, "It changes its arguments in place; make new values: x = x + 1, not x += 1.")
        if _tensor(answer) is None:
            return Verdict(WRONG, f"It returned a {type(answer).__name__}, which holds no numbers to compare.")
        answers.append(answer)

    def agree(other: Callable) -> bool:
        return all(_same(answer, other(*case)) for answer, case in zip(answers, cases))

    if agree(right):
        return Verdict(RIGHT, "It gives the package's values.")
    for mistake, hint in mistakes:
        if agree(mistake):
            return Verdict(WRONG, hint)
    return Verdict(WRONG, _difference(answers, [right(*case) for case in cases]))


def plugged(model: LatentDiffusion, generate: Callable[[], Image.Image] | None = None, **parts: Any) -> Verdict:
    """Generate an image with the parts in the real pipeline: each must be called, and the image must stay the same.

    Args:
        generate: makes the image; None is "a dog with glasses" in a few steps.
        parts: as for `plug`.
    """
    names = ", ".join(parts)
    generate = generate or functools.partial(txt2img, model, "a dog with glasses", seed=0, num_inference_steps=STEPS)
    before = generate()
    try:
        with plug(**parts) as calls:
            after = generate()
    except Exception as error:
        return raised(error, "In the pipeline it")
    difference = int(abs(np.asarray(after, dtype=int) - np.asarray(before, dtype=int)).max())
    if difference > (1 if model.dtype == torch.float32 else 16):  # in half, rounding grows from step to step
        message = f"With your {names} the pipeline generates another image, {difference}/255 off."
        return Verdict(WRONG, message, (before, after))
    count = sum(calls.values())
    times = "once" if count == 1 else f"{count} times"
    message = f"The pipeline called your {names} {times} and generated the same image."
    return Verdict(RIGHT, message, (before, after))


def not_tried() -> Verdict:
    return Verdict(NOT_TRIED, "Replace the dots by your code and run the cell again.")


def raised(error: Exception, what: str = "It") -> Verdict:
    """The verdict on code that raised: dots that are still in it are no error."""
    if isinstance(error, NotImplementedError) or "ellipsis" in str(error).lower():
        return not_tried()
    return Verdict(WRONG, f"{what} raised {type(error).__name__}: {error}")


def _tensor(value: Any) -> Tensor | None:
    """Numbers of any form as one tensor, float64; None if they are none."""
    try:
        value = list(value) if isinstance(value, range) else value
        return torch.as_tensor(value).detach().cpu().double()
    except (TypeError, ValueError, RuntimeError):
        return None


def _same(one: Any, other: Any) -> bool:
    a, b = _tensor(one), _tensor(other)
    if a is None or b is None:
        return one is other or bool(one == other)
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def _difference(answers: Sequence[Any], expected: Sequence[Any]) -> str:
    for answer, wanted in zip(map(_tensor, answers), map(_tensor, expected)):
        assert answer is not None and wanted is not None
        if answer.shape != wanted.shape:
            return f"Your answer has shape {tuple(answer.shape)} where {tuple(wanted.shape)} is right."
        off = (answer - wanted).abs().max().item()
        if not off <= 1e-5:  # NaN, too
            return f"The shape is right, but values are off by up to {off:.3g}."
    return "The values are almost right, but not quite."


def stacked(function: Callable[..., Any]) -> Callable[..., Tensor | None]:
    """The function with its two answers as one tensor, for `compare`; None if one of them is still dots."""

    def both(*args: Any) -> Tensor | None:
        answer = function(*args)
        if answer is None or answer is Ellipsis:
            return None
        if not isinstance(answer, (tuple, list)) or len(answer) != 2:
            raise ValueError("return two tensors, x0_hat and eps")
        if any(part is Ellipsis or part is None for part in answer):
            return None
        return torch.stack(list(answer))

    return both
