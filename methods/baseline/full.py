"""Full fine-tuning: every backbone parameter trains.

Trainable parameters: all of the backbone (tied ones once).
"""

from __future__ import annotations

from ...bench.anatomy import Anatomy
from ..contract import GradientConfig, Method


class Full(Method):
    """The baseline that PEFT is compared with."""

    Config = GradientConfig
    starts_as_backbone = True

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        for place in anatomy.tensors():
            place.train()
