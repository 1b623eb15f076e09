"""Notebook 05: its typical wrong answers, what it defines, what it measures and draws. On a tiny model."""

from __future__ import annotations

import asyncio
import dataclasses
import io

import ipywidgets
import pytest
import torch
from helpers import one_sentence, pixel_difference
from PIL import Image
from test_notebooks import assert_hint, cells, each_mistake, python, run

import ldm_course as ldm
from ldm_course import lab
from ldm_course.pipelines import strength_timesteps
from ldm_course.training.judge import Judge

NAME = "05_img2img"
LOOP = "return list(ldm.denoise(model, {}, context, timesteps, negative_context=empty, guidance_scale=7.5))[-1].x_t"

# The body of each wrong answer, and words of the hint that it must get.
WRONG: dict[str, list[tuple[str, str]]] = {
    "timesteps": [
        ("return timesteps[: int(len(timesteps) * strength)]", "the noisiest"),
        ("return timesteps[int(len(timesteps) * strength) :]", "share to keep"),
        ("return timesteps[-int(len(timesteps) * strength) :]", "t[-0:]"),
        ("return timesteps[len(timesteps) - round(len(timesteps) * strength) :]", "nearest"),
        ("return timesteps[len(timesteps) + int(-len(timesteps) * strength // 1) :]", "rounds up"),
        ("return [t for t in timesteps if t < 1000 * strength]", "their number"),
    ],
    "steps": [
        ("return done", "only a share"),
        ("return int(done * strength)", "is to be asked for"),
        ("return int(done / strength)", "rounds down"),
        ("return round(done / strength)", "to the nearest"),
        ("return done / strength", "is whole"),
        ("return int(done / strength) + 1", "one step more"),
    ],
    "start": [
        ("return z + noise", "full weight"),
        ("return z + (1 - alpha_bar) ** 0.5 * noise", "picture keeps"),
        ("return alpha_bar * z + (1 - alpha_bar) * noise", "square roots"),
        ("return (1 - alpha_bar) ** 0.5 * z + alpha_bar**0.5 * noise", "swapped"),
        ("return noise", "text-to-image"),
        ("return alpha_bar**0.5 * z", "leaves the noise out"),
    ],
    "repaint": [
        (LOOP.format("noise"), "noise alone"),
        (LOOP.format("z"), "without any noise"),
        (LOOP.format("model.schedule.add_noise(z, noise, timesteps[-1])"), "*last* timestep"),
        (LOOP.format("model.schedule.add_noise(z, noise, 999)"), "t = 999"),
        ("context, empty = empty, context\n    x = model.schedule.add_noise(z, noise, timesteps[0])\n    "
         + LOOP.format("x"), "contexts are swapped"),
        ("return model.schedule.add_noise(z, noise, timesteps[0])", "yet to run"),
    ],
}  # fmt: skip


@each_mistake(WRONG)
def test_a_typical_mistake_gets_a_hint_that_names_it(title, body, hint, model):
    assert_hint(NAME, title, body, hint, model)


PICTURE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")


def test_by_hand_it_is_the_package_s(model):
    namespace = {"torch": torch, "ldm": ldm, "model": model}
    for cell in cells(NAME, "code"):
        if cell.id in ("strength", "hand"):
            run(python(cell), namespace)
    for strength in (0.0, 0.5, 1.0):
        generator = torch.Generator().manual_seed(3)
        mine = namespace["img2img_by_hand"](model, "a dog", PICTURE, strength, 6, 3.0, generator)
        theirs = ldm.img2img(
            model, "a dog", PICTURE, strength=strength, num_inference_steps=6, guidance_scale=3.0, seed=3
        )
        assert pixel_difference(mine, theirs) <= 1
        for n in (1, 7, 50):
            steps = list(range(n))
            assert namespace["timesteps_left"](steps, strength) == strength_timesteps(steps, strength)


# ---- the slider ------------------------------------------------------------------------------------------------


def test_the_repainter_yields_between_steps(model):
    repainter = lab.strength.Repainter(model, PICTURE, 4)
    first, *between, last = repainter("a dog", 0.5, 1)
    assert list(first) == ["noisy start", "first guess"] and list(last) == ["noisy start", "result"]
    assert between == [None] * 2, "after each of two steps newer work may come first"
    assert pixel_difference(first["noisy start"], last["result"]) > 1
    (_, only) = repainter("a dog", 0.0, 1)
    assert pixel_difference(only["noisy start"], only["result"]) == 0, "at strength 0 nothing is done"


def test_the_repainter_paints_the_pipeline_s_picture(model):
    *_, last = lab.strength.Repainter(model, PICTURE, 4)("a dog", 0.75, 1)
    with lab.plug(reparameterize=lambda mean, std, noise: mean):  # the posterior's mean for the draw from it
        theirs = ldm.img2img(model, "a dog", PICTURE, strength=0.75, num_inference_steps=4, seed=1)
    assert pixel_difference(last["result"], theirs) <= 1


def test_the_slider_moves_the_picture(model):
    box = lab.strength.studio(lab.strength.Repainter(model, PICTURE, 4), "a dog")
    strength, prompt, seed, image, _ = box.children
    seen = {image.value}
    for control, value in ((strength, 1.0), (strength, 0.25), (seed, 5), (prompt, "a cat")):
        control.value = value
        seen.add(image.value)
    assert len(seen) == 5 and box.newest.done == 5


