"""Pictures that follow a control while it moves: newer values cancel older work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import ipywidgets

from ldm_course.errors import InputError

PAUSE = 0.002  # seconds given to the kernel between two steps, in which it reads newer values


class Newest:
    """Do `work` for the newest value only.

    A notebook's kernel handles a slider's messages one after the other, so work done in a callback makes them queue.
    Here the callback only notes the value. The work is a generator that yields often, between the steps of a loop
    say; whenever it yields, newer messages are read, and if the value has changed, the work starts again with it.

    work: called with a value; what it yields is ignored.
    note: says why, if the work ends with an InputError; a picture that merely stopped would not.
    value: the newest.
    done, cancelled: how often it came to its end, and how often it was given up.
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
            for _ in self._explained(self._waiting.pop()):
                pass
            self.done += 1
            return
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())

    def _explained(self, value: Any) -> Generator:
        try:
            yield from self.work(value)
        except InputError as error:
            self.note.value = str(error)

    async def _run(self) -> None:
        while self._waiting:
            work = self._explained(self._waiting.pop())
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
    """Do `work` whenever a control's value changes, with the values of all of them by name; and once now."""
    newest = Newest(work, note)

    def changed(_: Any) -> None:
        newest.request({name: control.value for name, control in controls.items()})

    for control in controls.values():
        control.observe(changed, names="value")
    changed(None)
    return newest
