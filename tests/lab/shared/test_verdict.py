"""The checks of exercises: right, wrong with a hint, not tried."""

from __future__ import annotations

import pytest
import torch

from ldm_course import samplers
from ldm_course.lab.shared import verdict
from ldm_course.lab.shared.verdict import NOT_TRIED, RIGHT, WRONG

CASES = [(torch.ones(2, 3), 2.0), (torch.arange(3.0), 0.5)]
MISTAKES = [(lambda x, s: x + s, "You added."), (lambda x, s: x - s, "You subtracted.")]


def check(yours) -> verdict.Verdict:
    return verdict.compare(yours, lambda x, s: x * s, CASES, MISTAKES)


def raise_not_implemented(x, s):
    raise NotImplementedError


@pytest.mark.parametrize("yours", [lambda x, s: None, lambda x, s: ..., raise_not_implemented])
def test_not_tried_is_no_error(yours):
    assert check(yours).status == NOT_TRIED and repr(check(yours)).startswith("… Not tried yet.")


@pytest.mark.parametrize("yours", [lambda x, s: s * x, lambda x, s: (s * x).numpy(), lambda x, s: (s * x).tolist()])
def test_a_right_answer_passes_in_any_form(yours):
    assert check(yours).status == RIGHT and repr(check(yours)).startswith("✓ Right.")


@pytest.mark.parametrize(
    "yours, hint",
    [
        (lambda x, s: x + s, "You added."),
        (lambda x, s: x - s, "You subtracted."),
        (lambda x, s: x.undefined, "AttributeError"),
        (lambda x: x, "TypeError"),
        (lambda x, s: x.mul_(s), "in place"),
        (lambda x, s: "six", "str"),
        (lambda x, s: x[:1] * s, "shape (1, 3) where (2, 3)"),
        (lambda x, s: x * s * float("nan"), "off by up to nan"),
        (lambda x, s: x * s * 1.5, "off by up to 1"),
    ],
)
def test_a_wrong_answer_gets_a_hint(yours, hint):
    found = check(yours)
    assert found.status == WRONG and hint in repr(found) and repr(found).startswith("✗ Not yet.")


def test_a_function_must_hold_in_the_pipeline_too(model):
    right = samplers.ddim
    assert verdict.plugged(model, ddim=right).status == RIGHT
    off = verdict.plugged(model, ddim=lambda *arguments: 0.9 * right(*arguments))
    assert off.status == WRONG and "another image" in off.message and len(off.images) == 2
    broken = verdict.plugged(model, ddim=lambda x: x)
    assert broken.status == WRONG and "TypeError" in broken.message
    unused = verdict.plugged(model, euler=samplers.euler)
    assert unused.status == WRONG and "called" in unused.message
