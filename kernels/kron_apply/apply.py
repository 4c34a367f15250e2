"""What methods call: Kronecker updates, by the kernel or in plain torch."""

from __future__ import annotations

from torch import Tensor

from ..dispatch import prefers_kernel
from . import reference
from .recompute import recomputed

NAME = "kron_apply"


def kron_apply(
    x: Tensor, a: Tensor, b: Tensor, v: Tensor | None = None, scale: float = 1.0, residual: Tensor | None = None
) -> Tensor:
    """residual + scale * (sum_i A_i (x) B_i) x, (..., q * s) -> (..., p * r); with `v`, B_i is B_i V_i.

    A (t, p, q), B (t, r, s); or B (t, r, k), V (t, k, s); residual (..., p * r) or None for zero.
    """
    if prefers_kernel(NAME, x.numel(), x, a, b, v, residual):
        from .op import kron_apply_op

        right = b if v is None else b @ v
        beside = None if residual is None else residual.flatten(0, -2)
        y: Tensor = kron_apply_op(x.flatten(0, -2), a, right, scale, beside)
        return y.unflatten(0, x.shape[:-1])
    product = (
        recomputed(reference.kronecker_linear, x, a, b)
        if v is None
        else recomputed(reference.low_rank_kronecker_linear, x, a, b, v)
    )
    return product * scale if residual is None else residual + product * scale
