"""Continue training a decoder on the language of IMDB reviews."""

from __future__ import annotations

from dataclasses import replace

from ..contract import Split, SplitName
from ..language_modelling import LanguageModelling
from .reviews import draw, opening

TAKEN_BY_IMDB = 1500  # reviews a class that the task `imdb` draws


class ReviewsLM(LanguageModelling):
    """Bits per byte of how reviews begin."""

    def build(self, split: SplitName) -> Split:
        """`text`: the first 40 words of each review; half of the reviews are positive."""
        drawn = draw(self.card, split, "imdb", opening, skip=TAKEN_BY_IMDB)
        return replace(drawn, labels=None)
