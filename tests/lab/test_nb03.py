"""Notebook 03: its typical wrong answers, what it defines, what it measures and draws. On a tiny model."""

from __future__ import annotations

import ast
import copy
from typing import Any

import matplotlib.figure
import pytest
import torch
import torch.nn.functional as F
from helpers import noise, one_sentence, relative_error
from PIL import Image
from test_notebooks import assert_hint, cells, each_mistake, exercises, judge, python
from torch import nn

import ldm_course as ldm
from ldm_course import lab, samplers
from ldm_course.groupnorm import GroupNorm, group_norm_by_hand
from ldm_course.lab.nb03_groupnorm import figures
from ldm_course.lab.nb03_groupnorm import noise as noise_figures
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import SAMPLERS
from ldm_course.schedule import NoiseSchedule

NAME = "03_groupnorm"

GROUPED = """b, c = x.shape[:2]
    groups = x.reshape(b, num_groups, -1)
    mean = groups.mean(dim=2).repeat_interleave(c // num_groups, dim=1)
    variance = groups.var(dim=2, unbiased=False).repeat_interleave(c // num_groups, dim=1)
    """
ALL = "x.mean(dim=(1, 2, 3))[:, None], x.var(dim=(1, 2, 3), unbiased=False)[:, None]"
EACH = "x.mean(dim=(2, 3)), x.var(dim=(2, 3), unbiased=False)"
ROOT = "scale = weight / (variance + eps).sqrt()\n    "
X0 = "x0_hat = (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5\n    "
ETA = """variance = (1 - alpha_bar_prev) / (1 - alpha_bar_t) * (1 - alpha_bar_t / alpha_bar_prev)
    sigma = eta * variance**0.5
    x0_hat = (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5
    signal = alpha_bar_prev**0.5 * x0_hat
    """
