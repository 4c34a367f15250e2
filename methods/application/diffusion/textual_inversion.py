"""Textual Inversion: the embedding of a new word is all that trains (Gal et al. 2022, arXiv 2208.01618, section 3).

v* = argmin_v E || noise - predicted(noisy image, t, text with the word v) ||^2 (equation 2): the task's own loss, with
generator and text encoder frozen. The embedding starts as that of a word that says coarsely what the subject is.

Trainable parameters: tokens * width of the text encoder's embeddings (for each text encoder); as many words as the task
has concepts, if that is more.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from ....bench.anatomy import Anatomy
from ...contract import GradientConfig, Method, MethodConfig
from ...parts.new_words import NewWords


class TextualInversionConfig(GradientConfig):
    """How many new words there are."""

    tokens: int = Field(1, gt=0, description="new words, one for each concept")


class TextualInversion(Method):
    """New rows behind the vocabulary."""

    Config: ClassVar[type[MethodConfig]] = TextualInversionConfig
    config: TextualInversionConfig

    @classmethod
    def requires(cls, config: Any) -> tuple[str, ...]:
        return ("condition",)

    def attach(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self.words = NewWords(anatomy, self.config.tokens, start="noun")
