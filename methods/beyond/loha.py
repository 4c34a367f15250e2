"""LoHa: dW = s (B1 A1) * (B2 A2), element by element (FedPara, Hyeon-Woo et al. 2021, arXiv 2108.06098).

s = alpha / r. Two factors of rank r make an update of rank up to r^2 (FedPara, proposition 1). A2 is zero at the start
and the others are uniform, as HF PEFT has it; LyCORIS (2309.14859) draws them from normal distributions.

The product is itself a low-rank one of rank r^2, whose factors are all products of a column of B1 with one of B2 and of
a row of A1 with one of A2. That form is applied where it is cheaper than the dense matrix.

Trainable parameters: 2 * r * (d_in + d_out) for each matrix.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...bench.anatomy.linear import LinearPlace
from ..contract import TargetedConfig
from ..parts.targeted import TargetedMethod


class LoHaConfig(TargetedConfig):
    """`alpha` divided by `r` scales the product."""

    size: ClassVar[str | None] = "r"
    in_proportion: ClassVar[tuple[str, ...]] = ("alpha",)

    r: int = Field(gt=0, description="rank of each of the two factors")
    alpha: float = Field(gt=0, description="scale of the product is alpha / r")


class HadamardProduct(nn.Module):
    """x -> scale * ((B1 A1) * (B2 A2)) x."""

    def __init__(self, like: Tensor, r: int, scale: float) -> None:
        super().__init__()
        d_out, d_in = like.shape
        self.b1, self.b2 = (nn.Parameter(torch.empty(d_out, r, device=like.device)) for _ in range(2))
        self.a1, self.a2 = (nn.Parameter(torch.empty(r, d_in, device=like.device)) for _ in range(2))
        self.scale, self.is_dense = scale, r * r * (d_in + d_out) >= d_in * d_out
        for factor in (self.b1, self.a1, self.b2):
            nn.init.kaiming_uniform_(factor, a=math.sqrt(5))
        nn.init.zeros_(self.a2)

    def forward(self, x: Tensor) -> Tensor:
        if self.is_dense:
            return F.linear(x, self.weight_delta())
        a = (self.a1[:, None] * self.a2).flatten(0, 1)  # (r * r, d_in)
        b = (self.b1[:, :, None] * self.b2[:, None]).flatten(1)  # (d_out, r * r)
        return F.linear(F.linear(x, a), b * self.scale)

    def weight_delta(self) -> Tensor:
        """(d_out, d_in)."""
        return self.scale * (self.b1 @ self.a1) * (self.b2 @ self.a2)


class LoHa(TargetedMethod):
    """One `HadamardProduct` beside each chosen matrix."""

    Config = LoHaConfig
    starts_as_backbone = True
    config: LoHaConfig

    def put(self, place: LinearPlace) -> nn.Module:
        factor = HadamardProduct(place.weight(), self.config.r, self.config.alpha / self.config.r)
        place.delta(factor)
        return factor
