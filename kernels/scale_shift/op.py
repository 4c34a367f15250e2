"""y = x * gain + shift, the activation scaling of (IA)^3 and SSF.

The teaching kernel: every other op of this folder has the same five parts. `reference.py` is the equation in plain
torch, `triton.py` the kernels, this file the op that torch knows (autograd, fake tensors, one graph when compiled),
`apply.py` the function that methods call, and `cases.py` the shapes at which all of it is compared and measured.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.library import triton_op

from ..checks import check_alike, check_shape
from ..launch import runs_triton
from . import reference
from .apply import NAME


@triton_op("peft_atlas::scale_shift", mutates_args=())
def scale_shift_op(x: Tensor, gain: Tensor, shift: Tensor | None) -> Tensor:
    check_alike(NAME, x=x, gain=gain, shift=shift)
    check_shape(NAME, "gain", gain, x.shape[-1:])
    check_shape(NAME, "shift", shift, x.shape[-1:])
    if runs_triton(x):
        from . import triton

        return triton.forward(x, gain, shift)
    return reference.scale_shift(x, gain, shift).contiguous()


@triton_op("peft_atlas::scale_shift_backward", mutates_args=())
def scale_shift_backward_op(dy: Tensor, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if runs_triton(x):
        from . import triton

        return triton.backward(dy, x, gain)
    dx, gain_grad, shift_grad = reference.scale_shift_backward(dy, x, gain)
    return dx.contiguous(), gain_grad, shift_grad


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    x, gain, shift = inputs
    ctx.save_for_backward(x, gain)
    ctx.has_shift = shift is not None


def _backward(context: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    dx, gain_grad, shift_grad = scale_shift_backward_op(dy, *context.saved_tensors)
    return dx, gain_grad, shift_grad if context.has_shift else None


scale_shift_op.register_autograd(_backward, setup_context=_setup)
