"""Notebook 03: its definitions, what it measures of features, and the pages of its widgets. On a tiny model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import noise, one_sentence, pixel_difference, relative_error
from lab_helpers import definitions

import ldm_course as ldm
from ldm_course import lab, samplers
from ldm_course.groupnorm import GroupNorm, group_norm_by_hand
from ldm_course.lab.nb03_groupnorm import figures
from ldm_course.lab.nb03_groupnorm import noise as noise_figures
from ldm_course.schedule import NoiseSchedule

LEVELS = [(0.005, 0.01), (0.3, 0.5), (0.9, 0.999), (0.99, 1.0)]


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    return definitions("03_groupnorm")


# ---- what the notebook defines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("b, c, h, w, groups", [(1, 4, 5, 7, 1), (3, 12, 8, 8, 3), (2, 6, 5, 5, 6)])
def test_group_norm_is_the_package_s(defined, b, c, h, w, groups):
    arguments = (3 * noise(b, c, h, w) + 5, groups, 1 + 0.3 * noise(c, seed=1), noise(c, seed=2), 1e-5)
    assert relative_error(defined["group_norm"](*arguments), group_norm_by_hand(*arguments)) <= 1e-5


@pytest.mark.parametrize("name, same", [("OwnGroupNorm", True), ("OneGroup", False), ("EachAlone", False)])
def test_its_right_module_keeps_the_image_and_its_broken_ones_change_it(defined, name, same, model):
    before = ldm.txt2img(model, "a dog", seed=0, num_inference_steps=4)
    with lab.plug(GroupNorm=defined[name]) as calls:
        after = ldm.txt2img(model, "a dog", seed=0, num_inference_steps=4)
    assert calls["GroupNorm"] > 4 * 10
    assert pixel_difference(after, before) <= 1 if same else pixel_difference(after, before) > 2


def state(x_t: torch.Tensor, eps: torch.Tensor, alpha_bar: float) -> samplers.State:
    x0_hat = (x_t - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5
    return samplers.State(0, x_t, eps, x0_hat, alpha_bar)


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("name", ["ddim", "euler", "ddpm", "dpmpp_2m"])
def test_the_four_steps_are_the_package_s(defined, name, levels):
    x_t, eps, fresh = (noise(2, 4, 3, 5, seed=seed) for seed in range(3))
    mine, theirs = defined[f"{name}_step"], getattr(samplers, name)
    now, before, extra = state(x_t, eps, levels[0]), state(x_t, fresh, levels[0] / 2), [()]
    if name == "ddpm":
        extra = [(fresh,)]
    elif name == "dpmpp_2m":
        extra = [(), (before.x0_hat, before.alpha_bar)]
    for arguments, earlier in zip(extra, (None, before)):
        expected = theirs(now, levels[1], earlier, lambda: fresh)
        assert relative_error(mine(x_t, eps, *levels, *arguments), expected) <= 1e-5


def test_add_noise_and_x0_are_the_package_s(defined):
    schedule, x0, eps = NoiseSchedule(), noise(2, 4, 3, 5), noise(2, 4, 3, 5, seed=1)
    for t in (0, 500, 999):
        a = schedule.alpha_bar(t)
        x_t = defined["add_noise"](x0, eps, a)
        assert relative_error(x_t, schedule.add_noise(x0, eps, t)) <= 1e-6
        assert relative_error(defined["guess_x0"](x_t, eps, a), schedule.x0_and_eps(eps, x_t, t)[0]) <= 1e-5


@pytest.mark.parametrize("now, prev", LEVELS)
def test_the_posterior_is_what_ddpm_draws_from(defined, now, prev):
    x_t, eps, fresh = noise(2, 4, seed=1), noise(2, 4, seed=2), noise(2, 4, seed=3)
    mean, variance = defined["posterior"](defined["guess_x0"](x_t, eps, now), x_t, now, prev)
    theirs = samplers.ddpm(state(x_t, eps, now), prev, None, lambda: fresh)
    assert relative_error(mean + variance**0.5 * fresh, theirs) <= 1e-5


# ---- what it measures ------------------------------------------------------------------------------------------


def test_inputs_of_returns_the_inputs_of_norms(model):
    norms = {n: m for n, m in model.unet.named_modules() if isinstance(m, GroupNorm)}
    context = model.embed(["a dog", "a cat"])
    given = figures.inputs_of(norms, lambda: model.unet(noise(2, 4, 8, 8), 500, context))
    assert set(given) == set(norms)
    assert all(x.shape[:2] == (2, len(norms[name].weight)) for name, x in given.items())
    with pytest.raises(ZeroDivisionError):
        figures.inputs_of(norms, lambda: 1 / 0)
    assert not any(m._forward_pre_hooks for m in norms.values())


def test_neighbours_correlate_where_they_were_made_to():
    smooth = F.avg_pool2d(noise(400, 3, 11, 11, seed=1), 3, stride=1)
    near, far = figures.by_distance(smooth)[:, 0], figures.by_distance(smooth)[:, 3:]
    assert (near > 0.5).all() and far.abs().max() < 0.06
    assert figures.by_distance(noise(400, 3, 9, 9)).abs().max() < 0.05
    assert figures.by_distance(smooth + 5 * noise(1, 3, 9, 9)).sub(figures.by_distance(smooth)).abs().max() < 1e-4
    with one_sentence("two images", "1 of 3 x 3"):
        figures.by_distance(noise(1, 12, 3, 3))


def test_groups_stand_out_where_they_were_made_to():
    shared = noise(64, 4, 1, 6, 6) + 0.7 * noise(64, 4, 3, 6, 6, seed=1)
    real, chance = figures.inside_minus_across(shared.flatten(1, 2), 4)
    assert real > 0.5 and real > chance.quantile(0.99)
    real, chance = figures.inside_minus_across(noise(64, 12, 6, 6), 4)
    assert abs(real) < 0.02 and chance.quantile(0.005) < real < chance.quantile(0.995)
    for groups in (5, 12):
        with one_sentence("12 channels", f"{groups} groups"):
            figures.inside_minus_across(noise(2, 12, 3, 3), groups)


def test_each_page_of_its_widgets_is_another(model):
    x, x0, eps = noise(12, 4, 4) + 2 * noise(12, 1, 1, seed=1), noise(1, 4, 8, 8), noise(1, 4, 8, 8, seed=1)
    assert figures.possible_groups(12) == [1, 2, 3, 4, 6, 12]
    pages = [figures.group_page(x, groups) for groups in (1, 3, 12)]
    assert len({lab.plots.png(page) for page in pages}) == 3
    pages = [noise_figures.timestep_page(model, x0, eps, t) for t in (0, 500, 999)]
    assert len({page.tobytes() for page in pages}) == 3
