"""What packed training calls: many jobs' low-rank updates, by the kernels or in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_alike, check_shape
from ..dispatch import prefers_kernel
from . import reference

NAME = "grouped_lowrank"


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
    from .op import expand_op, shrink_op

    scaled = (scales.detach()[:, None, None] * b).mT
    y: Tensor = expand_op(shrink_op(x, a, offsets), scaled, offsets, residual)
    return y


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
