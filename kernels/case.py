"""One op at one shape: what is compared, by tests and by measurements, and what a perfect machine would have to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["forward", "backward", "both"]
Function = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """Inputs, and functions of them by provider.

    `algebra` is the best formulation in plain torch, which the op falls back to; `plain` holds others ("eager": the
    equation as it is written; "hf-peft"); `fused` is the op. `bytes` and `flops` are the least that forward and
    backward need, each input read once and each output written once.
    """

    kernel: str
    inputs: dict[str, Tensor]
    algebra: Function
    fused: Function
    work: int
    bytes: Mapping[Mode, int]
    flops: Mapping[Mode, int]
    plain: Mapping[str, Function] = field(default_factory=dict)


def both(forward: int, backward: int) -> dict[Mode, int]:
    """Bytes or operations of the two passes and of their sum."""
    return {"forward": forward, "backward": backward, "both": forward + backward}


class Draw:
    """Normal numbers of a fixed seed, drawn on the CPU so that every machine has the same."""

    def __init__(self, dtype: torch.dtype, device: str, seed: int = 0) -> None:
        self.dtype, self.device = dtype, device
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, scale: float = 1.0, trains: bool = True) -> Tensor:
        """A tensor of this shape and deviation; a leaf that requires a gradient if it `trains`."""
        values = torch.randn(shape, generator=self.generator) * scale
        return values.to(self.device, self.dtype).requires_grad_(trains)


def size_in_bytes(*tensors: Tensor | None) -> int:
    """Bytes of these tensors; nothing for None."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)
