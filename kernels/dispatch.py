"""Kernel or plain torch: measured thresholds decide, and where nothing was measured it is plain torch.

`thresholds.json` is written by `bench kernels report --accept` from measured rows, never by hand. An entry says from
how much work on (a number that each op defines) a kernel was no more than 3% slower than what it would replace, and at
every larger shape that was measured too: plain torch ("algebra"), or, inside a compiled model, what the compiler makes
of plain torch ("compile"). So results never depend on a GPU, only times do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_forced: bool | None = None


@contextmanager
def forced(kernels: bool | None) -> Iterator[None]:
    """Always (True) or never (False) use the ops of this folder, whatever was measured; for tests and measurements.

    Where Triton cannot run, an op computes what plain torch does, with its own backward pass.
    """
    global _forced
    before, _forced = _forced, kernels
    try:
        yield
    finally:
        _forced = before


def prefers_kernel(kernel: str, work: int, x: Tensor, *others: Tensor | None, dtype: torch.dtype | None = None) -> bool:
    """Whether to use a kernel: asked for, or measured to be no slower on this GPU for tensors like `x` (or `dtype`).

    `kernel` is a case's name: an op, with what changes its time other than its work.
    """
    if _forced is not None:
        return _forced
    if not x.is_cuda:
        return False
    from .thresholds import least_work

    trains = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *others))
    fallback = "compile" if torch.compiler.is_compiling() else "algebra"
    mode = "both" if trains else "forward"
    return work >= least_work(kernel, x.device.index or 0, str(dtype or x.dtype).removeprefix("torch."), mode, fallback)
