"""Diff pruning: a sparse change of the weights, found by gates (Guo, Rush and Kim 2021, arXiv 2012.07463).

In a first phase every weight changes by z z_g w, with hard-concrete gates z for the weight and z_g for its matrix (the
structured variant), under a penalty on the expected number of changed weights,

    loss + penalty * sum_g P(z_g > 0) sum_(i in g) P(z_i > 0),

as the paper has it; the authors' code adds the two probabilities up. Then the k largest changes are kept, their gates
settled to values without noise, and all others are dropped (the paper's projection, by magnitude). In a second
phase of the same length only these k train on, from where they are.

Trainable parameters: floor(density * weights of the backbone), which are what is shipped, with their positions, and
what the second phase trains. The first phase trains twice the backbone's weights, and one gate for each matrix and
vector; those are gone afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor

from ...parts.gated_diff import GatedDiff
from ...parts.sparse import SparseConfig, SparseMethod

if TYPE_CHECKING:
    from ....bench.anatomy import Anatomy
    from ....bench.trainer import Fit


class DiffPruningConfig(SparseConfig):
    """How the gates are drawn, trained and penalised."""

    penalty: float = Field(ge=0, description="weight of the expected number of changed weights in the loss")
    structured: bool = Field(description="give each matrix and vector a gate besides those of its weights")
    start: float = Field(description="first value of the gates' parameters")
    low: float = Field(lt=0, description="lower end of the stretched gates")
    high: float = Field(gt=1, description="upper end of the stretched gates")
    gate_lr: float = Field(gt=0, description="peak learning rate of the gates")


class DiffPruning(SparseMethod):
    """Chosen by gates, then trained on under a fixed mask."""

    Config = DiffPruningConfig
    config: DiffPruningConfig

    def attach(self, anatomy: Anatomy) -> None:
        super().attach(anatomy)
        self.diff: GatedDiff | None = None

    def parameter_groups(self) -> list[dict[str, Any]]:
        if self.diff is None:
            return super().parameter_groups()
        gates = [parameter for name, parameter in self.diff.named_parameters() if "alpha" in name]
        return [
            {"params": list(self.diff.w)},
            {"params": gates, "lr": self.config.gate_lr, "weight_decay": 0.0},
        ]

    def before_step(self, step: int) -> None:
        if self.diff is not None:
            self.diff.draw()

    def extra_loss(self) -> Tensor | None:
        return None if self.diff is None else self.config.penalty * self.diff.expected_l0()

    def fit(self, fit: Fit) -> None:
        config = self.config
        self.diff = GatedDiff(self.weights, config.start, config.low, config.high, config.structured)
        self.delta.values.requires_grad_(False)
        fit.gradient_descent()
        change = self.diff.settled()
        self.diff.remove()
        self.diff = None
        self.choose_largest(change.abs())
        with torch.no_grad():
            self.delta.values.copy_(change[self.delta.index])
        self.delta.values.requires_grad_(True)
        fit.gradient_descent()
