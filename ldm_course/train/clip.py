"""Train a small CLIP on the scenes (Radford et al. 2021, https://arxiv.org/abs/2103.00020).

Its text half becomes the model's text encoder, in `transformers`' own classes and file format.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from ldm_course.images import pixels_to_tensor
from ldm_course.scenes import ATTRIBUTES, captions, training_scene
from ldm_course.text import tokenize
from ldm_course.train import data, loop

START, END = "<|startoftext|>", "<|endoftext|>"
WIDTH = 128
PER_GROUP = 16  # images of a batch that differ in one attribute only; the groups take the five attributes in turn
ANGLE_WEIGHT = 10.0  # of the squared cosines between the differences that different attributes make; ContrastiveLoss
MAX_SCALE = 10.0  # of the cosines before the softmax; ContrastiveLoss
VOCABULARY_CAPTIONS = 20_000  # enough for every phrasing to occur


def train_tokenizer(folder: Path) -> CLIPTokenizer:
    """Learn a byte-pair encoding from captions of the small world, and write it in CLIP's files.

    `known_words.txt` beside them lists every word that occurred, so that the model can name those it never saw.
    """
    texts = [captions.random_caption(training_scene(0, i), random.Random(i)) for i in range(VOCABULARY_CAPTIONS)]
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    letters = pre_tokenizers.ByteLevel(False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), letters])
    alphabet = sorted(letters.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    learnt = json.loads(bpe.to_str())["model"]
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in learnt["merges"]]
    tokens = alphabet + [letter + "</w>" for letter in alphabet] + [merge.replace(" ", "") for merge in merges]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens + [START, END]))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False, indent=0), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    words = sorted({word for text in texts for word in text.replace(",", " ").split()})
    (folder / "known_words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder)


def clip_config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    """A CLIP of 1.4 million parameters for 128 px images. `eos_token_id` says which token pools the text."""
    tower = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": 4, "projection_dim": WIDTH}
    text = {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 2,
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"image_size": 128, "patch_size": 16, "num_hidden_layers": 4}
    return CLIPConfig(text_config={**tower, **text}, vision_config={**tower, **vision}, projection_dim=WIDTH)


class ContrastiveLoss(nn.Module):
    """CLIP and its loss: each caption has to find its image in the batch, and each image its caption.

    Captions that leave attributes open match several images of a group: all of these count as right.

    The UNet attends to the text tower's vectors before CLIP's projection: all 77 of them, of which most belong to the
    padding after the caption. To compose unseen combinations, each attribute should shift these vectors by a constant
    offset of about the same size, orthogonal to the other attributes' offsets. Four things encourage that:

    - The text's projection is the identity.
    - The scale of the cosines has a low limit, so that no attribute can do with a small, later amplified offset.
    - The vector that is compared with the image is that of a random token from the end token on.
    - The loss adds the squared cosines between offsets of different attributes.
    """

    def __init__(self, clip: CLIPModel):
        super().__init__()
        self.clip = clip
        clip.text_projection.weight.requires_grad_(False).copy_(torch.eye(WIDTH, dtype=torch.float32, device="cpu"))

    def forward(
        self, pixels: Tensor, tokens: Tensor, groups: Tensor, matches: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and the share of captions whose best image is right.

        Args:
            pixels: (b, 3, 128, 128). tokens: token ids, (b, 77).
            groups: which group image and caption i belong to, (b,); comparisons stay within a group. The images of a
                group differ in one attribute, another one in each group.
            matches: `matches[i, j]` is 1 where caption i is true of image j, (b, b).
        """
        vectors = self.clip.text_model(input_ids=tokens).last_hidden_state
        ends = (tokens == tokens[:, -1:]).int().argmax(dim=1)  # of the first end token, which also pads
        fraction = torch.rand(ends.shape, dtype=torch.float32, device=ends.device)
        position = ends + (fraction * (tokens.shape[1] - ends)).long()
        rows = torch.arange(len(ends), dtype=torch.int64, device=ends.device)
        text = F.normalize(vectors[rows, position].float(), dim=1)
        seen = self.clip.vision_model(pixel_values=pixels).pooler_output
        image = F.normalize(self.clip.visual_projection(seen).float(), dim=1)
        self.clip.logit_scale.data.clamp_(max=math.log(MAX_SCALE))
        logits = self.clip.logit_scale.exp() * text @ image.T  # (captions, images)
        same = groups[:, None] == groups[None, :]
        logits, matches = logits.masked_fill(~same, -1e9), matches * same
        to_image = -(F.log_softmax(logits, dim=1) * matches / matches.sum(1, keepdim=True)).sum(1).mean()
        to_text = -(F.log_softmax(logits, dim=0) * matches / matches.sum(0, keepdim=True)).sum(0).mean()
        best = matches.gather(1, logits.argmax(1, keepdim=True)).mean()
        kind = groups % len(ATTRIBUTES)  # groups take the attributes in turn
        overlap = squared_cosines(text, same, kind[:, None] != kind[None, :])
        loss = (to_image + to_text) / 2 + ANGLE_WEIGHT * overlap
        return loss, {"right": best.detach(), "overlap": overlap.detach()}


