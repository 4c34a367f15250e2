"""y = res + s * (sum_i A_i (x) B_i) x, a Kronecker update of a layer's output (KronA, LoKr, Compacter)."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.library import triton_op

from ..checks import check_alike, check_shape
from ..launch import runs_triton
from . import reference
from .apply import NAME

MAX_SIZE = 64  # of a factor's sides: above, a row's tiles do not fit into registers


@triton_op("peft_atlas::kron_apply", mutates_args=())
def kron_apply_op(x: Tensor, a: Tensor, b: Tensor, scale: float, residual: Tensor | None) -> Tensor:
    _check(x, a, b, residual)
    if _fits(x, a, b):
        from . import triton

        return triton.apply(x, a, b, scale, residual)
    product = reference.kronecker_linear(x, a, b) * scale
    return (product if residual is None else residual + product).contiguous()


@triton_op("peft_atlas::kron_apply_factors", mutates_args=())
def factor_gradients_op(dy: Tensor, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of A and B, for a scale of one."""
    if _fits(x, a, b):
        from . import triton

        return triton.factor_gradients(dy, x, a, b)
    d_a, d_b = reference.factor_gradients(dy, x, a, b)
    return d_a.contiguous(), d_b.contiguous()


def _fits(x: Tensor, a: Tensor, b: Tensor) -> bool:
    """Whether the kernels can run: Triton can, and the factors are small, as those of a balanced product are."""
    return max(*a.shape[1:], *b.shape[1:]) <= MAX_SIZE and runs_triton(x, a, b)


def _check(x: Tensor, a: Tensor, b: Tensor, residual: Tensor | None) -> None:
    check_alike(NAME, x=x, a=a, b=b, residual=residual)
    if a.ndim != 3 or b.ndim != 3 or len(a) != len(b):
        raise ValueError(f"{NAME}: a {tuple(a.shape)} and b {tuple(b.shape)} are not t matrices each")
    check_shape(NAME, "x", x, (len(x), a.shape[2] * b.shape[2]))
    check_shape(NAME, "residual", residual, (len(x), a.shape[1] * b.shape[1]))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, a, b, ctx.scale, residual = inputs
    ctx.has_residual = residual is not None
    ctx.save_for_backward(x, a, b)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, a, b = ctx.saved_tensors
    dx = kron_apply_op(dy, a.mT, b.mT, ctx.scale, None) if ctx.needs_input_grad[0] else None
    d_a, d_b = factor_gradients_op(dy, x, a, b)
    return dx, ctx.scale * d_a, ctx.scale * d_b, None, dy if ctx.has_residual else None


kron_apply_op.register_autograd(_backward, setup_context=_setup)
