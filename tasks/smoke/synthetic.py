"""The smoke tasks. A tiny random model learns each in ten steps; their scores mean nothing.

Numbers come from numpy's `RandomState`, whose stream is frozen for all versions (NEP 19); the stream of the newer
`Generator` may change, and the fingerprints with it.
"""

from __future__ import annotations

import numpy as np

from ..classification import Classification
from ..contract import Card, Split, SplitName
from ..language_modelling import LanguageModelling
from ..openvocab.open_vocabulary import OpenVocabulary

SIDE = 28
THINGS = ("cat", "dog", "bird", "fish", "lamp", "door", "tree", "road")
WORDS = (
    ("awful", "boring", "dreadful", "lousy", "poor", "sad", "weak", "worst"),
    ("best", "clever", "fine", "great", "lovely", "moving", "superb", "warm"),
)


class SmokeVision(Classification):
    """Which of three colour channels is the brightest, under noise."""

    def build(self, split: SplitName) -> Split:
        """`image`: uint8 (N, 28, 28, 3)."""
        draws, labels, items = _start(self.card, split)
        images = draws.randint(0, 160, size=(len(labels), SIDE, SIDE, 3))
        images[np.arange(len(labels)), :, :, labels] += 95
        return Split({"image": images.astype(np.uint8)}, labels, items)


class SmokeClip(OpenVocabulary):
    """The pictures of `SmokeVision`, told by the names of the colours."""

    def make(self, split: SplitName) -> Split:
        """`image`: uint8 (N, 28, 28, 3)."""
        return SmokeVision(self.card).build(split)


class SmokeText(Classification):
    """Six pairs of a judging word and a thing: are the judgements good or bad."""

    def build(self, split: SplitName) -> Split:
        """`text`: twelve words each."""
        draws, labels, items = _start(self.card, split)
        return Split({"text": [_phrase(draws, WORDS[label], 6) for label in labels]}, labels, items)


class SmokeLanguage(LanguageModelling):
    """Phrases of a small vocabulary, of which frequency and order can be learned."""

    def build(self, split: SplitName) -> Split:
        """`text`: eight words each."""
        draws, labels, items = _start(self.card, split)
        return Split({"text": [_phrase(draws, WORDS[1], 4) for _ in labels]}, None, items)


def _start(card: Card, split: SplitName) -> tuple[np.random.RandomState, np.ndarray, tuple[str, ...]]:
    """A generator of the split's own, labels in turn (0, 1, .., 0, 1, ..), and item names."""
    draws = np.random.RandomState({"train": 1, "test": 2}[split])
    size = card.sizes[split]
    labels = np.arange(size, dtype=np.int64) % max(1, len(card.classes))
    return draws, labels, tuple(f"{split}-{index:03d}" for index in range(size))


def _phrase(draws: np.random.RandomState, judgements: tuple[str, ...], pairs: int) -> str:
    """`pairs` times a judgement and a thing."""
    return " ".join(
        f"{judgements[draws.randint(len(judgements))]} {THINGS[draws.randint(len(THINGS))]}" for _ in range(pairs)
    )
