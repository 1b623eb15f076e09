"""Notebook 05: typical wrong answers, the function that it defines, its studio and its experiment."""

from __future__ import annotations

import asyncio
import dataclasses
import io

import ipywidgets
import pytest
import torch
from helpers import one_sentence, pixel_difference
from lab_helpers import until
from PIL import Image
from test_notebooks import assert_hint, cells, each_mistake, python, run

import ldm_course as ldm
from ldm_course import lab
from ldm_course.evaluate.classifier import Classifier
from ldm_course.lab import nb05_img2img as nb
from ldm_course.masks import region_mask
from ldm_course.pipelines import strength_timesteps

NAME = "05_img2img"
LOOP = "return list(ldm.denoise(model, {}, context, timesteps, negative_context=empty, guidance_scale=7.5))[-1].x_t"

# The body of each wrong answer, and words of the hint that it must get.
WRONG: dict[str, list[tuple[str, str]]] = {
    "timesteps": [
        ("return timesteps[: int(len(timesteps) * strength)]", "the most noise"),
        ("return timesteps[int(len(timesteps) * strength) :]", "share to keep"),
        ("return timesteps[-int(len(timesteps) * strength) :]", "t[-0:]"),
        ("return timesteps[len(timesteps) - round(len(timesteps) * strength) :]", "nearest"),
        ("return timesteps[len(timesteps) + int(-len(timesteps) * strength // 1) :]", "rounded up"),
        ("return [t for t in timesteps if t < 1000 * strength]", "number of timesteps"),
    ],
    "steps": [
        ("return done", "only a share of them"),
        ("return int(done * strength)", "the number to ask for"),
        ("return int(done / strength)", "This rounds down"),
        ("return round(done / strength)", "to the nearest"),
        ("return done / strength", "must be whole"),
        ("return int(done / strength) + 1", "one step too many"),
    ],
    "start": [
        ("return z + noise", "Both terms have full weight"),
        ("return z + (1 - alpha_bar) ** 0.5 * noise", "z has full weight"),
        ("return alpha_bar * z + (1 - alpha_bar) * noise", "square roots"),
        ("return (1 - alpha_bar) ** 0.5 * z + alpha_bar**0.5 * noise", "swapped"),
        ("return noise", "z is missing"),
        ("return alpha_bar**0.5 * z", "noise is missing"),
    ],
    "repaint": [
        (LOOP.format("noise"), "noise alone"),
        (LOOP.format("z"), "without any noise"),
        (LOOP.format("model.schedule.add_noise(z, noise, timesteps[-1])"), "*last* timestep"),
        (LOOP.format("model.schedule.add_noise(z, noise, 999)"), "t = 999"),
        ("context, empty = empty, context\n    x = model.schedule.add_noise(z, noise, timesteps[0])\n    "
         + LOOP.format("x"), "contexts are swapped"),
        ("return model.schedule.add_noise(z, noise, timesteps[0])", "noisy start"),
    ],
}  # fmt: skip


@each_mistake(WRONG)
def test_a_typical_mistake_gets_its_hint(title, body, hint, model):
    assert_hint(NAME, title, body, hint, model)


IMAGE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")


def test_img2img_by_hand_equals_the_package(model):
    namespace = {"torch": torch, "ldm": ldm, "model": model}
    for cell in cells(NAME, "code"):
        if cell.id in ("strength", "hand"):
            run(python(cell), namespace)
    for strength in (0.0, 0.5, 1.0):
        generator = torch.Generator().manual_seed(3)
        mine = namespace["img2img_by_hand"](model, "a dog", IMAGE, strength, 6, 3.0, generator)
        theirs = ldm.img2img(
            model, "a dog", IMAGE, strength=strength, num_inference_steps=6, guidance_scale=3.0, seed=3
        )
        assert pixel_difference(mine, theirs) <= 1
        for n in (1, 7, 50):
            steps = list(range(n))
            assert namespace["timesteps_left"](steps, strength) == strength_timesteps(steps, strength)


# ---- the studio ------------------------------------------------------------------------------------------------


def test_sampler_yields_between_steps(model):
    sampler = nb.studio.Sampler(model, IMAGE, 6)
    first, *between, last = sampler("a dog", 0.5, 1)
    assert list(first) == ["noisy start", "first estimate"] and list(last) == ["noisy start", "result"]
    assert between == [None] * 2, "newer work may come first after each of three steps"
    assert pixel_difference(first["noisy start"], last["result"]) > 1
    (only,) = sampler("a dog", 0.0, 1)
    assert pixel_difference(only["noisy start"], only["result"]) == 0, "at strength 0 there is no step"


