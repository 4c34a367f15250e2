"""DePT: a short prompt and a low-rank change of the embedded text (Shi and Lipani 2023, arXiv 2309.05173, section 2.2).

The embedded text (L, width) becomes E + A B, where A (length, rank) and B (rank, width) belong to positions and not to
words: its first L rows are used, and positions beyond `length` stay as they are. The prompt stands before it. A is
random and B zero, so the text starts unchanged. The two parts have learning rates of their own: `lr` for the prompt,
`lr_embedding` for A and B.

Trainable parameters, for each tower that takes a prompt: tokens * width + rank * (length + width).
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.tower import Tower
from .prompt_tuning import PromptTuning, PromptTuningConfig


class DePTConfig(PromptTuningConfig):
    """The prompt, and the change of the text's embeddings."""

    rank: int = Field(gt=0, description="rank of the change")
    length: int = Field(gt=0, description="positions that are changed, from the first on")
    lr_embedding: float = Field(gt=0, description="peak learning rate of the change")


class PositionalUpdate(nn.Module):
    """(B, L, width) -> (B, L, width): adds A B to the first positions."""

    def __init__(self, table: Tensor, config: DePTConfig) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(config.length, config.rank, device=table.device))
        self.b = nn.Parameter(torch.zeros(config.rank, table.shape[1], device=table.device))
        nn.init.normal_(self.a, std=0.02)

    def forward(self, embedded: Tensor) -> Tensor:
        change = self.a[: embedded.shape[1]] @ self.b
        change = nn.functional.pad(change, (0, 0, 0, embedded.shape[1] - len(change)))
        return embedded + change.to(embedded.dtype)


class DePT(PromptTuning):
    """A prompt and an update of the text for each tower that takes a prompt."""

    Config = DePTConfig
    config: DePTConfig

    def attach(self, anatomy: Anatomy) -> None:
        self.updates = nn.ModuleDict()
        super().attach(anatomy)

    def put(self, tower: Tower, prompt: nn.Parameter) -> None:
        """Put one tower's prompt before its text, and change the text."""
        update = PositionalUpdate(prompt, self.config)
        self.updates[tower.name] = update
        tower.prompt(prompt, self.config.tokens, text=update)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {"params": list(self.prompts.parameters())},
            {"params": list(self.updates.parameters()), "lr": self.config.lr_embedding},
        ]
