"""Sentiment of one-sentence reviews from Rotten Tomatoes."""

from __future__ import annotations

from ..classification import Classification
from ..contract import Split, SplitName
from .reviews import clean, draw


class RottenTomatoes(Classification):
    """Positive or negative, from one sentence."""

    def build(self, split: SplitName) -> Split:
        """`text`: one sentence each, lower case and spaced punctuation as in the source."""
        return draw(self.card, split, "rotten_tomatoes", clean)
