"""Sums of Kronecker products in Triton: a row is a matrix X in registers, and A X B^T two products of tiles."""

# Triton gives the annotations of kernels a meaning of its own:
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launch import WAVE, ceil_div, launch, power_of_two, rows_of, widened


def apply(x: Tensor, a: Tensor, b: Tensor, scale: float, residual: Tensor | None) -> Tensor:
    """residual + scale * (sum_i A_i (x) B_i) x, (n, q * s) -> (n, p * r)."""
    (terms, p, q), (r, s) = a.shape, b.shape[1:]
    x, a, b = rows_of(x, q * s), a.contiguous(), b.contiguous()
    y = torch.empty(len(x), p * r, dtype=x.dtype, device=x.device)
    beside = y if residual is None else rows_of(residual, p * r)
    steps = ceil_div(len(x), min(len(x), 4 * WAVE))
    launch(
        _apply_kernel,
        (ceil_div(len(x), steps),),
        *(x, a, b, beside, y, len(x), x.stride(0), beside.stride(0), terms, p, q, r, s, scale, steps),
        HAS_RESIDUAL=residual is not None,
        **_tiles(p, q, r, s),
        WIDEN=widened(b.dtype),
    )
    return y


def factor_gradients(dy: Tensor, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of A and B, sums over rows in two stages; dy (n, p * r), x (n, q * s)."""
    (terms, p, q), (r, s) = a.shape, b.shape[1:]
    dy, x, a, b = rows_of(dy, p * r), rows_of(x, q * s), a.contiguous(), b.contiguous()
    steps = ceil_div(len(x), min(len(x), max(1, WAVE // terms)))
    parts = ceil_div(len(x), steps)
    a_sums = torch.empty(parts, terms, p, q, dtype=torch.float32, device=x.device)
    b_sums = torch.empty(parts, terms, r, s, dtype=torch.float32, device=x.device)
    launch(
        _factor_kernel,
        (parts, terms),
        *(dy, x, a, b, a_sums, b_sums, len(x), dy.stride(0), x.stride(0), terms, p, q, r, s, steps),
        **_tiles(p, q, r, s),
        WIDEN=widened(b.dtype),
    )
    return a_sums.sum(0).to(a.dtype), b_sums.sum(0).to(b.dtype)


def _tiles(p: int, q: int, r: int, s: int) -> dict[str, int]:
    return {name: power_of_two(size, 16) for name, size in {"P": p, "Q": q, "R": r, "S": s}.items()}


@triton.jit
def _tile(pointer, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A row-major matrix (rows, columns) in a tile that zeros fill up."""
    i, j = tl.arange(0, ROWS)[:, None], tl.arange(0, COLUMNS)[None, :]
    return tl.load(pointer + i * columns + j, mask=(i < rows) & (j < columns), other=0.0)


@triton.jit
def _apply_kernel(
    x_ptr, a_ptr, b_ptr, residual_ptr, y_ptr, n, x_stride, residual_stride, terms, p, q, r, s, scale, steps,
    HAS_RESIDUAL: tl.constexpr,
    P: tl.constexpr, Q: tl.constexpr, R: tl.constexpr, S: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    DOT: tl.constexpr = tl.float32 if WIDEN else b_ptr.dtype.element_ty
    i, j = tl.arange(0, P)[:, None], tl.arange(0, R)[None, :]
    for step in range(steps):
        row = tl.program_id(0).to(tl.int64) * steps + step
        x = _tile(x_ptr + row * x_stride, tl.where(row < n, q, 0), s, Q, S).to(DOT)
        y = tl.zeros((P, R), tl.float32)
        for term in range(terms):
            a = _tile(a_ptr + term * p * q, p, q, P, Q).to(DOT)
            b = _tile(b_ptr + term * r * s, r, s, R, S).to(DOT)
            inner = tl.dot(x, tl.trans(b), input_precision="ieee").to(DOT)
            y += tl.dot(a, inner, input_precision="ieee")
        y *= scale
        inside = (i < tl.where(row < n, p, 0)) & (j < r)
        if HAS_RESIDUAL:
            y += _tile(residual_ptr + row * residual_stride, tl.where(row < n, p, 0), r, P, R).to(tl.float32)
        tl.store(y_ptr + row * p * r + i * r + j, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _factor_kernel(
    dy_ptr, x_ptr, a_ptr, b_ptr, a_sums_ptr, b_sums_ptr, n, dy_stride, x_stride, terms, p, q, r, s, steps,
    P: tl.constexpr, Q: tl.constexpr, R: tl.constexpr, S: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    DOT: tl.constexpr = tl.float32 if WIDEN else b_ptr.dtype.element_ty
    part, term = tl.program_id(0).to(tl.int64), tl.program_id(1)
    a = _tile(a_ptr + term * p * q, p, q, P, Q).to(DOT)
    b = _tile(b_ptr + term * r * s, r, s, R, S).to(DOT)
    a_sum = tl.zeros((P, Q), tl.float32)
    b_sum = tl.zeros((R, S), tl.float32)
    for step in range(steps):
        row = part * steps + step
        dy = _tile(dy_ptr + row * dy_stride, tl.where(row < n, p, 0), r, P, R).to(DOT)
        x = _tile(x_ptr + row * x_stride, tl.where(row < n, q, 0), s, Q, S).to(DOT)
        through_b = tl.dot(dy, b, input_precision="ieee").to(DOT)
        a_sum += tl.dot(through_b, tl.trans(x), input_precision="ieee")
        through_a = tl.dot(a, x, input_precision="ieee").to(DOT)
        b_sum += tl.dot(tl.trans(dy), through_a, input_precision="ieee")
    i, j = tl.arange(0, P)[:, None], tl.arange(0, Q)[None, :]
    tl.store(a_sums_ptr + (part * terms + term) * p * q + i * q + j, a_sum, mask=(i < p) & (j < q))
    i, j = tl.arange(0, R)[:, None], tl.arange(0, S)[None, :]
    tl.store(b_sums_ptr + (part * terms + term) * r * s + i * s + j, b_sum, mask=(i < r) & (j < s))
