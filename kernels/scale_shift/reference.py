"""Scale and shift in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def scale_shift(x: Tensor, gain: Tensor | None, shift: Tensor | None) -> Tensor:
    """x * gain + shift; x (..., width), gain and shift (width,)."""
    scaled = x if gain is None else x * gain
    return scaled if shift is None else scaled + shift


def scale_shift_backward(dy: Tensor, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gain and shift."""
    rows = tuple(range(x.ndim - 1))
    return dy * gain, torch.sum(dy * x, rows), torch.sum(dy, rows)
