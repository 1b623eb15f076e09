"""Notebook 05: the loop that it defines, its exercises, its studio, its figures and images of one's own."""

from __future__ import annotations

import asyncio
import functools
import io

import ipywidgets
import pytest
from helpers import one_sentence, pixel_difference
from lab_helpers import GRADIENT, definitions, until
from PIL import Image

import ldm_course as ldm
from ldm_course import lab
from ldm_course.images import to_pil
from ldm_course.lab import nb05_img2img as nb
from ldm_course.lab.shared.verdict import draws
from ldm_course.masks import region_mask
from ldm_course.pipelines import Options, sample


def test_the_loop_of_the_experiments_continues_a_start_as_the_package_does(model):
    defined = definitions("05_img2img", small=model, GUIDANCE=4.0)
    z, noise = draws(2, (1, 4, 8, 8))
    timesteps = model.schedule.timesteps(6)
    (mine,) = defined["run"](model.schedule.add_noise(z, noise, timesteps[3]), ["a dog"], timesteps[3:])
    contexts = model.embed(["a dog"]), model.embed([""])
    options = Options(None, 6, 4.0, 0, None, "ddim", None, False)
    x = sample(model, model.schedule.add_noise(z, noise, timesteps[3]), contexts, timesteps[3:], None, options)
    assert pixel_difference(mine, to_pil(model.decode(x))[0]) <= 1


# ---- the exercises ---------------------------------------------------------------------------------------------


def test_the_seeded_mistake_without_a_mistake_is_right(model):
    case = ("a dog", GRADIENT, 0.5, 3)
    assert pixel_difference(nb.checks._mistaken(model, *case), nb.checks.reference(model, *case)) <= 1


def test_each_bug_changes_the_images(model):
    right = nb.broken.images(model, GRADIENT, None, "a dog")
    assert pixel_difference(right[0], nb.checks.reference(model, "a dog", GRADIENT, 0.6, 0)) > 1, "other noise"
    for letter in nb.broken.BUGS:
        assert pixel_difference(right[0], nb.broken.images(model, GRADIENT, letter, "a dog")[0]) > 1, letter
    assert {bug.number for bug in nb.broken.BUGS.values()} == {1, 2, 3, 4}
    assert nb.broken.figure(model, GRADIENT).width > 800


@pytest.mark.parametrize("rounds", [3, 5])
def test_inversion_with_further_rounds_is_right(model, rounds):
    verdict = nb.checks.inversion(functools.partial(nb.checks.invert, rounds=rounds), model)
    assert verdict.status == "right" and "away from the image's" in verdict.message


def test_image_to_image_without_the_posteriors_noise_is_wrong_on_the_shipped_model_too():
    """There one cannot see it: its posterior is so narrow that no pixel changes by more than 1."""
    small = ldm.load(device="cpu")
    mean = functools.partial(nb.checks._mistaken, mean=True)
    verdict = nb.checks.img2img(mean, small)
    assert verdict.status == "wrong" and "the posterior's mean" in verdict.message
    other = nb.checks.img2img(lambda _, *case: nb.checks.reference(small, *case), small)
    assert other.message.startswith("This uses `small`")
    assert nb.checks.img2img(nb.checks._mistaken, small).status == "right"


# ---- the studio ------------------------------------------------------------------------------------------------


def test_sampler_yields_between_steps_and_equals_img2img(model):
    first, *between, last = nb.studio.Sampler(model, GRADIENT, 6)("a dog", 0.5, 1)
    assert list(first) == ["noisy start", "first estimate"] and list(last) == ["noisy start", "result"]
    assert between == [None] * 2, "newer work may come first after each of three steps"
    assert pixel_difference(first["noisy start"], last["result"]) > 1
    with lab.plug(reparameterize=lambda mean, std, noise: mean):  # the posterior's mean in place of a sample
        theirs = ldm.img2img(
            model, "a dog", GRADIENT, strength=0.5, num_inference_steps=6, guidance_scale=4.0, seed=1
        )
    assert pixel_difference(last["result"], theirs) <= 1
    (only,) = nb.studio.Sampler(model, GRADIENT, 6)("a dog", 0.0, 1)
    assert pixel_difference(only["noisy start"], only["result"]) == 0, "at strength 0 there is no step"


