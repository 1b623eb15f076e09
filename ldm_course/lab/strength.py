"""Notebook 05: image-to-image under a slider, what noise strength does to a picture, and pictures from anywhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torch import Tensor

from ldm_course.checkpoint import LatentDiffusion
from ldm_course.errors import InputError
from ldm_course.images import load_image, to_rgb, to_tensor
from ldm_course.lab import live, plots
from ldm_course.lab.measure import interval
from ldm_course.lab.painter import MaskPainter
from ldm_course.lab.prepared import GUIDANCE, Prepared
from ldm_course.pipelines import img2img, strength_timesteps, txt2img
from ldm_course.sampling import denoise
from ldm_course.scenes import Scene
from ldm_course.training.judge import Judge, read
from ldm_course.training.score import Share

DRAG_STEPS = 10  # of DDIM at strength 1, so that a picture follows the slider
LEFT_OPEN = ("colour", "action")  # what the prompts of `outcomes` do not mention

# ---- the slider ------------------------------------------------------------------------------------------------


class Repainter(Prepared):
    """Repaints its picture at any strength, as `img2img` does with the same seed and number of steps."""

    def __init__(self, model: LatentDiffusion, image: Image.Image, num_inference_steps: int = DRAG_STEPS):
        """The number of steps is that at strength 1."""
        super().__init__(model, image, num_inference_steps)

    def noise(self, seed: int) -> Tensor:
        """The noise that `img2img` draws, after a draw for the posterior, which is too narrow to matter here."""
        generator = torch.Generator().manual_seed(seed)
        _, noise = (torch.randn(self.z.shape, generator=generator) for _ in range(2))
        return noise.to(self.z.device)

    def start(self, strength: float, seed: int) -> tuple[Tensor, list[int]]:
        """The noisy latent at this strength, and the timesteps from there."""
        timesteps = strength_timesteps(self.timesteps, strength)
        if not timesteps:
            return self.z, timesteps
        return self.model.schedule.add_noise(self.z, self.noise(seed), timesteps[0]), timesteps

    def __call__(self, prompt: str, strength: float, seed: int) -> Iterator[dict[str, Image.Image] | None]:
        """Repaint: yields between steps, so that newer work may come first.

        Yields pictures by name, the noisy start with the first guess after one step, and in the end with the result;
        in between None.
        """
        x, timesteps = self.start(strength, seed)
        noisy = plots.decoded(self.model, x)
        states = denoise(
            self.model,
            x,
            self.context(prompt),
            timesteps,
            negative_context=self.context(""),
            guidance_scale=GUIDANCE,
        )
        for i, state in enumerate(states):
            x = state.x_t
            if i == 0 and timesteps:
                yield {"noisy start": noisy, "first guess": plots.decoded(self.model, state.x0_hat)}
            else:
                yield None
        yield {"noisy start": noisy, "result": plots.decoded(self.model, x)}


def studio(repainter: Repainter, prompt: str) -> ipywidgets.VBox:
    """A strength slider whose picture follows while it is dragged; prompt and seed beside it.

    The box's `repainter` may be replaced, for another picture; `newest` says how much work was done and given up.
    """
    layout = {"width": "520px"}
    controls: dict[str, ipywidgets.Widget] = {
        "strength": ipywidgets.FloatSlider(
            value=0.6, min=0, max=1, step=1 / len(repainter.timesteps), readout_format=".2f", description="strength",
            layout=layout,
        ),
        "prompt": ipywidgets.Text(value=prompt, continuous_update=False, description="prompt", layout=layout),
        "seed": ipywidgets.BoundedIntText(value=0, min=0, max=9999, description="seed", layout={"width": "180px"}),
    }  # fmt: skip
    image = ipywidgets.Image(format="jpeg", layout={"max_width": "100%", "width": "592px"})
    note = ipywidgets.Label()
    box = ipywidgets.VBox([*controls.values(), image, note])
    box.repainter = repainter

    def work(values: dict[str, Any]) -> Generator[None, None, None]:
        painter: Repainter = box.repainter
        for drawn in painter(**values):
            if drawn is not None:
                image.value = plots.jpeg(plots.grid([[painter.image, *drawn.values()]], ["picture", *drawn]))
                note.value = ""
            yield

    box.newest = live.follow(controls, work, note)
    return box


# ---- the claim -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of n pictures at each of s strengths.

    pictures: s lists of n.
    distance: (s, n), to the input: root mean square, the range of a pixel being 1.
    accessory, place: (s, n), 1 where the judge sees what the prompt asked for.
    kept: (s, n), which share of colour and action, which the prompt left open, is still the input's.
    """

    pictures: list[list[Image.Image]]
    distance: Tensor
    accessory: Tensor
    place: Tensor
    kept: Tensor


