"""CLIP: its tokenizer, its groups and its loss."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import CLIPModel

from ldm_course.scenes import Scene, training_scene
from ldm_course.text import tokenize
from ldm_course.train import clip
from ldm_course.train.clip import ANGLE_WEIGHT, ContrastiveLoss, captions_match, group_by_all_but, squared_cosines


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    before, clip.VOCABULARY_CAPTIONS = clip.VOCABULARY_CAPTIONS, 3000
    yield clip.train_tokenizer(folder)
    clip.VOCABULARY_CAPTIONS = before


def test_every_caption_word_is_one_token(tokenizer):
    words = {word for i in range(300) for word in training_scene(0, i).caption().split()}
    assert {"dog", "glasses", "running"} <= words
    assert not [word for word in words if len(tokenizer.tokenize(word)) != 1]


def test_captions_that_say_less_match_more_images():
    shown = [Scene(animal="dog").attributes(), Scene(animal="dog", accessory="hat").attributes()]
    said = [{"animal": "dog"}, {"animal": "dog", "accessory": "hat"}]
    assert captions_match(said, shown).tolist() == [[1.0, 1.0], [0.0, 1.0]]


def test_a_group_differs_in_one_attribute_only():
    groups = group_by_all_but("animal", 0, 3000)
    assert sorted(i for group in groups for i in group) == list(range(3000))
    largest = [training_scene(0, int(i)).attributes() for i in max(groups, key=len)]
    assert len({scene.pop("animal") for scene in largest}) > 1
    assert all(scene == largest[0] for scene in largest)


def test_clip_compares_within_a_group_only(tokenizer):
    torch.manual_seed(0)
    loss_of = ContrastiveLoss(CLIPModel(clip.clip_config(tokenizer)))
    pixels = torch.randn(4, 3, 128, 128)
    tokens = tokenize(tokenizer, ["a dog", "a white cat running", "a bear", "a pig with a hat"])

    def loss(pixels, groups, matches):
        torch.manual_seed(1)  # which of the tokens after the end is compared
        whole, parts = loss_of(pixels, tokens, torch.tensor(groups), matches)
        return (whole - ANGLE_WEIGHT * parts["overlap"]).item()

    # an untrained CLIP sees hardly a difference: its loss is that of a random choice within the group
    assert loss(pixels, [0, 1, 2, 3], torch.eye(4)) == pytest.approx(0, abs=1e-6)
    assert loss(pixels, [0, 0, 1, 1], torch.eye(4)) == pytest.approx(math.log(2), abs=0.05)
    assert loss(pixels, [0, 0, 0, 0], torch.eye(4)) == pytest.approx(math.log(4), abs=0.05)
    exchanged, matches = pixels[[0, 1, 3, 2]], torch.eye(4)[[0, 1, 3, 2]]
    assert loss(exchanged, [0, 0, 1, 1], matches) == pytest.approx(loss(pixels, [0, 0, 1, 1], torch.eye(4)), rel=1e-5)


def test_the_compared_token_is_the_end_token_or_padding(tokenizer, monkeypatch):
    """With a draw of 0 it is the first end token: the padding after it makes no difference to its vector."""
    torch.manual_seed(0)
    loss_of = ContrastiveLoss(CLIPModel(clip.clip_config(tokenizer)))
    tokens = tokenize(tokenizer, ["a dog", "a white cat running"])
    changed = tokens.clone()
    changed[:, 10:-1] = 5  # after both end tokens
    arguments = (torch.zeros(2, dtype=torch.int64), torch.eye(2))
    monkeypatch.setattr(torch, "rand", torch.zeros)
    losses = [loss_of(torch.ones(2, 3, 128, 128), ids, *arguments)[0].item() for ids in (tokens, changed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_differences_of_two_groups_are_orthogonal_or_not():
    same = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).bool()
    x, y, far = torch.tensor([[1.0, 0, 0], [0, 1, 0], [5, 6, 7]])
    assert squared_cosines(torch.stack([x, -x, far + x, far - x]), same, ~same) == pytest.approx(1)
    assert squared_cosines(torch.stack([x, -x, far + y, far - y]), same, ~same) == pytest.approx(0)
    assert squared_cosines(torch.stack([x, -x, x + y, -x - y]), same, ~same) == pytest.approx(0.5)
    one = torch.ones(2, 2).bool()
    assert squared_cosines(torch.stack([x, y]), one, ~one) == 0, "one group has no other"
