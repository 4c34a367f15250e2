"""Pfeiffer adapter: one bottleneck per block, behind the feed-forward (Pfeiffer et al. 2020, arXiv 2005.00247).

Placed on the feed-forward's output y before the residual sum: y -> y + W_up relu(W_down y + b_down) + b_up, so that in
a post-norm block the block's own add and norm follow. AdapterHub's configuration of that name puts a second add and
norm in front of the bottleneck, which has no counterpart in pre-norm blocks; the simple order is used everywhere here.
W_up starts at zero, so the adapted model starts as the backbone (the paper starts near it).

Trainable parameters: 2 * width * bottleneck + bottleneck + width for each block.
"""

from __future__ import annotations

from torch import nn

from ....bench.anatomy.sublayer import Sublayer
from ....bench.anatomy.tower import Block
from ...parts.adapter import AdapterConfig, AdapterMethod
from ...parts.bottleneck import Activation, WithResidual


class PfeifferConfig(AdapterConfig):
    """Width and nonlinearity of the bottleneck."""

    activation: Activation = "relu"


class PfeifferAdapter(AdapterMethod):
    """One bottleneck behind each feed-forward."""

    Config = PfeifferConfig
    config: PfeifferConfig

    def put(self, block: Block, sublayer: Sublayer) -> nn.Module:
        placed = WithResidual(self.bottleneck(block, self.config.activation))
        sublayer.after(placed)
        return placed
