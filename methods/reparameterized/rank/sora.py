"""SoRA: W' = W + (alpha / r) B diag(g) A, with a gate g that becomes sparse (Ding et al. 2023, arXiv 2311.11696).

The gate trains under an L1 penalty by proximal gradient: after each step of the optimiser, g <- sign(g) max(|g| - t, 0)
(equation 8, T), with t the learning rate times the penalty. A component whose gate is zero gets no gradient in its row
of A and column of B, and drops out of the product. As in the authors' code, g is normal at the start and B zero, and t
stays the same while the learning rate follows its schedule.

Trainable parameters: r * (d_in + d_out + 1) for each matrix, of which training may set some gates to zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..low_rank.lora import LoRA, LoRAConfig, LowRank


class SoRAConfig(LoRAConfig):
    """`r` is the highest rank."""

    penalty: float = Field(ge=0, description="weight of the L1 penalty: a step shrinks gates by lr * penalty")


class Gated(LowRank):
    """x -> scale * B (g * A x)."""

    def __init__(self, like: Tensor, config: SoRAConfig) -> None:
        super().__init__(like, config.r, config.scale, config.dropout, config.init)
        self.gate = nn.Parameter(torch.randn(config.r, device=like.device))

    def product(self) -> tuple[Tensor, Tensor, float]:
        return self.gate[:, None] * self.a, self.b, self.scale


class SoRA(LoRA):
    """One `Gated` beside each chosen matrix."""

    Config = SoRAConfig
    config: SoRAConfig

    def factor(self, like: Tensor) -> LowRank:
        return Gated(like, self.config)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        for factor in self.factors.values():
            assert isinstance(factor, Gated)
            factor.gate.copy_(F.softshrink(factor.gate, self.config.lr * self.config.penalty))
