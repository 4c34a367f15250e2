"""MAM Adapter: a prefix in the attention, a scaled parallel adapter beside the feed-forward (He et al. 2022,
arXiv 2110.04366, section 4.6).

The prefix is that of `prefix`, the bottleneck that of `adapter-parallel`: y -> f(x) + scale * bottleneck(x).

Trainable parameters: those of `prefix`, and 2 * width * bottleneck + bottleneck + width for each block. Shipped: the
prefix's values in place of the network that makes them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import nn

from ...bench.anatomy import Anatomy
from ..additive.prompt.prefix import Prefix, PrefixConfig
from ..contract import parameter_name
from ..parts.bottleneck import Activation, Bottleneck


class MAMConfig(PrefixConfig):
    """The prefix, and the bottlenecks beside the feed-forward, which a budget scales alike."""

    in_proportion: ClassVar[tuple[str, ...]] = ("bottleneck",)

    bottleneck: int = Field(gt=0, description="width between the two matrices")
    scale: float = Field(gt=0, description="factor of the bottleneck's output")
    activation: Activation = "relu"


class MAM(Prefix):
    """A prefix, and one bottleneck beside each feed-forward."""

    Config = MAMConfig
    config: MAMConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return (*super().requires(config), "feedforward")

    def attach(self, anatomy: Anatomy) -> None:
        super().attach(anatomy)
        config = self.config
        self.adapters = nn.ModuleDict()
        for block in anatomy.blocks:
            like = block.feedforward.up.weight()
            adapter = Bottleneck(like, block.width, config.bottleneck, config.activation, config.scale, init="kaiming")
            self.adapters[parameter_name(block.name)] = adapter
            block.feedforward.sublayer.beside(adapter)
