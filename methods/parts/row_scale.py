"""Scaling the rows of a matrix through the output of its product."""

from __future__ import annotations

import torch
from torch import Tensor

from ...bench.anatomy.linear import LinearPlace


def scale_rows(y: Tensor, gain: Tensor, place: LinearPlace) -> Tensor:
    """diag(gain) W x + b from y = W x + b, with one pass over y; `gain` is (d_out,)."""
    bias = place.bias()
    if bias is None:
        return y * gain
    return torch.addcmul((1 - gain) * bias.value(), y, gain)  # y holds b once: what was scaled of it goes back
