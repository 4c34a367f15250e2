"""Shapes of `kron_apply`: balanced factors, as KronA and LoKr choose them, and Compacter's sums of terms."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..case import Case, Draw, both, size_in_bytes
from . import reference
from .apply import NAME, kron_apply

SCALE = 0.5
SHAPES = {
    "S": {"rows": 12608, "terms": 1, "p": 24, "q": 24, "r": 32, "s": 32},
    "M": {"rows": 8192, "terms": 1, "p": 32, "q": 32, "r": 64, "s": 64},
    "L": {"rows": 8192, "terms": 1, "p": 64, "q": 64, "r": 64, "s": 64},
}
EDGES = (
    {"rows": 1, "terms": 1, "p": 1, "q": 1, "r": 1, "s": 1},
    {"rows": 1, "terms": 3, "p": 2, "q": 5, "r": 3, "s": 4},
    {"rows": 7, "terms": 1, "p": 17, "q": 3, "r": 5, "s": 33, "residual": 1},
    {"rows": 5, "terms": 2, "p": 16, "q": 16, "r": 16, "s": 16, "residual": 1},
)


def make(size: Mapping[str, int], dtype: torch.dtype, device: str) -> Case:
    """`residual` says whether the product is added to something."""
    draw = Draw(dtype, device)
    rows, terms, p, q, r, s = (size[name] for name in ("rows", "terms", "p", "q", "r", "s"))
    x, a, b = draw(rows, q * s), draw(terms, p, q, scale=q**-0.5), draw(terms, r, s, scale=s**-0.5)
    inputs = {"x": x, "a": a, "b": b} | ({"residual": draw(rows, p * r)} if size.get("residual") else {})
    moved = size_in_bytes(*inputs.values()) + rows * p * r * x.element_size()
    products = 2 * rows * terms * (q * s * r + p * q * r)
    return Case(
        kernel=NAME,
        inputs=inputs,
        algebra=_algebra,
        fused=_fused,
        work=x.numel(),
        bytes=both(moved, moved + size_in_bytes(x)),
        flops=both(products, 3 * products),
        plain={"eager": _dense},
    )


def _algebra(x: Tensor, a: Tensor, b: Tensor, residual: Tensor | None = None) -> Tensor:
    product = reference.kronecker_linear(x, a, b) * SCALE
    return product if residual is None else residual + product


def _fused(x: Tensor, a: Tensor, b: Tensor, residual: Tensor | None = None) -> Tensor:
    return kron_apply(x, a, b, scale=SCALE, residual=residual)


def _dense(x: Tensor, a: Tensor, b: Tensor, residual: Tensor | None = None) -> Tensor:
    product = x @ (SCALE * reference.kronecker_matrix(a, b)).t()
    return product if residual is None else residual + product
