"""SAID: training in a random subspace, with a scale for each layer (Aghajanyan et al. 2021, arXiv 2012.13255).

    theta_i = theta0_i + lambda_i (P theta')_i

for each layer i: theta0 are all weights of the backbone, theta' has d dimensions, and P is a Fastfood projection
(`parts.fastfood`). A layer is a block, and all that lies outside the blocks is one more. As in the authors' code each
weight has a projection of its own, scaled to unit columns, lambda starts at one and theta' at zero. There a projection
is one block of the weight's size, which cuts theta' off where that is smaller; here it is a stack of blocks of the size
of theta', as Fastfood was published, and every weight sees all of theta'. P is drawn from `projection_seed` and not
shipped.

Trainable parameters: d, and a scale for each block and one for the rest, which the paper counts as part of its d.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ...contract import GradientConfig, Method
from ...parts.fastfood import Fastfood, ScaledProjection


class SAIDConfig(GradientConfig):
    """Size of the subspace."""

    size: ClassVar[str | None] = "d"

    d: int = Field(gt=0, description="dimensions of the subspace, without the layers' scales")
    projection_seed: int = Field(0, ge=0, description="seed of the projections")


class AddProjection:
    """W -> W + lambda * P theta'."""

    def __init__(self, method: SAID, projection: Fastfood, layer: int) -> None:
        self.theta, self.scales, self.projection, self.layer = method.theta, method.scales, projection, layer

    def __call__(self, value: Tensor) -> Tensor:
        delta: Tensor = ScaledProjection.apply(self.theta, self.scales[self.layer], self.projection)
        return value + delta.view(value.shape).to(value.dtype)


class SAID(Method):
    """One vector, and one projection of it for each weight."""

    Config = SAIDConfig
    starts_as_backbone = True
    config: SAIDConfig

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy, weights = anatomy, anatomy.weights()
        layers, d = len(anatomy.blocks) + 1, self.config.d
        device = next(iter(weights.values()))[0].value().device
        self.theta = nn.Parameter(torch.zeros(d, device=device))
        self.scales = nn.Parameter(torch.ones(layers, device=device))
        generator = torch.Generator().manual_seed(self.config.projection_seed)
        self.projections = nn.ModuleList()
        layer_of = _layers(anatomy)
        for places in weights.values():
            projection = Fastfood(d, places[0].shape.numel(), generator, device)
            self.projections.append(projection)
            for place in places:
                place.reparam(AddProjection(self, projection, layer_of.get(place.parameter, layers - 1)))


def _layers(anatomy: Anatomy) -> dict[nn.Parameter, int]:
    """The number of the block that each parameter inside the blocks belongs to."""
    return {p: i for i, block in enumerate(anatomy.blocks) for p in block.module.parameters()}
