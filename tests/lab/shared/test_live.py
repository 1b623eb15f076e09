"""The worker of widgets that answer while a control moves."""

from __future__ import annotations

import asyncio

import ipywidgets
import pytest
from lab_helpers import until

from ldm_course.errors import InputError
from ldm_course.lab.shared.live import Newest, follow


@pytest.mark.parametrize("values, cancelled", [([1], 0), ([1, 2, 3], 1)])
def test_a_newer_value_cancels_older_work(values, cancelled):
    log: list = []

    def work(value):
        for step in range(5):
            log.append((value, step))
            yield

    async def drag() -> Newest:
        newest = Newest(work, ipywidgets.Label())
        newest.request(values[0])
        await until(lambda: log)  # the first value has begun
        for value in values[1:]:
            newest.request(value)
        await until(lambda: newest.done)
        return newest

    newest = asyncio.run(drag())
    assert (newest.done, newest.cancelled) == (1, cancelled)
    assert {value for value, _ in log} == {values[0], values[-1]}, "those between are never begun"
    assert [(value, 4) in log for value in values] == [value == values[-1] for value in values]


@pytest.mark.parametrize(
    "error, message",
    [
        (InputError("The mask is empty."), "The mask is empty."),
        (RuntimeError("no kernel"), "RuntimeError: no kernel"),
        (MemoryError("The memory ran out."), "MemoryError: The memory ran out."),
    ],
)
def test_an_error_is_shown_with_and_without_an_event_loop(error, message):
    def work(value):
        yield
        if value == "bad":
            raise error

    async def once() -> Newest:
        newest = Newest(work, ipywidgets.Label())
        newest.request("bad")
        await until(lambda: newest.note.value)
        newest.request("good")  # and the widget goes on
        await until(lambda: newest.done == 2)
        return newest

    assert asyncio.run(once()).note.value == message
    newest = Newest(work, ipywidgets.Label())
    newest.request("bad")
    assert newest.note.value == message


def test_controls_are_followed_without_an_event_loop():
    slider, box, log = ipywidgets.FloatSlider(value=0.5), ipywidgets.Text(value="a dog"), []

    def work(values):
        log.append(tuple(values.values()))
        yield

    follow({"strength": slider, "prompt": box}, work, ipywidgets.Label())
    slider.value = 0.7
    box.value = "a cat"
    assert log == [(0.5, "a dog"), (0.7, "a dog"), (0.7, "a cat")]
