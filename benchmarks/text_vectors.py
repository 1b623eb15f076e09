"""What a model's text vectors say about each attribute, and whether unseen combinations stay readable.

    python benchmarks/text_vectors.py [MODEL]

The captions name all five attributes. Nothing is trained but the two probes, and those on seen combinations only.
"""

from __future__ import annotations

import argparse
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ldm_course as ldm
from ldm_course.evaluate.metrics import test_scenes
from ldm_course.scenes import ATTRIBUTES, HELD_OUT, Scene, training_scene

SEEN, HELD = 1500, 300


def vectors(model: ldm.LatentDiffusion, scenes: list[Scene]) -> Tensor:
    """The last of a caption's 77 vectors, (n, d): padding, which most of the 77 are."""
    texts = [scene.caption(random.Random(i), tuple(ATTRIBUTES)) for i, scene in enumerate(scenes)]
    return torch.cat([model.embed(texts[i : i + 100])[:, -1] for i in range(0, len(texts), 100)])


def labels(scenes: list[Scene], name: str) -> Tensor:
    return torch.tensor([ATTRIBUTES[name].index(scene.attributes()[name]) for scene in scenes])


def one_hot(scenes: list[Scene]) -> Tensor:
    """All attributes side by side, and a one: (n, 29)."""
    columns = [F.one_hot(labels(scenes, name), len(values)) for name, values in ATTRIBUTES.items()]
    return torch.cat([*columns, torch.ones(len(scenes), 1)], dim=1).float()


def probe(f: Tensor, g: Tensor, y: Tensor, values: int) -> tuple[Tensor, Tensor]:
    """What a linear probe and a network of 128 hidden units, both fitted to (f, y), predict for g."""
    ones = torch.ones(len(f), 1), torch.ones(len(g), 1)
    linear = torch.linalg.lstsq(torch.cat([f, ones[0]], 1), F.one_hot(y, values).float()).solution
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(f.shape[1], 128), nn.SiLU(), nn.Linear(128, values))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(300):
        loss = F.cross_entropy(network(f), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (torch.cat([g, ones[1]], 1) @ linear).argmax(1), network(g).argmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="a folder; the model in the package if left out")
    arguments = parser.parse_args()
    model = ldm.load(arguments.model, device="cpu")
    seen, held = [training_scene(5, i) for i in range(SEEN)], test_scenes(HELD, 0, True)
    f, g = vectors(model, seen), vectors(model, held)
    mean = f.mean(0)
    scale = (f - mean).square().mean().sqrt()
    f, g = (f - mean) / scale, (g - mean) / scale

    parts = torch.linalg.lstsq(one_hot(seen), f, driver="gelsd").solution  # one vector per value, and the mean
    for name, x, scenes in (("seen", f, seen), ("held out", g, held)):
        left = (x - one_hot(scenes) @ parts).square().mean() / (x - x.mean(0)).square().mean()
        print(f"share of the variance that is a sum of five parts, {name}: {1 - left:.1%}")

    print(f"\n{'attribute':<12}{'share':>8}{'linear, held out':>20}{'network, held out':>20}")
    directions, start = {}, 0
    for name, values in ATTRIBUTES.items():
        own = parts[start : start + len(values)]
        directions[name] = own - own.mean(0)
        start += len(values)
        share = directions[name].square().sum(1).mean() / f.square().sum(1).mean()
        right = [
            (found == labels(held, name)).float().mean() for found in probe(f, g, labels(seen, name), len(values))
        ]
        print(f"{name:<12}{share:>8.1%}{right[0]:>20.1%}{right[1]:>20.1%}")

    print("\ncosine of two values that never occur together (0: the one tells nothing of the other)")
    for pair in HELD_OUT:
        a, b = (directions[name][ATTRIBUTES[name].index(value)] for name, value in pair.items())
        print(f"{' + '.join(pair.values()):<22}{F.cosine_similarity(a, b, dim=0):>6.2f}")


if __name__ == "__main__":
    main()
