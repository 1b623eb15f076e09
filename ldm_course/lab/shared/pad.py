"""A pad on which one drags a point over a map, a widget on anywidget. Notebooks 01 and 03."""

from __future__ import annotations

import base64

import anywidget
import traitlets
from PIL import Image

from ldm_course.lab.shared.plots import jpeg

PAGE = """
const SIDE = 320; // on the page, in CSS pixels

function render({ model, el }) {
  const pad = document.createElement("div");
  const dot = document.createElement("div");
  pad.style.cssText = `position: relative; width: ${SIDE}px; height: ${SIDE}px; cursor: crosshair;` +
    "touch-action: none; background-size: cover; user-select: none; overflow: hidden; margin-right: 16px";
  dot.style.cssText = "position: absolute; width: 16px; height: 16px; margin: -11px; border-radius: 50%;" +
    "background: #d55e00; border: 3px solid white; box-shadow: 0 0 3px #222; pointer-events: none";
  pad.setAttribute("role", "img");
  pad.setAttribute("aria-label", "A map. Drag the point, or use the sliders.");
  pad.append(dot);
  el.append(pad);

  const draw = () => {
    const [x, y] = model.get("point").map((value) => value / model.get("reach"));
    dot.style.left = `${((1 + x) * SIDE) / 2}px`;
    dot.style.top = `${((1 - y) * SIDE) / 2}px`;
  };
  const paint = () => {
    pad.style.backgroundImage = `url(data:image/jpeg;base64,${model.get("image")})`;
  };
  const move = (event) => {
    if (!event.buttons) return;
    const box = pad.getBoundingClientRect();
    const share = (value) => Math.min(1, Math.max(-1, 2 * value - 1)) * model.get("reach");
    const x = share((event.clientX - box.left) / box.width);
    const y = -share((event.clientY - box.top) / box.height);
    model.set("point", [x, y]);
    model.save_changes();
  };
  pad.addEventListener("pointerdown", (event) => { pad.setPointerCapture(event.pointerId); move(event); });
  pad.addEventListener("pointermove", move);
  const follow = { "change:point": draw, "change:reach": draw, "change:image": paint };
  for (const [name, what] of Object.entries(follow)) model.on(name, what);
  paint();
  draw();
  return () => { for (const [name, what] of Object.entries(follow)) model.off(name, what); };
}

export default { render };
"""


class PointPad(anywidget.AnyWidget):
    """A map with a point on it that one drags.

    image: base64 of the map as a JPEG.
    reach: both axes go from -reach to reach.
    point: where the point is, [to the right, upwards].
    """

    _esm = PAGE
    image = traitlets.Unicode().tag(sync=True)
    reach = traitlets.Float().tag(sync=True)
    point = traitlets.List(traitlets.Float(), [0.0, 0.0]).tag(sync=True)

    def __init__(self, image: Image.Image, reach: float):
        """All values go to the page together with the widget, so that none arrives before the page listens."""
        super().__init__(image=_base64(image), reach=reach)

    def show(self, image: Image.Image, reach: float) -> None:
        """Put another map below the point."""
        self.image, self.reach = _base64(image), reach

    def put(self, first: float, second: float) -> None:
        """Move the point; one that is far enough from where it is already."""
        if max(abs(first - self.point[0]), abs(second - self.point[1])) > 1e-6:
            self.point = [first, second]


def _base64(image: Image.Image) -> str:
    return base64.b64encode(jpeg(image)).decode()
