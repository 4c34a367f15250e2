"""CoCoOp: a context that is shifted by a function of the image (Zhou et al. 2022, arXiv 2203.05557, section 3.2).

v_m(x) = v_m + h(x), with h a bottleneck W_2 relu(W_1 x + b_1) + b_2 on the normalised image feature, which gives one
vector for all context vectors. The texts of all classes are encoded once for each image, one image after the other as
in the authors' code.

Trainable parameters: context * width_t + (width * hidden + hidden) + (hidden * width_t + width_t), with width_t that
of the text tower's embeddings, width that of the shared space and hidden = width // reduction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ...contract import Method, MethodConfig
from ...parts.context import Context, ContextConfig


class CoCoOpConfig(ContextConfig):
    """The context, and the network that shifts it."""

    reduction: int = Field(gt=0, description="the network's hidden width is this part of the shared width")


class PerImage(nn.Module):
    """Around class features: (next, images (B, width)) -> (B, C, width), with a shifted context for each image."""

    def __init__(self, context: Context, width: int, reduction: int) -> None:
        super().__init__()
        device, hidden, texts = context.vectors.device, width // reduction, context.vectors.shape[-1]
        self.context = context
        self.net = nn.Sequential(
            nn.Linear(width, hidden, device=device), nn.ReLU(), nn.Linear(hidden, texts, device=device)
        )

    def forward(self, next: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        features = []
        try:
            for image, shift in zip(images.split(1), self.net(images.to(self.context.vectors.dtype)), strict=True):
                self.context.shift = shift
                features.append(next(image))
        finally:
            self.context.shift = None
        return torch.stack(features)


class CoCoOp(Method):
    """One context, and one network."""

    Config: ClassVar[type[MethodConfig]] = CoCoOpConfig
    config: CoCoOpConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("pair", "embedding")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        assert anatomy.pair is not None
        if anatomy.pair.width < self.config.reduction:
            raise ValueError(f"reduction={self.config.reduction} leaves nothing of a width of {anatomy.pair.width}")
        context = Context(anatomy, self.config)
        self.contexts = PerImage(context, anatomy.pair.width, self.config.reduction)
        anatomy.pair.classes.around(self.contexts)
