"""CLIP-Adapter: a bottleneck behind a tower, blended with what the tower says (Gao et al. 2021, arXiv 2110.04544).

f* = ratio * A(f) + (1 - ratio) * f with A(f) = W_2 relu(W_1 f), without biases, on the projected feature before it is
normalised (equations 3 to 6). The authors' code, which made the published numbers, puts a second relu behind W_2 and
adapts images alone, with ratio 0.2; so does this recipe. `rectified: false` gives the equation. Matrices start as torch
draws those of linear layers.

Trainable parameters: 2 * width * (width // reduction) for each adapted side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ...contract import GradientConfig, Method, MethodConfig


class CLIPAdapterConfig(GradientConfig):
    """Sizes and shares of the adapters."""

    reduction: int = Field(gt=0, description="the bottleneck is this part of the shared width")
    ratio: float = Field(ge=0, le=1, description="share of the adapter in the blend; alpha or beta of the paper")
    sides: Literal["image", "text", "both"] = Field("image", description="what is adapted")
    rectified: bool = Field(True, description="a second relu behind the bottleneck, as in the authors' code")


class Blend(nn.Module):
    """f (..., width) -> ratio * A(f) + (1 - ratio) * f."""

    def __init__(self, like: Tensor, width: int, config: CLIPAdapterConfig) -> None:
        super().__init__()
        bottleneck = width // config.reduction
        self.down = nn.Linear(width, bottleneck, bias=False, device=like.device)
        self.up = nn.Linear(bottleneck, width, bias=False, device=like.device)
        self.ratio, self.rectified = config.ratio, config.rectified

    def forward(self, f: Tensor) -> Tensor:
        y = self.up(F.relu(self.down(f.to(self.down.weight.dtype))))
        y = F.relu(y) if self.rectified else y
        return self.ratio * y.to(f.dtype) + (1 - self.ratio) * f


class BlendedClasses:
    """Around class features: (next, images) -> blended features."""

    def __init__(self, blend: Blend) -> None:
        self.blend = blend

    def __call__(self, next: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        blended: Tensor = self.blend(next(images))
        return blended


class CLIPAdapter(Method):
    """One blend for each adapted side."""

    Config: ClassVar[type[MethodConfig]] = CLIPAdapterConfig
    config: CLIPAdapterConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("pair",)

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        pair, config = anatomy.pair, self.config
        assert pair is not None
        if pair.width < config.reduction:
            raise ValueError(f"reduction={config.reduction} leaves nothing of a width of {pair.width}")
        like = next(anatomy.model.parameters())
        sides = ("image", "text") if config.sides == "both" else (config.sides,)
        self.blends = nn.ModuleDict({side: Blend(like, pair.width, config) for side in sides})
        if "image" in sides:
            pair.images.after(self.blends["image"])
        if "text" in sides:
            blend = self.blends["text"]
            assert isinstance(blend, Blend)
            pair.classes.around(BlendedClasses(blend))
