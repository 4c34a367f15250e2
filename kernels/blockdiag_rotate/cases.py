"""Shapes of `blockdiag_rotate`: OFT's blocks, and (`level`) BOFT's butterfly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..case import Case, Draw, both, size_in_bytes
from . import reference
from .apply import blockdiag_rotate, variant

SHAPES = {
    "S": {"rows": 12608, "blocks": 24, "size": 32},
    "M": {"rows": 8192, "blocks": 64, "size": 32},
    "L": {"rows": 8192, "blocks": 128, "size": 32},
    "L-butterfly": {"rows": 8192, "blocks": 512, "size": 8, "level": 2},
}
EDGES = (
    {"rows": 1, "blocks": 1, "size": 1},
    {"rows": 1, "blocks": 3, "size": 5},
    {"rows": 70, "blocks": 2, "size": 33},
    {"rows": 65, "blocks": 3, "size": 16},
    {"rows": 9, "blocks": 4, "size": 4, "level": 0},
    {"rows": 67, "blocks": 8, "size": 6, "level": 2},
)


def make(size: Mapping[str, int], dtype: torch.dtype, device: str) -> Case:
    """Blocks of normal numbers: nothing here depends on their being orthogonal."""
    draw, level = Draw(dtype, device), size.get("level")
    x = draw(size["rows"], size["blocks"] * size["size"])
    blocks = draw(size["blocks"], size["size"], size["size"], scale=size["size"] ** -0.5)
    products = 2 * x.numel() * size["size"]
    return Case(
        kernel=variant(level),
        inputs={"x": x, "blocks": blocks},
        algebra=lambda x, blocks: reference.apply(x, blocks, level),
        fused=lambda x, blocks: blockdiag_rotate(x, blocks, level),
        work=x.numel(),
        bytes=both(2 * size_in_bytes(x) + size_in_bytes(blocks), 3 * size_in_bytes(x) + 2 * size_in_bytes(blocks)),
        flops=both(products, 2 * products),
        plain={"eager": lambda x, blocks: _spread_out(x, blocks, level)},
    )


def _spread_out(x: Tensor, blocks: Tensor, level: int | None) -> Tensor:
    """With the whole matrix: what the equation says."""
    identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return x @ reference.apply(identity, blocks, level)
