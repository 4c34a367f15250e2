"""n_i = ||W_i + s B_i A||, the norm of each row of a matrix with a low-rank update: what DoRA needs at every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import triton_op

from ..checks import check_alike, check_floating, check_shape
from ..launch import runs_triton
from . import reference
from .apply import NAME


@triton_op("peft_atlas::dora_rownorm", mutates_args=())
def dora_rownorm_op(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
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


dora_rownorm_op.register_autograd(_backward, setup_context=_setup)
