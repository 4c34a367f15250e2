"""Scale and shift in Triton: one pass forward, one pass backward with sums in two stages and no atomics."""

# Triton gives the annotations of kernels a meaning of its own:
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launch import ceil_div, launch, packed, parts_and_steps, power_of_two, rows_of

ROWS, COLUMNS = 16, 256  # a tile


def forward(x: Tensor, gain: Tensor, shift: Tensor | None) -> Tensor:
    """x * gain + shift; x (..., width)."""
    width = x.shape[-1]
    flat = rows_of(x, width)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    columns = min(COLUMNS, power_of_two(width))
    grid = (ceil_div(len(flat), ROWS), ceil_div(width, columns))
    launch(
        _forward_kernel,
        grid,
        *(flat, gain.contiguous(), packed(shift, instead=gain), y),
        *(len(flat), width, flat.stride(0)),
        HAS_SHIFT=shift is not None,
        ROWS=ROWS,
        COLUMNS=columns,
    )
    return y


def backward(dy: Tensor, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gain and shift."""
    width = x.shape[-1]
    flat_dy, flat_x = rows_of(dy, width), rows_of(x, width)
    columns = min(COLUMNS, power_of_two(width))
    parts, steps = parts_and_steps(len(flat_x), ROWS, ceil_div(width, columns))
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    sums = torch.empty(2, parts, width, dtype=torch.float32, device=x.device)
    launch(
        _backward_kernel,
        (parts, ceil_div(width, columns)),
        *(flat_dy, flat_x, gain.contiguous(), dx, sums),
        *(len(flat_x), width, flat_dy.stride(0), flat_x.stride(0), steps),
        ROWS=ROWS,
        COLUMNS=columns,
    )
    gain_grad, shift_grad = sums.sum(1).to(gain.dtype).unbind()
    return dx, gain_grad.clone(), shift_grad.clone()


@triton.jit
def _forward_kernel(
    x_ptr, gain_ptr, shift_ptr, y_ptr, rows, width, x_stride,
    HAS_SHIFT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < width)[None, :]
    x = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
    y = x * tl.load(gain_ptr + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
    if HAS_SHIFT:
        y += tl.load(shift_ptr + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
    tl.store(y_ptr + row[:, None] * width + column[None, :], y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernel(
    dy_ptr, x_ptr, gain_ptr, dx_ptr, sums_ptr, rows, width, dy_stride, x_stride, steps,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    gain = tl.load(gain_ptr + column, mask=column < width, other=0.0).to(tl.float32)
    gain_sum = tl.zeros((COLUMNS,), tl.float32)
    shift_sum = tl.zeros((COLUMNS,), tl.float32)
    for step in range(steps):
        row = (part * steps + step) * ROWS + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < width)[None, :]
        dy = tl.load(dy_ptr + row[:, None] * dy_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(tl.float32)
        dx = (dy * gain[None, :]).to(dx_ptr.dtype.element_ty)
        tl.store(dx_ptr + row[:, None] * width + column[None, :], dx, mask=inside)
        gain_sum += tl.sum(dy * x, 0)
        shift_sum += tl.sum(dy, 0)
    sums = sums_ptr + part * width + column
    tl.store(sums, gain_sum, mask=column < width)
    tl.store(sums + tl.num_programs(0) * width, shift_sum, mask=column < width)
