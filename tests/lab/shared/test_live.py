"""The widgets that answer while one moves them, and the mask painter's Python side."""

from __future__ import annotations

import asyncio

import ipywidgets
import numpy as np
import pytest
from helpers import one_sentence
from PIL import Image

from ldm_course.errors import InputError
from ldm_course.lab.live import Newest, follow
from ldm_course.lab.painter import MaskPainter, box_mask


def counting(log: list, steps: int = 5):
    def work(value):
        for step in range(steps):
            log.append((value, step))
            yield

    return work


def test_a_newer_value_cancels_older_work():
    async def drag() -> tuple[Newest, list]:
        log: list = []
        newest = Newest(counting(log), ipywidgets.Label())
        newest.request(1)
        await asyncio.sleep(0.004)  # the first value has begun
        newest.request(2)
        newest.request(3)  # 2 is never begun
        await asyncio.sleep(0.1)
        return newest, log

    newest, log = asyncio.run(drag())
    assert (newest.done, newest.cancelled) == (1, 1)
    assert {value for value, _ in log} == {1, 3} and (1, 4) not in log
    assert [step for value, step in log if value == 3] == [0, 1, 2, 3, 4]


def test_without_an_event_loop_the_work_is_done_at_once():
    log: list = []
    newest = Newest(counting(log, 2), ipywidgets.Label())
    newest.request("a")
    assert log == [("a", 0), ("a", 1)] and newest.done == 1


def refusing(value):
    yield
    raise InputError(f"{value} cannot be painted.")


def test_why_nothing_came_is_said_with_and_without_an_event_loop():
    async def once() -> ipywidgets.Label:
        newest = Newest(refusing, ipywidgets.Label())
        newest.request("this")
        await asyncio.sleep(0.05)
        return newest.note

    assert asyncio.run(once()).value == "this cannot be painted."
    newest = Newest(refusing, ipywidgets.Label())
    newest.request("that")
    assert newest.note.value == "that cannot be painted."


def test_controls_are_followed():
    log: list = []
    slider, box = ipywidgets.FloatSlider(value=0.5), ipywidgets.Text(value="a dog")

    def work(values):
        log.append(values)
        yield

    follow({"strength": slider, "prompt": box}, work, ipywidgets.Label())
    slider.value = 0.7
    box.value = "a cat"
    assert log == [
        {"strength": 0.5, "prompt": "a dog"},
        {"strength": 0.7, "prompt": "a dog"},
        {"strength": 0.7, "prompt": "a cat"},
    ]


PICTURE = Image.new("RGB", (96, 64), "navy")


def test_the_painter_starts_empty_and_gives_back_the_mask_it_was_given():
    assert MaskPainter(PICTURE).mask_image.getbbox() is None
    soft = Image.linear_gradient("L").resize((96, 64))
    for mask in (box_mask((96, 64), 0, 0.5, 1, 1), soft):
        given_back = MaskPainter(PICTURE, mask).mask_image
        assert given_back.mode == "L" and np.array_equal(np.asarray(given_back), np.asarray(mask))


def test_the_painter_refuses_a_mask_of_another_size():
    with one_sentence("64x64", "96x64"):
        MaskPainter(PICTURE).mask_image = Image.new("L", (64, 64), 255)


def test_a_box_is_given_in_shares():
    mask = np.asarray(box_mask((96, 64), 0, 0.5, 1, 1))
    assert mask[:32].max() == 0 and mask[32:].min() == 255
    for box in ((0.5, 0, 0.5, 1), (0, 0, 1, 1.5), (-0.1, 0, 1, 1), (0, 1, 1, 0)):
        with one_sentence("box"):
            box_mask((96, 64), *box)


@pytest.mark.parametrize("name", ["picture", "size", "mask", "brush"])
def test_what_the_page_needs_travels(name):
    assert name in MaskPainter(PICTURE).keys
