"""Tip-Adapter: the training images vote for their classes (Zhang et al. 2021, arXiv 2111.03930, section 3.2).

logits = zero-shot logits + alpha * exp(-beta * (1 - f F^T)) L, with f the normalised feature of an image, F those of
the training images and L their labels, one-hot. Nothing is trained, and nothing is searched on test data: alpha and
beta are hyper-parameters like any other; alpha is to be seen against the scale of the logits, 100 in OpenAI's CLIP. The
features are those of the images as they are; the authors' code averages them over ten random crops.

Trainable parameters: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ...contract import Method, MethodConfig

if TYPE_CHECKING:
    from ....bench.trainer import Fit


class TipAdapterConfig(MethodConfig):
    """Weight and sharpness of the votes."""

    alpha: float = Field(ge=0, description="factor of the votes")
    beta: float = Field(gt=0, description="the larger, the fewer images near the query have a say")


class Votes(nn.Module):
    """(logits (B, C), images (B, width), classes) -> logits, with `keys` (N, width) and their `labels` (N,)."""

    keys: Tensor
    labels: Tensor

    def __init__(self, like: Tensor, width: int, config: TipAdapterConfig, trains: bool) -> None:
        super().__init__()
        self.alpha, self.beta, self.trains = config.alpha, config.beta, trains
        self.register_buffer("labels", torch.empty(0, dtype=torch.long, device=like.device))
        self.hold(torch.empty(0, width, device=like.device), self.labels)

    def hold(self, keys: Tensor, labels: Tensor) -> None:
        """Take the place of the keys and labels so far."""
        self.labels = labels
        if self.trains:
            self.keys = nn.Parameter(keys)
        else:
            self.register_buffer("keys", keys)

    def forward(self, logits: Tensor, images: Tensor, classes: Tensor) -> Tensor:
        if not len(self.labels):
            return logits
        affinity = torch.exp(self.beta * (images @ self.keys.to(images.dtype).T - 1))
        return logits + self.alpha * affinity @ F.one_hot(self.labels, logits.shape[1]).to(images.dtype)


class TipAdapter(Method):
    """Votes, which come with the training data."""

    Config: ClassVar[type[MethodConfig]] = TipAdapterConfig
    starts_as_backbone = True  # without training data there are no votes
    sized_by_data = True
    trains_keys: ClassVar[bool] = False
    config: TipAdapterConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("pair",)

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        assert anatomy.pair is not None
        like = next(anatomy.model.parameters())
        self.votes = Votes(like, anatomy.pair.width, self.config, self.trains_keys)
        anatomy.pair.logits.after(self.votes)

    def before_fit(self, fit: Fit) -> None:
        features, labels = (torch.from_numpy(column).to(self.votes.labels.device) for column in fit.features())
        self.votes.hold(F.normalize(features, dim=-1), labels)

    def fit(self, fit: Fit) -> None:
        """Nothing is trained."""

    def load_shipped(self, tensors: dict[str, Tensor]) -> None:
        labels, votes = tensors.get("adapter.votes.labels"), self.votes
        if labels is not None:  # as many votes as the file holds
            votes.hold(votes.keys.detach().new_zeros(len(labels), votes.keys.shape[1]), torch.zeros_like(labels))
        super().load_shipped(tensors)
