"""OFT: the input of W is rotated by a trained block-diagonal orthogonal matrix (Qiu et al. 2023, arXiv 2306.07280).

y = W R^T x, where each block of R is (I + Q) (I - Q)^(-1) for a trained skew-symmetric Q (equation 2, Cayley), zero at
the start. OFT v2 (Qiu et al. 2025, arXiv 2506.19847) replaces the inverse by a truncated Neumann series (equation 5)
and rotates the activations in place of the weights (section 4.1); both are taken here, so that nothing of the size of W
is made or kept. (A slice of a fused matrix is the exception: its rows are rotated.) The constraint on ||R - I|| (COFT)
and blocks that share one rotation are left out.

Trainable parameters: d_in * (block - 1) / 2 for each matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ...bench.anatomy import Anatomy
from ...bench.anatomy.linear import LinearPlace
from ..contract import TargetedConfig
from ..parts.rotation import above_diagonal, cayley, cayley_neumann, rotate, skew
from ..parts.targeted import TargetedMethod


class OFTConfig(TargetedConfig):
    """`terms` 0 is the exact Cayley transform."""

    size: ClassVar[str | None] = "block"

    block: int = Field(gt=1, description="size of the blocks of R; a divisor of d_in")
    terms: int = Field(ge=0, description="terms of the Cayley-Neumann series, at least 3; 0: the exact transform")

    def sizes(self, anatomy: Anatomy) -> Sequence[int]:
        """Blocks that divide the inputs of all chosen matrices."""
        common = math.gcd(*(place.d_in for place in anatomy.linears(self.targets).values()))
        return [block for block in range(2, common + 1) if common % block == 0]


class Rotation(nn.Module):
    """x -> R^T x, with R the identity at the start."""

    positions: Tensor

    def __init__(self, like: Tensor, block: int, terms: int) -> None:
        super().__init__()
        self.block, self.terms = block, terms
        blocks, entries = like.shape[1] // block, block * (block - 1) // 2
        self.entries = nn.Parameter(torch.zeros(blocks, entries, device=like.device))
        self.register_buffer("positions", above_diagonal(block, like.device), persistent=False)

    def blocks(self) -> Tensor:
        """The blocks of R, (d_in / block, block, block)."""
        q = skew(self.entries, self.positions, self.block)
        return cayley_neumann(q, self.terms) if self.terms else cayley(q)

    def forward(self, x: Tensor) -> Tensor:
        return rotate(x, self.blocks())

    def on_weight(self, weight: Tensor) -> Tensor:
        """W R^T, (d_out, d_in)."""
        return rotate(weight, self.blocks().mT)


class OFT(TargetedMethod):
    """One `Rotation` before each chosen matrix."""

    Config = OFTConfig
    starts_as_backbone = True
    config: OFTConfig

    def attach(self, anatomy: Anatomy) -> None:
        if 0 < self.config.terms < 3:
            raise ValueError(f"terms={self.config.terms}: the series has at least 3 terms; 0 is the exact transform")
        super().attach(anatomy)

    def check(self, name: str, place: LinearPlace) -> None:
        if place.d_in % self.config.block:
            raise ValueError(f"block={self.config.block} does not divide the input of {name}, {place.d_in}")

    def put(self, place: LinearPlace) -> nn.Module:
        rotation = Rotation(place.weight(), self.config.block, self.config.terms)
        place.map_in(rotation)
        return rotation
