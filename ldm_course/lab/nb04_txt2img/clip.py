"""A small CLIP that trains within a notebook cell, its data, and the CLIP that ships with the course."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTokenizer

from ldm_course import text
from ldm_course.errors import InputError
from ldm_course.lab.nb01_vae.figures import small_scenes
from ldm_course.scenes import ATTRIBUTES, captions

CAPTIONED = ("animal", "colour", "place")  # all that the small images vary in
LENGTH = 24  # tokens of a small caption, padding included


@dataclass(frozen=True)
class Pairs:
    """Small images and captions of them in many phrasings.

    x: (n, 3, 32, 32) in [-1, 1].
    tokens: (n, LENGTH).
    captions: n texts.
    labels: n triples: animal, colour and place.
    """

    x: Tensor
    tokens: Tensor
    captions: list[str]
    labels: list[tuple[str, ...]]

    def sample_distinct(self, count: int, rng: random.Random) -> Tensor:
        """Draw the indices of pairs with different labels, (count,), so that each caption fits one image only.

        Raises InputError if there are fewer different labels than `count`.
        """
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, label in enumerate(self.labels):
            groups.setdefault(label, []).append(i)
        if count > len(groups):
            raise InputError(f"count is {count}; these images have {len(groups)} different labels, so draw no more.")
        picks = [rng.choice(group) for group in rng.sample(list(groups.values()), count)]
        return torch.tensor(picks, dtype=torch.int64, device="cpu")


def small_pairs(tokenizer: CLIPTokenizer, count: int, seed: int) -> Pairs:
    """Images of `small_scenes`, each with a caption that names animal, colour and place in a random phrasing."""
    images = small_scenes(count, seed)
    labels = [tuple(ATTRIBUTES[name][int(images.labels[name][i])] for name in CAPTIONED) for i in range(count)]
    rng = random.Random(seed)
    texts = [captions.caption(dict(zip(CAPTIONED, label)), rng, CAPTIONED) for label in labels]
    return Pairs(images.x, tokenize(tokenizer, texts), texts, labels)


def tokenize(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """Texts to token ids, padded with the end token or cut to (n, LENGTH)."""
    return text.tokenize(tokenizer, texts)[:, :LENGTH]


class SmallCLIP(nn.Module):
    """Two encoders into one space: small images, and token ids, to vectors of length 1, (n, width)."""

    def __init__(self, vocabulary_size: int, end_token: int, width: int = 64):
        super().__init__()
        layers: list[nn.Module] = []
        for c_in, c_out in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), nn.SiLU()]
        self.image_net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, width))
        self.token, self.position = nn.Embedding(vocabulary_size, width), nn.Embedding(LENGTH, width)
        self.block = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.out, self.end_token = nn.Linear(width, width), end_token
        self.log_scale = nn.Parameter(
            torch.tensor(math.log(1 / 0.07), dtype=torch.float32, device="cpu")
        )  # as in CLIP

    def encode_image(self, x: Tensor) -> Tensor:
        return F.normalize(self.image_net(x), dim=1)

    def encode_text(self, tokens: Tensor) -> Tensor:
        n = tokens.shape[1]
        h = self.token(tokens) + self.position.weight[:n]  # (n, length, width)
        causal = h.new_full((n, n), -torch.inf).triu(1)  # a token sees itself and those before it
        h = self.block(h, src_mask=causal)
        last = (tokens == self.end_token).int().argmax(dim=1)  # the first end token has seen all words
        return F.normalize(self.out(h[torch.arange(len(h), device=h.device), last]), dim=1)
