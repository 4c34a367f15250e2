"""Orthogonal matrices from skew-symmetric ones, and block-diagonal rotations of a vector's entries.

A rotation acts on rows, x -> x R, and is never spread out to a d x d matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.blockdiag_rotate.apply import blockdiag_rotate


def above_diagonal(size: int, device: torch.device) -> Tensor:
    """Positions in a flattened (size, size) matrix of what lies above its diagonal, row by row.

    A module keeps them as a buffer: made anew in each pass, they would be kept for each backward pass.
    """
    row, column = torch.triu_indices(size, size, 1)
    return (row * size + column).to(device)


def skew(entries: Tensor, positions: Tensor, size: int) -> Tensor:
    """Skew-symmetric matrices (n, size, size) from their entries above the diagonal, (n, size * (size - 1) / 2)."""
    upper = entries.new_zeros(len(entries), size * size).index_copy(1, positions, entries)
    return upper.unflatten(1, (size, size)) - upper.unflatten(1, (size, size)).mT


def cayley(q: Tensor) -> Tensor:
    """R = (I + Q) (I - Q)^(-1), orthogonal for skew-symmetric Q; (n, size, size)."""
    identity = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device).expand_as(q)
    return torch.linalg.solve(identity - q, identity + q, left=False)


def cayley_neumann(q: Tensor, terms: int) -> Tensor:
    """`cayley` with (I - Q)^(-1) replaced by I + Q + ... + Q^(terms - 2): products only, orthogonal for small Q.

    The product is summed by powers, I + 2 Q + ... + 2 Q^(terms - 2) + Q^(terms - 1): only powers are kept for backward.
    """
    identity = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    total, power = torch.add(identity, q, alpha=2), q
    for _ in range(terms - 3):
        power = power @ q
        total = torch.add(total, power, alpha=2)
    return total + power @ q


def rotate(x: Tensor, blocks: Tensor) -> Tensor:
    """x R for R block-diagonal; x (..., n * size), blocks (n, size, size)."""
    return blockdiag_rotate(x, blocks)


def butterfly(x: Tensor, blocks: Tensor, level: int) -> Tensor:
    """`rotate` with each block acting on two pieces of x, of half its size, that lie 2^level pieces apart."""
    return blockdiag_rotate(x, blocks, level)
