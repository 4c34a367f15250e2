"""Parallel adapter: a scaled bottleneck beside a sublayer (He et al. 2022, arXiv 2110.04366, table 1 and section 4).

y -> f(x) + scale * (W_up relu(W_down x + b_down) + b_up), with x the sublayer's own input (behind its norm, in a
pre-norm block). W_up starts at zero, as in LoRA. The paper finds the feed-forward the better place; `beside` also
allows the self-attention, or both.

Trainable parameters: 2 * width * bottleneck + bottleneck + width for each chosen sublayer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field
from torch import nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.sublayer import Sublayer
from ....bench.anatomy.tower import Block
from ...parts.adapter import AdapterConfig, AdapterMethod
from ...parts.bottleneck import Activation


class ParallelConfig(AdapterConfig):
    """Width, scale and place of the bottlenecks."""

    scale: float = Field(gt=0, description="factor of the bottleneck's output")
    activation: Activation = "relu"
    beside: Literal["feedforward", "attention", "both"] = Field("feedforward", description="sublayers that get one")


class ParallelAdapter(AdapterMethod):
    """One bottleneck beside each chosen sublayer."""

    Config = ParallelConfig
    config: ParallelConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("attention", "feedforward")

    def places(self, anatomy: Anatomy) -> Iterator[tuple[str, Block, Sublayer]]:
        for block in anatomy.blocks:
            for sublayer in _chosen(block, self.config.beside):
                yield sublayer.name, block, sublayer

    def put(self, block: Block, sublayer: Sublayer) -> nn.Module:
        adapter = self.bottleneck(block, self.config.activation, self.config.scale, init="kaiming")
        sublayer.beside(adapter)
        return adapter


def _chosen(block: Block, beside: str) -> list[Sublayer]:
    attention, feedforward = block.attention.sublayer, block.feedforward.sublayer
    return {"attention": [attention], "feedforward": [feedforward], "both": [attention, feedforward]}[beside]
