"""NormalFloat in Triton: restoring a matrix, and its product with a few rows without restoring it in memory."""

# Triton gives the annotations of kernels a meaning of its own:
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launch import ceil_div, launch, power_of_two, rows_of, widened

BLOCKS = 32  # of 64 weights each that a program restores
ROWS = 32  # of the matrix that a program multiplies with


def dequantise(
    codes: Tensor, scales: Tensor, scale_scales: Tensor, mean: Tensor, rows: int, columns: int, dtype: torch.dtype
) -> Tensor:
    """The restored matrix (rows, columns)."""
    weight = torch.empty(rows, columns, dtype=dtype, device=codes.device)
    blocks = ceil_div(rows * columns, 64)
    launch(
        _dequantise_kernel,
        (ceil_div(blocks, BLOCKS),),
        *(codes.contiguous(), scales.contiguous(), scale_scales.contiguous(), mean, weight, blocks, rows * columns),
        BLOCKS=BLOCKS,
    )
    return weight


def linear(
    x: Tensor, codes: Tensor, scales: Tensor, scale_scales: Tensor, mean: Tensor, rows: int, columns: int
) -> Tensor:
    """x W^T, (n, columns) -> (n, rows), for small n; 64 divides `columns`."""
    x = rows_of(x, columns)
    y = torch.empty(len(x), rows, dtype=x.dtype, device=x.device)
    launch(
        _linear_kernel,
        (ceil_div(rows, ROWS),),
        *(
            x,
            codes.contiguous(),
            scales.contiguous(),
            scale_scales.contiguous(),
            mean,
            y,
            len(x),
            rows,
            columns,
            x.stride(0),
        ),
        INPUTS=power_of_two(len(x), 16),
        ROWS=ROWS,
        WIDEN=widened(x.dtype),
    )
    return y


@triton.jit
def _choose(bit, low, high):
    return tl.where(bit != 0, high, low)


@triton.jit
def _level(code):
    """The level of a code, as a tree of choices: a table in memory would cost a load for each weight."""
    b0, b1, b2, b3 = code & 1, code & 2, code & 4, code & 8
    low = _choose(
        b2,
        _choose(b1, _choose(b0, -1.0, -0.6961928009986877), _choose(b0, -0.5250730514526367, -0.39491748809814453)),
        _choose(b1, _choose(b0, -0.28444138169288635, -0.18477343022823334), _choose(b0, -0.09105003625154495, 0.0)),
    )
    high = _choose(
        b2,
        _choose(
            b1,
            _choose(b0, 0.07958029955625534, 0.16093020141124725),
            _choose(b0, 0.24611230194568634, 0.33791524171829224),
        ),
        _choose(b1, _choose(b0, 0.44070982933044434, 0.5626170039176941), _choose(b0, 0.7229568362236023, 1.0)),
    )
    return _choose(b3, low, high)


@triton.jit
def _float_of_e4m3(byte):
    """An 8-bit float (bias 7, three bits of fraction) as fp32, bit by bit: not every GPU has the type."""
    bits = byte.to(tl.int32)
    exponent, fraction = (bits >> 3) & 15, bits & 7
    normal = ((exponent + 120) << 23 | fraction << 20).to(tl.float32, bitcast=True)
    magnitude = tl.where(exponent == 0, fraction.to(tl.float32) * 0.001953125, normal)
    return tl.where(bits >= 128, -magnitude, magnitude)


@triton.jit
def _block_scale(scales_ptr, scale_scales_ptr, mean_ptr, block, inside):
    byte = tl.load(scales_ptr + block, mask=inside, other=0)
    unit = tl.load(scale_scales_ptr + block // 256, mask=inside, other=0.0).to(tl.float32)
    return _float_of_e4m3(byte) * unit + tl.load(mean_ptr).to(tl.float32)


@triton.jit
def _dequantise_kernel(
    codes_ptr, scales_ptr, scale_scales_ptr, mean_ptr, weight_ptr, blocks, numel, BLOCKS: tl.constexpr
):
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    scale = _block_scale(scales_ptr, scale_scales_ptr, mean_ptr, block, block < blocks)[:, None]
    byte = block[:, None] * 32 + tl.arange(0, 32)[None, :]
    pair = tl.load(codes_ptr + byte, mask=(block < blocks)[:, None], other=0).to(tl.int32)
    weight = tl.interleave(_level(pair >> 4) * scale, _level(pair & 15) * scale).to(weight_ptr.dtype.element_ty)
    position = block[:, None] * 64 + tl.arange(0, 64)[None, :]
    tl.store(weight_ptr + position, weight, mask=position < numel)


@triton.jit
def _linear_kernel(
    x_ptr, codes_ptr, scales_ptr, scale_scales_ptr, mean_ptr, y_ptr, n, rows, columns, x_stride,
    INPUTS: tl.constexpr, ROWS: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    DOT: tl.constexpr = tl.float32 if WIDEN else x_ptr.dtype.element_ty
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    item = tl.arange(0, INPUTS).to(tl.int64)
    y = tl.zeros((INPUTS, ROWS), tl.float32)
    for part in range(columns // 64):
        block = row * (columns // 64) + part
        scale = _block_scale(scales_ptr, scale_scales_ptr, mean_ptr, block, row < rows)[:, None]
        byte = block[:, None] * 32 + tl.arange(0, 32)[None, :]
        pair = tl.load(codes_ptr + byte, mask=(row < rows)[:, None], other=0).to(tl.int32)
        weight = tl.interleave(_level(pair >> 4) * scale, _level(pair & 15) * scale).to(x_ptr.dtype.element_ty).to(DOT)
        column = part * 64 + tl.arange(0, 64)
        x = tl.load(x_ptr + item[:, None] * x_stride + column[None, :], mask=(item < n)[:, None], other=0.0).to(DOT)
        y += tl.dot(x, tl.trans(weight), input_precision="ieee")
    inside = (item < n)[:, None] & (row < rows)[None, :]
    tl.store(y_ptr + item[:, None] * rows + row[None, :], y.to(y_ptr.dtype.element_ty), mask=inside)
