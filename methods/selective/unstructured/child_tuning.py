"""Child-Tuning: only a child network's gradients are used (Xu et al. 2021, arXiv 2109.05687).

    w <- w - lr * Adam(grad * M)

F (task-free): at every step, M is drawn anew, Bernoulli(density) / density for each weight; every weight may move.
D (task-driven): M is fixed before training, one for the weights with the largest Fisher information. As a weight whose
gradient is always zero never moves (without decay), the others are kept as sparse values, which trains the same. Until
they are chosen (on a model of one's own by `prepare` of the attachment) they are spread evenly over the backbone.

Fisher information is summed over the squared gradients of whole batches, as in the authors' code; the paper's equation
has single items. Unlike that code, the choice is over the whole backbone rather than its layers, and gradients are not
clipped tensor by tensor while they are summed.

Trainable parameters: floor(density * weights of the backbone) in mode D, whose positions are shipped too; all weights
of the backbone in mode F.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field

from ....bench.anatomy import Anatomy
from ...parts.importance import squared_gradients
from ...parts.sparse import SparseConfig, SparseMethod

if TYPE_CHECKING:
    from ....bench.trainer import Fit


class ChildTuningConfig(SparseConfig):
    """Which child network is raised. `density` is the paper's p_F or p_D."""

    mode: Literal["F", "D"] = Field(description="F draws the mask at every step, D fixes it by Fisher information")
    batches: int = Field(gt=0, description="training batches for the Fisher information (D)")


class ChildTuning(SparseMethod):
    """A mask on gradients, drawn at every step or chosen once."""

    Config = ChildTuningConfig
    config: ChildTuningConfig

    def attach(self, anatomy: Anatomy) -> None:
        if self.config.mode == "D":
            super().attach(anatomy)
            return
        self.anatomy = anatomy
        for place in anatomy.tensors():
            place.train()

    def before_fit(self, fit: Fit) -> None:
        if self.config.mode == "D":
            self.choose_largest(squared_gradients(fit, self.weights, fit.batches(self.config.batches)))

    def after_backward(self, step: int) -> None:
        if self.config.mode == "D":
            return
        p = self.config.density
        for parameter in self.trained_tensors().values():
            if parameter.grad is not None:
                parameter.grad.mul_(torch.empty_like(parameter.grad).bernoulli_(p).div_(p))

    def load_shipped(self, tensors: dict[str, torch.Tensor]) -> None:
        if self.config.mode == "D":
            super().load_shipped(tensors)
        else:
            super(SparseMethod, self).load_shipped(tensors)
