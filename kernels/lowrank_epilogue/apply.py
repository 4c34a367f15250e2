"""What methods call: the end of a low-rank branch, by the kernel or in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dispatch import prefers_kernel
from . import reference

NAME = "lowrank_epilogue"


def variant(gain: Tensor | None, shift: Tensor | None) -> str:
    """The name that is measured: each pass over the wide tensors that is saved is another comparison."""
    return NAME + ("" if gain is None else "+gain") + ("" if shift is None else "+shift")


def lowrank_epilogue(
    residual: Tensor,
    hidden: Tensor,
    b: Tensor,
    scale: float = 1.0,
    activation: str = "linear",
    gain: Tensor | None = None,
    shift: Tensor | None = None,
) -> Tensor:
    """gain * (residual + scale * phi(hidden) B^T) + shift, of the residual's shape.

    residual (..., d_out), hidden (..., r), B (d_out, r); gain and shift (d_out,), of any dtype. `activation` is a key
    of `reference.ACTIVATIONS`.
    """
    flat, thin = residual.flatten(0, -2), hidden.flatten(0, -2)
    if not prefers_kernel(variant(gain, shift), residual.numel(), residual, hidden, b, gain, shift):
        return reference.lowrank_epilogue(flat, thin, b, scale, activation, gain, shift).view_as(residual)
    from .op import lowrank_epilogue_op

    alike = thin.dtype == b.dtype == residual.dtype
    if not alike and torch.is_autocast_enabled(residual.device.type):  # which casts for plain torch, not for an op
        thin, b = thin.to(residual.dtype), b.to(residual.dtype)
    y: Tensor = lowrank_epilogue_op(flat, thin, b, scale, activation, gain, shift)
    return y.view_as(residual)
