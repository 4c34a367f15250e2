"""Shapes of `grouped_lowrank`: jobs of equal and of unequal popularity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..case import Case, Draw, both, size_in_bytes
from . import reference
from .apply import NAME, grouped_lowrank

POPULARITY = ("identical", "uniform", "zipf", "skewed")
LARGE = {"rows": 8192, "in": 4096, "out": 4096, "rank": 16, "jobs": 16}
SHAPES = {
    "S": {"rows": 12608, "in": 768, "out": 768, "rank": 16, "jobs": 16},
    "M": {"rows": 8192, "in": 2048, "out": 2048, "rank": 16, "jobs": 16},
    "L": LARGE,
    "L-uniform": {**LARGE, "popularity": 1},
    "L-zipf": {**LARGE, "popularity": 2},
    "L-skewed": {**LARGE, "popularity": 3},
}
EDGES = (
    {"rows": 2, "in": 3, "out": 2, "rank": 1, "jobs": 1},
    {"rows": 40, "in": 20, "out": 9, "rank": 3, "jobs": 4, "popularity": 3, "residual": 1},
    {"rows": 100, "in": 140, "out": 33, "rank": 16, "jobs": 3, "popularity": 2, "outside": 5},
    {"rows": 70, "in": 17, "out": 130, "rank": 33, "jobs": 2, "popularity": 1, "residual": 1},
)


def make(size: Mapping[str, int], dtype: torch.dtype, device: str) -> Case:
    """`popularity` is a position in POPULARITY; the last `outside` rows belong to no job."""
    draw = Draw(dtype, device)
    rows, d_in, d_out, rank, jobs = (size[name] for name in ("rows", "in", "out", "rank", "jobs"))
    x, a = draw(rows, d_in), draw(jobs, rank, d_in, scale=d_in**-0.5)
    lengths = _lengths(rows - size.get("outside", 0), jobs, POPULARITY[size.get("popularity", 0)])
    inputs = {"x": x, "a": a, "b": draw(jobs, d_out, rank), "scales": draw(jobs, trains=False)}
    inputs["offsets"] = torch.tensor([0, *lengths]).cumsum(0).to(device)
    inputs |= {"residual": draw(rows, d_out)} if size.get("residual") else {}
    moved = size_in_bytes(*inputs.values()) + rows * d_out * x.element_size()
    products = 2 * rows * rank * (d_in + d_out)

    def loop(
        x: Tensor, a: Tensor, b: Tensor, scales: Tensor, offsets: Tensor, residual: Tensor | None = None
    ) -> Tensor:
        pieces = [
            scale * (piece @ down.t() @ up.t())
            for piece, down, up, scale in zip(x.split([*lengths, rows - sum(lengths)]), a, b, scales, strict=False)
        ]
        y = torch.cat([*pieces, x.new_zeros(rows - sum(lengths), d_out)])
        return y if residual is None else residual + y

    return Case(
        kernel=NAME,
        inputs=inputs,
        algebra=_algebra,
        fused=grouped_lowrank,
        work=x.numel(),
        bytes=both(moved, moved + size_in_bytes(x)),
        flops=both(products, 2 * products),
        plain={"eager": loop},
    )


def _algebra(
    x: Tensor, a: Tensor, b: Tensor, scales: Tensor, offsets: Tensor, residual: Tensor | None = None
) -> Tensor:
    return reference.grouped_lowrank(x, a, b, scales, offsets, residual)


def _lengths(rows: int, jobs: int, popularity: str) -> list[int]:
    """Rows of each job: alike; drawn uniformly; by Zipf's law; or nearly all in the first job and none in the last."""
    if popularity == "skewed":
        shares = torch.tensor([0.9, *[0.1 / max(jobs - 2, 1)] * (jobs - 2), 0.0][:jobs])
    elif popularity == "zipf":
        shares = 1 / torch.arange(1, jobs + 1)
    elif popularity == "uniform":
        shares = torch.rand(jobs, generator=torch.Generator().manual_seed(0)) + 0.01
    else:
        shares = torch.ones(jobs)
    ends = (shares.cumsum(0) / shares.sum() * rows).round().long()
    return torch.diff(ends, prepend=ends.new_zeros(1)).tolist()
