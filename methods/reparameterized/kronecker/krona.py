"""KronA: dW = s A (x) B, a Kronecker product of two full matrices (Edalati et al. 2022, arXiv 2212.10650).

Unlike a low-rank product of the same size, it can have full rank: rank(A (x) B) = rank(A) rank(B). With placement
`weights` it is added to matrices and can be merged (KronA, section 3.1); with `feedforward` it stands beside each
feed-forward layer, y = FFN(x) + s (A (x) B) x, without a nonlinearity (KronA^B, section 3.2; the residual form is left
out). B is zero at the start. The sizes of A are the largest divisors of those of W up to the square root, or `left`
where it divides; the product is applied without being formed, see `parts.kronecker`.

Trainable parameters, for W of (p * r, q * t) and A of (p, q): p * q + r * t.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.cast import Cast
from ....bench.anatomy.linear import LinearPlace
from ...contract import TargetedConfig, parameter_name
from ...parts.kronecker import KroneckerSum, split
from ...parts.targeted import TargetedMethod


class KronAConfig(TargetedConfig):
    """`targets` plays no part where the placement is `feedforward`."""

    placement: Literal["weights", "feedforward"] = Field(description="added to matrices, or beside feed-forward layers")
    left: int = Field(ge=-1, description="size of A in both dimensions where it divides them; -1: near the square root")
    scale: float = Field(gt=0, description="factor of the product")


class KronA(TargetedMethod):
    """One `KroneckerSum` of a single term for each chosen matrix or feed-forward layer."""

    Config = KronAConfig
    starts_as_backbone = True
    config: KronAConfig

    def attach(self, anatomy: Anatomy) -> None:
        if self.config.placement == "weights":
            super().attach(anatomy)
            return
        self.anatomy = anatomy
        self.factors = nn.ModuleDict()
        for block in anatomy.blocks:
            factor = self._product(torch.Size([block.width, block.width]), block.feedforward.up.weight())
            self.factors[parameter_name(block.name)] = factor
            block.feedforward.sublayer.beside(Cast(factor, factor.b))

    def put(self, place: LinearPlace) -> nn.Module:
        factor = self._product(place.weight().shape, place.weight())
        place.delta(factor)
        return factor

    def _product(self, shape: torch.Size, like: Tensor) -> KroneckerSum:
        (p, r), (q, t) = (split(size, self.config.left) for size in shape)
        a = nn.Parameter(torch.empty(1, p, q, device=like.device))
        nn.init.kaiming_uniform_(a[0], a=math.sqrt(5))
        return KroneckerSum(a, nn.Parameter(torch.zeros(1, r, t, device=like.device)), scale=self.config.scale)
