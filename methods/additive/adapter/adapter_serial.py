"""Serial adapter: two bottlenecks per block, norms train too (Houlsby et al. 2019, arXiv 1902.00751, section 2.1).

Placed on the output y of the attention and of the feed-forward, before the residual sum:
y -> y + W_up s(W_down y + b_down) + b_up. All four tensors start near zero (both matrices from N(0, 0.01^2), cut off
at two deviations; section 3.6), so the adapted model starts near the backbone and not at it. The task's norms train as
well, those of the embeddings included, as the authors' code does. A cross-attention gets no adapter of its own.

Trainable parameters: 2 * (2 * width * bottleneck + bottleneck + width) for each block, and the sizes of all norms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field
from torch import nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.sublayer import Sublayer
from ....bench.anatomy.tower import Block
from ...parts.adapter import AdapterConfig, AdapterMethod
from ...parts.bottleneck import Activation, WithResidual


class SerialConfig(AdapterConfig):
    """Width and nonlinearity of the bottlenecks."""

    activation: Activation = "gelu"
    train_norms: bool = Field(True, description="train the norms, those of the embeddings included")


class SerialAdapter(AdapterMethod):
    """One bottleneck behind each self-attention and one behind each feed-forward."""

    Config = SerialConfig
    starts_as_backbone = False
    config: SerialConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("attention", "feedforward", *(("norms",) if config.train_norms else ()))

    def attach(self, anatomy: Anatomy) -> None:
        super().attach(anatomy)
        if self.config.train_norms:
            train_norms(anatomy)

    def places(self, anatomy: Anatomy) -> Iterator[tuple[str, Block, Sublayer]]:
        for block in anatomy.blocks:
            for part in (block.attention, block.feedforward):
                yield part.sublayer.name, block, part.sublayer

    def put(self, block: Block, sublayer: Sublayer) -> nn.Module:
        placed = WithResidual(self.bottleneck(block, self.config.activation, init="near-zero"))
        sublayer.after(placed)
        return placed


def train_norms(anatomy: Anatomy) -> None:
    """Let all norms train in place, those in front of the blocks included."""
    for tower in anatomy.towers.values():
        for norm in (*tower.other_ops, *tower.norms):
            for place in norm.tensors.values():
                place.train()
