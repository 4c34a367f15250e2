"""n_i = ||W_i + s B_i A||, the norm of each row of a matrix with a low-rank update: what DoRA needs at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import triton_op

from ..checks import check_alike, check_floating, check_shape
from ..dispatch import prefers_kernel
from ..launch import runs_triton
from . import reference

NAME = "dora_rownorm"


def dora_rownorm(weight: Tensor, a: Tensor, b: Tensor, scale: float, squares: Tensor | None = None) -> Tensor:
    """Norms (d_out,) in the dtype of B; W (d_out, d_in) of any dtype, A (r, d_in), B (d_out, r).

    `squares` (d_out,), from `row_squares`, saves plain torch a pass over a frozen W; the kernel makes its own.
    Gradients reach A and B alone.
    """
    if prefers_kernel(NAME, weight.numel(), weight, a, b):
        norms: Tensor = _op(weight, a, b, scale)
        return norms
    if squares is None:
        squares = reference.row_squares(weight.detach())
    return reference.row_norms(weight.detach(), a, b, scale, squares)


@triton_op("peft_atlas::dora_rownorm", mutates_args=())
def _op(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    check_alike(NAME, a=a, b=b)
    check_floating(NAME, weight=weight, a=a)  # whose dtypes may differ
    check_shape(NAME, "a", a, (b.shape[1], weight.shape[1]))
    check_shape(NAME, "b", b, (weight.shape[0], a.shape[0]))
    if runs_triton(weight, a, b) and runs_triton(a):
        from . import triton

        return triton.forward(weight, a, b, scale)
    return reference.row_norms(weight, a, b, scale, reference.row_squares(weight))


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, float], output: Tensor) -> None:
    weight, a, b, ctx.scale = inputs
    ctx.save_for_backward(weight, a, b, output)


def _backward(context: Any, dn: Tensor) -> tuple[Tensor | None, ...]:
    weight, a, b, norms = context.saved_tensors
    with torch.no_grad():
        return None, *reference.row_norms_backward(dn, norms, weight, a, b, context.scale), None


_op.register_autograd(_backward, setup_context=_setup)
