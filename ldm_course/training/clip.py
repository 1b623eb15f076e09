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

from ldm_course.scenes import ATTRIBUTES, captions, training_scene
from ldm_course.training import data, loop

START, END = "<|startoftext|>", "<|endoftext|>"
WIDTH = 128
PER_GROUP = 16  # pictures of a batch that differ in one attribute only; the groups take the five attributes by turns
ANGLE_WEIGHT = 10.0  # of the squared cosines between the differences that different attributes make; see Trainer
MAX_SCALE = 10.0  # of the cosines before the softmax; see Trainer
VOCABULARY_CAPTIONS = 20_000  # enough for every phrasing to occur


def train_tokenizer(folder: Path) -> CLIPTokenizer:
    """Byte-pair encoding learnt from captions of the small world, written as CLIP's vocab.json and merges.txt.

    `known_words.txt` beside them lists every word that occurred, so that the model can say which it never saw.
    """
    texts = [captions.random_caption(training_scene(0, i), random.Random(i)) for i in range(VOCABULARY_CAPTIONS)]
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
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
    (folder / "known_words.txt").write_text("\n".join(words) + "\n")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "do_lower_case": True,
        "errors": "replace",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    special = {name: config[name] for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


def clip_config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    """A CLIP of 1.4 million parameters for 128 px pictures. `eos_token_id` says which token pools the text."""
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


def tokenize(tokenizer: CLIPTokenizer, texts: list[str], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Captions as token ids, padded with the end token to 77, (n, 77), and where each one ends, (n,)."""
    padded = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    ends = padded.attention_mask.sum(1) - 1  # the end token is the last that is not padding
    return padded.input_ids.to(device), ends.to(device)


class Trainer(nn.Module):
    """Pictures and captions to the contrastive loss: each picture picks its caption, and each caption its picture.

    Captions that say less than everything fit several pictures of a group: all of these count as right.

    The UNet reads the text tower's vectors before CLIP's projection: all 77 of them, of which most stand for the
    padding after the caption. It combines best what it never saw together if every attribute makes about the same
    difference in all of them, at right angles to those of the others. So the text's projection is the identity; the
    scale of the cosines has a low limit, so that no attribute can do with a small difference that is multiplied
    afterwards; the vector that is compared with the picture is not always that of the end token, but of any token
    from there on; and the loss adds the squared cosines between differences within groups of different attributes.
    """

    def __init__(self, clip: CLIPModel):
        super().__init__()
        self.clip = clip
        clip.text_projection.weight.requires_grad_(False).copy_(torch.eye(WIDTH))

    def forward(
        self, pixels: Tensor, tokens: Tensor, ends: Tensor, groups: Tensor, fits: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and the share of captions whose best picture is right.

        Args:
            pixels: (b, 3, 128, 128). tokens: (b, 77). ends: where each caption ends, (b,).
            groups: which group picture and caption i belong to, (b,); comparisons stay within a group. The pictures
                of a group differ in one attribute, another one in each group.
            fits: `fits[i, j]` is 1 where caption i is true of picture j, (b, b).
        """
        vectors = self.clip.text_model(input_ids=tokens).last_hidden_state
        position = ends + (torch.rand(ends.shape, device=ends.device) * (tokens.shape[1] - ends)).long()
        text = F.normalize(vectors[torch.arange(len(ends), device=ends.device), position].float(), dim=1)
        seen = self.clip.vision_model(pixel_values=pixels).pooler_output
        picture = F.normalize(self.clip.visual_projection(seen).float(), dim=1)
        self.clip.logit_scale.data.clamp_(max=math.log(MAX_SCALE))
        logits = self.clip.logit_scale.exp() * text @ picture.T  # (captions, pictures)
        same = groups[:, None] == groups[None, :]
        logits, fits = logits.masked_fill(~same, -1e9), fits * same
        to_picture = -(F.log_softmax(logits, dim=1) * fits / fits.sum(1, keepdim=True)).sum(1).mean()
        to_text = -(F.log_softmax(logits, dim=0) * fits / fits.sum(0, keepdim=True)).sum(0).mean()
        best = fits.gather(1, logits.argmax(1, keepdim=True)).mean()
        kind = groups % len(ATTRIBUTES)  # groups take the attributes by turns
        overlap = squared_cosines(text, same, kind[:, None] != kind[None, :])
        loss = (to_picture + to_text) / 2 + ANGLE_WEIGHT * overlap
        return loss, {"right": best.detach(), "overlap": overlap.detach()}


def squared_cosines(text: Tensor, same: Tensor, other: Tensor) -> Tensor:
    """Mean squared cosine between how texts differ in one group and how they differ in another, from 0 to 1.

    text: (b, d). same: whether two of them belong to one group, (b, b). other: whether they belong to groups that
    differ in two attributes, (b, b).
    """
    apart = F.normalize(text - same.float() @ text / same.sum(1, keepdim=True), dim=1)
    return (apart @ apart.T).square()[other].sum() / other.sum().clamp(min=1)


def true_of(said: list[dict[str, str]], shown: list[dict[str, str]]) -> Tensor:
    """Which captions are true of which pictures: (captions, pictures) of 0 and 1."""
    return torch.tensor([[float(all(p[k] == v for k, v in c.items())) for p in shown] for c in said])


def alike_but_for(name: str, seed: int, count: int) -> list[np.ndarray]:
    """The first `count` training pictures in groups: the pictures of a group differ in attribute `name` only.

    In a mixed batch the attributes that are easy to see tell almost all pictures apart. The loss gets by without the
    rest, and the vectors say little about it. And two values that never occur together would exclude each other:
    knowing the glasses, one knows that it is no dog. In a group like these neither can happen.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for i in range(count):
        shown = training_scene(seed, i).attributes()
        groups.setdefault(tuple(value for key, value in shown.items() if key != name), []).append(i)
    return [np.array(indices) for indices in groups.values()]


def train_clip(options: loop.Options, data_folder: Path) -> CLIPModel:
    """Train on the rendered scenes with random captions; the tokenizer is learnt first."""
    torch.manual_seed(options.seed)
    images = data.pictures(data_folder, "train", options.seed, options.pictures)
    with loop.processes().main_process_first():
        tokenizer = train_tokenizer(options.out / "tokenizer")
    alike = {name: alike_but_for(name, options.seed, options.pictures) for name in ATTRIBUTES}

    def loss_of(model: Trainer, indices: np.ndarray, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        rng = random.Random(f"{options.seed}-{step}-{indices[0]}")
        groups = [i // PER_GROUP for i in range(len(indices))]
        names = [tuple(ATTRIBUTES)[(step + group) % len(ATTRIBUTES)] for group in range(groups[-1] + 1)]  # by turns
        chosen = [rng.choice(alike[name]) for name in names]
        mentions = [(*captions.random_mention(rng), name) for name in names]
        indices = np.array([chosen[group][i % len(chosen[group])] for group, i in zip(groups, indices)])
        scenes = [training_scene(options.seed, int(i)) for i in indices]
        texts = [scene.caption(rng, attributes=mentions[group]) for scene, group in zip(scenes, groups)]
        shown = [scene.attributes() for scene in scenes]
        said = [{key: values[key] for key in mentions[group]} for values, group in zip(shown, groups)]
        device = next(model.parameters()).device
        pixels = data.to_tensor(images[indices]).to(device)
        fits = true_of(said, shown).to(device)
        return model(pixels, *tokenize(tokenizer, texts, device), torch.tensor(groups, device=device), fits)

    model = Trainer(CLIPModel(clip_config(tokenizer)))
    return loop.train("clip", model, loss_of, options).clip
