"""LoRA+: LoRA whose B has a larger learning rate than A (Hayou et al. 2024, arXiv 2402.12354, section 4).

lr(B) = ratio * lr(A). For features to be learnt at the same speed by A and B as the width d grows, lr(A) must be of
order 1/d and lr(B) of order 1 (theorem 1); the paper recommends a ratio of about 16.

Trainable parameters: r * (d_in + d_out) for each matrix.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ..low_rank.lora import LoRA, LoRAConfig


class LoRAPlusConfig(LoRAConfig):
    """`lr` is that of A."""

    ratio: float = Field(gt=0, description="learning rate of B over that of A")


class LoRAPlus(LoRA):
    """LoRA in two groups of the optimiser."""

    Config = LoRAPlusConfig
    config: LoRAPlusConfig

    def parameter_groups(self) -> list[dict[str, Any]]:
        factors = list(self.factors.values())
        return [
            {"params": [factor.a for factor in factors]},
            {"params": [factor.b for factor in factors], "lr": self.config.lr * self.config.ratio},
        ]
