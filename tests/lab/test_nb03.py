"""Notebook 03: the islands, the definitions of the notebook, the pages of its widget, and the build's check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import noise, relative_error
from lab_helpers import definitions

import ldm_course as ldm
from ldm_course import lab, samplers
from ldm_course.groupnorm import GroupNorm
from ldm_course.lab.nb03_groupnorm import checks, explorer, figures, toy
from ldm_course.schedule import NoiseSchedule


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    return definitions("03_groupnorm", GroupNorm=GroupNorm)


def test_the_islands_are_three_and_of_size_1():
    points, which = toy.islands(301)
    assert points.shape == (301, 2) and which.bincount().tolist() == [101, 100, 100]
    assert points.mean(dim=0).abs().max() < 1e-5 and (points.std(dim=0) - 1).abs().max() < 1e-5
    assert torch.equal(toy.landed(points, points, which), which)
    assert torch.equal(toy.islands(301)[0], points)


def test_the_best_guess_is_the_mean_of_what_x_t_came_from():
    points, generator = noise(5, 2), torch.Generator().manual_seed(0)
    picks = torch.randint(5, (400_000,), generator=generator)
    x_t = 0.5**0.5 * points[picks] + 0.5**0.5 * torch.randn(400_000, 2, generator=generator)
    near = (x_t - torch.tensor([0.3, -0.2])).norm(dim=1) < 0.08
    guess = toy.best_guess(torch.tensor([[0.3, -0.2]]), 0.5, points)
    assert (points[picks[near]].mean(dim=0) - guess).abs().max() < 0.05


@pytest.mark.parametrize("step", [samplers.ddim, samplers.ddpm, samplers.dpmpp_2m])
def test_walks_end_on_the_islands(step):
    points, _ = toy.islands(300)
    schedule, generator = NoiseSchedule(), torch.Generator().manual_seed(0)
    timesteps = schedule.timesteps(30, "trailing")
    states = toy.walk(
        step, noise(40, 2), timesteps, schedule, points, lambda: torch.randn(40, 2, generator=generator)
    )
    assert [state.t for state in states] == [*timesteps, -1]
    assert torch.cdist(states[-1].x_t, points).min(dim=1).values.mean() < 0.06


@pytest.mark.parametrize("levels", [(0.005, 0.01), (0.3, 0.5), (0.9, 1.0)])
def test_the_notebook_s_euler_is_the_package_s(defined, levels):
    x_t, eps = noise(2, 4, 3, 5), noise(2, 4, 3, 5, seed=1)
    x0_hat = (x_t - (1 - levels[0]) ** 0.5 * eps) / levels[0] ** 0.5
    theirs = samplers.euler(samplers.State(0, x_t, eps, x0_hat, levels[0]), levels[1], None, lambda: eps)
    assert relative_error(defined["euler_step"](x_t, eps, *levels), theirs) <= 1e-5


def test_other_groups_change_the_image(defined, model):
    images = []
    for how_many in (lambda groups, channels: groups, lambda groups, channels: 1, lambda groups, channels: channels):
        with lab.plug(GroupNorm=defined["regrouped"](how_many)) as calls:
            images.append(ldm.txt2img(model, "a dog", seed=0, num_inference_steps=4))
        assert calls["GroupNorm"] > 4 * 10
    right = ldm.txt2img(model, "a dog", seed=0, num_inference_steps=4)
    off = [np.abs(np.asarray(image, dtype=int) - np.asarray(right)).max() for image in images]
    assert off[0] <= 1 < min(off[1:])


def test_each_page_of_the_widget_is_another():
    pages = [explorer.page(NoiseSchedule(), name, 5, done) for name in ("ddim", "ddpm") for done in (0, 3, 5)]
    assert len({image.tobytes() for image, _ in pages}) >= 5
    assert all(words.startswith("The end") == (i % 3 == 2) for i, (_, words) in enumerate(pages))


def test_the_widget_follows_its_controls():
    widget = explorer.explorer(NoiseSchedule())
    (sampler, steps), (_, done), image = *(box.children for box in widget.children[:2]), widget.children[3]
    drawings = [image.value]
    for control, value in ((done, 12), (steps, 4), (sampler, "ddpm")):
        control.value = value
        drawings.append(image.value)
    assert len(set(drawings)) == 4 and done.max == done.value == 4


def test_a_dot_of_one_s_own_walks_home_from_where_it_was_put():
    asked = []

    def way(x, y, steps):
        asked.append((x, y, steps))
        return torch.linspace(1, 0, steps + 1).view(-1, 1, 1) * torch.tensor([[[x, y]]])

    widget = explorer.own_dot(way)
    (pad, image), (x, y, steps) = widget.children[0].children, widget.children[1:4]
    drawings = [image.value]
    pad.point = [0.5, -1.0]
    assert (x.value, y.value) == (0.5, -1.0) == asked[-1][:2]
    drawings.append(image.value)
    for control, value in ((y, 1.5), (steps, 3)):
        control.value = value
        drawings.append(image.value)
    assert asked[-1] == (0.5, 1.5, 3) and pad.point == [0.5, 1.5]
    assert len(set(drawings)) >= 3


def test_board_draws_dots_where_they_are():
    image = figures.board(torch.zeros(0, 2), torch.tensor([[-1.5, 1.5]]), "#ff0000", side=120, radius=5)
    place = round((1 - 1.5 / figures.REACH) * 60)
    assert image.getpixel((place, place))[1] < 20 and image.getpixel((120 - place, 120 - place)) == (255, 255, 255)


@pytest.mark.parametrize("solver, times", [(checks.with_ddim, 1), (checks.with_dpmpp_2m, 18)])
def test_the_build_is_measured_against_ddim(solver, times):
    verdict = checks.solver(solver)
    assert (verdict.status == "right") == (times > 1)
    assert f"{times}." in verdict.message or times == 1
