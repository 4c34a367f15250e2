"""y = x R with block-diagonal R, its blocks on neighbouring entries (OFT) or on pieces some way apart (BOFT)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.library import triton_op

from ..checks import check_alike
from ..launch import runs_triton
from . import reference
from .apply import NAME

MAX_SIZE = 128  # above, a block does not fit into registers


@triton_op("peft_atlas::blockdiag_rotate", mutates_args=())
def blockdiag_rotate_op(x: Tensor, blocks: Tensor, level: int | None) -> Tensor:
    _check(x, blocks, level)
    if _fits(x, blocks):
        from . import triton

        return triton.forward(x, blocks, level)
    return reference.apply(x, blocks, level).contiguous()


@triton_op("peft_atlas::blockdiag_rotate_backward", mutates_args=())
def blockdiag_rotate_backward_op(dy: Tensor, x: Tensor, blocks: Tensor, level: int | None) -> tuple[Tensor, Tensor]:
    if _fits(x, blocks):
        from . import triton

        return triton.backward(dy, x, blocks, level)
    dx, d_blocks = reference.apply_backward(dy, x, blocks, level)
    return dx.contiguous(), d_blocks.contiguous()


def _fits(x: Tensor, blocks: Tensor) -> bool:
    """Whether the kernels can run: Triton can, and a block fits."""
    return blocks.shape[-1] <= MAX_SIZE and runs_triton(x, blocks)


def _check(x: Tensor, blocks: Tensor, level: int | None) -> None:
    check_alike(NAME, x=x, blocks=blocks)
    if blocks.ndim != 3 or blocks.shape[1] != blocks.shape[2]:
        raise ValueError(f"{NAME}: blocks have the shape {tuple(blocks.shape)}, and must have (n, size, size)")
    if x.shape[-1] != blocks.shape[0] * blocks.shape[1]:
        raise ValueError(
            f"{NAME}: {blocks.shape[0]} blocks of {blocks.shape[1]} do not make up the {x.shape[-1]} entries of x"
        )
    if level is not None and (blocks.shape[1] % 2 or level < 0 or blocks.shape[0] % 2**level):
        raise ValueError(
            f"{NAME}: {blocks.shape[0]} blocks of {blocks.shape[1]} have no pieces that lie 2^{level} pieces apart"
        )


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, int | None], output: Tensor) -> None:
    x, blocks, ctx.level = inputs
    ctx.shape = blocks.shape
    ctx.save_for_backward(x, blocks if ctx.needs_input_grad[0] else None)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, blocks = ctx.saved_tensors
    if blocks is None:  # x is a frozen weight, and its gradient is thrown away
        return None, blockdiag_rotate_backward_op(dy, x, x.new_zeros(ctx.shape), ctx.level)[1], None
    return *blockdiag_rotate_backward_op(dy, x, blocks, ctx.level), None


blockdiag_rotate_op.register_autograd(_backward, setup_context=_setup)