def test_while_it_is_dragged_the_picture_follows(model):
    async def drag() -> tuple[list[bytes], ipywidgets.VBox]:
        box = lab.strength.studio(lab.strength.Repainter(model, PICTURE, 50), "a dog")
        strength, *_, image, _ = box.children
        seen = []
        for i in range(1, 7):
            strength.value = i / 10
            await asyncio.sleep(0.03)  # less than its 50 steps take
            seen.append(image.value)
        while box.newest.done == 0:
            await asyncio.sleep(0.03)
        return [*seen, image.value], box

    seen, box = asyncio.run(drag())
    assert len(set(seen)) == 7, "each value shows its first guess at least, and the last one its result"
    assert box.newest.cancelled >= 3 and box.newest.value["strength"] == 0.6


# ---- measuring -------------------------------------------------------------------------------------------------


def test_outcomes_are_measured(model):
    judge_of_nothing = Judge().eval()
    scenes = [ldm.scenes.Scene(animal="dog"), ldm.scenes.Scene(animal="cat")]
    wishes = [dataclasses.replace(scene, accessory="glasses", place="snow") for scene in scenes]
    levels = (0.0, 1.0, None)
    found = lab.strength.outcomes(model, judge_of_nothing, scenes, wishes, levels, num_inference_steps=2)
    assert found.distance.shape == found.accessory.shape == found.place.shape == (3, 2)
    assert found.kept.shape == (3, 2) and set(found.kept.flatten().tolist()) <= {0.0, 0.5, 1.0}
    assert [len(pictures) for pictures in found.pictures] == [2] * 3
    for strengths in (levels, levels[:2]):
        part = dataclasses.replace(found, **{
            name: getattr(found, name)[: len(strengths)] for name in ("distance", "accessory", "place", "kept")
        })  # fmt: skip
        assert len(lab.strength.freedom(strengths, part).axes) == 2


def test_without_a_picture_it_is_text_to_image(model):
    scene = ldm.scenes.Scene(animal="dog")
    wish = dataclasses.replace(scene, accessory="hat", place="room")
    found = lab.strength.outcomes(model, Judge().eval(), [scene], [wish], (None,), num_inference_steps=2)
    theirs = ldm.txt2img(model, "a dog with a hat in a room", seed=0, num_inference_steps=2)
    assert pixel_difference(found.pictures[0][0], theirs) <= 1


# ---- pictures from anywhere ------------------------------------------------------------------------------------


class Chosen:
    """Stands in for an upload button in which a file was chosen."""

    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize("version", [7, 8])
def test_a_picture_can_be_chosen(version):
    file = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(file, format="png")
    files = {
        7: {"a.png": {"content": file.getvalue()}},
        8: ({"name": "a.png", "content": memoryview(file.getvalue())},),
    }
    assert lab.strength.uploaded(Chosen(files[version]), PICTURE).size == (30, 20)
    assert lab.strength.uploaded(ipywidgets.FileUpload(), PICTURE) is PICTURE
    with one_sentence("not a picture"):
        lab.strength.uploaded(Chosen({"a.txt": {"content": b"words"}}), PICTURE)


def test_what_is_drawn_is_repainted(model):
    easel = lab.strength.Easel(model, "a dog")
    image = easel.studio.children[-2]
    seen = [image.value]
    lower, left = lab.box_mask((64, 64), 0, 0.5, 1, 1), lab.box_mask((64, 64), 0, 0, 0.5, 1)
    easel.colour.value = "#ff0000"
    easel.painter.mask_image = lower
    seen.append(image.value)
    easel.colour.value = "#0000ff"  # what is drawn so far stays red
    assert easel.painter.mask == ""
    easel.painter.mask_image = left
    seen.append(image.value)
    assert len(set(seen)) == 3
    drawing = easel.drawing
    assert drawing.getpixel((60, 60)) == (255, 0, 0) and drawing.getpixel((3, 60)) == (0, 0, 255)
    assert drawing.getpixel((60, 3)) == lab.strength.landscape(64).getpixel((60, 3))
    easel.studio.children[0].value = 0.9
    assert image.value not in seen, "the slider goes on with the drawing"


def test_a_chosen_file_is_drawn_on(model):
    easel = lab.strength.Easel(model, "a dog", Image.new("RGB", (30, 20), "green"))
    assert easel.drawing.size == (64, 64) and easel.drawing.getpixel((9, 9)) == (0, 128, 0)
    file = io.BytesIO()
    Image.new("RGB", (100, 200), "red").save(file, format="png")
    before = easel.studio.children[-2].value
    easel.upload = Chosen({"a.png": {"content": file.getvalue()}})
    easel._chosen(None)
    assert easel.drawing.getpixel((9, 9)) == (255, 0, 0) and easel.note.value == ""
    assert easel.studio.children[-2].value != before
    easel.upload = Chosen({"a.txt": {"content": b"words"}})
    easel._chosen(None)
    assert "not a picture" in easel.note.value and easel.drawing.getpixel((9, 9)) == (255, 0, 0)
