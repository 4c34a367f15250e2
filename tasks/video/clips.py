"""What rendered clips share: a generator for each clip, balanced labels, and pictures that move over a ground.

Each frame, seen alone, looks the same in every class: its distribution over clips and moments does not depend on the
label. So the classes do not differ in the mean of any feature of single frames, nor in that of features averaged over a
clip's frames. They may differ in the spread of such averages (a digit that moves sideways is seen in many columns and
few rows), which a linear probe can use little. In `emoji-order` not even the spread differs, since all classes have the
same frames, and in `moving-mnist-direction` opposite directions have the same.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..classification import Classification
from ..contract import Split, SplitName
from ..vision.drawing import generator, shuffled_labels, to_pixels
from .sprites import Sprite, Sprites

FRAMES = 8
SIZE = 42  # pixels


class RenderedClips(Classification):
    """A task whose clips are drawn, each from its own generator. Subclasses give a seed, `sprites` and `draw`."""

    SEED: ClassVar[int]

    @abstractmethod
    def sprites(self, split: SplitName) -> Sprites:
        """The pictures that may move in clips of a split; none is in both."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, label: int, sprites: Sprites) -> np.ndarray:
        """One clip of class `label`: float64 (8, 42, 42, 3), in 0..1."""

    def build(self, split: SplitName) -> Split:
        """`clip`: uint8 (N, 8, 42, 42, 3). Clip i depends on nothing but seed, split, its label and i."""
        items = self.card.sizes[split]
        labels = shuffled_labels(generator(self.SEED, split), items, len(self.card.classes))
        sprites = self.sprites(split)
        clips = np.empty((items, FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
        for item, label in enumerate(labels):
            clips[item] = to_pixels(self.draw(generator(self.SEED, split, item), int(label), sprites))
        return Split({"clip": clips}, labels, tuple(f"{self.card.id}/{split}/{item}" for item in range(items)))


@dataclass(frozen=True)
class Ground:
    """A plain ground, without an edge: what leaves it on one side comes in on the other."""

    colour: np.ndarray  # (3,) in 0..1

    def still(self) -> np.ndarray:
        """An empty clip, float64 (8, 42, 42, 3)."""
        clip: np.ndarray = np.broadcast_to(self.colour, (FRAMES, SIZE, SIZE, 3)).copy()
        return clip


def lay(frame: np.ndarray, sprite: Sprite, centre: np.ndarray) -> None:
    """Lay a picture over a frame (42, 42, 3), its middle at `centre` (x, y) in pixels, rounded to whole ones."""
    height, width = sprite.opacity.shape[:2]
    left, top = np.rint(centre - np.array([width, height]) / 2).astype(int)
    place = np.ix_((top + np.arange(height)) % SIZE, (left + np.arange(width)) % SIZE)
    frame[place] = sprite.opacity * sprite.colours + (1 - sprite.opacity) * frame[place]


def moved(clip: np.ndarray, sprite: Sprite, start: np.ndarray, velocity: np.ndarray) -> np.ndarray:
    """The clip with a picture that moves evenly, by `velocity` (x, y) pixels from frame to frame."""
    for moment, frame in enumerate(clip):
        lay(frame, sprite, start + moment * velocity)
    return clip


def towards(angle: float) -> np.ndarray:
    """The unit vector (x, y) of an angle in degrees: 0 to the right, 90 upwards, where y falls."""
    direction: np.ndarray = np.array([np.cos(np.radians(angle)), -np.sin(np.radians(angle))])
    return direction
