"""BOFT: OFT whose rotation is a product of butterfly factors (Liu et al. 2023, arXiv 2311.06243).

R is a product of `factors` sparse orthogonal matrices (equation 5). Factor i rotates, with blocks of size b, pairs of
pieces of b / 2 entries that lie 2^i pieces apart; 1 + log2(d / b) factors connect every input with every output. Each
block is a Cayley transform, as in OFT. The authors' code, which also HF PEFT has, trains a scale of each output row
besides (`rescale`), and from the third factor on pairs pieces that earlier factors paired already; the paper's pairs
are taken here, so the two differ from three factors on. That code stores b * b numbers for a block of which b (b - 1) /
2 matter.

Trainable parameters: factors * d_in * (block - 1) / 2 for each matrix, and d_out for its scale.
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
from ..contract import TargetedConfig, parameter_name
from ..parts.rotation import above_diagonal, butterfly, cayley, skew
from ..parts.row_scale import scale_rows
from ..parts.targeted import TargetedMethod


class BOFTConfig(TargetedConfig):
    """`factors` = 1 is OFT with the exact Cayley transform."""

    size: ClassVar[str | None] = "block"

    block: int = Field(gt=1, multiple_of=2, description="size of the rotated blocks, even")
    factors: int = Field(gt=0, description="butterfly factors; block / 2 * 2^factors must divide d_in")
    rescale: bool = Field(True, description="also train a scale of each output row")

    def sizes(self, anatomy: Anatomy) -> Sequence[int]:
        """Blocks of which all factors fit every chosen matrix."""
        common = math.gcd(*(place.d_in for place in anatomy.linears(self.targets).values()))
        return [block for block in range(2, common + 1, 2) if common % (block // 2 * 2**self.factors) == 0]


class Butterfly(nn.Module):
    """x -> R^T x, with R the identity at the start."""

    positions: Tensor

    def __init__(self, like: Tensor, block: int, factors: int) -> None:
        super().__init__()
        self.block = block
        blocks, entries = like.shape[1] // block, block * (block - 1) // 2
        self.entries = nn.Parameter(torch.zeros(factors, blocks, entries, device=like.device))
        self.register_buffer("positions", above_diagonal(block, like.device), persistent=False)

    def blocks(self) -> Tensor:
        """The blocks of all factors, (factors, d_in / block, block, block)."""
        q = skew(self.entries.flatten(0, 1), self.positions, self.block)
        return cayley(q).unflatten(0, self.entries.shape[:2])

    def forward(self, x: Tensor) -> Tensor:
        blocks = self.blocks()
        for level in reversed(range(len(blocks))):
            x = butterfly(x, blocks[level], level)
        return x

    def on_weight(self, weight: Tensor) -> Tensor:
        """W R^T, (d_out, d_in)."""
        for level, blocks in enumerate(self.blocks().mT):
            weight = butterfly(weight, blocks, level)
        return weight


class RowScale(nn.Module):
    """(y, x) -> diag(s) (y - b) + b, with s one at the start."""

    def __init__(self, place: LinearPlace) -> None:
        super().__init__()
        self.place = place
        self.s = nn.Parameter(torch.ones(place.d_out, device=place.weight().device))

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return scale_rows(y, self.s, self.place).to(y.dtype)

    def merged(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The scaled matrix (d_out, d_in); the bias stays."""
        return self.s[:, None] * weight, bias


class BOFT(TargetedMethod):
    """One `Butterfly` before each chosen matrix, and a `RowScale` behind it."""

    Config = BOFTConfig
    starts_as_backbone = True
    config: BOFTConfig

    def attach(self, anatomy: Anatomy) -> None:
        super().attach(anatomy)
        self.scales = nn.ModuleDict()
        for name, place in anatomy.linears(self.config.targets).items() if self.config.rescale else ():
            scale = RowScale(place)
            self.scales[parameter_name(name)] = scale
            place.revise(scale)

    def check(self, name: str, place: LinearPlace) -> None:
        block, factors = self.config.block, self.config.factors
        if place.d_in % (span := block // 2 * 2**factors):
            raise ValueError(f"block={block}, factors={factors}: {span} does not divide {place.d_in}, that of {name}")

    def put(self, place: LinearPlace) -> nn.Module:
        rotation = Butterfly(place.weight(), self.config.block, self.config.factors)
        place.map_in(rotation)
        return rotation
