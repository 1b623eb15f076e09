"""Notebook 01: what it defines, measures and draws, its widgets, and the typical mistakes of its exercises."""

from __future__ import annotations

import ast
import io
from typing import Any

import pytest
import torch
from helpers import noise, one_sentence
from PIL import Image
from test_notebooks import assert_hint, cells, each_mistake, python
from torch import nn
from torch.testing import assert_close

import ldm_course as ldm
from ldm_course import lab
from ldm_course.lab.nb01_vae import checks, figures
from ldm_course.train.vae import KL_WEIGHT
from ldm_course.vae import Autoencoder, AutoencoderKL, VAEConfig

NAME = "01_autoencoder_vs_vae"
DEFINED = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    """Everything that the notebook defines, by name, without running the rest of it."""
    namespace: dict[str, Any] = {"STEPS": 3, "side": 64, "train_set": figures.small_scenes(40, 1)}
    for cell in cells(NAME, "code"):
        body = [node for node in ast.parse(python(cell)).body if isinstance(node, DEFINED)]
        exec(compile(ast.Module(body, []), cell.id, "exec"), namespace)
    return namespace


# ---- what it defines is what the package does ------------------------------------------------------------------


def test_the_draw_and_the_divergence_are_the_package_s(defined):
    mean, logvar, draw = noise(3, 4, 2, 5), noise(3, 4, 2, 5, seed=1), noise(3, 4, 2, 5, seed=2)
    mine, theirs = defined["DiagonalGaussian"](mean, logvar), ldm.vae.DiagonalGaussian(mean, logvar)
    assert_close(defined["reparameterize"](mean, mine.std, draw), ldm.vae.reparameterize(mean, theirs.std, draw))
    assert_close(mine.std, theirs.std)
    assert_close(mine.sample(draw), theirs.sample(draw))
    assert_close(mine.kl(), theirs.kl())


@pytest.mark.parametrize("kind", ["SmallAutoencoder", "SmallVAE"])
@pytest.mark.parametrize("latent_size", [2, 16])
def test_small_models_train_and_repeat(defined, kind, latent_size):
    loss = defined["autoencoder_loss"] if kind == "SmallAutoencoder" else defined["vae_loss"](10)
    first, again = (defined["train"](defined[kind], latent_size, loss) for _ in range(2))
    x = figures.small_scenes(40, 1).x
    assert defined["latents"](first, x).shape == (40, latent_size)
    assert defined["rebuild"](first, x).shape == x.shape
    assert_close(defined["rebuild"](first, x), defined["rebuild"](again, x))
    assert not any(weight.requires_grad for weight in first.parameters())


def test_the_settings_that_the_text_names_are_the_package_s():
    text = "\n".join(cell.source for cell in cells(NAME, "markdown"))
    assert f"the small one with {KL_WEIGHT:.4f}" in text
    assert f"factor of {VAEConfig().scaling_factor}" in text


# ---- what it measures ------------------------------------------------------------------------------------------


def test_neighbours_of_two_clear_groups_are_all_alike_and_of_chance_are_not(defined):
    share, labels = defined["same_among_neighbours"], torch.arange(200) % 2
    apart = noise(200, 2) + 100 * labels[:, None]
    assert share(apart, labels) == 1
    assert share(noise(200, 2), labels) == pytest.approx(0.5, abs=0.05)


def test_the_distance_to_the_nearest_image(defined):
    x = defined["train_set"].x
    assert_close(defined["to_nearest"](x), torch.zeros(40), atol=2e-3, rtol=0)
    assert_close(
        defined["to_nearest"](torch.full((1, 3, 32, 32), 11.0)), ((11 - x) ** 2).mean((1, 2, 3)).sqrt().min()[None]
    )


def test_psnr_of_a_known_error(defined):
    assert defined["psnr"](torch.zeros(4), torch.full((4,), 0.2)) == pytest.approx(20.0, abs=1e-4)


# ---- data and drawings -----------------------------------------------------------------------------------------


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
    net = Line()
    return figures.LatentMap(net.encode, net.decode, figures.small_scenes(40, 1).x)


def test_a_map_shows_images_where_their_latents_are(plane):
    side = plane.side
    assert plane.map.size == (side, side)
    assert plane.pixel(0, 0) == (side / 2, side / 2)
    assert plane.pixel(-3, 3) == (0, 0) and plane.pixel(3, -3) == (side, side)
    assert len(plane.map.getcolors(plane.side**2)) > 100, "images are on it"
    assert plane.map.getpixel((5, 5)) == (255, 255, 255), "and none where no latent is"


