"""The base of methods that put one bottleneck at each chosen sublayer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field
from torch import nn

from ..contract import GradientConfig, Method, parameter_name
from .bottleneck import Bottleneck

if TYPE_CHECKING:
    from ...bench.anatomy import Anatomy
    from ...bench.anatomy.sublayer import Sublayer
    from ...bench.anatomy.tower import Block


class AdapterConfig(GradientConfig):
    """Width of the bottlenecks, which a budget may set."""

    size: ClassVar[str | None] = "bottleneck"

    bottleneck: int = Field(gt=0, description="width between the two matrices")


class AdapterMethod(Method):
    """One module in `adapters` for each of `places`; a subclass makes it and puts it there, in `put`."""

    starts_as_backbone = True
    config: Any

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("feedforward",)

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.adapters = nn.ModuleDict()
        for name, block, sublayer in self.sized(self.places(anatomy)):
            self.adapters[parameter_name(name)] = self.put(block, sublayer)

    def places(self, anatomy: Anatomy) -> Iterator[tuple[str, Block, Sublayer]]:
        """(name of the adapter, block, sublayer) of each place: the feed-forward of each block."""
        for block in anatomy.blocks:
            yield block.name, block, block.feedforward.sublayer

    def put(self, block: Block, sublayer: Sublayer) -> nn.Module:
        """Change one sublayer, and return the module with its parameters."""
        raise NotImplementedError

    def bottleneck(self, block: Block, activation: str, scale: float = 1.0, **options: Any) -> Bottleneck:
        """A bottleneck of the block's width and the config's size; see `Bottleneck` for the options."""
        like = block.feedforward.up.weight()
        return Bottleneck(like, block.width, self.config.bottleneck, activation, scale, **options)
