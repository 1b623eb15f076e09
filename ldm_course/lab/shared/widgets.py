"""Widgets of core ipywidgets only, so that they run with version 7 (Colab) and 8. All frames are drawn ahead."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence

import ipywidgets
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from ldm_course.errors import check_choice
from ldm_course.lab.shared.plots import Frame, jpeg, png, strip


def describe(frame: Frame) -> str:
    """A frame of the loop in words."""
    if frame.t < 0:
        return "The end: no step is left, and x_t is the finished latent."
    return f"t = {frame.t}. The estimate x0_hat is {frame.distance:.0%} of the finished latent's length away from it."


def scrubber(frames: Sequence[Frame], say: Callable[[Frame], str] = describe) -> ipywidgets.VBox:
    """Drag or play through frames, such as those of `plots.trajectory`; `say` puts each into words."""
    drawings = [jpeg(strip(frame)) for frame in frames]
    last = len(frames) - 1
    image = ipywidgets.Image(value=drawings[0], format="jpeg", layout={"max_width": "100%", "width": "792px"})
    play = ipywidgets.Play(value=0, min=0, max=last, interval=150)
    slider = ipywidgets.IntSlider(value=0, min=0, max=last, description="step", layout={"width": "420px"})
    text = ipywidgets.Label(value=say(frames[0]))
    ipywidgets.jslink((play, "value"), (slider, "value"))

    def draw(change: dict) -> None:
        image.value = drawings[change["new"]]
        text.value = say(frames[change["new"]])

    slider.observe(draw, names="value")
    return ipywidgets.VBox([ipywidgets.HBox([play, slider]), text, image])


def flipbook(pages: Sequence[Image.Image | Figure], labels: Sequence[str], name: str) -> ipywidgets.VBox:
    """Drag from page to page; the slider says the page's label. All pages are images, or all are figures."""
    kind = "png" if isinstance(pages[0], Figure) else "jpeg"
    drawings = [png(page) if isinstance(page, Figure) else jpeg(page) for page in pages]
    options = [(label, i) for i, label in enumerate(labels)]
    slider = ipywidgets.SelectionSlider(options=options, description=name, layout={"width": "520px"})
    width = f"{Image.open(io.BytesIO(drawings[0])).width // 2}px"
    image = ipywidgets.Image(value=drawings[0], format=kind, layout={"max_width": "100%", "width": width})

    def turn(change: dict) -> None:
        image.value = drawings[change["new"]]

    slider.observe(turn, names="value")
    return ipywidgets.VBox([slider, image])


def show(widget: ipywidgets.DOMWidget, otherwise: str) -> None:
    """Display a widget; a page without a kernel (GitHub, print) shows the words in `otherwise`."""
    bundle: dict[str, object] = {"text/plain": otherwise}
    if widget.model_id is not None:  # there is a kernel
        view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
        bundle["application/vnd.jupyter.widget-view+json"] = view
    display(bundle, raw=True)


class Bet:
    """A question to answer before an experiment runs. `settle` holds the answer against what came out.

    question: what will come out?
    choices: the possible answers, from which one is chosen by a click.
    """

    def __init__(self, question: str, choices: Sequence[str]):
        self.question, self.choices = question, tuple(choices)
        self.buttons = ipywidgets.ToggleButtons(options=self.choices, value=None, style={"button_width": "auto"})
        label = ipywidgets.HTML(f"<b>Your bet:</b> {html.escape(question)}")
        show(ipywidgets.VBox([label, self.buttons]), f"(Your bet: {question} {' · '.join(self.choices)})")

    def settle(self, outcome: str) -> None:
        """Print the outcome, one of the choices, and whether the bet was on it.

        Raises InputError for an outcome that was not among the choices.
        """
        check_choice("outcome", outcome, self.choices)
        bet = self.buttons.value
        if bet is None:
            print(f"It is: {outcome}. (You placed no bet.)")
        else:
            print(f"It is: {outcome}. You bet on: {bet}. {'Won!' if bet == outcome else 'Lost: now find out why.'}")
