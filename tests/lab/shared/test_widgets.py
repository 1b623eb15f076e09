"""What notebooks show: images and figures with alternative texts, source, and widgets of core ipywidgets."""

from __future__ import annotations

import base64
import io

import pytest
import torch
from helpers import noise
from matplotlib.figure import Figure
from PIL import Image

import ldm_course as ldm
from ldm_course.errors import InputError
from ldm_course.lab.shared import diagrams, plots, source, widgets


@pytest.fixture(scope="module")
def frames(model) -> list[plots.Frame]:
    context, empty = model.embed(["a dog", ""]).chunk(2)
    timesteps = model.schedule.timesteps(4)
    states = ldm.denoise(model, noise(1, 4, 8, 8), context, timesteps, negative_context=empty, guidance_scale=3)
    return plots.trajectory(model, list(states))


class Display:
    """Stands in for IPython's display and for the handle it returns. What was shown: pairs of data and metadata."""

    def __init__(self):
        self.shown, self.updates = [], []

    def __call__(self, bundle, raw, metadata=None, display_id=None):
        self.shown.append((bundle, metadata or {}))
        return self

    def update(self, bundle, raw, metadata):
        self.updates.append((bundle, metadata))


@pytest.fixture
def display(monkeypatch) -> Display:
    recorder = Display()
    for module in (plots, source, widgets):
        monkeypatch.setattr(module, "display", recorder)
    return recorder


@pytest.mark.parametrize("figure", [Figure(figsize=(2, 1)), Image.new("RGB", (40, 20))])
def test_a_shown_figure_has_an_alternative_text_and_a_caption(figure, display):
    plots.show(figure, "Two dogs.")
    (image, metadata), (caption, _) = display.shown
    (kind,) = set(image) - {"text/plain"}
    assert kind in ("image/png", "image/jpeg")
    assert metadata[kind]["alt"] == image["text/plain"] == "Two dogs." and metadata[kind]["width"] > 0
    assert caption["text/markdown"] == "*Two dogs.*"


def test_a_live_figure_is_redrawn_in_its_place(display):
    live = plots.Live(plots.losses({"VAE": [3.0]}, 20), "The loss of each step.")
    live.draw(plots.losses({"VAE": [3.0, 2.0], "AE": [2.0, 1.0]}, 20))
    assert len(display.shown) == 2, "the figure and its caption, once"
    ((bundle, metadata),) = display.updates
    assert bundle["text/plain"] == metadata["image/png"]["alt"] == "The loss of each step."
    assert bundle["image/png"] != display.shown[0][0]["image/png"]


def test_the_source_is_shown_as_it_is(display):
    source.show_source(ldm.denoise, ldm.inpaint)
    (loop, _), (decorated, _) = display.shown
    title = (
        "<details><summary>In the package: <code>{}</code>, in <code>ldm_course/{}</code></summary>\n\n```python\n"
    )
    assert loop["text/markdown"].startswith(title.format("denoise", "sampling.py") + "def denoise(")
    assert decorated["text/markdown"].startswith(title.format("inpaint", "pipelines.py") + "@")


def test_a_widget_has_words_for_pages_without_a_kernel(frames, display):
    widgets.show(widgets.scrubber(frames), "Run me.")
    ((bundle, _),) = display.shown
    assert bundle["text/plain"] == "Run me."


def test_an_image_of_a_latent_shows_its_values():
    image = plots.latent_image(torch.tensor([-9.0, 0.0, 9.0, 1.5])[:, None, None].expand(4, 16, 16))
    corners = [image.getpixel(at) for at in ((0, 0), (image.width - 1, 0), (0, image.height - 1))]
    assert corners == [plots.LOW, plots.MIDDLE, plots.HIGH], "each channel is a tile"


def test_the_trajectory_ends_where_the_loop_does(frames):
    assert [frame.t for frame in frames] == [751, 501, 251, 1, -1]
    assert frames[-1].distance == 0 and all(frame.distance > 0 for frame in frames[:-1])
    few, all_of_them, more = (plots.sheet(frames, columns=n) for n in (2, 5, 50))
    assert few.width < all_of_them.width == more.width


def test_the_scrubber_shows_the_frame_that_the_slider_points_at(frames):
    widget = widgets.scrubber(frames)
    (play, slider), text, image = widget.children[0].children, *widget.children[1:]
    assert play.max == slider.max == len(frames) - 1
    for i in (3, 0, len(frames) - 1):
        slider.value = i
        assert image.value == plots.jpeg(plots.strip(frames[i])) and text.value == widgets.describe(frames[i])


@pytest.mark.parametrize(
    "encode, pages",
    [
        (plots.jpeg, [Image.new("RGB", (40, 20), colour) for colour in ("red", "blue")]),
        (plots.png, [Figure(figsize=(1, size)) for size in (1, 2)]),
    ],
)
def test_the_flipbook_turns_to_the_page_that_the_slider_points_at(encode, pages):
    slider, image = widgets.flipbook(pages, ["t = 0", "t = 1"], "time").children
    for label, page in zip(("t = 0", "t = 1"), pages):
        slider.label = label
        assert image.value == encode(page)


def test_an_animation_plays_all_frames_and_holds_the_last(display):
    frames = [Image.new("RGB", (40, 20), (60 * i, 0, 0)) for i in range(5)]
    plots.animate(frames, "It grows red.", seconds=2, hold=3)
    (bundle, metadata), _ = display.shown
    movie = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert movie.n_frames == 5 and metadata["image/png"] == {"alt": "It grows red.", "width": 20}
    durations = []
    for i in range(5):
        movie.seek(i)
        durations.append(movie.info["duration"])
    assert durations == [500] * 4 + [3000]


@pytest.mark.parametrize("task", diagrams.TASKS)
def test_a_diagram_holds_what_the_model_computed(model, task):
    figure = diagrams.flow(model, task, here="unet")
    assert len(figure.axes[0].images) == {"txt2img": 3, "img2img": 4, "inpaint": 7}[task]
    texts = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert all(word in texts for word in ("eps_cond", "eps_uncond", "guidance", "DDIM", "decoder"))
    with pytest.raises(InputError, match="here"):
        diagrams.flow(model, task, here="everywhere")
