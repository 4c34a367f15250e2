"""Drawings as tensors, with captions as the frozen text encoder's states: it runs once for each different caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...backbones.diffusion import Condition
from ...backbones.pixel_diffusion import PixelDiffusionBackbone
from ...computation import products
from .material import Material

ENCODED = 128  # captions at a time


@dataclass(frozen=True)
class Examples:
    """`pixels` uint8 (N, 3, H, W); `states`, one half-precision (L, width) for each different caption, the empty one
    first; `captions` (N,) says which of them is whose."""

    pixels: Tensor
    states: list[Tensor]
    captions: Tensor

    def batch(self, rows: Tensor, without: Tensor, device: torch.device) -> tuple[Tensor, Condition]:
        """Pixels (B, 3, H, W) in -1..1 and conditions; items where `without` (B,) is true have the empty caption."""
        pixels = self.pixels[rows].to(device).float() / 127.5 - 1
        chosen = self.captions[rows].masked_fill(without, 0)
        states = [self.states[i] for i in chosen.tolist()]
        lengths = torch.tensor([len(state) for state in states])
        hidden = nn.utils.rnn.pad_sequence(states, batch_first=True).float()
        mask = (torch.arange(hidden.shape[1]) < lengths[:, None]).long()
        return pixels, Condition(hidden.to(device), mask.to(device))


def examples_of(material: Material, backbone: PixelDiffusionBackbone, dtype: str) -> Examples:
    """The material behind the text encoder."""
    numbers = {"": 0}
    captions = torch.tensor([numbers.setdefault(caption, len(numbers)) for caption in material.captions])
    pixels = torch.from_numpy(material.images).permute(0, 3, 1, 2).contiguous()
    return Examples(pixels, _states(backbone, list(numbers), dtype), captions)


@torch.no_grad()
def _states(backbone: PixelDiffusionBackbone, captions: Sequence[str], dtype: str) -> list[Tensor]:
    found: list[Tensor] = [torch.empty(0)] * len(captions)
    order = sorted(range(len(captions)), key=lambda i: len(captions[i]))
    for start in range(0, len(order), ENCODED):
        numbers = order[start : start + ENCODED]
        tokens = backbone.tokens([captions[i] for i in numbers])
        with products(dtype, backbone.device):
            hidden = backbone.text_states(tokens["input_ids"], tokens["attention_mask"])
        for number, state, mask in zip(numbers, hidden, tokens["attention_mask"], strict=True):
            found[number] = state[: int(mask.sum())].half().cpu()
    return found
