"""LLM-Adapters: the best places of three adapters in a decoder (Hu et al. 2023, arXiv 2304.01933, section 3).

series: y -> y + W_up tanh(W_down y) behind the feed-forward (equation 3); parallel: y -> f(x) + W_up tanh(W_down x)
beside it (equation 4); lora: low-rank updates of q, k, v, up and down, as in the authors' commands, which leave out o
and the gate. The bottlenecks have no biases, as in the authors' code. That code draws both matrices from N(0, 0.02^2);
here W_up starts at zero, its other option, so that all three placements start as the backbone. Its parallel adapter
stands beside each of the matrices up and down; the equation, which has one beside the feed-forward, is taken here.

Trainable parameters: 2 * width * bottleneck for each block (series, parallel), or r * (d_in + d_out) for each of the
chosen matrices (lora).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import nn

from ...bench.anatomy import Anatomy
from ...bench.anatomy.sublayer import Sublayer
from ...bench.anatomy.tower import Block
from ..contract import GradientConfig, parameter_name
from ..parts.adapter import AdapterMethod
from ..parts.bottleneck import Activation, WithResidual
from ..reparameterized.low_rank.lora import LowRank

LORA_TARGETS = "q+k+v+up+down"


class LLMAdaptersConfig(GradientConfig):
    """Which adapter, and its size; `r` and `alpha` are read by the placement lora, the others by the bottlenecks."""

    placement: Literal["series", "parallel", "lora"]
    bottleneck: int = Field(gt=0, description="width between the two matrices")
    activation: Activation = "tanh"
    r: int = Field(gt=0, description="rank of the low-rank updates")
    alpha: float = Field(gt=0, description="their scale is alpha / r")

    @property
    def sized_by(self) -> str | None:
        return "r" if self.placement == "lora" else "bottleneck"

    @property
    def scaled_with_size(self) -> tuple[str, ...]:
        return ("alpha",) if self.placement == "lora" else ()


class LLMAdapters(AdapterMethod):
    """One of the three placements in every block."""

    Config = LLMAdaptersConfig
    config: LLMAdaptersConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("attention", "feedforward")

    def attach(self, anatomy: Anatomy) -> None:
        if self.config.placement != "lora":
            super().attach(anatomy)
            return
        self.anatomy = anatomy
        self.adapters = nn.ModuleDict()
        for name, place in self.sized(anatomy.linears(LORA_TARGETS).items()):
            update = LowRank(place.weight(), self.config.r, self.config.alpha / self.config.r, 0.0, "kaiming")
            self.adapters[parameter_name(name)] = update
            place.delta(update)

    def put(self, block: Block, sublayer: Sublayer) -> nn.Module:
        adapter = self.bottleneck(block, self.config.activation, init="kaiming", bias=False)
        if self.config.placement == "series":
            sublayer.after(WithResidual(adapter))
        else:
            sublayer.beside(adapter)
        return adapter
