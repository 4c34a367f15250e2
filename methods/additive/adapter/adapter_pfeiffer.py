"""Pfeiffer adapter: one bottleneck per block, behind the feed-forward (Pfeiffer et al. 2020, arXiv 2005.00247).

Placed on the feed-forward's output y before the residual sum: y -> y + W_up relu(W_down y + b_down) + b_up, so that in
a post-norm block the block's own add and norm follow. AdapterHub's configuration of that name puts a second add and
norm in front of the bottleneck, which has no counterpart in pre-norm blocks; the simple order is used everywhere here.
W_up starts at zero, so the adapted model starts as the backbone (the paper starts near it).

Trainable parameters: 2 * width * bottleneck + bottleneck + width for each block.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from ....bench.anatomy import Anatomy
from ...contract import GradientConfig, Method, parameter_name
from ...parts.bottleneck import Activation, Bottleneck, WithResidual


class PfeifferConfig(GradientConfig):
    """Width and nonlinearity of the bottleneck."""

    size: ClassVar[str | None] = "bottleneck"

    bottleneck: int = Field(gt=0, description="width between the two matrices")
    activation: Activation = "relu"


class PfeifferAdapter(Method):
    """One bottleneck behind each feed-forward."""

    Config = PfeifferConfig
    starts_as_backbone = True
    config: PfeifferConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("feedforward",)

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.adapters = nn.ModuleDict()
        for block in self.sized(anatomy.blocks):
            like = block.feedforward.up.weight()
            adapter = Bottleneck(like, block.width, self.config.bottleneck, self.config.activation)
            placed = WithResidual(adapter)
            self.adapters[parameter_name(block.name)] = placed
            block.feedforward.sublayer.after(placed)
