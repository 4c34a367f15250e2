"""Low-rank updates of many jobs in Triton: tiles of rows that never cross from one job into the next.

Which rows a tile has is worked out on the GPU, for as many tiles as any lengths could need, so that nothing waits for
the lengths and one CUDA graph serves all of them.
"""

# Triton gives the annotations of kernels a meaning of its own:
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launch import ceil_div, launch, power_of_two, rows_of, widened

ROWS, COLUMNS = 32, 128


def shrink(x: Tensor, factors: Tensor, offsets: Tensor) -> Tensor:
    """x_j F_j^T, (n, k) -> (n, r)."""
    (jobs, rank, width), x = factors.shape, rows_of(x, x.shape[1])
    hidden = torch.empty(len(x), rank, dtype=x.dtype, device=x.device)
    tiles = _tiles(offsets, len(x))
    launch(
        _shrink_kernel,
        (tiles.shape[1],),
        *(x, factors, hidden, tiles, tiles.shape[1], jobs, width, rank, x.stride(0), *factors.stride()),
        RANK=power_of_two(rank, 16),
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        WIDEN=widened(x.dtype),
    )
    return hidden


def expand(hidden: Tensor, factors: Tensor, offsets: Tensor, residual: Tensor | None) -> Tensor:
    """residual + h_j F_j, (n, r) -> (n, c)."""
    (jobs, rank, width), hidden = factors.shape, rows_of(hidden, hidden.shape[1])
    y = torch.empty(len(hidden), width, dtype=hidden.dtype, device=hidden.device)
    beside = y if residual is None else rows_of(residual, width)
    tiles = _tiles(offsets, len(hidden))
    launch(
        _expand_kernel,
        (tiles.shape[1], ceil_div(width, COLUMNS)),
        *(hidden, factors, beside, y, tiles, tiles.shape[1], jobs, width, rank),
        *(hidden.stride(0), *factors.stride(), beside.stride(0)),
        HAS_RESIDUAL=residual is not None,
        RANK=power_of_two(rank, 16),
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        WIDEN=widened(hidden.dtype),
    )
    return y


def outer(hidden: Tensor, wide: Tensor, offsets: Tensor) -> Tensor:
    """h_j^T w_j, (jobs, r, k); one program sums all rows of a job, so the order of the sum is fixed."""
    (rank, width), jobs = (hidden.shape[1], wide.shape[1]), len(offsets) - 1
    hidden, wide = rows_of(hidden, rank), rows_of(wide, width)
    products = torch.empty(jobs, rank, width, dtype=wide.dtype, device=wide.device)
    launch(
        _outer_kernel,
        (jobs, ceil_div(width, COLUMNS)),
        *(hidden, wide, products, offsets.contiguous(), width, rank, hidden.stride(0), wide.stride(0)),
        RANK=power_of_two(rank, 16),
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        WIDEN=widened(wide.dtype),
    )
    return products


