"""Four-bit NormalFloat weights (QLoRA): restoring the matrix, and its product with a few rows.

Quantising is done once, when a backbone is loaded, and stays in plain torch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import triton_op

from ..checks import check_floating, check_shape
from ..launch import runs_triton
from . import reference
from .apply import LINEAR, MAX_INPUTS, NAME, nf4_dequantise
from .reference import BLOCK


@triton_op("peft_atlas::nf4_dequantise", mutates_args=())
def dequantise_op(
    codes: Tensor, scales: Tensor, scale_scales: Tensor, mean: Tensor, rows: int, columns: int, dtype: torch.dtype
) -> Tensor:
    _check(codes, scales, scale_scales, mean, rows, columns)
    if runs_triton(mean, codes):
        from . import triton

        return triton.dequantise(codes, scales, scale_scales, mean, rows, columns, dtype)
    return reference.dequantise(codes, scales, scale_scales, mean, rows, columns).to(dtype, copy=True)


@triton_op("peft_atlas::nf4_linear", mutates_args=())
def linear_op(
    x: Tensor, codes: Tensor, scales: Tensor, scale_scales: Tensor, mean: Tensor, rows: int, columns: int
) -> Tensor:
    _check(codes, scales, scale_scales, mean, rows, columns)
    check_floating(LINEAR, x=x, mean=mean)
    check_shape(LINEAR, "x", x, (len(x), columns))
    if columns % BLOCK == 0 and len(x) <= MAX_INPUTS and runs_triton(x, codes):
        from . import triton

        return triton.linear(x, codes, scales, scale_scales, mean, rows, columns)
    return F.linear(x, reference.dequantise(codes, scales, scale_scales, mean, rows, columns).to(x.dtype))


def _check(codes: Tensor, scales: Tensor, scale_scales: Tensor, mean: Tensor, rows: int, columns: int) -> None:
    check_floating(NAME, scale_scales=scale_scales, mean=mean)
    if codes.dtype != torch.uint8 or scales.dtype != torch.uint8:
        raise TypeError(f"{NAME}: codes and scales are bytes, not {codes.dtype} and {scales.dtype}")
    if codes.device != mean.device or scales.device != mean.device:
        raise ValueError(f"{NAME}: codes are on {codes.device}, scales on {scales.device}, the mean on {mean.device}")
    blocks = -(-rows * columns // BLOCK)
    if codes.numel() != blocks * BLOCK // 2 or scales.numel() < blocks:
        raise ValueError(
            f"{NAME}: a {rows} x {columns} matrix has {blocks * BLOCK // 2} bytes of codes and {blocks} scales, "
            f"not {codes.numel()} and {scales.numel()}"
        )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, codes, scales, scale_scales, mean, *ctx.shape = inputs
    ctx.save_for_backward(codes, scales, scale_scales, mean)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    codes, scales, scale_scales, mean = ctx.saved_tensors
    weight = nf4_dequantise(codes, scales, scale_scales, mean, tuple(ctx.shape), dy.dtype)
    return dy @ weight, *([None] * 6)


linear_op.register_autograd(_backward, setup_context=_setup)
