"""GLUE's tasks. They differ in what is scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..classification import Classification
from ..contract import Predictions, Split, SplitName
from ..correlation import contributions
from ..metrics import compute
from ..regression import Regression
from .reading import read

if TYPE_CHECKING:
    from torch import nn

DROPOUT = 0.1


def encoder_head(width: int, outputs: int) -> nn.Module:
    """Dropout, a layer with tanh, dropout, and the outputs: the classifier of RoBERTa, trained whatever the method is.

    Source: `RobertaForSequenceClassification` of transformers; Hu et al., "LoRA", arXiv:2106.09685, train it too.
    Weights are normal with deviation 0.02, biases zero, as that library draws them.
    """
    from torch import nn

    layers = [nn.Linear(width, width), nn.Linear(width, outputs)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Dropout(DROPOUT), layers[0], nn.Tanh(), nn.Dropout(DROPOUT), layers[1])


class GlueClassification(Classification):
    """SST-2, QNLI, RTE: accuracy."""

    def build(self, split: SplitName) -> Split:
        return read(self.card, split)

    def make_head(self, width: int) -> nn.Module:
        """See `encoder_head`."""
        return encoder_head(width, self.card.outputs)


class Paraphrase(GlueClassification):
    """MRPC and QQP: F1 of the class "equivalent" beside the accuracy."""

    def score(self, predictions: Predictions, split: Split) -> dict[str, float]:
        """As in classification, and `f1`."""
        chosen = predictions.columns["logits"].argmax(axis=1)
        return {**super().score(predictions, split), "f1": compute("f1", chosen, np.asarray(split.labels))}


class Acceptability(GlueClassification):
    """CoLA: Matthews correlation."""

    def score(self, predictions: Predictions, split: Split) -> dict[str, float]:
        """As in classification, and `matthews`."""
        chosen = predictions.columns["logits"].argmax(axis=1)
        return {**super().score(predictions, split), "matthews": compute("matthews", chosen, np.asarray(split.labels))}

    def per_item(self, predictions: Predictions, split: Split) -> np.ndarray:
        """float64 (N,): the correlation plus each item's influence on it, see `contributions`."""
        super().per_item(predictions, split)  # the same items, or an error
        return contributions(predictions.columns["logits"].argmax(axis=1), np.asarray(split.labels))


class Inference(GlueClassification):
    """MNLI: the accuracy over both test sets, and that of each: genres seen in training (matched) and unseen ones."""

    def score(self, predictions: Predictions, split: Split) -> dict[str, float]:
        """As in classification, and `accuracy_matched`, `accuracy_mismatched` of the items there are."""
        hits = self.per_item(predictions, split)
        parts = np.array([item.split("/")[1].removeprefix("validation_") for item in split.items])
        named = {f"accuracy_{part}": float(hits[parts == part].mean()) for part in np.unique(parts) if "match" in part}
        return {**super().score(predictions, split), **named}


class Similarity(Regression):
    """STS-B: how alike two sentences are, 0 to 5."""

    def build(self, split: SplitName) -> Split:
        return read(self.card, split)

    def make_head(self, width: int) -> nn.Module:
        """See `encoder_head`."""
        return encoder_head(width, 1)
