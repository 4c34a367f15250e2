"""Regression: one number for each item, from a head on pooled features; judged by its correlation with the label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .contract import Predictions, Split, Task
from .correlation import contributions
from .metrics import compute

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..bench.backbones.contract import Backbone


class Regression(Task):
    """Subclasses add `build` (float64 labels) and `make_head` (one output). The primary metric is `pearson`."""

    def forward(self, backbone: Backbone, head: nn.Module | None, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Predicted numbers (B,)."""
        if head is None:
            raise TypeError(f"{self.card.id} predicts with a head; none was given")
        numbers: torch.Tensor = head(backbone.encode(batch)).squeeze(-1)
        return numbers

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean squared error."""
        from torch.nn import functional

        return functional.mse_loss(outputs, batch["labels"].to(outputs.dtype))

    def predict(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """`number`: float32 (B,)."""
        return {"number": outputs.detach().float().cpu().numpy()}

    def score(self, predictions: Predictions, split: Split) -> dict[str, float]:
        """`pearson` and `spearman` in -1..1."""
        numbers, labels = predictions.columns["number"], _labels(predictions, split)
        return {name: compute(name, numbers, labels) for name in ("pearson", "spearman")}

    def per_item(self, predictions: Predictions, split: Split) -> np.ndarray:
        """float64 (N,): Pearson's correlation plus each item's influence on it, see `contributions`."""
        return contributions(predictions.columns["number"], _labels(predictions, split))


def _labels(predictions: Predictions, split: Split) -> np.ndarray:
    if split.labels is None:
        raise ValueError("a regression split needs labels")
    if predictions.items != split.items:
        raise ValueError("predictions and split name different items")
    return split.labels
