"""Images that follow a control while it moves: a newer value cancels older work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import ipywidgets

from ldm_course.errors import InputError

PAUSE = 0.002  # seconds given to the kernel between two steps, in which it receives newer values


class Newest:
    """Do `work` for the newest value only.

    A notebook's kernel handles a slider's messages one after the other, so work done in a callback makes them queue.
    Here the callback only stores the value. The work is a generator that yields often, between the steps of a loop
    for example. Whenever it yields, newer messages are handled, and if the value has changed, the work starts again
    with it.

    work: called with a value; what it yields is ignored.
    note: shows the message of any error that ends the work; without it the image would just freeze.
    value: the newest.
    done, cancelled: how many works have ended, and how many were cancelled.
    """

    def __init__(self, work: Callable[[Any], Generator], note: ipywidgets.Label):
        self.work, self.note = work, note
        self.value: Any = None
        self.done = self.cancelled = 0
        self._waiting: list[Any] = []  # the newest value, or nothing
        self._task: asyncio.Task | None = None

    def request(self, value: Any) -> None:
        """Work with this value as soon as possible; at once and to the end where no event loop runs, as in tests."""
        self.value, self._waiting = value, [value]
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            for _ in self._noted(self._waiting.pop()):
                pass
            self.done += 1
            return
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())

    def _noted(self, value: Any) -> Generator:
        """The work; an error ends it, and is shown in the note."""
        try:
            yield from self.work(value)
        except InputError as error:
            self.note.value = str(error)
        except Exception as error:
            self.note.value = f"{type(error).__name__}: {error}"

    async def _run(self) -> None:
        while self._waiting:
            work = self._noted(self._waiting.pop())
            for _ in work:
                await asyncio.sleep(PAUSE)
                if self._waiting:
                    work.close()
                    self.cancelled += 1
                    break
            else:
                self.done += 1


def follow(
    controls: dict[str, ipywidgets.Widget], work: Callable[[dict[str, Any]], Generator], note: ipywidgets.Label
) -> Newest:
    """Do `work` now, and again whenever a control's value changes, with all their values by name."""
    newest = Newest(work, note)

    def changed(_: Any) -> None:
        newest.request({name: control.value for name, control in controls.items()})

    for control in controls.values():
        control.observe(changed, names="value")
    changed(None)
    return newest
