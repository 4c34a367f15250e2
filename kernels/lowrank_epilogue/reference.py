"""The end of a low-rank branch in plain torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda hidden: hidden,
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": F.tanh,
}


def lowrank_epilogue(
    residual: Tensor,
    hidden: Tensor,
    b: Tensor,
    scale: float,
    activation: str,
    gain: Tensor | None,
    shift: Tensor | None,
) -> Tensor:
    """gain * (residual + scale * phi(hidden) B^T) + shift; residual (n, d_out), hidden (n, r), B (d_out, r)."""
    total = torch.addmm(residual, ACTIVATIONS[activation](hidden), b.t(), alpha=scale)
    if gain is None:
        return total if shift is None else total + shift
    return total * gain if shift is None else torch.addcmul(shift, total, gain)


def lowrank_epilogue_backward(
    dy: Tensor, residual: Tensor, hidden: Tensor, b: Tensor, scale: float, activation: str, gain: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of phi(hidden), B, gain (empty without one) and shift; that of the residual is dy * gain."""
    inner = ACTIVATIONS[activation](hidden)
    d_total = dy if gain is None else dy * gain
    gain_grad = dy.new_empty(0)
    if gain is not None:
        gain_grad = (dy * torch.addmm(residual, inner, b.t(), alpha=scale)).sum(0).to(gain.dtype)
    d_total = d_total.to(b.dtype)
    return scale * d_total @ b, scale * d_total.t() @ inner, gain_grad, dy.sum(0)


def activation_gradient(d_inner: Tensor, hidden: Tensor, activation: str) -> Tensor:
    """The gradient of `hidden`, (n, r), from that of phi(hidden)."""
    if activation == "relu":
        return torch.ops.aten.threshold_backward(d_inner, hidden, 0)
    if activation == "gelu":
        return torch.ops.aten.gelu_backward(d_inner, hidden)
    if activation == "silu":
        return torch.ops.aten.silu_backward(d_inner, hidden)
    if activation == "tanh":
        return torch.ops.aten.tanh_backward(d_inner, hidden.tanh())
    return d_inner