# The body of each wrong answer, and words of the hint that it must get.
WRONG: dict[str, list[tuple[str, str]]] = {
    "scale-and-shift": [
        (GROUPED + ROOT + "return scale, -scale * mean", "bias is left out"),
        (
            GROUPED + "scale = 1 / (variance + eps).sqrt()\n    return scale, bias - scale * mean",
            "weight is left out",
        ),
        (GROUPED + ROOT + "return scale, bias.expand(b, c)", "mean is not taken off"),
        (GROUPED + ROOT + "return scale, bias - mean", "after scaling"),
        (GROUPED + ROOT + "return scale, bias + scale * mean", "wrong sign"),
        (GROUPED + "scale = weight / (variance + eps)\n    return scale, bias - scale * mean", "root is missing"),
        (
            GROUPED + "scale = weight / (variance.sqrt() + eps)\n    return scale, bias - scale * mean",
            "under the root",
        ),
        (GROUPED.replace("unbiased=False", "unbiased=True") + ROOT + "return scale, bias - scale * mean", "m - 1"),
        (f"mean, variance = {EACH}\n    {ROOT}return scale, bias - scale * mean", "InstanceNorm"),
        (f"mean, variance = {ALL}\n    {ROOT}return scale, bias - scale * mean", "num_groups is left out"),
        (
            "b, c, h, w = x.shape\n    groups = x.reshape(b, c // num_groups, num_groups, h, w)\n"
            "    mean = groups.mean(dim=(1, 3, 4)).repeat(1, c // num_groups)\n"
            "    variance = groups.var(dim=(1, 3, 4), unbiased=False).repeat(1, c // num_groups)\n"
            "    scale = weight / (variance + eps).sqrt()\n    return scale, bias - scale * mean",
            "interleaved",
        ),
        (
            "b, c = x.shape[:2]\n    groups = x.transpose(0, 1).reshape(num_groups, -1)\n"
            "    mean = groups.mean(dim=1).repeat_interleave(c // num_groups).expand(b, c)\n"
            "    variance = groups.var(dim=1, unbiased=False).repeat_interleave(c // num_groups).expand(b, c)\n"
            "    scale = weight / (variance + eps).sqrt()\n    return scale, bias - scale * mean",
            "whole batch",
        ),
        ("return weight, bias", "two tensors"),
        (GROUPED + ROOT + "return scale[:, :, None, None], (bias - scale * mean)[:, :, None, None]", "(2, 6, 1, 1)"),
        ("return 1.0, 0.0", "two tensors"),
        ("return F.group_norm(x, num_groups, weight, bias, eps)", "two tensors"),
    ],
    "more-noise": [
        ("return alpha_bar_t**0.5 * x_s + (1 - alpha_bar_t) ** 0.5 * noise", "from a clean latent"),
        (
            "alpha = alpha_bar_t / alpha_bar_s\n"
            "    return alpha**0.5 * x_s + ((1 - alpha_bar_t) ** 0.5 - (1 - alpha_bar_s) ** 0.5) * noise",
            "in their variance",
        ),
        (
            "alpha = alpha_bar_t / alpha_bar_s\n"
            "    return alpha**0.5 * x_s + (alpha_bar_s - alpha_bar_t) ** 0.5 * noise",
            "shrinks with the signal",
        ),
        (
            "alpha = alpha_bar_t / alpha_bar_s\n    return alpha**0.5 * x_s + (1 - alpha_bar_t) ** 0.5 * noise",
            "counted twice",
        ),
        ("alpha = alpha_bar_t / alpha_bar_s\n    return alpha * x_s + (1 - alpha) * noise", "square roots"),
        ("return x_s + (alpha_bar_s - alpha_bar_t) ** 0.5 * noise", "must shrink"),
        (
            "alpha = alpha_bar_t / alpha_bar_s\n    return (1 - alpha) ** 0.5 * x_s + alpha**0.5 * noise",
            "weights are swapped",
        ),
    ],
    "ddpm-mean": [
        ("a = alpha_bar_t / alpha_bar_prev\n    return (x_t - (1 - a) * eps) / a**0.5", "not yet divided"),
        ("a = alpha_bar_t / alpha_bar_prev\n    return x_t - (1 - a) / (1 - alpha_bar_t) ** 0.5 * eps", "must grow"),
        (
            "a = alpha_bar_t / alpha_bar_prev\n    return a**0.5 * (x_t - (1 - a) / (1 - alpha_bar_t) ** 0.5 * eps)",
            "multiplies by sqrt(alpha_t)",
        ),
        (
            "a = alpha_bar_t / alpha_bar_prev\n    return (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / a**0.5",
            "takes all the noise out",
        ),
        ("return (x_t - (1 - alpha_bar_t) ** 0.5 * eps) / alpha_bar_t**0.5", "x0_hat"),
        (
            "a = alpha_bar_t / alpha_bar_prev\n"
            "    return (x_t - (1 - a) / (1 - alpha_bar_prev) ** 0.5 * eps) / a**0.5",
            "the level that x_t is at",
        ),
        (
            "a = alpha_bar_t / alpha_bar_prev\n    return (x_t + (1 - a) / (1 - alpha_bar_t) ** 0.5 * eps) / a**0.5",
            "sign",
        ),
        (X0 + "return alpha_bar_prev**0.5 * x0_hat + (1 - alpha_bar_prev) ** 0.5 * eps", "DDIM's step"),
    ],
    "eta": [
        (ETA + "return signal + (1 - alpha_bar_prev) ** 0.5 * eps + sigma * noise", "Too much noise"),
        (ETA + "return signal + ((1 - alpha_bar_prev) ** 0.5 - sigma) * eps + sigma * noise", "Variances add up"),
        (ETA + "return signal + (1 - alpha_bar_prev - sigma**2) ** 0.5 * eps + sigma**2 * noise", "weight is sigma"),
        (ETA + "return signal + (1 - alpha_bar_prev - sigma**2) ** 0.5 * eps", "fresh noise is missing"),
        (X0 + "return alpha_bar_prev**0.5 * x0_hat + (1 - alpha_bar_prev) ** 0.5 * eps", "DDIM whatever eta"),
        (
            ETA.replace("eta *", "1.0 *")
            + "return signal + (1 - alpha_bar_prev - sigma**2) ** 0.5 * eps + sigma * noise",
            "DDPM whatever eta",
        ),
        (
            ETA.replace("(1 - alpha_bar_prev) / (1 - alpha_bar_t) * ", "")
            + "return signal + max(0, 1 - alpha_bar_prev - sigma**2) ** 0.5 * eps + sigma * noise",
            "*posterior's*",
        ),
    ],
}


@each_mistake(WRONG)
def test_a_typical_mistake_gets_a_hint_that_names_it(title, body, hint, model):
    assert_hint(NAME, title, body, hint, model)


@pytest.mark.parametrize("title", ["scale-and-shift", "ddpm-mean", "eta"])
def test_the_solution_runs_in_the_real_pipeline(title, model):
    verdict = judge(*exercises(NAME)[title], model)
    assert "generated the same image" in verdict.message, verdict


# ---- what the notebook defines ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    """The functions and classes that the notebook defines, each once."""
    namespace: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "ldm": ldm, "lab": lab}
    seen: set[str] = set()
    for cell in cells(NAME, "code"):
        for statement in ast.parse(python(cell)).body:
            if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
                assert statement.name not in seen, f"{statement.name} is defined twice"
                seen.add(statement.name)
                exec(compile(ast.Module([statement], []), NAME, "exec"), namespace)
    return namespace


