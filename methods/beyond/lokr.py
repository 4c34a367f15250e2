"""LoKr: dW = s C (x) (B A), a Kronecker product with a low-rank right factor (Yeh et al. 2023, arXiv 2309.14859).

d_out = p * r_out and d_in = q * r_in; C is (p, q), B A is (r_out, r_in), and s = alpha / r. The left sizes p and q are
the largest divisors up to the square root, or `factor` where it divides (appendix B of LyCORIS). Where r reaches half
the larger side, the right factor is one full matrix, as in the authors' code and HF PEFT. C is random and A (or the
full right factor) zero at the start, as in the authors' code; HF PEFT's default has the zeros in C. Neither W's size
nor (x) is ever formed: see `parts.kronecker`.

Trainable parameters, for each matrix: p * q + r * (r_out + r_in), or p * q + r_out * r_in with a full right factor.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ...bench.anatomy.linear import LinearPlace
from ..contract import TargetedConfig
from ..parts.kronecker import KroneckerSum, split
from ..parts.targeted import TargetedMethod


class LoKrConfig(TargetedConfig):
    """`alpha` divided by `r` scales the product."""

    size: ClassVar[str | None] = "r"
    in_proportion: ClassVar[tuple[str, ...]] = ("alpha",)

    r: int = Field(gt=0, description="rank of the right factor")
    alpha: float = Field(gt=0, description="scale of the product is alpha / r")
    factor: int = Field(
        ge=-1, description="left size of both dimensions where it divides them; -1: near the square root"
    )


def right_is_full(r: int, out: int, into: int) -> bool:
    """Whether a rank of `r` is too high to be worth two factors of an (out, into) matrix."""
    return r >= max(out, into) / 2


class LoKr(TargetedMethod):
    """One `KroneckerSum` of a single term beside each chosen matrix."""

    Config = LoKrConfig
    starts_as_backbone = True
    config: LoKrConfig

    def put(self, place: LinearPlace) -> nn.Module:
        factor = self._product(place.weight())
        place.delta(factor)
        return factor

    def _product(self, like: Tensor) -> KroneckerSum:
        r, scale = self.config.r, self.config.alpha / self.config.r
        (p, out), (q, into) = (split(size, self.config.factor) for size in like.shape)
        c = _random(like, p, q)
        if right_is_full(r, out, into):
            return KroneckerSum(c, _zeros(like, out, into), scale=scale)
        return KroneckerSum(c, _random(like, out, r), _zeros(like, r, into), scale=scale)


def _random(like: Tensor, rows: int, columns: int) -> nn.Parameter:
    factor = torch.empty(rows, columns, device=like.device)
    nn.init.kaiming_uniform_(factor, a=math.sqrt(5))
    return nn.Parameter(factor[None])


def _zeros(like: Tensor, rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(1, rows, columns, device=like.device))
