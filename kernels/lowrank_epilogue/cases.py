"""Shapes of `lowrank_epilogue`: LoRA (no gain), an adapter (gelu, shift) and DoRA's composition (gain and shift)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..case import Case, Draw, both, size_in_bytes
from . import reference
from .apply import lowrank_epilogue, variant

SCALE = 0.5
LARGE = {"rows": 8192, "out": 4096, "rank": 16}
SHAPES = {
    "S": {"rows": 12608, "out": 768, "rank": 16},
    "M": {"rows": 8192, "out": 2048, "rank": 16},
    "L": LARGE,
    "S-adapter": {"rows": 12608, "out": 768, "rank": 64, "activation": 2, "shift": 1},
    "L-adapter": {**LARGE, "rank": 64, "activation": 2, "shift": 1},
    "S-dora": {"rows": 12608, "out": 768, "rank": 16, "gain": 1, "shift": 1},
    "L-dora": {**LARGE, "gain": 1, "shift": 1},
}
EDGES = (
    {"rows": 1, "out": 1, "rank": 1},
    {"rows": 1, "out": 70, "rank": 3},
    {"rows": 40, "out": 130, "rank": 8, "activation": 1, "shift": 1},
    {"rows": 33, "out": 150, "rank": 16, "activation": 2, "gain": 1},
    {"rows": 70, "out": 33, "rank": 33, "activation": 3, "gain": 1, "shift": 1},
    {"rows": 5, "out": 17, "rank": 8, "activation": 4, "shift": 1},
)


def make(size: Mapping[str, int], dtype: torch.dtype, device: str) -> Case:
    """`activation` is a position in `ACTIVATIONS`; `gain` and `shift` say whether there is one."""
    draw = Draw(dtype, device)
    residual, hidden = draw(size["rows"], size["out"]), draw(size["rows"], size["rank"])
    inputs = {"residual": residual, "hidden": hidden, "b": draw(size["out"], size["rank"])}
    inputs |= {name: draw(size["out"]) for name in ("gain", "shift") if size.get(name)}
    activation = list(reference.ACTIVATIONS)[size.get("activation", 0)]
    wide, has_gain = size_in_bytes(residual), bool(size.get("gain"))

    def algebra(
        residual: Tensor, hidden: Tensor, b: Tensor, gain: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        return reference.lowrank_epilogue(residual, hidden, b, SCALE, activation, gain, shift)

    def eager(
        residual: Tensor, hidden: Tensor, b: Tensor, gain: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        total = residual + SCALE * (reference.ACTIVATIONS[activation](hidden) @ b.t())
        total = total if gain is None else total * gain
        return total if shift is None else total + shift

    def fused(
        residual: Tensor, hidden: Tensor, b: Tensor, gain: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        return lowrank_epilogue(residual, hidden, b, SCALE, activation, gain, shift)

    products = 2 * residual.numel() * size["rank"]
    thin = size_in_bytes(hidden, inputs["b"])
    return Case(
        kernel=variant(inputs.get("gain"), inputs.get("shift")),
        inputs=inputs,
        algebra=algebra,
        fused=fused,
        work=residual.numel(),
        bytes=both(2 * wide + thin, (3 if has_gain else 1) * wide + 2 * thin),
        flops=both(products, (3 if has_gain else 2) * products),
        plain={"eager": eager},
    )
