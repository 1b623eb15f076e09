"""The notebook on flows: its drawings, its network, its walks, its widget, and what it says of the package."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from helpers import noise, one_sentence
from lab_helpers import definitions, exercises, judge, solution
from PIL import Image, ImageChops

from ldm_course.lab import beyond_flow as nb
from ldm_course.lab.beyond_flow import checks, figures, toy
from ldm_course.schedule import NoiseSchedule

NAME = "flow"


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    return definitions(NAME)


@pytest.fixture(scope="module")
def flow() -> toy.Velocity:
    """A small flow from noise to three dots, trained for two seconds."""
    x0 = toy.points(toy.drawing("three dots"))
    return toy.fit(lambda n: (x0[torch.randint(len(x0), (n,))], torch.randn(n, 2)), 400, 256)


# Drawings


@pytest.mark.parametrize("name", toy.SHAPES)
def test_points_lie_on_the_drawing_and_have_size_1(name):
    drawing = toy.drawing(name)
    assert drawing.mode == "L" and drawing.size == (toy.SIDE, toy.SIDE)
    x = toy.points(drawing, 3000)
    assert x.shape == (3000, 2) and x.mean(dim=0).abs().max() < 1e-5
    assert x.square().mean().item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(x, toy.points(drawing, 3000)) and not torch.equal(x, toy.points(drawing, 3000, seed=1))
    assert x.abs().max() < figures.REACH, "all of it is drawn"


def test_an_empty_drawing_and_an_unknown_one_are_refused():
    with one_sentence("paint something"):
        toy.points(Image.new("L", (128, 128)))
    with one_sentence("'dog'", "'cat'"):
        toy.drawing("dog")


def test_points_keep_the_way_up():
    """A dot in the upper right corner of the drawing is at positive x and y, measured from the rest."""
    drawing = Image.new("L", (128, 128))
    drawing.paste(255, (0, 118, 10, 128))
    drawing.paste(255, (118, 0, 128, 10))
    x = toy.points(drawing, 400)
    assert ((x[:, 0] > 0) == (x[:, 1] > 0)).all()


# Flows


def test_a_flow_learns_the_mean_velocity():
    """For data in one point the velocity is known: (x - x0) / s."""
    x0 = torch.tensor([[0.5, -1.0]])
    u = toy.fit(lambda n: (x0.expand(n, 2), torch.randn(n, 2)), 400, 256)
    s = torch.full((200, 1), 0.7)
    x = 0.3 * x0 + 0.7 * noise(200, 2)
    assert (u(x, s) - (x - x0) / s).abs().mean() < 0.15
    assert torch.equal(u(x, s), u(x, 0.7)), "one number is a time for all"


def test_a_trained_flow_carries_noise_to_the_drawing(flow):
    there = toy.points(toy.drawing("three dots"), 1500, seed=1)
    path = toy.walk(flow, noise(1500, 2), 40)
    assert path.shape == (41, 1500, 2) and torch.equal(path[0], noise(1500, 2))
    assert abs(toy.energy_distance(path[-1], there)) < 0.01 < toy.energy_distance(path[0], there)


def test_the_notebook_s_walks(defined, flow):
    """Euler's is the package's, Heun's is closer to a fine walk, and the SDE's crowd is the ODE's."""
    x = noise(1000, 2)
    fine = toy.walk(flow, x, 400)[-1]
    euler = defined["walk"](flow, x, 16)
    assert torch.allclose(euler, toy.walk(flow, x, 16), atol=1e-5)
    heun = defined["walk"](flow, x, 8, checks.heun)[-1]
    assert (heun - fine).norm(dim=1).mean() < (euler[-1] - fine).norm(dim=1).mean()
    by_dice = defined["sde_walk"](flow, x, 100, torch.Generator().manual_seed(0))[-1]
    assert toy.energy_distance(by_dice, fine) < 0.01
    assert (by_dice - fine).norm(dim=1).mean() > 0.5, "but each dot goes elsewhere"


def test_energy_distance_is_0_only_for_one_distribution():
    apart = [toy.energy_distance(noise(800, 2, seed=i), noise(800, 2, seed=i + 50)) for i in range(10)]
    assert abs(sum(apart) / 10) < 0.003
    assert toy.energy_distance(noise(800, 2), noise(800, 2, seed=1) + 0.5) > 0.05


def test_straightness():
    line = torch.linspace(0, 1, 11)[:, None, None] * noise(5, 2)
    assert toy.straightness(line) == pytest.approx(1)
    corner = torch.tensor([[[0.0, 0.0]], [[3.0, 0.0]], [[3.0, 4.0]]])
    assert toy.straightness(corner) == pytest.approx(5 / 7)


# The five readings, and the package


def test_each_name_gives_x0(defined):
    schedule, x0, eps = NoiseSchedule(), noise(1, 4, 2, 2).double(), noise(1, 4, 2, 2, seed=1).double()
    namespace = defined | {"from_velocity": checks.read_velocity}
    defined["to_x0"].__globals__.update(namespace)
    for t in (0, 500, 999):
        a, b = schedule.alpha_bar(t) ** 0.5, (1 - schedule.alpha_bar(t)) ** 0.5
        said = {"eps": eps, "x0": x0, "v": a * eps - b * x0, "score": -eps / b, "velocity": eps - x0}
        for name, prediction in said.items():
            got = defined["to_x0"](name, prediction, a * x0 + b * eps, schedule.alpha_bar(t))
            assert torch.allclose(got, x0), name