def squared_cosines(text: Tensor, same: Tensor, other: Tensor) -> Tensor:
    """Mean squared cosine between how texts differ in one group and how they differ in another, from 0 to 1.

    Args:
        text: (b, d).
        same: whether two of them belong to one group, (b, b).
        other: whether they belong to groups that vary different attributes, (b, b).
    """
    apart = F.normalize(text - same.float() @ text / same.sum(1, keepdim=True), dim=1)
    return (apart @ apart.T).square()[other].sum() / other.sum().clamp(min=1)


def captions_match(said: list[dict[str, str]], shown: list[dict[str, str]]) -> Tensor:
    """Which captions are true of which images: (captions, images) of 0 and 1."""
    rows = [[all(image[key] == value for key, value in caption.items()) for image in shown] for caption in said]
    return torch.tensor(rows, dtype=torch.float32, device="cpu")


def group_by_all_but(name: str, seed: int, count: int) -> list[np.ndarray]:
    """The first `count` training images in groups: the images of a group differ in attribute `name` only.

    In a mixed batch the attributes that are easy to see tell almost all images apart: the loss gets by without the
    others, and the vectors say little about them. And two values that never occur together would exclude each other:
    glasses would tell that it is not a dog. Within such a group neither can happen.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for i in range(count):
        shown = training_scene(seed, i).attributes()
        groups.setdefault(tuple(value for key, value in shown.items() if key != name), []).append(i)
    return [np.array(indices) for indices in groups.values()]


def train_clip(options: loop.Options, data_folder: Path, model: CLIPModel, tokenizer: CLIPTokenizer) -> CLIPModel:
    """Train on the rendered scenes with random captions."""
    images = data.training_images(data_folder, "train", options)
    alike = {name: group_by_all_but(name, options.seed, options.dataset_size) for name in ATTRIBUTES}

    def loss_of(model: nn.Module, indices: np.ndarray, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        rng = random.Random(f"{options.seed}-{step}-{indices[0]}")
        groups = [i // PER_GROUP for i in range(len(indices))]
        names = [tuple(ATTRIBUTES)[(step + group) % len(ATTRIBUTES)] for group in range(groups[-1] + 1)]  # in turn
        chosen = [rng.choice(alike[name]) for name in names]
        mentions = [(*captions.random_mention(rng), name) for name in names]
        indices = np.array([chosen[group][i % len(chosen[group])] for group, i in zip(groups, indices)])
        scenes = [training_scene(options.seed, int(i)) for i in indices]
        texts = [scene.caption(rng, attributes=mentions[group]) for scene, group in zip(scenes, groups)]
        shown = [scene.attributes() for scene in scenes]
        said = [{key: values[key] for key in mentions[group]} for values, group in zip(shown, groups)]
        batch = (
            pixels_to_tensor(images[indices]),
            tokenize(tokenizer, texts),
            torch.tensor(groups, dtype=torch.int64, device="cpu"),
            captions_match(said, shown),
        )
        return model(*(tensor.to(loop.processes().device) for tensor in batch))

    return loop.train("clip", ContrastiveLoss(model), loss_of, options).clip
