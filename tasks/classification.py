"""Classification: a linear head on pooled features. Vision and text tasks add only `build`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .contract import Predictions, Split, Task
from .metrics import compute

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..bench.backbones.contract import Backbone

HEAD_STD = 0.01


class Classification(Task):
    """One label of `card.classes` per item.

    The head is one linear layer, so that what a method adds to the backbone is not hidden behind a deep head.
    """

    def make_head(self, width: int) -> nn.Module | None:
        """`nn.Linear(width, classes)`: bias 0, weights normal with deviation 0.01 from torch's generator.

        Features behind a layer norm have a length near sqrt(width), so the first logits spread by about
        0.01 * sqrt(384) = 0.2 and the loss starts at ln(classes) + 0.02. A head of zeros would start at ln(classes)
        exactly but pass no gradient to the backbone in the first step, and would not depend on the seed.
        """
        from torch import nn

        head = nn.Linear(width, self.card.outputs)
        nn.init.normal_(head.weight, std=HEAD_STD)
        nn.init.zeros_(head.bias)
        return head

    def forward(self, backbone: Backbone, head: nn.Module | None, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits (B, classes)."""
        if head is None:
            raise TypeError(f"{self.card.id} classifies with a head; none was given")
        logits: torch.Tensor = head(backbone.encode(batch))
        return logits

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross entropy in nats."""
        from torch.nn import functional

        return functional.cross_entropy(outputs, batch["labels"])

    def predict(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """`logits`: float32 (B, classes)."""
        return {"logits": outputs.detach().float().cpu().numpy()}

    def score(self, predictions: Predictions, split: Split) -> dict[str, float]:
        """`accuracy`, `macro_f1` and `ece` in 0..1, `nll` in nats."""
        logits = predictions.columns["logits"]
        chosen, labels = logits.argmax(axis=1), _labels(predictions, split)
        return {
            "accuracy": compute("accuracy", chosen, labels),
            "macro_f1": compute("macro_f1", chosen, labels),
            "nll": compute("nll", logits, labels),
            "ece": compute("ece", logits, labels),
        }

    def per_item(self, predictions: Predictions, split: Split) -> np.ndarray:
        """float64 (N,): 1 where the largest logit is the label's, else 0; the mean is the accuracy."""
        return (predictions.columns["logits"].argmax(axis=1) == _labels(predictions, split)).astype(np.float64)


def _labels(predictions: Predictions, split: Split) -> np.ndarray:
    """Labels of `split`, once it is sure that predictions and split name the same items in the same order."""
    if split.labels is None:
        raise ValueError("a classification split needs labels")
    if predictions.items != split.items:
        raise ValueError("predictions and split name different items")
    return split.labels
