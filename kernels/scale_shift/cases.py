"""Shapes of `scale_shift`."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..case import Case, Draw, both, size_in_bytes
from . import reference
from .apply import NAME, scale_shift

SHAPES = {
    "S": {"rows": 12608, "width": 768},
    "M": {"rows": 8192, "width": 2048},
    "L": {"rows": 8192, "width": 4096},
}
EDGES = (
    {"rows": 1, "width": 1},
    {"rows": 1, "width": 300},
    {"rows": 37, "width": 7},
    {"rows": 50, "width": 257},
    {"rows": 3, "width": 64, "shift": 0},
)


def make(size: Mapping[str, int], dtype: torch.dtype, device: str) -> Case:
    """Rows of some width; `shift` 0 leaves the shift out, as (IA)^3 does."""
    draw = Draw(dtype, device)
    x, gain = draw(size["rows"], size["width"]), draw(size["width"])
    inputs = {"x": x, "gain": gain} | ({"shift": draw(size["width"])} if size.get("shift", 1) else {})
    return Case(
        kernel=NAME,
        inputs=inputs,
        algebra=lambda x, gain, shift=None: reference.scale_shift(x, gain, shift),
        fused=scale_shift,
        work=x.numel(),
        bytes=both(2 * size_in_bytes(x), 3 * size_in_bytes(x)),
        flops=both(2 * x.numel(), 4 * x.numel()),
    )
