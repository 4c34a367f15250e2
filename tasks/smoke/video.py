"""The smoke task of clips: the pictures of `SmokeVision`, which move."""

from __future__ import annotations

import numpy as np

from ..classification import Classification
from ..contract import Split, SplitName
from .synthetic import SmokeVision

FRAMES, STEP = 4, 7  # and pixels from frame to frame; what leaves on one side comes in on the other


class SmokeVideo(Classification):
    """Which of three colour channels is the brightest."""

    def build(self, split: SplitName) -> Split:
        """`clip`: uint8 (N, 4, 28, 28, 3)."""
        still = SmokeVision(self.card).build(split)
        frames = [np.roll(still.inputs["image"], STEP * i, axis=2) for i in range(FRAMES)]
        return Split({"clip": np.stack(frames, axis=1)}, still.labels, still.items)
