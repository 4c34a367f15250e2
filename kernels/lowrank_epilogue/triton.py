"""The end of a low-rank branch in Triton: one pass over the wide tensors in each direction.

Backward, what is summed over rows (B, gain, shift) and over columns (the hidden gradient) is summed in two stages,
without atomics.
"""

# Triton gives the annotations of kernels a meaning of its own:
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launch import ceil_div, launch, packed, parts_and_steps, power_of_two, rows_of, widened

ROWS, COLUMNS = 32, 128  # a tile of the forward pass


def forward(
    residual: Tensor,
    hidden: Tensor,
    b: Tensor,
    scale: float,
    activation: str,
    gain: Tensor | None,
    shift: Tensor | None,
) -> Tensor:
    """gain * (residual + scale * phi(hidden) B^T) + shift, (n, d_out)."""
    (n, d_out), rank = residual.shape, hidden.shape[1]
    residual, hidden, b = rows_of(residual, d_out), rows_of(hidden, rank), rows_of(b, rank)
    y = torch.empty(n, d_out, dtype=residual.dtype, device=residual.device)
    launch(
        _forward_kernel,
        (ceil_div(n, ROWS), ceil_div(d_out, COLUMNS)),
        *(residual, hidden, b, packed(gain, instead=b), packed(shift, instead=b), y),
        *(n, d_out, rank, residual.stride(0), hidden.stride(0), b.stride(0), scale),
        ACTIVATION=activation,
        HAS_GAIN=gain is not None,
        HAS_SHIFT=shift is not None,
        RANK=power_of_two(rank, 16),
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        WIDEN=widened(b.dtype),
    )
    return y


