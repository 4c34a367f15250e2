"""Orthogonal matrices from skew-symmetric ones, and block-diagonal rotations of a vector's entries.

A rotation acts on rows, x -> x R, and is never spread out to a d x d matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor


def skew(entries: Tensor, size: int) -> Tensor:
    """Skew-symmetric matrices (n, size, size) from their entries above the diagonal, (n, size * (size - 1) / 2)."""
    row, column = torch.triu_indices(size, size, 1, device=entries.device)
    upper = entries.new_zeros(len(entries), size, size).index_put((_all_of(entries), row, column), entries)
    return upper - upper.mT


def _all_of(entries: Tensor) -> Tensor:
    return torch.arange(len(entries), device=entries.device)[:, None]


def cayley(q: Tensor) -> Tensor:
    """R = (I + Q) (I - Q)^(-1), orthogonal for skew-symmetric Q; (n, size, size)."""
    identity = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device).expand_as(q)
    return torch.linalg.solve(identity - q, identity + q, left=False)


def cayley_neumann(q: Tensor, terms: int) -> Tensor:
    """`cayley` with (I - Q)^(-1) replaced by I + Q + ... + Q^(terms - 2): products only, orthogonal for small Q."""
    identity = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device).expand_as(q)
    inverse = identity
    for _ in range(terms - 2):
        inverse = identity + q @ inverse
    return inverse + q @ inverse


def rotate(x: Tensor, blocks: Tensor) -> Tensor:
    """x R for R block-diagonal; x (..., n * size), blocks (n, size, size)."""
    return torch.einsum("...nk,nkc->...nc", x.unflatten(-1, blocks.shape[:2]), blocks).flatten(-2)


def butterfly(x: Tensor, blocks: Tensor, level: int) -> Tensor:
    """`rotate` with each block acting on two pieces of x, of half its size, that lie 2^level pieces apart."""
    span, half = 2**level, blocks.shape[-1] // 2
    pieces = x.unflatten(-1, (-1, 2, span, half))
    turned = rotate(pieces.transpose(-3, -2).flatten(-4), blocks)
    return turned.unflatten(-1, (-1, span, 2, half)).transpose(-3, -2).flatten(-4)
