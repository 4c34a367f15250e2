"""y_j = res_j + s_j x_j A_j^T B_j^T: the low-rank updates of many jobs that share one frozen matrix, in one launch.

Rows are sorted by job. Two ops, each the other's backward pass but for the sums over rows, which are a third.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import triton_op

from ..checks import check_alike, check_shape
from ..dispatch import prefers_kernel
from ..launch import runs_triton
from . import reference

NAME = "grouped_lowrank"
MAX_RANK = 128  # above, a tile of the factors does not fit into registers


def grouped_lowrank(
    x: Tensor, a: Tensor, b: Tensor, scales: Tensor, offsets: Tensor, residual: Tensor | None = None
) -> Tensor:
    """residual + s_j x_j A_j^T B_j^T, (n, d_in) -> (n, d_out), zero for the residual where None.

    A (jobs, r, d_in), B (jobs, d_out, r), scales (jobs,), residual (n, d_out). `offsets` (jobs + 1,), int64 and on the
    device of x, are the first row of each job and the end of the last one. Jobs of lower rank fill up with zeros; rows
    of no job get the residual. No gradient for the scales.
    """
    _check(x, a, b, scales, offsets, residual)
    if not prefers_kernel(NAME, x.numel(), x, a, b, residual):
        return reference.grouped_lowrank(x, a, b, scales.detach(), offsets, residual)
    scaled = (scales.detach()[:, None, None] * b).mT
    y: Tensor = _expand_op(_shrink_op(x, a, offsets), scaled, offsets, residual)
    return y


@triton_op("peft_atlas::grouped_shrink", mutates_args=())
def _shrink_op(x: Tensor, factors: Tensor, offsets: Tensor) -> Tensor:
    if _fits(x, factors):
        from . import triton

        return triton.shrink(x, factors, offsets)
    return reference.shrink(x, factors, offsets)


@triton_op("peft_atlas::grouped_expand", mutates_args=())
def _expand_op(hidden: Tensor, factors: Tensor, offsets: Tensor, residual: Tensor | None) -> Tensor:
    if _fits(hidden, factors):
        from . import triton

        return triton.expand(hidden, factors, offsets, residual)
    return reference.expand(hidden, factors, offsets, residual).contiguous()


@triton_op("peft_atlas::grouped_outer", mutates_args=())
def _outer_op(hidden: Tensor, wide: Tensor, offsets: Tensor) -> Tensor:
    if hidden.shape[1] <= MAX_RANK and len(offsets) > 1 and runs_triton(wide, hidden):
        from . import triton

        return triton.outer(hidden, wide, offsets)
    return reference.outer(hidden, wide, offsets).contiguous()


def _fits(rows: Tensor, factors: Tensor) -> bool:
    """Whether the kernels can run: Triton can, and the rank's tile fits."""
    return factors.shape[1] <= MAX_RANK and runs_triton(rows, factors)


def _check(x: Tensor, a: Tensor, b: Tensor, scales: Tensor, offsets: Tensor, residual: Tensor | None) -> None:
    check_alike(NAME, x=x, a=a, b=b, scales=scales, residual=residual)
    if offsets.dtype != torch.int64 or offsets.device != x.device:
        raise TypeError(f"{NAME}: offsets are int64 on {x.device}, not {offsets.dtype} on {offsets.device}")
    jobs, rank, d_in = a.shape
    check_shape(NAME, "x", x, (len(x), d_in))
    check_shape(NAME, "b", b, (jobs, b.shape[1], rank))
    check_shape(NAME, "scales", scales, (jobs,))
    check_shape(NAME, "offsets", offsets, (jobs + 1,))
    check_shape(NAME, "residual", residual, (len(x), b.shape[1]))


def _shrink_setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _shrink_backward(ctx: Any, d_hidden: Tensor) -> tuple[Tensor | None, ...]:
    x, factors, offsets = ctx.saved_tensors
    dx = _expand_op(d_hidden, factors, offsets, None) if ctx.needs_input_grad[0] else None
    return dx, _outer_op(d_hidden, x, offsets), None


def _expand_setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    hidden, factors, offsets, residual = inputs
    ctx.has_residual = residual is not None
    ctx.save_for_backward(hidden, factors, offsets)


def _expand_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    hidden, factors, offsets = ctx.saved_tensors
    d_hidden, d_factors = _shrink_op(dy, factors, offsets), _outer_op(hidden, dy, offsets)
    return d_hidden, d_factors, None, dy if ctx.has_residual else None


_shrink_op.register_autograd(_shrink_backward, setup_context=_shrink_setup)
_expand_op.register_autograd(_expand_backward, setup_context=_expand_setup)
