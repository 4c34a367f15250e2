"""Sums of Kronecker products in plain torch, applied without the matrix that they stand for.

With row-major reshaping, (A (x) B) vec(X) = vec(A X B^T). Shapes, for t terms: A (t, p, q) and B (t, r, s), or
B_i = U_i V_i with U (t, r, k) and V (t, k, s). The matrix sum_i A_i (x) B_i is (p * r, q * s).
"""

from __future__ import annotations

import torch
from torch import Tensor


def kronecker_linear(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """(sum_i A_i (x) B_i) x, (..., q * s) -> (..., p * r)."""
    blocks = x.unflatten(-1, (a.shape[2], b.shape[2]))
    inner = torch.einsum("...qs,trs->...tqr", blocks, b)
    return torch.einsum("...tqr,tpq->...pr", inner, a).flatten(-2)


def low_rank_kronecker_linear(x: Tensor, a: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """(sum_i A_i (x) U_i V_i) x, (..., q * s) -> (..., p * r)."""
    blocks = x.unflatten(-1, (a.shape[2], v.shape[2]))
    inner = torch.einsum("...qs,tks->...tqk", blocks, v)
    inner = torch.einsum("...tqk,tpq->...tpk", inner, a)
    return torch.einsum("...tpk,trk->...pr", inner, u).flatten(-2)


def kronecker_matrix(a: Tensor, b: Tensor) -> Tensor:
    """sum_i A_i (x) B_i as a matrix, (p * r, q * s)."""
    return torch.einsum("tpq,trs->prqs", a, b).flatten(2, 3).flatten(0, 1)


def factor_gradients(dy: Tensor, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of A and B from those of `kronecker_linear`'s result; dy (n, p * r), x (n, q * s)."""
    d_blocks = dy.unflatten(-1, (a.shape[1], b.shape[1]))
    blocks = x.unflatten(-1, (a.shape[2], b.shape[2]))
    d_a = torch.einsum("npr,nqs,trs->tpq", d_blocks, blocks, b)
    d_b = torch.einsum("npr,nqs,tpq->trs", d_blocks, blocks, a)
    return d_a, d_b