def test_panel_follows_every_control(model):
    box = nb.studio.panel(nb.studio.Sampler(model, GRADIENT, 4), "a dog")
    strength, prompt, seed, image, _ = box.children
    seen = {image.value}
    for control, value in ((strength, 1.0), (strength, 0.25), (seed, 5), (prompt, "a cat")):
        control.value = value
        seen.add(image.value)
    assert len(seen) == 5 and box.newest.done == 5


def test_panel_shows_an_estimate_for_each_value_of_a_drag(model):
    async def drag() -> tuple[list[bytes], ipywidgets.VBox]:
        box = nb.studio.panel(nb.studio.Sampler(model, GRADIENT, 50), "a dog")
        strength, *_, image, _ = box.children
        seen = [image.value]
        for i in range(1, 7):
            strength.value = i / 10
            await until(lambda: image.value != seen[-1])  # the first estimate at this strength
            seen.append(image.value)
        await until(lambda: box.newest.done)
        return [*seen, image.value], box

    seen, box = asyncio.run(drag())
    assert len(set(seen)) == 8, "an empty image, an estimate for each of six values, and the last one's result"
    assert box.newest.cancelled == 5 and box.newest.value["strength"] == 0.6


# ---- figures ---------------------------------------------------------------------------------------------------


def test_figures(model):
    entry = nb.figures.entry(model.schedule, model.schedule.timesteps(20), 12)
    texts = [text.get_text() for text in entry.axes[0].texts]
    assert "t = 551" in texts and "skipped: 8 steps" in texts
    plot = nb.figures.plot_strength((0.5, 1.0), [0.1, 0.3], {"glasses": [1, 2], "place": [0, 2]})
    assert len(plot.axes) == 2


# ---- images of your own ----------------------------------------------------------------------------------------


class Upload:
    """Stands in for an upload button with a chosen file."""

    def __init__(self, value):
        self.value = value


def png(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, format="png")
    return file.getvalue()


@pytest.mark.parametrize("version", [7, 8])
def test_uploaded_image(version):
    content = png((30, 20))
    files = {7: {"a.png": {"content": content}}, 8: ({"name": "a.png", "content": memoryview(content)},)}
    assert nb.studio.uploaded_image(Upload(files[version]), GRADIENT).size == (30, 20)
    assert nb.studio.uploaded_image(ipywidgets.FileUpload(), GRADIENT) is GRADIENT
    with one_sentence("not an image"):
        nb.studio.uploaded_image(Upload({"a.txt": {"content": b"words"}}), GRADIENT)


def test_drawing_pad_repaints_what_is_drawn(model):
    pad = nb.studio.DrawingPad(model, "a dog")
    image = pad.panel.children[-2]
    seen = [image.value]
    for colour, region in (("#ff0000", "lower-half"), ("#0000ff", "left-half")):
        pad.colour.value = colour  # the strokes so far keep theirs
        assert pad.painter.mask == ""
        pad.painter.mask_image = region_mask(region, (64, 64))
        seen.append(image.value)
    assert len(set(seen)) == 3
    drawing = pad.drawing
    assert drawing.getpixel((60, 60)) == (255, 0, 0) and drawing.getpixel((3, 60)) == (0, 0, 255)
    assert drawing.getpixel((60, 3)) == nb.studio.landscape(64).getpixel((60, 3))
    pad.panel.children[0].value = 0.9
    assert image.value not in seen, "the slider works on the drawing"


def test_drawing_pad_takes_an_uploaded_image(model):
    pad = nb.studio.DrawingPad(model, "a dog", Image.new("RGB", (30, 20), "green"))
    assert pad.drawing.size == (64, 64) and pad.drawing.getpixel((9, 9)) == (0, 128, 0)
    before = pad.panel.children[-2].value
    for content, note in ((png((100, 200)), ""), (b"words", "not an image")):
        pad.upload = Upload({"a.png": {"content": content}})
        pad._on_upload(None)
        assert pad.drawing.getpixel((9, 9)) == (255, 0, 0) and note in pad.note.value
        assert bool(pad.note.value) == bool(note) and pad.panel.children[-2].value != before
