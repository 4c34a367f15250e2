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
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.sublayer import Sublayer
from ....bench.anatomy.tower import Block
from ...parts.adapter import AdapterConfig, AdapterMethod
from ...parts.bottleneck import Activation, Bottleneck


class AdapterDropConfig(AdapterConfig):
    """The adapters, and how many blocks do without."""

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


class AdapterDrop(AdapterMethod):
    """Adapters that the first blocks can do without."""

    Config = AdapterDropConfig
    config: AdapterDropConfig

    def attach(self, anatomy: Anatomy) -> None:
        towers = list(anatomy.towers.values())
        self.depth = max(len(tower.blocks) for tower in towers)
        # for each block, how many of its tower do without in the end
        self.dropped = {
            b.name: round(self.config.dropped * len(tower.blocks)) for tower in towers for b in tower.blocks
        }
        super().attach(anatomy)

    def places(self, anatomy: Anatomy) -> Iterator[tuple[str, Block, Sublayer]]:
        for name, block, sublayer in super().places(anatomy):
            if self.config.training == "robust" or block.index >= self.dropped[block.name]:
                yield name, block, sublayer

    def put(self, block: Block, sublayer: Sublayer) -> nn.Module:
        adapter = self.bottleneck(block, self.config.activation)
        placed = Droppable(adapter, block.index, self.dropped[block.name])
        sublayer.after(placed)
        return placed

    def before_step(self, step: int) -> None:
        if self.config.training == "robust":
            self._set_drawn(int(torch.randint(self.depth, ())))

    def after_step(self, step: int) -> None:
        self._set_drawn(0)

    def _set_drawn(self, blocks: int) -> None:
        for adapter in self.adapters.values():
            assert isinstance(adapter, Droppable)
            adapter.drawn = blocks
