"""Texts of different lengths in one batch: those that are alike together, and no column that is padding alone."""

from __future__ import annotations

from torch import Tensor


def shortest_first(prepared: dict[str, Tensor]) -> Tensor:
    """A permutation of the items, by the number of their tokens."""
    return prepared["attention_mask"].sum(1).argsort(stable=True)


def without_common_padding(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch, its ids and mask (B, L) cut to the longest text; padding is at the right."""
    longest = int(batch["attention_mask"].sum(1).max())
    return {**batch, **{name: batch[name][:, :longest] for name in ("input_ids", "attention_mask")}}
