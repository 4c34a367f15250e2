"""LoRA: W' = W + (alpha / r) B A on chosen matrices (Hu et al. 2021, arXiv 2106.09685, equation 3).

Trainable parameters: r * (d_in + d_out) for each matrix.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy.linear import LinearPlace
from ....kernels.lowrank_epilogue.apply import lowrank_epilogue
from ...contract import MethodConfig, TargetedConfig
from ...parts.targeted import TargetedMethod


class LoRAConfig(TargetedConfig):
    """`alpha` divided by `r` scales the product; `init` draws A."""

    size: ClassVar[str | None] = "r"
    in_proportion: ClassVar[tuple[str, ...]] = ("alpha",)

    r: int = Field(gt=0, description="rank")
    alpha: float = Field(gt=0, description="scale of the product is alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the input of A")
    init: Literal["kaiming", "gaussian"] = Field(
        "kaiming",
        description="A uniform in +-1/sqrt(d_in), as the authors' code draws it; or normal with deviation 1/r",
    )

    @property
    def scale(self) -> float:
        """Factor of B A."""
        return self.alpha / self.r


class LowRank(nn.Module):
    """x -> scale * B A x, with A (r, d_in) random and B (d_out, r) zero."""

    def __init__(self, like: Tensor, r: int, scale: float, dropout: float, init: str) -> None:
        super().__init__()
        d_out, d_in = like.shape
        self.a = nn.Parameter(torch.empty(r, d_in, device=like.device))
        self.b = nn.Parameter(torch.zeros(d_out, r, device=like.device))
        self.scale, self.dropout = scale, dropout
        if init == "gaussian":
            nn.init.normal_(self.a, std=1 / r)
        else:
            nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def product(self) -> tuple[Tensor, Tensor, float]:
        """A (r, d_in), B (d_out, r) and the factor of B A, as they are in use."""
        return self.a, self.b, self.scale

    def forward(self, x: Tensor) -> Tensor:
        a, b, scale = self.product()
        return F.linear(F.linear(self.dropped(x), a), b * scale)

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """y + self(x) with one pass over y fewer than a sum of the two would take."""
        a, b, scale = self.product()
        return lowrank_epilogue(y, F.linear(self.dropped(x), a), b, scale)

    def dropped(self, x: Tensor) -> Tensor:
        """The input, with dropout while training."""
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def weight_delta(self) -> Tensor:
        """(d_out, d_in)."""
        a, b, scale = self.product()
        return scale * b @ a


class LoRA(TargetedMethod):
    """One `LowRank` beside each chosen matrix."""

    Config: ClassVar[type[MethodConfig]] = LoRAConfig
    starts_as_backbone = True
    config: LoRAConfig

    def check(self, name: str, place: LinearPlace) -> None:
        rank = min(place.d_in, place.d_out)
        if self.config.r > rank:
            raise ValueError(f"{self.config.size}={self.config.r} is above the rank of {name}, {rank}")

    def put(self, place: LinearPlace) -> LowRank:
        factor = self.factor(place.weight())
        place.delta(factor)
        return factor

    def factor(self, like: Tensor) -> LowRank:
        """The update of a matrix `like` (d_out, d_in)."""
        config = self.config
        return LowRank(like, config.r, config.scale, config.dropout, config.init)
