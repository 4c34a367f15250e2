"""rsLoRA: W' = W + (alpha / sqrt(r)) B A (Kalajdzievski 2023, arXiv 2312.03732, theorem 3.2).

With LoRA's alpha / r the update of one step shrinks as the rank grows; with alpha / sqrt(r), and only with a factor of
that order, its size stays the same.

Trainable parameters: r * (d_in + d_out) for each matrix.
"""

from __future__ import annotations

import math

from ..reparameterized.low_rank.lora import LoRA, LoRAConfig


class RankStabilizedConfig(LoRAConfig):
    """`alpha` divided by the root of `r` scales the product."""

    @property
    def scale(self) -> float:
        """Factor of B A."""
        return self.alpha / math.sqrt(self.r)


class RankStabilizedLoRA(LoRA):
    """LoRA with another scale."""

    Config = RankStabilizedConfig
