"""Clips: where the frames of a video lie in what passes through a tower, and image encoders run frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Order = Literal["items", "frames-first", "patches-first"]


@dataclass(frozen=True)
class FrameLayout:
    """Where the patches of T frames of `rows` x `columns` are.

    order: "items", each frame is an item of the batch, (B * T, special + rows * columns, C), as an image model sees
    clips; or all frames are one sequence, (B, special + T * rows * columns, C), which goes through the patches of one
    frame after the other ("frames-first", VideoMAE) or through the frames of one patch after the other
    ("patches-first", TimeSformer). Special tokens, and extra ones, lie before the patches.
    """

    frames: int
    rows: int
    columns: int
    order: Order

    @property
    def patches(self) -> int:
        """Patches of one frame."""
        return self.rows * self.columns

    def split(self, x: Tensor) -> Tensor:
        """Hidden states by frames: (B, T, special + rows * columns, C).

        Special tokens of a whole sequence are repeated for each frame. A sublayer of a tower with one sequence for all
        frames may take each frame as an item all the same (TimeSformer's attention over space).
        """
        if self._are_items(x):
            return x.unflatten(0, (-1, self.frames))
        before = x.shape[1] - self.frames * self.patches
        special = x[:, None, :before].expand(-1, self.frames, -1, -1)
        if self.order == "frames-first":
            patches = x[:, before:].unflatten(1, (self.frames, self.patches))
        else:
            patches = x[:, before:].unflatten(1, (self.patches, self.frames)).transpose(1, 2)
        return torch.cat([special, patches], dim=2)

    def join(self, y: Tensor, like: Tensor) -> Tensor:
        """Inverse of `split`, in the form of the hidden states `like`; special tokens of a whole sequence are averaged
        over the frames, as TimeSformer does."""
        if self._are_items(like):
            return y.flatten(0, 1)
        before = like.shape[1] - self.frames * self.patches
        patches = y[:, :, before:]
        if self.order == "patches-first":
            patches = patches.transpose(1, 2)
        return torch.cat([y[:, :, :before].mean(1), patches.flatten(1, 2)], dim=1)

    def _are_items(self, x: Tensor) -> bool:
        return self.order == "items" or x.shape[1] < self.frames * self.patches


class FrameAverage(nn.Module):
    """An image encoder that sees each of T frames of a clip by itself; its features are averaged over the frames.

    `encoder` maps images (B, 3, H, W) to features (B, width), and holds one stack of blocks that the anatomy knows.
    """

    def __init__(self, encoder: nn.Module, frames: int) -> None:
        super().__init__()
        self.encoder, self.frames = encoder, frames

    def forward(self, clips: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, width). ValueError for clips of another length."""
        if clips.shape[1] != self.frames:
            raise ValueError(f"clips of {clips.shape[1]} frames, where {self.frames} were announced")
        features: Tensor = self.encoder(clips.flatten(0, 1))
        return features.unflatten(0, (-1, self.frames)).mean(1)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Let timm or open_clip compute the encoder's blocks again in the backward pass."""
        switch: Any = self.encoder
        switch.set_grad_checkpointing(enable)
