"""Parallel adapter: a scaled bottleneck beside a sublayer (He et al. 2022, arXiv 2110.04366, table 1 and section 4).

y -> f(x) + scale * (W_up relu(W_down x + b_down) + b_up), with x the sublayer's own input (behind its norm, in a
pre-norm block). W_up starts at zero, as in LoRA. The paper finds the feed-forward the better place; `beside` also
allows the self-attention, or both.

Trainable parameters: 2 * width * bottleneck + bottleneck + width for each chosen sublayer.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.sublayer import Sublayer
from ....bench.anatomy.tower import Block
from ...contract import GradientConfig, Method, parameter_name
from ...parts.bottleneck import Activation, Bottleneck


class ParallelConfig(GradientConfig):
    """Width, scale and place of the bottlenecks."""

    size: ClassVar[str | None] = "bottleneck"

    bottleneck: int = Field(gt=0, description="width between the two matrices")
    scale: float = Field(gt=0, description="factor of the bottleneck's output")
    activation: Activation = "relu"
    beside: Literal["feedforward", "attention", "both"] = Field("feedforward", description="sublayers that get one")


class ParallelAdapter(Method):
    """One bottleneck beside each chosen sublayer."""

    Config = ParallelConfig
    starts_as_backbone = True
    config: ParallelConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("attention", "feedforward")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.adapters = nn.ModuleDict()
        places = [(block, sublayer) for block in anatomy.blocks for sublayer in _chosen(block, self.config.beside)]
        for block, sublayer in self.sized(places):
            like, config = block.feedforward.up.weight(), self.config
            adapter = Bottleneck(like, block.width, config.bottleneck, config.activation, config.scale, init="kaiming")
            self.adapters[parameter_name(sublayer.name)] = adapter
            sublayer.beside(adapter)


def _chosen(block: Block, beside: str) -> list[Sublayer]:
    attention, feedforward = block.attention.sublayer, block.feedforward.sublayer
    return {"attention": [attention], "feedforward": [feedforward], "both": [attention, feedforward]}[beside]
