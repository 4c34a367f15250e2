"""Sentiment of IMDB reviews, from how they end."""

from __future__ import annotations

from ..classification import Classification
from ..contract import Split, SplitName
from .reviews import draw, ending


class Imdb(Classification):
    """Positive or negative, from the last 40 words, where reviewers say what they make of it."""

    def build(self, split: SplitName) -> Split:
        """`text`: the last 40 words of each review."""
        return draw(self.card, split, "imdb", ending)
