"""Row norms of W + s B A in Triton: one pass over W, sums of squares in fp32, nothing of W's size is stored."""

# Triton gives the annotations of kernels a meaning of its own:
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launch import ceil_div, launch, power_of_two, rows_of, widened

ROWS, COLUMNS = 16, 128  # a tile of W


def forward(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """||W_i + s B_i A|| of each row, in the dtype of B."""
    d_out, d_in = weight.shape
    weight, a, b = rows_of(weight, d_in), rows_of(a, d_in), rows_of(b, b.shape[1])
    norms = torch.empty(d_out, dtype=b.dtype, device=b.device)
    launch(
        _norm_kernel,
        (ceil_div(d_out, ROWS),),
        *(weight, a, b, norms),
        *(d_out, d_in, len(a), weight.stride(0), a.stride(0), b.stride(0), scale),
        RANK=power_of_two(len(a), 16),
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        WIDEN=widened(a.dtype),
    )
    return norms


@triton.jit
def _norm_kernel(
    weight_ptr, a_ptr, b_ptr, norms_ptr, d_out, d_in, rank, weight_stride, a_stride, b_stride, scale,
    RANK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    DOT: tl.constexpr = tl.float32 if WIDEN else a_ptr.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    factor = tl.arange(0, RANK)
    b_mask = (row < d_out)[:, None] & (factor < rank)[None, :]
    b = tl.load(b_ptr + row[:, None] * b_stride + factor[None, :], mask=b_mask, other=0.0).to(DOT)
    squares = tl.zeros((ROWS,), tl.float32)
    for start in range(0, d_in, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        a_mask = (factor < rank)[:, None] & (column < d_in)[None, :]
        a = tl.load(a_ptr + factor.to(tl.int64)[:, None] * a_stride + column[None, :], mask=a_mask, other=0.0).to(DOT)
        inside = (row < d_out)[:, None] & (column < d_in)[None, :]
        weight = tl.load(weight_ptr + row[:, None] * weight_stride + column[None, :], mask=inside, other=0.0)
        total = weight.to(tl.float32) + scale * tl.dot(b, a, input_precision="ieee")
        squares += tl.sum(total * total, 1)
    tl.store(norms_ptr + row, tl.sqrt(squares).to(norms_ptr.dtype.element_ty), mask=row < d_out)
