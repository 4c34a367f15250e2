"""LPT, late prompt tuning: a prompt made from the instance at a middle layer (Liu et al. 2022, arXiv 2210.11292).

At block `depth` * blocks, the hidden states h that enter it make the prompt W_up relu(W_down h_0 + b_down) + b_up, of
`tokens` vectors: the naive prompt generator of section 4.2. h_0 is the first position, as in the authors' code for
encoders; where that position sees nothing of the text (a causal model) `pool` mean takes the mean over positions,
padding included. Nothing below that block trains, so no gradient is computed there. The generator has no dropout
here.

Trainable parameters, for each tower: width * hidden + hidden + hidden * tokens * width + tokens * width.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ...contract import GradientConfig, Method, parameter_name


class LPTConfig(GradientConfig):
    """Where the prompt enters, and the generator's sizes."""

    tokens: int = Field(gt=0, description="prompt vectors")
    hidden: int = Field(gt=0, description="width between the generator's two matrices")
    depth: float = Field(ge=0, lt=1, description="share of the blocks below the prompt")
    pool: Literal["first", "mean"] = Field("first", description="what stands for the instance")


class PromptGenerator(nn.Module):
    """A source of prompt tokens, (B, L, width) -> (B, tokens, width)."""

    def __init__(self, like: Tensor, width: int, config: LPTConfig) -> None:
        super().__init__()
        self.down = nn.Linear(width, config.hidden, device=like.device)
        self.up = nn.Linear(config.hidden, config.tokens * width, device=like.device)
        self.pool, self.tokens = config.pool, config.tokens

    def forward(self, hidden: Tensor) -> Tensor:
        instance = (hidden[:, 0] if self.pool == "first" else hidden.mean(1)).to(self.down.weight.dtype)
        return self.up(self.down(instance).relu()).unflatten(-1, (self.tokens, -1))


class LPT(Method):
    """One prompt generator for each tower."""

    Config = LPTConfig
    config: LPTConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("tokens",)

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.generators = nn.ModuleDict()
        for tower in anatomy.towers.values():
            generator = PromptGenerator(tower.blocks[0].feedforward.up.weight(), tower.width, self.config)
            self.generators[parameter_name(tower.name)] = generator
            at = int(self.config.depth * len(tower.blocks))
            tower.tokens.insert(generator, self.config.tokens, at=at)
