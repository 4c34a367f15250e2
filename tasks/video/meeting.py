"""Whether two digits that meet pass through one another or bounce back.

They come from opposite sides, on a line of any direction. At the same moments they are at the same two places in both
classes; only who is where in the second half differs.
"""

from __future__ import annotations

import numpy as np

from ..contract import SplitName
from .clips import FRAMES, SIZE, Ground, RenderedClips, lay, towards
from .sprites import Digits, Sprites

SIDE = (14, 18)  # pixels of a digit
REACH = (11.0, 13.0)  # pixels from the middle to where they start
BLACK = Ground(np.zeros(3))


class Meeting(RenderedClips):
    """Classes: pass, bounce."""

    SEED = 741

    def sprites(self, split: SplitName) -> Sprites:
        """Digits."""
        return Digits(split)

    def draw(self, rng: np.random.Generator, label: int, sprites: Sprites) -> np.ndarray:
        """Two white digits on black, of one size."""
        clip = BLACK.still()
        side = int(rng.integers(*SIDE, endpoint=True))
        one, other = sprites.choose(rng, side), sprites.choose(rng, side)
        away = np.linspace(1.0, -1.0, FRAMES) if self.card.classes[label] == "pass" else _there_and_back()
        path = rng.uniform(*REACH) * towards(rng.uniform(0, 360))
        for frame, share in zip(clip, away, strict=True):
            lay(frame, one, SIZE / 2 + share * path)
            lay(frame, other, SIZE / 2 - share * path)
        return clip


def _there_and_back() -> np.ndarray:
    share: np.ndarray = np.abs(np.linspace(1.0, -1.0, FRAMES))
    return share
