"""DyLoRA: LoRA that works at every rank up to r after one training (Valipour et al. 2022, arXiv 2210.07558).

At each step a rank b is drawn uniformly from 1 to r and W' = W + (alpha / b) B_b A_b, with the first b columns of B and
rows of A (equation 6); so the first components learn to do without the later ones. With `frozen`, a step changes the
b-th column and row only (section 4.2). Outside training steps the rank is `test_rank`.

Trainable parameters: r * (d_in + d_out) for each matrix.
"""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor

from ....bench.anatomy import Anatomy
from ..low_rank.lora import LoRA, LoRAConfig, LowRank


class DyLoRAConfig(LoRAConfig):
    """`r` is the highest rank."""

    test_rank: int = Field(0, ge=0, description="rank outside training steps, at most r; 0: r")
    frozen: bool = Field(description="whether a step trains the last component of the drawn rank only")


class Truncated(LowRank):
    """x -> (alpha / b) B_b A_b x, for the rank b in use."""

    def __init__(self, like: Tensor, config: DyLoRAConfig, rank: int) -> None:
        super().__init__(like, config.r, config.scale, config.dropout, config.init)
        self.alpha, self.rank = config.alpha, rank

    def product(self) -> tuple[Tensor, Tensor, float]:
        return self.a[: self.rank], self.b[:, : self.rank], self.alpha / self.rank


class DyLoRA(LoRA):
    """One `Truncated` beside each chosen matrix, all of the same rank."""

    Config = DyLoRAConfig
    config: DyLoRAConfig

    def attach(self, anatomy: Anatomy) -> None:
        if self.config.test_rank > self.config.r:
            raise ValueError(f"test_rank={self.config.test_rank} is above r={self.config.r}")
        super().attach(anatomy)

    def factor(self, like: Tensor) -> LowRank:
        return Truncated(like, self.config, self.config.test_rank or self.config.r)

    def products(self) -> list[Truncated]:
        """Those of all matrices."""
        return cast("list[Truncated]", list(self.factors.values()))

    def use_rank(self, rank: int) -> None:
        """Truncate all products to `rank`; 0 stands for all that there is."""
        for factor in self.products():
            factor.rank = min(rank or len(factor.a), len(factor.a))

    def before_step(self, step: int) -> None:
        highest = max(len(factor.a) for factor in self.products())
        self.use_rank(int(torch.randint(1, highest + 1, ())))

    def after_backward(self, step: int) -> None:
        if self.config.frozen:
            for factor in self.products():
                last = factor.rank - 1
                assert factor.a.grad is not None and factor.b.grad is not None
                factor.a.grad[:last] = 0
                factor.b.grad[:, :last] = 0

    def after_step(self, step: int) -> None:
        self.use_rank(self.config.test_rank)
