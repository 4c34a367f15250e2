"""UniPELT: LoRA, a prefix and an adapter, each behind a gate (Mao et al. 2022, arXiv 2110.07577, section 3).

In every block: the low-rank update of q and of v is multiplied by a gate on their input; the prefix's keys and values
by a gate on the attention's input; the bottleneck behind the feed-forward, y -> y + g * bottleneck(y), by a gate on its
own input, as in the authors' code (the paper's text has the feed-forward's input there). A gate is sigmoid(w x + b),
averaged over the positions, so one number for a sequence.

Trainable parameters: those of `prefix` and of `lora` on q and v; for each block 2 * width * bottleneck + bottleneck +
width and a gate; a gate for each prefix and each low-rank update; a gate is width + 1. Shipped: the prefix's values in
place of the network that makes them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from ...bench.anatomy import Anatomy
from ...bench.anatomy.attention import Attention
from ..additive.prompt.prefix import Prefix, PrefixConfig, PrefixOp
from ..contract import parameter_name
from ..parts.bottleneck import Activation, Bottleneck, WithResidual
from ..parts.gate import Gated, LastGate, SequenceGate
from ..reparameterized.low_rank.lora import LowRank


class UniPELTConfig(PrefixConfig):
    """The prefix, the low-rank updates and the bottlenecks, which a budget scales alike."""

    in_proportion: ClassVar[tuple[str, ...]] = ("bottleneck", "r", "alpha")

    bottleneck: int = Field(gt=0, description="width between the adapter's two matrices")
    activation: Activation = "relu"
    r: int = Field(gt=0, description="rank of the updates of q and v")
    alpha: float = Field(gt=0, description="their scale is alpha / r")


class GatedPrefixOp(PrefixOp):
    """A prefix whose keys and values are multiplied by the gate of this pass."""

    def __init__(self, values: nn.Module, start: int, attention: Attention, gate: LastGate) -> None:
        super().__init__(values, start, attention.kv_heads, attention.head_dim)
        self.gate = gate

    def pair(self, like: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = super().pair(like)
        gate = self.gate.take().unsqueeze(1).to(like.dtype)
        return keys * gate, values * gate


class UniPELT(Prefix):
    """Three methods in each block, and the gates that weigh them."""

    Config = UniPELTConfig
    config: UniPELTConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return (*super().requires(config), "attention", "feedforward")

    def attach(self, anatomy: Anatomy) -> None:
        self.gates = nn.ModuleDict()
        super().attach(anatomy)
        self.updates, self.adapters = nn.ModuleDict(), nn.ModuleDict()
        config = self.config
        for name, place in anatomy.linears("q+v").items():
            like = place.weight()
            update = LowRank(like, config.r, config.alpha / config.r, 0.0, "kaiming")
            gated = Gated(update, SequenceGate(like, place.d_in))
            self.updates[parameter_name(name)] = gated
            place.delta(gated)
        for block in anatomy.blocks:
            like = block.feedforward.up.weight()
            adapter = Bottleneck(like, block.width, config.bottleneck, config.activation)
            placed = WithResidual(Gated(adapter, SequenceGate(like, block.width)))
            self.adapters[parameter_name(block.name)] = placed
            block.feedforward.sublayer.after(placed)

    def op(self, attention: Attention, start: int) -> PrefixOp:
        """The gated prefix of one attention."""
        gate = SequenceGate(attention.q.weight(), attention.q.d_in)
        self.gates[parameter_name(attention.name)] = gate
        last = LastGate(gate)
        attention.sublayer.before(last)
        return GatedPrefixOp(self.values, start, attention, last)
