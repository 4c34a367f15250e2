"""Video backbones: an image tower that sees each frame of a clip by itself, read out at the mean over frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ...tasks.video.clip_files import middles
from ..anatomy.frames import FrameAverage
from .vision import VisionBackbone, resized

if TYPE_CHECKING:
    from ...tasks.contract import Split

DEFAULT_FRAMES = 8


class VideoBackbone(VisionBackbone):
    """A timm ViT on clips. Inputs: `frames`, and those of `VisionBackbone`, whose card's options it takes too.

    Clips come in the column "clip", uint8 (N, any number of frames, H, W, 3); of their frames those in the middle of
    `frames` equal parts are taken.
    """

    def __init__(self, card: Any, options: Mapping[str, Any], meta: bool = False) -> None:
        self.frames = int(options.get("frames", card.options.get("frames", DEFAULT_FRAMES)))
        super().__init__(card, options, meta)

    def skeleton(self) -> nn.Module:
        return FrameAverage(self.image_skeleton(), self.frames)

    def load(self) -> nn.Module:
        return FrameAverage(self.image_model(), self.frames)

    @property
    def width(self) -> int:
        return int(self.model.encoder.embed_dim)  # type: ignore[union-attr, arg-type]

    def pixels(self, split: Split) -> Tensor:
        """What the model sees of a split, uint8 (N, T, 3, size, size)."""
        clips = split.inputs["clip"]
        clips = clips[:, middles(clips.shape[1], self.frames)]
        images = clips.reshape(-1, *clips.shape[2:])
        if images.shape[1:3] != (self.size, self.size):
            images = resized(images, self.size)
        first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return torch.from_numpy(first).unflatten(0, (len(split), self.frames))
