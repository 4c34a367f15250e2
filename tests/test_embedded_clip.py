"""Scenes, the alignment of two towers on them, and the embedded CLIP that came of it."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from peft_atlas.bench.backbones.clip import ClipBackbone
from peft_atlas.bench.pretraining.clip.material import Material, aligned_emoji, scene_material
from peft_atlas.bench.pretraining.clip.objective import contrastive_loss
from peft_atlas.bench.pretraining.clip.probes import emoji_probes
from peft_atlas.bench.pretraining.clip.scoring import scores
from peft_atlas.bench.pretraining.clip.towers import SplitTowers
from peft_atlas.bench.pretraining.clip.training import Examples, Schedule, centre, examples_of, train
from peft_atlas.bench.registry import registry
from peft_atlas.tasks.contract import Split
from peft_atlas.tasks.openvocab.emoji_names import named_emoji
from peft_atlas.tasks.openvocab.scenes import RELATIONS, USES, Scene, Thing, coloured_shapes, draw, scene_generator
from peft_atlas.tasks.openvocab.sentences import PHRASES, phrase, sentences
from peft_atlas.tasks.openvocab.shapes import SHAPES
from peft_atlas.tasks.partition import SHARES, emoji_of
from scipy.ndimage import label
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

INPUTS = {"image_size": 56, "normalisation": "imagenet", "max_tokens": 32}
RED, BLUE = Thing("circle", "red"), Thing("square", "blue")


def tiny() -> ClipBackbone:
    """Random towers of two blocks; words are hashed."""
    card = registry("backbones").card("tiny-clip")
    return ClipBackbone(card, INPUTS)


def middle(image: np.ndarray, channel: int) -> np.ndarray:
    """Where, as (x, y), the pixels lie that one channel dominates."""
    others = np.delete(image.astype(int), channel, axis=2).max(axis=2)
    rows, columns = np.nonzero(image[..., channel] > others + 60)
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_pair_lies_as_its_sentence_says(relation: Any) -> None:
    scene = Scene(RED, "white", 1, relation, BLUE)
    assert sentences(scene)[0] == f"a red circle {PHRASES[relation]} a blue square"
    for item in range(20):
        image = draw(scene, scene_generator("validation", 1, item))
        across, down = middle(image, 0) - middle(image, 2)
        along = {"left of": -across, "right of": across, "above": -down, "below": down}[relation]
        assert along > 10 and along > 1.5 * min(abs(across), abs(down))


@pytest.mark.parametrize("shape", SHAPES)
def test_as_many_things_are_seen_as_are_said(shape: str) -> None:
    for count in range(1, 7):
        image = draw(Scene(Thing(shape, "black"), "white", count), scene_generator("validation", 2, count))
        assert label(image.max(axis=2) < 128)[1] == count
    assert phrase(Thing(shape, "black"), 3).startswith(f"three black {shape}")


def test_scenes_are_drawn_alike_each_time_and_differently_for_each_use() -> None:
    scene = Scene(RED, "grey", count=4)
    drawn = [draw(scene, scene_generator(use, 3, 5)) for use in USES]
    assert np.array_equal(drawn[0], draw(scene, scene_generator("alignment", 3, 5)))
    assert not any(np.array_equal(one, other) for one, other in combinations(drawn, 2))


@pytest.mark.assets
def test_alignment_sees_its_own_share_and_no_pair_that_is_kept() -> None:
    aligned = aligned_emoji()
    for share in set(SHARES) - {"clip-align"}:
        others = emoji_of(share)
        for trait in ("codepoints", "base", "group"):
            assert not {getattr(emoji, trait) for emoji in aligned} & {getattr(emoji, trait) for emoji in others}
    fit, validation = aligned_emoji("fit"), aligned_emoji("validation")
    assert sorted([*fit, *validation], key=lambda emoji: emoji.codepoints) == aligned
    assert not {emoji.group for emoji in fit} & {emoji.group for emoji in validation}
    said = {sentence for truths in scene_material("alignment", 400, 0).truths for sentence in truths}
    kept = [phrase(thing) for thing in coloured_shapes(kept=True)]
    assert len(kept) == 16 and sum(phrase(thing) in said for thing in coloured_shapes(kept=False)) > 30
    assert not [sentence for sentence in said for pair in kept if pair in sentence]


def test_with_one_truth_each_the_loss_is_clips() -> None:
    images, texts, scale = torch.randn(5, 8), torch.randn(5, 8), torch.tensor(2.0)
    logits = scale.exp() * normalize(images, dim=1) @ normalize(texts, dim=1).T
    plain = (cross_entropy(logits, torch.arange(5)) + cross_entropy(logits.T, torch.arange(5))) / 2
    assert torch.allclose(contrastive_loss(images, texts, scale, torch.eye(5, dtype=torch.bool)), plain)
    both_true = torch.eye(5, dtype=torch.bool)
    both_true[0, 1] = True
    picture_side = cross_entropy(logits, both_true / both_true.sum(1, keepdim=True))
    text_side = cross_entropy(logits.T, both_true.T / both_true.T.sum(1, keepdim=True))
    assert torch.allclose(contrastive_loss(images, texts, scale, both_true), (picture_side + text_side) / 2)


def test_towers_cut_in_two_compute_what_the_whole_computes() -> None:
    backbone = tiny()
    towers = SplitTowers(backbone, first=1)
    material = scene_material("validation", 6, 0)
    split = Split({"image": material.images}, None, tuple(map(str, range(6))))
    whole = backbone.image_features(backbone.batch(backbone.prepare(split), torch.arange(6)))
    assert close(towers.image_features(towers.lower(material.images).float()), whole)
    texts = ["a picture of an egg.", "egg", "three red circles on a white background"]
    assert close(towers.text_features(towers.moments(texts)), backbone.text_features(backbone.tokens(texts)))


def close(found: Tensor, wanted: Tensor) -> bool:
    """Equal as far as the frozen part's bfloat16 allows."""
    return bool((found - wanted).norm() < 0.02 * wanted.norm())


