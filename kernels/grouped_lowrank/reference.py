"""Low-rank updates of many jobs in plain torch, without a loop and without asking the GPU how long the segments are.

The jobs' factors stand side by side, every row meets all of them, and a mask keeps what belongs to its own job. That
costs more operations and no more launches than one job. `offsets` (jobs + 1,) are the first rows of the segments and
the end of the last one; rows outside belong to no job and are updated by nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shrink(x: Tensor, factors: Tensor, offsets: Tensor) -> Tensor:
    """x_j F_j^T for each job's rows; x (n, k), factors (jobs, r, k) -> (n, r)."""
    every = (x @ factors.flatten(0, 1).t()).unflatten(1, factors.shape[:2])
    return torch.where(_own(offsets, len(x)), every, 0).sum(1)


def expand(hidden: Tensor, factors: Tensor, offsets: Tensor, residual: Tensor | None) -> Tensor:
    """residual + h_j F_j for each job's rows; hidden (n, r), factors (jobs, r, c) -> (n, c)."""
    placed = torch.where(_own(offsets, len(hidden)), hidden[:, None], 0).flatten(1)
    product = placed @ factors.flatten(0, 1)
    return product if residual is None else residual + product


def outer(hidden: Tensor, wide: Tensor, offsets: Tensor) -> Tensor:
    """h_j^T w_j for each job; hidden (n, r), wide (n, k) -> (jobs, r, k)."""
    placed = torch.where(_own(offsets, len(hidden)), hidden[:, None], 0)
    return (placed.flatten(1).t() @ wide).unflatten(0, placed.shape[1:])


def grouped_lowrank(
    x: Tensor, a: Tensor, b: Tensor, scales: Tensor, offsets: Tensor, residual: Tensor | None
) -> Tensor:
    """residual + s_j x_j A_j^T B_j^T; A (jobs, r, d_in), B (jobs, d_out, r), scales (jobs,)."""
    return expand(shrink(x, a, offsets), (scales[:, None, None] * b).mT, offsets, residual)


def _own(offsets: Tensor, rows: int) -> Tensor:
    """(rows, jobs, 1): whether the row is the job's."""
    row = torch.arange(rows, device=offsets.device)[:, None]
    return ((row >= offsets[:-1]) & (row < offsets[1:]))[..., None]
