"""Block-diagonal maps of a vector's entries in plain torch; the d x d matrix is never spread out."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x: Tensor, blocks: Tensor) -> Tensor:
    """x R for R block-diagonal; x (..., n * size), blocks (n, size, size)."""
    return torch.einsum("...nk,nkc->...nc", x.unflatten(-1, blocks.shape[:2]), blocks).flatten(-2)


def butterfly(x: Tensor, blocks: Tensor, level: int) -> Tensor:
    """`rotate` with each block acting on two pieces of x, of half its size, that lie 2^level pieces apart."""
    span, half = 2**level, blocks.shape[-1] // 2
    pieces = x.unflatten(-1, (-1, 2, span, half))
    turned = rotate(pieces.transpose(-3, -2).flatten(-4), blocks)
    return turned.unflatten(-1, (-1, span, 2, half)).transpose(-3, -2).flatten(-4)


def apply(x: Tensor, blocks: Tensor, level: int | None) -> Tensor:
    """`butterfly` at a level, `rotate` without one."""
    return rotate(x, blocks) if level is None else butterfly(x, blocks, level)


def apply_backward(dy: Tensor, x: Tensor, blocks: Tensor, level: int | None) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the blocks."""
    dx = apply(dy, blocks.mT, level)
    pairs = (_in_blocks(tensor, blocks, level) for tensor in (x, dy))
    return dx, torch.einsum("rnk,rnc->nkc", *pairs)


def _in_blocks(x: Tensor, blocks: Tensor, level: int | None) -> Tensor:
    """(..., n * size) -> (rows, n, size): the entries that each block acts on."""
    rows = x.reshape(-1, x.shape[-1])
    if level is not None:
        pieces = rows.unflatten(-1, (-1, 2, 2**level, blocks.shape[-1] // 2))
        rows = pieces.transpose(-3, -2).flatten(-4)
    return rows.unflatten(-1, blocks.shape[:2])
