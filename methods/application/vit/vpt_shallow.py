"""VPT-Shallow: prompt tokens at the input of the first block only (Jia et al. 2022, arXiv 2203.12119, equation 4).

Trainable parameters: tokens * width.
"""

from __future__ import annotations

from torch import nn

from ....bench.anatomy import Anatomy
from ...contract import parameter_name
from .vpt import VPT, Prompts


class VPTShallow(VPT):
    """Prompts that travel through all blocks and are dropped at the end."""

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.prompts = nn.ModuleDict()
        for tower in anatomy.towers.values():
            prompts = Prompts(tower, self.config.tokens, self.config.dropout)
            self.prompts[parameter_name(tower.name)] = prompts
            tower.tokens.insert(prompts, self.config.tokens)
