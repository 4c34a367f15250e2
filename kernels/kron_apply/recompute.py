"""Plain torch that keeps its inputs for the backward pass and nothing between them and the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Recomputed(torch.autograd.Function):
    """`function(*inputs)`; the backward pass computes it again and differentiates that, so gradients keep their bits.

    Worth it where what lies between is larger than the inputs and cheap: the two thin products of a Kronecker update.
    """

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        device = inputs[0].device.type
        ctx.function = function
        ctx.casts = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        inputs = [t.detach().requires_grad_(need) for t, need in zip(ctx.saved_tensors, needed, strict=True)]
        with torch.enable_grad(), torch.autocast(*ctx.casts):
            y = ctx.function(*inputs)
        gradients = iter(torch.autograd.grad(y, [t for t in inputs if t.requires_grad], dy))
        return None, *(next(gradients) if need else None for need in needed)


def recomputed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`function(*inputs)`, by `Recomputed` where gradients are wanted and no compiler makes such choices itself."""
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and any(t.requires_grad for t in inputs)):
        return function(*inputs)
    y: Tensor = Recomputed.apply(function, *inputs)
    return y