def outcomes(
    model: LatentDiffusion,
    judge: Judge,
    scenes: Sequence[Scene],
    wishes: Sequence[Scene],
    strengths: Sequence[float | None],
    num_inference_steps: int = 20,
) -> Outcome:
    """Repaint scenes after what others wear and where they are, picture i from seed i, and measure what comes out.

    Args:
        wishes: one for each scene; the prompt is "a dog with glasses in the snow", with a wish's animal, accessory
            and place.
        strengths: None is text-to-image, without a picture.
    """
    images = [scene.render(model.native_size) for scene in scenes]
    prompts = [wish.caption(attributes=["accessory", "place"]) for wish in wishes]
    before = torch.cat([to_tensor(image) for image in images])
    pictures, rows = [], []
    for strength in strengths:
        if strength is None:
            painted = txt2img(model, prompts, seed=0, num_inference_steps=num_inference_steps)
        else:
            painted = img2img(
                model, prompts, images, strength=strength, seed=0, num_inference_steps=num_inference_steps
            )
        assert isinstance(painted, list)
        after = torch.cat([to_tensor(image) for image in painted])
        seen = read(judge, after)
        pictures.append(painted)
        rows.append(
            (
                (after - before).square().mean(dim=(1, 2, 3)).sqrt() / 2,
                _shared(seen, wishes, ("accessory",)),
                _shared(seen, wishes, ("place",)),
                _shared(seen, scenes, LEFT_OPEN),
            )
        )
    return Outcome(pictures, *(torch.stack(column) for column in zip(*rows)))


def _shared(seen: list[dict[str, str]], scenes: Sequence[Scene], names: Sequence[str]) -> Tensor:
    """Which share of these attributes, as the judge saw them, is the scene's, (n,)."""
    truth = [scene.attributes() for scene in scenes]
    return torch.tensor([[float(s[name] == t[name]) for name in names] for s, t in zip(seen, truth)]).mean(dim=1)


