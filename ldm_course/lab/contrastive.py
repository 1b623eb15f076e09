"""Notebook 04: a small CLIP to train while one watches, the shipped CLIP, and which captions fit which pictures."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from transformers import CLIPModel, PreTrainedTokenizerBase

from ldm_course.checkpoint import bundled_path
from ldm_course.errors import InputError
from ldm_course.lab import plots
from ldm_course.lab.autoencoders import small_scenes
from ldm_course.lab.setup import quiet
from ldm_course.scenes import ATTRIBUTES, captions

SAID = ("animal", "colour", "place")  # what the small captions say: all that the small pictures vary in
LENGTH = 24  # tokens of a small caption, padding included

# ---- data ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Small pictures with captions in many phrasings.

    x: (n, 3, 32, 32) in [-1, 1]. tokens: (n, LENGTH). texts: n captions. shown: n triples, animal, colour and place.
    """

    x: Tensor
    tokens: Tensor
    texts: list[str]
    shown: list[tuple[str, ...]]

    def distinct(self, count: int, rng: random.Random) -> Tensor:
        """Draw pairs no two of which show the same: their indices, (count,). So each caption fits one picture only.

        Raises:
            InputError: if there are not so many different ones.
        """
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, triple in enumerate(self.shown):
            groups.setdefault(triple, []).append(i)
        if count > len(groups):
            raise InputError(f"These pictures show {len(groups)} different things, so {count} cannot be drawn.")
        return torch.tensor([rng.choice(group) for group in rng.sample(list(groups.values()), count)])


def small_pairs(tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> Pairs:
    """Pictures of `small_scenes`, each with a caption that says animal, colour and place in some phrasing."""
    pictures = small_scenes(count, seed)
    shown = [tuple(ATTRIBUTES[name][int(pictures.labels[name][i])] for name in SAID) for i in range(count)]
    rng = random.Random(seed)
    texts = [captions.caption(dict(zip(SAID, triple)), rng, SAID) for triple in shown]
    return Pairs(pictures.x, tokenize(tokenizer, texts), texts, shown)


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Tensor:
    """Texts as token ids, cut or padded with the end token to LENGTH, (n, LENGTH)."""
    padded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    return padded.input_ids


# ---- the model -------------------------------------------------------------------------------------------------


class SmallCLIP(nn.Module):
    """Two encoders that end in the same space: small pictures, and token ids, to vectors of length 1, (n, width)."""

    def __init__(self, vocabulary: int, end: int, width: int = 64):
        """`vocabulary` counts the tokens, `end` is the id of the end token."""
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.SiLU()]
        self.image_net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, width))
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(LENGTH, width)
        self.block = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.out, self.end = nn.Linear(width, width), end
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # where CLIP's own training starts

    def image(self, x: Tensor) -> Tensor:
        return F.normalize(self.image_net(x), dim=1)

    def text(self, tokens: Tensor) -> Tensor:
        n = tokens.shape[1]
        causal = torch.full((n, n), -torch.inf, device=tokens.device).triu(1)  # a token sees those before it
        h = self.block(self.token(tokens) + self.place.weight[:n], src_mask=causal)  # (n, length, width)
        last = (tokens == self.end).int().argmax(dim=1)  # the first end token has seen all words
        return F.normalize(self.out(h[torch.arange(len(h)), last]), dim=1)


def shipped_clip() -> CLIPModel:
    """The whole CLIP whose text half is the shipped model's text encoder, float32, on the CPU."""
    with quiet():
        clip = CLIPModel.from_pretrained(bundled_path() / "clip", dtype=torch.float32)
    return clip.eval().requires_grad_(False)


# ---- measuring and drawing -------------------------------------------------------------------------------------


def shares_right(similarity: Tensor, shown: Sequence[tuple[str, ...]]) -> dict[str, float]:
    """How often the caption nearest to a picture says the right thing: per attribute, and all of them at once.

    similarity: (captions, pictures), number i of both showing shown[i].
    """
    chosen = [shown[i] for i in similarity.argmax(dim=0).tolist()]
    right = [[a == b for a, b in zip(one, other)] for one, other in zip(chosen, shown)]
    each = {name: sum(row[k] for row in right) / len(right) for k, name in enumerate(SAID)}
    return {**each, "all": sum(map(all, right)) / len(right)}


def table(similarity: Tensor, pictures: Sequence[Image.Image], texts: Sequence[str], cell: int = 96) -> Image.Image:
    """Cosines of captions, the rows, and pictures, the columns. Framed: the caption nearest to each picture."""
    values = similarity.detach().float().cpu()
    font, small = ImageFont.load_default(plots.TEXT), ImageFont.load_default(22)
    margin = math.ceil(max(font.getlength(text) for text in texts)) + 2 * plots.GAP
    n, m = values.shape
    canvas = Image.new("RGB", (margin + m * cell, (n + 1) * cell), "white")
    pen = ImageDraw.Draw(canvas)
    colours = matplotlib.colormaps["cividis"]((values.numpy().clip(-1, 1) + 1) / 2, bytes=True)
    for j, picture in enumerate(pictures):
        canvas.paste(picture.convert("RGB").resize((cell - 4, cell - 4)), (margin + j * cell + 2, 0))
    for i, text in enumerate(texts):
        top = (i + 1) * cell
        pen.text((margin - plots.GAP, top + cell // 2), text, plots.INK, font, anchor="rm")
        for j in range(m):
            left = margin + j * cell
            pen.rectangle(
                (left + 2, top + 2, left + cell - 3, top + cell - 3), fill=tuple(colours[i, j, :3].tolist())
            )
            ink = "black" if values[i, j] > 0 else "white"
            pen.text((left + cell // 2, top + cell // 2), f"{values[i, j]:.2f}", ink, small, anchor="mm")
    for j, i in enumerate(values.argmax(dim=0).tolist()):
        left, top = margin + j * cell, (i + 1) * cell
        pen.rectangle((left, top, left + cell - 1, top + cell - 1), outline=plots.ORANGE, width=6)
    return canvas