@pytest.mark.parametrize("b, c, h, w, groups", [(1, 4, 5, 7, 1), (3, 12, 8, 8, 3), (2, 6, 5, 5, 6)])
def test_group_norm_is_the_package_s(defined, b, c, h, w, groups):
    arguments = (3 * noise(b, c, h, w) + 5, groups, 1 + 0.3 * noise(c, seed=1), noise(c, seed=2), 1e-5)
    assert relative_error(defined["group_norm"](*arguments), group_norm_by_hand(*arguments)) <= 1e-5


def test_the_learner_s_module_stands_in_for_the_package_s(defined, model):
    before = ldm.txt2img(model, "a dog", seed=0, num_inference_steps=4)
    with lab.plug(GroupNorm=defined["OwnGroupNorm"]) as calls:
        after = ldm.txt2img(model, "a dog", seed=0, num_inference_steps=4)
    assert calls["GroupNorm"] > 4 * 10
    assert abs(ldm.images.to_tensor(after) - ldm.images.to_tensor(before)).max() <= 2 / 255 + 1e-6


@pytest.mark.parametrize("name", ["OneGroup", "EachAlone"])
def test_the_broken_modules_change_the_image(defined, name, model):
    before = ldm.txt2img(model, "a dog", seed=0, num_inference_steps=4)
    with lab.plug(GroupNorm=defined[name]):
        after = ldm.txt2img(model, "a dog", seed=0, num_inference_steps=4)
    assert abs(ldm.images.to_tensor(after) - ldm.images.to_tensor(before)).max() > 4 / 255


LEVELS = [(0.005, 0.01), (0.3, 0.5), (0.9, 0.999), (0.99, 1.0)]


