"""y_j = res_j + s_j x_j A_j^T B_j^T: the low-rank updates of many jobs that share one frozen matrix, in one launch.

Rows are sorted by job. Two ops, each the other's backward pass but for the sums over rows, which are a third.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.library import triton_op

from ..launch import runs_triton
from . import reference

MAX_RANK = 128  # above, a tile of the factors does not fit into registers


@triton_op("peft_atlas::grouped_shrink", mutates_args=())
def shrink_op(x: Tensor, factors: Tensor, offsets: Tensor) -> Tensor:
    if _fits(x, factors):
        from . import triton

        return triton.shrink(x, factors, offsets)
    return reference.shrink(x, factors, offsets)


@triton_op("peft_atlas::grouped_expand", mutates_args=())
def expand_op(hidden: Tensor, factors: Tensor, offsets: Tensor, residual: Tensor | None) -> Tensor:
    if _fits(hidden, factors):
        from . import triton

        return triton.expand(hidden, factors, offsets, residual)
    return reference.expand(hidden, factors, offsets, residual).contiguous()


@triton_op("peft_atlas::grouped_outer", mutates_args=())
def outer_op(hidden: Tensor, wide: Tensor, offsets: Tensor) -> Tensor:
    if hidden.shape[1] <= MAX_RANK and len(offsets) > 1 and runs_triton(wide, hidden):
        from . import triton

        return triton.outer(hidden, wide, offsets)
    return reference.outer(hidden, wide, offsets).contiguous()


def _fits(rows: Tensor, factors: Tensor) -> bool:
    """Whether the kernels can run: Triton can, and the rank's tile fits."""
    return factors.shape[1] <= MAX_RANK and runs_triton(rows, factors)


def _shrink_setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _shrink_backward(ctx: Any, d_hidden: Tensor) -> tuple[Tensor | None, ...]:
    x, factors, offsets = ctx.saved_tensors
    dx = expand_op(d_hidden, factors, offsets, None) if ctx.needs_input_grad[0] else None
    return dx, outer_op(d_hidden, x, offsets), None


def _expand_setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    hidden, factors, offsets, residual = inputs
    ctx.has_residual = residual is not None
    ctx.save_for_backward(hidden, factors, offsets)


def _expand_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    hidden, factors, offsets = ctx.saved_tensors
    d_hidden, d_factors = shrink_op(dy, factors, offsets), outer_op(hidden, dy, offsets)
    return d_hidden, d_factors, None, dy if ctx.has_residual else None


shrink_op.register_autograd(_shrink_backward, setup_context=_shrink_setup)
expand_op.register_autograd(_expand_backward, setup_context=_expand_setup)
