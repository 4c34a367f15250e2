"""What rendered tasks share: one generator per item, balanced labels, anti-aliasing, quantisation.

Everything is computed in float64 and rounded once, so that a last-bit difference between processors does not reach
the pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from ..contract import Split, SplitName
from .built_once import BuiltOnce

SIZE = 56  # pixels
SPLITS: tuple[SplitName, ...] = ("train", "test")


def generator(seed: int, split: SplitName, *index: int) -> np.random.Generator:
    """The generator of one item (or, without index, of the split's order). Splits and items share no stream."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, SPLITS.index(split), *index])))


def shuffled_labels(rng: np.random.Generator, items: int, classes: int) -> np.ndarray:
    """int64 (items,): rounds of every class once, each round shuffled; so every prefix is balanced."""
    rounds = [rng.permutation(classes) for _ in range(-(-items // classes))]
    return np.concatenate(rounds)[:items].astype(np.int64)


def to_pixels(image: np.ndarray) -> np.ndarray:
    """uint8 of values in 0..1, rounded, clipped."""
    pixels: np.ndarray = np.clip(np.rint(image * 255.0), 0, 255).astype(np.uint8)
    return pixels


def centres(oversampling: int = 1) -> np.ndarray:
    """float64 (SIZE * oversampling,): coordinates, in pixels, of the centres of (sub)pixels along one side."""
    along: np.ndarray = (np.arange(SIZE * oversampling) + 0.5) / oversampling
    return along


def window(centre: np.ndarray, radius: float, oversampling: int) -> tuple[slice, slice]:
    """Rows and columns of the subpixels around a disc (centre (x, y) and radius in pixels)."""
    low = np.maximum(np.floor((centre - radius) * oversampling), 0).astype(int)
    high = np.ceil((centre + radius) * oversampling).astype(int) + 1
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def shrink(image: np.ndarray, oversampling: int) -> np.ndarray:
    """Mean over squares of `oversampling` pixels: (H, W, ...) -> (H / oversampling, W / oversampling, ...)."""
    k = oversampling
    total: Any = sum(image[row::k, column::k] for row in range(k) for column in range(k)) / k**2
    return total


class Rendered(BuiltOnce):
    """A task whose pictures are drawn, each from its own generator. Subclasses give a seed and `draw`."""

    SEED: ClassVar[int]

    @abstractmethod
    def draw(self, rng: np.random.Generator, label: int) -> np.ndarray:
        """One picture of class `label`: float64 (56, 56, 3) or (56, 56), in 0..1."""

    def make(self, split: SplitName) -> Split:
        """`card.sizes[split]` pictures. Item i depends on nothing but seed, split, its label and i."""
        items = self.card.sizes[split]
        labels = shuffled_labels(generator(self.SEED, split), items, len(self.card.classes))
        images = np.empty((items, SIZE, SIZE, 3), dtype=np.uint8)
        for item, label in enumerate(labels):
            picture = to_pixels(self.draw(generator(self.SEED, split, item), int(label)))
            images[item] = picture if picture.ndim == 3 else picture[..., None]
        names = tuple(f"{self.card.id}/{split}/{item}" for item in range(items))
        return Split({"image": images}, labels, names)
