"""Notebook 01: its definitions, its measures, its maps of latents and the paths its build asks for."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from helpers import noise, one_sentence
from lab_helpers import definitions, solution
from PIL import Image
from torch import nn
from torch.testing import assert_close

import ldm_course as ldm
from ldm_course import lab
from ldm_course.lab.nb01_vae import checks, figures

NAME = "01_autoencoder_vs_vae"


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    given = {"STEPS": 3, "PIXELS": 3 * 40 * 40, "train_set": figures.faces(40, 1), "test_set": figures.faces(8, 2)}
    functions = {"reconstruction_error": "error", "reparameterize": "reparameterize", "kl": "kl"}
    return definitions(NAME, **given, **{name: solution(NAME, title) for name, title in functions.items()})


def test_the_solutions_are_the_package_s():
    mean, logvar, draw = noise(3, 4, 2, 5), noise(3, 4, 2, 5, seed=1), noise(3, 4, 2, 5, seed=2)
    theirs = ldm.vae.DiagonalGaussian(mean, logvar)
    assert_close(solution(NAME, "reparameterize")(mean, theirs.std, draw), theirs.sample(draw))
    assert_close(solution(NAME, "kl")(mean, logvar), theirs.kl())


@pytest.mark.parametrize("kind", ["SmallAutoencoder", "SmallVAE"])
@pytest.mark.parametrize("latent_size", [2, 8])
def test_small_models_train_and_repeat(defined, kind, latent_size):
    loss = defined["autoencoder_loss"] if kind == "SmallAutoencoder" else defined["vae_loss"](10)
    first, again = (defined["train"](defined[kind], latent_size, loss) for _ in range(2))
    x = defined["train_set"].x
    z = first.encode(x)
    assert (z if kind == "SmallAutoencoder" else z[0]).shape == (40, latent_size)
    assert defined["reconstruct"](first, x).shape == x.shape
    assert_close(defined["reconstruct"](first, x), defined["reconstruct"](again, x))


def test_measures_of_known_values(defined):
    x = defined["train_set"].x
    assert_close(defined["to_nearest"](x), torch.zeros(40), atol=2e-3, rtol=0)
    far = ((11 - x) ** 2).mean((1, 2, 3)).sqrt().min()[None]
    assert_close(defined["to_nearest"](torch.full((1, 3, 40, 40), 11.0)), far)


def test_small_scenes_are_what_their_labels_say():
    few, more = figures.small_scenes(6, 3), figures.small_scenes(8, 3)
    assert few.x.shape == (6, 3, 32, 32) and few.x.min() >= -1 and few.x.max() <= 1
    assert_close(few.x, more.x[:6])
    scene = ldm.scenes.training_scene(3, 0)
    for name in ("animal", "colour", "place"):
        assert ldm.scenes.ATTRIBUTES[name][few.labels[name][0]] == getattr(scene, name)


def test_faces_of_one_kind_look_alike():
    faces = figures.faces(120, 3)
    assert faces.x.shape == (120, 3, 40, 40) and faces.x.min() >= -1 and faces.x.max() <= 1
    kind = faces.labels["animal"] * 8 + faces.labels["colour"] * 2 + faces.labels["hat"]
    distance = torch.cdist(faces.x.flatten(1), faces.x.flatten(1))
    same, others = kind == kind[:, None], ~torch.eye(120, dtype=torch.bool)
    assert distance[same & others].mean() < 0.3 * distance[~same].mean()
    for what in (figures.faces, figures.small_scenes):
        with one_sentence("count"):
            what(0, 3)


def test_a_jpeg_fits_if_it_can():
    image = ldm.scenes.Scene().render(128)
    error = [abs(np.asarray(figures.jpeg_of(image, size), float) - np.asarray(image)).mean() for size in (900, 9000)]
    assert error[0] > 2 * error[1]


class Line(nn.Module):
    """Two values to an image of their mean."""

    def decode(self, z):
        return z.mean(dim=1)[:, None, None, None].expand(-1, 3, 40, 40).clamp(-1, 1)


@pytest.fixture
def plane() -> figures.LatentMap:
    return figures.LatentMap(0.5 * noise(40, 2), figures.faces(40, 1).x, Line().decode, 2.0)


def test_a_map_holds_images_at_their_latents_and_its_mosaic_decodes_its_places(plane):
    side, mosaic = plane.side, plane.mosaic(4)
    assert plane.map.size == mosaic.size == (side, side)
    assert plane.pixel(0, 0) == (side / 2, side / 2) and plane.pixel(-2, 2) == (0, 0)
    for i, first in enumerate((-1.5, -0.5, 0.5, 1.5)):
        for j, second in enumerate((1.5, 0.5, -0.5, -1.5)):
            near = (i * side // 4 + 60, j * side // 4 + 60)
            assert mosaic.getpixel(near) == plane.decoded(first, second).getpixel((20, 20)) or abs(first) == 0.5
    with one_sentence("two dimensions", "(4, 3)"):
        figures.LatentMap(noise(4, 3), figures.faces(4, 1).x, lambda z: z, 1.0)


def test_the_point_moves_with_the_pad_the_sliders_and_the_model(plane):
    other = figures.LatentMap(noise(40, 2), figures.faces(40, 1).x, lambda z: -Line().decode(z), 3.0)
    which, panel, first, second = figures.explorer({"one": plane, "other": other}).children
    pad, image = panel.children
    seen = {image.value}
    for control, value in ((first, 1.0), (second, -0.5), (which, "other")):
        control.value = value
        assert image.value not in seen, "it reacts"
        seen.add(image.value)
    assert (pad.point, pad.reach) == ([1.0, -0.5], 3.0)
    pad.point = [0.25, 2.0]  # as the page does while one drags
    assert (first.value, second.value) == (0.25, 2.0)
    drawn = other.decoded(0.25, 2.0).resize((640, 640), Image.Resampling.BICUBIC)
    assert image.value == lab.plots.jpeg(drawn)
    assert Image.open(io.BytesIO(image.value)).size == (640, 640)


def test_other_right_answers_are_right():
    assert checks.scaling_factor(lambda z: 1 / z.std(correction=0).item()).status == "right"
    error = nn.MSELoss(reduction="sum")
    assert checks.reconstruction_error(lambda x_hat, x: error(x_hat, x) / len(x)).status == "right"


def test_points_lie_evenly_on_a_path():
    path = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    wanted = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    assert_close(checks.evenly(path, 5), wanted)


def test_a_path_by_another_method_is_right():
    def relaxed(start, end, latents):
        """Each point of a line is pulled to its nearest latents, from neighbour to neighbour."""
        todo, path = list(latents), [start]
        while todo and torch.dist(path[-1], end) > 0.15:
            distance = torch.stack([torch.dist(path[-1], latent) for latent in todo])
            path.append(todo.pop(int(distance.argmin())))
        return torch.stack([*path, end])

    assert checks.stays_on_data(relaxed).status == "right"