def freedom(strengths: Sequence[float | None], outcome: Outcome) -> Figure:
    """Strength against what became of the picture, with 95% intervals; None, "no picture", stands at the right."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    with_picture = [strength for strength in strengths if strength is not None]
    apart = 1.18
    x = np.array(with_picture + [apart] * (len(strengths) - len(with_picture)))

    middle, half = interval(outcome.distance)
    _points(left, x, middle, middle - half, middle + half, "distance to the input", plots.INK, "o-", 0.0)
    middle, half = interval(outcome.kept)  # of scenes: the two answers for one may go together
    _points(
        right,
        x,
        middle,
        middle - half,
        (middle + half).clamp(max=1),
        "colour and action kept",
        plots.BLUE,
        "o-",
        -0.008,
    )
    for values, name, colour, style, shift in (
        (outcome.accessory, "the glasses are there", plots.ORANGE, "s--", 0.0),
        (outcome.place, "the new place is there", "#009e73", "^:", 0.008),
    ):
        low, high = torch.tensor([Share(int(row.sum()), len(row)).interval() for row in values]).T
        _points(right, x, values.mean(dim=1), low, high, name, colour, style, shift)
    ticks = [round(0.2 * i, 1) for i in range(6)]
    labels = [f"{tick:g}" for tick in ticks]
    if len(with_picture) < len(strengths):
        ticks, labels = [*ticks, apart], [*labels, "no\npicture"]
    for axes in (left, right):
        axes.set_xticks(ticks, labels)
        axes.set_xlabel("strength", x=0.45)
        axes.spines[["top", "right"]].set_visible(False)
    left.set(ylabel="distance to the input", ylim=(0, None))
    right.set(ylabel="share", ylim=(-0.03, 1.03))
    figure.legend(*right.get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside upper right", ncols=3)
    return figure


def _points(
    axes: Any, x: np.ndarray, y: Tensor, low: Tensor, high: Tensor, name: str, colour: str, style: str, shift: float
) -> None:
    """Points with intervals, joined as far as there is a strength."""
    joined = x <= 1
    for part, line in ((joined, style), (~joined, style[0])):
        errors = torch.stack([y - low, high - y]).clamp_min(0).numpy()
        axes.errorbar(
            x[part] + shift, y.numpy()[part], errors[:, part], fmt=line, color=colour, markersize=4, capsize=2,
            linewidth=1.4, elinewidth=0.9, label=name if line == style else None,
        )  # fmt: skip


# ---- pictures from anywhere ------------------------------------------------------------------------------------


def uploaded(upload: ipywidgets.FileUpload, otherwise: Image.Image) -> Image.Image:
    """The picture last chosen in an upload button; the other one while nothing has been chosen.

    Raises:
        InputError: if the file is no picture.
    """
    files = upload.value
    if not files:
        return otherwise
    last = list(files.values())[-1] if isinstance(files, dict) else files[-1]  # ipywidgets 7 and 8
    try:
        return load_image(io.BytesIO(bytes(last["content"])))
    except InputError:
        raise InputError("The chosen file is not a picture that can be read.") from None


def landscape(side: int) -> Image.Image:
    """Something to draw on: sky above, sand below."""
    ground = Image.new("RGB", (side, side), "#9fd3ef")
    ground.paste("#f2d38b", (0, round(0.7 * side), side, side))
    return ground


class Easel:
    """A picture of your own: draw on a landscape, or on a file that you choose, and the model repaints it.

    box: the widget. studio: the part of it that repaints.
    """

    def __init__(self, model: LatentDiffusion, prompt: str, drawing: Image.Image | None = None):
        """Start with a drawing, cropped to a square; with an empty landscape if there is none."""
        self.model, self.side = model, model.native_size
        self.ground = landscape(self.side) if drawing is None else self._fitted(drawing)
        self.painter = MaskPainter(self.ground)
        self.colour = ipywidgets.ColorPicker(value="#8a5a2b", description="colour", layout={"width": "220px"})
        self.upload = ipywidgets.FileUpload(accept="image/*", multiple=False, description="choose a picture")
        self.note = ipywidgets.Label()
        self._colour = self.colour.value  # of what is drawn since the colour was last changed
        self.studio = studio(Repainter(model, self.ground), prompt)
        self.painter.observe(self._drawn, names="mask")
        self.colour.observe(self._coloured, names="value")
        self.upload.observe(self._chosen, names="value")
        tools = ipywidgets.VBox([ipywidgets.HBox([self.colour, self.upload]), self.note, self.studio])
        self.box = ipywidgets.HBox([self.painter, tools], layout={"flex_flow": "row wrap"})

    def _fitted(self, picture: Image.Image) -> Image.Image:
        return ImageOps.fit(to_rgb(picture), (self.side, self.side), Image.Resampling.LANCZOS)

    @property
    def drawing(self) -> Image.Image:
        """The picture with what has been drawn on it."""
        paint = Image.new("RGB", self.ground.size, self._colour)
        return Image.composite(paint, self.ground, self.painter.mask_image)

    def _drawn(self, _: Any) -> None:
        self.studio.repainter = Repainter(self.model, self.drawing)
        self.studio.newest.request(self.studio.newest.value)

    def _lay(self, ground: Image.Image) -> None:
        """Go on with this picture, and with nothing drawn on it yet."""
        self.ground = ground
        self.painter.picture = base64.b64encode(plots.png(ground)).decode()
        if self.painter.mask:
            self.painter.mask = ""  # and so it is drawn
        else:
            self._drawn(None)

    def _coloured(self, change: dict) -> None:
        self._lay(self.drawing)
        self._colour = change["new"]

    def _chosen(self, _: Any) -> None:
        try:
            self._lay(self._fitted(uploaded(self.upload, self.ground)))
        except InputError as error:
            self.note.value = str(error)
        else:
            self.note.value = ""
