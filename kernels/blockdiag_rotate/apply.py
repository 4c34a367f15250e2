"""What methods call: block-diagonal maps, by the kernel or in plain torch."""

from __future__ import annotations

from torch import Tensor

from ..dispatch import prefers_kernel
from . import reference

NAME = "blockdiag_rotate"


def variant(level: int | None) -> str:
    """The name that is measured: plain torch moves pieces together and back for a butterfly."""
    return NAME if level is None else f"{NAME}+butterfly"


def blockdiag_rotate(x: Tensor, blocks: Tensor, level: int | None = None) -> Tensor:
    """x R, of the shape of x: x (..., n * size), blocks (n, size, size).

    With a `level`, each block acts on two pieces of x, of half its size, that lie 2^level pieces apart.
    """
    if prefers_kernel(variant(level), x.numel(), x, blocks):
        from .op import blockdiag_rotate_op

        y: Tensor = blockdiag_rotate_op(x, blocks, level)
        return y
    return reference.apply(x, blocks, level)
