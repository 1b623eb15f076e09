"""Widgets of core ipywidgets."""

from __future__ import annotations

import io

import ipywidgets
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ldm_course.lab.shared import plots, widgets


def test_the_scrubber_shows_the_frame_that_the_slider_points_at(frames):
    widget = widgets.scrubber(frames)
    (play, slider), text, image = widget.children[0].children, *widget.children[1:]
    assert isinstance(play, ipywidgets.Play) and play.max == slider.max == len(frames) - 1
    for i in (3, 0, len(frames) - 1):
        slider.value = i
        drawn = Image.open(io.BytesIO(image.value))
        assert drawn.size == plots.strip(frames[i]).size
        assert image.value == plots.jpeg(plots.strip(frames[i]))
        assert text.value == widgets.describe(frames[i])


@pytest.mark.parametrize("kind", ["images", "figures"])
def test_the_flipbook_turns_to_the_page_that_the_slider_points_at(kind):
    pages = [Image.new("RGB", (40, 20), colour) for colour in ("red", "blue")]
    if kind == "figures":
        pages = [Figure(figsize=(1, size)) for size in (1, 2)]
    encode = plots.png if kind == "figures" else plots.jpeg
    slider, image = widgets.flipbook(pages, ["t = 0", "t = 1"], "time").children
    assert slider.label == "t = 0" and image.value == encode(pages[0])
    slider.label = "t = 1"
    assert image.value == encode(pages[1])


def test_a_widget_has_words_for_pages_without_a_kernel(frames, shown):
    widget = widgets.scrubber(frames)
    widgets.show(widget, "Run me.")
    ((bundle, _),) = shown
    assert bundle["text/plain"] == "Run me."
    view = bundle.get("application/vnd.jupyter.widget-view+json")
    assert view is None or view["model_id"] == widget.model_id
