"""Figures: images side by side, curves, and the frames of a loop."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from helpers import noise
from matplotlib.figure import Figure
from PIL import Image

from ldm_course.lab.shared import plots
from ldm_course.schedule import NoiseSchedule


def test_a_latent_is_drawn_with_its_channels_as_tiles():
    latent = torch.tensor([-9.0, 0.0, 9.0, 1.5])[:, None, None].expand(4, 16, 16)
    image = plots.latent_image(latent)
    assert image.size == (384, 384)
    corners = [image.getpixel(at) for at in ((0, 0), (383, 0), (0, 383))]
    assert corners == [plots.LOW, plots.MIDDLE, plots.HIGH], "purple below zero, white at it, orange above"
    assert image.getpixel((192, 5)) == (0, 0, 0), "a line between the channels"


@pytest.mark.parametrize("shape", [(4, 64, 64), (4, 9, 15), (1, 8, 8), (3, 8, 8), (16, 32, 32)])
def test_latents_of_any_shape_are_drawn(shape):
    width, height = plots.latent_image(noise(*shape)).size
    across = np.ceil(np.sqrt(shape[0]))
    assert width % (across * shape[2]) == 0 and height % shape[1] == 0


def test_a_grid_holds_titles_labels_and_images_of_any_size():
    rows = [[Image.new("RGB", (16, 16), "red"), Image.new("L", (512, 512), 9)], [Image.new("RGB", (128, 96), "blue")]]
    plain = plots.grid(rows, side=100)
    assert plain.size == (216, 216) and plain.getpixel((50, 50)) == (255, 0, 0)
    named = plots.grid(rows, ["one", "two"], ["first row", "second row"], side=100)
    assert named.width > plain.width and named.height > plain.height


@pytest.mark.parametrize("figure", [Figure(figsize=(2, 1)), Image.new("RGB", (40, 20))])
def test_a_shown_figure_has_an_alternative_text_and_a_caption(figure, shown):
    plots.show(figure, "Two dogs.")
    (image, metadata), (caption, _) = shown
    (kind,) = set(image) - {"text/plain"}
    assert kind in ("image/png", "image/jpeg")
    assert metadata[kind]["alt"] == image["text/plain"] == "Two dogs." and metadata[kind]["width"] > 0
    assert caption["text/markdown"] == "*Two dogs.*"


def test_a_live_figure_is_redrawn_in_its_place(monkeypatch):
    handle, calls = Handle(), []
    monkeypatch.setattr(
        "ldm_course.lab.shared.plots.display", lambda bundle, **settings: calls.append(settings) or handle
    )
    live = plots.Live(plots.losses({"VAE": [3.0]}, 20), "The loss of each step, falling.")
    live.draw(plots.losses({"VAE": [3.0, 2.0], "AE": [2.0, 1.0]}, 20))
    assert calls[0]["display_id"] and len(calls) == 2, "the figure and its caption, once"
    ((bundle, metadata),) = handle.updates
    assert bundle["text/plain"] == metadata["image/png"]["alt"] == "The loss of each step, falling."


class Handle:
    def __init__(self):
        self.updates = []

    def update(self, bundle, raw, metadata):
        self.updates.append((bundle, metadata))


def test_the_trajectory_ends_where_the_loop_does(frames):
    assert [frame.t for frame in frames] == [751, 501, 251, 1, -1]
    assert frames[-1].distance == 0 and all(frame.distance > 0 for frame in frames[:-1])
    assert all(len(frame.images) == len(plots.PANELS) for frame in frames)


def test_the_contact_sheet_shows_first_and_last(frames):
    few, all_of_them, more = (plots.sheet(frames, columns=n) for n in (2, 5, 50))
    assert few.width < all_of_them.width == more.width
    assert plots.strip(frames[0]).width > plots.strip(frames[0]).height


def test_curves_and_tables_are_drawn():
    schedule = NoiseSchedule()
    for figure in (
        plots.noise_levels(schedule, schedule.timesteps(50)),
        plots.similarities(torch.tensor([[1.0, 0.2], [0.2, 1.0]]), ["a dog", "a cat"]),
    ):
        assert Image.open(io.BytesIO(plots.png(figure))).format == "PNG"


def test_curves_have_no_frame_and_the_style_ends_with_the_figure():
    axes = plots.losses({"VAE": [3.0, 2.0], "AE": [2.0, 1.0]}, 20).axes[0]
    assert not axes.spines.top.get_visible() and axes.spines.left.get_visible()
    assert not axes.get_legend().get_frame_on()
    assert Figure().subplots().spines.top.get_visible()


def test_small_images_keep_their_pixels():
    image = plots.enlarged(noise(3, 32, 32))
    assert image.size == (256, 256) and image.getpixel((3, 3)) == image.getpixel((7, 7))


def test_the_distance_of_images_is_drawn():
    wrong = plots.error_image(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.25))
    assert wrong.getpixel((0, 0)) == 128
    x = noise(1, 3, 8, 8)
    assert plots.error_image(x, x).getextrema() == (0, 0)
