"""Text, language and smoke tasks: their data, and the laws of head, loss, predictions and score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft_atlas.bench.backbones.contract import Backbone
from peft_atlas.bench.registry import registry
from peft_atlas.tasks.classification import Classification
from peft_atlas.tasks.contract import Card, Predictions, Split
from peft_atlas.tasks.language_modelling import LanguageModelling
from peft_atlas.tasks.smoke.synthetic import WORDS
from peft_atlas.tasks.text.near_duplicates import listed, near_duplicate_pairs, redundant
from peft_atlas.tasks.text.reviews import clean, ending, opening, read_reviews

REVIEWS = [pytest.param(name, marks=pytest.mark.assets) for name in ("rotten-tomatoes", "imdb", "reviews-lm")]
SMOKE = ["smoke-vision", "smoke-text", "smoke-lm"]


@dataclass
class Features:
    """A backbone whose features (B, width) or token scores (B, L, V) are given."""

    values: torch.Tensor

    def encode(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.values

    def logits(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.values


def load(name: str) -> Any:
    tasks = registry("tasks")
    return tasks.load(name)(tasks.card(name))


@pytest.mark.parametrize("name", [*REVIEWS, *SMOKE])
def test_data_are_those_of_the_card(name: str) -> None:
    task = load(name)
    splits = {split: task.build(split) for split in ("train", "test")}
    assert {split: len(data) for split, data in splits.items()} == task.card.sizes
    assert {split: data.fingerprint() for split, data in splits.items()} == task.card.fingerprints
    assert not set(splits["train"].items) & set(splits["test"].items)
    for data in splits.values():
        assert len(set(data.items)) == len(data) == len(next(iter(data.inputs.values())))


@pytest.mark.parametrize("name", [*REVIEWS[:2], "smoke-vision", "smoke-text"])
def test_every_prefix_of_a_split_is_balanced(name: str) -> None:
    """So `bench tune` may hold out the last fifth of train."""
    task = load(name)
    for split in ("train", "test"):
        labels = task.build(split).labels
        assert labels.dtype == np.int64
        for end in (len(labels) * 4 // 5, len(labels)):
            counts = np.bincount(labels[:end], minlength=len(task.card.classes))
            assert len(counts) == len(task.card.classes)
            assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("name", REVIEWS)
def test_no_shown_text_repeats_another(name: str) -> None:
    task = load(name)
    texts = [text for split in ("train", "test") for text in task.build(split).inputs["text"]]
    assert all(text and "<br" not in text and "\n" not in text for text in texts)
    assert near_duplicate_pairs(texts) == []


@pytest.mark.assets
def test_no_drawn_review_repeats_another_in_full() -> None:
    """Across tasks too: none of the 6,340 reviews is a near-duplicate of another, and no two tasks share one."""
    drawn = [
        item
        for name in ("rotten-tomatoes", "imdb", "reviews-lm")
        for s in ("train", "test")
        for item in load(name).build(s).items
    ]
    assert len(set(drawn)) == len(drawn)
    texts = {review.item: review.text for review in read_reviews()}
    assert near_duplicate_pairs([texts[item] for item in drawn]) == []
    assert listed() <= texts.keys()
    assert not listed() & set(drawn)


def test_near_duplicates_are_found_and_grouped() -> None:
    base = "the film follows a tired detective through a rainy city where nobody tells the truth about the missing girl"
    texts = [
        base,
        base.replace("tired", "weary").upper() + "!",  # one word differs
        "a tired detective through a rainy city where nobody tells the truth",  # excerpt
        "an entirely different review about dancing penguins and the long polar night of their discontent",
        "short words",
        "Short, words.",
    ]
    pairs = near_duplicate_pairs(texts)
    assert {(0, 1), (0, 2), (4, 5)} <= set(pairs)
    assert not [pair for pair in pairs if 3 in pair]
    assert redundant(["f", "b", "c", "d", "e", "a"], pairs) == ["c", "e", "f"]
    assert near_duplicate_pairs([]) == []


def test_what_is_shown_of_a_review() -> None:
    review = "first<br /><br />second  third\n" + " ".join(map(str, range(60))) + "<br/>"
    assert clean(review).startswith("first second third 0 1")
    assert opening(review).split() == ["first", "second", "third", *map(str, range(37))]
    assert ending(review).split() == [str(number) for number in range(20, 60)]
    assert ending("only this") == opening("only this") == "only this"


def test_smoke_labels_can_be_read_off_the_data() -> None:
    for split in ("train", "test"):
        seen = load("smoke-vision").build(split)
        assert (seen.inputs["image"].mean(axis=(1, 2)).argmax(axis=1) == seen.labels).all()
        read = load("smoke-text").build(split)
        good = [len(set(text.split()) & set(WORDS[1])) > 0 for text in read.inputs["text"]]
        assert (np.array(good) == read.labels).all()


def test_smoke_texts_differ() -> None:
    for name in ("smoke-text", "smoke-lm"):
        texts = [text for split in ("train", "test") for text in load(name).build(split).inputs["text"]]
        assert all(a != b for a, b in combinations(texts, 2))


def a_card(classes: int) -> Card:
    return Card(
        id="t", name="t", version=1, family="text", target="m:C", metric="accuracy", higher_is_better=True,
        licence="", citation="", description="", classes=tuple(map(str, range(classes))),
    )  # fmt: skip


class AnyClassification(Classification):
    def build(self, split: str) -> Split:
        raise NotImplementedError


class AnyLanguage(LanguageModelling):
    def build(self, split: str) -> Split:
        raise NotImplementedError


def test_fresh_head_knows_nothing_and_follows_the_seed() -> None:
    task = AnyClassification(a_card(4))
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        heads.append(task.make_head(384))
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)
    features = torch.nn.functional.layer_norm(torch.randn(256, 384), (384,))
    batch = {"labels": torch.arange(256) % 4}
    outputs = task.forward(cast(Backbone, Features(features)), heads[0], batch)
    assert task.loss(outputs, batch).item() == pytest.approx(math.log(4) + 0.02, abs=0.03)
    with pytest.raises(TypeError, match="head"):
        task.forward(cast(Backbone, Features(features)), None, batch)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 7))
def test_classification_scores_come_from_stored_predictions(seed: int, items: int, classes: int) -> None:
    task = AnyClassification(a_card(classes))
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(items, classes, generator=generator) * 3
    labels = torch.randint(classes, (items,), generator=generator)
    names = tuple(map(str, range(items)))
    stored = Predictions(names, task.predict(outputs, {"labels": labels}))
    split = Split({"text": ["x"] * items}, labels.numpy(), names)
    scores = task.score(stored, split)
    assert stored.columns["logits"].dtype == np.float32
    assert set(scores) == {"accuracy", "macro_f1", "nll", "ece"}
    assert scores["accuracy"] == pytest.approx((outputs.argmax(1) == labels).float().mean().item())
    assert scores["nll"] == pytest.approx(task.loss(outputs, {"labels": labels}).item(), rel=1e-5, abs=1e-6)
    assert task.per_item(stored, split).mean() == pytest.approx(scores["accuracy"])
    with pytest.raises(ValueError, match="different items"):
        task.score(Predictions((*names[::-1], "y"), stored.columns), split)


def language_batch(generator: torch.Generator, items: int, length: int, left: bool) -> dict[str, torch.Tensor]:
    """Ids, mask and bytes of texts of different lengths (a start token first), padded on one side."""
    lengths = torch.randint(2, length + 1, (items,), generator=generator)
    places = torch.arange(length).expand(items, -1)
    mask = places >= length - lengths[:, None] if left else places < lengths[:, None]
    ids = torch.randint(11, (items, length), generator=generator)
    return {
        "input_ids": ids,
        "attention_mask": mask.long(),
        "bytes": torch.randint(1, 99, (items,), generator=generator),
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(2, 9), st.booleans())
def test_language_loss_and_score_count_every_text_token_once(seed: int, items: int, length: int, left: bool) -> None:
    task = AnyLanguage(a_card(0))
    generator = torch.Generator().manual_seed(seed)
    batch = language_batch(generator, items, length, left)
    outputs = task.forward(cast(Backbone, Features(torch.randn(items, length, 11, generator=generator))), None, batch)
    nats = np.zeros(items)
    for i, ids in enumerate(batch["input_ids"]):
        kept = batch["attention_mask"][i].nonzero().flatten().tolist()
        for before, at in pairwise(kept):
            nats[i] -= outputs[i, before].log_softmax(0)[ids[at]].item()
    names = tuple(map(str, range(items)))
    stored, split = Predictions(names, task.predict(outputs, batch)), Split({"text": ["x"] * items}, None, names)
    assert stored.columns["nats"] == pytest.approx(nats, rel=1e-5)
    assert task.loss(outputs, batch).item() == pytest.approx(
        nats.sum() / (batch["attention_mask"].sum().item() - items), rel=1e-5
    )
    expected = nats.sum() / math.log(2) / batch["bytes"].sum().item()
    assert task.score(stored, split) == {"bits_per_byte": pytest.approx(expected, rel=1e-5)}
    assert task.per_item(stored, split).mean() == pytest.approx(expected, rel=1e-5)
    assert task.make_head(8) is None
