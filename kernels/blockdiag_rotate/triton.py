"""Block-diagonal maps in Triton: entries are read and written where they lie, whatever a block's pieces' distance.

A block of size s at distance `span` acts on entries base + (k // half) * span * half + k % half for k < s, where half =
s / 2 and base = (block // span) * span * s + (block % span) * half; without pieces half = s and span = 1.
"""

# Triton gives the annotations of kernels a meaning of its own:
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launch import ceil_div, launch, parts_and_steps, power_of_two, rows_of, widened

ROWS = 64  # of a tile


def forward(x: Tensor, blocks: Tensor, level: int | None) -> Tensor:
    """x R, of the shape of x."""
    flat, blocks = rows_of(x, x.shape[-1]), blocks.contiguous()
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    launch(
        _forward_kernel,
        (ceil_div(len(flat), ROWS) * len(blocks),),
        *(flat, blocks, y, len(flat), x.shape[-1], flat.stride(0), len(blocks), *_geometry(blocks, level)),
        SIZE=power_of_two(blocks.shape[-1], 16),
        ROWS=ROWS,
        WIDEN=widened(blocks.dtype),
    )
    return y


def backward(dy: Tensor, x: Tensor, blocks: Tensor, level: int | None) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the blocks, from one pass over x and dy."""
    flat_dy, flat_x, blocks = rows_of(dy, x.shape[-1]), rows_of(x, x.shape[-1]), blocks.contiguous()
    parts, steps = parts_and_steps(len(flat_x), ROWS, len(blocks))
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    sums = torch.empty(parts, *blocks.shape, dtype=torch.float32, device=x.device)
    launch(
        _backward_kernel,
        (parts * len(blocks),),
        *(flat_dy, flat_x, blocks, dx, sums, len(flat_x), x.shape[-1], flat_dy.stride(0), flat_x.stride(0)),
        *(len(blocks), *_geometry(blocks, level), steps),
        SIZE=power_of_two(blocks.shape[-1], 16),
        ROWS=ROWS,
        WIDEN=widened(blocks.dtype),
    )
    return dx, sums.sum(0).to(blocks.dtype)


def _geometry(blocks: Tensor, level: int | None) -> tuple[int, int, int]:
    """(size, half, span)."""
    size = blocks.shape[-1]
    return (size, size, 1) if level is None else (size, size // 2, 2**level)


@triton.jit
def _entries(block, k, size, half, span):
    """Where entry k of what a block acts on lies in a row."""
    return (block // span) * span * size + (block % span) * half + (k // half) * span * half + k % half


@triton.jit
def _forward_kernel(
    x_ptr, blocks_ptr, y_ptr, rows, width, x_stride, count, size, half, span,
    SIZE: tl.constexpr, ROWS: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    DOT: tl.constexpr = tl.float32 if WIDEN else blocks_ptr.dtype.element_ty
    block = tl.program_id(0) % count  # neighbours share rows, whose cache lines they complete
    row = (tl.program_id(0) // count).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, SIZE)
    column = _entries(block, k, size, half, span)
    square = (k < size)[:, None] & (k < size)[None, :]
    turn = tl.load(blocks_ptr + block * size * size + k[:, None] * size + k[None, :], mask=square, other=0.0).to(DOT)
    inside = (row < rows)[:, None] & (k < size)[None, :]
    x = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(DOT)
    y = tl.dot(x, turn, input_precision="ieee").to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + row[:, None] * width + column[None, :], y, mask=inside)


@triton.jit
def _backward_kernel(
    dy_ptr, x_ptr, blocks_ptr, dx_ptr, sums_ptr, rows, width, dy_stride, x_stride, count, size, half, span, steps,
    SIZE: tl.constexpr, ROWS: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    DOT: tl.constexpr = tl.float32 if WIDEN else blocks_ptr.dtype.element_ty
    block = tl.program_id(0) % count
    part = (tl.program_id(0) // count).to(tl.int64)
    k = tl.arange(0, SIZE)
    column = _entries(block, k, size, half, span)
    square = (k < size)[:, None] & (k < size)[None, :]
    in_block = block * size * size + k[:, None] * size + k[None, :]
    turn = tl.load(blocks_ptr + in_block, mask=square, other=0.0).to(DOT)
    total = tl.zeros((SIZE, SIZE), tl.float32)
    for step in range(steps):
        row = (part * steps + step) * ROWS + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (k < size)[None, :]
        dy = tl.load(dy_ptr + row[:, None] * dy_stride + column[None, :], mask=inside, other=0.0).to(DOT)
        x = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=inside, other=0.0).to(DOT)
        dx = tl.dot(dy, tl.trans(turn), input_precision="ieee").to(dx_ptr.dtype.element_ty)
        tl.store(dx_ptr + row[:, None] * width + column[None, :], dx, mask=inside)
        total += tl.dot(tl.trans(x), dy, input_precision="ieee")
    tl.store(sums_ptr + part * count * size * size + in_block, total, mask=square)