def state(x_t: torch.Tensor, eps: torch.Tensor, alpha_bar: float) -> samplers.State:
    x0_hat = (x_t - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5
    return samplers.State(0, x_t, eps, x0_hat, alpha_bar)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("name", ["ddim", "euler", "ddpm", "dpmpp_2m"])
def test_the_four_steps_are_the_package_s(defined, name, levels):
    x_t, eps, fresh = (noise(2, 4, 3, 5, seed=seed) for seed in range(3))
    mine, theirs = defined[f"{name}_step"], getattr(samplers, name)
    now, extra = state(x_t, eps, levels[0]), (fresh,) if name == "ddpm" else ()
    expected = theirs(now, levels[1], None, lambda: fresh)
    assert relative_error(mine(x_t, eps, *levels, *extra), expected) <= 1e-5
    if name == "dpmpp_2m":
        before = state(x_t, fresh, levels[0] / 2)
        expected = theirs(now, levels[1], before, lambda: fresh)
        assert relative_error(mine(x_t, eps, *levels, before.x0_hat, before.alpha_bar), expected) <= 1e-5


def test_add_noise_and_x0_are_the_package_s(defined):
    schedule, x0, eps = NoiseSchedule(), noise(2, 4, 3, 5), noise(2, 4, 3, 5, seed=1)
    for t in (0, 500, 999):
        a = schedule.alpha_bar(t)
        x_t = defined["add_noise"](x0, eps, a)
        assert relative_error(x_t, schedule.add_noise(x0, eps, t)) <= 1e-6
        assert relative_error(defined["guess_x0"](x_t, eps, a), schedule.x0_and_eps(eps, x_t, t)[0]) <= 1e-5


def test_the_posterior_is_what_ddpm_draws_from(defined):
    x_t, eps, fresh = noise(2, 4, seed=1), noise(2, 4, seed=2), noise(2, 4, seed=3)
    for now, prev in LEVELS:
        x0_hat = defined["guess_x0"](x_t, eps, now)
        mean, variance = defined["posterior"](x0_hat, x_t, now, prev)
        theirs = samplers.ddpm(state(x_t, eps, now), prev, None, lambda: fresh)
        assert relative_error(mean + variance**0.5 * fresh, theirs) <= 1e-5


# ---- measuring -------------------------------------------------------------------------------------------------


def test_inputs_of_returns_the_inputs_of_norms(model):
    norms = {n: m for n, m in model.unet.named_modules() if isinstance(m, GroupNorm)}
    context = ldm.encode_prompt(model, ["a dog", "a cat"])
    given = figures.inputs_of(norms, lambda: model.unet(noise(2, 4, 8, 8), 500, context))
    assert set(given) == set(norms)
    assert all(x.shape[:2] == (2, len(norms[name].weight)) for name, x in given.items())
    assert not any(m._forward_pre_hooks for m in norms.values())
    with pytest.raises(ZeroDivisionError):
        figures.inputs_of(norms, lambda: 1 / 0)
    assert not any(m._forward_pre_hooks for m in norms.values())


def test_neighbours_correlate_where_they_were_made_to():
    independent = noise(400, 3, 9, 9)
    smooth = F.avg_pool2d(noise(400, 3, 11, 11, seed=1), 3, stride=1)
    assert figures.by_distance(independent).abs().max() < 0.05
    near, far = figures.by_distance(smooth)[:, 0], figures.by_distance(smooth)[:, 3:]
    assert (near > 0.5).all() and far.abs().max() < 0.06
    assert figures.by_distance(smooth + 5 * noise(1, 3, 9, 9)).sub(figures.by_distance(smooth)).abs().max() < 1e-4


def test_groups_stand_out_where_they_were_made_to():
    shared = noise(64, 4, 1, 6, 6) + 0.7 * noise(64, 4, 3, 6, 6, seed=1)
    real, chance = figures.inside_minus_across(shared.flatten(1, 2), 4)
    assert real > 0.5 and real > chance.quantile(0.99)
    real, chance = figures.inside_minus_across(noise(64, 12, 6, 6), 4)
    assert abs(real) < 0.02 and chance.quantile(0.005) < real < chance.quantile(0.995)


def test_bad_measurements_are_refused():
    with one_sentence("12 channels", "12 groups"):
        figures.inside_minus_across(noise(2, 12, 3, 3), 12)
    with one_sentence("12 channels", "5 groups"):
        figures.inside_minus_across(noise(2, 12, 3, 3), 5)
    with one_sentence("two images", "1 of 3 x 3"):
        figures.by_distance(noise(1, 12, 3, 3))


def test_possible_groups():
    assert figures.possible_groups(12) == [1, 2, 3, 4, 6, 12]


# ---- drawing ---------------------------------------------------------------------------------------------------


def drawn(figure: matplotlib.figure.Figure) -> bytes:
    assert isinstance(figure, matplotlib.figure.Figure)
    return lab.plots.png(figure)


def test_the_groups_slider_shows_other_features_for_other_groups():
    x = noise(12, 4, 4) + 2 * noise(12, 1, 1, seed=1)
    numbers = figures.possible_groups(12)
    pages = [figures.group_page(x, groups) for groups in numbers]
    widget = lab.widgets.flipbook(pages, list(map(str, numbers)), "groups")
    slider, picture = widget.children
    seen = {picture.value}
    for label in map(str, numbers[1:]):
        slider.label = label
        seen.add(picture.value)
    assert len(seen) == len(numbers)
    assert len(figures.group_sheet(x, [1, 12]).axes) == 4


def test_figures_of_norms_are_drawn():
    changed = torch.zeros(4, 12, 6, 6, dtype=torch.bool)
    changed[1, 4:8] = True
    drawn(figures.reach({"GroupNorm": changed, "BatchNorm": changed}))
    drawn(figures.batch_errors([1, 4], torch.rand(2, 9) + 0.1))
    drawn(figures.distances({"large": noise(5, 15), "small": noise(5, 7)}))
    drawn(figures.orders({"one": (0.0, noise(50)), "two": (9.0, noise(50))}))


def test_figures_of_noise_are_drawn(model: LatentDiffusion):
    drawn(noise_figures.posterior(noise(1000), (0.0, 1.0), (0.2, 0.8)))
    context = ldm.encode_prompt(model, ["a dog"])
    states = [list(ldm.denoise(model, noise(1, 4, 8, 8), context, model.schedule.timesteps(n))) for n in (5, 2)]
    drawn(noise_figures.paths(*states, cells=[0, 9]))
    values = {name: torch.rand(3, 6) + 0.1 for name in SAMPLERS}
    drawn(noise_figures.quality([2, 4, 8], values, values))


def test_the_timestep_slider_goes_from_the_scene_to_noise(model: LatentDiffusion):
    x0, eps = noise(1, 4, 8, 8), noise(1, 4, 8, 8, seed=1)
    pages = [noise_figures.timestep_page(model, x0, eps, t) for t in (0, 500, 999)]
    slider, picture = lab.widgets.flipbook(pages, ["t = 0", "t = 500", "t = 999"], "timestep").children
    before = picture.value
    slider.label = "t = 999"
    assert picture.value != before
    sheet = noise_figures.timestep_sheet(model, x0, eps, [0, 500, 999])
    assert sheet.height > pages[0].height
    bars = [noise_figures.weights(model.schedule, t) for t in (0, 999)]
    assert bars[0].tobytes() != bars[1].tobytes() and abs(bars[0].width - bars[0].height) <= 1


def test_the_strength_page_shows_three_images():
    picture = Image.new("RGB", (64, 64), "red")
    page = noise_figures.strength_page(picture, picture, picture, 0.4)
    assert page.width > 3 * page.height / 2


def test_the_notebook_leaves_the_model_as_it_was(model):
    before = copy.deepcopy(model.unet.state_dict())
    judge(*exercises(NAME)["scale-and-shift"], model)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.unet.state_dict().values()))
