"""The worker of widgets that answer while a control moves."""

from __future__ import annotations

import asyncio

import ipywidgets
import pytest
from lab_helpers import until

from ldm_course.errors import InputError
from ldm_course.lab.shared.live import Newest, follow


def counting(log: list, steps: int = 5):
    def work(value):
        for step in range(steps):
            log.append((value, step))
            yield

    return work


def test_a_newer_value_cancels_older_work():
    log: list = []
    newest = Newest(counting(log), ipywidgets.Label())

    async def drag() -> None:
        newest.request(1)
        await until(lambda: log)  # the first value has begun
        newest.request(2)
        newest.request(3)  # 2 is never begun
        await until(lambda: newest.done)

    asyncio.run(drag())
    assert (newest.done, newest.cancelled) == (1, 1)
    assert {value for value, _ in log} == {1, 3} and (1, 4) not in log
    assert [step for value, step in log if value == 3] == [0, 1, 2, 3, 4]


def test_without_an_event_loop_the_work_is_done_at_once():
    log: list = []
    newest = Newest(counting(log, 2), ipywidgets.Label())
    newest.request("a")
    assert log == [("a", 0), ("a", 1)] and newest.done == 1


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
