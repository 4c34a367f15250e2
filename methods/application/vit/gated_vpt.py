"""Gated prompt tuning: prompts of the first block whose share in each block is learned (Yoo et al. 2023,
arXiv 2306.05067, section 4).

Prompts enter at the first block as in `vpt-shallow`. Behind every block but the last, what goes on is
g * p_out + (1 - g) * p_in, with one learned gate g = sigmoid(-logit) for each block: a gate near zero hands the prompts
on untouched, so a block whose gate opens is the one that the prompts are for. In every block the attention's scores are
divided by a learned temperature that starts at one and is kept within 0.01 and 10.

Trainable parameters: for each tower tokens * width + (blocks - 1) + blocks.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.attention import Context
from ....bench.anatomy.tower import Tower
from ...contract import parameter_name
from .vpt import VPT, Prompts, VPTConfig

COLDEST, HOTTEST = 0.01, 10.0


class GatedVPTConfig(VPTConfig):
    """Prompts, and the gates' start."""

    gate_init: float = Field(description="first logit of every gate; sigmoid(-gate_init) of a block's change is taken")


class GatedPrompts(nn.Module):
    """Prompts, gates and temperatures of one tower; called as `Tokens.insert` calls its source, or its `carry`."""

    def __init__(self, tower: Tower, config: GatedVPTConfig) -> None:
        super().__init__()
        self.prompts = Prompts(tower, config.tokens, config.dropout)
        device, blocks = self.prompts.tokens.device, len(tower.blocks)
        self.gates = nn.Parameter(torch.full((blocks - 1,), -config.gate_init, device=device))
        self.temperatures = nn.Parameter(torch.ones(blocks, device=device))

    def forward(self, hidden: Tensor) -> Tensor:
        tokens: Tensor = self.prompts(hidden)
        return tokens

    def carry(self, before: Tensor, after: Tensor, block: int) -> Tensor:
        """The prompts that the next block gets, (B, tokens, width)."""
        gate = self.gates[block].sigmoid().to(after.dtype)
        return gate * after + (1 - gate) * before


class TemperatureOp:
    """Divides the scores of one attention core by its block's temperature."""

    def __init__(self, prompts: GatedPrompts, block: int) -> None:
        self.prompts, self.block = prompts, block

    def __call__(self, next: Any, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        y: Tensor = next(q / self.prompts.temperatures[self.block].to(q.dtype), k, v, context)
        return y


class GatedVPT(VPT):
    """One set of gated prompts for each tower."""

    Config = GatedVPTConfig
    config: GatedVPTConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("tokens", "core")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.prompts = nn.ModuleDict()
        for tower in self.sized(anatomy.towers.values()):
            prompts = GatedPrompts(tower, self.config)
            self.prompts[parameter_name(tower.name)] = prompts
            tower.tokens.insert(prompts, self.config.tokens, carry=prompts.carry)
            for block in tower.blocks:
                assert block.attention.core is not None
                block.attention.core.around(TemperatureOp(prompts, block.index))

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        for prompts in self.prompts.values():
            assert isinstance(prompts, GatedPrompts)
            prompts.temperatures.clamp_(COLDEST, HOTTEST)