def _tiles(offsets: Tensor, rows: int) -> Tensor:
    """(3, tiles): job, first row and end of each tile. The last job stands for rows of none; spare tiles are empty."""
    ends = torch.cat([offsets[1:], offsets.new_full((1,), rows)])
    starts = torch.cat([offsets[:-1], offsets[-1:]])
    last = ((ends - starts + ROWS - 1) // ROWS).cumsum(0)
    tile = torch.arange(ceil_div(rows, ROWS) + len(ends), device=offsets.device)
    job = torch.searchsorted(last, tile, right=True)
    real = job.clamp_max(len(ends) - 1)
    before = torch.where(real > 0, last[real - 1], 0)
    first = starts[real] + (tile - before) * ROWS
    end = torch.where(job < len(ends), torch.minimum(first + ROWS, ends[real]), first)
    return torch.stack([real, first, end])


@triton.jit
def _shrink_kernel(
    x_ptr, factors_ptr, hidden_ptr, tiles_ptr, tiles, jobs, width, rank,
    x_stride, job_stride, rank_stride, column_stride,
    RANK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    DOT: tl.constexpr = tl.float32 if WIDEN else x_ptr.dtype.element_ty
    tile = tl.program_id(0)
    job = tl.load(tiles_ptr + tile)
    row = tl.load(tiles_ptr + tiles + tile) + tl.arange(0, ROWS)
    inside = row < tl.load(tiles_ptr + 2 * tiles + tile)
    factor = tl.arange(0, RANK).to(tl.int64)
    own_rank = tl.where(job < jobs, rank, 0)  # rows of no job get zeros
    hidden = tl.zeros((ROWS, RANK), tl.float32)
    for start in range(0, width, COLUMNS):
        column = (start + tl.arange(0, COLUMNS)).to(tl.int64)
        x_mask = inside[:, None] & (column < width)[None, :]
        x = tl.load(x_ptr + row[:, None] * x_stride + column[None, :], mask=x_mask, other=0.0).to(DOT)
        f_mask = (factor < own_rank)[:, None] & (column < width)[None, :]
        f_offset = job * job_stride + factor[:, None] * rank_stride + column[None, :] * column_stride
        f = tl.load(factors_ptr + f_offset, mask=f_mask, other=0.0).to(DOT)
        hidden += tl.dot(x, tl.trans(f), input_precision="ieee")
    hidden_mask = inside[:, None] & (factor < rank)[None, :]
    hidden_offset = row[:, None] * rank + factor[None, :]
    tl.store(hidden_ptr + hidden_offset, hidden.to(hidden_ptr.dtype.element_ty), mask=hidden_mask)


@triton.jit
def _expand_kernel(
    hidden_ptr, factors_ptr, residual_ptr, y_ptr, tiles_ptr, tiles, jobs, width, rank,
    hidden_stride, job_stride, rank_stride, column_stride, residual_stride,
    HAS_RESIDUAL: tl.constexpr,
    RANK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    DOT: tl.constexpr = tl.float32 if WIDEN else hidden_ptr.dtype.element_ty
    tile = tl.program_id(0)
    job = tl.load(tiles_ptr + tile)
    row = tl.load(tiles_ptr + tiles + tile) + tl.arange(0, ROWS)
    in_job = row < tl.load(tiles_ptr + 2 * tiles + tile)
    factor = tl.arange(0, RANK).to(tl.int64)
    column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)
    hidden_mask = in_job[:, None] & (factor < rank)[None, :]
    hidden = tl.load(hidden_ptr + row[:, None] * hidden_stride + factor[None, :], mask=hidden_mask, other=0.0).to(DOT)
    own_rank = tl.where(job < jobs, rank, 0)  # rows of no job get the residual alone
    f_mask = (factor < own_rank)[:, None] & (column < width)[None, :]
    f_offset = job * job_stride + factor[:, None] * rank_stride + column[None, :] * column_stride
    f = tl.load(factors_ptr + f_offset, mask=f_mask, other=0.0).to(DOT)
    y = tl.dot(hidden, f, input_precision="ieee")
    inside = in_job[:, None] & (column < width)[None, :]
    if HAS_RESIDUAL:
        beside = tl.load(residual_ptr + row[:, None] * residual_stride + column[None, :], mask=inside, other=0.0)
        y += beside.to(tl.float32)
    tl.store(y_ptr + row[:, None] * width + column[None, :], y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _outer_kernel(
    hidden_ptr, wide_ptr, products_ptr, offsets_ptr, width, rank, hidden_stride, wide_stride,
    RANK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    DOT: tl.constexpr = tl.float32 if WIDEN else wide_ptr.dtype.element_ty
    job = tl.program_id(0).to(tl.int64)
    start, end = tl.load(offsets_ptr + job), tl.load(offsets_ptr + job + 1)
    factor = tl.arange(0, RANK)
    column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)).to(tl.int64)
    total = tl.zeros((RANK, COLUMNS), tl.float32)
    for first in range(start, end, ROWS):
        row = (first + tl.arange(0, ROWS)).to(tl.int64)  # in the interpreter `first` is a whole number
        hidden_mask = (row < end)[:, None] & (factor < rank)[None, :]
        hidden = tl.load(hidden_ptr + row[:, None] * hidden_stride + factor[None, :], mask=hidden_mask, other=0.0)
        wide_mask = (row < end)[:, None] & (column < width)[None, :]
        wide = tl.load(wide_ptr + row[:, None] * wide_stride + column[None, :], mask=wide_mask, other=0.0)
        total += tl.dot(tl.trans(hidden.to(DOT)), wide.to(DOT), input_precision="ieee")
    mask = (factor < rank)[:, None] & (column < width)[None, :]
    offset = (job * rank + factor)[:, None] * width + column[None, :]
    tl.store(products_ptr + offset, total.to(products_ptr.dtype.element_ty), mask=mask)