def test_sampler_equals_img2img(model):
    *_, last = nb.studio.Sampler(model, IMAGE, 4)("a dog", 0.75, 1)
    with lab.plug(reparameterize=lambda mean, std, noise: mean):  # the posterior's mean in place of a sample
        theirs = ldm.img2img(model, "a dog", IMAGE, strength=0.75, num_inference_steps=4, seed=1)
    assert pixel_difference(last["result"], theirs) <= 1


def test_panel_follows_every_control(model):
    box = nb.studio.panel(nb.studio.Sampler(model, IMAGE, 4), "a dog")
    strength, prompt, seed, image, _ = box.children
    seen = {image.value}
    for control, value in ((strength, 1.0), (strength, 0.25), (seed, 5), (prompt, "a cat")):
        control.value = value
        seen.add(image.value)
    assert len(seen) == 5 and box.newest.done == 5


def test_panel_shows_an_estimate_for_each_value_of_a_drag(model):
    async def drag() -> tuple[list[bytes], ipywidgets.VBox]:
        box = nb.studio.panel(nb.studio.Sampler(model, IMAGE, 50), "a dog")
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


# ---- the experiment --------------------------------------------------------------------------------------------


def test_sweep_strength_and_its_plot(model):
    scenes = [ldm.scenes.Scene(animal="dog"), ldm.scenes.Scene(animal="cat")]
    targets = [dataclasses.replace(scene, accessory="glasses", place="snow") for scene in scenes]
    strengths = (0.0, 1.0, None)
    sweep = nb.experiment.sweep_strength(
        model, Classifier().eval(), scenes, targets, strengths, num_inference_steps=4
    )
    assert sweep.distance.shape == sweep.accessory.shape == sweep.place.shape == (3, 2)
    assert sweep.kept.shape == (3, 2) and set(sweep.kept.flatten().tolist()) <= {0.0, 0.5, 1.0}
    assert [len(images) for images in sweep.images] == [2] * 3
    for part in (strengths, strengths[:2]):
        names = ("distance", "accessory", "place", "kept")
        values = {name: getattr(sweep, name)[: len(part)] for name in names}
        assert len(nb.figures.plot_strength(part, dataclasses.replace(sweep, **values)).axes) == 2


def test_sweep_strength_without_an_input_is_text_to_image(model):
    scene = ldm.scenes.Scene(animal="dog")
    target = dataclasses.replace(scene, accessory="hat", place="room")
    sweep = nb.experiment.sweep_strength(
        model, Classifier().eval(), [scene], [target], (None,), num_inference_steps=4
    )
    theirs = ldm.txt2img(model, "a dog with a hat in a room", seed=0, num_inference_steps=4)
    assert pixel_difference(sweep.images[0][0], theirs) <= 1


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
    assert nb.studio.uploaded_image(Upload(files[version]), IMAGE).size == (30, 20)
    assert nb.studio.uploaded_image(ipywidgets.FileUpload(), IMAGE) is IMAGE
    with one_sentence("not an image"):
        nb.studio.uploaded_image(Upload({"a.txt": {"content": b"words"}}), IMAGE)


def test_drawing_pad_repaints_what_is_drawn(model):
    pad = nb.studio.DrawingPad(model, "a dog")
    image = pad.panel.children[-2]
    seen = [image.value]
    pad.colour.value = "#ff0000"
    pad.painter.mask_image = region_mask("lower-half", (64, 64))
    seen.append(image.value)
    pad.colour.value = "#0000ff"  # the strokes so far stay red
    assert pad.painter.mask == ""
    pad.painter.mask_image = region_mask("left-half", (64, 64))
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
    pad.upload = Upload({"a.png": {"content": png((100, 200))}})
    pad._on_upload(None)
    assert pad.drawing.getpixel((9, 9)) == (255, 0, 0) and pad.note.value == ""
    assert pad.panel.children[-2].value != before
    pad.upload = Upload({"a.txt": {"content": b"words"}})
    pad._on_upload(None)
    assert "not an image" in pad.note.value and pad.drawing.getpixel((9, 9)) == (255, 0, 0)
