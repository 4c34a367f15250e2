"""FISH Mask: the weights with the largest Fisher information train (Sung et al. 2021, arXiv 2111.09839).

Before training, the diagonal of the empirical Fisher information is estimated on `samples` training items:

    F_i = 1/N sum_n (d log p(y_n | x_n) / d w_i)^2

with the labels of the data and one backward pass for each item; the k weights with the largest F_i train, all others
are frozen. The task's head trains in full and is not counted. Until they are chosen (on a model of one's own by
`prepare` of the attachment) the weights are spread evenly over the backbone.

Trainable parameters: floor(density * weights of the backbone). Shipped besides: their positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ...parts.importance import single_items, squared_gradients
from ...parts.sparse import SparseConfig, SparseMethod

if TYPE_CHECKING:
    from ....bench.trainer import Fit


class FishMaskConfig(SparseConfig):
    """How many weights train, and how many items choose them."""

    samples: int = Field(gt=0, description="training items for the Fisher information")


class FishMask(SparseMethod):
    """Chosen once by gradients, then fixed."""

    Config = FishMaskConfig
    config: FishMaskConfig

    def before_fit(self, fit: Fit) -> None:
        self.choose_largest(squared_gradients(fit, self.weights, single_items(fit, self.config.samples)))
