"""LayerNorm tuning: only the norms of the blocks and the final norm train (Zhao et al. 2023, arXiv 2312.11420).

Trainable parameters: the sizes of those norms, weights and, where they have them, biases; norms of the embeddings stay
frozen, as in HF PEFT's count.
"""

from __future__ import annotations

from typing import Any

from ....bench.anatomy import Anatomy
from ...contract import GradientConfig, Method


class LayerNormTuning(Method):
    """Trains norms in place."""

    Config = GradientConfig
    starts_as_backbone = True

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("norms",)

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        for tower in anatomy.towers.values():
            for norm in tower.norms:
                for place in norm.tensors.values():
                    place.train()
