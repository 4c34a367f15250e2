"""ST-Adapter: bottlenecks with a depth-wise convolution over time and space (Pan et al. 2022, arXiv 2206.13559).

x -> x + W_up DWConv3D(W_down x + b_down) + b_up (equation 2), on the residual stream before an attention, before a
feed-forward or before both. The convolution sees the patches of all frames as a (T, rows, columns) grid for each
channel, with zeros around it; the class token passes unchanged. There is no activation, as in the authors' code.

As in that code the convolution and all biases start at zero, hence the model as the backbone, and the two matrices as
torch draws them. Its scripts for ViT-B have adapters of width 384 with kernel 3x1x1: 24 of them (`before` = both) for
Something-Something-v2, 12 (feedforward) for Kinetics-400. Where features are those of a class token, none of them
depends on what the last adapter before a feed-forward does to patches; hence one adapter before each attention here.

Trainable parameters: 2 * width * bottleneck + bottleneck * (taps of the kernel + 2) + width for each adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.frames import FrameLayout
from ....bench.anatomy.tower import Block
from ...contract import Method, parameter_name
from ...parts.adapter import AdapterConfig


class StAdapterConfig(AdapterConfig):
    """Width, kernel and places of the adapters."""

    kernel: str = Field("3x1x1", pattern=r"^\d+x\d+x\d+$", description="taps over frames, rows and columns, all odd")
    before: Literal["attention", "feedforward", "both"] = Field("attention", description="sublayers with an adapter")

    @field_validator("kernel")
    @classmethod
    def _centred(cls, value: str) -> str:
        if any(int(taps) % 2 == 0 for taps in value.split("x")):
            raise ValueError("a kernel needs odd numbers of taps, to have a centre")
        return value


class StAdapter(Method):
    """One adapter in each block before each chosen sublayer."""

    Config = StAdapterConfig
    starts_as_backbone = True
    config: StAdapterConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("frames", "attention", "feedforward")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.adapters = nn.ModuleDict()
        for sublayer, block, layout in self.sized(self.places(anatomy)):
            like = block.feedforward.up.weight()
            adapter = ClipBottleneck(like, block.width, self.config.bottleneck, self.config.kernel, layout)
            self.adapters[parameter_name(f"{block.name}.{sublayer}")] = adapter
            if sublayer == "attention":
                block.around(_Before(adapter))
            else:
                block.attention.sublayer.residual(adapter)

    def places(self, anatomy: Anatomy) -> Iterator[tuple[str, Block, FrameLayout]]:
        """(sublayer, block, layout of the clips) of each adapter."""
        before = self.config.before
        for tower in anatomy.towers.values():
            for block in tower.blocks if tower.frames is not None else []:
                for sublayer in ("attention", "feedforward"):
                    if before in (sublayer, "both"):
                        assert tower.frames is not None
                        yield sublayer, block, tower.frames


class ClipBottleneck(nn.Module):
    """What an adapter adds to hidden states: zero for tokens that are no patch."""

    def __init__(self, like: Tensor, width: int, bottleneck: int, kernel: str, layout: FrameLayout) -> None:
        super().__init__()
        frames, rows, columns = map(int, kernel.split("x"))
        self.layout = layout
        self.down = nn.Linear(width, bottleneck, device=like.device)
        self.conv = nn.Conv3d(
            bottleneck,
            bottleneck,
            (frames, rows, columns),
            padding=(frames // 2, rows // 2, columns // 2),
            groups=bottleneck,
            device=like.device,
        )
        self.up = nn.Linear(bottleneck, width, device=like.device)
        for tensor in (self.conv.weight, self.conv.bias, self.down.bias, self.up.bias):
            assert tensor is not None
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        clips = self.layout.split(x)
        others = clips.shape[2] - self.layout.patches
        patches = self.down(clips[:, :, others:].to(self.down.weight.dtype))
        volume = patches.unflatten(2, (self.layout.rows, self.layout.columns)).movedim(-1, 1)
        mixed = self.conv(volume).movedim(1, -1).flatten(2, 3)
        added = F.pad(self.up(mixed), (0, 0, others, 0))
        return self.layout.join(added, like=x).to(x.dtype)


class _Before:
    """Changes what enters a block."""

    def __init__(self, adapter: ClipBottleneck) -> None:
        self.adapter = adapter

    def __call__(self, next: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return next(x + self.adapter(x))
