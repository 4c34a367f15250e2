"""How fast an emoji moves, to any side and from anywhere, over a ground without an edge."""

from __future__ import annotations

import numpy as np

from ..contract import SplitName
from .clips import SIZE, Ground, RenderedClips, moved, towards
from .sprites import Sprites, emoji_of_split

SIDE = (16, 24)  # pixels of the emoji
SPEEDS = (1.0, 2.5, 5.0, 9.0)  # pixels from frame to frame, in the order of the card's classes
WITHIN = 0.15  # relative, to either side


class Speed(RenderedClips):
    """A single frame says nothing of speed."""

    SEED = 721

    def sprites(self, split: SplitName) -> Sprites:
        """Emoji."""
        return emoji_of_split(split)

    def draw(self, rng: np.random.Generator, label: int, sprites: Sprites) -> np.ndarray:
        """An emoji on a plain ground of any colour."""
        emoji = sprites.choose(rng, int(rng.integers(*SIDE, endpoint=True)))
        speed = SPEEDS[label] * rng.uniform(1 - WITHIN, 1 + WITHIN)
        velocity = speed * towards(rng.uniform(0, 360))
        return moved(Ground(rng.random(3)).still(), emoji, rng.uniform(0, SIZE, size=2), velocity)
