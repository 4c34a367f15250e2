"""AdaptFormer: a scaled bottleneck beside the feed-forward of a ViT (Chen et al. 2022, arXiv 2205.13535, equation 3).

y -> MLP(LN(x)) + scale * (W_up relu(W_down z + b_down) + b_up). The paper's equation 2 has z = LN(x), the input of the
MLP; the authors' code, with which the published numbers were made, takes z = x, the residual stream. `reads` chooses;
the equation is the default. W_up starts at zero.

Trainable parameters: 2 * width * bottleneck + bottleneck + width for each block, and one more with `learned_scale`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn

from ....bench.anatomy.sublayer import Sublayer
from ....bench.anatomy.tower import Block
from ...parts.adapter import AdapterConfig, AdapterMethod


class AdaptFormerConfig(AdapterConfig):
    """Width, scale and input of the bottlenecks."""

    scale: float = Field(gt=0, description="factor of the bottleneck's output, or its first value")
    learned_scale: bool = Field(False, description="let each block's scale train")
    reads: Literal["input", "residual"] = Field("input", description="the MLP's input, or the residual stream")


class AdaptFormer(AdapterMethod):
    """One bottleneck beside each feed-forward."""

    Config = AdaptFormerConfig
    config: AdaptFormerConfig

    def put(self, block: Block, sublayer: Sublayer) -> nn.Module:
        config = self.config
        adapter = self.bottleneck(block, "relu", config.scale, init="kaiming", learned_scale=config.learned_scale)
        sublayer.beside(adapter, source="in" if config.reads == "input" else "residual")
        return adapter
