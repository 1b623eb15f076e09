"""Notebook 01: its definitions, its measures, its maps of latents and the shapes its exercise asks for."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from helpers import noise, one_sentence
from lab_helpers import definitions
from PIL import Image
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

import ldm_course as ldm
from ldm_course import lab
from ldm_course.lab.nb01_vae import checks, figures
from ldm_course.vae import Autoencoder, AutoencoderKL, VAEConfig


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    return definitions("01_autoencoder_vs_vae", side=64, STEPS=3, train_set=figures.small_scenes(40, 1))


def test_the_draw_and_the_divergence_are_the_package_s(defined):
    mean, logvar, draw = noise(3, 4, 2, 5), noise(3, 4, 2, 5, seed=1), noise(3, 4, 2, 5, seed=2)
    mine, theirs = defined["DiagonalGaussian"](mean, logvar), ldm.vae.DiagonalGaussian(mean, logvar)
    assert_close(defined["reparameterize"](mean, mine.std, draw), ldm.vae.reparameterize(mean, theirs.std, draw))
    assert_close((mine.std, mine.sample(draw), mine.kl()), (theirs.std, theirs.sample(draw), theirs.kl()))


@pytest.mark.parametrize("kind", ["SmallAutoencoder", "SmallVAE"])
@pytest.mark.parametrize("latent_size", [2, 16])
def test_small_models_train_and_repeat(defined, kind, latent_size):
    loss = defined["autoencoder_loss"] if kind == "SmallAutoencoder" else defined["vae_loss"](10)
    first, again = (defined["train"](defined[kind], latent_size, loss) for _ in range(2))
    x = defined["train_set"].x
    assert defined["latents"](first, x).shape == (40, latent_size)
    assert defined["rebuild"](first, x).shape == x.shape
    assert_close(defined["rebuild"](first, x), defined["rebuild"](again, x))


def test_measures_of_known_values(defined):
    share, labels, x = defined["same_among_neighbours"], torch.arange(200) % 2, defined["train_set"].x
    assert share(noise(200, 2) + 100 * labels[:, None], labels) == 1
    assert share(noise(200, 2), labels) == pytest.approx(0.5, abs=0.05)
    assert_close(defined["to_nearest"](x), torch.zeros(40), atol=2e-3, rtol=0)
    far = ((11 - x) ** 2).mean((1, 2, 3)).sqrt().min()[None]
    assert_close(defined["to_nearest"](torch.full((1, 3, 32, 32), 11.0)), far)
    assert defined["psnr"](torch.zeros(4), torch.full((4,), 0.2)) == pytest.approx(20.0, abs=1e-4)


def test_small_scenes_are_what_their_labels_say():
    few, more = figures.small_scenes(6, 3), figures.small_scenes(8, 3)
    assert few.x.shape == (6, 3, 32, 32) and few.x.min() >= -1 and few.x.max() <= 1
    assert_close(few.x, more.x[:6])
    assert set(few.labels) == {"animal", "colour", "place"}
    scene = ldm.scenes.training_scene(3, 0)
    for name, values in few.labels.items():
        assert ldm.scenes.ATTRIBUTES[name][values[0]] == getattr(scene, name)
    with one_sentence("count"):
        figures.small_scenes(0, 3)


class Line(nn.Module):
    """Images to their mean and deviation, and two numbers to an image of their mean."""

    def encode(self, x):
        return torch.stack([x.mean(dim=(1, 2, 3)), x.std(dim=(1, 2, 3))], dim=1)

    def decode(self, z):
        return z.mean(dim=1)[:, None, None, None].expand(-1, 3, 32, 32).clamp(-1, 1)


@pytest.fixture
def plane() -> figures.LatentMap:
    return figures.LatentMap(Line().encode, Line().decode, figures.small_scenes(40, 1).x)


def test_a_map_holds_images_at_their_latents_and_its_mosaic_decodes_its_places(plane):
    side, mosaic = plane.side, plane.mosaic(3)
    assert plane.map.size == mosaic.size == (side, side)
    assert plane.pixel(0, 0) == (side / 2, side / 2) and plane.pixel(-3, 3) == (0, 0)
    assert len(plane.map.getcolors(side**2)) > 100 and plane.map.getpixel((5, 5)) == (255, 255, 255)
    tile = side // 3
    for i, first in enumerate((-2, 0, 2)):
        for j, second in enumerate((2, 0, -2)):
            middle = (i * tile + tile // 2, j * tile + tile // 2)
            assert mosaic.getpixel(middle) == plane.decoded(first, second).getpixel((96, 96))
    with one_sentence("two numbers", "(4, 3)"):
        figures.LatentMap(lambda x: noise(4, 3), lambda z: z, figures.small_scenes(4, 1).x)


def test_the_point_moves_with_the_sliders_and_the_model(plane):
    other = figures.LatentMap(Line().encode, lambda z: -Line().decode(z), figures.small_scenes(40, 1).x)
    which, first, second, image = figures.explorer({"one": plane, "other": other}).children
    seen = {image.value}
    for control, value in ((first, 2.0), (second, -1.5), (which, "other")):
        control.value = value
        assert image.value not in seen, "it reacts"
        seen.add(image.value)
    assert image.value == lab.plots.jpeg(other.with_point(2.0, -1.5))
    assert Image.open(io.BytesIO(image.value)).size == other.with_point(0, 0).size


def test_other_right_answers_are_right():
    def kl(mean, std, prior_mean, prior_std):
        return kl_divergence(Normal(mean, std), Normal(torch.tensor(prior_mean), torch.tensor(prior_std)))

    assert checks.scaling_factor(lambda z: 1 / z.std(correction=0).item()).status == "right"
    assert checks.kl(kl).status == "right"


@pytest.mark.parametrize(
    "h, w, channels, latent", [(45, 77, (8,) * 3, 5), (100, 62, (8, 16), 3), (40, 56, (8,) * 4, 4)]
)
def test_the_shape_that_the_check_asks_for_is_the_encoder_s(h, w, channels, latent):
    config = VAEConfig(block_out_channels=channels, layers_per_block=1, norm_num_groups=4, latent_channels=latent)
    f = 2 ** (len(channels) - 1)
    with torch.device("meta"):
        for net in (Autoencoder(config).encode, lambda x: AutoencoderKL(config).encode(x).mean):
            assert net(torch.empty(1, 3, h, w)).shape == (1, latent, h // f, w // f)
