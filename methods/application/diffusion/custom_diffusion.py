"""Custom Diffusion: keys and values of cross-attention train, and the embedding of a modifier word (Kumari et al. 2022,
arXiv 2212.04488, section 3.2).

Of a generator's matrices those that map the text, W_k and W_v of each cross-attention, move most in full fine-tuning
(figure 3); they train in place, biases that they may have do not. "<new1> dog" holds the modifier word, which starts as
one that hardly occurs. The regularisation with images of the class is the task's prior preservation; the paper takes
real images. The authors' code takes no gradient of keys and values at the first token of a text, which the paper does
not mention; here all tokens count. Several concepts train together on their images, or are joined
afterwards, see `joining`.

Trainable parameters: d_in * d_out of k and v of each cross-attention and, with a modifier word, tokens * width of the
text encoder's embeddings; as many words as the task has concepts, if that is more.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from ....bench.anatomy import Anatomy
from ...contract import GradientConfig, Method, MethodConfig
from ...parts.new_words import NewWords


class CustomDiffusionConfig(GradientConfig):
    """Whether a word of its own stands before the class's noun."""

    modifier_token: bool = Field(True, description="train the embedding of a new word, `<new1>`")
    tokens: int = Field(1, gt=0, description="new words, one for each concept")


class CustomDiffusion(Method):
    """Trains matrices of cross-attention in place, and rows behind the vocabulary."""

    Config: ClassVar[type[MethodConfig]] = CustomDiffusionConfig
    config: CustomDiffusionConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("cross-attention", "condition") if config.modifier_token else ("cross-attention",)

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        for block in anatomy.blocks:
            for attention in block.attentions:
                if attention.is_cross:
                    attention.k.train()
                    attention.v.train()
        if self.config.modifier_token:
            self.words = NewWords(anatomy, self.config.tokens, start="rare")
