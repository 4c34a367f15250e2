"""Prompt tuning: virtual tokens before the input text (Lester et al. 2021, arXiv 2104.08691).

The tokens are embeddings: they get positions from the library like any other. The model's outputs at their places are
dropped, so that pooling and token scores see the text alone.

Trainable parameters: tokens * width (for each tower that takes a prompt; of T5 the encoder).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.tower import Tower
from ...contract import GradientConfig, Method, MethodConfig


class PromptTuningConfig(GradientConfig):
    """Length of the prompt, and where its first values come from."""

    size: ClassVar[str | None] = "tokens"

    tokens: int = Field(gt=0, description="virtual tokens")
    init: Literal["vocabulary", "random"] = Field(
        "vocabulary", description="rows of the embedding drawn at random, or uniform in +-0.5 (paper, section 3.2)"
    )


class PromptTuning(Method):
    """One prompt for each tower."""

    Config: ClassVar[type[MethodConfig]] = PromptTuningConfig
    config: PromptTuningConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("prompt", "embedding")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.prompts = nn.ParameterDict()
        for tower in anatomy.towers.values():
            if not tower.takes_prompt or tower.embedding is None:
                continue
            table = tower.embedding.weight.value()
            if self.config.init == "vocabulary":
                # drawn on the CPU, so that devices agree; but a count needs no memory for them
                device = "meta" if table.is_meta else "cpu"
                ids = torch.randint(tower.embedding.vocabulary, (self.config.tokens,), device=device)
                prompt = nn.Parameter(table[ids.to(table.device)].detach().float())
            else:
                prompt = nn.Parameter(torch.empty(self.config.tokens, tower.embedding.width, device=table.device))
                nn.init.uniform_(prompt, -0.5, 0.5)
            self.prompts[tower.name] = prompt
            self.put(tower, prompt)

    def put(self, tower: Tower, prompt: nn.Parameter) -> None:
        """Put one tower's prompt before its text."""
        tower.prompt(prompt, self.config.tokens)
