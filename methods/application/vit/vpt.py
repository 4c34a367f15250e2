"""VPT-Deep: fresh prompt tokens among the tokens of every block (Jia et al. 2022, arXiv 2203.12119, equation 5).

The prompts stand behind the class token, get no position, and are taken out again behind their block, which is the
paper's overwriting of the previous block's prompt outputs.

Trainable parameters: blocks * tokens * width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.tower import Tower
from ...contract import GradientConfig, Method, MethodConfig, parameter_name


class VPTConfig(GradientConfig):
    """Number of prompts; dropout acts on the prompts."""

    size: ClassVar[str | None] = "tokens"

    tokens: int = Field(gt=0, description="prompt tokens in each block (VPT-Shallow: at the input)")
    dropout: float = Field(0.0, ge=0, lt=1)


class Prompts(nn.Module):
    """A source of prompt tokens, (B, L, width) -> (B, tokens, width), drawn as the authors do.

    Uniform within sqrt(6 / (patch values + width)); where a tower has no patches, within sqrt(6 / (2 * width)).
    """

    def __init__(self, tower: Tower, tokens: int, dropout: float) -> None:
        super().__init__()
        like = tower.blocks[0].feedforward.up.weight()
        self.tokens = nn.Parameter(torch.empty(tokens, tower.width, device=like.device))
        fan_in = tower.width
        if tower.patch_embedding is not None:
            fan_in = tower.patch_embedding.carrier.weight[0].numel()  # type: ignore[index]
        bound = (6 / (fan_in + tower.width)) ** 0.5
        nn.init.uniform_(self.tokens, -bound, bound)
        self.dropout = dropout

    def forward(self, hidden: Tensor) -> Tensor:
        tokens = F.dropout(self.tokens, self.dropout, self.training) if self.dropout else self.tokens
        return tokens.expand(hidden.shape[0], -1, -1)


class VPT(Method):
    """Prompts of their own in every block."""

    Config: ClassVar[type[MethodConfig]] = VPTConfig
    config: VPTConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("tokens",)

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.prompts = nn.ModuleDict()
        blocks = [(tower, block) for tower in anatomy.towers.values() for block in tower.blocks]
        for tower, block in self.sized(blocks):
            tokens = self.config.tokens
            prompts = self.prompts[parameter_name(block.name)] = Prompts(tower, tokens, self.config.dropout)
            tower.tokens.insert(prompts, tokens, at=block.index, until=block.index + 1)
