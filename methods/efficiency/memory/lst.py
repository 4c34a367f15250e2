"""LST, ladder side-tuning: a narrow transformer beside the frozen backbone (Sung et al. 2022, arXiv 2206.06522).

The side network is `r` times narrower than the backbone. Its block i reads the gated mean of what left the backbone's
block i, brought to its width by a linear ladder, and of its own state (section 3.2):

    h_i = block_i(mu_i ladder_i(f_i) + (1 - mu_i) h_(i-1)),    mu_i = sigmoid(alpha_i / temperature), alpha_i = 0

The last state, normed and brought back to the backbone's width, takes the place of the backbone's output. The backbone
runs without gradient: nothing of it is kept for the backward pass but the hidden states that the ladders read. In an
encoder-decoder, the decoder's side network attends to the encoder's.

Side blocks start as the backbone's, pruned (section 3.3) by magnitude and head by head, one of the choices in the
authors' code; their scripts weigh by Fisher information, which takes gradients through the backbone first. `skipped`
blocks of every four have no side block, as their scripts for T5-base number them. `keeps_output`, off in their
scripts, mixes the backbone's output in at the end by one more gate. Not as theirs: see `parts.side_network`.

Trainable parameters, for a tower of width d with a side width s = d // r, and inner widths of its matrices divided by
r within each head: ladders (blocks read + 1) (d s + s); for each block read, its pruned matrices and biases, and 2 s
for a norm before each sublayer; a gate for each block read; the final norm 2 s; s d + d for the way back (an encoder
with a decoder has none), and one more gate with `keeps_output`.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.tower import Tower
from ...contract import GradientConfig, Method, parameter_name
from ...parts.bottleneck import Activation
from ...parts.pruned import channels
from ...parts.side_network import Memory, SideEncoder, SideNetwork, SideOutput, SideShape


class LSTConfig(GradientConfig):
    """Width and blocks of the side network."""

    r: int = Field(gt=1, description="the backbone is so many times wider than the side network")
    temperature: float = Field(gt=0, description="divides the gates' parameters")
    skipped: int = Field(ge=0, le=3, description="of every four blocks, the first so many have no side block")
    activation: Activation = Field("gelu", description="nonlinearity of the side blocks")
    keeps_output: bool = Field(False, description="mix the backbone's output with the side network's by a gate")


class LST(Method):
    """One side network for each tower."""

    Config = LSTConfig
    config: LSTConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("attention", "core", "feedforward", "ladder")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.sides = nn.ModuleDict()
        memory = Memory() if any(map(_has_cross_attention, anatomy.towers.values())) else None
        encoded: Tensor | None = None
        for tower in anatomy.towers.values():
            stream = channels(tower, max(1, tower.width // self.config.r))
            if memory is not None and not _has_cross_attention(tower):
                self._put(tower, SideEncoder(SideNetwork(tower, self.shape(tower), stream), memory))
                encoded = stream
                continue
            side = SideNetwork(tower, self.shape(tower), stream, encoded)
            self._put(tower, SideOutput(side, tower.width, self.config.keeps_output, memory))

    def shape(self, tower: Tower) -> SideShape:
        """The side network of one tower; the last block is always read."""
        config, last = self.config, len(tower.blocks) - 1
        read = tuple(i for i in range(last + 1) if i % 4 >= config.skipped or i == last)
        return SideShape(config.r, read, config.temperature, config.activation)

    def _put(self, tower: Tower, function: SideEncoder | SideOutput) -> None:
        self.sides[parameter_name(tower.name)] = function
        tower.ladder(function)


def _has_cross_attention(tower: Tower) -> bool:
    return any(attention.is_cross for block in tower.blocks for attention in block.attentions)
