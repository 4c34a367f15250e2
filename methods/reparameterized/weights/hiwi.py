"""HiWi: an adapter reads the weights in place of the activations (Liao et al. 2023, arXiv 2305.16742, section 4).

W' = W + s(W W_down) W_up, for each weight matrix or each bias of the feed-forward layers. W_up is zero at the start. W'
does not depend on the input, so it takes the place of W after training and the adapter is thrown away; for biases that
leaves almost nothing to store. A bias vector is one row, always the same one: a ReLU that is off for it stays off, and
at a width of 4 one bias in sixteen would start with all units off and never train. Hence GELU unless asked otherwise.
The adapter has no biases of its own.

Trainable parameters, for each matrix: 2 * bottleneck * d_in; for each bias: 2 * bottleneck * d_out.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.tensors import TensorPlace
from ...contract import GradientConfig, Method, parameter_name
from ...parts.bottleneck import ACTIVATIONS


class HiWiConfig(GradientConfig):
    """What the adapters read."""

    size: ClassVar[str | None] = "bottleneck"

    on: Literal["weights", "biases"] = Field(description="matrices or biases of the feed-forward layers")
    bottleneck: int = Field(gt=0, description="width of the adapters")
    activation: Literal["gelu", "relu", "tanh"] = Field(description="s")


class WeightAdapter(nn.Module):
    """W -> W + s(W W_down) W_up, row by row."""

    def __init__(self, width: int, bottleneck: int, activation: str, device: torch.device) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.down = nn.Parameter(torch.empty(bottleneck, width, device=device))
        self.up = nn.Parameter(torch.zeros(width, bottleneck, device=device))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        read = weight.to(self.down.dtype)
        return (read + F.linear(self.activation(F.linear(read, self.down)), self.up)).to(weight.dtype)


class HiWi(Method):
    """One `WeightAdapter` for each matrix or bias of the feed-forward layers."""

    Config = HiWiConfig
    starts_as_backbone = True
    config: HiWiConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("feedforward", "biases") if config.on == "biases" else ("feedforward",)

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.adapters = nn.ModuleDict()
        for name, linear in self.sized(anatomy.linears("feedforward").items()):
            place: TensorPlace | None = linear.bias() if self.config.on == "biases" else linear
            if place is None:
                raise ValueError(f"{name} has no bias")
            value = place.value()
            adapter = WeightAdapter(value.shape[-1], self.config.bottleneck, self.config.activation, value.device)
            self.adapters[parameter_name(name)] = adapter
            place.reparam(adapter)
