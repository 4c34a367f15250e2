"""In which order an elephant, a pineapple and a helicopter appear; each is seen in two frames, alone, anywhere."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from ..contract import SplitName
from .clips import FRAMES, SIZE, Ground, RenderedClips, lay
from .sprites import Emoji, Sprites

CODEPOINTS = ("1f418", "1f34d", "1f681")  # of the partition's vision share
ORDERS = tuple(permutations(range(len(CODEPOINTS))))  # in the order of the card's classes
SHOWN = 2  # frames of each
SIDE = (20, 28)  # pixels


class Order(RenderedClips):
    """All classes have the same frames: two of each emoji, and two that are empty."""

    SEED = 731

    def sprites(self, split: SplitName) -> Sprites:
        """The same three emoji in both splits; where they are, and on which ground, differs."""
        return Emoji(CODEPOINTS)

    def draw(self, rng: np.random.Generator, label: int, sprites: Sprites) -> np.ndarray:
        """Emoji on a plain ground of any colour; the empty frames lie anywhere between them."""
        assert isinstance(sprites, Emoji)
        clip = Ground(rng.random(3)).still()
        gaps = np.sort(rng.integers(0, len(CODEPOINTS) + 1, size=FRAMES - SHOWN * len(CODEPOINTS)))
        for turn, number in enumerate(ORDERS[label]):
            first = turn * SHOWN + int((gaps <= turn).sum())
            side = int(rng.integers(*SIDE, endpoint=True))
            centre = rng.uniform(side / 2, SIZE - side / 2, size=2)
            for frame in clip[first : first + SHOWN]:
                lay(frame, sprites.scaled(number, side), centre)
        return clip
