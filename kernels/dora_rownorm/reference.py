"""Row norms of W + s B A in plain torch, without the sum."""

from __future__ import annotations

import torch
from torch import Tensor


def row_squares(weight: Tensor) -> Tensor:
    """||W_i||^2 of each row, (d_out,): constant while W is frozen."""
    return torch.linalg.vecdot(weight, weight)


def row_norms(weight: Tensor, a: Tensor, b: Tensor, scale: float, squares: Tensor) -> Tensor:
    """||W_i + s B_i A||, (d_out,), in the dtype of B; W (d_out, d_in), A (r, d_in), B (d_out, r), squares (d_out,).

    ||W_i||^2 + 2 s <B_i, W_i A^T> + s^2 B_i (A A^T) B_i^T: all that is made is W A^T, of r columns.
    """
    scaled = scale * b
    cross = torch.linalg.vecdot((weight @ a.t().to(weight.dtype)).to(b.dtype), scaled)
    own = torch.linalg.vecdot(scaled @ (a @ a.t()), scaled)
    return (squares.to(b.dtype) + 2 * cross + own).clamp_min(0).sqrt()


def row_norms_backward(
    dn: Tensor, norms: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Gradients of A and B: with V = W + s B A and c = dn / n, s (c B)^T V and s c V A^T. Norms of 0 pass none on."""
    c = torch.where(norms > 0, dn / norms, 0.0)[:, None]
    weighted = c * b
    through_a = (weighted.t().to(weight.dtype) @ weight).to(a.dtype) + scale * (weighted.t() @ b) @ a
    through_b = (weight @ a.t().to(weight.dtype)).to(b.dtype) + scale * b @ (a @ a.t())
    return scale * through_a, scale * c * through_b
