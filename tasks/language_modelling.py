"""Language modelling: the backbone's own next-token scores, judged in bits per byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .contract import Predictions, Split, Task
from .metrics import compute

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..bench.backbones.contract import Backbone


IGNORED = -100  # the target that torch's cross entropy leaves out


class LanguageModelling(Task):
    """Predict every text token of an item from the tokens before it.

    A batch holds `input_ids` (B, L), `attention_mask` (B, L) and `bytes` (B,). The backbone puts ONE start token
    (mask 1) before the text, so that the first text token is predicted too; `bytes` are the UTF-8 bytes of the text
    tokens kept in `input_ids`, without the start token. Hence nats and bytes speak of the same text.
    """

    def make_head(self, width: int) -> None:
        """No head: the tokens' own scores are the output."""

    def forward(self, backbone: Backbone, head: nn.Module | None, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Next-token scores (B, L, vocabulary)."""
        return backbone.logits(batch)

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean negative log-likelihood in nats over the predicted tokens of the batch."""
        from torch.nn import functional

        targets = _targets(batch)
        return functional.cross_entropy(outputs[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    def terms(self, batch: dict[str, torch.Tensor]) -> int:
        """The predicted tokens."""
        return int((_targets(batch) != IGNORED).sum())

    def predict(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """`nats`: float64 (B,), negative log-likelihood summed over an item's tokens; `bytes`: int64 (B,)."""
        from torch.nn import functional

        # Item by item: a softmax is as large as the scores, hundreds of MB for a batch and 49,152 tokens.
        nats = [
            functional.cross_entropy(scores[:-1], targets, ignore_index=IGNORED, reduction="none").double().sum()
            for scores, targets in zip(outputs.detach().float(), _targets(batch), strict=True)
        ]
        return {
            "nats": np.array([float(value) for value in nats], dtype=np.float64),
            "bytes": batch["bytes"].cpu().numpy().astype(np.int64),
        }

    def score(self, predictions: Predictions, split: Split) -> dict[str, float]:
        """`bits_per_byte`: summed nats / ln 2 / summed bytes, lower is better."""
        _check_items(predictions, split)
        return {"bits_per_byte": compute("bits_per_byte", predictions.columns["nats"], predictions.columns["bytes"])}

    def per_item(self, predictions: Predictions, split: Split) -> np.ndarray:
        """float64 (N,): an item's bits * N / all bytes, so that the mean is the bits per byte of the corpus."""
        _check_items(predictions, split)
        bits = predictions.columns["nats"].astype(np.float64) / np.log(2.0)
        return bits * (len(bits) / predictions.columns["bytes"].sum())


def _targets(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Tokens 1 .. L-1 as int64 (B, L-1); IGNORED where a target or the token before it is padding, on either side."""
    ids, mask = batch["input_ids"], batch["attention_mask"].bool()
    return ids[:, 1:].masked_fill(~(mask[:, 1:] & mask[:, :-1]), IGNORED)


def _check_items(predictions: Predictions, split: Split) -> None:
    if predictions.items != split.items:
        raise ValueError("predictions and split name different items")
