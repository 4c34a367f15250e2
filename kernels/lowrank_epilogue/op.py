"""y = g * (res + s * phi(h) B^T) + b, the end of a low-rank branch: LoRA, DoRA's composition, bottleneck adapters.

h = x A^T is a thin product that cuBLAS does best; VeRA's inner scale belongs into A.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.library import triton_op

from ..checks import check_alike, check_floating, check_shape
from ..launch import runs_triton
from . import reference
from .apply import NAME

MAX_RANK = 256  # above, a tile of B does not fit into registers


@triton_op("peft_atlas::lowrank_epilogue", mutates_args=())
def lowrank_epilogue_op(
    residual: Tensor,
    hidden: Tensor,
    b: Tensor,
    scale: float,
    activation: str,
    gain: Tensor | None,
    shift: Tensor | None,
) -> Tensor:
    _check(residual, hidden, b, activation, gain, shift)
    if _fits(residual, hidden, b):
        from . import triton

        return triton.forward(residual, hidden, b, scale, activation, gain, shift)
    y = reference.lowrank_epilogue(residual, hidden, b, scale, activation, gain, shift)
    return y.to(residual.dtype).contiguous()


@triton_op("peft_atlas::lowrank_epilogue_backward", mutates_args=())
def lowrank_epilogue_backward_op(
    dy: Tensor, residual: Tensor, hidden: Tensor, b: Tensor, scale: float, activation: str, gain: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the residual and the gain (empty without a gain), of phi(hidden), of B and of the shift."""
    if _fits(dy, hidden, b):
        from . import triton

        return triton.backward(dy, residual, hidden, b, scale, activation, gain)
    d_residual = dy.new_empty(0) if gain is None else (dy * gain).to(dy.dtype).contiguous()
    d_inner, d_b, d_gain, d_shift = reference.lowrank_epilogue_backward(
        dy, residual, hidden, b, scale, activation, gain
    )
    return d_residual, d_gain, d_inner.to(dy.dtype), d_b.to(dy.dtype), d_shift


def _fits(wide: Tensor, hidden: Tensor, b: Tensor) -> bool:
    """Whether the kernels can run: Triton can, and the rank's tile fits."""
    if hidden.shape[1] > MAX_RANK:
        return False
    return runs_triton(wide, hidden, b)


def _check(
    residual: Tensor, hidden: Tensor, b: Tensor, activation: str, gain: Tensor | None, shift: Tensor | None
) -> None:
    if activation not in reference.ACTIVATIONS:
        raise ValueError(f"{NAME}: no activation {activation!r}; there are {', '.join(reference.ACTIVATIONS)}")
    check_alike(NAME, residual=residual, hidden=hidden, b=b)
    check_floating(NAME, residual=residual, gain=gain, shift=shift)
    (n, d_out), rank = residual.shape, hidden.shape[1]
    check_shape(NAME, "hidden", hidden, (n, rank))
    check_shape(NAME, "b", b, (d_out, rank))
    check_shape(NAME, "gain", gain, (d_out,))
    check_shape(NAME, "shift", shift, (d_out,))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    residual, hidden, b, ctx.scale, ctx.activation, gain, shift = inputs
    ctx.shift_dtype = None if shift is None else shift.dtype
    # a slice of a fused matrix's output would keep all of that output alive: a copy is less
    ctx.save_for_backward(hidden, b, *(() if gain is None else (residual.contiguous(), gain)))


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    hidden, b, *more = ctx.saved_tensors
    residual, gain = more if more else (dy, None)
    d_residual, d_gain, d_inner, d_b, d_shift = lowrank_epilogue_backward_op(
        dy, residual, hidden, b, ctx.scale, ctx.activation, gain
    )
    return (
        dy if gain is None else d_residual,
        reference.activation_gradient(d_inner, hidden, ctx.activation),
        d_b,
        *(None, None),
        None if gain is None else d_gain,
        None if ctx.shift_dtype is None else d_shift.to(ctx.shift_dtype),
    )


lowrank_epilogue_op.register_autograd(_backward, setup_context=_setup)
