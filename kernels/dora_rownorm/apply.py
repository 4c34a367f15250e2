"""What methods call: row norms of W + s B A, by the kernel or in plain torch."""

from __future__ import annotations

from torch import Tensor

from ..dispatch import prefers_kernel
from . import reference

NAME = "dora_rownorm"


def variant(weight: Tensor, a: Tensor) -> str:
    """The name that is measured: products of an fp32 adapter take longer than those of one in the dtype of W."""
    return NAME if weight.dtype == a.dtype else f"{NAME}+{str(a.dtype).removeprefix('torch.')}"


def dora_rownorm(weight: Tensor, a: Tensor, b: Tensor, scale: float, squares: Tensor | None = None) -> Tensor:
    """Norms (d_out,) in the dtype of B; W (d_out, d_in) of any dtype, A (r, d_in), B (d_out, r).

    `squares` (d_out,), from `row_squares`, saves plain torch a pass over a frozen W; the kernel makes its own.
    Gradients reach A and B alone.
    """
    if prefers_kernel(variant(weight, a), weight.numel(), weight, a, b):
        from .op import dora_rownorm_op

        norms: Tensor = dora_rownorm_op(weight, a, b, scale)
        return norms
    if squares is None:
        squares = reference.row_squares(weight.detach())
    return reference.row_norms(weight.detach(), a, b, scale, squares)
