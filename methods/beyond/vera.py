"""VeRA: dW = diag(b) B diag(d) A, with one random pair A, B for all matrices (Kopiczko et al. 2023, arXiv 2310.11454).

Only the vectors d (r values, constant at the start) and b (zero at the start) train (equation 2). A and B are drawn
once from `projection_seed`, uniform as He et al. (section 3.2), in the largest shape that is needed, and matrices of
other shapes use their first columns and rows, as HF PEFT does: the paper's models have one shape only. They are not
shipped, since the seed draws them again.

Trainable parameters: r + d_out for each matrix.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...bench.anatomy import Anatomy
from ...bench.anatomy.linear import LinearPlace
from ..contract import TargetedConfig
from ..parts.targeted import TargetedMethod


class VeRAConfig(TargetedConfig):
    """`d_initial` is the start of d."""

    size: ClassVar[str | None] = "r"

    r: int = Field(gt=0, description="rank of the shared random matrices")
    d_initial: float = Field(description="start of d")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the input of A")
    projection_seed: int = Field(0, ge=0, description="seed of the random matrices")


class Projections(nn.Module):
    """The frozen A (r, d_in) and B (d_out, r) of all matrices."""

    a: Tensor
    b: Tensor

    def __init__(self, r: int, d_in: int, d_out: int, seed: int, device: torch.device) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)  # on the CPU, whose draws are the same on every machine
        for name, shape in {"a": (r, d_in), "b": (d_out, r)}.items():
            drawn = torch.empty(shape, device="meta" if device.type == "meta" else "cpu")
            if not drawn.is_meta:
                bound = math.sqrt(6 / shape[1])
                drawn.uniform_(-bound, bound, generator=generator)
            self.register_buffer(name, drawn.to(device), persistent=False)


class ScaledProjection(nn.Module):
    """x -> b * B (d * A x)."""

    def __init__(self, like: Tensor, shared: Projections, config: VeRAConfig) -> None:
        super().__init__()
        self.d_out, self.d_in = like.shape
        self.shared, self.dropout = shared, config.dropout
        self.d = nn.Parameter(torch.full((len(shared.a),), config.d_initial, device=like.device))
        self.b = nn.Parameter(torch.zeros(self.d_out, device=like.device))

    def forward(self, x: Tensor) -> Tensor:
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        return self.b * F.linear(self.d * F.linear(x, self.shared.a[:, : self.d_in]), self.shared.b[: self.d_out])

    def weight_delta(self) -> Tensor:
        """(d_out, d_in)."""
        return (self.b[:, None] * self.shared.b[: self.d_out] * self.d) @ self.shared.a[:, : self.d_in]


class VeRA(TargetedMethod):
    """One `ScaledProjection` beside each chosen matrix."""

    Config = VeRAConfig
    starts_as_backbone = True
    config: VeRAConfig

    def attach(self, anatomy: Anatomy) -> None:
        places = list(anatomy.linears(self.config.targets).values())
        d_in, d_out = max(place.d_in for place in places), max(place.d_out for place in places)
        device = places[0].weight().device
        self.shared = Projections(self.config.r, d_in, d_out, self.config.projection_seed, device)
        super().attach(anatomy)

    def put(self, place: LinearPlace) -> nn.Module:
        factor = ScaledProjection(place.weight(), self.shared, self.config)
        place.delta(factor)
        return factor
