"""Scaling the rows of a matrix through the output of its product."""

from __future__ import annotations

import torch
from torch import Tensor

from ...bench.anatomy.linear import LinearPlace


def scale_rows(y: Tensor, gain: Tensor, place: LinearPlace) -> Tensor:
    """diag(gain) W x + b from y = W x + b, with one pass over y; `gain` is (d_out,)."""
    shift = shift_behind(gain, place)
    return y * gain if shift is None else torch.addcmul(shift, y, gain)


def shift_behind(gain: Tensor, place: LinearPlace) -> Tensor | None:
    """(1 - gain) * b, which goes back where y is scaled whole, since y holds b once; None without a bias."""
    bias = place.bias()
    return None if bias is None else (1 - gain) * bias.value()