def backward(
    dy: Tensor, residual: Tensor, hidden: Tensor, b: Tensor, scale: float, activation: str, gain: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the residual and the gain (empty without a gain), of phi(hidden), of B and of the shift."""
    (n, d_out), rank = dy.shape, hidden.shape[1]
    dy, hidden, b = rows_of(dy, d_out), rows_of(hidden, rank), rows_of(b, rank)
    residual = dy if gain is None else rows_of(residual, d_out)  # read only with a gain
    padded = power_of_two(rank, 16)
    columns = max(32, min(256, 4096 // padded))
    blocks = ceil_div(d_out, columns)
    parts, steps = parts_and_steps(n, ROWS, blocks)
    d_residual = torch.empty((n, d_out) if gain is not None else (0,), dtype=dy.dtype, device=dy.device)
    d_inner = torch.empty(blocks, n, rank, dtype=torch.float32, device=dy.device)
    d_b = torch.empty(parts, d_out, rank, dtype=torch.float32, device=dy.device)
    sums = torch.empty(2, parts, d_out, dtype=torch.float32, device=dy.device)
    launch(
        _backward_kernel,
        (parts, blocks),
        *(dy, residual, hidden, b, packed(gain, instead=b), d_residual, d_inner, d_b, sums),
        *(n, d_out, rank, dy.stride(0), residual.stride(0), hidden.stride(0), b.stride(0), scale, steps),
        ACTIVATION=activation,
        HAS_GAIN=gain is not None,
        RANK=padded,
        ROWS=ROWS,
        COLUMNS=columns,
        WIDEN=widened(b.dtype),
    )
    gain_grad = sums[0].sum(0).to(gain.dtype) if gain is not None else dy.new_empty(0)
    inner_grad, b_grad = (scale * partial.sum(0) for partial in (d_inner, d_b))
    shift_grad = sums[1].sum(0).to(dy.dtype)
    return d_residual, gain_grad, inner_grad.to(dy.dtype), b_grad.to(dy.dtype), shift_grad


@triton.jit
def _activate(hidden, ACTIVATION: tl.constexpr):
    if ACTIVATION == "relu":
        hidden = tl.maximum(hidden, 0.0)
    elif ACTIVATION == "gelu":
        hidden = 0.5 * hidden * (1.0 + tl.erf(hidden * 0.7071067811865476))
    elif ACTIVATION == "silu":
        hidden = hidden / (1.0 + tl.exp(-hidden))
    elif ACTIVATION == "tanh":
        hidden = 2.0 / (1.0 + tl.exp(-2.0 * hidden)) - 1.0
    return hidden


@triton.jit
def _forward_kernel(
    residual_ptr, hidden_ptr, b_ptr, gain_ptr, shift_ptr, y_ptr,
    n, d_out, rank, residual_stride, hidden_stride, b_stride, scale,
    ACTIVATION: tl.constexpr, HAS_GAIN: tl.constexpr, HAS_SHIFT: tl.constexpr,
    RANK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    DOT: tl.constexpr = tl.float32 if WIDEN else b_ptr.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    factor = tl.arange(0, RANK)
    hidden_mask = (row < n)[:, None] & (factor < rank)[None, :]
    hidden = tl.load(hidden_ptr + row[:, None] * hidden_stride + factor[None, :], mask=hidden_mask, other=0.0)
    inner = _activate(hidden.to(tl.float32), ACTIVATION).to(DOT)
    b_mask = (column < d_out)[:, None] & (factor < rank)[None, :]
    b = tl.load(b_ptr + column[:, None] * b_stride + factor[None, :], mask=b_mask, other=0.0).to(DOT)
    inside = (row < n)[:, None] & (column < d_out)[None, :]
    residual = tl.load(residual_ptr + row[:, None] * residual_stride + column[None, :], mask=inside, other=0.0)
    y = residual.to(tl.float32) + scale * tl.dot(inner, tl.trans(b), input_precision="ieee")
    if HAS_GAIN:
        y *= tl.load(gain_ptr + column, mask=column < d_out, other=0.0).to(tl.float32)[None, :]
    if HAS_SHIFT:
        y += tl.load(shift_ptr + column, mask=column < d_out, other=0.0).to(tl.float32)[None, :]
    tl.store(y_ptr + row[:, None] * d_out + column[None, :], y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernel(
    dy_ptr, residual_ptr, hidden_ptr, b_ptr, gain_ptr, d_residual_ptr, d_inner_ptr, d_b_ptr, sums_ptr,
    n, d_out, rank, dy_stride, residual_stride, hidden_stride, b_stride, scale, steps,
    ACTIVATION: tl.constexpr, HAS_GAIN: tl.constexpr,
    RANK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    DOT: tl.constexpr = tl.float32 if WIDEN else b_ptr.dtype.element_ty
    part, block = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    column = block * COLUMNS + tl.arange(0, COLUMNS)
    factor = tl.arange(0, RANK)
    b_mask = (column < d_out)[:, None] & (factor < rank)[None, :]
    b = tl.load(b_ptr + column[:, None] * b_stride + factor[None, :], mask=b_mask, other=0.0).to(DOT)
    if HAS_GAIN:
        gain = tl.load(gain_ptr + column, mask=column < d_out, other=0.0).to(tl.float32)
    b_sum = tl.zeros((COLUMNS, RANK), tl.float32)
    gain_sum = tl.zeros((COLUMNS,), tl.float32)
    shift_sum = tl.zeros((COLUMNS,), tl.float32)
    for step in range(steps):
        row = (part * steps + step) * ROWS + tl.arange(0, ROWS)
        inside = (row < n)[:, None] & (column < d_out)[None, :]
        hidden_mask = (row < n)[:, None] & (factor < rank)[None, :]
        hidden = tl.load(hidden_ptr + row[:, None] * hidden_stride + factor[None, :], mask=hidden_mask, other=0.0)
        inner = _activate(hidden.to(tl.float32), ACTIVATION).to(DOT)
        dy = tl.load(dy_ptr + row[:, None] * dy_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        shift_sum += tl.sum(dy, 0)
        d_total = dy
        if HAS_GAIN:
            residual = tl.load(residual_ptr + row[:, None] * residual_stride + column[None, :], mask=inside, other=0.0)
            total = residual.to(tl.float32) + scale * tl.dot(inner, tl.trans(b), input_precision="ieee")
            gain_sum += tl.sum(dy * total, 0)
            d_total = dy * gain[None, :]
            d_residual = d_total.to(d_residual_ptr.dtype.element_ty)
            tl.store(d_residual_ptr + row[:, None] * d_out + column[None, :], d_residual, mask=inside)
        d_inner = tl.dot(d_total.to(DOT), b, input_precision="ieee")
        tl.store(d_inner_ptr + (block * n + row)[:, None] * rank + factor[None, :], d_inner, mask=hidden_mask)
        b_sum += tl.dot(tl.trans(d_total.to(DOT)), inner, input_precision="ieee")
    tl.store(d_b_ptr + (part * d_out + column)[:, None] * rank + factor[None, :], b_sum, mask=b_mask)
    sums = sums_ptr + part * d_out + column
    tl.store(sums, gain_sum, mask=column < d_out)
    tl.store(sums + tl.num_programs(0) * d_out, shift_sum, mask=column < d_out)
