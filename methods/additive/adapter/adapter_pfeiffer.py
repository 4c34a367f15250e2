"""Pfeiffer adapter: one bottleneck per block, behind the feed-forward (Pfeiffer et al. 2020, arXiv 2005.00247).

Placed on the feed-forward's output y before the residual sum: y -> y + W_up relu(W_down y + b_down) + b_up, so that in
a post-norm block the block's own add and norm follow. AdapterHub's configuration of that name puts a second add and
norm in front of the bottleneck, which has no counterpart in pre-norm blocks; the simple order is used everywhere here.
W_up starts at zero, so the adapted model starts as the backbone (the paper starts near it).

Trainable parameters: 2 * width * bottleneck + bottleneck + width for each block.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ...contract import GradientConfig, Method, parameter_name
from ...parts.bottleneck import Bottleneck


class PfeifferConfig(GradientConfig):
    """Width and nonlinearity of the bottleneck."""

    bottleneck: int = Field(gt=0, description="width between the two matrices")
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"


class WithResidual(nn.Module):
    """y -> y + bottleneck(y)."""

    def __init__(self, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.bottleneck = bottleneck

    def forward(self, y: Tensor) -> Tensor:
        return y + self.bottleneck(y)


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
        for block in anatomy.blocks:
            like = block.feedforward.up.weight()
            adapter = Bottleneck(like, block.width, self.config.bottleneck, self.config.activation)
            placed = WithResidual(adapter)
            self.adapters[parameter_name(block.name)] = placed
            block.feedforward.sublayer.after(placed)
