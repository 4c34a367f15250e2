"""SSF: scale and shift the features behind every operation (Lian et al. 2022, arXiv 2210.08823, equation 4).

y -> gamma * y + beta behind each linear map, each norm and the patch embedding; gamma is drawn from N(1, 0.02^2) and
beta from N(0, 0.02^2), as the authors' code does. In text models the norms in front of the blocks (BERT's embedding
norm) take the place of the patch embedding. All of it merges (section 3.3), except a shift behind a final RMSNorm,
which has no bias and no linear map behind it in the backbone.

Trainable parameters: 2 * d_out for each matrix, 2 * width for each norm and the patch embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import Field
from torch import nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.linear import LinearPlace
from ....bench.anatomy.op_place import OpPlace
from ...contract import GradientConfig, Method, parameter_name


class SSFConfig(GradientConfig):
    """Spread of the first values."""

    init_std: float = Field(0.02, gt=0, description="deviation of scales around one and of shifts around zero")


class SSF(Method):
    """A scale and a shift for each operation."""

    Config = SSFConfig
    config: SSFConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("attention", "feedforward", "norms")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.scales, self.shifts = nn.ParameterDict(), nn.ParameterDict()
        for name, place, width in operations(anatomy):
            device = place.weight().device if isinstance(place, LinearPlace) else _device(place)
            scale, shift = (nn.Parameter(torch.empty(width, device=device)) for _ in range(2))
            nn.init.normal_(scale, mean=1.0, std=self.config.init_std)
            nn.init.normal_(shift, std=self.config.init_std)
            self.scales[parameter_name(name)], self.shifts[parameter_name(name)] = scale, shift
            place.affine(scale, shift)


def operations(anatomy: Anatomy) -> Iterator[tuple[str, LinearPlace | OpPlace, int]]:
    """(name, place, width of its output) of every operation that SSF modulates."""
    for name, place in anatomy.linears("all").items():
        yield name, place, place.d_out
    for tower in anatomy.towers.values():
        patches = [] if tower.patch_embedding is None else [tower.patch_embedding]
        for op in (*patches, *tower.other_ops, *tower.norms):
            yield op.name, op, op.width


def _device(place: OpPlace) -> torch.device:
    return next(iter(place.tensors.values())).value().device
