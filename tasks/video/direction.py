"""Where a digit moves: to one of eight sides. Its start is anywhere, and the ground has no edge."""

from __future__ import annotations

import numpy as np

from ..contract import SplitName
from .clips import SIZE, Ground, RenderedClips, moved, towards
from .sprites import Digits, Sprites

SIDE = (16, 24)  # pixels of the digit
SPEED = (3.5, 6.0)  # pixels from frame to frame
BLACK = Ground(np.zeros(3))


class Direction(RenderedClips):
    """Reversed, a clip shows the same frames and has the opposite label."""

    SEED = 711

    def sprites(self, split: SplitName) -> Sprites:
        """Digits."""
        return Digits(split)

    def draw(self, rng: np.random.Generator, label: int, sprites: Sprites) -> np.ndarray:
        """A white digit on black."""
        digit = sprites.choose(rng, int(rng.integers(*SIDE, endpoint=True)))
        velocity = rng.uniform(*SPEED) * towards(360.0 / len(self.card.classes) * label)
        return moved(BLACK.still(), digit, rng.uniform(0, SIZE, size=2), velocity)