def test_a_point_on_the_map_is_drawn_and_decoded(plane):
    here, there = plane.with_point(-2.9, -2.9), plane.with_point(2.9, 2.9)
    assert here.size == there.size and here.tobytes() != there.tobytes()
    left, top = plane.pixel(-2.9, -2.9)
    assert here.getpixel((round(left), round(top))) == (213, 94, 0), "an orange point"
    assert here.getpixel((plane.side * 3 // 2, 100)) != there.getpixel((plane.side * 3 // 2, 100)), "another image"


def test_the_mosaic_is_the_map_s_places_decoded(plane):
    mosaic = plane.mosaic(3)
    assert mosaic.size == (plane.side, plane.side)
    tile = plane.side // 3
    for i, first in enumerate((-2, 0, 2)):
        for j, second in enumerate((2, 0, -2)):
            middle = (i * tile + tile // 2, j * tile + tile // 2)
            assert mosaic.getpixel(middle) == plane.decoded(first, second).getpixel((96, 96))


def test_the_ring_has_a_radius_of_two_on_map_and_mosaic():
    plane = figures.LatentMap(lambda x: 2 * noise(40, 2) + 1, Line().decode, figures.small_scenes(40, 1).x)
    right, height = plane.pixel(*((torch.tensor([2.0, 0.0]) - plane.mean) / plane.std).tolist())
    for drawn in (plane.map, plane.mosaic()):
        assert drawn.getpixel((round(right) - 4, round(height))) == (0, 114, 178), "blue"


def test_a_map_needs_two_numbers():
    with one_sentence("two numbers", "(4, 3)"):
        figures.LatentMap(lambda x: noise(4, 3), lambda z: z, figures.small_scenes(4, 1).x)


def test_the_point_moves_with_the_sliders_and_the_model(plane):
    other = figures.LatentMap(Line().encode, lambda z: -Line().decode(z), figures.small_scenes(40, 1).x)
    widget = figures.explorer({"one": plane, "other": other})
    which, first, second, image = widget.children
    seen = {image.value}
    for control, value in ((first, 2.0), (second, -1.5), (which, "other")):
        control.value = value
        assert image.value not in seen, "it reacts"
        seen.add(image.value)
    assert image.value == lab.plots.jpeg(other.with_point(2.0, -1.5))
    assert Image.open(io.BytesIO(image.value)).size == other.with_point(0, 0).size


def test_rows_keep_their_pixels():
    x = figures.small_scenes(6, 1).x
    assert figures.rows(x.split(3)).size == (3 * 144 - 16, 2 * 144 - 16)


def test_the_channel_that_varies_is_drawn():
    h = torch.zeros(1, 3, 8, 8)
    h[0, 1, 0, 0] = 5.0
    image = figures.features_image(h)
    assert image.getpixel((0, 0)) == 255 and image.getpixel((image.width - 1, 0)) == 0
    assert figures.features_image(torch.zeros(1, 2, 4, 4)).getpixel((0, 0)) == 0


def test_training_is_drawn_while_it_runs(defined, monkeypatch):
    shown: list[dict] = []
    drawn: list[dict] = []

    class Handle:
        def update(self, bundle, raw, metadata):
            drawn.append(bundle)

    monkeypatch.setattr(
        "ldm_course.lab.shared.plots.display", lambda bundle, **settings: shown.append(bundle) or Handle()
    )
    x = figures.small_scenes(40, 1).x[:3]
    watch = figures.TrainingMonitor(defined["rebuild"], x, 3, "VAE")
    defined["train"](defined["SmallVAE"], 2, defined["vae_loss"](1), watch=watch)
    assert len(watch.losses) == 3
    assert len(shown) == 4, "two figures, each with its caption, and no more"
    assert len(drawn) >= 2 and len(drawn) % 2 == 0, "the end is drawn in any case"


# ---- exercises -------------------------------------------------------------------------------------------------

FRACTION = "fraction = (std**2 + (mean - prior_mean) ** 2) / (2 * prior_std**2)\n    "

WRONG = {
    "reparameterize": [
        ("return mean", "plain autoencoder"),
        ("return mean + std**2 * noise", "variance"),
        ("return mean + torch.exp(0.5 * std) * noise", "log-variance"),
        ("return (mean + noise) * std", "scales the mean"),
        ("return std + mean * noise", "swapped"),
        ("return mean + noise", "leaves std out"),
        ("return mean + std", "leaves the noise out"),
        ("return mean + std * torch.randn_like(std)", "draw none of its own"),
        ("return (mean + std * noise).detach()", "no gradient"),
        ("mean += std * noise\n    return mean", "in place"),
        ("return mean + sdt * noise", "NameError"),
        ("return 'mean'", "no numbers"),
        ("return (mean + std * noise).tolist()", "no gradient"),
    ],
    "kl": [
        (f"{FRACTION}return torch.log(prior_std / std) + fraction", "1/2 too high"),
        (f"{FRACTION}return torch.log(std / prior_std) + fraction - 0.5", "fraction round"),
        (f"{FRACTION}return 2 * (torch.log(prior_std / std) + fraction - 0.5)", "twice"),
        (f"{FRACTION}return 0.5 - torch.log(prior_std / std) - fraction", "sign"),
        (f"{FRACTION}return (torch.log(prior_std / std) + fraction - 0.5).sum()", "sums everything"),
        (f"{FRACTION}return torch.log(prior_std / std) + fraction * prior_std - 0.5", "divides by prior_std"),
        ("return torch.log(prior_std / std) + (std**2 + mean**2) / (2 * prior_std**2) - 0.5", "prior_mean out"),
        ("far = (mean - prior_mean) ** 2\n"
         "    return torch.log(prior_std / std) + (std + far) / (2 * prior_std) - 0.5", "square std"),
        ("far = (mean - prior_mean) ** 2\n"
         "    return torch.log(std / prior_std) + (prior_std**2 + far) / (2 * std**2) - 0.5", "other way"),
        ("return 0.5 * (mean**2 + std**2 - 1) - torch.log(std)", "N(0, 1)"),
    ],
    "shape": [
        ("return latent_channels, height // 8, width // 8", "always divides by 8"),
        ("f = 2 ** len(block_out_channels)\n    return latent_channels, height // f, width // f", "once too often"),
        ("f = 2 ** (len(block_out_channels) - 1)\n    return 2 * latent_channels, height // f, width // f",
         "log-variances"),
        ("f = 2 ** (len(block_out_channels) - 1)\n    return height // f, width // f, latent_channels", "come first"),
        ("f = 2 ** (len(block_out_channels) - 1)\n    return block_out_channels[-1], height // f, width // f",
         "channels of the last level"),
        ("f = 2 ** (len(block_out_channels) - 1)\n    return latent_channels, -(-height // f), -(-width // f)",
         "rounds up"),
        ("f = 2 * (len(block_out_channels) - 1)\n    return latent_channels, height // f, width // f", "2 ** n"),
        ("f = 2 ** (len(block_out_channels) - 1)\n    return latent_channels, width // f, height // f", "swapped"),
    ],
    "factor": [
        ("return latents.std()", "1 / std"),
        ("return 1 / latents.var()", "variance"),
        ("return 1 / latents.std(dim=(0, 2, 3))", "one number"),
        ("return 1 / latents.std(dim=(0, 2, 3)).mean()", "mean of the channels' std"),
        ("return (1 / latents.std(dim=(0, 2, 3))).mean()", "channels' factors"),
        ("return 1 / latents.square().mean().sqrt()", "take the mean off"),
        ("return 1 / latents.abs().mean()", "mean absolute value"),
        ("return 1 / latents.abs().max()", "largest value"),
    ],
}  # fmt: skip


@each_mistake(WRONG)
def test_a_typical_mistake_gets_a_hint_that_names_it(title, body, hint, model):
    assert_hint(NAME, title, body, hint, model)


def test_other_right_ways_are_right():
    assert checks.scaling_factor(lambda z: 1 / z.std(correction=0).item()).status == "right"
    assert checks.kl(
        lambda m, s, pm, ps: torch.distributions.kl_divergence(
            torch.distributions.Normal(m, s), torch.distributions.Normal(torch.tensor(pm), torch.tensor(ps))
        )
    ).status == "right"  # fmt: skip


@pytest.mark.parametrize(
    "h, w, channels, latent", [(45, 77, (8, 8, 8), 5), (100, 62, (8, 16), 3), (40, 56, (8,) * 4, 4)]
)
def test_the_shape_that_the_check_asks_for_is_the_encoder_s(h, w, channels, latent):
    config = VAEConfig(block_out_channels=channels, layers_per_block=1, norm_num_groups=4, latent_channels=latent)
    f = 2 ** (len(channels) - 1)
    with torch.device("meta"):
        for net in (Autoencoder(config).encode, lambda x: AutoencoderKL(config).encode(x).mean):
            assert net(torch.empty(1, 3, h, w)).shape == (1, latent, h // f, w // f)
