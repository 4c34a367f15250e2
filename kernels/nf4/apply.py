"""What methods call: restoring NF4 weights and their product with a few rows, by the kernel or in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dispatch import prefers_kernel
from ..launch import power_of_two
from . import reference
from .reference import BLOCK

NAME, LINEAR = "nf4", "nf4_linear"
MAX_INPUTS = 64  # rows of x for which the product without restoring is worth a thought


def variant(inputs: int) -> str:
    """The name that is measured: the more rows x has, in tiles of a power of two, the less is won."""
    return f"{LINEAR}+{power_of_two(inputs, 16)}"


def nf4_dequantise(
    codes: Tensor,
    scales: Tensor,
    scale_scales: Tensor,
    mean: Tensor,
    shape: tuple[int, int],
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The matrix that `reference.quantise` stored, in `dtype` (that of the mean when not given)."""
    rows, columns = shape
    dtype = mean.dtype if dtype is None else dtype
    if prefers_kernel(NAME, rows * columns, mean, dtype=dtype):
        from .op import dequantise_op

        weight: Tensor = dequantise_op(codes, scales, scale_scales, mean, rows, columns, dtype)
        return weight
    return reference.dequantise(codes, scales, scale_scales, mean, rows, columns).to(dtype)


def nf4_linear(
    x: Tensor, codes: Tensor, scales: Tensor, scale_scales: Tensor, mean: Tensor, shape: tuple[int, int]
) -> Tensor:
    """x W^T for the stored W, (..., columns) -> (..., rows); the gradient reaches x alone, W is restored for it."""
    rows, columns = shape
    small = columns % BLOCK == 0 and x.numel() <= MAX_INPUTS * columns
    if small and prefers_kernel(variant(x.numel() // columns), rows * columns, x):
        from .op import linear_op

        y: Tensor = linear_op(x.flatten(0, -2), codes, scales, scale_scales, mean, rows, columns)
        return y.unflatten(0, x.shape[:-1])
    return F.linear(x, nf4_dequantise(codes, scales, scale_scales, mean, shape, x.dtype))
