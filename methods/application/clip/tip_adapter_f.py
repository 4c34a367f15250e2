"""Tip-Adapter-F: Tip-Adapter whose keys train (Zhang et al. 2021, arXiv 2111.03930, section 3.3).

The keys start as the features of the training images, so that the first predictions are Tip-Adapter's; labels and both
towers stay as they are.

Trainable parameters: training items * width of the shared space. How many these are is known once there is a task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...contract import GradientConfig
from .tip_adapter import TipAdapter, TipAdapterConfig

if TYPE_CHECKING:
    from ....bench.trainer import Fit


class TipAdapterFConfig(TipAdapterConfig, GradientConfig):
    """Weight and sharpness of the votes, and how their keys train."""


class TipAdapterF(TipAdapter):
    """Votes with keys that train."""

    Config = TipAdapterFConfig
    trains_keys = True
    config: TipAdapterFConfig

    def fit(self, fit: Fit) -> None:
        fit.gradient_descent()
