"""MaPLe: prompts in the first blocks of both towers, those of images made from those of texts (Khattak et al. 2022,
arXiv 2210.03117, section 3.2).

At each of the first `depth` blocks the text tower gets fresh context vectors P_i, at the places where the words of the
context stand, and the image tower the prompts F_i(P_i) beside its patches, with F_i linear. The prompts of the last of
these blocks stay in both towers to the end. As in the authors' code, the first prompts of the image tower pass the norm
before its blocks, if it has one; words of `init` beyond `context` stay in the text; and all F_i but the first start
alike. Prompts of images stand behind the class token and not behind the patches, which is the same to attention.

Trainable parameters: depth * (context * width_t + width_t * width_v + width_v), with width_t and width_v those of the
text and the image tower.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from ....bench.anatomy import Anatomy
from ....bench.anatomy.op_place import OpPlace
from ...contract import Method, MethodConfig
from ...parts.context import DEVIATION, Context, ContextConfig, put


class MaPLeConfig(ContextConfig):
    """The context, and how deep it goes."""

    depth: int = Field(gt=0, description="blocks of each tower that get prompts of their own; 1: the inputs alone")


class ImagePrompts:
    """A source of prompt tokens: hidden (B, L, width_v) -> (B, n, width_v), made from text vectors (n, width_t)."""

    def __init__(self, vectors: nn.Parameter, projection: nn.Linear, norms: list[OpPlace]) -> None:
        self.vectors, self.projection = vectors, projection
        self.norms = [norm.module for norm in norms]

    def __call__(self, hidden: Tensor) -> Tensor:
        prompts: Tensor = self.projection(self.vectors).to(hidden.dtype)
        for norm in self.norms:
            prompts = norm(prompts)
        return prompts.expand(hidden.shape[0], -1, -1)


class TextPrompts:
    """Around a block: the context in its input is replaced."""

    def __init__(self, context: Context, vectors: nn.Parameter) -> None:
        self.context, self.vectors = context, vectors

    def __call__(self, next: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        assert self.context.places is not None, "the embedding comes before the blocks"
        return next(put(hidden, self.context.places, self.vectors))


class MaPLe(Method):
    """Text prompts, and a projection to the image tower for each."""

    Config: ClassVar[type[MethodConfig]] = MaPLeConfig
    config: MaPLeConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("pair", "embedding", "tokens")

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        images, texts, depth = anatomy.towers["vision"], anatomy.towers["text"], self.config.depth
        if depth > min(len(images.blocks), len(texts.blocks)):
            raise ValueError(f"depth={depth}, and the towers have {len(images.blocks)} and {len(texts.blocks)} blocks")
        self.context = Context(anatomy, self.config)
        first = self.context.vectors
        self.deeper = nn.ParameterList(
            nn.Parameter(nn.init.normal_(first.detach().clone(), std=DEVIATION)) for _ in range(depth - 1)
        )
        shape = first.shape[1], images.width
        start, deeper = (nn.Linear(*shape, device=first.device) for _ in range(2))
        self.projections = nn.ModuleList([start, *(copy.deepcopy(deeper) for _ in range(depth - 1))])
        for i, (vectors, projection) in enumerate(zip([first, *self.deeper], self.projections, strict=True)):
            assert isinstance(projection, nn.Linear)
            source = ImagePrompts(vectors, projection, [] if i else images.other_ops)
            images.tokens.insert(source, self.config.context, at=i, until=None if i == depth - 1 else i + 1)
            if i:
                texts.blocks[i].around(TextPrompts(self.context, vectors))