def test_truths_are_looked_up_by_picture_and_sentence() -> None:
    examples = Examples(torch.zeros(3, 1, 1), torch.zeros(4, 1), torch.tensor([[0, 1], [2, -1], [1, 3]]))
    found = examples.truth(torch.tensor([2, 1]), torch.tensor([1, 2, 3]))
    assert found.tolist() == [[True, False, True], [False, True, False]]
    drawn = examples.sample(torch.tensor([1] * 50 + [0] * 50), torch.Generator().manual_seed(0))
    assert set(drawn[:50].tolist()) == {2} and set(drawn[50:].tolist()) == {0, 1}


def test_a_short_alignment_learns_and_comes_out_alike() -> None:
    material = scene_material("validation", 24, 0)
    first, second = short_alignment(material), short_alignment(material)
    assert first[0][-1] < first[0][0] - 0.3
    assert first[0] == second[0]
    assert all(torch.equal(tensor, second[1][name]) for name, tensor in first[1].items())
    untouched = dict(tiny().model.named_parameters())
    for name, tensor in first[1].items():
        below = name.startswith(("visual.trunk.blocks.0", "visual.trunk.patch", "text.transformer.embeddings"))
        assert not below or torch.equal(tensor, untouched[name])


def short_alignment(material: Material) -> tuple[list[float], dict[str, Tensor]]:
    """Losses, and all tensors after five steps on everything."""
    towers = SplitTowers(tiny(), first=1)
    examples = examples_of(material, towers)
    centre(towers, examples)
    losses: list[float] = []
    train(towers, examples, Schedule(5, 24, 24, 1e-2, 1e-2, 1e-2), 0, lambda _, loss: losses.append(loss))
    return losses, dict(towers.backbone.model.named_parameters())


@pytest.mark.assets
def test_the_embedded_clip_tells_emoji_that_it_never_saw() -> None:
    """Every second one: more than twice as often as by guessing, among the first five of 34 names, and of 8 groups."""
    kind, card = registry("backbones").load("embedded-clip"), registry("backbones").card("embedded-clip")
    file = registry("backbones").folder(card.id) / card.options["trained"]
    assert file.stat().st_size < 8_000_000
    names, categories = scores(kind(card, INPUTS), emoji_probes(named_emoji("clip-unseen")[::2]))
    assert names.units == 34 and names.chance == pytest.approx(1 / 34)
    assert names.top5 > 2 * 5 * names.chance
    assert categories.top1 > 2 * categories.chance
