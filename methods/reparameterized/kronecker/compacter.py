"""Compacter: adapters made of low-rank hypercomplex layers (Mahabadi et al. 2021, arXiv 2106.04647, section 4).

y -> y + up(s(down(y))) behind the attention and the feed-forward of each block, where both matrices are
sum_i A_i (x) (s_i t_i^T). The n matrices A_i (n x n) are one set for all layers of all adapters, drawn from
N(0, init_std^2); s_i and t_i belong to each layer. `after` leaves out the attention: Compacter++. The norms of the
backbone train too, as in the paper; those of the embeddings do not, for T5 has none. With A near zero the adapted model
starts near the backbone and not at it.

Trainable parameters: terms^3, and for each adapter 2 * rank * (width + bottleneck) + bottleneck + width, and the sizes
of the norms of the blocks and of the final norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.sublayer import Sublayer
from ....bench.anatomy.tower import Block
from ...contract import GradientConfig
from ...parts.adapter import AdapterMethod
from ...parts.bottleneck import Activation, WithResidual
from ...parts.hypercomplex import HypercomplexBottleneck


class CompacterConfig(GradientConfig):
    """Sizes of the adapters, and where they stand."""

    size: ClassVar[str | None] = "rank"

    bottleneck: int = Field(gt=0, description="width between the two layers, a multiple of `terms`")
    terms: int = Field(4, gt=0, description="number and size of the matrices A; divides the widths")
    rank: int = Field(1, gt=0, description="rank of the right factors; 1 in the paper")
    activation: Activation = "gelu"
    after: Literal["attention+feedforward", "feedforward"] = Field(
        "attention+feedforward", description="sublayers that get an adapter; feedforward alone is Compacter++"
    )
    init_std: float = Field(1e-4, gt=0, description="deviation of the first A")
    train_norms: bool = Field(True, description="train the norms of the blocks and the final one")


class Compacter(AdapterMethod):
    """Hypercomplex adapters with one shared set of left factors."""

    Config = CompacterConfig
    starts_as_backbone = False
    config: CompacterConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("attention", "feedforward", *(("norms",) if config.train_norms else ()))

    def attach(self, anatomy: Anatomy) -> None:
        config = self.config
        device = anatomy.blocks[0].feedforward.up.weight().device
        self.rule = nn.Parameter(torch.empty(config.terms, config.terms, config.terms, device=device))
        nn.init.normal_(self.rule, std=config.init_std)
        super().attach(anatomy)
        if config.train_norms:
            for tower in anatomy.towers.values():
                for place in (place for norm in tower.norms for place in norm.tensors.values()):
                    place.train()

    def places(self, anatomy: Anatomy) -> Iterator[tuple[str, Block, Sublayer]]:
        for block in anatomy.blocks:
            attention = [block.attention.sublayer] if self.config.after != "feedforward" else []
            for sublayer in (*attention, block.feedforward.sublayer):
                yield sublayer.name, block, sublayer

    def put(self, block: Block, sublayer: Sublayer) -> nn.Module:
        config = self.config
        adapter = HypercomplexBottleneck(self.rule, block.width, config.bottleneck, config.rank, config.activation)
        placed = WithResidual(adapter)
        sublayer.after(placed)
        return placed