@pytest.mark.parametrize("n", [1, 2, 5, 20, 50])
def test_even_times_are_the_package_s(n):
    schedule = NoiseSchedule()
    wanted = torch.linspace(schedule.flow_times[-1].item(), 0, n + 1, dtype=torch.float64)[:-1]
    times = solution(NAME, "even-times")(n, schedule.alpha_bars)
    assert times == schedule.timesteps_at(wanted).tolist() and times[0] == 999
    assert all(t > t_next for t, t_next in pairwise(times)), "the loop wants them from high to low"


def test_the_step_is_called_by_the_real_pipeline(model):
    verdict = judge(NAME, "flow-step", exercises(NAME)["flow-step"][1], model)
    assert "called your ddim 4 times" in verdict.message and verdict.images, verdict


def test_shift_slides_the_log_snr():
    for s in (0.1, 0.5, 0.9):
        after = checks.moved(s, 3.0)
        assert after / (1 - after) == pytest.approx(3 * s / (1 - s))


# The widget and the figures


def test_the_easel_gives_what_is_on_it():
    easel = nb.easel.Easel()
    cat = easel.points(500)
    easel.choice.value = "heart"
    assert easel.choice.value == "heart" and not torch.equal(easel.points(500), cat)
    painted = Image.new("L", (toy.SIDE, toy.SIDE))
    painted.paste(255, (20, 20, 60, 50))
    easel.painter.mask_image = painted
    assert easel.choice.value == nb.easel.OWN and easel.drawing.getbbox() == (20, 20, 60, 50)
    easel.choice.value = "cat"
    assert torch.equal(easel.points(500), cat)
    shown = easel.dots.value
    easel.choice.value = nb.easel.OWN  # chosen, not painted: an empty sheet
    assert easel.drawing.getbbox() is None and easel.dots.value != shown


def test_a_dot_walks_under_each_flow_from_where_it_was_put():
    """The image follows the pad, both sliders of the place, the number of steps, and the solver."""
    asked = []

    def walk(u, x, n, step):
        asked.append((x[0].tolist(), n, step))
        return torch.stack([torch.lerp(x, u(x, 0.0), i / n) for i in range(n + 1)])

    flows = {"first": lambda x, s: 0 * x, "second": lambda x, s: -x.flip(1)}
    widget = nb.dot.own_dot(walk, flows, {"Euler": len, "Heun": max}, noise(50, 2))
    (pad, image), (solver, n), x, y, note = *(box.children for box in widget.children[:2]), *widget.children[2:]
    drawings = [image.value]
    pad.point = [0.5, -1.0]
    assert (x.value, y.value) == (0.5, -1.0) and asked[-1] == ([0.5, -1.0], nb.dot.FINE, len)
    drawings.append(image.value)
    y.value = 1.5
    drawings.append(image.value)
    n.value = 3
    drawings.append(image.value)
    assert pad.point == [0.5, 1.5] and asked[-2] == ([0.5, 1.5], 3, len) and len(set(drawings)) == 4
    solver.value = "Heun"
    assert asked[-2] == ([0.5, 1.5], 3, max)
    assert note.value == "In 3 steps it ends 0.00 and 0.00 from where 60 steps lead."


def test_the_page_says_how_far_a_walk_ends_from_the_exact_one(flow, defined):
    heun, euler = (
        nb.dot.page(defined["walk"], {"": flow}, step, (1.5, 0.5), 6, noise(9, 2))[1]
        for step in (checks.heun, defined["euler_step"])
    )
    assert float(heun.split()[5]) < float(euler.split()[5])


def test_a_way_goes_along_its_path():
    """Orange on the path, blue on the exact one, and white elsewhere."""
    path, fine = torch.tensor([[-1.3, 0.0], [1.3, 0.0]]), torch.tensor([[-1.3, 0.0], [-1.3, 1.3]])
    image = figures.way(path, fine, path[:0], 120)
    red, green, blue = image.getpixel((60, 60))
    assert red > 180 and blue < 40
    red, green, blue = image.getpixel((30, 45))
    assert blue > 200 and red < 120
    assert image.getpixel((60, 45)) == (255, 255, 255)


def test_the_giants_have_the_published_sizes():
    """In billions of weights: Esser et al. 2024 call theirs 2B, Black Forest Labs 12B."""
    with torch.device("meta"), torch.no_grad():
        sizes = [sum(w.numel() for w in each.parameters()) / 1e9 for each in nb.giants.networks().values()]
        latent = nb.giants.autoencoder().encode(torch.empty(1, 3, 64, 64)).latent_dist.mean
    assert sizes == pytest.approx([0.86, 2.03, 11.90, 4.76], abs=0.005)
    assert latent.shape == (1, 16, 8, 8) and latent.device.type == "meta"


def test_the_bars_stand_for_what_was_measured():
    figure = figures.spacing_shares()
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert len(words) == 4 * 3 and words[-3:] == ["8%", "64%", "84%"]


def test_board_draws_dots_where_they_are():
    image = figures.board(torch.tensor([[1.3, 1.3]]), "#ff0000", radius=5, side=120)
    assert image.getpixel((90, 30))[1] < 20 and image.getpixel((30, 90)) == (255, 255, 255)


def test_a_film_begins_and_ends_with_its_path():
    path = torch.stack([noise(9, 2), noise(9, 2, seed=1), noise(9, 2, seed=2)])
    frames = figures.film([path, path], figures.wheel(path[0]), 5, 64)
    assert len(frames) == 5 and {frame.size for frame in frames} == {(2 * 64 + 16, 64)}
    for frame, i in ((frames[0], 0), (frames[-1], -1)):
        end = figures.board(path[i], figures.wheel(path[0]), side=64)
        apart = ImageChops.difference(frame.crop((0, 0, 64, 64)), end)
        assert np.asarray(apart).mean() < 2, "but for its few colours"
        assert frame.getpixel((3, 3)) == (255, 255, 255)
