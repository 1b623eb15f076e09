"""Diagrams of the three tasks: every small image in them is what the model computed on the way."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from PIL import Image
from torch import Tensor

from ldm_course.errors import check_choice
from ldm_course.images import latent_mask, to_pil, to_tensor
from ldm_course.lab.shared.plots import AMBER, BLUE, INK, ORANGE, latent_image, style
from ldm_course.lab.shared.prepared import GUIDANCE, SEED, STEPS
from ldm_course.masks import region_mask
from ldm_course.model import LatentDiffusion
from ldm_course.pipelines import known_region_hook, strength_timesteps
from ldm_course.sampling import denoise, draw_noise
from ldm_course.scenes import Scene

TASKS = ("txt2img", "img2img", "inpaint")
PARTS = ("text encoder", "encoder", "decoder", "unet", "guidance", "step", "noise", "add noise", "known region")
PROMPTS = {"txt2img": "a dog with glasses", "img2img": "a dog with glasses", "inpaint": "a dog running"}
STRENGTH = 0.6
TINTS = {INK: "#ffffff", BLUE: "#dcebf5", ORANGE: "#fdf1ea"}
THUMB = 0.95  # side of a small image; a unit is an inch
ROW, RETURN, BELOW = 1.95, 0.72, -0.3  # heights: of the loop, of its way back, of what the given image takes


@style()
def flow(model: LatentDiffusion, task: str, here: str | None = None) -> Figure:
    """One task from the prompt to the image: networks in blue, the loop in orange. The model generates for it.

    Args:
        task: "txt2img", "img2img" or "inpaint".
        here: the part to mark, one of "text encoder", "encoder", "decoder", "unet", "guidance", "step", "noise",
            "add noise" and "known region".

    Raises InputError for another task or part.
    """
    check_choice("task", task, TASKS)
    if here is not None:
        check_choice("here", here, PARTS)
    drawing = _Drawing(here, bottom=0.65 if task == "txt2img" else 1.95)
    given = Scene(animal="dog", colour="brown", action="sitting", place="beach")
    timesteps = model.schedule.timesteps(STEPS)
    shape = (1, model.unet.config.in_channels, *2 * [model.unet.config.sample_size])
    noise = draw_noise(shape, torch.Generator("cpu").manual_seed(SEED)).to(model.device)
    x, after_step = noise, None
    if task != "txt2img":
        image = given.render(model.native_size)
        z = model.encode(to_tensor(image))
        drawing.given_image(image)
    if task == "img2img":
        timesteps = strength_timesteps(timesteps, STRENGTH)
        x = model.schedule.add_noise(z, noise, timesteps[0])
        drawing.noisy_start(timesteps[0])
    if task == "inpaint":
        mask_image = region_mask("lower-half", 2 * (model.native_size,))
        mask = latent_mask(mask_image, model.vae.downscale).to(model.device)
        after_step = known_region_hook(model, z, noise, mask)
        middle = timesteps[len(timesteps) // 2 + 1]
        drawing.known_region(model.schedule.add_noise(z, noise, middle)[0], mask, mask_image)
    context, empty = model.embed([PROMPTS[task]]), model.embed([""])
    loop = denoise(
        model, x, context, timesteps, negative_context=empty, guidance_scale=GUIDANCE, after_step=after_step
    )
    states = list(loop)
    drawing.text(PROMPTS[task], tuple(context.shape[1:]))
    drawing.loop(states[len(states) // 2].x_t[0], timesteps, task)
    drawing.thumb(0.25, ROW, latent_image(noise[0]), f"noise {tuple(noise.shape[1:])}", "noise")
    if task != "img2img":
        drawing.arrow((1.2, ROW), (3.3, ROW), "start")
    drawing.result(to_pil(model.decode(states[-1].x_t))[0], task)
    return drawing.figure


class _Drawing:
    """The figure, and its parts in the order in which a reader meets them."""

    def __init__(self, here: str | None, bottom: float):
        self.here = here
        self.figure = Figure(figsize=(11.5, 3.0 + bottom))
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.axis("off")
        self.axes.set(xlim=(0, 11.5), ylim=(0.9 - bottom, 3.9))

    def text(self, prompt: str, shape: tuple[int, ...]) -> None:
        self.box(0.25, 3.42, 1.95, 0.6, f"“{prompt}”\nand “”")
        self.box(2.75, 3.42, 1.2, 0.6, "text encoder", BLUE, "text encoder")
        self.box(4.45, 3.42, 1.4, 0.6, f"context, twice\n{shape}")
        self.arrow((2.2, 3.42), (2.75, 3.42))
        self.arrow((3.95, 3.42), (4.45, 3.42))
        self.arrow((5.15, 3.12), (5.15, 2.55))

    def loop(self, x_t: Tensor, timesteps: list[int], task: str) -> None:
        frame = FancyBboxPatch(
            (3.05, 0.42), 5.85, 2.42, "round,pad=0,rounding_size=0.15", ec=ORANGE, fc=TINTS[ORANGE], lw=1.6, zorder=0
        )
        self.axes.add_patch(frame)
        self.axes.text(8.78, 2.66, "for each timestep t", ha="right", va="center", color=ORANGE, fontsize=10)
        self.thumb(3.3, ROW, latent_image(x_t), "x_t")
        self.box(4.65, ROW, 1.0, 1.2, "UNet", BLUE, "unet")
        self.arrow((4.25, ROW), (4.65, ROW))
        for y, name in ((ROW + 0.3, "eps_cond"), (ROW - 0.3, "eps_uncond")):
            self.arrow((5.65, y), (6.5, y), name)
        self.box(6.5, ROW, 0.85, 0.95, f"guidance\n{GUIDANCE:g}", part="guidance")
        self.arrow((7.35, ROW), (7.85, ROW), "eps")
        self.box(7.85, ROW, 0.8, 0.95, "DDIM\nstep", part="step")
        for x, top in ((5.15, ROW - 0.6), (8.42, ROW - 0.475)):
            self.axes.add_patch(Circle((x, 1.07), 0.12, ec=ORANGE, fc="white", lw=1.2))
            self.axes.text(x, 1.065, "t", ha="center", va="center", fontsize=9, color=INK)
            self.arrow((x, 1.19), (x, top))
        first, second, *_, last = timesteps
        start = [(8.1, ROW - 0.475), (8.1, RETURN)]
        if task == "inpaint":  # by way of the known region, which comes back before the latent leaves the loop
            self.path([(8.1, ROW - 0.475), (8.1, 1.25), (7.0, 1.25), (7.0, RETURN + 0.21)])
            start = [(5.85, RETURN)]
        self.path([*start, (3.775, RETURN), (3.775, ROW - THUMB / 2)])
        self.axes.text(4.6, RETURN + 0.02, f"t = {first}, {second}, …, {last}", ha="center", va="center", fontsize=9,
                       color=INK, bbox={"fc": TINTS[ORANGE], "ec": "none", "pad": 1.5})  # fmt: skip

    def result(self, image: Image.Image, task: str) -> None:
        if task == "inpaint":
            self.path([(7.6, RETURN), (9.62, RETURN), (9.62, ROW - 0.3)])
            self.axes.text(9.3, RETURN + 0.09, "x_0", ha="center", fontsize=8.5, color=INK)
        else:
            self.arrow((8.65, ROW), (9.2, ROW))
            self.axes.text(9.05, ROW + 0.13, "x_0", ha="center", fontsize=8.5, color=INK)
        self.box(9.2, ROW, 0.85, 0.6, "decoder", BLUE, "decoder")
        self.arrow((10.05, ROW), (10.3, ROW))
        self.thumb(10.3, ROW, image, "image", side=1.1)

    def given_image(self, image: Image.Image) -> None:
        self.thumb(0.25, BELOW, image, "image")
        self.box(1.6, BELOW, 0.95, 0.6, "encoder", BLUE, "encoder")
        self.arrow((1.2, BELOW), (1.6, BELOW))

    def noisy_start(self, t: int) -> None:
        self.box(1.6, ROW, 0.95, 0.75, f"add noise,\nlevel\nt = {t}", part="add noise")
        self.arrow((1.2, ROW), (1.6, ROW))
        self.arrow((2.55, ROW), (3.3, ROW), "start")
        self.arrow((2.075, BELOW + 0.3), (2.075, ROW - 0.375))
        self.axes.text(2.17, 0.75, "z", va="center", fontsize=9, color=INK)

    def known_region(self, known: Tensor, mask: Tensor, mask_image: Image.Image) -> None:
        self.box(5.85, RETURN, 1.75, 0.42, "keep known region", part="known region")
        self.box(3.3, BELOW, 1.25, 0.6, "add noise, level\nof the next t", part="add noise")
        self.arrow((2.55, BELOW), (3.3, BELOW), "z")
        self.thumb(5.6, BELOW, latent_image(known), "known, noisy", side=0.8, below=True)
        self.arrow((4.55, BELOW), (5.6, BELOW))
        self.arrow((6.0, BELOW + 0.4), (6.0, RETURN - 0.21))
        tile = Image.fromarray((255 * mask[0, 0].cpu()).byte().numpy())
        cells = tuple(mask.shape[1:])
        self.thumb(6.95, BELOW, tile.resize((320, 320), Image.Resampling.NEAREST), f"m {cells}", side=0.8, below=True)
        self.arrow((7.35, BELOW + 0.4), (7.35, RETURN - 0.21))
        self.thumb(8.75, BELOW, mask_image, "mask", below=True, side=0.8)
        self.arrow((8.75, BELOW), (7.75, BELOW), "shrink")

    # -- strokes --

    def box(
        self, x: float, y: float, w: float, h: float, text: str, colour: str = INK, part: str | None = None
    ) -> None:
        """A box whose left edge is at x and whose middle is at height y."""
        marked = part is not None and part == self.here
        shape = FancyBboxPatch(
            (x, y - h / 2), w, h, "round,pad=0,rounding_size=0.08", ec=AMBER if marked else colour, fc=TINTS[colour],
            lw=4 if marked else 1.6 if colour == BLUE else 0.9,
        )  # fmt: skip
        self.axes.add_patch(shape)
        self.axes.text(x + w / 2, y, text, ha="center", va="center", fontsize=9.5, color=INK, linespacing=1.25)

    def thumb(
        self,
        x: float,
        y: float,
        image: Image.Image,
        label: str,
        part: str | None = None,
        side: float = THUMB,
        below: bool = False,
    ) -> None:
        """A small image whose left edge is at x and whose middle is at height y, with its label."""
        marked = part is not None and part == self.here
        place = (x, x + side, y - side / 2, y + side / 2)
        self.axes.imshow(image.convert("RGB"), extent=place, aspect="auto", zorder=2, interpolation="antialiased")
        edge = FancyBboxPatch(
            (x, y - side / 2), side, side, "round,pad=0,rounding_size=0.01", ec=AMBER if marked else INK, fc="none",
            lw=4 if marked else 0.8, zorder=3,
        )  # fmt: skip
        self.axes.add_patch(edge)
        height = y - side / 2 - 0.13 if below else y + side / 2 + 0.12
        self.axes.text(x + side / 2, height, label, ha="center", va="center", fontsize=9, color=INK)

    def arrow(self, begin: tuple[float, float], end: tuple[float, float], label: str = "") -> None:
        self.path([begin, end])
        middle = (begin[0] + end[0]) / 2
        self.axes.text(middle, begin[1] + 0.09, label, ha="center", va="bottom", fontsize=8.5, color=INK)

    def path(self, points: list[tuple[float, float]]) -> None:
        """Straight strokes from point to point, with a head at the end."""
        for (x, y), (x_next, y_next) in zip(points[:-2], points[1:-1]):
            self.axes.plot([x, x_next], [y, y_next], color=INK, lw=1.2, solid_capstyle="round", zorder=0.5)
        head = FancyArrowPatch(
            *points[-2:], arrowstyle="-|>", mutation_scale=11, color=INK, lw=1.2, shrinkA=0, zorder=0.5
        )
        self.axes.add_patch(head)
