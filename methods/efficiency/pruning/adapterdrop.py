"""AdapterDrop: no adapters in the first blocks (Rueckle et al. 2021, arXiv 2010.11918, section 3).

Adapters behind the feed-forward, as in `adapter-pfeiffer`. `dropped` is the share of the blocks, counted from the first
one of each tower, that have none after training (five of twelve in the paper: 5/12). Specialised training leaves them
out from the start. Robust training draws, for every step, how many of the first blocks do without, from none to all but
one, so that one set of adapters serves any share; `dropped` then acts in evaluation mode only.

Trainable parameters: 2 * width * bottleneck + bottleneck + width for each block; in specialised training for each
block that keeps its adapter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.tower import Block
from ...contract import GradientConfig, Method, parameter_name
from ...parts.bottleneck import Activation, Bottleneck


class AdapterDropConfig(GradientConfig):
    """The adapters, and how many blocks do without."""

    size: ClassVar[str | None] = "bottleneck"

    bottleneck: int = Field(gt=0, description="width between the two matrices")
    activation: Activation = "relu"
    dropped: float = Field(ge=0, lt=1, description="share of the blocks without an adapter, from the first on")
    training: Literal["specialised", "robust"] = Field(
        "robust", description="leave the same blocks out always, or a random number of the first ones each step"
    )


class Droppable(nn.Module):
    """y -> y + adapter(y), or y where this block, the `index`-th of its tower, does without its adapter.

    In training mode the first `drawn` blocks do without, in evaluation mode the first `dropped`.
    """

    def __init__(self, adapter: Bottleneck, index: int, dropped: int) -> None:
        super().__init__()
        self.adapter, self.index, self.dropped, self.drawn = adapter, index, dropped, 0

    def forward(self, y: Tensor) -> Tensor:
        if self.index < (self.drawn if self.training else self.dropped):
            return y
        residual: Tensor = self.adapter(y)
        return y + residual


class AdapterDrop(Method):
    """Adapters that the first blocks can do without."""

    Config = AdapterDropConfig
    starts_as_backbone = True
    config: AdapterDropConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("feedforward",)

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.adapters = nn.ModuleDict()
        self.depth = max(len(tower.blocks) for tower in anatomy.towers.values())
        for block, dropped in self.sized(self._places(anatomy)):
            like, config = block.feedforward.up.weight(), self.config
            adapter = Bottleneck(like, block.width, config.bottleneck, config.activation)
            placed = Droppable(adapter, block.index, dropped)
            self.adapters[parameter_name(block.name)] = placed
            block.feedforward.sublayer.after(placed)

    def _places(self, anatomy: Anatomy) -> Iterator[tuple[Block, int]]:
        """Blocks that get an adapter, with the number of blocks of their tower that do without in the end."""
        for tower in anatomy.towers.values():
            dropped = round(self.config.dropped * len(tower.blocks))
            for block in tower.blocks[dropped if self.config.training == "specialised" else 0 :]:
                yield block, dropped

    def before_step(self, step: int) -> None:
        if self.config.training == "robust":
            self._set_drawn(int(torch.randint(self.depth, ())))

    def after_step(self, step: int) -> None:
        self._set_drawn(0)

    def _set_drawn(self, blocks: int) -> None:
        for adapter in self.adapters.values():
            assert isinstance(adapter, Droppable)
            adapter.drawn = blocks
