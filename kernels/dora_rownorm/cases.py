"""Shapes of `dora_rownorm`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..case import Case, Draw, Function, both, size_in_bytes
from . import reference
from .apply import dora_rownorm, variant

SCALE = 0.5
SHAPES = {
    "S": {"out": 768, "in": 768, "rank": 16},
    "M": {"out": 2048, "in": 2048, "rank": 16},
    "L": {"out": 4096, "in": 4096, "rank": 16},
    "L-fp32": {"out": 4096, "in": 4096, "rank": 16, "fp32_adapter": 1},
}
EDGES = (
    {"out": 1, "in": 1, "rank": 1},
    {"out": 1, "in": 200, "rank": 3},
    {"out": 50, "in": 130, "rank": 8},
    {"out": 33, "in": 129, "rank": 16},
    {"out": 17, "in": 64, "rank": 33},
    {"out": 40, "in": 140, "rank": 8, "fp32_adapter": 1},
)


def make(size: Mapping[str, int], dtype: torch.dtype, device: str) -> Case:
    """A frozen matrix and the factors of its update, in its dtype or (`fp32_adapter`) in fp32."""
    draw = Draw(dtype, device)
    weight = draw(size["out"], size["in"], scale=size["in"] ** -0.5, trains=False)
    if size.get("fp32_adapter"):
        draw.dtype = torch.float32
    a, b = draw(size["rank"], size["in"], scale=size["in"] ** -0.5), draw(size["out"], size["rank"])
    squares = reference.row_squares(weight.double())
    plain: dict[str, Function] = {"eager": _dense}
    if importlib.util.find_spec("peft") is not None:
        plain["hf-peft"] = _hf_peft
    moved = size_in_bytes(weight, a, b)
    products = 2 * weight.numel() * (size["rank"] + 1)
    return Case(
        kernel=variant(weight, a),
        inputs={"weight": weight, "a": a, "b": b},
        algebra=lambda weight, a, b: reference.row_norms(weight, a, b, SCALE, squares),
        fused=lambda weight, a, b: dora_rownorm(weight, a, b, SCALE),
        work=weight.numel(),
        bytes=both(moved, moved + size_in_bytes(a, b)),
        flops=both(products, 2 * products),
        plain=plain,
    )


def _dense(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vector_norm(weight + SCALE * (b @ a).to(weight.dtype), dim=1)


def _hf_peft(weight: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Its own path: B A by way of an identity matrix, then the sum, then the norm."""
    from peft.tuners.lora.dora import DoraLinearLayer

    layer = DoraLinearLayer(fan_in_fan_out=False)
    update = layer.get_lora_weight(_linear(a), _linear(b))
    norms: Tensor = layer.get_weight_norm(weight, update.to(weight.dtype), SCALE)
    return norms


def _linear(weight: Tensor) -> nn.Linear:
    """A module with this very tensor as its weight, so that gradients reach it."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    del linear.weight
    linear.weight = weight
    return linear
