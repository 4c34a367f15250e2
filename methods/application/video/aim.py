"""AIM: an image transformer that attends over time with its own attention, and adapters (Yang et al. 2023, arXiv
2302.03024, equations 1 to 3).

    z <- z + A_T(MSA(LN(z)))         MSA over the T tokens at one place of all frames: temporal adaptation
    z <- z + MSA(LN(z)) + A_S(MSA(LN(z)))    MSA over the tokens of one frame, as before: spatial adaptation
    z <- z + MLP(LN(z)) + s A_J(LN(z))       joint adaptation

Both MSA are the block's own, frozen, as is the layer scale behind it where there is one. Each A is a bottleneck with
GELU; its second matrix starts at zero, so that the model starts as the backbone. A table of positions of the frames,
which also starts at zero, is added to what enters the first block; in the authors' code it comes before CLIP's norm in
front of the blocks, which other backbones lack. `before_attention` puts a second temporal adapter between norm and
attention, y -> y + A(y), as the authors do on Something-Something-v2. Their code also drops temporal and joint branches
at random and trains CLIP's last norm; the paper trains adapters alone, and so does this.

Trainable parameters: 3 * (2 * width * bottleneck + bottleneck + width) for each block, 4 times the bracket with
`before_attention`, and frames * width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.attention import Attention
from ....bench.anatomy.frames import FrameLayout
from ....bench.anatomy.reuse import added_by
from ....bench.anatomy.tower import Block, Tower
from ...contract import Method, parameter_name
from ...parts.adapter import AdapterConfig
from ...parts.bottleneck import Bottleneck, WithResidual


class AimConfig(AdapterConfig):
    """Width and scale of the adapters."""

    scale: float = Field(gt=0, description="factor of the joint adapter's output")
    before_attention: bool = Field(False, description="a temporal adapter also before the attention over time")


class Aim(Method):
    """Temporal, spatial and joint adapters in each block."""

    Config = AimConfig
    starts_as_backbone = True
    config: AimConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("frames", "attention", "feedforward")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.adapters, self.positions = nn.ModuleDict(), nn.ParameterDict()
        towers = [tower for tower in anatomy.towers.values() if tower.frames is not None]
        for place in self.sized((tower, block) for tower in towers for block in tower.blocks):
            self._adapt(*place)
        for tower in towers:
            self._number_frames(tower)

    def _adapt(self, tower: Tower, block: Block) -> None:
        assert tower.frames is not None
        config = self.config
        before = WithResidual(self._adapter(block, "before")) if config.before_attention else None
        block.around(_OverTime(tower.frames, block.attention, before, self._adapter(block, "temporal")))
        block.attention.sublayer.after(WithResidual(self._adapter(block, "spatial")))
        block.feedforward.sublayer.beside(self._adapter(block, "joint", config.scale))

    def _adapter(self, block: Block, kind: str, scale: float = 1.0) -> Bottleneck:
        like = block.feedforward.up.weight()
        adapter = Bottleneck(like, block.width, self.config.bottleneck, "gelu", scale)
        self.adapters[parameter_name(f"{block.name}.{kind}")] = adapter
        return adapter

    def _number_frames(self, tower: Tower) -> None:
        assert tower.frames is not None
        device = tower.blocks[0].feedforward.up.weight().device
        table = nn.Parameter(torch.zeros(tower.frames.frames, tower.width, device=device))
        self.positions[parameter_name(tower.name)] = table
        tower.blocks[0].around(_Positions(tower.frames, table))


class _OverTime:
    """Around a block: the same attention over the frames of each place first."""

    def __init__(
        self, layout: FrameLayout, attention: Attention, before: nn.Module | None, adapter: Bottleneck
    ) -> None:
        self.layout, self.attention, self.before, self.adapter = layout, attention, before, adapter

    def __call__(self, next: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        clips = self.layout.split(x).transpose(1, 2)  # (B, L, T, C)
        seen = self.adapter(added_by(self.attention, clips.flatten(0, 1), self.before))
        added = seen.unflatten(0, clips.shape[:2]).transpose(1, 2)
        return next(x + self.layout.join(added, like=x))


class _Positions:
    """Around the first block: adds each frame's row of a table (T, width) to all of its tokens."""

    def __init__(self, layout: FrameLayout, table: Tensor) -> None:
        self.layout, self.table = layout, table

    def __call__(self, next: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        frames = self.layout.split(x)
        added = self.table[:, None].to(x.dtype).expand(frames.shape)
        return next(x + self.layout.join(added, like=x))
