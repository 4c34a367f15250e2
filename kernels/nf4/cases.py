"""Shapes of `nf4`: restoring a matrix, or (`inputs`) its product with a few rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..case import Case, Draw, both, size_in_bytes
from . import reference
from .apply import NAME, nf4_dequantise, nf4_linear, variant

SHAPES = {
    "S": {"out": 768, "in": 768},
    "M": {"out": 2048, "in": 2048},
    "L": {"out": 4096, "in": 4096},
    "L-1": {"out": 4096, "in": 4096, "inputs": 1},
    "L-16": {"out": 4096, "in": 4096, "inputs": 16},
    "L-64": {"out": 4096, "in": 4096, "inputs": 64},
}
EDGES = (
    {"out": 2, "in": 64, "inputs": 1},
    {"out": 1, "in": 1},
    {"out": 35, "in": 33},
    {"out": 128, "in": 192},
    {"out": 37, "in": 128, "inputs": 5},
    {"out": 40, "in": 64, "inputs": 20},
)


def make(size: Mapping[str, int], dtype: torch.dtype, device: str) -> Case:
    """A matrix of normal numbers, stored; the scales' mean stays in fp32 whatever the dtype."""
    draw = Draw(torch.float32, device)
    shape = size["out"], size["in"]
    stored = dict(
        zip(("codes", "scales", "scale_scales", "mean"), reference.quantise(draw(*shape, trains=False)), strict=True)
    )
    numel = shape[0] * shape[1]
    packed = size_in_bytes(*stored.values())

    def restored(codes: Tensor, scales: Tensor, scale_scales: Tensor, mean: Tensor) -> Tensor:
        weight = reference.dequantise(codes, scales, scale_scales, mean, *shape)
        return weight if mean.dtype == torch.float64 else weight.to(dtype)

    if "inputs" not in size:
        return Case(
            kernel=NAME,
            inputs=stored,
            algebra=restored,
            fused=lambda **stored: nf4_dequantise(**stored, shape=shape, dtype=_output_dtype(stored["mean"], dtype)),
            work=numel,
            bytes=both(packed + numel * torch.finfo(dtype).bits // 8, 0),
            flops=both(2 * numel, 0),
        )
    draw.dtype = dtype
    x = draw(size["inputs"], size["in"])
    products = 2 * size["inputs"] * numel
    return Case(
        kernel=variant(size["inputs"]),
        inputs={"x": x, **stored},
        algebra=lambda x, **stored: F.linear(x, restored(**stored)),
        fused=lambda x, **stored: nf4_linear(x, **stored, shape=shape),
        work=numel,
        bytes=both(packed + size_in_bytes(x), packed + size_in_bytes(x)),
        flops=both(products, products),
    )


def _output_dtype(mean: Tensor, dtype: torch.dtype) -> torch.dtype:
    """In fp64, in which truth is computed, nothing is rounded."""
    return torch.float64 if mean.dtype == torch.float64 else dtype
