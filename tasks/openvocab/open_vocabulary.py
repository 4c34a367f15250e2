"""Classification by names: an item's classes compete by their texts, and there is no head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...bench.errors import UsageError
from ..contract import Card, Predictions, Split
from ..metrics import compute
from ..vision.built_once import BuiltOnce

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ...bench.anatomy.pair import Pair
    from ...bench.backbones.contract import Backbone


class OpenVocabulary(BuiltOnce):
    """One of `card.classes` per item, told by the pair of towers (`bench.anatomy.pair`).

    The card's option `templates` are the texts that a class's name is put into. Where a split has the integer column
    "group", an item competes with the classes of its own group alone, in training and in evaluation: the logits of the
    others are -inf. Raises UsageError for a class that is named twice.
    """

    def __init__(self, card: Card) -> None:
        super().__init__(card)
        twice = sorted({name for name in card.classes if card.classes.count(name) > 1})
        if twice:
            raise UsageError(f"{card.id}: two classes are called {twice[0]!r}")

    @property
    def groups(self) -> np.ndarray:
        """int64 (C,): the group of each class; of one group, unless a task says otherwise."""
        return np.zeros(len(self.card.classes), dtype=np.int64)

    def introduce(self, backbone: Backbone) -> None:
        """Show the pair the names, templates and groups of the classes."""
        _pair(backbone).show(self.card.classes, self.card.options["templates"], self.groups.tolist())

    def make_head(self, width: int) -> nn.Module | None:
        """None: names take a head's place."""
        return None

    def forward(self, backbone: Backbone, head: nn.Module | None, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits (B, C), -inf where a class does not compete."""
        pair = _pair(backbone)
        logits, competing = pair.scores(batch), pair.competing(batch)
        return logits if competing is None else logits.masked_fill(~competing, -float("inf"))


class BaseToNew(OpenVocabulary):
    """Trained on the first half of the classes, scored on both halves, each item within its own.

    Zhou et al., Conditional Prompt Learning for Vision-Language Models, CVPR 2022 (arXiv:2203.05557), section 4.1: the
    first ceil(C / 2) classes are base (as in their code), and h = 2 base new / (base + new), after Xian et al. 2017.
    """

    @property
    def groups(self) -> np.ndarray:
        """0 for base, 1 for new."""
        classes = len(self.card.classes)
        return (np.arange(classes) >= -(-classes // 2)).astype(np.int64)

    def score(self, predictions: Predictions, split: Split) -> dict[str, float]:
        """`h`, `base` and `new` in 0..1; `nll` in nats and `ece` over all items."""
        hits, is_new = self._hits(predictions, split)
        base, new = hits[~is_new].mean(), hits[is_new].mean()
        logits, labels = predictions.columns["logits"], np.asarray(split.labels)
        return {
            "h": harmonic_mean(base, new),
            "base": float(base),
            "new": float(new),
            "nll": compute("nll", logits, labels),
            "ece": compute("ece", logits, labels),
        }

    def per_item(self, predictions: Predictions, split: Split) -> np.ndarray:
        """float64 (N,): pseudo-values of h, see `linearised`."""
        return linearised(*self._hits(predictions, split))

    def _hits(self, predictions: Predictions, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Whether each item was told right, and whether its class is new. UsageError where one kind is missing."""
        is_new = np.asarray(split.inputs["group"]) == 1
        if is_new.all() or not is_new.any():
            raise UsageError(f"{self.card.id}: the split needs items of base and of new classes")
        return super().per_item(predictions, split), is_new


def harmonic_mean(base: float, new: float) -> float:
    """2 base new / (base + new); 0 where both are 0."""
    return float(2 * base * new / (base + new)) if base + new else 0.0


def linearised(hits: np.ndarray, is_new: np.ndarray) -> np.ndarray:
    """float64 (N,): values whose mean is h, and whose mean's variance is h's by the delta method.

    With the means b and n of the N_b base and the N_n new items, y = h + N / N_b dh/db (x - b) for a base item of value
    x, and likewise for a new one; dh/db = 2 n^2 / (b + n)^2 and dh/dn = 2 b^2 / (b + n)^2. The deviations of either
    kind add up to 0, so the mean is h; the variance of the mean is (dh/db)^2 var(b) + (dh/dn)^2 var(n).
    """
    base, new = hits[~is_new].mean(), hits[is_new].mean()
    values = np.full(len(hits), harmonic_mean(base, new))
    if base + new:
        for members, mean, other in ((~is_new, base, new), (is_new, new, base)):
            slope = 2 * other**2 / (base + new) ** 2
            values[members] += len(hits) / members.sum() * slope * (hits[members] - mean)
    return values


def _pair(backbone: Backbone) -> Pair:
    pair = backbone.anatomy.pair
    if pair is None:
        raise UsageError(f"{backbone.card.id} does not bring images and texts together")
    return pair
