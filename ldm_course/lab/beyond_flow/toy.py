"""A world of two dimensions for the notebook on flows: drawings as points, and a network for their velocity."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ldm_course.errors import InputError, check_choice

SIDE = 128  # of a drawing, in pixels
SHAPES = ("cat", "spiral", "heart", "three dots")
EARS = [(-165.0, -190.0), (-70, -100), (70, -100), (165, -190)]
CHIN = [(160 * math.cos(a * math.pi / 24), 20 + 180 * math.sin(a * math.pi / 24)) for a in range(25)]
CAT = [*EARS, *CHIN, EARS[0]]

Field = Callable[[Tensor, Tensor | float], Tensor]  # of points (n, 2) and times (n, 1), or one number: (n, 2)
Pairs = Callable[[int], tuple[Tensor, Tensor]]  # draws so many points of data and of noise, (n, 2) each

# ---- drawings --------------------------------------------------------------------------------------------------


def drawing(name: str) -> Image.Image:
    """One of SHAPES, white on black, of mode "L". Raises InputError for another name."""
    check_choice("name", name, SHAPES)
    image = Image.new("L", (4 * SIDE, 4 * SIDE))
    pen, middle = ImageDraw.Draw(image), 2 * SIDE

    def disc(x: float, y: float, r: float, fill: int = 255) -> None:
        pen.ellipse((middle + x - r, middle + y - r, middle + x + r, middle + y + r), fill=fill)

    if name == "cat":
        pen.line([(middle + x, middle + y) for x, y in CAT], fill=255, width=44)
        for x, y, r in ((-70, -10, 38), (70, -10, 38), (0, 75, 27), *((x, y, 22) for x, y in CAT)):
            disc(x, y, r)
    elif name == "three dots":
        for angle in (90, 210, 330):
            disc(170 * math.cos(math.radians(angle)), -170 * math.sin(math.radians(angle)), 60)
    for i in range(1000 if name in ("spiral", "heart") else 0):
        a = math.tau * i / 1000
        if name == "spiral":
            disc(220 * (i / 1000 + 0.08) * math.cos(2 * a), -220 * (i / 1000 + 0.08) * math.sin(2 * a), 18)
        else:
            height = 13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)
            disc(13 * 16 * math.sin(a) ** 3, -13 * height, 18)
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def points(picture: Image.Image, count: int = 20_000, seed: int = 0) -> Tensor:
    """Random points of the white part of a drawing: (count, 2), with mean 0 and a standard deviation of 1 in all.

    Raises InputError if nothing is white.
    """
    rows, columns = np.nonzero(np.asarray(picture.convert("L")) > 127)
    if len(rows) < 2:
        raise InputError("The drawing is empty; paint something on it first.")
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(rows), size=count)
    places = np.stack([columns, -rows], axis=1)[picks] + rng.uniform(-0.5, 0.5, (count, 2))
    x = torch.tensor(places, dtype=torch.float32, device="cpu")
    x = x - x.mean(dim=0)
    return x / x.square().mean().sqrt()


# ---- the network -----------------------------------------------------------------------------------------------


class Velocity(nn.Module):
    """A small network for the velocity at points (n, 2) and times s, (n, 1) or one number for all: (n, 2).

    It sees sines and cosines of random mixtures of place and time, which lets it learn fine lines quickly (Tancik et
    al. 2020).
    """

    mixtures: Tensor

    def __init__(self, width: int = 128, waves: int = 128):
        super().__init__()
        mixtures = 3 * torch.randn(3, waves, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
        self.register_buffer("mixtures", mixtures.float())
        widths = (3 + 2 * waves, width, width, width)
        layers = [layer for pair in zip(widths, widths[1:]) for layer in (nn.Linear(*pair), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(width, 2))

    def forward(self, x: Tensor, s: Tensor | float) -> Tensor:
        time = torch.as_tensor(s, dtype=x.dtype, device=x.device).expand(len(x), 1)
        given = torch.cat([x, time], dim=1)  # (n, 3)
        waves = given @ self.mixtures  # (n, waves)
        return self.layers(torch.cat([given, waves.sin(), waves.cos()], dim=1))


def fit(pairs: Pairs, steps: int = 2500, batch: int = 512, width: int = 128) -> Velocity:
    """A network for the velocity of the flow between the pairs, trained as in the notebook."""
    torch.manual_seed(0)
    network = Velocity(width)
    optimizer = torch.optim.Adam(network.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(steps):
        (x0, eps), s = pairs(batch), torch.rand(batch, 1, dtype=torch.float32, device="cpu")
        loss = flow_loss(network, x0, eps, s)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    return network.requires_grad_(False)


def flow_loss(u: Field, x0: Tensor, eps: Tensor, s: Tensor) -> Tensor:
    """Conditional flow matching on straight lines: the mean squared error of the velocity (Lipman et al. 2023)."""
    x_s = (1 - s) * x0 + s * eps
    return (u(x_s, s) - (eps - x0)).square().mean()


@torch.no_grad()
def walk(u: Field, x: Tensor, n: int) -> Tensor:
    """n of Euler's steps from s = 1 to 0: the points before each and at the end, (n + 1, points, 2)."""
    path = [x]
    for i in range(n):
        path.append(path[-1] - u(path[-1], 1 - i / n) / n)
    return torch.stack(path)


# ---- measures --------------------------------------------------------------------------------------------------


def energy_distance(a: Tensor, b: Tensor) -> float:
    """How far two clouds (n, 2) and (m, 2) are apart: 0 on average if both are drawn from one distribution.

    2 E|a - b| - E|a - a'| - E|b - b'| (Szekely and Rizzo 2013), without bias, so that it may fall below 0.
    """
    within = [torch.cdist(x, x).sum() / (len(x) * (len(x) - 1)) for x in (a, b)]
    return (2 * torch.cdist(a, b).mean() - within[0] - within[1]).item()


def straightness(path: Tensor) -> float:
    """The distance between the ends of a path (steps, points, 2) over its length, on average; 1 is straight."""
    length = (path[1:] - path[:-1]).norm(dim=2).sum(dim=0)
    return ((path[-1] - path[0]).norm(dim=1) / length).mean().item()
